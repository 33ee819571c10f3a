"""Files that are either whole or not there, one by one or several together."""

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tsf_seq2seq.errors import UserError

Write = Callable[[Path], object]  # fills the file that it is given
STAGING = ".staging"  # of a folder, for files that are to change together
JOURNAL = ".replacing.json"  # in a folder while files in it change together
# Beside a file, while it is written and while an old one may still come back.
TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.(unfinished|replaced)(\.[^.]*)?")


def write_atomically(path: Path, write: Write) -> None:
    """Let `write` fill a temporary file beside `path`, which then takes the place of `path`.

    A process killed in between leaves the old file whole. Raises UserError where the disk refuses.
    """
    with refusals_told(path), _filled(path, write) as temporary:
        temporary.replace(path)


def check_place(path: Path) -> None:
    """UserError where a file could not be written at `path`, told before the work for it."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise UserError(f"{path} is a folder, but must be a file for the results")
    if not above.is_dir():
        raise UserError(f"{path} can't be written: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{path} can't be written: {above} does not let you")


def filling(content: bytes) -> Write:
    """What fills a file with bytes that are at hand."""
    return lambda temporary: temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, all or nothing."""
    write_atomically(path, filling(text.encode()))


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write several UTF-8 text files by their names in `folder`: all change, or none."""
    write_together(folder, {folder / name: filling(own.encode()) for name, own in texts.items()})


def write_together(
    folder: Path, writes: Mapping[Path, Write], removed: tuple[Path, ...] = ()
) -> None:
    """Write several files in `folder` or below it so that all change, or none; `removed` ones go.

    The old files stay until all new ones are whole. A process killed while they change leaves a
    journal, by which `roll_back` brings the old ones back. Raises UserError where the disk refuses.
    """
    with ExitStack() as stack:
        stack.enter_context(refusals_told(next(iter(writes), folder)))
        new = {path: stack.enter_context(_filled(path, write)) for path, write in writes.items()}
        _replace_together(folder, new, removed)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder whose files, at its end, take their places in `folder` as `write_together`
    does it: all, or after an error none."""
    staging = folder / STAGING
    remove_staging(folder)
    staging.mkdir(parents=True)
    try:
        yield staging
        with refusals_told(folder):
            files = sorted(path for path in staging.rglob("*") if path.is_file())
            new = {folder / path.relative_to(staging): path for path in files}
            for above in {path.parent for path in new}:
                above.mkdir(parents=True, exist_ok=True)
            _replace_together(folder, new)
    finally:
        remove_staging(folder)


def remove_staging(folder: Path) -> None:
    """Remove what a killed run had staged in `folder`."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def _replace_together(
    folder: Path, new: Mapping[Path, Path], removed: tuple[Path, ...] = ()
) -> None:
    """Let whole files (the values) take the places of others (the keys), all or none."""
    old = {path: _place_of_old(path) for path in (*new, *removed)}
    write_text(folder / JOURNAL, _journal(folder, old))
    try:
        for path, place in old.items():
            if place is not None:
                path.rename(place)
            if path in new:
                new[path].rename(path)
    except BaseException:
        roll_back(folder)
        raise
    (folder / JOURNAL).unlink()
    for place in filter(None, old.values()):
        with suppress(OSError):  # the next run's remove_leftovers finds it
            place.unlink()


def roll_back(folder: Path) -> None:
    """Bring back the files that a `write_together` of `folder` had begun to replace, if any.

    Raises UserError for a journal that can't be read, or names files outside the folder.
    """
    journal = folder / JOURNAL
    try:
        places = json.loads(journal.read_text(encoding="utf-8"))
        pairs = [(folder / path, place and folder / place) for path, place in places.items()]
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{journal} of an interrupted run can't be read: {error}") from None
    for path, place in reversed(pairs):
        if not is_inside(path, folder) or (place and not is_inside(place, folder)):
            raise UserError(f"{journal} names {path}, which lies outside the folder")
        if place is None:
            path.unlink(missing_ok=True)
        elif place.exists():
            place.replace(path)
    journal.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed runs from `folder` and below; those of living ones stay."""
    for path in sorted(folder.rglob(".*")):
        if TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer holds it
                path.unlink()


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file's place lies in a folder, with links and .. on the way to it followed."""
    return path.parent.resolve().is_relative_to(folder.resolve()) and path.name not in ("", "..")


@contextmanager
def refusals_told(path: Path) -> Iterator[None]:
    """Within it, a disk or file system that refuses is a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} could not be written: {error}") from error


@contextmanager
def _filled(path: Path, write: Write) -> Iterator[Path]:
    """The temporary file, whole and on the disk; it is gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem[:40]}.", suffix=f".unfinished{path.suffix}", dir=path.parent
    )
    temporary = Path(name)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.chmod(0o666 & ~_umask())
        write(temporary)
        os.fsync(handle)
        yield temporary
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _place_of_old(path: Path) -> Path | None:
    """A free name beside a file, for the time until the new one is there; None without a file."""
    if not path.exists():
        return None
    token = secrets.token_hex(4)
    return path.with_name(f".{path.stem[:40]}.{token}.replaced{path.suffix}")


def _journal(folder: Path, old: Mapping[Path, Path | None]) -> str:
    return json.dumps(
        {
            str(path.relative_to(folder)): place and str(place.relative_to(folder))
            for path, place in old.items()
        }
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
