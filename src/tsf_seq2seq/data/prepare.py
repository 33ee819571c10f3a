"""Makes the store of `data.store`: one compressed file per subject, and an index."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import blosc2
import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, defect_text, read_sequences
from tsf_seq2seq.data.slices import Window, bounding_box, intensity_maximum
from tsf_seq2seq.data.store import VolumeStore, array_defect, box_slices, open_array
from tsf_seq2seq.data.store_index import (
    INDEX,
    INDEX_VERSION,
    Index,
    StoredGrid,
    StoredSequence,
    StoredSubject,
    check_stored_sequences,
    crc32,
    file_of,
    file_states,
    index_text,
    is_current,
    read_index,
)
from tsf_seq2seq.data.subjects import find_subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import LOCK, claimed
from tsf_seq2seq.files.writing import filling, is_inside, write_together
from tsf_seq2seq.processes import map_in_processes

KEPT, STORED = "kept", "stored"
# How long subjects wait to be written, how many (each is an open file then), and their bytes.
WRITE_SECONDS, WRITE_FILES, WRITE_BYTES = 1.0, 100, 2**26


def fill_store(
    data: DataConfig, masks: Mapping[str, int], path: Path, processes: int = 1
) -> Iterator[tuple[str, str]]:
    """Bring the store at `path` up to date with the subjects of `masks` (name → mask, 0 for any).

    Gives (name, outcome) in their order: KEPT, STORED, or what is wrong with the subject. Files
    and index change together, about once a second, so that a later call goes on where one was
    stopped.
    """
    with claimed(path):
        exists = (path / INDEX).exists()
        index = read_index(path) if exists else Index(INDEX_VERSION, tuple(data.sequences), {})
        check_stored_sequences(index.sequences, data, path)
        twins = _twins(path, [*index.subjects, *masks])
        jobs = masks, masks.values(), map(index.subjects.get, masks)
        outcomes = map_in_processes(processes, partial(_update, data, path), *jobs)
        with closing(_Writer(path, index)) as writer:
            for name, outcome in zip(masks, outcomes, strict=True):
                if name in twins:
                    yield name, f"on this disk its file would be that of {twins[name]}"
                elif isinstance(outcome, str):
                    yield name, outcome
                else:
                    writer.add(name, *outcome)
                    yield name, STORED


class _Writer:
    """Files of subjects and the index that names them, which change together."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path, self.sequences = path, index.sequences
        self.subjects = {name: asdict(entry) for name, entry in index.subjects.items()}
        self.waiting: dict[Path, bytes] = {}
        self.written = time.monotonic()

    def add(self, name: str, entry: StoredSubject, content: bytes) -> None:
        """Take a subject, to be written soon: the index of 1,000 takes longer than a small file."""
        self.subjects[name] = asdict(entry)
        self.waiting[self.path / entry.file] = content
        size = sum(map(len, self.waiting.values()))
        full = len(self.waiting) >= WRITE_FILES or size >= WRITE_BYTES
        if full or time.monotonic() - self.written > WRITE_SECONDS:
            self.close()

    def close(self) -> None:
        """Write what waits; UserError where the disk refuses."""
        if self.waiting:
            contents, self.waiting = self.waiting, {}
            contents[self.path / INDEX] = index_text(self.sequences, self.subjects).encode()
            writes = {file: filling(content) for file, content in contents.items()}
            write_together(self.path, writes)
        self.written = time.monotonic()


def verify(store: VolumeStore) -> Iterator[tuple[str, str]]:
    """Each subject and KEPT, or what is wrong with its file or the maxima that the index tells."""
    for name, entry in store.index.subjects.items():
        defect = array_defect(store.path, entry) or maximum_defect(store.path, entry)
        yield name, defect or KEPT


def maximum_defect(store: Path, entry: StoredSubject) -> str | None:
    """What is wrong with the maxima of a subject whose file is sound, or None.

    What was cut away was not above 0, so that the rule gives the same without it, as long as more
    than one voxel in a hundred is above 0.
    """
    window = Window(*(slice(low, high) for low, high in entry.box))
    array = open_array(store / entry.file, entry)[:]
    for (name, sequence), part in zip(entry.sequences.items(), array, strict=True):
        whole = window.into(part.astype(np.float64), entry.lps_shape, outside=0)
        found = intensity_maximum(whole)
        exact = np.count_nonzero(whole > 0) >= whole.size - int(0.99 * (whole.size - 1))
        if exact and found != sequence.maximum:
            return f"{INDEX} says that the maximum of {name} is {sequence.maximum:g}, not {found:g}"
    return None


def store_subject(data: DataConfig, subject: Subject, path: Path) -> tuple[StoredSubject, bytes]:
    """A subject's line in the index of the store at `path`, and what its file is to hold.

    Raises UserError where `load_subject` does, and where its file would lie outside the store.
    """
    file = file_of(subject.name)
    if not is_inside(path / file, path):
        raise UserError(f"subject {subject.name}: {path / file} lies outside the store")
    states = file_states(data, subject.files)
    contents = [subject.fingerprint(index) for index in subject.on_disk]
    read = [
        (narrow(voxels), geometry, maximum)
        for _, voxels, geometry, maximum in read_sequences(subject)
    ]
    if not read:
        raise UserError(f"subject {subject.name} has no sequence on disk")
    grids = [StoredGrid(geometry.shape, geometry.affine.tolist()) for _, geometry, _ in read]
    box = positive_box(volume for volume, _, _ in read)
    array = np.stack([volume[box_slices(*box.T)] for volume, _, _ in read])
    content = compress(array)
    entry = StoredSubject(
        file=file,
        crc32=crc32(content),
        dtype=array.dtype.name,
        sequences={
            key: StoredSequence(*state, maximum, None if grid == grids[0] else grid, content)
            for (key, state), (_, _, maximum), grid, content in zip(
                states.items(), read, grids, contents, strict=True
            )
        },
        shape=grids[0].shape,
        affine=grids[0].affine,
        box=box.tolist(),
        doubt=next((geometry.doubt for _, geometry, _ in read if geometry.doubt), None),
    )
    return entry, content


def narrow(volume: np.ndarray) -> np.ndarray:
    """The volume in the first of int16, float32 and float64 that holds all its values exactly."""
    for dtype in (np.int16, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            narrowed = volume.astype(dtype)
        if np.array_equal(narrowed, volume):
            return narrowed
    return volume


def positive_box(volumes: Iterable[np.ndarray]) -> np.ndarray:
    """First and behind the last z, y and x of all voxels above 0: (3, 2).

    What is outside becomes background, whatever its value.
    """
    box = bounding_box(np.any([volume > 0 for volume in volumes], axis=0))
    return np.array([(axis.start, axis.stop) for axis in (box.z, box.y, box.x)])


def compress(array: np.ndarray) -> bytes:
    """A Blosc2 file of (S, z, y, x); each axial slice of all sequences is one block to read."""
    plane = (len(array), 1, *array.shape[2:])
    stored = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=plane,
        blocks=plane,
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 5,
            "filters": [blosc2.Filter.SHUFFLE],
            "filters_meta": [0],
            "nthreads": 1,
        },
    )
    return stored.to_cframe()


def _update(
    data: DataConfig, path: Path, name: str, mask: int, entry: StoredSubject | None
) -> tuple[StoredSubject, bytes] | str:
    """What `store_subject` gives, or KEPT where its files haven't changed, or what is wrong."""
    try:
        subject = find_subject(data, name, mask)
        states = file_states(data, subject.files)
        if entry is not None and is_current(entry, states) and not array_defect(path, entry):
            return KEPT
        return store_subject(data, subject, path)
    except Exception as error:  # no subject ends the batch
        return defect_text(error, name)


def _twins(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Name → an earlier one that differs by case only, where the disk takes the two for one."""
    if not (path / LOCK.upper()).exists():  # the lock of `claimed` is there, in lower case
        return {}
    first: dict[str, str] = {}
    own = {name: first.setdefault(name.casefold(), name) for name in names}
    return {name: other for name, other in own.items() if other != name}
