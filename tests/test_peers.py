"""The comparison methods beside their reference numbers: tasks, schedules, pools, symmetries."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import tiny_yaml
from torch import nn

from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.models import build_network
from tsf_seq2seq.peers.bases import member_name
from tsf_seq2seq.peers.diamond_gan import DiamondGenerator, diamond_discriminator
from tsf_seq2seq.peers.hi_net import HiNetGenerator
from tsf_seq2seq.peers.mmgsn_net import MMgSNGenerator
from tsf_seq2seq.peers.resvit import PatchEmbedding, ResViTConfig
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.adversarial import ImagePool, linear_decay
from tsf_seq2seq.training.peer_objectives import (
    ConditionalLoss,
    DiamondGANLoss,
    DiamondGANObjective,
    HiNetObjective,
    MMGANLoss,
    MMGANObjective,
    Pix2PixObjective,
    ResViTObjective,
)

DRAWS = 4000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def network_of(settings: str, tiny_dataset, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(tiny_yaml(f"\nnetwork: {settings}\n", tiny_dataset, tmp_path / "run"))
    return build_network(load_config(path))


def a_crop(task: Task, size: int = 32, available=(0, 1, 2, 3)) -> Crop:
    images = torch.rand(2, 4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Crop(images, images, available, task, False, ("x", "y"))


def test_diamond_gan_has_the_published_number_of_weights():
    with torch.device("meta"):
        generator, judge = DiamondGenerator(3, 1, 3), diamond_discriminator(3)
    counts = [sum(own.numel() for own in net.parameters()) for net in (generator, judge)]
    assert counts == [7_218_987, 2_766_529]


# --- tasks


@pytest.mark.parametrize(
    ("done", "numbers"),
    [(0.0, {3}), (10 / 60, {3}), (11 / 60, {2, 3}), (21 / 60, {1, 2, 3}), (1.0, {1, 2, 3})],
)
def test_curriculum(rng, done, numbers, tiny_dataset, tmp_path):
    """MM-GAN begins with one missing sequence."""
    network = network_of("{name: mm_gan, channels: 2, downs: 2}", tiny_dataset, tmp_path)
    objective = MMGANObjective(network, MMGANLoss())
    tasks = [objective.task_at((0, 1, 2, 3), rng, done) for _ in range(DRAWS)]
    counts = Counter(len(task.sources) for task in tasks)
    assert set(counts) == numbers
    for number in counts:  # equally often, within five standard deviations
        share = 1 / len(numbers)
        assert abs(counts[number] / DRAWS - share) < 5 * (share * (1 - share) / DRAWS) ** 0.5 + 1e-9
    assert all(task.target not in task.sources for task in tasks)


def test_what_families_train_on(rng):
    pairs = {Pix2PixObjective.sample_task((0, 2, 3), rng) for _ in range(DRAWS)}
    assert {(task.sources[0], task.target) for task in pairs} == {
        (a, b) for a in (0, 2, 3) for b in (0, 2, 3) if a != b
    }
    members = {member_name(HiNetObjective.sample_task(range(4), rng)) for _ in range(DRAWS)}
    assert len(members) == 12
    assert all(len(set(name.split("_"))) == 3 for name in members)


def test_a_step_trains_one_member_alone(tiny_dataset, tmp_path):
    network = network_of("{name: pix2pix, channels: 2, downs: 2}", tiny_dataset, tmp_path)
    objective = Pix2PixObjective(network, ConditionalLoss())
    for name in objective.trained():
        objective.total(objective.losses(name, a_crop(Task((2,), 0)))).backward()
    for family in (network.members, objective.discriminator):
        for name, member in family.items():
            touched = any(own.grad is not None for own in member.parameters())
            assert touched == (name == "2_0")


# --- losses


def test_available_sequences_are_put_into_mm_gan_s_output(tiny_dataset, tmp_path):
    """The discriminator sees them as they are; the error is of missing ones that there are."""
    network = network_of("{name: mm_gan, channels: 2, downs: 2}", tiny_dataset, tmp_path).eval()
    objective = MMGANObjective(network, MMGANLoss())
    crop = a_crop(Task((1,), 2), available=(0, 1, 2))
    seen = []
    objective.discriminator.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    terms = objective.losses("network", crop)
    candidate, real = seen[0].unflatten(1, (2, 4, 3)).unbind(1)
    outputs = network.all_outputs(crop.inputs, (1,))
    torch.testing.assert_close(real, crop.images)
    torch.testing.assert_close(candidate[:, [1, 3]], crop.images[:, [1, 3]])
    torch.testing.assert_close(candidate[:, [0, 2]], outputs[:, [0, 2]])
    error = (outputs - crop.images)[:, [0, 2]].abs().mean()
    assert terms["l1"].item() == pytest.approx(error.item(), rel=1e-6)


def test_diamond_gan_unpaired_and_paired(tiny_dataset, tmp_path):
    """Without `paired` the total is that of the published loss, by hand."""
    network = network_of("{name: diamond_gan, channels: 2}", tiny_dataset, tmp_path)
    task = Task((0, 3), 1)
    crop = a_crop(task)
    given = network.given(crop.inputs, task.sources).flatten(1, 2)
    there = network.translate(given, task)
    back = network.translate(crop.images[:, 1], task, back=True)
    objective = DiamondGANObjective(network, DiamondGANLoss(paired=0))
    judges = objective.discriminator
    objective.losses("discriminator", crop)
    found = objective.total(objective.losses("network", crop))
    cycle = (network.translate(there, task, back=True) - given).abs().mean()
    cycle = cycle + (network.translate(back, task) - crop.images[:, 1]).abs().mean()
    score = (judges["target"](there) - 0.95).square().mean()
    score = score + (judges["sources"](back) - 0.95).square().mean()
    assert found.item() == pytest.approx((8 * cycle + score).item(), rel=1e-5)
    objective = DiamondGANObjective(network, DiamondGANLoss())
    objective.discriminator = judges
    objective.losses("discriminator", crop)
    paired = objective.total(objective.losses("network", crop))
    error = (there - crop.images[:, 1]).abs().mean()
    assert paired.item() == pytest.approx((found + 8 * error).item(), rel=1e-5)


def test_pool():
    """The first ones are shown as they come; later about every second one is a former one."""
    torch.manual_seed(0)
    pool = ImagePool(1, 2, 2, size=4)
    shown = [float(pool(torch.full((1, 1, 2, 2), float(n))).mean()) for n in range(400)]
    assert shown[:4] == [0, 1, 2, 3]
    former = [value for n, value in enumerate(shown) if value < n]
    assert len(set(shown)) >= 396  # but for the first four, none is shown twice
    assert 150 < len(former) < 250


# --- schedules


def test_linear_decay():
    rates = [linear_decay(1.0, done, 0.5) for done in (0, 0.25, 0.5, 0.75, 0.9)]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.2])
    assert linear_decay(1.0, 0.99, 1.0) == 1


def test_resvit_trains_in_two_stages(tiny_dataset, tmp_path):
    """A Res-CNN first; what it doesn't use gets no gradient."""
    settings = "{name: resvit, channels: 2, grid: [2, 2], layers: 1, width: 4, heads: 2, hidden: 4}"
    network = network_of(settings, tiny_dataset, tmp_path)
    objective = ResViTObjective(network, ConditionalLoss())
    train = type("Train", (), {"steps": 30, "lr": 1.0})
    rates, touched = [], []
    for step in (0, 9, 15, 20, 24, 29):
        objective.begin(train, step)
        rates.append(objective.learning_rate(train, 0, step))
        network.zero_grad()
        for name in objective.trained():
            objective.total(objective.losses(name, a_crop(Task((0,), 1)))).backward()
        touched.append(network.generator.transformer.norm.weight.grad is not None)
    assert touched == [False] * 3 + [True] * 3
    assert rates == pytest.approx([1, 1, 0.5, 5, 5, 1])


def test_positions_of_another_grid_lie_between_those_learned():
    embedding = PatchEmbedding(1, (2, 2), 1, 0.0).eval()
    nn.init.zeros_(embedding.patches.weight)
    nn.init.zeros_(embedding.patches.bias)
    with torch.no_grad():
        embedding.positions.copy_(torch.tensor([0.0, 0, 4, 4]).view(1, 4, 1))
    found = embedding(torch.zeros(1, 1, 4, 2)).view(4, 2)
    assert found[:, 0].tolist() == found[:, 1].tolist() == [0, 1, 3, 4]


# --- networks


@pytest.mark.parametrize("kind", [HiNetGenerator, MMgSNGenerator])
def test_two_sources_are_fused_alike(kind):
    """With swapped encoders, swapped sources give the same target."""
    network = kind(1, 1, 8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    a, b = torch.rand(2, 1, 1, 16, 24)
    before = network(a, b)
    network.encoders = nn.ModuleList(reversed(network.encoders))
    after = network(b, a)
    first = before[0] if isinstance(before, tuple) else before
    torch.testing.assert_close(after[0] if isinstance(after, tuple) else after, first)


def test_both_blocks_share_a_transformer():
    network = ResViTConfig(channels=2, grid=(2, 2), layers=1, width=4, heads=2, hidden=4)
    names = [name for name, _ in network.build(4, 1).named_parameters() if "mlp" in name]
    assert names
    assert all(name.startswith("generator.transformer.") for name in names)


def test_statistics_of_resvit_in_evaluation(tiny_dataset, tmp_path):
    """Each image's own: what a batch of it alone has in training."""
    settings = "{name: resvit, channels: 4, grid: [2, 2], layers: 1, width: 8, heads: 2, hidden: 8"
    own = network_of(f"{settings}, dropout: 0}}", tiny_dataset, tmp_path)
    running = network_of(
        f"{settings}, dropout: 0, image_statistics: false}}", tiny_dataset, tmp_path
    )
    running.load_state_dict(own.state_dict())
    crop, task = a_crop(Task((0,), 3)), [Task((0,), 3)]
    with torch.no_grad():
        for _ in range(3):  # of other tasks, so that running statistics move
            running.train().all_outputs(crop.images, [0, 1, 2])
        alone = [next(own.train().synthesize(one[None], task))[2] for one in crop.images]
        found = next(own.eval().synthesize(crop.images, task))[2]
        other = next(running.eval().synthesize(crop.images, task))[2]
    assert torch.allclose(torch.cat(alone), found, atol=1e-5)
    assert (other - found).abs().max() > 1e-3


# --- errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{name: hi_net}", "data.crop 16 is too small to train Hi-Net, which takes 48 or more"),
        ("{name: pix2pix, channels: 2}", "data.crop 16 is too small to train Pix2Pix"),
        ("{name: resvit, heads: 5}", "network resvit: heads must divide width 768, not 5"),
        ("{name: mm_gan, dropout: 1}", "network mm_gan: dropout must be in [0, 1), not 1"),
    ],
)
def test_mistakes(script, settings, words, tiny_dataset, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(tiny_yaml(f"\nnetwork: {settings}\n", tiny_dataset, tmp_path / "run"))
    outcome = script(train_network, "-c", path, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert words in outcome.err[-1]


def test_crops_of_less_than_half_the_size_that_a_network_takes(script, tiny_dataset, tmp_path):
    """They are padded with background, as far as it takes."""
    path = tmp_path / "settings.yaml"
    settings = "{name: pix2pix, channels: 1, discriminator_channels: 1, downs: 7}"
    path.write_text(tiny_yaml(f"\nnetwork: {settings}\n", tiny_dataset, tmp_path / "run"))
    crop = ("--set", "data.crop=[32,32]", "--set", "train.steps=1")
    outcome = script(train_network, "-c", path, *crop)
    assert outcome.code == 0, outcome.error
    assert (tmp_path / "run/best.pth").is_file()


def test_two_sequences_are_too_few_for_families_of_two_sources(script, tiny_dataset, tmp_path):
    path = tmp_path / "settings.yaml"
    text = tiny_yaml("\nnetwork: {name: hi_net}\n", tiny_dataset, tmp_path / "run")
    sequences = '  sequences: {t1: "{name}/{name}_t1.nii.gz", t2: "{name}/{name}_t2.nii.gz"}\n'
    path.write_text(text.replace("\ndata:\n", f"\ndata:\n{sequences}"))
    outcome = script(train_network, "-c", path, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert "network hi_net: 2 sources and a target are more than 2 sequences" in outcome.err[-1]


def masked(path, dataset, masks: list[int]) -> None:
    """A split file in which training sees the sequences of these masks alone."""
    names = [line.split(",")[0] for line in (dataset / "train.csv").read_text().split()]
    names = [name for name in names if name != "name"]
    path.write_text("".join(f"{name},{mask}\n" for name, mask in zip(names, masks, strict=True)))


def test_subjects_of_too_few_sequences_are_left_out(script, tiny_dataset, tmp_path):
    path = tmp_path / "settings.yaml"
    text = tiny_yaml("\nnetwork: {name: hi_net, channels: 2}\n", tiny_dataset, tmp_path / "run")
    path.write_text(text.replace("crop: [16, 16]", "crop: [48, 48]"))
    masked(tmp_path / "few.csv", tiny_dataset, [0b1110, 0b1100])
    options = ["--set", f"data.train={tmp_path / 'few.csv'}", "data.use_all_sequences=false"]
    options.insert(2, "--set")
    outcome = script(train_network, "-c", path, "-o", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert "1 of 2 training subjects have fewer than 3 sequences" in outcome.out
    masked(tmp_path / "few.csv", tiny_dataset, [0b0110, 0b1100])
    outcome = script(train_network, "-c", path, "-o", tmp_path / "other", *options)
    assert outcome.code == 2
    assert "few.csv: no subject has the 3 sequences that Hi-Net is trained on" in outcome.err[-1]
