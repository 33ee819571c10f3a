"""Split CSVs: which subjects there are, and what each is treated as having."""

import csv
import re
from pathlib import Path

from tsf_seq2seq.data.names import name_defect
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular


def read_split(path: Path, n_sequences: int) -> list[tuple[str, int]]:
    """(name, mask) rows of a split CSV, with or without a header line.

    Raises UserError where the file is missing or empty, a name stands twice or can't be one
    (`name_defect`), or a mask is no whole number from 1 to 2^S − 1.
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
        lines = lines[1:]
    if not lines:
        raise UserError(f"split CSV {path} names no subject")
    split: dict[str, int] = {}
    for line, row in lines:
        name, mask = _parse_row(row, f"split CSV {path}, line {line}:", n_sequences)
        if name in split:
            raise UserError(f"split CSV {path} names subject {name} twice, again in line {line}")
        split[name] = mask
    return list(split.items())


def _parse_row(row: list[str], place: str, n_sequences: int) -> tuple[str, int]:
    largest = 2**n_sequences - 1
    name, mask = row[0].strip(" \t"), "".join(row[1:2]).strip()
    if not name or not re.fullmatch("[0-9]{1,9}", mask) or not 1 <= int(mask) <= largest:
        raise UserError(
            f"{place} row '{','.join(row)}' must be name,mask with a mask from 1 to {largest}"
        )
    if defect := name_defect(name):
        raise UserError(f"{place} '{name}' can't be a subject's name, which {defect}")
    return name, int(mask)
