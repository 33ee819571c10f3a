"""The index of a store: what it holds of each subject, and of the files that it was made from."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.settings import parse

INDEX = "index.json"
INDEX_VERSION = 1
SCRIPT = "src/data/prepare_brats.py"


@dataclass(frozen=True)
class StoredGrid:
    """A NIfTI file's grid: voxels x, y, z and affine."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.shape, np.array(self.affine))


@dataclass(frozen=True)
class StoredSequence:
    """A sequence's original file as it was when it was stored, and the intensity that becomes 1."""

    file: str  # relative to the data set's root
    bytes: int
    mtime_us: int  # time of its last change, microseconds
    maximum: float  # of the whole volume: its empty border counts
    grid: StoredGrid | None = None  # of its file, where that differs from the subject's
    fingerprint: str = ""  # of its file; "" in stores of earlier versions


@dataclass(frozen=True)
class StoredSubject:
    """A subject's line in the index."""

    file: str  # relative to the store
    crc32: str  # of that file, hexadecimal
    dtype: str
    sequences: dict[str, StoredSequence]  # those on disk, in the index's order
    shape: tuple[int, int, int]  # the full grid of the first one's file: voxels x, y, z
    affine: tuple[tuple[float, ...], ...]
    box: tuple[tuple[int, int], ...]  # first and behind the last stored z, y, x of that grid in LPS

    @cached_property
    def lps_shape(self) -> tuple[int, ...]:
        """The full grid's z, y, x in LPS order, which the sequences share."""
        return self._grid.geometry.grid

    def geometry(self, sequence: str) -> Geometry:
        """The grid of a sequence's file."""
        return (self.sequences[sequence].grid or self._grid).geometry

    @property
    def _grid(self) -> StoredGrid:
        return StoredGrid(self.shape, self.affine)


@dataclass(frozen=True)
class Index:
    """What index.json holds."""

    version: int
    sequences: tuple[str, ...]
    subjects: dict[str, StoredSubject]


def read_index(path: Path) -> Index:
    """The index of the store in folder `path`; UserError where it is missing or damaged."""
    file = path / INDEX
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is no store: {file} does not exist; {SCRIPT} makes it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}") from None
    version = values.get("version") if isinstance(values, dict) else None
    if version != INDEX_VERSION:
        raise UserError(f"{file} has version {version!r}, but this software reads {INDEX_VERSION}")
    return parse(Index, values, str(file))


def check_stored_sequences(stored: Sequence[str], data: DataConfig, path: Path) -> None:
    """UserError unless the store at `path` holds the data set's sequences in their order."""
    if list(stored) != list(data.sequences):
        raise UserError(
            f"the store {path} holds the sequences {', '.join(stored)}, but data.sequences names "
            f"{', '.join(data.sequences)}"
        )


def file_defect(store: Path, entry: StoredSubject) -> str | None:
    """What is wrong with a subject's file, or None."""
    path = store / entry.file
    try:
        checksum = crc32(path.read_bytes())
    except FileNotFoundError:
        return f"{path} does not exist"
    except OSError as error:
        return f"{path} can't be read: {error}"
    if checksum != entry.crc32:
        return f"{path} is damaged: its checksum is {checksum}, but {INDEX} says {entry.crc32}"
    return None


def file_states(data: DataConfig, files: Mapping[int, Path]) -> dict[str, tuple[str, int, int]]:
    """Sequence → its file's path under the root, size in bytes and time of change (µs)."""
    names, states = list(data.sequences), {}
    for index, path in sorted(files.items()):
        file, state = path.relative_to(data.root).as_posix(), path.stat()
        states[names[index]] = file, state.st_size, state.st_mtime_ns // 1000
    return states


def is_current(entry: StoredSubject, states: Mapping[str, tuple[str, int, int]]) -> bool:
    """Whether the subject's original files are as they were when they were stored."""
    return states == {key: (s.file, s.bytes, s.mtime_us) for key, s in entry.sequences.items()}


def crc32(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
