"""The error that is left of an output when its contrast may be mended."""

import torch
from torch import Tensor

from tsf_seq2seq.data.slices import BACKGROUND

RIDGE = 1e-4  # of the mean square of the terms, which are nearly collinear


def mapped_error(output: Tensor, sources: Tensor, wanted: Tensor) -> Tensor:
    """wanted − the best quadratic map of the sources and the output, of each sample by itself.

    output, wanted (B, C, H, W); sources (B, n, C, H, W) → (B, C, H, W), zero where all sources are
    background. The map is that of an adaptation to a scanner (`synthesis/contrast_map.py`), fitted
    on the sample: what it can mend doesn't count. At the best map a change of its coefficients
    changes no error, so that they need no gradient (envelope theorem).
    """
    brain = (sources > BACKGROUND).any(dim=1)  # (B, C, H, W)
    terms = _terms([*sources.unbind(dim=1), output])
    precise = torch.float32 if output.device.type == "mps" else torch.float64  # it has no float64
    with torch.no_grad():
        design = torch.stack([term.flatten(1) for term in terms], dim=1).to(precise)  # (B, p, N)
        inside = design * brain.flatten(1).unsqueeze(1)
        gram = inside @ design.transpose(1, 2)  # (B, p, p)
        size = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
        gram += RIDGE * size[:, None, None] * torch.eye(gram.shape[-1], device=gram.device)
        moments = inside @ wanted.flatten(1).to(precise).unsqueeze(-1)  # (B, p, 1)
        solution = torch.linalg.solve(gram, moments).squeeze(-1)  # (B, p)
    slopes = solution.to(output.dtype).unbind(dim=1)
    parts = [c[:, None, None, None] * term for c, term in zip(slopes, terms, strict=True)]
    return torch.where(brain, wanted - torch.stack(parts).sum(dim=0), 0)


def _terms(variables: list[Tensor]) -> list[Tensor]:
    """1, the variables, and all products of two."""
    pairs = [a * b for i, a in enumerate(variables) for b in variables[i:]]
    return [torch.ones_like(variables[0]), *variables, *pairs]
