"""What a folder's results are results of: of one run, and of each subject's own files and tasks.

An interrupted run goes on; what has changed since is done again; another run is refused.
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsf_seq2seq.config import Config, to_mapping
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.errors import UserError, first_of, printable
from tsf_seq2seq.files.fingerprint import fingerprint, sha256
from tsf_seq2seq.files.writing import filling, is_inside, write_atomically, write_text
from tsf_seq2seq.tasks import Task

UNFINISHED = "left unfinished"
MadeFrom = Mapping[str, str]  # what a subject's results depend on → what it was then


def identity_of(config: Config, weights: Iterable[Path], **choices: object) -> dict[str, Any]:
    """All that a run's results depend on but its subjects: weights by their SHA-256, `choices`,
    network, data."""
    values = to_mapping(config.data)
    keys = ("root", "test", "sequences", "stack", "slices", "crop")
    return {
        "weights": {str(path): sha256(path) for path in weights},
        **choices,
        "network": to_mapping(config.network),
        "data": {key: values[key] for key in keys},
    }


def made_from(
    subject: Subject, sequences: Iterable[int], tasks: Iterable[Task], names: Sequence[str]
) -> dict[str, str]:
    """What a subject's results depend on: its tasks, and the content of its `sequences`."""
    labels = "\n".join("{}:{}".format(*task.label(names)) for task in tasks)
    contents = {names[index]: subject.fingerprint(index) for index in sorted(sequences)}
    return contents | {"its tasks": hashlib.sha256(labels.encode()).hexdigest()[:16]}


def digest_of(subjects: Iterable[Subject]) -> str:
    """One SHA-256 of the content of all subjects' sequences on disk."""
    contents = [[s.name, [[i, s.fingerprint(i)] for i in s.on_disk]] for s in subjects]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A subject's line: its results (JSON), None while they are being made.

    `files`: what it left, relative to the folder, each with its fingerprint; None: no files were
    wanted.
    """

    made_from: MadeFrom
    results: Any = None
    files: Mapping[str, str] | None = None


class Record:
    """The results of a folder by subject; `identity` lies beside them as JSON.

    Lines are only added, each with its checksum, so that a run may be killed anywhere. A subject is
    begun before the first of its files changes, and whole once its results stand here; what the
    folder's tables show is taken from here.
    """

    def __init__(self, identity_path: Path, identity: Mapping[str, Any], results: Path) -> None:
        """Go on with what is there; UserError where `results` or lines come from another identity.

        `results`: a table that runs leave, of earlier versions of this software without a record.
        """
        self.folder, self.path = identity_path.parent, identity_path.with_suffix(".record")
        self.entries = read_entries(identity_path)
        text = json.dumps(identity, indent=1) + "\n"
        if self.entries or results.exists():
            _check_identity(identity_path, text)
        else:
            write_text(identity_path, text)
        self.compact()

    @property
    def files(self) -> set[str]:
        """All that subjects left, relative to the folder."""
        return {file for entry in self.entries.values() for file in entry.files or ()}

    def outdated(
        self, wanted: Mapping[str, Callable[[], MadeFrom]], with_files: bool
    ) -> dict[str, str]:
        """Subjects to be done, of those `wanted`, each with the reason why again ("": it is new).

        What isn't true any more is forgotten, and files that it left are removed (those that other
        subjects left, too, are not). Says which are done again, and which are not asked for.
        """
        reasons, others = {}, [name for name in self.entries if name not in wanted]
        for name, inputs in wanted.items():
            reason = self._reason(name, inputs, with_files) if name in self.entries else ""
            if reason is not None:
                reasons[name] = reason
        unfinished = [name for name, entry in self.entries.items() if entry.results is None]
        self._forget({*unfinished, *(name for name, reason in reasons.items() if reason)})
        self._tell(reasons, [name for name in others if name in self.entries])
        return reasons

    def begin(self, name: str, files: Iterable[str] = ()) -> None:
        """Say that a subject's results, and its `files`, are about to change."""
        self._add(name, Entry({}, None, dict.fromkeys(files, "")))

    def finish(self, name: str, entry: Entry) -> None:
        """Say what a subject's results are."""
        self._add(name, entry)

    def results(self, names: Iterable[str]) -> list[Any]:
        """Results of those of the subjects that are done."""
        entries = (self.entries.get(name) for name in names)
        return [entry.results for entry in entries if entry and entry.results is not None]

    def compact(self, names: Iterable[str] = ()) -> None:
        """Write one line a subject, `names` first."""
        first = {name: self.entries[name] for name in names if name in self.entries}
        self.entries = first | self.entries
        if self.entries or self.path.exists():
            content = b"".join(_line(name, entry) for name, entry in self.entries.items())
            write_atomically(self.path, filling(content))

    def _reason(self, name: str, inputs: Callable[[], MadeFrom], with_files: bool) -> str | None:
        """Why a subject must be done again; None where it needn't."""
        entry = self.entries[name]
        if entry.results is None:
            return UNFINISHED
        if changed := differing(entry.made_from, inputs()):
            return f"changed: {', '.join(changed)}"
        if with_files and entry.files is None:
            return "without predictions"
        if with_files and not all(self._is_there(*file) for file in (entry.files or {}).items()):
            return "predictions missing or changed"
        return None

    def _tell(self, reasons: Mapping[str, str], others: Sequence[str]) -> None:
        again = [f"{printable(name)} ({reason})" for name, reason in reasons.items() if reason]
        if again:
            print(f"{_counted(again)} done again, to be true to what lies there: {first_of(again)}")
        if others:
            kept = [printable(name) for name in others]
            print(f"{_counted(kept)} not asked for now, and kept in {self.path}: {first_of(kept)}")

    def _is_there(self, file: str, content: str) -> bool:
        path = self.folder / file
        return path.is_file() and fingerprint(path) == content

    def _forget(self, names: set[str]) -> None:
        """Remove what subjects left; until that is done, they are begun and not finished."""
        others = [entry.files or () for name, entry in self.entries.items() if name not in names]
        kept = {file for files in others for file in files}
        for name in sorted(names):
            files = [file for file in self.entries[name].files or () if file not in kept]
            self.begin(name, files)
            for path in (self.folder / file for file in files):
                if is_inside(path, self.folder):
                    path.unlink(missing_ok=True)
            del self.entries[name]

    def _add(self, name: str, entry: Entry) -> None:
        try:
            with open(self.path, "ab") as file:
                file.write(_line(name, entry))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error}") from error
        self.entries[name] = entry


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys under which two mappings hold different values, or one of them nothing."""
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def read_entries(identity_path: Path) -> dict[str, Entry]:
    """Subjects' entries; lines that are damaged, or that a killed run cut short, are left out."""
    path = identity_path.with_suffix(".record")
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return dict(found for line in lines if (found := _parsed(line)))


def _counted(items: Sequence[str]) -> str:
    return "1 subject is" if len(items) == 1 else f"{len(items)} subjects are"


def _check_identity(path: Path, text: str) -> None:
    """UserError unless the file holds this text."""
    try:
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError):
        found = ""
    if found != text:
        raise UserError(
            f"{path.parent} holds the results of another run ({path} differs{_where(found, text)});"
            " name another folder with -o"
        )


def _where(found: str, text: str) -> str:
    """In which keys two identities differ, as far as one can tell."""
    try:
        before, now = dict(json.loads(found)), dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return ""
    keys = map(printable, differing(before, now))
    return f" in {', '.join(keys)}" if before != now else ""


def _line(name: str, entry: Entry) -> bytes:
    """Checksum, and the packed entry, as one line of ASCII."""
    content = [name, entry.made_from, entry.results, entry.files]
    packed = base64.b64encode(zlib.compress(json.dumps(content).encode()))
    return b"%08x %s\n" % (zlib.crc32(packed), packed)


def _parsed(line: bytes) -> tuple[str, Entry] | None:
    """None for a line that doesn't check out."""
    checksum, _, packed = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(packed):
        return None
    try:
        name, *entry = json.loads(zlib.decompress(base64.b64decode(packed)))
        return str(name), Entry(*entry)
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
