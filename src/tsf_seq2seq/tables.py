"""Tables: CSV for programs, one dataclass a table and one instance a row; Markdown for readers."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files import write_text

Row = TypeVar("Row")


def write_rows(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Write instances of the dataclass `kind`, all or nothing; its fields are the columns."""
    write_table(path, [field.name for field in fields(kind)], map(astuple, rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write rows of cells, one for each of the named columns, all or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Rows of a CSV as instances of the dataclass `kind`, whose fields are among its columns.

    Raises UserError where the file isn't one.
    """
    columns: Sequence[Any] = fields(kind)  # type: ignore[arg-type]

    def parse(row: Mapping[str, str]) -> Row:
        return kind(**{column.name: column.type(row[column.name]) for column in columns})

    return read_table(path, parse, f"a table of {kind.__name__} rows")


def read_table(path: Path, parse: Callable[[Mapping[str, str]], Row], what: str) -> list[Row]:
    """What `parse` makes of each row of a CSV; UserError where the file is missing or no `what`."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [parse(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, LookupError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is not {what} ({error!r})") from None


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one being the headings, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float, style: str = ".3f") -> str:
    """A cell of a table; – for what could not be measured."""
    return format(value, style) if isfinite(value) else "–"


def interval(mean: float, low: float, high: float, style: str = ".3f") -> str:
    """Mean and confidence interval in a cell, such as 0.31 [0.28, 0.34]."""
    if not isfinite(low):
        return number(mean, style)
    return f"{mean:{style}} [{low:{style}}, {high:{style}}]"
