"""Split CSVs: which subjects there are, and what each is treated as having."""

import csv
from pathlib import Path

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular


def read_split(path: Path, n_sequences: int) -> list[tuple[str, int]]:
    """(name, mask) rows of a split CSV, with or without a header line.

    Raises UserError where the file is missing or empty, a name stands twice, or a mask is no whole
    number from 1 to 2^S − 1.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except FileNotFoundError:
        raise UserError(f"split CSV {path} does not exist") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"split CSV {path} can't be read: {error}") from None
    if rows and [cell.lower() for cell in rows[0][:2]] == ["name", "mask"]:
        rows = rows[1:]
    split = [_parse_row(row, path, n_sequences) for row in rows]
    names = [name for name, _ in split]
    if not split:
        raise UserError(f"split CSV {path} names no subject")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"split CSV {path} names subject {twice} twice")
    return split


def _parse_row(row: list[str], path: Path, n_sequences: int) -> tuple[str, int]:
    largest = 2**n_sequences - 1
    mask = row[1] if len(row) > 1 else ""
    if not row[0] or not mask.isascii() or not mask.isdigit() or not 1 <= int(mask) <= largest:
        raise UserError(
            f"split CSV {path}: row '{','.join(row)}' must be name,mask with a mask from 1 to "
            f"{largest}"
        )
    return row[0], int(mask)
