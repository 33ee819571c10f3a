"""The index of a store: what it holds of each subject, and of the files that it was made from."""

import json
import math
import os.path
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import LARGEST_INTENSITY, SMALLEST_INTENSITY
from tsf_seq2seq.data.nifti import Geometry, is_orientation
from tsf_seq2seq.data.nifti_bytes import LARGEST_VOXELS
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.reading import regular
from tsf_seq2seq.files.writing import JOURNAL
from tsf_seq2seq.settings import parse, shortened

INDEX = "index.json"
INDEX_VERSION = 1
SCRIPT = "src/data/prepare_brats.py"
DTYPES = ("int16", "float32", "float64")


@dataclass(frozen=True)
class StoredGrid:
    """A NIfTI file's grid: voxels x, y, z and affine."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or math.prod(self.shape) > LARGEST_VOXELS:
            raise ValueError(f"a shape of {self.shape} is none of a volume")
        if [len(row) for row in self.affine] != [4] * 4 or not is_orientation(self.matrix):
            raise ValueError(f"an affine of {shortened(str(self.affine))} places no voxels")

    @cached_property
    def matrix(self) -> np.ndarray:
        return np.array(self.affine)

    @cached_property
    def lps_shape(self) -> tuple[int, ...]:
        """z, y, x in LPS order."""
        return Geometry(self.shape, self.matrix).grid


@dataclass(frozen=True)
class StoredSequence:
    """A sequence's original file as it was when it was stored, and the intensity that becomes 1."""

    file: str  # relative to the data set's root
    bytes: int
    mtime_us: int  # time of its last change, microseconds
    maximum: float  # of the whole volume: its empty border counts
    grid: StoredGrid | None = None  # of its file, where that differs from the subject's
    fingerprint: str = ""  # of its file; "" in stores of earlier versions

    def __post_init__(self) -> None:
        if not SMALLEST_INTENSITY <= self.maximum <= LARGEST_INTENSITY:
            raise ValueError(f"{self.maximum:g} is no maximum of intensities")


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
    doubt: str | None = None  # of the files' orientation, as `Geometry.doubt`

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"its type must be one of {', '.join(DTYPES)}, not {self.dtype}")
        if not self.sequences:
            raise ValueError("it has no sequence")
        for name, sequence in self.sequences.items():
            if sequence.grid and sequence.grid.lps_shape != self.lps_shape:
                raise ValueError(f"{name} lies on a grid of another shape than the others")
        if len(self.box) != 3 or not all(
            0 <= low < high <= size
            for (low, high), size in zip(self.box, self.lps_shape, strict=True)
        ):
            box = shortened(str(self.box))
            raise ValueError(f"its box {box} does not lie in its grid {self.lps_shape}")

    @property
    def lps_shape(self) -> tuple[int, ...]:
        """The full grid's z, y, x in LPS order, which the sequences share."""
        return self._grid.lps_shape

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Of the array in its file: sequences, z, y, x."""
        return (len(self.sequences), *(high - low for low, high in self.box))

    def geometry(self, sequence: str) -> Geometry:
        """The grid of a sequence's file."""
        grid = self.sequences[sequence].grid or self._grid
        return Geometry(grid.shape, grid.matrix, self.doubt)

    @cached_property
    def _grid(self) -> StoredGrid:
        return StoredGrid(self.shape, self.affine)


@dataclass(frozen=True)
class Index:
    """What index.json holds."""

    version: int
    sequences: tuple[str, ...]
    subjects: dict[str, StoredSubject]
    crc32: str | None = None  # of sequences and subjects, since such a checksum is written


def read_index(path: Path) -> Index:
    """The index of the store in folder `path`.

    Raises UserError where it is missing, damaged, does not fit together, or a run that changed the
    store was killed in between.
    """
    file = path / INDEX
    if (path / JOURNAL).exists():
        raise UserError(
            f"{path} is being changed, or was left half changed by a killed run; {SCRIPT} mends it"
        )
    try:
        with open(file, encoding="utf-8", opener=regular) as stream:
            values = json.load(stream)
    except FileNotFoundError:
        raise UserError(f"{path} is no store: {file} does not exist; {SCRIPT} makes it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}") from None
    except RecursionError:
        raise UserError(f"{file} can't be read: it is nested too deeply") from None
    version = values.get("version") if isinstance(values, dict) else None
    if version != INDEX_VERSION:
        raise UserError(
            f"{file} has version {shortened(repr(version))}, but this software reads "
            f"{INDEX_VERSION}"
        )
    try:
        index = parse(Index, values, str(file))
        _check(index, values, file)
    except UserError as error:
        raise UserError(f"{error}; once {file} is removed, {SCRIPT} makes it anew") from None
    return index


def index_text(sequences: Sequence[str], subjects: Mapping[str, Mapping[str, Any]]) -> str:
    """What index.json holds, of subjects as plain mappings."""
    values = {"version": INDEX_VERSION, "sequences": list(sequences), "subjects": subjects}
    return json.dumps(values | {"crc32": _checksum(values)})


def file_of(name: str) -> str:
    """A subject's file, relative to its store; UserError for a name that would lead out of it."""
    file = f"{name}.b2nd"
    leads_out = os.path.isabs(file) or file.startswith("../")
    if not name or leads_out or os.path.normpath(file) != file or "\0" in name:
        raise UserError(f"subject {name}: no file of a store can have such a name")
    return file


def _check(index: Index, values: Mapping[str, Any], file: Path) -> None:
    """UserError where the index of a file does not fit together, or isn't as it was written."""
    for name, entry in index.subjects.items():
        if entry.file != file_of(name):
            raise UserError(f"{file}: subject {name} has the file {entry.file} of another")
        if [key for key in index.sequences if key in entry.sequences] != list(entry.sequences):
            raise UserError(
                f"{file}: subject {name} has the sequences {', '.join(entry.sequences)}, which are "
                f"not in order some of {', '.join(index.sequences)}"
            )
    if index.crc32 is not None and index.crc32 != (found := _checksum(values)):
        raise UserError(f"{file} is damaged: its checksum is {found}, not {index.crc32}")


def _checksum(values: Mapping[str, Any]) -> str:
    return crc32(json.dumps([values["sequences"], values["subjects"]]).encode())


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
        with open(path, "rb", opener=regular) as file:
            checksum = crc32(file.read())
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
        file = path.relative_to(data.root) if path.is_relative_to(data.root) else path
        state = path.stat()
        states[names[index]] = file.as_posix(), state.st_size, state.st_mtime_ns // 1000
    return states


def is_current(entry: StoredSubject, states: Mapping[str, tuple[str, int, int]]) -> bool:
    """Whether the subject's original files are as they were when they were stored."""
    return states == {key: (s.file, s.bytes, s.mtime_us) for key, s in entry.sequences.items()}


def crc32(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
