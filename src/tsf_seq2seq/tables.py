"""Tables: one value, laid out as Markdown, CSV and HTML; CSV files of a dataclass's instances."""

import csv
import io
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tsf_seq2seq.errors import UserError, printable
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
        return f"{printable(self.caption)}\n\n{markdown([self.headings, *self.cells()])}"

    def write_csv(self, path: Path) -> None:
        """Write the cells with all their decimals, all or nothing; None is an empty cell."""
        write_table(path, self.headings, self.rows)


def write_rows(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Write instances of the dataclass `kind`, all or nothing; its fields are the columns."""
    write_text(path, rows_text(kind, rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write rows of cells, one for each of the named columns, all or nothing."""
    write_text(path, table_text(columns, rows))


def rows_text(kind: type[Any], rows: Iterable[Any]) -> str:
    """What `write_rows` writes."""
    columns = [field.name for field in fields(kind)]
    return table_text(columns, map(attrgetter(*columns), rows))


def table_text(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """What `write_table` writes; its lines end with a line feed."""
    text = _Lines()
    writer = csv.writer(text, lineterminator=text.END)
    writer.writerow(columns)
    writer.writerows(rows)
    return "".join(text.lines)


class _Lines:
    """Lines that csv.writer writes: it puts cells into quotes only for the ends that it knows."""

    END = "\r\n"

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line.removesuffix(self.END) + "\n")


def read_rows(
    path: Path,
    kind: type[Row],
    what: str = "",
    check: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Rows of a CSV as instances of the dataclass `kind`, whose fields are its columns.

    Its `LABELS` first ones tell rows apart. Raises UserError as `read_table` does, and where
    `check` of a row raises ValueError.
    """
    columns: Sequence[Any] = fields(kind)  # type: ignore[arg-type]
    labels = [column.name for column in columns][: kind.LABELS]  # type: ignore[attr-defined]

    def parse(row: Mapping[str, str]) -> Row:
        values = {own.name: _value(own.type, row[own.name], own.name) for own in columns}
        made = kind(**values)
        check(made)
        return made

    what = what or f"a table of {kind.__name__} rows"
    return read_table(path, parse, what, labels, [column.name for column in columns])


def read_table(
    path: Path,
    parse: Callable[[Mapping[str, str]], Row],
    what: str,
    labels: Sequence[str],
    columns: Sequence[str] = (),
) -> list[Row]:
    """What `parse` makes of each row of a CSV, by its columns: `labels`, or all the `columns`.

    Raises UserError that names file and line where the file is missing or no `what`: where a
    column is missing, twice or unknown, a row is cut short, too long or has the labels of an
    earlier one, `parse` raises ValueError, or the last line has no end.
    """
    reader = csv.reader(io.StringIO(_text_of(path, what), newline=""), strict=True)
    rows, lines = [], dict[tuple[str, ...], int]()
    try:
        heading = next(reader, [])
        _check_heading(heading, labels, columns)
        for cells in filter(None, reader):
            if len(cells) != len(heading):
                raise ValueError(f"it has {len(cells)} cells, but there are {len(heading)} columns")
            row = dict(zip(heading, cells, strict=True))
            key = tuple(row[label] for label in labels)
            if not all(key):
                raise ValueError(f"its {labels[key.index('')]} is empty")
            first = lines.setdefault(key, reader.line_num)
            if first != reader.line_num:
                raise ValueError(f"it is of the same {', '.join(labels)} as line {first}")
            rows.append(parse(row))
    except (ValueError, csv.Error) as error:
        raise _damaged(path, what, reader.line_num, str(error)) from None
    return rows


def number(text: str, kind: type = float) -> Any:
    """A cell's number, as `write_table` writes it; ValueError for another text."""
    try:
        if text.isascii() and text.isprintable() and " " not in text and "_" not in text:
            return kind(text)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no {'whole number' if kind is int else 'number'}")


def _value(kind: type, text: str, column: str) -> Any:
    if kind is str:
        return text
    try:
        return number(text, kind)
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _check_heading(heading: Sequence[str], labels: Sequence[str], columns: Sequence[str]) -> None:
    """ValueError unless every column needed stands there once, and none that isn't known."""
    for column in columns or labels:
        if column not in heading:
            raise ValueError(f"there is no column {column}")
    for place, column in enumerate(heading):
        if column in heading[:place] or (columns and column not in columns):
            twice = column in heading[:place]
            raise ValueError(f"column {column!r} {'stands twice' if twice else 'is not known'}")


def _text_of(path: Path, what: str) -> str:
    """A table's text; UserError where it can't be read, or is cut short."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is no file")
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _damaged(path, what, line, "it is no UTF-8 text") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _damaged(path, what, line, "it holds a null character")
    if text and not text.endswith("\n"):
        raise _damaged(path, what, text.count("\n") + 1, "it has no end: the file was cut short")
    return text


def _damaged(path: Path, what: str, line: int, error: str) -> UserError:
    return UserError(f"{path} is not {what}: line {max(line, 1)}: {error}")


def group_by(rows: Iterable[Row], name: Callable[[Row], Name]) -> dict[Name, list[Row]]:
    """Rows by what `name` says of them, in order of first appearance."""
    groups: dict[Name, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return groups


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one being the headings, in aligned columns; each on one line."""
    rows = [[printable(cell) for cell in row] for row in rows]
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
