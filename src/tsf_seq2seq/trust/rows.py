"""Results as CSV: one dataclass a table, one instance a row."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

from tsf_seq2seq.files import write_text


def write_rows(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Write instances of the dataclass `kind`, all or nothing; its fields are the columns."""
    write_table(path, [field.name for field in fields(kind)], map(asdict, rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows of the named columns, all or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def number(value: float, style: str = ".3f") -> str:
    """A cell of a table; – for what could not be measured."""
    return format(value, style) if isfinite(value) else "–"


def interval(mean: float, low: float, high: float, style: str = ".3f") -> str:
    """Mean and confidence interval in a cell, such as 0.31 [0.28, 0.34]."""
    if not isfinite(low):
        return number(mean, style)
    return f"{mean:{style}} [{low:{style}}, {high:{style}}]"
