"""Split CSVs: which subjects there are, what each is treated as having, and its site."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from tsf_seq2seq.data.names import holds_control_signs, name_defect
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular


class SplitRow(NamedTuple):
    """A subject's line of a split CSV."""

    name: str
    mask: int  # the sequences that it is treated as having, the first one the highest bit
    site: str | None = None  # scanner and protocol; None where the file tells none


def read_split(path: Path, n_sequences: int) -> list[SplitRow]:
    """Rows name,mask or name,mask,site of a split CSV, with or without a header line.

    Raises UserError where the file is missing or empty, a name stands twice or can't be one
    (`name_defect`), a mask is no whole number from 1 to 2^S − 1, a site holds control characters,
    or a row more than three columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if any(row)]
    except FileNotFoundError:
        raise UserError(f"split CSV {path} does not exist") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"split CSV {path} can't be read: {error}") from None
    if lines and [cell.strip().lower() for cell in lines[0][1][:2]] == ["name", "mask"]:
        _check_header(lines[0][1], f"split CSV {path}, line {lines[0][0]}:")
        lines = lines[1:]
    if not lines:
        raise UserError(f"split CSV {path} names no subject")
    rows: dict[str, SplitRow] = {}
    for line, cells in lines:
        row = _parse_row(cells, f"split CSV {path}, line {line}:", n_sequences)
        if row.name in rows:
            raise UserError(
                f"split CSV {path} names subject {row.name} twice, again in line {line}"
            )
        rows[row.name] = row
    return list(rows.values())


def _check_header(cells: list[str], place: str) -> None:
    """UserError unless what follows name,mask is nothing or site: of another column's values, say
    ages, sites would be made."""
    if [cell.strip().lower() for cell in cells[2:]] not in ([], [""], ["site"]):
        raise UserError(f"{place} header '{','.join(cells)}' must be name,mask or name,mask,site")


def _parse_row(cells: list[str], place: str, n_sequences: int) -> SplitRow:
    largest = 2**n_sequences - 1
    name, mask = cells[0].strip(" \t"), "".join(cells[1:2]).strip()
    if not name or not re.fullmatch("[0-9]{1,9}", mask) or not 1 <= int(mask) <= largest:
        raise UserError(
            f"{place} row '{','.join(cells)}' must be name,mask with a mask from 1 to {largest}"
        )
    if defect := name_defect(name):
        raise UserError(f"{place} '{name}' can't be a subject's name, which {defect}")
    if len(cells) > 3:
        raise UserError(
            f"{place} row '{','.join(cells)}' must be name,mask or name,mask,site, but has "
            f"{len(cells)} columns"
        )
    site = "".join(cells[2:]).strip()
    if holds_control_signs(site):
        raise UserError(f"{place} site '{site}' can't hold control characters")
    return SplitRow(name, int(mask), site or None)
