"""What each source contributed to an imputed image, on the subject's grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.nifti import image_like
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.explain.contribution_maps import explained
from tsf_seq2seq.imputation.sources import Sources
from tsf_seq2seq.tasks import Task


@dataclass(frozen=True)
class Contributions:
    """Shapley values of a task's sources: at every voxel of the brain they add up, with `empty`, to
    the network's output (as the image shows it, unless that was adapted).

    `images`: source → what it adds, in the target's intensity, signed; `empty`: the intensity that
    stands for no source, `empty_of` whose it is; `shares`, `lesion_shares`: of the sources in the
    mean of the amounts over brain and lesion, which sum to one (None without a label map, or where
    that is empty).
    """

    images: dict[str, nib.Nifti1Image]
    empty: float
    empty_of: str
    shares: dict[str, float]
    lesion_shares: dict[str, float] | None


def contributions_of(
    model: Model,
    sources: Sources,
    task: Task,
    outputs: Mapping[Task, np.ndarray],
    maximum: float,
    lesion: np.ndarray | None,
) -> Contributions:
    """Of the outputs (Z, Y, X) from all sets of a task's sources, whose 1 becomes `maximum`."""
    target = model.sequences[task.target]
    level, level_of = _level_without_sources(model, sources, target, outputs[task])
    empty = np.where(sources.brain, np.float32(level), np.float32(BACKGROUND))
    found, names = explained(task, outputs, empty), model.sequences

    def shares(region: np.ndarray) -> dict[str, float]:
        return {names[source]: share for source, share in found.shares(region).items()}

    return Contributions(
        {
            names[source]: image_like(
                sources.template,
                own * np.float32(maximum / 2),
                sources.geometry,
                f"contribution of {names[source]} to {target}",
            )
            for source, own in found.contributions.items()
        },
        (level + 1) / 2 * maximum,
        level_of,
        shares(sources.brain),
        shares(lesion) if lesion is not None and lesion.any() else None,
    )


def _level_without_sources(
    model: Model, sources: Sources, target: str, output: np.ndarray
) -> tuple[float, str]:
    """What stands for the target where no source tells of it, in [-1, 1], and where it is from."""
    means = (model.statistics.means if model.statistics else None) or {}
    if target in means:
        return means[target], f"mean of {target} in the brains of the training data"
    mean = float(output[sources.brain].mean(dtype=np.float64))
    return mean, f"the synthesis' own mean: the checkpoint has no mean of {target}"
