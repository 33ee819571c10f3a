"""What holds of every network: of the table's, and of one that only this file knows.

The network made here, trained by two optimizers, goes the whole way (trained, killed and resumed,
evaluated beside TSF-Seq2Seq, imputed with, exported, reported) without a change of the library.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import (
    REPOSITORY,
    SEQUENCES,
    TINY_PYRAMID,
    TINY_SEQ2SEQ,
    TINY_TSF,
    TINY_UNET,
    tiny_yaml,
)
from torch import nn

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import open_model, save_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_networks
from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.export.onnx_file import export_onnx
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, SynthesisNetwork
from tsf_seq2seq.models.build import NETWORKS, NetworkKind
from tsf_seq2seq.peers.blocks import ImageBatchNorm2d
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import Experiment, write_report
from tsf_seq2seq.settings import NetworkSettings, setting
from tsf_seq2seq.tasks import Task, all_tasks, sample_missing_task
from tsf_seq2seq.training.loop import Trainer
from tsf_seq2seq.training.objectives import NETWORK, Objective

TINY = {
    "seq2seq": TINY_SEQ2SEQ,
    "tsf_seq2seq": TINY_TSF,
    "tsf_pyramid": TINY_PYRAMID,
    "unet": TINY_UNET,
    "pix2pix": "\nnetwork: {name: pix2pix, channels: 4, downs: 3}\n",
    "mm_gan": "\nnetwork: {name: mm_gan, channels: 4, downs: 3}\n",
    "diamond_gan": "\nnetwork: {name: diamond_gan, channels: 4}\n",
    "resvit": """
network: {name: resvit, channels: 4, grid: [2, 2], layers: 1, width: 8, heads: 2, hidden: 8}
""",
    "hi_net": "\nnetwork: {name: hi_net, channels: 2}\n",
    "mmgsn_net": "\nnetwork: {name: mmgsn_net, channels: 8}\n",
}
TOY = "\nnetwork: {name: toy, channels: 4}\nloss: {adversarial: 0.1}\n"


class Toy(SynthesisNetwork):
    """A mean of the sources, through two convolutions."""

    def __init__(self, n_sequences: int, slices: int, channels: int) -> None:
        super().__init__()
        self.n_sequences, self.slices, self.size_multiple = n_sequences, slices, 1
        self.conv = nn.Conv2d(slices, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, n_sequences * slices, 3, padding=1)

    def forward(self, images, available, target):
        self.check_target(target)
        mean = images[:, self.sources_of(available)].mean(dim=1)  # (B, C, H, W)
        outputs = self.last(F.leaky_relu(self.conv(mean))).unflatten(1, (self.n_sequences, -1))
        return torch.tanh(outputs[:, target])


@dataclasses.dataclass(frozen=True)
class ToyConfig(NetworkSettings):
    name: str = setting("toy", "which network")
    channels: int = setting(4, "hidden channels", 1)

    def build(self, n_sequences: int, stack: int) -> Toy:
        return Toy(n_sequences, stack, self.channels)


@dataclasses.dataclass(frozen=True)
class ToyLoss:
    l1: float = setting(1.0, "mean absolute error", 0)
    adversarial: float = setting(0.1, "what the critic says", 0)
    critic: float = setting(1.0, "the critic's own loss", 0)


class ToyObjective(Objective):
    """A generator, and a critic that steps first."""

    title, terms, weights = "toy", ("critic", "l1", "adversarial"), ToyLoss
    sample_task = staticmethod(sample_missing_task)

    def __init__(self, network, loss, perceptual=None):
        super().__init__(network, loss, perceptual)
        self.critic = nn.Conv2d(network.slices, 1, 3)

    def trained(self):
        return {"critic": self.critic, NETWORK: self.network}

    def losses(self, name, crop):
        wanted = crop.images[:, crop.task.target]
        available = [i in crop.task.sources for i in range(crop.inputs.shape[1])]
        output = self.network(crop.inputs, available, crop.task.target)
        if name == "critic":
            return {"critic": self.critic(output.detach()).mean() - self.critic(wanted).mean()}
        return {"l1": F.l1_loss(output, wanted), "adversarial": -self.critic(output).mean()}


@pytest.fixture(params=[*TINY, "toy"])
def name(request, monkeypatch) -> str:
    if request.param == "toy":
        monkeypatch.setitem(NETWORKS, "toy", NetworkKind(ToyConfig, ToyObjective))
    return request.param


@pytest.fixture
def yaml_file(name, tiny_dataset, tmp_path) -> Path:
    path = tmp_path / f"{name}.yaml"
    text = tiny_yaml(TINY.get(name, TOY), tiny_dataset, tmp_path / "run")
    size = getattr(NETWORKS[name].objective, "smallest_crop", 1)
    path.write_text(text.replace("crop: [16, 16]", f"crop: [{max(size, 16)}, {max(size, 16)}]"))
    return path


@pytest.fixture
def config(yaml_file) -> Config:
    return load_config(yaml_file)


@pytest.fixture
def network(config) -> SynthesisNetwork:
    """Untrained, but for noise on all weights: what starts at zero would say nothing."""
    network = build_network(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.fixture
def first_weights(name, network, tiny_dataset, tmp_path) -> list[object]:
    """Options of the training scripts for what the network builds on."""
    if network.builds_on is None:
        return []
    path = tmp_path / "stage1.yaml"
    path.write_text(tiny_yaml(TINY_SEQ2SEQ, tiny_dataset, tmp_path / "stage1"))
    config = load_config(path)
    save_checkpoint(tmp_path / "stage1.pth", build_network(config), config)
    return ["-m", tmp_path / "stage1.pth"]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def available_for(task: Task) -> list[bool]:
    return [index in task.sources for index in range(4)]


def possible_tasks(network: SynthesisNetwork) -> list[Task]:
    return [task for task in all_tasks(4) if network.accepts(task)]


def other_targets(network: SynthesisNetwork, task: Task) -> list[int]:
    """Which the network can synthesize from the same sources."""
    others = (i for i in range(4) if i != task.target)
    return [i for i in others if network.accepts(Task(task.sources, i))]


def test_every_network_has_a_yaml():
    folder = REPOSITORY / "config"
    names = {
        yaml.safe_load(path.read_text())["network"]["name"]
        for path in (*folder.glob("*_brats_2d.yaml"), *folder.glob("peers/*.yaml"))
    }
    assert names == set(NETWORKS)


def test_a_network_is_a_file_a_line_and_an_objective():
    """The U-Net's name stands in its own file, in the table, with its objective, and nowhere else
    in the library."""
    library = REPOSITORY / "src" / "tsf_seq2seq"
    found = {
        path.relative_to(library).as_posix()
        for path in library.rglob("*.py")
        if re.search(r"\bUNet|\"unet\"", path.read_text())
    }
    assert found == {
        "models/unet.py",
        "models/build.py",
        "models/__init__.py",
        "training/objectives.py",
    }


@pytest.mark.parametrize("size", [(16, 16), (13, 18), (17, 8)])
def test_shapes_and_range(network, size):
    for task in possible_tasks(network)[:5]:
        output = network(images(2, 4, 3, *size), available_for(task), task.target)
        assert output.shape == (2, 3, *size)
        assert output.abs().max() <= 1


def test_an_absent_sequence_has_no_influence(network):
    given = images(1, 4, 3, 16, 16)
    for task in possible_tasks(network):
        changed = given.clone()
        changed[:, [i for i in range(4) if i not in task.sources]] = torch.nan
        outputs = [network(x, available_for(task), task.target) for x in (given, changed)]
        assert torch.equal(*outputs), task


def test_every_source_and_the_target_have_influence(network):
    """More than by rounding, which normalised features can make large."""
    given = images(1, 4, 3, 16, 16)
    possible = [task for task in possible_tasks(network) if other_targets(network, task)]
    task = max(possible, key=lambda task: len(task.sources))
    output = network(given, available_for(task), task.target)
    for source in task.sources:
        changed = given.clone()
        changed[:, source] = given[:, source].flip(-1)
        found = network(changed, available_for(task), task.target)
        assert (found - output).abs().max() > 1e-3
    other = other_targets(network, task)[0]
    assert (network(given, available_for(task), other) - output).abs().max() > 1e-3


def test_a_batch_equals_its_samples_one_by_one(network):
    given = images(3, 4, 3, 16, 16)
    task = possible_tasks(network)[-1]
    available = available_for(task)
    together = network(given, available, task.target)
    alone = [network(sample.unsqueeze(0), available, task.target) for sample in given]
    torch.testing.assert_close(together, torch.cat(alone), atol=5e-5, rtol=0)


def test_synthesize_gives_what_forward_gives(network):
    given = images(2, 4, 3, 13, 16)
    tasks = possible_tasks(network)
    outputs = {(v, task): image for v, task, image in network.synthesize(given, tasks)}
    assert set(outputs) == {(FULL, task) for task in tasks}
    for task in tasks:
        wanted = network(given, available_for(task), task.target)
        torch.testing.assert_close(outputs[FULL, task], wanted, atol=1e-5, rtol=0)


def test_every_variant_is_synthesized(network):
    for variant in network.variants:
        tasks = [task for task in all_tasks(4) if network.accepts(task, variant)]
        found = list(network.synthesize(images(1, 4, 3, 8, 8), tasks, [variant]))
        assert {(v, task) for v, task, _ in found} == {(variant, task) for task in tasks}


def test_tsem_is_of_networks_that_have_an_output_without_f_a(network):
    given, available = images(2, 4, 3, 8, 8), available_for(possible_tasks(network)[0])
    if WITHOUT_ATTENTION in network.variants:
        assert network.enhanced_map(given, available, 3).shape == (2, 8, 8)
        return
    with pytest.raises(ValueError, match="has no TSEM"):
        network.enhanced_map(given, available, 3)


@pytest.mark.parametrize("available", [[False] * 4, [True] * 3])
def test_wrong_availability_is_refused(network, available):
    with pytest.raises(ValueError, match=r"availability|available"):
        network(images(1, 4, 3, 8, 8), available, 0)


def test_an_unknown_target_is_refused(network):
    with pytest.raises(ValueError, match="target must be 0 to 3, not 4"):
        network(images(1, 4, 3, 8, 8), [True, False, False, False], 4)


def test_checkpoint_round_trip(network, config, tmp_path):
    save_checkpoint(tmp_path / "one.pth", network, config)
    model = open_model(tmp_path / "one.pth")
    assert model.config == config
    assert type(model.network) is type(network)
    assert not model.network.training
    wanted, found = network.state_dict(), model.network.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_the_seed_decides_the_first_weights(config):
    first, again = build_network(config), build_network(config)
    train = dataclasses.replace(config.train, seed=1)
    other = build_network(dataclasses.replace(config, train=train))
    states = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def train(script, yaml_file, output, *options):
    outcome = script(train_network, "-c", yaml_file, "-o", output, *options)
    assert outcome.code == 0, outcome.err
    return outcome


def test_kill_and_resume(script, yaml_file, first_weights, tmp_path, monkeypatch, name):
    """A run that ends between checkpoints and goes on gives what an uninterrupted one gives.

    With averaged weights and cut gradients, which any network can have.
    """
    first_weights += ["--set", "train.average=0.9", "--set", "train.clip_norm=0.5"]
    train(script, yaml_file, tmp_path / "whole", *first_weights)

    class Killed(BaseException):
        pass

    record = Trainer._record

    def killed_at_step_5(trainer, *arguments):
        record(trainer, *arguments)
        if trainer.state.step == 5:
            raise Killed

    monkeypatch.setattr(Trainer, "_record", killed_at_step_5)
    with pytest.raises(Killed):
        script(train_network, "-c", yaml_file, "-o", tmp_path / "killed", *first_weights)
    monkeypatch.setattr(Trainer, "_record", record)
    train(script, yaml_file, tmp_path / "killed", "--resume", *first_weights)

    contents = [
        torch.load(tmp_path / run / "last.pth", weights_only=True) for run in ("whole", "killed")
    ]
    for part in ("weights", "training"):
        states = [content[part] for content in contents]
        for state in states:
            state.pop("seconds", None)
        assert_same(*states)
    logs = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / run / "log.csv").read_text().splitlines()]
        for run in ("whole", "killed")
    ]
    assert logs[0] == logs[1]
    terms = NETWORKS[name].objective.terms
    assert logs[0][0] == ",".join(["step,epoch,lr,loss", *terms, "validation_psnr"])


def assert_same(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_settings_of_another_network_are_refused(config, yaml_file):
    values = yaml.safe_load(yaml_file.read_text())
    values["network"]["widht"] = 3
    yaml_file.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"unknown key 'network\.widht'"):
        load_config(yaml_file)


@pytest.fixture
def tsf_file(tiny_dataset, tmp_path) -> Path:
    """Weights of a tiny TSF-Seq2Seq."""
    path = tmp_path / "tsf" / "settings.yaml"
    path.parent.mkdir()
    path.write_text(tiny_yaml(TINY_TSF, tiny_dataset, tmp_path / "run"))
    config = load_config(path)
    save_checkpoint(path.with_name("best.pth"), build_network(config), config)
    return path.with_name("best.pth")


def test_evaluated_beside_another_network_and_reported(
    script, network, config, tsf_file, tmp_path, name
):
    path = tmp_path / f"a_{name}" / "best.pth"
    save_checkpoint(path, network, config)
    output = tmp_path / "evaluation"
    outcome = script(
        *(evaluate_networks, "-l", path, tsf_file, "-o", output, "--all-tasks"),
        *("--baselines", "linear_regression", "mean_image"),
    )
    assert outcome.code == 0, outcome.err
    scores = read_scores(output / "metrics.csv")
    method = f"a_{name}_average" if name == "seq2seq" else f"a_{name}"
    methods = [method, "tsf", "linear_regression", "mean_image"]
    assert list(dict.fromkeys(score.method for score in scores)) == methods
    for one in methods:
        tasks = len(possible_tasks(network)) if one == f"a_{name}" else 28
        assert sum(score.method == one for score in scores) == tasks
    shown = Experiment(network, config, path, 4)
    inputs = Inputs(evaluation=output)
    page = write_report(inputs, shown, tmp_path / "report", ["python"], "a comparison")
    text = page.read_text(encoding="utf-8")
    assert method in text
    case = page.parent / "cases/01/task_01"
    has_tsem = WITHOUT_ATTENTION in network.variants
    for picture, there in (("synthesis", True), ("error", True), ("tsem", has_tsem)):
        assert (case / f"picture_{picture}.png").is_file() == there
        assert (f"cases/01/task_01/picture_{picture}.png" in text) == there
    assert ("The network has no f_A, and so no TSEM." in text) != has_tsem
    assert ('value="tsem"' in text) == has_tsem


def test_imputes(network, config, tiny_dataset, tmp_path, name):
    save_checkpoint(tmp_path / "one.pth", network, config)
    task = next(task for task in possible_tasks(network) if task.target == 3)
    files = {
        SEQUENCES[source]: next(tiny_dataset.glob(f"*/*_{SEQUENCES[source]}.nii.gz"))
        for source in task.sources
    }
    found = impute(files, tmp_path / "one.pth", "flair")
    assert found.image.shape == read_volume(files["t1"])[0].shape
    assert np.isfinite(found.image.get_fdata()).all()
    assert (found.tsem is not None) == (name in ("tsf_seq2seq", "tsf_pyramid"))
    assert (found.fusion_weights is not None) == (name in ("tsf_seq2seq", "tsf_pyramid"))


def test_contributions_add_up(network, config, tiny_dataset, tmp_path, name):
    """To the synthesis, of as many sources as the network takes; two alone can't be told apart."""
    save_checkpoint(tmp_path / "one.pth", network, config)
    task = [task for task in possible_tasks(network) if task.target == 3][-1]
    names = [SEQUENCES[source] for source in task.sources]
    files = {s: next(tiny_dataset.glob(f"*/*_{s}.nii.gz")) for s in names}
    if name in ("hi_net", "mmgsn_net"):
        with pytest.raises(UserError, match="TwoSourceFamily can't do with fewer sources"):
            impute(files, tmp_path / "one.pth", "flair", contributions=True)
        return
    found = impute(files, tmp_path / "one.pth", "flair", contributions=True)
    own = found.contributions
    total = sum(image.get_fdata() for image in own.images.values())
    brain = np.any([read_volume(path)[0] > 0 for path in files.values()], axis=0)
    total[brain] += own.empty
    scale = found.intensity_maximum
    np.testing.assert_allclose(total / scale, found.image.get_fdata() / scale, atol=1e-6)
    assert list(own.shares) == names
    assert sum(own.shares.values()) == pytest.approx(1)


@pytest.mark.slow
def test_onnx_file_gives_the_same(network, tmp_path):
    for module in network.modules():
        if isinstance(module, ImageBatchNorm2d):  # of 2 × 2 features, it magnifies rounding
            module.__class__ = nn.BatchNorm2d
    task = possible_tasks(network)[-1]
    difference = export_onnx(tmp_path / "one.onnx", network, task, ["t1", "t1ce", "t2", "flair"])
    assert difference is not None
    assert difference < 1e-4
