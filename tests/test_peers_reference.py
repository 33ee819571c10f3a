"""The comparison methods give the numbers of their authors' published code.

tests/reference/peers: outputs, gradients and losses in float64 under weights and images that are
formulas, which stand here again.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from torch import Tensor, nn

from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.peers.bases import AllToAll, PairFamily, TwoSourceFamily
from tsf_seq2seq.peers.blocks import patch_gan
from tsf_seq2seq.peers.hi_net import HiNetGenerator, hi_net_discriminator
from tsf_seq2seq.peers.mm_gan import MMGANGenerator, mm_gan_discriminator
from tsf_seq2seq.peers.mmgsn_net import MMgSNGenerator
from tsf_seq2seq.peers.pix2pix import Pix2PixGenerator
from tsf_seq2seq.peers.resvit import ResViT, ResViTGenerator
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training import peer_objectives as objectives
from tsf_seq2seq.training.adversarial import DISCRIMINATOR, AdversarialObjective
from tsf_seq2seq.training.objectives import NETWORK

PEERS = REFERENCE / "peers"
TOLERANCE = 1e-6
NOISE = 1e-12  # gradients that are zero in theory


def weights(k: int, shape: Sequence[int], rule: str, a: float) -> Tensor:
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    s = np.sin(0.37 * (k + 1) + 0.11 * (i % 997) + 0.013 * (i // 997))
    value = {"norm_weight": 1 + a * s, "running_var": 1 + a * s * s}.get(rule, a * s)
    return torch.from_numpy(value.reshape(shape).astype(np.float32))


def image(shape: Sequence[int], phase: float = 0.0) -> Tensor:
    j = np.arange(int(np.prod(shape)), dtype=np.float64)
    x = np.sin(0.05 * j + 0.3 * np.sin(0.01 * j) + phase)
    return torch.from_numpy(np.clip(x, -1, 1).reshape(shape).astype(np.float32)).double()


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def given_weights(network: nn.Module, folder: Path) -> nn.Module:
    """In evaluation mode, without dropout; its tensors are registered in the published order."""
    content = read(folder, "tensors")
    assert sum(own.numel() for own in network.parameters()) == content["parameters"]
    own = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    rows = content["rows"]
    for tensor, (k, _, shape, rule, a) in zip(own.values(), rows, strict=True):
        assert list(tensor.shape) == shape
        tensor.copy_(weights(k, shape, rule, a))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    return network.double().eval()


class Published(NamedTuple):
    """A network under the name of its folder; `join`: how its inputs become those of the call."""

    folder: str
    build: Callable[[], nn.Module]
    inputs: Sequence[Sequence[int]]
    join: Callable[..., object] = lambda network, *images: network(*images)


def beside(network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    return network(torch.cat([a, b], dim=1))


def non_negative(network: nn.Module, *images: Tensor) -> Tensor:
    """On the scale on which MM-GAN was published; its generator ends in a ReLU there."""
    scaled = [((own.float() + 1) / 2).double() for own in images]
    return network(torch.cat(scaled, dim=1))


def two_sources(channels: int) -> list[Published]:
    hi_net, mmgsn = ((channels, *size) for size in ((128, 96), (96, 80)))
    c = channels
    return [
        Published(f"hinet/generator_{c}", lambda: HiNetGenerator(c, c), [hi_net] * 2),
        Published(f"hinet/discriminator_{c}", lambda: hi_net_discriminator(c), [hi_net]),
        Published(f"mmgsn/generator_{c}", lambda: MMgSNGenerator(c, c), [mmgsn] * 2),
        Published(
            f"mmgsn/discriminator_{c}",
            lambda: hi_net_discriminator(c, first_normed=True),
            [mmgsn],
        ),
    ]


PUBLISHED = [
    Published("pix2pix/generator", lambda: Pix2PixGenerator(3, 3), [(3, 256, 256)]),
    Published("pix2pix/generator_6downs", lambda: Pix2PixGenerator(3, 3, downs=6), [(3, 192, 192)]),
    Published("pix2pix/discriminator", lambda: patch_gan(6), [(6, 256, 256)]),
    Published(
        "mmgan/generator_12_tanh",
        lambda: nn.Sequential(MMGANGenerator(12, 12), nn.Tanh()),
        [(12, 256, 256)],
    ),
    Published(
        "mmgan/generator_4_relu",
        lambda: nn.Sequential(MMGANGenerator(4, 4), nn.ReLU()),
        [(4, 256, 256)],
        non_negative,
    ),
    Published(
        "mmgan/discriminator_12",
        lambda: mm_gan_discriminator(24, 12),
        [(12, 256, 256)] * 2,
        beside,
    ),
    Published(
        "mmgan/discriminator_4",
        lambda: mm_gan_discriminator(8, 4),
        [(4, 256, 256)] * 2,
        non_negative,
    ),
    Published("resvit/discriminator", lambda: patch_gan(24), [(24, 192, 192)]),
    Published("resvit/res_cnn", lambda: ResViTGenerator(12, 12), [(12, 192, 192)]),
    Published("resvit/generator", lambda: ResViTGenerator(12, 12, grid=(12, 12)), [(12, 192, 192)]),
    *two_sources(1),
    *two_sources(3),
]


def outputs_of(published: Published, network: nn.Module, batch: int) -> list[Tensor]:
    images = [image((batch, *shape), phase) for phase, shape in enumerate(published.inputs)]
    found = published.join(network, *images)
    return list(found) if isinstance(found, tuple) else [found]


def check_outputs(mode: str, outputs: Sequence[Tensor], wanted: dict[str, np.ndarray]) -> None:
    for number, output in enumerate(outputs):
        y, key = output.detach().numpy(), f"{mode}_{number}"
        parts = {"_every8": y[..., ::8, ::8], "_head24": y[..., :24, :24]}
        parts["_tail24"] = y[..., -24:, -24:]
        parts = {"": y} if key in wanted else parts
        for end, part in parts.items():
            np.testing.assert_allclose(part, wanted[key + end], rtol=0, atol=TOLERANCE)


def check_gradients(network: nn.Module, rows: Sequence[Sequence[object]]) -> None:
    """Mean absolute gradients of a network's parameters, in the published order."""
    parameters = list(network.parameters())
    for own, row in zip(parameters, rows, strict=True):
        assert own.grad is not None
        found, wanted = float(own.grad.abs().mean()), row[1]
        assert found == pytest.approx(wanted, rel=1e-6, abs=NOISE), row[0]


@pytest.mark.parametrize("published", PUBLISHED, ids=[own.folder for own in PUBLISHED])
def test_networks(published):
    """Outputs in both modes, gradients of the mean square, and what BatchNorm keeps."""
    folder = PEERS / published.folder
    network = given_weights(published.build(), folder)
    with np.load(folder / "outputs.npz") as stored:
        wanted = dict(stored)
    outputs = outputs_of(published, network, 1)
    check_outputs("eval", outputs, wanted)
    torch.stack([own.square().mean() for own in outputs]).sum().backward()
    check_gradients(network, read(folder, "gradients")["rows"])
    if "train_0" in {key.split("_every8")[0] for key in wanted}:
        with torch.no_grad():
            check_outputs("train", outputs_of(published, network.train(), 2), wanted)
        kept = read(folder, "bn_after_train")
        norms = [own for own in network.modules() if isinstance(own, nn.BatchNorm2d)]
        for norm, (_, mean, variance) in zip(norms, kept["rows"], strict=True):
            assert float(norm.running_mean.mean()) == pytest.approx(mean, rel=1e-6, abs=1e-9)
            assert float(norm.running_var.mean()) == pytest.approx(variance, rel=1e-6)


class Steps(NamedTuple):
    """Two steps on a batch: what is trained, by what, on what, and where its numbers are."""

    file: str
    folders: tuple[str, str]  # of the generator's and the discriminator's weights
    network: Callable[[], SynthesisNetwork]
    objective: Callable[[SynthesisNetwork], AdversarialObjective]
    crop: Callable[[], Crop]
    lr: float


def crop_of(inputs: Tensor, images: Tensor, task: Task) -> Crop:
    available = tuple(range(images.shape[1]))
    return Crop(images, inputs, available, task, coin=False, names=("x",) * len(images))


def stacked(size: Sequence[int], n_images: int, task: Task) -> Crop:
    """Sequences of phases 0, 1, …, of `size` (B, C, H, W)."""
    images = torch.stack([image(size, phase) for phase in range(n_images)], dim=1)
    return crop_of(images, images, task)


def pix2pix() -> Steps:
    return Steps(
        "pix2pix/losses",
        ("pix2pix/generator", "pix2pix/discriminator"),
        lambda: PairFamily(2, 3, 256, lambda: Pix2PixGenerator(3, 3)),
        lambda network: objectives.Pix2PixObjective(network, objectives.ConditionalLoss()),
        lambda: stacked((1, 3, 256, 256), 2, Task((0,), 1)),
        2e-4,
    )


def mm_gan() -> Steps:
    """Sequences 1 and 3 of four are missing."""

    def crop() -> Crop:
        images = image((2, 12, 256, 256)).unflatten(1, (4, 3))
        return crop_of(images, images, Task((2, 0), 1))

    generator = nn.Sequential
    return Steps(
        "mmgan/losses_12_tanh",
        ("mmgan/generator_12_tanh", "mmgan/discriminator_12"),
        lambda: AllToAll(4, 3, 256, generator(MMGANGenerator(12, 12), nn.Tanh())),
        lambda network: objectives.MMGANObjective(network, objectives.MMGANLoss()),
        crop,
        2e-4,
    )


def resvit(file: str, folder: str, grid: tuple[int, int] | None, lr: float) -> Steps:
    """Published: other images than the inputs are wanted."""

    def crop() -> Crop:
        x, t = (image((1, 12, 192, 192), phase).unflatten(1, (4, 3)) for phase in (0, 1))
        return crop_of(x, t, Task((0, 1, 2, 3), 0))

    return Steps(
        f"resvit/{file}",
        (f"resvit/{folder}", "resvit/discriminator"),
        lambda: ResViT(4, 3, 16, ResViTGenerator(12, 12, grid=grid)),
        lambda network: objectives.ResViTObjective(network, objectives.ConditionalLoss()),
        crop,
        lr,
    )


def hi_net(c: int) -> Steps:
    return Steps(
        f"hinet/losses_{c}",
        (f"hinet/generator_{c}", f"hinet/discriminator_{c}"),
        lambda: TwoSourceFamily(3, c, 8, lambda: HiNetGenerator(c, c)),
        lambda network: objectives.HiNetObjective(network, objectives.HiNetLoss()),
        lambda: stacked((2, c, 128, 96), 3, Task((0, 1), 2)),
        1e-3,
    )


def mmgsn(c: int, kind: str, leak: float) -> Steps:
    return Steps(
        f"mmgsn/losses_{c}_{kind}",
        (f"mmgsn/generator_{c}", f"mmgsn/discriminator_{c}"),
        lambda: TwoSourceFamily(3, c, 4, lambda: MMgSNGenerator(c, c)),
        lambda network: objectives.MMgSNObjective(network, objectives.MMgSNLoss(leak=leak)),
        lambda: stacked((1, c, 96, 80), 3, Task((0, 1), 2)),
        1e-3,
    )


STEPS = [
    pix2pix(),
    mm_gan(),
    resvit("losses_res_cnn", "res_cnn", None, 2e-4),
    resvit("losses_resvit", "generator", (12, 12), 1e-3),
    *(hi_net(c) for c in (1, 3)),
    *(mmgsn(c, kind, leak) for c in (1, 3) for kind, leak in (("detached", 0), ("published", 1))),
]


def trained_parts(steps: Steps, objective: AdversarialObjective) -> dict[str, nn.Module]:
    """The generator and the discriminator that do the crop's task."""
    network, judge, name = objective.network, objective.discriminator, None
    if isinstance(network, PairFamily | TwoSourceFamily):
        name = objectives.member_name(steps.crop().task)
        judge, generator = judge[name], network.members[name]
    else:
        generator = network.generator
    return {NETWORK: generator, DISCRIMINATOR: judge}


@pytest.mark.parametrize("steps", STEPS, ids=[own.file for own in STEPS])
def test_steps(steps):
    """Losses of two steps, and gradients of the first, in the authors' order."""
    network = steps.network()
    network.judge_channels = 32 if isinstance(network, TwoSourceFamily) else 64
    objective = steps.objective(network)
    parts = trained_parts(steps, objective)
    for part, folder in zip(parts.values(), steps.folders, strict=True):
        given_weights(part, PEERS / folder)
    objective.network.double().train()
    objective.discriminator.double().train()
    train = type("Train", (), {"lr": steps.lr})
    optimizers = {
        name: objective.optimizer(name, list(parts[name].parameters()), train)
        for name in objective.trained()
    }
    content, crop = read(PEERS, steps.file), steps.crop()
    gradients = content["mean absolute gradients, step 1"]
    for number, wanted in enumerate(content["steps"]):
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            terms = objective.losses(name, crop)
            total = objective.total(terms)
            total.backward()
            letter = "D" if name == DISCRIMINATOR else "G"
            own = total - terms["leak"] if terms.get("leak") is not None else total
            assert own.item() == pytest.approx(wanted[letter], rel=1e-6)
            if letter == "G":
                adversarial = terms["adversarial"].item()
                assert adversarial == pytest.approx(wanted["G_adversarial"], rel=1e-6)
            if number == 0:
                check_gradients(parts[name], gradients[letter])
            optimizer.step()
