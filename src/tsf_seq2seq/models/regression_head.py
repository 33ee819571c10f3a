"""A regression of the target on the sources at every voxel: what a network starts from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.synthesis.polynomials import polynomial_terms
from tsf_seq2seq.tasks import Task

DEGREE = 2


class RegressionHead(nn.Module):
    """ŷ = β_0 + Σ_i β_i x_i + Σ_{i≤j} β_ij x_i x_j over a task's sources, with its own β each task.

    β = start + basis · δ: `start` is the least-squares fit of training data (`set_fit`), `basis`
    columns in which φ = [1, x_i, x_i x_j] of the task's sources are orthonormal over that data's
    voxels, and δ, at first zero, is learned: a step of any δ changes the image equally much,
    although the terms φ are nearly collinear. Without a fit, images start as background.
    """

    start: Tensor  # (2^S, S, T): of each set of sources and target, β of all terms
    basis: Tensor  # (2^S, T, T)

    def __init__(self, n_sequences: int) -> None:
        super().__init__()
        self.terms = polynomial_terms(range(n_sequences), DEGREE)
        n_terms, sets = len(self.terms), 2**n_sequences
        self.deltas = nn.Parameter(torch.zeros(sets, n_sequences, n_terms))
        self.register_buffer("start", torch.zeros(sets, n_sequences, n_terms))
        self.register_buffer("basis", torch.eye(n_terms).repeat(sets, 1, 1))
        self.start[..., 0] = BACKGROUND

    def coefficients(self, sources: Sequence[int], target: int) -> Tensor:
        """β of all terms (T,), those of absent sequences zero."""
        index = set_index(sources)
        return self.start[index, target] + (self.basis[index] * self.deltas[index, target]).sum(1)

    def rows_of(self, sources: Sequence[int]) -> list[int]:
        """Which of `terms` are products of the sources alone."""
        return [row for row, term in enumerate(self.terms) if set(sources).issuperset(term)]

    def basis_of(self, sources: Sequence[int]) -> Tensor:
        """The columns (T, T) in which the sources' terms are orthonormal."""
        return self.basis[set_index(sources)]

    def forward(self, images: Tensor, sources: Sequence[int], target: int) -> Tensor:
        """images (B, S, C, H, W) → ŷ (B, C, H, W); absent sequences' pixels are never read."""
        coefficients = dict(
            zip(self.terms, self.coefficients(sources, target).unbind(), strict=True)
        )
        chosen = sorted(sources)
        found = coefficients[()]
        for place, i in enumerate(chosen):
            slope = coefficients[i,]  # of x_i
            for j in chosen[place:]:
                slope = slope + coefficients[i, j] * images[:, j]
            found = found + images[:, i] * slope
        return found

    @torch.no_grad()
    def set_fit(self, task: Task, coefficients: np.ndarray, metric: np.ndarray) -> None:
        """Start a task from β of its own terms (p,), with the mean (p, p) of φ φᵀ of its data."""
        index, rows = set_index(task.sources), self.rows_of(task.sources)
        values, vectors = np.linalg.eigh(metric)
        kept = values > values.max() * 1e-9  # of the others, data tell nothing
        columns = vectors[:, kept] / np.sqrt(values[kept])  # (p, k): its φ are orthonormal
        self.deltas[index, task.target] = 0
        self.start[index, task.target] = 0
        self.start[index, task.target, rows] = torch.from_numpy(coefficients).float()
        self.basis[index] = 0
        places = torch.tensor(rows)
        self.basis[index, places[:, None], places[: columns.shape[1]]] = torch.from_numpy(
            columns
        ).float()


def set_index(sources: Sequence[int]) -> int:
    """Where a table over sets of sequences, (2^S, …), has these sources."""
    return sum(1 << i for i in sources)
