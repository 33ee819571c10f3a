"""A network's output on a subject's grid, as a contrast map makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.imputation.sources import Sources
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap
from tsf_seq2seq.synthesis.likeness import Difference, Histogram, differences, histogram
from tsf_seq2seq.tasks import Task


@dataclass(frozen=True)
class AppliedMap:
    """What a contrast map made of the network's output.

    `references`: name → sequence → fingerprint; `shares`: how much of the output's variance over
    the references' brains comes through each source and through the network (`output`);
    `departure`: root mean square of what the map changed in the brain (range 2); `differences`: of
    the sources from the references.
    """

    references: dict[str, dict[str, str]]
    fitted: ContrastMap
    shares: dict[str, float]
    departure: float
    differences: tuple[Difference, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(found.text() for found in self.differences if not found.is_alike)


def apply_map(
    model: Model, adaptation: Adaptation, sources: Sources, target: str, output: np.ndarray
) -> tuple[np.ndarray, AppliedMap] | None:
    """The network's output (Z, Y, X) on the sources' grid, mapped; background outside the brain.

    None where the adaptation has no map of the task.
    """
    names, task = list(model.sequences), model.task(sources.images, target)
    fitted = adaptation.map_of(task, names)
    if fitted is None:
        return None
    image = fitted(source_stack(model, sources, task), output, sources.brain)
    change = (image - output)[sources.brain]
    own = histogram("the subject", sources.images)
    labels = [names[i] for i in task.sources] + ["output"]
    return image, AppliedMap(
        {reference.name: reference.fingerprints for reference in adaptation.references},
        fitted,
        dict(zip(labels, fitted.shares().tolist(), strict=False)),
        float(np.sqrt(np.mean(change.astype(np.float64) ** 2))),
        tuple(differences(own, adaptation.histograms, training_histograms(model))),
    )


def training_histograms(model: Model) -> Sequence[Histogram]:
    """What a checkpoint knows of how much brains differ; nothing without a map of its own."""
    return model.prior.histograms if model.prior else ()


def source_stack(model: Model, sources: Sources, task: Task) -> np.ndarray:
    """The images of a task's sources, (n, Z, Y, X)."""
    return np.stack([sources.images[model.sequences[i]] for i in task.sources])
