"""An adaptation: the contrast maps of tasks, and whom they are from. Checkpoints carry it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of
from tsf_seq2seq.synthesis.likeness import Histogram
from tsf_seq2seq.tasks import Task, task_key


@dataclass(frozen=True)
class Reference:
    """A complete subject that maps were fitted on: its name, and the content of its files (sequence
    → fingerprint)."""

    name: str
    fingerprints: dict[str, str]


@dataclass(frozen=True)
class Adaptation:
    """Maps by task, such as t1+t2:flair, of all `references`.

    `maxima`: sequence → the references' median of the intensity that becomes 1; `histograms`: of
    the references, or of the training subjects in a map that is fitted on validation subjects.
    ValueError for a maximum that isn't positive.
    """

    references: tuple[Reference, ...]
    maps: dict[str, ContrastMap]
    maxima: dict[str, float]
    histograms: tuple[Histogram, ...] = ()

    def __post_init__(self) -> None:
        for value in self.maxima.values():
            if not value > 0:
                raise ValueError(f"maxima must be above 0, not {value:g}")

    def map_of(self, task: Task, names: Sequence[str]) -> ContrastMap | None:
        """The task's map, if there is one."""
        return self.maps.get(task_key(task, names))

    def mapped(
        self, task: Task, names: Sequence[str], images: np.ndarray, output: np.ndarray | None
    ) -> np.ndarray | None:
        """Images (S, Z, Y, X) in [-1, 1] and a network's output (Z, Y, X) → as the task's map
        makes it, (Z, Y, X) in [-1, 1].

        The output itself where there is no map, or where the map needs the output and it is None.
        """
        fitted = self.map_of(task, names)
        if fitted is None or (output is None and fitted.uses_output):
            return output
        sources = images[list(task.sources)]
        return fitted(sources, output, brain_of(sources))


def median_maxima(maxima: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each sequence's median over subjects (sequence → intensity that becomes 1)."""
    sequences = dict.fromkeys(name for own in maxima for name in own)
    return {
        name: float(np.median([own[name] for own in maxima if name in own])) for name in sequences
    }
