"""The zero-filled U-Net: the learned baseline that fuses all sequences in its first layer.

Early fusion of all sequences with absent ones filled in, as in Ronneberger et al. 2015 (U-Net) and
the multi-input baselines of the field. Normalising the residual branch alone keeps the absolute
intensities in the stream: normalised as a whole, a slice forgets how bright it was.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.models.base import Availability, SynthesisNetwork
from tsf_seq2seq.models.blocks import Conv, Norm
from tsf_seq2seq.models.scales import Stage, ascend, descend, fill_absent
from tsf_seq2seq.settings import NetworkSettings, setting


@dataclass(frozen=True)
class UNetConfig(NetworkSettings):
    """Architecture of the zero-filled U-Net."""

    name: str = setting("unet", "which network")
    channels: tuple[int, ...] = setting((64, 128, 256), "channels per scale, each half as large", 1)
    residual_blocks: int = setting(2, "residual blocks per scale, on either way", 1)
    norm: Literal["instance", "none"] = setting("instance", "normalisation of residual branches")

    def build(self, n_sequences: int, stack: int) -> "UNet":
        return UNet(n_sequences, stack, self.channels, self.residual_blocks, self.norm)


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
        filled = fill_absent(images, task_code[: self.n_sequences])  # (B, S·C + S, H, W)
        x = self.first(self.pad(filled))  # (B, c, H', W')
        features = descend(x, task_code, self.down, self.shrink)  # per scale (B, c, H'/r, W'/r)
        x = ascend(features, task_code, self.up, self.enlarge)  # (B, c, H', W')
        x = BACKGROUND + self.last(x)[..., : images.shape[-2], : images.shape[-1]]  # (B, C, H, W)
        return x if self.training else x.clamp(-1, 1)
