"""MMgSN-Net's generator: two sources to one target; what is fused is fed back into the encoders.

Li et al., "Virtual contrast-enhanced magnetic resonance images synthesis for patients with
nasopharyngeal carcinoma using multimodality-guided synergistic neural network", International
Journal of Radiation Oncology, Biology, Physics 112(4), 2022. Its discriminator is Hi-Net's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import TwoSourceFamily
from tsf_seq2seq.peers.blocks import MixedFusion, conv_norm_act, draw_weights
from tsf_seq2seq.peers.hi_net import DECODER, ENCODER, two_convs
from tsf_seq2seq.settings import NetworkSettings, setting


@dataclass(frozen=True)
class MMgSNConfig(NetworkSettings):
    """Architecture of MMgSN-Net: a generator for every two sources and a target."""

    name: str = setting("mmgsn_net", "which network")
    channels: int = setting(
        64, "channels of the full resolution; 8 times as many at the deepest", 8
    )
    discriminator_channels: int = setting(32, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> TwoSourceFamily:
        def make_network() -> nn.Module:
            return draw_weights(MMgSNGenerator(stack, stack, self.channels))

        family = TwoSourceFamily(n_sequences, stack, 4, make_network)
        family.judge_channels = self.discriminator_channels
        return family


class MMgSNEncoder(nn.Module):
    """Stages of one source; from the second on they are told what was fused of both before."""

    def __init__(self, c_in: int, channels: int) -> None:
        super().__init__()
        c = channels
        widths = (c_in, c), (3 * c, 2 * c), (8 * c, 4 * c)
        self.stages = nn.ModuleList(two_convs(*own) for own in widths)

    def forward(self, stage: int, x: Tensor, *fused: Tensor) -> Tensor:
        """The map x of the stage before, or the source → (B, c, h, w); `fused` at half its size."""
        if fused:
            x = torch.cat([F.max_pool2d(x, 2), *fused], dim=1)
        return self.stages[stage](x)


class MMgSNGenerator(nn.Module):
    """Sizes that 4 divides pass."""

    def __init__(self, c_in: int, c_out: int, channels: int = 64) -> None:
        super().__init__()
        c = channels
        self.encoders = nn.ModuleList(MMgSNEncoder(c_in, c) for _ in range(2))
        self.fuse1 = MixedFusion(c, 2 * c, 0, ENCODER)
        self.fuse2 = MixedFusion(2 * c, 4 * c, 2 * c, ENCODER)
        self.fuse3 = MixedFusion(4 * c, 4 * c, 4 * c, ENCODER)
        self.deepest = nn.Sequential(*conv_norm_act(4 * c, 8 * c, ENCODER))
        self.decode1 = nn.Sequential(*conv_norm_act(8 * c, 4 * c, DECODER))
        self.decode2 = MixedFusion(4 * c, 2 * c, 4 * c, DECODER)
        self.decode3 = MixedFusion(2 * c, c, 2 * c, DECODER)
        self.attention = SelfAttention(c)
        self.decode4 = MixedFusion(c, c, c, DECODER)
        self.decode5 = nn.Sequential(*conv_norm_act(c, c, DECODER))
        self.last = nn.Sequential(nn.Conv2d(9 * c, c_out, 1), nn.Tanh())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b (B, c_in, H, W) → the target (B, c_out, H, W)."""
        first = self._encode(0, [a, b])  # (B, c, H, W) each
        fused1 = F.max_pool2d(self.fuse1(*first), 2)  # (B, 2·c, H/2, W/2)
        second = self._encode(1, first, fused1)  # (B, 2·c, H/2, W/2) each
        fused2 = F.max_pool2d(self.fuse2(*second, fused1), 2)  # (B, 4·c, H/4, W/4)
        third = self._encode(2, second, fused2, F.max_pool2d(fused1, 2))  # (B, 4·c, H/4, W/4) each
        deepest = self.deepest(self.fuse3(*third, fused2))  # (B, 8·c, H/4, W/4)
        x1 = self.decode1(deepest)  # (B, 4·c, H/4, W/4)
        x2 = self.decode2(*third, x1)  # (B, 2·c, H/4, W/4)
        x3 = self.attention(self.decode3(*second, F.interpolate(x2, scale_factor=2.0)))
        x4 = self.decode4(*first, F.interpolate(x3, scale_factor=2.0))  # (B, c, H, W)
        size = x4.shape[-2:]
        larger = [
            F.interpolate(x, size=size, mode="bilinear", align_corners=True) for x in (x1, x2, x3)
        ]
        return self.last(torch.cat([self.decode5(x4), *larger, x4], dim=1))

    def _encode(self, stage: int, maps: Sequence[Tensor], *fused: Tensor) -> list[Tensor]:
        return [own(stage, x, *fused) for own, x in zip(self.encoders, maps, strict=True)]


class SelfAttention(nn.Module):
    """x + γ · Σ_j softmax_j(q_i · k_j) v_j over all positions (SAGAN, 2019); γ starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, h, w) → (B, c, h, w)."""
        query, key, value = (
            own(x).flatten(2).mT.unsqueeze(1) for own in (self.query, self.key, self.value)
        )  # (B, 1, h·w, c/8 or c) each
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gamma * found.squeeze(1).mT.reshape(x.shape)
