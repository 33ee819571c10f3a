"""What a run's data hold, told cheaply, so that resuming tells what has changed since."""

import hashlib
import sys
import zlib
from collections.abc import Mapping, Sequence

from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.errors import UserError, first_of

Digests = Mapping[str, str]  # subject's name → digest, in the split's order
SAMPLE_BYTES = 2**16


def subject_digests(subjects: Sequence[Subject]) -> dict[str, str]:
    """Digest of each subject's mask and images.

    A few small reads a file: of files that aren't packed, only their two ends and middle count.
    Raises UserError where a file can't be read.
    """
    return {subject.name: _digest(subject) for subject in subjects}


def report_data_changes(split: str, before: Digests, now: Digests) -> None:
    """A warning, where a split's subjects or what they hold has changed since `before`."""
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    found = {
        "changed (image or mask)": changed,
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    parts = [f"{len(names)} {what}: {first_of(names)}" for what, names in found.items() if names]
    if not parts and list(before) != list(now):
        parts = ["the order of its subjects"]
    if parts:
        text = f"since the run was saved, {split} has changed ({'; '.join(parts)})"
        print(f"warning: {text}: it goes on with what is there now", file=sys.stderr)


def _digest(subject: Subject) -> str:
    held = subject.available, [(index, _content(subject, index)) for index in subject.on_disk]
    return hashlib.sha256(repr(held).encode()).hexdigest()[:16]


def _content(subject: Subject, index: int) -> str:
    """The fingerprint of a packed or stored file; of another its size and a sample's checksum."""
    path = subject.files[index]
    if subject.stored is not None or path.suffix == ".gz":
        return subject.fingerprint(index)
    try:
        with open(path, "rb") as file:
            size, checksum = path.stat().st_size, 0
            for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
                file.seek(start)
                checksum = zlib.crc32(file.read(SAMPLE_BYTES), checksum)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return f"{size}:{checksum:08x}"
