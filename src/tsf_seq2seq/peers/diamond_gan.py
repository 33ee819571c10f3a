"""DiamondGAN's networks: a stack of images and where they come from, to another stack.

Li et al., "DiamondGAN: unified multi-modal generative adversarial networks for MRI sequences
synthesis", MICCAI 2019.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.base import FULL
from tsf_seq2seq.peers.bases import FixedNetwork
from tsf_seq2seq.peers.blocks import patch_layers
from tsf_seq2seq.settings import NetworkSettings, setting
from tsf_seq2seq.tasks import Task

RESIDUAL_BLOCKS = 9


@dataclass(frozen=True)
class DiamondGANConfig(NetworkSettings):
    """Architecture of DiamondGAN."""

    name: str = setting("diamond_gan", "which network")
    channels: int = setting(48, "channels of the full resolution; 3 times as many at a quarter", 2)
    discriminator_channels: int = setting(64, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> "DiamondGAN":
        network = DiamondGAN(n_sequences, stack, self.channels)
        network.judge_channels = self.discriminator_channels
        return network


class DiamondGAN(FixedNetwork):
    """A generator from the sources to the target, and its inverse, with which training goes back.

    The published network has one target and is told which sources there are, by a plane over which
    their bits are repeated; this one is told the target, too (`condition`).
    """

    def __init__(self, n_sequences: int, slices: int, channels: int) -> None:
        super().__init__(n_sequences, slices, multiple=4)
        sources = n_sequences * slices
        self.generator = DiamondGenerator(sources, 1, slices, channels)
        self.inverse = DiamondGenerator(slices, 1, sources, channels)

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        return task.target not in task.sources

    def translate(self, stack: Tensor, task: Task, back: bool = False) -> Tensor:
        """Sources (B, S·C, H, W) → the target (B, C, H, W); `back`: the target → the sources."""
        height, width = stack.shape[-2:]
        x = self.pad(stack)
        network = self.inverse if back else self.generator
        return network(x, self.condition(x, task))[..., :height, :width]

    def condition(self, x: Tensor, task: Task) -> Tensor:
        """z = [availability (S), one-hot target (S)], repeated from left to right: (B, 1, H, W).

        Stripes, not a plane a bit: of a constant plane InstanceNorm leaves nothing.
        """
        code = self.task_code(*task)
        row = code[torch.arange(x.shape[-1], device=x.device) % len(code)]  # (W,)
        return row.expand(x.shape[0], 1, *x.shape[-2:])

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        for task in tasks:
            yield FULL, task, self.translate(self.given(images, task.sources).flatten(1, 2), task)


class DiamondGenerator(nn.Module):
    """Two branches of the same layers, one for images and one for the condition, joined before the
    way up. Features are normalised per image; even sizes that 4 divides pass."""

    def __init__(self, c_in: int, c_condition: int, c_out: int, channels: int = 48) -> None:
        """`channels`: at the full resolution; 1.5 and 3 times as many at half and a quarter."""
        super().__init__()
        wide, deep = channels * 3 // 2, channels * 3
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.ReflectionPad2d(3),
                *_normed(nn.Conv2d(c, channels, 7), channels),
                *_halving(channels, wide),
                *_halving(wide, deep),
                *(DiamondBlock(deep) for _ in range(RESIDUAL_BLOCKS)),
            )
            for c in (c_in, c_condition)
        )
        self.up = nn.Sequential(*_doubling(2 * deep, wide), *_doubling(wide, channels))
        last = nn.Conv2d(channels, c_out, 7)
        self.last = nn.Sequential(nn.ReflectionPad2d(3), last, nn.Tanh())

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, c_in, H, W), condition (B, c_condition, H, W) → (B, c_out, H, W)."""
        inputs = images, condition
        features = [own(x) for own, x in zip(self.branches, inputs, strict=True)]
        return self.last(self.up(torch.cat(features, dim=1)))


class DiamondBlock(nn.Module):
    """x + norm(conv(relu(norm(conv x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))
        norm = ScaledNorm(channels)
        self.branch = nn.Sequential(*_normed(first, channels), second, norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ScaledNorm(nn.Module):
    """Normalised per image and channel, then scaled and shifted by a learned weight and bias each.

    As nn.InstanceNorm2d(affine=True), whose weights came out wrong in ONNX files (PyTorch 2.14).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x) * self.weight[:, None, None] + self.bias[:, None, None]


class EvenUpsampling(nn.ConvTranspose2d):
    """Transposed convolution 3 × 3 to exactly twice the size, as Keras pads it ("same")."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x, output_size)[..., :-1, :-1]


class EvenDownsampling(nn.Conv2d):
    """Convolution 3 × 3 to exactly half of an even size, padded right and bottom as Keras does."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def diamond_discriminator(c_in: int, channels: int = 64) -> nn.Sequential:
    """Images (B, c_in, H, W) → how real each patch is, (B, 1, H/16, W/16) in [0, 1]."""

    def norm(c: int) -> nn.Module:
        return ScaledNorm(c)

    layers = patch_layers(c_in, channels, 4, (2, 2, 2, 2), norm)
    last = nn.Conv2d(8 * channels, 1, 4)
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 2, 1, 2)), last, nn.Sigmoid())


def _normed(conv: nn.Module, channels: int) -> list[nn.Module]:
    return [conv, ScaledNorm(channels), nn.ReLU()]


def _halving(c_in: int, c_out: int) -> list[nn.Module]:
    return _normed(EvenDownsampling(c_in, c_out), c_out)


def _doubling(c_in: int, c_out: int) -> list[nn.Module]:
    return _normed(EvenUpsampling(c_in, c_out), c_out)
