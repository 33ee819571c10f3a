"""Pix2Pix's generator: a U-Net without residual blocks, one source image to one target image.

Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import PairFamily
from tsf_seq2seq.peers.blocks import check_share, draw_weights
from tsf_seq2seq.settings import NetworkSettings, setting


@dataclass(frozen=True)
class Pix2PixConfig(NetworkSettings):
    """Architecture of Pix2Pix: a generator for each ordered pair of sequences."""

    name: str = setting("pix2pix", "which network")
    channels: int = setting(
        64, "channels of the full resolution; 8 times as many at the deepest", 1
    )
    downs: int = setting(8, "how often the size is halved; 2 to this power must divide it", 2)
    dropout: float = setting(0.5, "share of features left out in training, in [0, 1)", 0)
    discriminator_channels: int = setting(64, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> PairFamily:
        check_share(self.dropout, "dropout")

        def make_network() -> nn.Module:
            return draw_weights(
                Pix2PixGenerator(stack, stack, self.channels, self.downs, self.dropout)
            )

        family = PairFamily(n_sequences, stack, 2**self.downs, make_network)
        family.judge_channels = self.discriminator_channels
        return family


class Pix2PixGenerator(nn.Module):
    """U-Net that halves its input `downs` times, with a concatenation at every scale.

    Convolutions are 4 × 4 with stride 2; activations stand before them. With 8 downs only sizes
    that 256 divides pass.
    """

    def __init__(
        self, c_in: int, c_out: int, channels: int = 64, downs: int = 8, dropout: float = 0.5
    ) -> None:
        """`channels`: after the first convolution, then twice as many, up to 8 times; `dropout`: in
        the blocks between two scales of the most channels."""
        super().__init__()
        widths = [channels * min(2**scale, 8) for scale in range(downs)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for scale, width in enumerate(widths):
            before = widths[scale - 1] if scale else c_in
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if scale else []
            layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=False))
            if 0 < scale < downs - 1:
                layers.append(nn.BatchNorm2d(width))
            self.down.append(nn.Sequential(*layers))
        for scale in reversed(range(1, downs)):
            joined = widths[scale] * (1 if scale == downs - 1 else 2)
            layers = [nn.ReLU(), nn.ConvTranspose2d(joined, widths[scale - 1], 4, 2, 1, bias=False)]
            layers.append(nn.BatchNorm2d(widths[scale - 1]))
            if 4 <= scale < downs - 1:
                layers.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*layers))
        last = nn.ConvTranspose2d(2 * channels, c_out, 4, 2, 1)
        self.up.append(nn.Sequential(nn.ReLU(), last, nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) → (B, c_out, H, W) in [-1, 1]."""
        features = []
        for stage in self.down:
            x = stage(x)  # (B, c, H/2, W/2), …, (B, 8·c, 1, 1) at 256 × 256
            features.append(x)
        first, *others = self.up
        x = first(features.pop())
        for stage in others:
            x = stage(torch.cat([features.pop(), x], dim=1))
        return x
