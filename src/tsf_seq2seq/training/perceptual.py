"""The perceptual loss of the paper's two training stages."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ReLUOutputs(nn.Sequential):
    """Modules one after the other, of which every ReLU's output is given."""

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for module in self:
            x = module(x)
            if isinstance(module, nn.ReLU):
                outputs.append(x)
        return outputs


class PerceptualLoss(nn.Module):
    """L_per(x̂, x) = Σ_l mean (φ_l(x̂) − φ_l(x))², φ_l the output of the l-th ReLU of a VGG.

    Each slice is one grey image x/2 + 0.5, repeated to RGB, with ImageNet's mean and standard
    deviation. (Paper: perceptual loss on VGG-19; Johnson et al. 2016. Average instead of maximum
    pooling: Gatys et al. 2016.)
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, features: nn.Sequential, n_modules: int = 30) -> None:
        """`features`: a VGG's convolutional part, whose parameters get frozen; `n_modules`: how
        many of its modules count, 30 of VGG-19 being all up to the first ReLU of block 5.
        """
        super().__init__()
        modules = [_average_pooling(module) for module in features[:n_modules]]
        self.features = ReLUOutputs(*modules).eval().requires_grad_(False)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        # (x/2 + 0.5 − mean) / std = x·scale + shift
        self.register_buffer("scale", 0.5 / std, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / std, persistent=False)

    def forward(self, prediction: Tensor, target: Tensor | Sequence[Tensor]) -> Tensor:
        """The loss, a float32 scalar, with the gradient of the prediction only.

        `prediction`: (B, C, H, W) in [-1, 1]; `target`: the same, or its `target_features`, so that
        a target compared with two outputs passes the network once.
        """
        features = self.target_features(target) if isinstance(target, Tensor) else target
        # Squares overflow float16, which the features may have under autocast.
        losses = [
            F.mse_loss(output.float(), wanted.float())
            for output, wanted in zip(self.features_of(prediction), features, strict=True)
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def target_features(self, target: Tensor) -> list[Tensor]:
        """`features_of` the target (B, C, H, W), without gradient."""
        return self.features_of(target)

    def features_of(self, images: Tensor) -> list[Tensor]:
        """Every ReLU's output, each (B·C, C_l, H_l, W_l), for (B, C, H, W) in [-1, 1]."""
        x = images.flatten(0, 1).unsqueeze(1)  # (B·C, 1, H, W)
        return self.features(x * self.scale + self.shift)


def _average_pooling(module: nn.Module) -> nn.Module:
    """Average pooling in place of maximum pooling; any other module as it is."""
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    return module
