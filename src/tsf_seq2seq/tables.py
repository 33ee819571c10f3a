"""Tables: one value, laid out as Markdown, CSV and HTML; CSV files of a dataclass's instances."""

import csv
import io
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import write_text

Row = TypeVar("Row")
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first `labels` columns name their rows, the others are numbers.

    Numbers with decimals are shown in `style`; – stands for None and for what could not be
    measured. The report's templates lay it out as HTML.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    labels: int = 1
    style: str = ".3f"

    def cells(self) -> list[list[str]]:
        """The rows as readers see them."""
        return [[cell_text(cell, self.style) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """The caption, and the table below it."""
        return f"{self.caption}\n\n{markdown([self.headings, *self.cells()])}"

    def write_csv(self, path: Path) -> None:
        """Write the cells with all their decimals, all or nothing; None is an empty cell."""
        write_table(path, self.headings, self.rows)


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


def group_by(rows: Iterable[Row], name: Callable[[Row], Name]) -> dict[Name, list[Row]]:
    """Rows by what `name` says of them, in order of first appearance."""
    groups: dict[Name, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return groups


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one being the headings, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell_text(cell: object, style: str = ".3f") -> str:
    """A cell as readers see it."""
    if isinstance(cell, float):
        return format(cell, style) if isfinite(cell) else "–"
    return "–" if cell is None else str(cell)


def interval(mean: float, low: float, high: float, style: str = ".3f") -> str:
    """Mean and confidence interval in a cell, such as 0.31 [0.28, 0.34]."""
    if not isfinite(low):
        return cell_text(mean, style)
    return f"{mean:{style}} [{low:{style}}, {high:{style}}]"
