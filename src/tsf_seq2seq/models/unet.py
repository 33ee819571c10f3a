"""The zero-filled U-Net: the learned baseline that fuses all sequences in its first layer.

Early fusion of all sequences with absent ones filled in, as in Ronneberger et al. 2015 (U-Net) and
the multi-input baselines of the field. Normalising the residual branch alone keeps the absolute
intensities in the stream: normalised as a whole, a slice forgets how bright it was.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.base import Availability, SynthesisNetwork
from tsf_seq2seq.models.blocks import Conv, Norm, activation, normalise
from tsf_seq2seq.settings import NetworkSettings, setting

BACKGROUND = -1.0


@dataclass(frozen=True)
class UNetConfig(NetworkSettings):
    """Architecture of the zero-filled U-Net."""

    name: str = setting("unet", "which network")
    channels: tuple[int, ...] = setting((64, 128, 256), "channels per scale, each half as large", 1)
    residual_blocks: int = setting(2, "residual blocks per scale, on either way", 1)
    norm: Literal["instance", "none"] = setting("instance", "normalisation of residual branches")

    def build(self, n_sequences: int, stack: int) -> "UNet":
        return UNet(n_sequences, stack, self.channels, self.residual_blocks, self.norm)


class TaskResidualBlock(nn.Module):
    """x + conv(act((1 + γ)·norm(conv x) + β)) with (γ, β) = Linear(z), which starts at zero.

    FiLM (Perez et al. 2018) of the residual branch by the task code z.
    """

    def __init__(self, channels: int, code_length: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = Conv(channels, channels, 3)
        self.film = nn.Linear(code_length, 2 * channels)
        self.conv2 = Conv(channels, channels, 3)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, task_code: Tensor) -> Tensor:
        """x (B, c, h, w), task code (2S,)."""
        gain, offset = self.film(task_code)[:, None, None].chunk(2)  # (c, 1, 1) each
        r = normalise(self.conv1(x), self.norm)  # (B, c, h, w)
        return x + self.conv2(activation((1 + gain) * r + offset))


class Stage(nn.Module):
    """Residual blocks at one scale."""

    def __init__(self, channels: int, blocks: int, code_length: int, norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TaskResidualBlock(channels, code_length, norm) for _ in range(blocks)
        )

    def forward(self, x: Tensor, task_code: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, task_code)
        return x


class UNet(SynthesisNetwork):
    """All sequences, absent ones at background, and what is available → the target."""

    def __init__(
        self, n_sequences: int, slices: int, channels: tuple[int, ...], blocks: int, norm: Norm
    ) -> None:
        """`channels`: of each scale, the full resolution first; `blocks`: per scale and way."""
        super().__init__()
        self.n_sequences, self.slices = n_sequences, slices
        self.size_multiple = 2 ** (len(channels) - 1)
        code = 2 * n_sequences
        pairs = list(itertools.pairwise(channels))
        self.first = Conv(n_sequences * (slices + 1), channels[0], 3)
        self.down = nn.ModuleList(Stage(c, blocks, code, norm) for c in channels)
        self.shrink = nn.ModuleList(Conv(fine, coarse, 3, 2) for fine, coarse in pairs)
        self.enlarge = nn.ModuleList(Conv(coarse, fine, 3) for fine, coarse in pairs)
        self.up = nn.ModuleList(Stage(c, blocks, code, norm) for c in channels[:-1])
        self.last = Conv(channels[0], slices, 3)
        nn.init.zeros_(self.last.weight)  # an untrained network gives background

    def forward(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """images (B, S, C, H, W) in [-1, 1], available (S,) bool → (B, C, H, W).

        In [-1, 1] where the network is in evaluation mode; in training what is beyond counts as
        error. Pixels of absent sequences are never read.
        """
        task_code = self.task_code(self.sources_of(available), target)  # (2S,)
        x = self.pad(self.fill(images, task_code[: self.n_sequences]))  # (B, S·C + S, H', W')
        x = self.down[0](self.first(x), task_code)  # (B, c, H', W')
        skips = [x]
        for shrink, stage in zip(self.shrink, list(self.down)[1:], strict=True):
            x = stage(shrink(x), task_code)  # (B, c', H'/r, W'/r)
            skips.append(x)
        for scale in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[scale](skips[scale] + self.enlarge[scale](x), task_code)
        x = BACKGROUND + self.last(x)[..., : images.shape[-2], : images.shape[-1]]  # (B, C, H, W)
        return x if self.training else x.clamp(-1, 1)

    def fill(self, images: Tensor, available: Tensor) -> Tensor:
        """Slices of all sequences, absent ones at background, then S planes of availability.

        images (B, S, C, H, W), available (S,) of 0 and 1 → (B, S·C + S, H, W).
        """
        present = available.bool()[:, None, None, None]
        filled = torch.where(present, images, BACKGROUND).flatten(1, 2)  # (B, S·C, H, W)
        planes = available[:, None, None].expand(images.shape[0], -1, *images.shape[-2:])
        return torch.cat([filled, planes], dim=1)
