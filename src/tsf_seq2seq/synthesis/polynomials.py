"""Polynomials of images, and their least squares from sums over voxels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

BLOCK = 2**25  # values of a design matrix at once: 256 MB
Term = tuple[int, ...]  # the variables that are multiplied; () is 1


def polynomial_terms(variables: Sequence[int], degree: int) -> list[Term]:
    """All products of up to `degree` variables, such as (), (0,), (1,), (0, 0), (0, 1), (1, 1)."""
    factors = range(degree + 1)
    return [term for n in factors for term in combinations_with_replacement(variables, n)]


def products(values: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
    """Variables (V, …) → the product of each term's variables (terms, …); 1 for ()."""
    found = np.ones((len(terms), *values.shape[1:]), values.dtype)
    for product, term in zip(found, terms, strict=True):
        for variable in term:
            product *= values[variable]
    return found


def gram_matrix(variables: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
    """Σ φ φᵀ over the voxels of variables (V, N), φ the terms' products: (terms, terms) float64."""
    gram, voxels = np.zeros((len(terms), len(terms))), BLOCK // len(terms)
    for start in range(0, variables.shape[1], voxels):
        design = products(variables[:, start : start + voxels].astype(np.float64), terms)
        gram += design @ design.T
    return gram


@dataclass(frozen=True)
class Prior:
    """What coefficients are, as long as nothing else is known: `coefficients` (p,), and how much a
    change of them matters: `metric` (p, p), the mean of φ φᵀ over the voxels it is known from."""

    coefficients: np.ndarray
    metric: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Σ [φ, y] [φ, y]ᵀ over voxels, (p + 1, p + 1) float64: p terms φ, the first of them 1, and
    the target's intensity y. Sums of such are those of all their voxels."""

    gram: np.ndarray

    @property
    def voxels(self) -> float:
        return float(self.gram[0, 0])

    @property
    def metric(self) -> np.ndarray:
        """The mean of φ φᵀ, (p, p)."""
        return self.gram[:-1, :-1] / max(self.voxels, 1)

    def of(self, rows: Sequence[int]) -> "Moments":
        """The same of some of the terms."""
        kept = [*rows, len(self.gram) - 1]
        return Moments(self.gram[np.ix_(kept, kept)])

    def error(self, coefficients: np.ndarray) -> float:
        """Mean of (y − β·φ)² over the voxels; rounding may leave −1e-16 of an exact fit."""
        residual = np.append(-coefficients, 1.0)
        return float(residual @ self.gram @ residual) / max(self.voxels, 1)

    def fit(self, prior: Prior | None = None, strength: float = 0.0) -> np.ndarray:
        """β = argmin Σ (y − β·φ)² + λ (β − β₀)ᵀ P (β − β₀): β₀, P the prior's, λ the `strength`.

        λ says for how many voxels the prior counts; with an infinite one, β = β₀. Where the voxels
        tell nothing of a direction, β stays at the prior; without one, at zero. (p,)
        """
        start = np.zeros(len(self.gram) - 1) if prior is None else prior.coefficients
        if not np.isfinite(strength):
            return start
        left, right = self.gram[:-1, :-1], self.gram[:-1, -1]
        rest = right - left @ start
        if prior is not None:
            left = left + strength * prior.metric
        return start + np.linalg.lstsq(left, rest, rcond=None)[0]


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Of all voxels of the parts."""
    return Moments(np.sum([part.gram for part in parts], axis=0))
