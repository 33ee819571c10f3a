"""Baselines that need no network: regression per voxel, and the training set's mean."""

from collections.abc import Iterable, Sequence

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.synthesis.polynomials import (
    Moments,
    Term,
    gram_matrix,
    polynomial_terms,
    products,
)
from tsf_seq2seq.tasks import Task


class PolynomialRegression:
    """target ≈ β_0 + Σ_i β_i · source_i + Σ_{i≤j} β_ij · source_i · source_j + … in normalised
    intensities, clipped to [-1, 1]: all products of up to `degree` sources.

    One least-squares fit a task, over every voxel of the training windows that have its sequences;
    all fits come from Gram matrices of [1, sequences, their products], one for each set of
    sequences that windows have.
    """

    def __init__(self, n_sequences: int, degree: int) -> None:
        self.n_sequences, self.degree = n_sequences, degree
        self.terms = polynomial_terms(range(n_sequences), degree)
        self.grams: dict[frozenset[int], np.ndarray] = {}

    def fit(
        self, windows: Iterable[np.ndarray], available: Sequence[int] | None = None
    ) -> "PolynomialRegression":
        """Add training windows (S, Z, Y, X) that have the `available` sequences (None: all)."""
        held = frozenset(range(self.n_sequences) if available is None else available)
        for window in windows:
            gram = gram_matrix(window.reshape(len(window), -1), self.terms)
            self.grams[held] = self.grams.get(held, 0) + gram
        return self

    def covers(self, task: Task) -> bool:
        """Whether a training window has all of the task's sequences."""
        return any(held >= {*task.sources, task.target} for held in self.grams)

    def coefficients(self, task: Task) -> np.ndarray:
        """[β_0, β of each source in the task's order, β of each product of two (those of the first
        source come first: 1·1, 1·2, 1·3, 2·2, 2·3, 3·3), …], in float64.
        """
        return self.moments(task).fit()

    def moments(self, task: Task) -> Moments:
        """Of the task's terms and target, over the voxels of all windows that have its sequences;
        the task must be covered."""
        needed = {*task.sources, task.target}
        gram = np.sum([gram for held, gram in self.grams.items() if held >= needed], axis=0)
        terms = [*self._terms(task), (task.target,)]
        rows = [self.terms.index(tuple(sorted(term))) for term in terms]
        return Moments(gram[np.ix_(rows, rows)])

    def predict(self, window: np.ndarray, task: Task) -> np.ndarray:
        """Synthesis (Z, Y, X) of the task's target from a window (S, Z, Y, X)."""
        intercept, *slopes = self.coefficients(task)
        combined = np.tensordot(slopes, products(window, self._terms(task)[1:]), axes=1)
        return np.clip(intercept + combined, -1, 1).astype(np.float32)

    def _terms(self, task: Task) -> list[Term]:
        return polynomial_terms(task.sources, self.degree)


class MeanImage:
    """The mean of the target's window over the training subjects that have the target."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.counts = np.zeros(0, dtype=int)  # windows per sequence
        self.mean: dict[int, np.ndarray] = {}

    def fit(
        self, windows: Iterable[np.ndarray], available: Sequence[int] | None = None
    ) -> "MeanImage":
        """Add training windows (S, Z, Y, X) of one shape, of their `available` sequences (all)."""
        for window in windows:
            if self.total is None:
                self.total = np.zeros(window.shape)
                self.counts = np.zeros(len(window), dtype=int)
            self._check_shape(window)
            held = list(range(len(window)) if available is None else available)
            self.total[held] += window[held]
            self.counts[held] += 1
        self.mean = {}
        return self

    def covers(self, task: Task) -> bool:
        """Whether a training window has the task's target."""
        return task.target < len(self.counts) and bool(self.counts[task.target])

    def predict(self, window: np.ndarray, task: Task) -> np.ndarray:
        """Mean (Z, Y, X) of the task's target; the same array for every task that shares it."""
        self._check_shape(window)
        target = task.target
        if target not in self.mean:
            assert self.total is not None
            self.mean[target] = (self.total[target] / self.counts[target]).astype(np.float32)
        return self.mean[target]

    def _check_shape(self, window: np.ndarray) -> None:
        assert self.total is not None, "fit first"
        if self.total.shape != window.shape:
            raise UserError(
                f"mean_image needs windows of one shape, not {self.total.shape[1:]} and "
                f"{window.shape[1:]}; leave it out, or choose a data.crop that all volumes cover"
            )
