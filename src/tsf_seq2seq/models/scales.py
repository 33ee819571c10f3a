"""What networks of several scales are made of: residual blocks told a code, the way down and up."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.models.blocks import Conv, Norm, activation, feature_norm


class TaskResidualBlock(nn.Module):
    """x + conv(act((1 + γ)·norm(conv x) + β)) with (γ, β) = Linear(z), which starts at zero.

    FiLM (Perez et al. 2018) of the residual branch by the code z. The stream x is never normalised,
    so that it keeps how bright a slice is.
    """

    def __init__(self, channels: int, code_length: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = Conv(channels, channels, 3)
        self.film = nn.Linear(code_length, 2 * channels)
        self.conv2 = Conv(channels, channels, 3)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (B, c, h, w), code (L,)."""
        gain, offset = self.film(code)[:, None, None].chunk(2)  # (c, 1, 1) each
        r = feature_norm(self.conv1(x), self.norm)  # (B, c, h, w)
        return x + self.conv2(activation((1 + gain) * r + offset))


class Stage(nn.Module):
    """Residual blocks at one scale."""

    def __init__(self, channels: int, blocks: int, code_length: int, norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TaskResidualBlock(channels, code_length, norm) for _ in range(blocks)
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, code)
        return x


def descend(
    x: Tensor, code: Tensor, stages: Iterable[nn.Module], shrink: Iterable[nn.Module]
) -> list[Tensor]:
    """x (B, c, H, W) → features of every scale, the full resolution first: a stage at each scale,
    between two of them a convolution that halves the size."""
    first, *others = stages
    features = [first(x, code)]  # (B, c, H, W)
    for smaller, stage in zip(shrink, others, strict=True):
        features.append(stage(smaller(features[-1]), code))  # (B, c', H/r, W/r)
    return features


def ascend(
    features: list[Tensor], code: Tensor, stages: Iterable[nn.Module], enlarge: Iterable[nn.Module]
) -> Tensor:
    """Features of every scale, the full resolution first → (B, c, H, W): from the coarsest on,
    doubled in size, added to those of the scale above, and a stage there."""
    *skips, x = features
    ways = list(zip(skips, stages, enlarge, strict=True))
    for skip, stage, larger in reversed(ways):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = stage(skip + larger(x), code)
    return x


def filled(images: Tensor, available: Tensor) -> Tensor:
    """images (B, S, C, H, W) with absent sequences at background; available (S,) of 0 and 1."""
    return torch.where(available.bool()[:, None, None, None], images, BACKGROUND)


def fill_absent(images: Tensor, available: Tensor) -> Tensor:
    """Slices of all sequences, absent ones at background, then S planes of availability.

    images (B, S, C, H, W), available (S,) of 0 and 1 → (B, S·C + S, H, W).
    """
    planes = available[:, None, None].expand(images.shape[0], -1, *images.shape[-2:])
    return torch.cat([filled(images, available).flatten(1, 2), planes], dim=1)
