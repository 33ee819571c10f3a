"""Errors beyond contrast and shading: what is left when both are fitted to the target."""

import numpy as np

from tsf_seq2seq.synthesis.polynomials import polynomial_terms, products

SHADING_DEGREE = 3  # of polynomials of position: smooth over the brain
FITTED = 50_000  # voxels at most that the fit sees
TOGETHER = 100_000  # voxels at a time


def unshaded_error(target: np.ndarray, synthesis: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """|target − (a + b · synthesis)| of the brain's voxels (N,), both and `brain` (Z, Y, X).

    a and b are cubic polynomials of position by least squares: a bias field of the target, which no
    source tells, and an offset and gain of its contrast are taken out of the error.
    """
    positions = np.stack(
        [
            places * 2.0 / max(size - 1, 1) - 1  # [-1, 1]
            for places, size in zip(np.nonzero(brain), brain.shape, strict=True)
        ]
    )
    wanted, made = target[brain].astype(np.float64), synthesis[brain].astype(np.float64)
    step = -(-len(wanted) // FITTED)
    design = _design(positions[:, ::step], made[::step])
    fitted = np.linalg.lstsq(design.T, wanted[::step], rcond=None)[0]
    errors = np.empty(len(wanted), np.float32)
    for start in range(0, len(wanted), TOGETHER):
        part = slice(start, start + TOGETHER)
        rows = _design(positions[:, part], made[part])
        told = sum(own * row for own, row in zip(fitted, rows, strict=True))
        errors[part] = np.abs(wanted[part] - told)
    return errors


def _design(positions: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Every product of positions (3, N), then each times the synthesis (N,): (40, N)."""
    monomials = products(positions, polynomial_terms(range(3), SHADING_DEGREE))
    return np.concatenate([monomials, monomials * made])
