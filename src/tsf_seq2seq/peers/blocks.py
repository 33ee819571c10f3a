"""What the comparison methods share: discriminators of patches, fusion of two maps, padding."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND

Module = TypeVar("Module", bound=nn.Module)
MakeNorm = Callable[[int], nn.Module]


def patch_layers(
    c_in: int,
    channels: int,
    kernel: int,
    strides: Sequence[int],
    norm: MakeNorm,
    first_normed: bool = False,
    bias: bool = True,
) -> list[nn.Module]:
    """Layers of a discriminator up to its last convolution: conv, norm, LeakyReLU(0.2) each.

    `channels`: after the first layer, then twice as many after each. `bias`: of the layers with a
    norm; the first layer has one in any case, and a norm only if `first_normed`.
    """
    layers: list[nn.Module] = []
    for place, stride in enumerate(strides):
        normed = place > 0 or first_normed
        c_out = channels * 2**place
        layers.append(nn.Conv2d(c_in, c_out, kernel, stride, 1, bias=bias or not normed))
        layers += [norm(c_out)] if normed else []
        layers.append(nn.LeakyReLU(0.2))
        c_in = c_out
    return layers


def patch_gan(c_in: int, channels: int = 64) -> nn.Sequential:
    """The discriminator of 70 × 70 patches (Isola et al. 2017): images (B, c_in, H, W) → logits
    (B, 1, H/8 − 2, W/8 − 2)."""
    layers = patch_layers(c_in, channels, 4, (2, 2, 2, 1), nn.BatchNorm2d, bias=False)
    return nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, 1, 1))


def conv_norm_act(c_in: int, c_out: int, slope: float) -> list[nn.Module]:
    """Convolution 3 × 3, BatchNorm and LeakyReLU of that slope, as Hi-Net and MMgSN-Net have it."""
    return [nn.Conv2d(c_in, c_out, 3, 1, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(slope)]


class MixedFusion(nn.Module):
    """Fusion of two inputs' maps a and b (Hi-Net, Zhou et al. 2020): sum, product and maximum, and
    what an earlier fusion gave.

    conv(cat(conv(cat(a + b, a · b, max(a, b))), before)); `before` is left out where there is none.
    """

    def __init__(self, c_in: int, c_out: int, c_before: int, slope: float) -> None:
        super().__init__()
        self.mix = nn.Sequential(*conv_norm_act(3 * c_in, c_in, slope))
        self.join = nn.Sequential(*conv_norm_act(c_in + c_before, c_out, slope))

    def forward(self, a: Tensor, b: Tensor, before: Tensor | None = None) -> Tensor:
        """a, b (B, c_in, h, w), before (B, c_before, h, w) → (B, c_out, h, w)."""
        mixed = self.mix(torch.cat([a + b, a * b, torch.maximum(a, b)], dim=1))
        return self.join(mixed if before is None else torch.cat([mixed, before], dim=1))


def pad_with_background(x: Tensor, multiple: int) -> Tensor:
    """x (N, C, H, W) with background at right and bottom, so that `multiple` divides H and W."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, bottom), value=BACKGROUND) if bottom or right else x


def draw_weights(module: Module) -> Module:
    """The module, as the networks of Pix2Pix and its successors start: weights of convolutions from
    N(0, 0.02), those of BatchNorm from N(1, 0.02), biases zero."""
    for own in module.modules():
        if isinstance(own, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(own.weight, 0, 0.02)
        elif isinstance(own, nn.BatchNorm2d):
            nn.init.normal_(own.weight, 1, 0.02)
        else:
            continue
        if own.bias is not None:
            nn.init.zeros_(own.bias)
    return module


def check_share(value: float, name: str) -> None:
    """ValueError unless the value is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), not {value}")


class ImageBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that takes each image's own statistics in evaluation, as a batch of one has them.

    Running ones are means over all tasks of training, whose features differ in scale.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        centred = x - x.mean(dim=(2, 3), keepdim=True)  # of 1 x 1: 0
        variance = centred.square().mean(dim=(2, 3), keepdim=True)
        scale, shift = (own[:, None, None] for own in (self.weight, self.bias))
        return centred * torch.rsqrt(variance + self.eps) * scale + shift


def with_image_statistics(module: nn.Module) -> nn.Module:
    """The module with every BatchNorm2d in it replaced by such a one, of the same weights."""
    if isinstance(module, nn.BatchNorm2d):
        norm = ImageBatchNorm2d(module.num_features, module.eps, module.momentum)
        norm.load_state_dict(module.state_dict())
        return norm
    for name, child in module.named_children():
        setattr(module, name, with_image_statistics(child))
    return module
