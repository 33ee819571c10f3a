"""Files that are either whole or not there, and their checksums."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tsf_seq2seq.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, which then takes the place of `path`.

    A process killed in between leaves the old file whole. Raises UserError where the disk refuses.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path} could not be written: {error}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, all or nothing."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; UserError where it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
