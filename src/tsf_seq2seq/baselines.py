"""Yardsticks that need no network: linear regression per voxel, and the training set's mean."""

from collections.abc import Iterable

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import Task


class LinearRegression:
    """target ≈ β_0 + Σ_i β_i · source_i in normalised intensities, clipped to [-1, 1].

    One least-squares fit a task, over every voxel of every training window; all fits come from one
    Gram matrix of [1, sequences].
    """

    def __init__(self, n_sequences: int) -> None:
        self.gram = np.zeros((n_sequences + 1, n_sequences + 1))

    def fit(self, windows: Iterable[np.ndarray]) -> "LinearRegression":
        """Add training windows (S, Z, Y, X); sequences that a window lacks must not be in it."""
        for window in windows:
            flat = window.reshape(len(window), -1).astype(np.float64)
            design = np.concatenate([np.ones((1, flat.shape[1])), flat])
            self.gram += design @ design.T
        return self

    def coefficients(self, task: Task) -> np.ndarray:
        """[β_0, β of each source in the task's order]."""
        rows = [0, *(source + 1 for source in task.sources)]
        normal = self.gram[np.ix_(rows, rows)]
        return np.linalg.lstsq(normal, self.gram[rows, task.target + 1], rcond=None)[0]

    def predict(self, window: np.ndarray, task: Task) -> np.ndarray:
        """Synthesis (Z, Y, X) of the task's target from a window (S, Z, Y, X)."""
        intercept, *slopes = self.coefficients(task)
        combined = np.tensordot(slopes, window[list(task.sources)], axes=1)
        return np.clip(intercept + combined, -1, 1).astype(np.float32)


class MeanImage:
    """The mean over training subjects of the target's window, whatever the sources."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.count = 0
        self.mean: list[np.ndarray] | None = None  # per sequence, once fitted

    def fit(self, windows: Iterable[np.ndarray]) -> "MeanImage":
        """Add training windows (S, Z, Y, X) of one shape."""
        for window in windows:
            if self.total is None:
                self.total = np.zeros(window.shape)
            self._check_shape(window)
            self.total += window
            self.count += 1
        self.mean = None
        return self

    def predict(self, window: np.ndarray, task: Task) -> np.ndarray:
        """Mean (Z, Y, X) of the task's target; the same array for every task that shares it."""
        self._check_shape(window)
        if self.mean is None:
            assert self.total is not None
            self.mean = list((self.total / self.count).astype(np.float32))
        return self.mean[task.target]

    def _check_shape(self, window: np.ndarray) -> None:
        assert self.total is not None, "fit first"
        if self.total.shape != window.shape:
            raise UserError(
                f"mean_image needs windows of one shape, not {self.total.shape[1:]} and "
                f"{window.shape[1:]}; leave it out, or choose a data.crop that all volumes cover"
            )
