"""Where a report's numbers come from, and their copies beside the page."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.files import write_atomically

DATA = "data"  # folder of the report


@dataclass(frozen=True)
class Inputs:
    """Folders of earlier steps; None where a step was not made."""

    evaluation: Path | None = None
    stage1: Path | None = None
    stage2: Path | None = None
    fusion_weights: Path | None = None
    tsem: Path | None = None
    single_source: Path | None = None
    trust: Path | None = None

    def file(self, step: str, name: str) -> Path | None:
        """The file `name` in a step's folder or right below it; None where it isn't there."""
        folder: Path | None = getattr(self, step)
        if folder is None:
            return None
        found = [folder / name, *sorted(folder.glob(f"*/{name}"))]
        return next((path for path in found if path.is_file()), None)


class DataFolder:
    """The folder data/ of a report: everything that the page's numbers were computed from."""

    def __init__(self, report: Path) -> None:
        self.folder = report / DATA

    def copy(self, path: Path, name: str | None = None) -> str:
        """Copy a file there; its link from the page."""
        name = name or path.name
        write_atomically(self.folder / name, lambda temporary: shutil.copyfile(path, temporary))
        return f"{DATA}/{name}"

    def path(self, name: str) -> Path:
        """Where the file `name`, that the report itself computes, is to be written."""
        return self.folder / name


@dataclass(frozen=True)
class Sources:
    """What the sections read, and where they put copies."""

    inputs: Inputs
    data: DataFolder
    scores: Sequence[Score]
    sequences: Sequence[str]
