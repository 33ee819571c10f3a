"""How well one map orders another's values: rank correlation, sparsification, calibration."""

from dataclasses import dataclass
from math import nan

import numpy as np
from scipy.integrate import trapezoid

REMOVED = np.arange(20) / 20  # shares of voxels taken away: 0, 0.05, …, 0.95
CALIBRATION_BINS = 10
# Edges of the classes for pooling: 0, then 63 of equal ratio from 1e-4 to the range of errors, 2.
CLASS_EDGES = np.geomspace(1e-4, 2, 63).astype(np.float32)
CLASSES = len(CLASS_EDGES) + 1


@dataclass(frozen=True)
class Ranking:
    """Voxels in rising order of their values: `order` (N,), ties from `starts` (G,) on, G groups.

    What is computed of it is the expected value over all orders of tied voxels.
    """

    order: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> "Ranking":
        """Of values (N,)."""
        order = np.argsort(values)
        rising = values[order]
        return Ranking(order, np.flatnonzero(np.append(True, rising[1:] != rising[:-1])))

    @property
    def sizes(self) -> np.ndarray:
        """Members of each group of ties."""
        return np.diff(np.append(self.starts, len(self.order)))

    def ranks(self) -> np.ndarray:
        """Rank of each voxel (N,), from 1; ties share their mean rank."""
        ranks = np.empty(len(self.order))
        ranks[self.order] = np.repeat(self.starts + (self.sizes + 1) / 2, self.sizes)
        return ranks

    def expected(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) in this order, each replaced by the mean of its group of ties."""
        means = np.add.reduceat(values[self.order], self.starts, dtype=np.float64) / self.sizes
        return np.repeat(means, self.sizes)


def spearman(a: Ranking, b: Ranking) -> float:
    """Spearman's rank correlation of two maps of the same voxels; nan where one is constant."""
    if len(a.starts) < 2 or len(b.starts) < 2:
        return nan
    return float(np.corrcoef(a.ranks(), b.ranks())[0, 1])


def sparsification_curve(estimate: Ranking, error: np.ndarray) -> np.ndarray:
    """Mean error of the voxels that remain, after the shares `REMOVED` with the highest estimates.

    error (N,) → (20,). The oracle's curve is that of the error's own ranking; a constant
    estimate's is the random order's: everywhere the mean error.
    """
    kept = np.maximum(len(error) - np.rint(REMOVED * len(error)).astype(int), 1)
    sums = np.cumsum(estimate.expected(error))
    return sums[kept - 1] / kept


def area_between(curve: np.ndarray, oracle: np.ndarray) -> float:
    """AUSE = ∫ (curve − oracle) d(share removed) / mean error, trapezoids over 0 to 0.95.

    The area under the sparsification error (Ilg et al. 2018), 0 for a perfect order; nan where
    there is no error.
    """
    mean = oracle[0]
    return float(trapezoid(curve - oracle, REMOVED) / mean) if mean > 0 else nan


def calibration(
    ranking: Ranking, estimate: np.ndarray, error: np.ndarray
) -> list[tuple[int, float, float]]:
    """Ten equal parts of the voxels, by rising estimate: voxels, mean estimate, mean error.

    Parts without voxels, where there are fewer than ten, are left out.
    """
    ordered = (ranking.expected(values) for values in (estimate, error))
    parts = zip(*(np.array_split(values, CALIBRATION_BINS) for values in ordered), strict=True)
    return [(len(a), float(a.mean()), float(b.mean())) for a, b in parts if len(a)]


def classes(values: np.ndarray) -> np.ndarray:
    """Class of each value (N,), 0 to 63: how pooling keeps the order of voxels it can't keep."""
    return np.searchsorted(CLASS_EDGES, values, side="right")


def joint_counts(estimate: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Voxels per class of estimate and class of error, (64, 64), of two maps' classes (N,)."""
    counts = np.bincount(estimate * CLASSES + error, minlength=CLASSES**2)
    return counts.reshape(CLASSES, CLASSES)


def pooled_spearman(counts: np.ndarray) -> float:
    """Spearman's correlation of voxels counted per pair of classes; a class's members are ties."""
    sides = counts.sum(axis=1), counts.sum(axis=0)
    a, b = (np.cumsum(side) - (side - 1) / 2 for side in sides)  # mean rank in each class
    mean = (counts.sum() + 1) / 2
    covariance = ((a - mean)[:, None] * (b - mean) * counts).sum()
    product = float(((a - mean) ** 2 * sides[0]).sum() * ((b - mean) ** 2 * sides[1]).sum())
    return float(covariance / product**0.5) if product > 0 else nan
