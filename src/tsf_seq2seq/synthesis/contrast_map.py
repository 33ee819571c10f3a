"""The contrast map: a scanner's own contrast, learnt from complete subjects of it.

output = β · φ(x, f) on brain voxels, φ = [1, v_i, v_i v_j (i ≤ j)] of v = (x_1, …, x_n, f): the
task's sources in the sequences' order, and the network's output; without a network, the sources.
β is least squares over the references' voxels, shrunk towards a prior.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.synthesis.polynomials import (
    Moments,
    Prior,
    Term,
    gram_matrix,
    polynomial_terms,
)

SLABS = 8  # of a reference, of equally many brain voxels, along its first axis


def map_terms(n_variables: int) -> list[Term]:
    """φ of so many variables: 1, each of them, and all products of two."""
    return polynomial_terms(range(n_variables), 2)


def n_variables_of(n_terms: int) -> int:
    """n of (n + 1)(n + 2) / 2 terms, rounded down."""
    return int((np.sqrt(8 * n_terms + 1) - 3) / 2)


def brain_of(sources: np.ndarray) -> np.ndarray:
    """Where any of the sources (n, …) in [-1, 1] is above the background: (…) bool."""
    return np.any(sources > BACKGROUND, axis=0)


def slab_moments(
    sources: np.ndarray, output: np.ndarray | None, target: np.ndarray, brain: np.ndarray
) -> list[Moments]:
    """Moments of a reference, in SLABS parts that lie one behind the other.

    `sources` (n, Z, Y, X), the network's `output`, `target` and `brain` (Z, Y, X).
    """
    variables = _variables(sources, output, brain)
    values = np.concatenate([variables, target[brain][np.newaxis]])
    terms = [*map_terms(len(variables)), (len(variables),)]
    return [Moments(gram_matrix(part, terms)) for part in np.array_split(values, SLABS, axis=1)]


def _variables(sources: np.ndarray, output: np.ndarray | None, brain: np.ndarray) -> np.ndarray:
    """(x_1, …, x_n, f) of the brain's voxels, (n + 1, N)."""
    images = [*sources, *([] if output is None else [output])]
    return np.stack([image[brain] for image in images])


@dataclass(frozen=True)
class ContrastMap:
    """One task's map.

    `coefficients` (p,): of `map_terms`; `metric` (p · p,): the mean of φ φᵀ over the voxels that it
    was fitted on, row by row; `uses_output`: whether the last variable is the network's output;
    `strength`: for how many references the prior counted, None for infinitely many; `gain_db`: by
    how much the map's PSNR in the brain exceeds that of the network's output on a reference (or
    slab) that it was not fitted on, None where it can't be told.
    """

    coefficients: tuple[float, ...]
    metric: tuple[float, ...]
    uses_output: bool
    voxels: float
    strength: float | None = 0.0
    gain_db: float | None = None

    def __post_init__(self) -> None:
        terms = len(self.coefficients)
        if len(self.metric) != terms**2:
            raise ValueError(f"metric must have {terms**2} numbers, not {len(self.metric)}")
        if len(map_terms(self.n_variables)) != terms:
            raise ValueError(f"coefficients can't be {terms}")

    @property
    def n_variables(self) -> int:
        return n_variables_of(len(self.coefficients))

    @cached_property
    def prior(self) -> Prior:
        """The map as what another one is shrunk towards."""
        side = len(self.coefficients)
        return Prior(np.array(self.coefficients), np.array(self.metric).reshape(side, side))

    def __call__(
        self, sources: np.ndarray, output: np.ndarray | None, brain: np.ndarray
    ) -> np.ndarray:
        """Sources (n, Z, Y, X) and the network's output (Z, Y, X) → (Z, Y, X) float32.

        In [-1, 1], background outside the brain (Z, Y, X).
        """
        variables = _variables(sources, output if self.uses_output else None, brain)
        image = np.full(brain.shape, BACKGROUND, dtype=np.float32)
        image[brain] = self.of_voxels(variables).clip(-1, 1)
        return image

    def of_voxels(self, variables: np.ndarray) -> np.ndarray:
        """β · φ of variables (V, N), as β_0 + Σ_i v_i (β_i + Σ_{j ≥ i} β_ij v_j): (N,)."""
        constant, linear, products = self.parts
        found = np.full(variables.shape[1:], constant, dtype=variables.dtype)
        for i, variable in enumerate(variables):
            slope = sum(
                (products[i, j] * variables[j] for j in range(i, len(variables))),
                start=np.full_like(variable, linear[i]),
            )
            found += variable * slope
        return found

    @cached_property
    def parts(self) -> tuple[np.float32, np.ndarray, np.ndarray]:
        """β_0, β_i (V,) and β_ij (V, V), upper triangle, as float32."""
        values, n = np.array(self.coefficients, dtype=np.float32), self.n_variables
        products = np.zeros((n, n), dtype=np.float32)
        products[np.triu_indices(n)] = values[1 + n :]
        return values[0], values[1 : 1 + n], products

    def shares(self) -> np.ndarray:
        """How much of the output's variance over the brain comes through each variable (V,).

        cov(β_k φ_k, output) / var(output) of each term, halved between a product's two variables:
        they sum to one, and may be negative. Zeros for a constant output.
        """
        beta, second = self.prior.coefficients, self.prior.metric
        covariance = second - np.outer(second[0], second[0])
        of_terms = beta * (covariance @ beta)
        total, shares = of_terms.sum(), np.zeros(self.n_variables)
        for term, share in zip(map_terms(self.n_variables), of_terms, strict=True):
            for variable in term:
                shares[variable] += share / len(term)
        return shares / total if total > 0 else shares
