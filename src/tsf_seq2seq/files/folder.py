"""A folder of results, which one run at a time writes to."""

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import remove_leftovers, remove_staging, roll_back

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within it, `folder` (made if need be) is this run's alone, and free of what killed ones left.

    The system gives the lock back when the process ends, however it ends. Raises UserError where
    the folder is a file, can't be made or written to, or another run has it. A folder that was made
    here and stayed empty is removed again.
    """
    made = _make(folder)
    try:
        with _locked(folder):
            roll_back(folder)
            remove_staging(folder)
            remove_leftovers(folder)
            yield
    finally:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; the ones that were not there, the innermost first."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, but must be a folder for the results")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} can't be made: {error.strerror}") from None
    return missing


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    handle = _acquire(path)
    try:
        with suppress(OSError):  # who holds it is for people; a full disk is told by what follows
            os.truncate(handle, 0)
            os.write(handle, _description().encode(errors="replace"))
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the lock goes: whoever gets that of a removed file looks again
        os.close(handle)


def _acquire(path: Path) -> int:
    """The lock file, opened and locked; UserError where another run has it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{path.parent} can't be written to: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == _inode(path):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"{path.parent} is in use: {_holder(path)}") from None
        except OSError as error:
            text = f"warning: {path.parent} can't be locked ({error.strerror})"
            print(f"{text}: let one run at a time write to it", file=sys.stderr)
            return handle
        os.close(handle)


def _inode(path: Path) -> int | None:
    """None where the file was removed since it was opened."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _description() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    return json.dumps(holder | {"command": command})


def _holder(path: Path) -> str:
    """Whose run it is, and since when, as far as the lock tells."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return (
            f"process {found['process']} on {found['host']} has been writing to it since "
            f"{found['since']} ({found['command']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another run is writing to it"
