"""Hi-Net's networks: two sources, fused layer by layer, to one target and both sources again.

Zhou et al., "Hi-Net: hybrid-fusion network for multi-modal MR image synthesis", IEEE Transactions
on Medical Imaging 39(9), 2020.
"""

import itertools
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import TwoSourceFamily
from tsf_seq2seq.peers.blocks import (
    MixedFusion,
    conv_norm_act,
    draw_weights,
    patch_layers,
)
from tsf_seq2seq.settings import NetworkSettings, setting

ENCODER, DECODER = 0.2, 0.0  # slopes of the activations
NORM_EPSILON = 0.8  # of the discriminators' BatchNorm


@dataclass(frozen=True)
class HiNetConfig(NetworkSettings):
    """Architecture of Hi-Net: a generator for every two sources and a target."""

    name: str = setting("hi_net", "which network")
    channels: int = setting(
        32, "channels of the full resolution; 8 times as many at the deepest", 1
    )
    discriminator_channels: int = setting(32, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> TwoSourceFamily:
        def make_network() -> nn.Module:
            return draw_weights(HiNetGenerator(stack, stack, self.channels))

        family = TwoSourceFamily(n_sequences, stack, 8, make_network)
        family.judge_channels = self.discriminator_channels
        return family


class HiNetGenerator(nn.Module):
    """Two encoders, a way of fusions of their maps and its decoder, and a decoder of each encoder.

    Sizes that 8 divides pass.
    """

    def __init__(self, c_in: int, c_out: int, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.encoders = nn.ModuleList(_encoder([c_in, c, 2 * c, 4 * c]) for _ in range(2))
        self.fuse1 = MixedFusion(c, 2 * c, 0, ENCODER)
        self.fuse2 = MixedFusion(2 * c, 4 * c, 2 * c, ENCODER)
        self.fuse3 = MixedFusion(4 * c, 4 * c, 4 * c, ENCODER)
        self.deepest = nn.Sequential(*conv_norm_act(4 * c, 8 * c, ENCODER))
        self.decode1 = nn.Sequential(*conv_norm_act(8 * c, 4 * c, DECODER))
        self.decode2 = MixedFusion(4 * c, 2 * c, 4 * c, DECODER)
        self.decode3 = MixedFusion(2 * c, c, 2 * c, DECODER)
        self.decode4 = MixedFusion(c, c, c, DECODER)
        self.decode5 = nn.Sequential(*conv_norm_act(c, c, DECODER))
        self.last = nn.Sequential(nn.Conv2d(c, c_out, 3, 1, 1), nn.Tanh())
        self.reconstructions = nn.ModuleList(_reconstruction(c, c_in) for _ in range(2))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, b (B, c_in, H, W) → target (B, c_out, H, W), a and b reconstructed."""
        maps_a, maps_b = (self._encode(k, x) for k, x in enumerate((a, b)))
        pairs = list(zip(maps_a, maps_b, strict=True))
        x = F.max_pool2d(self.fuse1(*pairs[0]), 2)  # (B, 2·c, H/4, W/4)
        x = F.max_pool2d(self.fuse2(*pairs[1], x), 2)  # (B, 4·c, H/8, W/8)
        x = self.decode1(self.deepest(self.fuse3(*pairs[2], x)))  # (B, 4·c, H/8, W/8)
        x = _doubled(self.decode2(*pairs[2], x))  # (B, 2·c, H/4, W/4)
        x = _doubled(self.decode3(*pairs[1], x))  # (B, c, H/2, W/2)
        x = self.decode5(_doubled(self.decode4(*pairs[0], x)))  # (B, c, H, W)
        again = [
            own(maps[2]) for own, maps in zip(self.reconstructions, (maps_a, maps_b), strict=True)
        ]
        return self.last(x), again[0], again[1]

    def _encode(self, which: int, x: Tensor) -> list[Tensor]:
        """Pooled maps of a source: (B, c, H/2, W/2), (B, 2·c, H/4, W/4), (B, 4·c, H/8, W/8)."""
        maps = []
        for stage in self.encoders[which]:  # type: ignore[attr-defined]
            x = F.max_pool2d(stage(x), 2)
            maps.append(x)
        return maps


def hi_net_discriminator(
    c_in: int, channels: int = 32, first_normed: bool = False
) -> nn.Sequential:
    """Images (B, c_in, H, W) → scores of patches (B, 1, H/16 − 2, W/16 − 2); MMgSN-Net's with
    `first_normed`."""

    def norm(c: int) -> nn.Module:
        return nn.BatchNorm2d(c, NORM_EPSILON)

    layers = patch_layers(c_in, channels, 3, (2, 2, 2, 2), norm, first_normed)
    return nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 3))


def two_convs(c_in: int, c_out: int) -> nn.Sequential:
    """A stage of an encoder."""
    return nn.Sequential(
        *conv_norm_act(c_in, c_out, ENCODER), *conv_norm_act(c_out, c_out, ENCODER)
    )


def _encoder(widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(two_convs(*pair) for pair in itertools.pairwise(widths))


def _reconstruction(c: int, c_out: int) -> nn.Sequential:
    """The deepest map of a source (B, 4·c, H/8, W/8) → the source (B, c_out, H, W)."""
    widths = [4 * c, 4 * c, 4 * c, 2 * c, 2 * c, c, c]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += conv_norm_act(before, after, DECODER)
        layers += [nn.Upsample(scale_factor=2)] if place % 2 == 0 else []
    return nn.Sequential(*layers, nn.Conv2d(c, c_out, 3, 1, 1), nn.Tanh())


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)
