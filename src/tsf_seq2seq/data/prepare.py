"""Makes the store of `data.store`: one compressed file per subject, and an index."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import blosc2
import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, read_sequences
from tsf_seq2seq.data.slices import bounding_box
from tsf_seq2seq.data.store import VolumeStore, box_slices
from tsf_seq2seq.data.store_index import (
    INDEX,
    INDEX_VERSION,
    Index,
    StoredGrid,
    StoredSequence,
    StoredSubject,
    check_stored_sequences,
    crc32,
    file_defect,
    file_states,
    is_current,
    read_index,
)
from tsf_seq2seq.data.subjects import find_subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import write_atomically, write_text
from tsf_seq2seq.processes import map_in_processes

KEPT, STORED = "kept", "stored"


def fill_store(
    data: DataConfig, masks: Mapping[str, int], path: Path, processes: int = 1
) -> Iterator[tuple[str, str]]:
    """Bring the store at `path` up to date with the subjects of `masks` (name → mask, 0 for any).

    Gives (name, outcome) in their order: KEPT, STORED, or what is wrong with the subject. Files
    and index are whole at any time, so that a later call goes on where one was stopped.
    """
    exists = (path / INDEX).exists()
    index = read_index(path) if exists else Index(INDEX_VERSION, tuple(data.sequences), {})
    check_stored_sequences(index.sequences, data, path)
    values = asdict(index)
    jobs = masks, masks.values(), map(index.subjects.get, masks)
    outcomes = map_in_processes(processes, partial(_update, data, path), *jobs)
    for name, outcome in zip(masks, outcomes, strict=True):
        if isinstance(outcome, StoredSubject):
            values["subjects"][name] = asdict(outcome)
            write_text(path / INDEX, json.dumps(values))
            outcome = STORED
        yield name, outcome


def verify(store: VolumeStore) -> Iterator[tuple[str, str]]:
    """Each subject and KEPT, or what is wrong with its file."""
    for name, entry in store.index.subjects.items():
        yield name, file_defect(store.path, entry) or KEPT


def store_subject(data: DataConfig, subject: Subject, path: Path) -> StoredSubject:
    """Write a subject's file into the store at `path`; its line for the index.

    Raises UserError where `load_subject` does.
    """
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
    content, file = compress(array), f"{subject.name}.b2nd"
    write_atomically(path / file, lambda temporary: temporary.write_bytes(content))
    return StoredSubject(
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
    )


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
) -> StoredSubject | str:
    """Store a subject, or keep its entry where its files haven't changed; or say what is wrong."""
    try:
        subject = find_subject(data, name, mask)
        states = file_states(data, subject.files)
        if entry is not None and is_current(entry, states) and not file_defect(path, entry):
            return KEPT
        return store_subject(data, subject, path)
    except UserError as error:
        return str(error).removeprefix(f"subject {name}: ")
