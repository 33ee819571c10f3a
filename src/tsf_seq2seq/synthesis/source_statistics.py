"""What can be told of a subject's sequences without knowing any other image of it.

A synthesis can't be better than what it is made from. These numbers change when a sequence is of
another subject, out of place, blurred, noisy, or of another contrast than its name says.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tsf_seq2seq.data.slices import BACKGROUND, bounding_box

QUANTILES = {"dark": 0.1, "middle": 0.5, "bright": 0.9}
BORDER_SHARE = 1e-3  # share of two brains that may lie apart by rounding at their borders
NEGLIGIBLE_SQUARES = 1e-6


def source_statistics(
    images: Mapping[str, np.ndarray], spacing: Sequence[float]
) -> dict[str, float]:
    """Sequence → (Z, Y, X) in [-1, 1], voxels of `spacing` (z, y, x) in mm → name → value.

    Of each sequence, over its own brain (above background): `<name>: dark`, `middle`, `bright`, its
    10, 50 and 90 % quantiles; `grain` and `grain of slices`, logarithm of the root mean square of
    second differences over that of first ones, within slices and across them: low where blurred,
    high where noisy; `size`, logarithm of the brain in ml. Of each two: `apart`, logarithm of the
    share (1 − Dice) in which their brains differ, and over what both have of the brain the
    correlations of their `intensities` and of their `edges` (gradient magnitudes).
    """
    box = bounding_box(np.any([image > BACKGROUND for image in images.values()], axis=0))
    images = {name: box.of(image) for name, image in images.items()}
    brains = {name: image > BACKGROUND for name, image in images.items()}
    edges = {name: gradient_magnitude(image, spacing) for name, image in images.items()}
    found: dict[str, float] = {}
    for name, image in images.items():
        brain = brains[name]
        levels = np.quantile(image[brain], list(QUANTILES.values()))
        values = dict(zip(QUANTILES, map(float, levels), strict=True))
        values["grain"] = _grain(image, brain, (1, 2))
        values["grain of slices"] = _grain(image, brain, (0,))
        values["size"] = float(np.log(brain.sum() * np.prod(spacing) / 1000))
        found |= {f"{name}: {kind}": value for kind, value in values.items()}
    for one, other in itertools.combinations(images, 2):
        joint = brains[one] & brains[other]
        dice = 2 * joint.sum() / (brains[one].sum() + brains[other].sum())
        pair = {
            "apart": float(np.log(1 - dice + BORDER_SHARE)),
            "intensities": _correlation(images[one][joint], images[other][joint]),
            "edges": _correlation(edges[one][joint], edges[other][joint]),
        }
        found |= {f"{one}, {other}: {kind}": value for kind, value in pair.items()}
    return found


def gradient_magnitude(volume: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """|∇x| of (Z, Y, X) by central differences, in intensity per unit of `spacing`.

    Axes of one voxel have no gradient.
    """
    axes = [axis for axis, size in enumerate(volume.shape) if size > 1]
    parts = [np.gradient(volume, spacing[axis], axis=axis) for axis in axes]
    magnitude: np.ndarray = np.linalg.norm(np.reshape(parts, (-1, *volume.shape)), axis=0)
    return magnitude


def _grain(image: np.ndarray, brain: np.ndarray, axes: Sequence[int]) -> float:
    """log(RMS second difference / RMS first difference) inside the brain along axes."""
    first, second = [], []
    for axis in axes:
        if image.shape[axis] < 3:
            return 0.0
        low, middle, high = (_part(image, axis, n) for n in range(3))
        inside = np.logical_and.reduce([_part(brain, axis, n) for n in range(3)])
        first.append((high - middle)[inside])
        second.append((high - 2 * middle + low)[inside])
    two, one = (
        float(np.square(np.concatenate(own), dtype=np.float64).sum()) for own in (second, first)
    )
    return 0.5 * float(np.log((two + NEGLIGIBLE_SQUARES) / (one + NEGLIGIBLE_SQUARES)))


def _part(volume: np.ndarray, axis: int, start: int) -> np.ndarray:
    """All of an axis but two places, from `start` on."""
    length = volume.shape[axis]
    return volume[(slice(None),) * axis + (slice(start, length - 2 + start),)]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, 0 where one of them is constant or there are no voxels."""
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
