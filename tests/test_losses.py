"""The perceptual loss against hand-made networks and the reference's VGG-19."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from tsf_seq2seq.training.perceptual import IMAGENET_MEAN, IMAGENET_STD, PerceptualLoss

REFERENCE = Path(__file__).parent / "reference" / "metrics" / "perceptual.npz"


def red_channel() -> nn.Conv2d:
    """A convolution that undoes the normalisation of red, so that it gives x/2 + 0.5."""
    convolution = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(convolution.weight)
    convolution.weight.data[0, 0] = IMAGENET_STD[0]
    nn.init.constant_(convolution.bias, IMAGENET_MEAN[0])
    return convolution


def pooled() -> nn.Sequential:
    """x/2 + 0.5, ReLU, pooling by 2, and ReLU of the pooled image."""
    return nn.Sequential(
        red_channel(), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Identity(), nn.ReLU()
    )


def chequers(size: int = 4) -> Tensor:
    """(1, 1, size, size) of alternating 1 and -1."""
    return (-1.0) ** torch.arange(size).add(torch.arange(size)[:, None]).reshape(1, 1, size, size)


def test_constant_images() -> None:
    loss = PerceptualLoss(nn.Sequential(red_channel(), nn.ReLU()))
    prediction, target = torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), -0.2)
    assert loss(prediction, target).item() == pytest.approx((0.8 - 0.4) ** 2)


def test_pooling_averages_and_every_relu_counts() -> None:
    prediction, target = chequers(), torch.full((1, 1, 4, 4), -1.0)
    # First ReLU: half the pixels differ by 1. Second: each mean differs by 1/2.
    assert PerceptualLoss(pooled())(prediction, target).item() == pytest.approx(0.5 + 0.25)
    assert PerceptualLoss(pooled(), n_modules=3)(prediction, target).item() == pytest.approx(0.5)


def test_all_three_colours_are_normalised() -> None:
    convolution = nn.Conv2d(3, 3, 1, bias=False)
    convolution.weight.data = torch.eye(3).view(3, 3, 1, 1)
    white = PerceptualLoss(nn.Sequential(convolution, nn.ReLU())).features_of(
        torch.ones(1, 1, 1, 1)
    )
    expected = [(1 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert white[0].flatten().tolist() == pytest.approx(expected)


def test_gradient_reaches_only_the_prediction() -> None:
    features = pooled()
    loss = PerceptualLoss(features)
    prediction = chequers().requires_grad_()
    target = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss(prediction, target).backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert isinstance(features[2], nn.MaxPool2d)  # the caller's network keeps its pooling


def test_equal_images_and_precomputed_target() -> None:
    loss = PerceptualLoss(pooled())
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    wanted = loss.target_features(images)
    assert [tuple(feature.shape) for feature in wanted] == [(6, 1, 8, 8), (6, 1, 4, 4)]
    assert loss(images, images) == 0
    assert loss(chequers(8).expand(2, 3, 8, 8), wanted) == loss(
        chequers(8).expand(2, 3, 8, 8), images
    )


def test_squares_are_float32_under_autocast() -> None:
    convolution = red_channel()
    convolution.weight.data *= 1000  # differences of 1000, whose squares float16 cannot hold
    loss = PerceptualLoss(nn.Sequential(convolution, nn.ReLU()))
    with torch.autocast("cpu", torch.float16):
        value = loss(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2))
    assert value.dtype == torch.float32
    assert value.item() > 65504


@pytest.fixture(scope="module")
def seeded_vgg19() -> nn.Sequential:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    features = models.vgg19(weights=None).features
    torch.random.set_rng_state(state)
    return features


def test_reference(seeded_vgg19: nn.Sequential) -> None:
    reference = np.load(REFERENCE)
    first = seeded_vgg19[0].weight.detach().flatten()[:8].numpy()
    if not np.allclose(first, reference["first_conv_first_values"], atol=1e-6):
        pytest.skip("this torchvision seeds VGG-19 differently, so the value does not apply")
    prediction, target = (torch.from_numpy(reference[key]) * 2 - 1 for key in ("input", "target"))
    loss = PerceptualLoss(seeded_vgg19)
    expected = pytest.approx(reference["value"].item(), rel=1e-4)
    assert loss(prediction, target).item() == expected
    # The slices may as well be one image's channels.
    assert loss(prediction.transpose(0, 1), target.transpose(0, 1)).item() == expected
    assert len(loss.target_features(target)) == 13  # ReLUs 1_1 … 5_1
