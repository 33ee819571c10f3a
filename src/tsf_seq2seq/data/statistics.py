"""What a network's training data were like, kept in its checkpoints: intensities and voxel size.

The network sees each volume scaled by its own maximum, so that it can't know on which scale a
missing one would have been; the training subjects say what is usual.
"""

from collections.abc import Iterable, Sequence
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


MeasuredSequence = tuple[int, float, Geometry]  # sequence, maximum, grid


def measure_statistics(data: DataConfig, subjects: Sequence[Subject]) -> TrainingStatistics:
    """Statistics of training subjects: of all where data.store has them, else of a sample.

    Says on standard output how many NIfTI subjects it read. Raises UserError where one of them
    can't be used.
    """
    store = open_store(data)
    if store is not None:
        return _medians(data, (found for s in subjects for found in _of_store(store, data, s)))
    sample = [subjects[i] for i in evenly_spaced(len(subjects), SAMPLE)]
    print(f"intensity statistics: of {len(sample)} of {len(subjects)} training subjects")
    return _medians(data, (found for s in sample for found in _of_files(data, s)))


def in_plane_spacing(geometry: Geometry) -> tuple[float, float]:
    """Voxel size within axial slices (LPS order), y and x, in mm."""
    x, y, _ = np.linalg.norm(geometry.lps().affine[:3, :3], axis=0)
    return float(y), float(x)


def evenly_spaced(length: int, count: int) -> list[int]:
    """`count` of the positions 0 … length − 1 with both ends, rounded down; all, if fewer."""
    if length <= count:
        return list(range(length))
    return [i * (length - 1) // max(count - 1, 1) for i in range(count)]


def _medians(data: DataConfig, measured: Iterable[MeasuredSequence]) -> TrainingStatistics:
    maxima: dict[int, list[float]] = {}
    spacings = []
    for index, maximum, geometry in measured:
        maxima.setdefault(index, []).append(maximum)
        spacings.append(in_plane_spacing(geometry))
    y, x = np.median(spacings, axis=0)
    names = list(data.sequences)
    return TrainingStatistics(
        {names[i]: float(np.median(maxima[i])) for i in sorted(maxima)}, (float(y), float(x))
    )


def _trained_on(data: DataConfig, subject: Subject) -> tuple[int, ...]:
    return subject.on_disk if data.use_all_sequences else subject.available


def _of_store(store: VolumeStore, data: DataConfig, subject: Subject) -> Iterable[MeasuredSequence]:
    entry, names = store.entry(subject.name), list(data.sequences)
    for index in _trained_on(data, subject):
        name = names[index]
        yield index, entry.sequences[name].maximum, entry.geometry(name)


def _of_files(data: DataConfig, subject: Subject) -> Iterable[MeasuredSequence]:
    for index, _, geometry, maximum in read_sequences(subject, _trained_on(data, subject)):
        yield index, maximum, geometry
