"""How far an imputed image is expected to be off, on the subject's grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.nifti import image_like
from tsf_seq2seq.data.slices import central
from tsf_seq2seq.imputation.slices import Slices
from tsf_seq2seq.imputation.sources import Sources
from tsf_seq2seq.synthesis.error_map import ErrorMap
from tsf_seq2seq.synthesis.verdict import (
    Verdict,
    disagreement_name,
    expected_error_name,
    judge,
    log_rms,
)
from tsf_seq2seq.tasks import task_key

SHARE_OUTSIDE = "0.1"  # share of the brain outside of the band


@dataclass(frozen=True)
class ImputedErrors:
    """An error map's say on the network's output.

    `image`: the expected absolute error in the target's intensity, `mean` its mean in the brain;
    `bounds`, where they were asked for: lower and upper ends of the band that holds all but 10 % of
    the brain, on average over subjects like those of the calibration; it is `factor` times the
    scale wide to either side, None where the calibration had too few.
    `psnr`: expected in the brain's evaluated slices (dB), and how far it may be off, `psnr_margin`,
    for all but 10 % of subjects; `subjects`: that the map was calibrated on, None where it wasn't;
    `verdict`: whether the sources and what the network makes of them are like these subjects'.
    """

    image: nib.Nifti1Image
    bounds: tuple[nib.Nifti1Image, nib.Nifti1Image] | None
    mean: float
    factor: float | None
    psnr: float
    psnr_margin: float | None
    subjects: int | None
    verdict: Verdict | None


def imputed_errors(
    model: Model,
    error_map: ErrorMap,
    sources: Sources,
    target: str,
    slices: Slices,
    maximum: float,
    statistics: Mapping[str, float],
    with_bounds: bool,
) -> ImputedErrors:
    """Of a network's output in [-1, 1], whose 1 becomes `maximum`, and its errors' scales, 0
    outside of the brain; `statistics`: those of the sources."""
    output, scale = slices.image, slices.scale
    assert scale is not None
    known, half = error_map.calibration, np.float32(maximum / 2)
    factor = known.factors.get(SHARE_OUTSIDE) if known else None
    expected = error_map.expected_error(scale) * half

    def image(volume: np.ndarray, content: str) -> nib.Nifti1Image:
        return image_like(sources.template, volume, sources.geometry, f"{content} of {target}")

    evaluated = _evaluated(sources.brain, known.slices if known else None, model.network.slices)
    task, names = model.task(sources.images, target), list(model.sequences)
    told = {**statistics, expected_error_name(task, names): log_rms(scale[evaluated])}
    if slices.apart is not None:
        told[disagreement_name(task, names)] = slices.apart
    bounds = None
    if with_bounds and factor is not None:
        middle, width = (output + 1) * half, np.float32(factor) * scale * half
        lower, upper = (middle - width).clip(min=0), middle + width
        bounds = image(lower, "lower bound"), image(upper, "upper bound")
    return ImputedErrors(
        image(expected, "expected error"),
        bounds,
        float(expected[sources.brain].mean()),
        factor,
        error_map.expected_psnr(scale[evaluated], task_key(task, names)),
        known.psnr_margins.get(SHARE_OUTSIDE) if known else None,
        known.subjects if known else None,
        judge(told, known.statistics) if known else None,
    )


def _evaluated(brain: np.ndarray, slices: int | None, stack: int) -> np.ndarray:
    """The part of a brain (Z, Y, X) that calibration would look at: the centres of stacks in the
    central `slices`; all of it where that is empty, or not known."""
    half, inner = stack // 2, np.zeros_like(brain)
    looked_at = central(len(brain), slices or len(brain))
    inner[looked_at.start + half : looked_at.stop - half] = True
    return brain & inner if slices and (brain & inner).any() else brain
