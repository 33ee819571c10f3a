"""Subjects, and the checked loading of their volumes."""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.data.nifti import (
    SAME_GRID_MM,
    UNKNOWN_ORIENTATION,
    Geometry,
    read_scan,
    read_volume,
)
from tsf_seq2seq.data.slices import BACKGROUND, Window, central_window, intensity_maximum, normalise
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.files.fingerprint import fingerprint

LARGEST_INTENSITY, SMALLEST_INTENSITY = 1e30, 1e-30  # that float32 holds with all its digits
_TOLD: set[str] = set()  # doubts about orientation that this process has told
Box = Callable[[tuple[int, ...]], Window]  # a grid (z, y, x) in LPS order → the part wanted of it


# What `load_box` gives of sequences of a subject (one at least, ascending) from a store.
LoadStored = Callable[["Subject", Box, Sequence[int]], "Volumes"]


@dataclass(frozen=True)
class Subject:
    """A row of a split: `available` sequences by its mask, `files` of those on disk, by index.

    With `load_stored`, volumes come from a store, whose content is `stored`, by index, and the
    files need not be there. `site`: where and how it was scanned, as its split tells it.
    """

    name: str
    available: tuple[int, ...]
    files: Mapping[int, Path]
    load_stored: LoadStored | None = None
    stored: Mapping[int, str] | None = None
    site: str | None = None

    @property
    def on_disk(self) -> tuple[int, ...]:
        return tuple(sorted(self.files))

    def trained_on(self, use_all_sequences: bool) -> tuple[int, ...]:
        """Sequences that training takes of it, as data.use_all_sequences says."""
        return self.on_disk if use_all_sequences else self.available

    def fingerprint(self, index: int) -> str:
        """What changes when the content of a sequence does; UserError where its file is gone."""
        return fingerprint(self.files[index]) if self.stored is None else self.stored[index]

    @property
    def missing_targets(self) -> tuple[int, ...]:
        """Sequences on disk that the mask treats as missing."""
        return tuple(i for i in self.on_disk if i not in self.available)


@dataclass(frozen=True)
class Volumes:
    """A box of a subject's normalised sequences, LPS order.

    `images` (S, Z, Y, X) float32 in [-1, 1], background where a sequence isn't loaded; `box`: where
    in the whole grid they lie; `maxima` (S,): intensities that became 1, nan of what isn't loaded.
    """

    subject: Subject
    images: np.ndarray
    box: Window
    geometry: Geometry
    maxima: np.ndarray


def load_subject(
    subject: Subject, slices: int, n_sequences: int, wanted: Sequence[int] | None = None
) -> Volumes:
    """The central `slices` of a subject, as `load_box` gives them."""
    return load_box(
        subject, lambda grid: central_window(grid, slices, grid[1:]), n_sequences, wanted
    )


def load_box(
    subject: Subject, box: Box, n_sequences: int, wanted: Sequence[int] | None = None
) -> Volumes:
    """Read, check and normalise a box of a subject's sequences (those `wanted`, else all on disk).

    They come from its store, if it has one, else from its files. Raises UserError that names
    subject, file and rule where a volume can't be used, or where the sequences don't share one
    grid.
    """
    wanted = sorted(subject.on_disk if wanted is None else wanted)
    if not wanted:
        raise UserError(f"subject {subject.name} has no sequence on disk")
    if subject.load_stored is not None:
        return subject.load_stored(subject, box, wanted)
    images, maxima = np.empty(0), np.full(n_sequences, np.nan)
    for index, voxels, geometry, maximum in read_sequences(subject, wanted):
        if index == wanted[0]:
            first, window = geometry, box(voxels.shape)
            shape = (n_sequences, *window.of(voxels).shape)
            images = np.full(shape, BACKGROUND, dtype=np.float32)
        maxima[index] = maximum
        images[index] = normalise(window.of(voxels), maximum)
    return Volumes(subject, images, window, first, maxima)


def read_sequences(
    subject: Subject, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, np.ndarray, Geometry, float]]:
    """Index, voxels (z, y, x) in LPS order (float64), grid and intensity maximum, one by one.

    Raises UserError as `load_subject` does.
    """
    indices = sorted(subject.on_disk if wanted is None else wanted)
    first = None
    for index in indices:
        path = subject.files[index]
        try:
            voxels, geometry = read_scan(path)
            first, first_name = first or geometry, subject.files[indices[0]].name
            check_same_grid(first, geometry, first_name, path.name)
            check_both_oriented(first, geometry, first_name, path.name)
            warn_of_doubt(subject.name, geometry.doubt)
            maximum = positive_maximum(voxels, path)
        except UserError as error:
            raise UserError(f"subject {subject.name}: {error}") from error
        yield index, geometry.to_network(voxels), geometry, maximum


def check_depth(volumes: Volumes, height: int) -> None:
    """UserError unless the volumes have slices enough for one stack of `height`."""
    check_slices(volumes.subject.name, volumes.images.shape[1], height)


def check_slices(name: str, depth: int, height: int) -> None:
    """UserError unless the `depth` slices of subject `name` are enough for a stack of `height`."""
    if depth < height:
        raise UserError(f"subject {name} has {depth} axial slices, but a stack needs {height}")


def check_same_grid(first: Geometry, other: Geometry, first_name: str, other_name: str) -> None:
    """UserError unless two grids, brought to LPS order, are one."""
    a, b = first.lps(), other.lps()
    if a.shape != b.shape:
        raise UserError(
            f"{other_name} has shape {b.shape}, but {first_name} {a.shape}; the sequences must be "
            "co-registered on one grid"
        )
    distance = a.distance_mm(b)
    if distance > SAME_GRID_MM:
        raise UserError(
            f"the affines of {other_name} and {first_name} place the same voxel up to "
            f"{distance:.3g} mm apart, more than {SAME_GRID_MM} mm"
        )


def check_both_oriented(first: Geometry, other: Geometry, first_name: str, other_name: str) -> None:
    """UserError where one of two files tells its orientation and the other leaves it to guess."""
    unknown = [geometry.doubt == UNKNOWN_ORIENTATION for geometry in (first, other)]
    if unknown[0] != unknown[1]:
        silent, known = (first_name, other_name) if unknown[0] else (other_name, first_name)
        raise UserError(
            f"{silent} {UNKNOWN_ORIENTATION}, while {known} tells its own: how the one lies on the "
            "other is unknown until its sform is set"
        )


def warn_of_doubt(name: str, doubt: str | None) -> None:
    """Say on standard error why the orientation of an image of subject `name` is in doubt, if so.

    `doubt`: its `Geometry.doubt`; each is told once a process.
    """
    if doubt is None or doubt in _TOLD or os.environ.get("RANK", "0") != "0":
        return
    _TOLD.add(doubt)
    text = f"warning: an image of subject {name} {doubt}; check_dataset.py lists all such"
    tqdm.write(printable(text), file=sys.stderr)


def defect_text(error: Exception, name: str) -> str:
    """What is wrong with subject `name`, told by whatever was raised on its files."""
    if isinstance(error, UserError):
        return str(error).removeprefix(f"subject {name}: ")
    return f"its files can't be used ({type(error).__name__}: {error})"


def positive_maximum(voxels: np.ndarray, path: Path | str) -> float:
    """The intensity that becomes 1; UserError where the volume of `path` is all but empty, or
    holds intensities that float32 can't."""
    maximum = intensity_maximum(voxels)
    if not maximum > 0:
        raise UserError(
            f"{path} is all but empty: its 99th percentile is {maximum / 2:g}, but must be above 0"
        )
    if not SMALLEST_INTENSITY <= maximum <= LARGEST_INTENSITY:
        raise UserError(
            f"{path} holds intensities up to {maximum:.3g}, beyond the {SMALLEST_INTENSITY:g} to "
            f"{LARGEST_INTENSITY:g} that float32 files hold safely"
        )
    return maximum


def load_segmentation(path: Path, like: Geometry) -> np.ndarray:
    """Labels (z, y, x) in LPS order, int16, 0 outside every lesion, on the whole grid.

    Raises UserError where the file can't be read, isn't on the grid `like`, or holds values that
    are no labels.
    """
    voxels, geometry = read_volume(path)
    for check in (check_same_grid, check_both_oriented):
        check(like, geometry, "the subject's sequences", str(path))
    with np.errstate(invalid="ignore"):
        labels = voxels.astype(np.int16)
    odd = voxels[labels != voxels]
    if odd.size:
        raise UserError(f"{path} is no label map: it holds the value {odd[0]:g}")
    return geometry.to_network(labels)


class SubjectCache:
    """Loads subjects and keeps the last used ones, up to `gigabytes` of memory."""

    def __init__(self, slices: int, n_sequences: int, gigabytes: float) -> None:
        self.slices, self.n_sequences = slices, n_sequences
        self.capacity = gigabytes * 1e9
        self.size = 0
        self.kept: OrderedDict[str, Volumes] = OrderedDict()

    def load(self, subject: Subject) -> Volumes:
        """All sequences on disk of the subject, as `load_subject` gives them."""
        volumes = self.kept.pop(subject.name, None)
        if volumes is None:
            volumes = load_subject(subject, self.slices, self.n_sequences)
            self.size += volumes.images.nbytes
        self.kept[subject.name] = volumes
        while self.size > self.capacity:
            _, oldest = self.kept.popitem(last=False)
            self.size -= oldest.images.nbytes
        return volumes
