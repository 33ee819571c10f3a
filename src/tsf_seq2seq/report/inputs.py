"""Where a report's numbers come from, and their copies beside the page."""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files import write_atomically
from tsf_seq2seq.scores import Score

Row = TypeVar("Row")
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


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Rows of a CSV as instances of the dataclass `kind`, whose fields are among its columns.

    Raises UserError where the file isn't one.
    """
    columns: Sequence[Any] = fields(kind)  # type: ignore[arg-type]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                kind(**{column.name: column.type(row[column.name]) for column in columns})
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of {kind.__name__} rows ({error!r})") from None
