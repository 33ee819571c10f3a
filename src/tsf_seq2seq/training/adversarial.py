"""What the trainings of the comparison methods share: a network and its discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.training.objectives import NETWORK, Objective

if TYPE_CHECKING:
    from tsf_seq2seq.config import TrainConfig
    from tsf_seq2seq.training.perceptual import PerceptualLoss

DISCRIMINATOR = "discriminator"


class AdversarialObjective(Objective):
    """A network and the discriminator that judges it, stepped in turn.

    `constant`: the share of the run after which the rate falls linearly to zero.
    `discriminator_first`: whose turn comes first. What the first one has made of a crop, the second
    finds in `made`.
    """

    some_rest = True  # of a family, the members of other tasks
    smallest_crop = 32
    fewest_sequences = 2
    constant: ClassVar[float] = 1.0
    discriminator_first: ClassVar[bool] = False
    discriminator: nn.Module

    def __init__(self, network: Any, loss: Any, perceptual: PerceptualLoss | None = None) -> None:
        super().__init__(network, loss, perceptual)
        self.discriminator = self.new_discriminator()
        self.made: Any = None

    def new_discriminator(self) -> nn.Module:
        """Untrained."""
        raise NotImplementedError

    def trained(self) -> Mapping[str, nn.Module]:
        both = {NETWORK: self.network, DISCRIMINATOR: self.discriminator}
        return dict(reversed(both.items())) if self.discriminator_first else both

    def optimizer(
        self, name: str, parameters: list[nn.Parameter], train: TrainConfig
    ) -> torch.optim.Optimizer:
        on_cuda = parameters[0].device.type == "cuda"
        return torch.optim.Adam(parameters, lr=train.lr, betas=(0.5, 0.999), fused=on_cuda)

    def learning_rate(self, train: TrainConfig, epoch: int, step: int) -> float:
        return linear_decay(train.lr, step / train.steps, self.constant)


class ImagePool(nn.Module):
    """Outputs of former steps, of which a discriminator is shown every second one instead of a new
    one, whose place the new one takes (Shrivastava et al. 2017). A checkpoint keeps them."""

    images: Tensor
    count: Tensor

    def __init__(self, channels: int, height: int, width: int, size: int = 25) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, channels, height, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:
        """images (B, c, H, W) → those to be shown, (B, c, H, W)."""
        return torch.stack([self._exchanged(image) for image in images])

    def _exchanged(self, image: Tensor) -> Tensor:
        count, size = int(self.count), len(self.images)
        if count < size:
            self.images[count] = image
            self.count += 1
            return image
        place = int(torch.randint(2 * size, ()))
        if place >= size:
            return image
        former = self.images[place].clone()
        self.images[place] = image
        return former


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, the module's parameters get no gradients."""
    parameters = [own for own in module.parameters() if own.requires_grad]
    for own in parameters:
        own.requires_grad_(False)
    try:
        yield
    finally:
        for own in parameters:
            own.requires_grad_(True)


def linear_decay(lr: float, done: float, constant: float) -> float:
    """lr up to the share `constant` of the run, then along a line to 0; `done` in [0, 1)."""
    return lr if done < constant else lr * (1 - done) / (1 - constant)


def least_squares(scores: Tensor, label: float | Tensor) -> Tensor:
    """Mean of (score − label)² (LSGAN, Mao et al. 2017); a label for all, or one each."""
    return (_precise(scores) - label).square().mean()


def cross_entropy(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits (Goodfellow et al. 2014)."""
    precise = _precise(logits)
    return F.binary_cross_entropy_with_logits(precise, torch.full_like(precise, label))


def mean_absolute(output: Tensor, wanted: Tensor) -> Tensor:
    """L1."""
    return (_precise(output) - wanted).abs().mean()


def _precise(x: Tensor) -> Tensor:
    """At least in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
