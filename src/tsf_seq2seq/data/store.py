"""A store of volumes: one compressed file a subject, of which only the boxes wanted are read.

A file is a Blosc2 array (S, z, y, x) in LPS order of the sequences that the subject has, unscaled,
cut to the box that holds every voxel above 0; one axial slice of all sequences is one chunk.
`index.json` says the rest.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import blosc2
import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Box, Subject, Volumes
from tsf_seq2seq.data.slices import BACKGROUND, central, normalise
from tsf_seq2seq.data.store_index import (
    INDEX,
    SCRIPT,
    StoredSubject,
    check_stored_sequences,
    file_defect,
    read_index,
)
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import mask_to_sequences


class VolumeStore:
    """The subjects of a store; `root` is where their original files lie, if they still do."""

    def __init__(self, path: Path, root: Path = Path()) -> None:
        self.path, self.root = Path(path), root
        self.index = read_index(self.path)
        self._checked: set[str] = set()

    @property
    def names(self) -> list[str]:
        return list(self.index.subjects)

    def entry(self, name: str) -> StoredSubject:
        """A subject's line in the index; UserError where there is none."""
        if name not in self.index.subjects:
            raise UserError(f"subject {name} is not in the store {self.path}; {SCRIPT} adds it")
        return self.index.subjects[name]

    def subject(self, name: str, mask: int | None = None, site: str | None = None) -> Subject:
        """The subject with the files that were stored, treated as having what `mask` says, or all.

        Raises UserError where the mask names a sequence that wasn't stored.
        """
        entry, names = self.entry(name), self.index.sequences
        stored = {names.index(key): sequence for key, sequence in entry.sequences.items()}
        files = {index: self.root / sequence.file for index, sequence in stored.items()}
        contents = {
            index: sequence.fingerprint or f"store:{entry.crc32}:{sequence.maximum!r}"
            for index, sequence in stored.items()
        }
        available = tuple(files) if mask is None else mask_to_sequences(mask, len(names))
        for i in available:
            if i not in files:
                raise UserError(
                    f"subject {name}: {names[i]} is named by its mask {mask} but not in the "
                    f"store {self.path}"
                )
        return Subject(name, available, files, self.load, contents, site)

    def open(self, name: str) -> "StoredVolume":
        """The subject's file, ready to be cut; its checksum is looked at the first time.

        Raises UserError where the file is missing or damaged.
        """
        entry = self.entry(name)
        if name not in self._checked:
            defect = file_defect(self.path, entry)
            if defect:
                raise UserError(f"subject {name}: {defect}; {SCRIPT} makes it anew")
            self._checked.add(name)
        return StoredVolume(name, self.path / entry.file, entry, self.index.sequences)

    def load(self, subject: Subject, box: Box, wanted: Sequence[int]) -> Volumes:
        """What `load_box` gives from the files; only the box is read."""
        volume, names = self.open(subject.name), self.index.sequences
        window = box(volume.shape)
        sides = (window.z, window.y, window.x)
        size = [side.stop - side.start for side in sides]
        images = volume.crop([side.start for side in sides], size, wanted)
        geometry = self.entry(subject.name).geometry(names[wanted[0]])
        maxima = np.full(len(names), np.nan)
        maxima[list(wanted)] = [volume.maxima[index] for index in wanted]
        return Volumes(subject, images, window, geometry, maxima)


class StoredVolume:
    """A subject's opened file (memory-mapped), normalised as it is cut.

    `shape`: its full grid, z, y, x in LPS order.
    """

    def __init__(
        self, name: str, path: Path, entry: StoredSubject, sequences: Sequence[str]
    ) -> None:
        self.name, self.path = name, path
        self.n_sequences = len(sequences)
        self.maxima = {sequences.index(key): s.maximum for key, s in entry.sequences.items()}
        self.shape = entry.lps_shape
        self.low, self.high = np.array(entry.box).T
        try:
            self.array = open_array(path, entry)
        except Exception as error:
            raise self._damaged(error) from error

    def crop(
        self, start: Sequence[int], size: Sequence[int], wanted: Collection[int] | None = None
    ) -> np.ndarray:
        """The box of `size` from voxel `start` (z, y, x) on: (S, *size) float32 in [-1, 1].

        Background where a sequence isn't on disk or not among the `wanted`, and where the box
        leaves the grid.
        """
        images = np.full((self.n_sequences, *size), BACKGROUND, dtype=np.float32)
        low = np.maximum(start, self.low)
        high = np.minimum(np.add(start, size), self.high)
        if (low >= high).any():
            return images
        try:
            voxels = self.array[:, *box_slices(low - self.low, high - self.low)]
        except Exception as error:
            raise self._damaged(error) from error
        inside = box_slices(low - start, high - start)
        for volume, (index, maximum) in zip(voxels, self.maxima.items(), strict=True):
            if wanted is None or index in wanted:
                images[index][inside] = normalise(volume, maximum)
        return images

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"subject {self.name}: {self.path} can't be read ({error}); {SCRIPT} makes it anew"
        )


class StoredImages:
    """A subject's sequences (S, Z, Y, X), of which only what is cut is read.

    Cuts equal those of the array of `load_subject`, bit for bit, mirrored left-right if `flipped`
    then padded to at least `crop` (height, width), as `pad_to` does it.
    """

    def __init__(
        self,
        volume: StoredVolume,
        slices: int,
        crop: tuple[int, int] = (0, 0),
        flipped: bool = False,
    ) -> None:
        self.volume, self.flipped = volume, flipped
        depth, height, width = volume.shape
        self.slices = central(depth, slices)
        padding = max(0, crop[0] - height), max(0, crop[1] - width)
        self.before = padding[0] // 2, padding[1] // 2
        plane = (height + padding[0], width + padding[1])
        self.shape = (volume.n_sequences, self.slices.stop - self.slices.start, *plane)

    def __getitem__(self, box: tuple[slice, slice, slice, slice]) -> np.ndarray:
        """images[:, z0:z1, y0:y1, x0:x1], float32; only boxes written so."""
        z, y, x = (place.start for place in box[1:])
        size = [place.stop - place.start for place in box[1:]]
        y, x = y - self.before[0], x - self.before[1]
        if self.flipped:
            x = self.volume.shape[2] - x - size[2]
        images = self.volume.crop((self.slices.start + z, y, x), size)
        return images[..., ::-1] if self.flipped else images


def open_store(data: DataConfig) -> VolumeStore | None:
    """The store that data.store names, if it names one; UserError for other sequences than ours."""
    if data.store is None:
        return None
    store = VolumeStore(data.store, data.root)
    check_stored_sequences(store.index.sequences, data, data.store)
    return store


def open_array(path: Path, entry: StoredSubject) -> blosc2.NDArray:
    """A subject's file, memory-mapped; ValueError where it isn't the array that the index tells."""
    array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    found = (tuple(array.shape), array.dtype.name)
    if found != (entry.array_shape, entry.dtype):
        raise ValueError(
            f"it holds {found[1]} of shape {found[0]}, but {INDEX} says {entry.dtype} of shape "
            f"{entry.array_shape}"
        )
    return array


def array_defect(store: Path, entry: StoredSubject) -> str | None:
    """What is wrong with a subject's file, or with what the index says of its array, or None."""
    if defect := file_defect(store, entry):
        return defect
    try:
        open_array(store / entry.file, entry)
    except Exception as error:
        return f"{store / entry.file} can't be read ({error})"
    return None


def box_slices(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
