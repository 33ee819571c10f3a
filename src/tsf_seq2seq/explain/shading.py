"""Errors beyond contrast and shading: what is left when both are fitted to the target."""

import itertools
from collections.abc import Iterator

import numpy as np

SHADING_DEGREE = 3  # of polynomials of position: smooth over the brain
FITTED = 50_000  # voxels at most that the fit sees
TOGETHER = 100_000  # voxels at a time


def unshaded_error(target: np.ndarray, synthesis: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """|target − (a + b · synthesis)| of the brain's voxels (N,), both and `brain` (Z, Y, X).

    a and b are cubic polynomials of position by least squares: a bias field of the target, which no
    source tells, and an offset and gain of its contrast are taken out of the error.
    """
    positions = [
        (places * 2.0 / max(size - 1, 1) - 1)  # [-1, 1]
        for places, size in zip(np.nonzero(brain), brain.shape, strict=True)
    ]
    wanted, made = target[brain].astype(np.float64), synthesis[brain].astype(np.float64)
    step = -(-len(wanted) // FITTED)
    columns = _columns([own[::step] for own in positions], made[::step])
    fitted = np.linalg.lstsq(np.stack([*columns], axis=1), wanted[::step], rcond=None)[0]
    errors = np.empty(len(wanted), np.float32)
    for start in range(0, len(wanted), TOGETHER):
        part = slice(start, start + TOGETHER)
        terms = _columns([own[part] for own in positions], made[part])
        told = sum(own * term for own, term in zip(fitted, terms, strict=True))
        errors[part] = np.abs(wanted[part] - told)
    return errors


def _columns(positions: list[np.ndarray], made: np.ndarray) -> Iterator[np.ndarray]:
    """Every monomial of the positions, without and with the synthesis, (N,) each."""
    for powers in itertools.product(range(SHADING_DEGREE + 1), repeat=3):
        if sum(powers) <= SHADING_DEGREE:
            monomial = np.prod([p**n for p, n in zip(positions, powers, strict=True)], axis=0)
            yield monomial
            yield monomial * made
