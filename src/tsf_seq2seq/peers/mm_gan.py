"""MM-GAN's networks: all sequences in, absent ones filled in, all sequences out.

Sharma and Hamarneh, "Missing MRI pulse sequence synthesis using multi-modal generative adversarial
network", IEEE Transactions on Medical Imaging 39(4), 2020.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import AllToAll
from tsf_seq2seq.peers.blocks import check_share, draw_weights, patch_layers
from tsf_seq2seq.settings import NetworkSettings, setting


@dataclass(frozen=True)
class MMGANConfig(NetworkSettings):
    """Architecture of MM-GAN."""

    name: str = setting("mm_gan", "which network")
    channels: int = setting(
        64, "channels of the full resolution; 8 times as many at the deepest", 1
    )
    downs: int = setting(8, "how often the size is halved; 2 to this power must divide it", 2)
    dropout: float = setting(0.2, "share of features left out in training, in [0, 1)", 0)
    discriminator_channels: int = setting(64, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> AllToAll:
        check_share(self.dropout, "dropout")
        size = n_sequences * stack
        generator = MMGANGenerator(size, size, self.channels, self.downs, self.dropout)
        draw_weights(generator)
        network = AllToAll(n_sequences, stack, 2**self.downs, nn.Sequential(generator, nn.Tanh()))
        network.judge_channels = self.discriminator_channels
        return network


class MMGANGenerator(nn.Module):
    """U-Net that halves its input `downs` times, its features normalised per image; activations
    follow convolutions. With 8 downs only sizes that 256 divides pass.
    """

    def __init__(
        self, c_in: int, c_out: int, channels: int = 64, downs: int = 8, dropout: float = 0.2
    ) -> None:
        super().__init__()
        widths = [channels * min(2**scale, 8) for scale in range(downs)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for scale, width in enumerate(widths):
            before = widths[scale - 1] if scale else c_in
            layers: list[nn.Module] = [nn.Conv2d(before, width, 4, 2, 1, bias=False)]
            if 0 < scale < len(widths) - 1:
                layers.append(nn.InstanceNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            if scale >= 3:
                layers.append(nn.Dropout(dropout))
            self.down.append(nn.Sequential(*layers))
        for scale in reversed(range(1, len(widths))):
            joined = widths[scale] * (1 if scale == len(widths) - 1 else 2)
            width = widths[scale - 1]
            layers = [nn.ConvTranspose2d(joined, width, 4, 2, 1, bias=False)]
            layers += [nn.InstanceNorm2d(width), nn.ReLU()]
            if scale >= 4:
                layers.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*layers))
        self.last = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.ZeroPad2d((1, 0, 1, 0)),
            nn.Conv2d(2 * channels, c_out, 4, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) → (B, c_out, H, W), before the output's activation."""
        features = []
        for stage in self.down:
            x = stage(x)  # (B, c, H/2, W/2), …, (B, 8·c, H/256, W/256)
            features.append(x)
        x = features.pop()
        for stage in self.up:
            x = torch.cat([stage(x), features.pop()], dim=1)
        return self.last(x)


def mm_gan_discriminator(c_in: int, c_out: int, channels: int = 64) -> nn.Sequential:
    """Candidate and real images (B, 2·c, H, W) → a map of patches each (B, c_out, H/16, W/16)."""
    layers = patch_layers(c_in, channels, 4, (2, 2, 2, 2), nn.InstanceNorm2d)
    last = nn.Conv2d(8 * channels, c_out, 4, padding=1, bias=False)
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 0, 1, 0)), last)
