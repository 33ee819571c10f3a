"""What a file holds, told cheaply or for certain."""

import hashlib
import os
from pathlib import Path

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular

GZIP_MAGIC = b"\x1f\x8b"
GZIP_TRAILER_BYTES = 8  # CRC-32 and length of what was packed


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; UserError where it can't be read."""
    try:
        with open(path, "rb", opener=regular) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None


def fingerprint(path: Path) -> str:
    """What changes when a file's content does, whatever its name and times.

    Of a gzip file its size and trailer, which holds the CRC-32 and length of all that was packed:
    three small reads. Of any other its SHA-256. Raises UserError where it can't be read.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            packed = file.read(2) == GZIP_MAGIC
            size = file.seek(0, os.SEEK_END)
            if packed and size > GZIP_TRAILER_BYTES:
                file.seek(-GZIP_TRAILER_BYTES, os.SEEK_END)
                return f"gzip:{size}:{file.read().hex()}"
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return f"sha256:{sha256(path)}"
