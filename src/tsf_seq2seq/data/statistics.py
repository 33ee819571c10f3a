"""What a network's training data were like, kept in its checkpoints: intensities and voxel size.

The network sees each volume scaled by its own maximum, so that it can't know on which scale a
missing one would have been; the training subjects say what is usual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, load_box
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.slices import BACKGROUND, whole_window
from tsf_seq2seq.data.store import open_store

SAMPLE = 32  # subjects whose images are read; a store's index knows the maxima of all


@dataclass(frozen=True)
class TrainingStatistics:
    """Medians over training subjects.

    `maxima`: sequence name → intensity that becomes 1 (2 × 99th percentile of a volume);
    `spacing`: voxel size within axial slices, y and x, in mm; `means`: sequence name → mean over
    the voxels above the background, in [-1, 1]; None in checkpoints that were made without.
    ValueError where a maximum or a spacing isn't positive, or a mean not in that range.
    """

    maxima: dict[str, float]
    spacing: tuple[float, float]
    means: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for value in (*self.maxima.values(), *self.spacing):
            if not value > 0:
                raise ValueError(f"maxima and spacing must be above 0, not {value:g}")
        for value in (self.means or {}).values():
            if not -1 <= value <= 1:
                raise ValueError(f"means must be in [-1, 1], not {value:g}")


def measure_statistics(data: DataConfig, subjects: Sequence[Subject]) -> TrainingStatistics:
    """Statistics of training subjects: of all where data.store has them, else of a sample.

    Says on standard output how many NIfTI subjects it read. Raises UserError where one of them
    can't be used.
    """
    store, names = open_store(data), list(data.sequences)
    sample = [subjects[i] for i in evenly_spaced(len(subjects), SAMPLE)]
    if store is None:
        print(f"intensity statistics: of {len(sample)} of {len(subjects)} training subjects")
    maxima, means = dict[int, list[float]](), dict[int, list[float]]()
    spacings = []
    for subject in sample:
        indices = subject.trained_on(data.use_all_sequences)
        volumes = load_box(subject, whole_window, len(names), indices)
        for index in indices:
            image = volumes.images[index]
            mean = image[image > BACKGROUND].mean(dtype=np.float64)
            means.setdefault(index, []).append(float(mean))
            if store is None:
                maxima.setdefault(index, []).append(float(volumes.maxima[index]))
        if store is None:
            spacings.append(in_plane_spacing(volumes.geometry))
    if store is not None:
        for subject in subjects:
            entry, indices = store.entry(subject.name), subject.trained_on(data.use_all_sequences)
            for index in indices:
                maxima.setdefault(index, []).append(entry.sequences[names[index]].maximum)
            spacings.append(in_plane_spacing(entry.geometry(names[indices[0]])))
    y, x = np.median(spacings, axis=0)
    return TrainingStatistics(_medians(maxima, names), (float(y), float(x)), _medians(means, names))


def in_plane_spacing(geometry: Geometry) -> tuple[float, float]:
    """Voxel size within axial slices (LPS order), y and x, in mm."""
    return geometry.spacing[1:]


def evenly_spaced(length: int, count: int) -> list[int]:
    """`count` of the positions 0 … length − 1 with both ends, rounded down; all, if fewer."""
    if length <= count:
        return list(range(length))
    return [i * (length - 1) // max(count - 1, 1) for i in range(count)]


def _medians(values: Mapping[int, Sequence[float]], names: Sequence[str]) -> dict[str, float]:
    """Of each sequence, by its name."""
    return {names[index]: float(np.median(values[index])) for index in sorted(values)}
