"""What a network's training data were like, kept in its checkpoints: intensities and voxel size.

The network sees each volume scaled by its own maximum, so that it can't know on which scale a
missing one would have been; the training subjects say what is usual.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, read_sequences
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.store import VolumeStore, open_store

SAMPLE = 32  # subjects whose NIfTI files are read; a store's index knows all of them


@dataclass(frozen=True)
class TrainingStatistics:
    """Medians over training subjects.

    `maxima`: sequence name → intensity that becomes 1 (2 × 99th percentile of a volume);
    `spacing`: voxel size within axial slices, y and x, in mm. ValueError where one isn't positive.
    """

    maxima: dict[str, float]
    spacing: tuple[float, float]

    def __post_init__(self) -> None:
        for value in (*self.maxima.values(), *self.spacing):
            if not value > 0:
                raise ValueError(f"maxima and spacing must be above 0, not {value:g}")


def measure_statistics(data: DataConfig, subjects: Sequence[Subject]) -> TrainingStatistics:
    """Statistics of training subjects: of all where data.store has them, else of a sample.

    Says on standard output how many NIfTI subjects it read. Raises UserError where one of them
    can't be used.
    """
    store, names = open_store(data), list(data.sequences)
    if store is None:
        sample = [subjects[i] for i in evenly_spaced(len(subjects), SAMPLE)]
        print(f"intensity statistics: of {len(sample)} of {len(subjects)} training subjects")
        subjects = sample
    maxima: dict[int, list[float]] = {}
    spacings = []
    for subject in subjects:
        for index, maximum, geometry in _measured(subject, data, store):
            maxima.setdefault(index, []).append(maximum)
            spacings.append(in_plane_spacing(geometry))
    y, x = np.median(spacings, axis=0)
    medians = {names[i]: float(np.median(maxima[i])) for i in sorted(maxima)}
    return TrainingStatistics(medians, (float(y), float(x)))


def in_plane_spacing(geometry: Geometry) -> tuple[float, float]:
    """Voxel size within axial slices (LPS order), y and x, in mm."""
    x, y, _ = np.linalg.norm(geometry.lps().affine[:3, :3], axis=0)
    return float(y), float(x)


def evenly_spaced(length: int, count: int) -> list[int]:
    """`count` of the positions 0 … length − 1 with both ends, rounded down; all, if fewer."""
    if length <= count:
        return list(range(length))
    return [i * (length - 1) // max(count - 1, 1) for i in range(count)]


def _measured(
    subject: Subject, data: DataConfig, store: VolumeStore | None
) -> Iterator[tuple[int, float, Geometry]]:
    """Index, maximum and grid of each sequence that training takes of a subject."""
    indices, names = subject.trained_on(data.use_all_sequences), list(data.sequences)
    if store is None:
        for index, _, geometry, maximum in read_sequences(subject, indices):
            yield index, maximum, geometry
        return
    entry = store.entry(subject.name)
    for index in indices:
        yield index, entry.sequences[names[index]].maximum, entry.geometry(names[index])
