"""Task-specific weighted average of the sources' features (the paper's fusion weights ω)."""

import torch
from torch import Tensor, nn


def masked_weights(logits: Tensor, available: Tensor) -> Tensor:
    """ω_i = w_i·a_i / Σ_j w_j·a_j with w = softmax(logits) + 1e-5; logits, available, ω: (S,)."""
    weights = (torch.softmax(logits.float(), dim=0) + 1e-5) * available
    return weights / weights.sum()


def weighted_average(features: Tensor, weights: Tensor) -> Tensor:
    """Fused feature f̂ = Σ ω_i f_i, (B, c, h, w); features (B, n, c, h, w), weights ω (n,)."""
    return torch.einsum("n,bnchw->bchw", weights.to(features.dtype), features)


class FusionWeights(nn.Module):
    """Fusion weights of a task: task code (2S,) → ω (S,), which sum to one."""

    def __init__(self, n_sequences: int) -> None:
        super().__init__()
        self.n_sequences = n_sequences
        self.linear = nn.Linear(2 * n_sequences, n_sequences)

    def forward(self, task_code: Tensor) -> Tensor:
        """The task code begins with the availability a (S,)."""
        return masked_weights(self.linear(task_code), task_code[: self.n_sequences])
