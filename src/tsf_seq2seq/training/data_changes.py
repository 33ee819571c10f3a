"""What a run's data hold, told cheaply, so that resuming tells what has changed since."""

import hashlib
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.store import VolumeStore, open_store
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint

Digests = Mapping[str, str]  # subject's name → digest, in the split's order
SAMPLE_BYTES = 2**16
NAMED = 3  # subjects in a message


def subject_digests(data: DataConfig, subjects: Sequence[Subject]) -> dict[str, str]:
    """Digest of each subject's mask and images: of the store's checksums, else of the files.

    A few small reads a file: of files that aren't packed, only their two ends and middle count.
    Raises UserError where a file can't be read.
    """
    store = open_store(data)
    return {subject.name: _digest(subject, store) for subject in subjects}


def report_data_changes(split: str, before: Digests, now: Digests) -> None:
    """A warning, where a split's subjects or what they hold has changed since `before`."""
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    found = {
        "changed (image or mask)": changed,
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    parts = [f"{len(names)} {what}: {_first(names)}" for what, names in found.items() if names]
    if not parts and list(before) != list(now):
        parts = ["the order of its subjects"]
    if parts:
        text = f"since the run was saved, {split} has changed ({'; '.join(parts)})"
        print(f"warning: {text}: it goes on with what is there now", file=sys.stderr)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _digest(subject: Subject, store: VolumeStore | None) -> str:
    held: list[object]
    if store is None:
        held = [(index, _content(path)) for index, path in sorted(subject.files.items())]
    else:
        entry = store.entry(subject.name)
        held = [entry.crc32, *((name, s.maximum) for name, s in entry.sequences.items())]
    return hashlib.sha256(repr((subject.available, held)).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    """The fingerprint of a packed file; of another its size and the checksum of three parts."""
    if path.suffix == ".gz":
        return fingerprint(path)
    try:
        with open(path, "rb") as file:
            size, checksum = path.stat().st_size, 0
            for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
                file.seek(start)
                checksum = zlib.crc32(file.read(SAMPLE_BYTES), checksum)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return f"{size}:{checksum:08x}"
