"""How wide a band around a synthesis must be: conformal risk control over subjects.

Angelopoulos et al., "Conformal risk control", ICLR 2024. Voxels of one brain err together, so that
subjects count: R_i(λ) is the share of subject i's brain outside of synthesis ± λ·scale, the mean
over its tasks. The smallest λ is taken whose (Σ_i R_i(λ) + 1) / (n + 1) is at most α; the mean
share outside is then at most α, for a subject of the same kind as the n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Edges of classes of |error| / scale, 1 % apart; a factor is one of them.
RATIO_EDGES = np.geomspace(1e-3, 1e3, 1389)


@dataclass
class Ratios:
    """How much of a subject's |error| / scale is above each edge, task by task."""

    shares: list[np.ndarray]  # outside of ± each edge's multiple of the scale, by task

    @staticmethod
    def none() -> "Ratios":
        return Ratios([])

    def add(self, error: np.ndarray, scale: np.ndarray) -> None:
        """A task's voxels (N,): absolute errors and scales above 0."""
        ratio = error / scale
        places = np.searchsorted(RATIO_EDGES, ratio, side="left")  # ratio ≤ RATIO_EDGES[place]
        counts = np.bincount(places, minlength=len(RATIO_EDGES) + 1)
        self.shares.append(1 - np.cumsum(counts)[:-1] / len(ratio))

    @property
    def risk(self) -> np.ndarray:
        """R_i at every edge, which falls with it."""
        return np.mean(self.shares, axis=0)


def fewest_subjects(alpha: float) -> int:
    """Subjects below which not even bands without errors would do: 1 / (n + 1) ≤ α."""
    return int(np.ceil(1 / alpha - 1 - 1e-9))


def smallest_factor(subjects: Sequence[Ratios], alpha: float) -> float | None:
    """λ, rounded up by 1 % at most; None where there are too few subjects, or no λ does."""
    if len(subjects) < fewest_subjects(alpha):
        return None
    total = np.sum([own.risk for own in subjects], axis=0)
    enough = (total + 1) / (len(subjects) + 1) <= alpha + 1e-12
    return float(RATIO_EDGES[np.argmax(enough)]) if enough.any() else None


def margin(scores: Sequence[float], alpha: float) -> float | None:
    """What a further subject's score doesn't exceed with probability 1 − α: of n scores the
    ⌈(n + 1)(1 − α)⌉th; None for too few (split conformal prediction)."""
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha) - 1e-9))
    return float(sorted(scores)[rank - 1]) if rank <= len(scores) else None
