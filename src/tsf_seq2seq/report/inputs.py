"""Where a report's numbers come from, and their copies beside the page."""

import json
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, examined_method, read_scores
from tsf_seq2seq.files.writing import write_atomically

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
    adaptation: Path | None = None

    def file(self, step: str, name: str) -> Path | None:
        """The file `name` in a step's folder or right below it; None where it isn't there."""
        folder: Path | None = getattr(self, step)
        if folder is None:
            return None
        found = [folder / name, *sorted(folder.glob(f"*/{name}"))]
        return next((path for path in found if path.is_file()), None)


@dataclass
class ReportSources:
    """What the sections read, copied to `report`/data: all that the page's numbers come from.

    `scores` of the evaluation, where there is one; `method`: the one that is examined; `sequences`
    in the page's order. Raises UserError where the evaluation's folder holds no metrics.csv.
    """

    inputs: Inputs
    report: Path
    method: str = ""
    sequences: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.take("evaluation", "metrics.csv")
        if path is None and self.inputs.evaluation is not None:
            raise UserError(f"{self.inputs.evaluation} holds no metrics.csv")
        if path is not None:
            self.scores = read_scores(path)
            self.method = examined_method(self.scores, self.method)
        self.sequences = self.sequences or sequences_of(self.scores)

    def take(self, step: str, name: str, copy: str = "") -> Path | None:
        """A step's file, which is copied beside the page by its name or as `copy`; None without."""
        path = self.inputs.file(step, name)
        if path is not None:
            write_atomically(self.path(copy or name), partial(shutil.copyfile, path))
        return path

    def path(self, name: str) -> Path:
        """Where a file that the page's numbers come from is to be written."""
        return self.report / DATA / name


def read_json(path: Path) -> Any:
    """What a JSON file holds; UserError where it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise UserError(f"{path} can't be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None


def sequences_of(scores: list[Score]) -> list[str]:
    """Sequences in the order in which they first stand among sources, then among targets."""
    sources = (name for score in scores for name in score.sources.split("+"))
    return list(dict.fromkeys([*sources, *(score.target for score in scores)]))
