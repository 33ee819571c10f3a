"""TSF-Pyramid: its regression, its fusion at every scale, its training, by hand."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import SEQUENCES, TINY_PYRAMID, tiny_yaml
from torch import nn

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.explain import explain_fusion_weights
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.regression_shares import regression_share_table
from tsf_seq2seq.export.task_network import TaskNetwork, TaskOutputs
from tsf_seq2seq.models import TSFPyramid, build_network
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION
from tsf_seq2seq.models.regression_head import RegressionHead
from tsf_seq2seq.synthesis.baselines import PolynomialRegression
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, all_tasks
from tsf_seq2seq.training.average import weight_average
from tsf_seq2seq.training.loop import Trainer
from tsf_seq2seq.training.mapped_error import mapped_error
from tsf_seq2seq.training.pyramid_objective import (
    PyramidLoss,
    PyramidObjective,
    log_mse,
    relative_mse,
)
from tsf_seq2seq.training.regression_start import fit_regression

TASK = Task((0, 2), 3)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def config(tiny_dataset, tmp_path) -> Config:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_yaml(TINY_PYRAMID, tiny_dataset, tmp_path / "run"))
    return load_config(path)


def noisy(network: nn.Module) -> nn.Module:
    """With noise on all weights: what starts at zero would say nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def random_images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the regression


def test_an_untrained_network_is_the_closed_form_fit(config):
    """Of the training subjects' brains; outside, where all sources are background, background."""
    subjects = find_subjects(config.data, config.data.train)
    network = build_network(config)
    fit_regression(network, config, subjects)
    windows = [load_window(config, subject).images for subject in subjects]
    model = PolynomialRegression(4, 2)
    for images in windows:
        model.fit([images[:, (images > BACKGROUND).any(axis=0)]])
    images = windows[0]
    stacks = np.stack([images[:, :3], images[:, 3:6]], axis=1)
    outputs = run_stacks(network, stacks, all_tasks(4), 2)
    for task in all_tasks(4):
        outside = (stacks[list(task.sources)] <= BACKGROUND).all(axis=0)
        wanted = np.where(outside, BACKGROUND, model.predict(stacks, task))
        np.testing.assert_allclose(outputs[FULL, task], wanted, atol=1e-4)
        brains = [(images > BACKGROUND).any(axis=0) for images in windows]
        errors = [
            (model.predict(images[:, brain], task) - images[task.target, brain]) ** 2
            for images, brain in zip(windows, brains, strict=True)
        ]
        error = network.regression_error(task.sources, task.target).item()
        assert error == pytest.approx(np.concatenate(errors).mean(), rel=5e-3)  # which are clipped


def test_a_known_quadratic_map_is_found_and_learned_on_from_there():
    """y = 0.1 − 0.3 a + 0.2 b + 0.5 a b, sources 0 and 2 of four."""
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 1000))
    design = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b])
    y = 0.1 - 0.3 * a + 0.2 * b + 0.5 * a * b
    beta = np.linalg.lstsq(design.T, y, rcond=None)[0]
    head = RegressionHead(4)
    with torch.no_grad():
        head.deltas.fill_(0.5)  # of other data, from which nothing is left
    head.set_fit(TASK, beta, design @ design.T / 1000)
    assert not head.deltas[0b0101, 3].any()
    images = torch.full((1, 4, 1, 1, 1000), torch.nan)  # absent ones are never read
    images[0, 0, 0, 0], images[0, 2, 0, 0] = torch.from_numpy(a), torch.from_numpy(b)
    found = head(images, (0, 2), 3)[0, 0, 0]
    np.testing.assert_allclose(found.detach(), y, atol=1e-5)

    # --- in the basis, a step of any δ changes the image equally much
    own = [row for row, term in enumerate(head.terms) if {0, 2}.issuperset(term)]
    assert len(own) == 6
    for row in own:
        with torch.no_grad():
            head.deltas.zero_()
            head.deltas[0b0101, 3, row] = 0.01
        change = head(images, (0, 2), 3)[0, 0, 0].detach() - found.detach()
        assert change.square().mean().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_head_without_fit_starts_from_background():
    images = random_images(2, 4, 3, 5, 6)
    assert torch.equal(RegressionHead(4)(images, (1,), 0), torch.full((2, 3, 5, 6), -1.0))


def test_collinear_sources_make_no_infinite_step():
    """Two equal sources: of their difference the data tell nothing, and δ can't move it."""
    a = np.random.default_rng(0).uniform(-1, 1, 500)
    design = np.stack([np.ones_like(a), a, a, a * a, a * a, a * a])
    head = RegressionHead(4)
    head.set_fit(TASK, np.zeros(6), design @ design.T / 500)
    with torch.no_grad():
        head.deltas.fill_(0.01)
    slope = head.coefficients((0, 2), 3)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() < 1


# --- fusion


def test_fusion_weights_sum_to_one_at_every_scale(config):
    network = noisy(build_network(config))
    assert isinstance(network, TSFPyramid)
    for task in all_tasks(4):
        available = [i in task.sources for i in range(4)]
        rows = network.scale_weights(available, task.target)
        assert rows.shape == (2, 4)
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(2))
        assert (rows[:, [i not in task.sources for i in range(4)]] == 0).all()
        mean = network.fusion_weights(available, task.target)
        torch.testing.assert_close(mean, rows.mean(dim=0))
    assert not torch.equal(rows[0], rows[1])


def test_one_set_of_weights_for_all_scales():
    network = noisy(TSFPyramid(4, 3, (4, 8, 8), 1, weights_per_scale=False))
    assert network.scale_weights([True, True, False, False], 3).shape == (1, 4)
    features = {i: network.encode(random_images(1, 4, 3, 8, 8), i) for i in (0, 1)}
    weights = network.fusion_weights([True, True, False, False], 3)
    for scale, fused in enumerate(network.fuse(features, (0, 1), 3)):
        wanted = weights[0] * features[0][scale] + weights[1] * features[1][scale]
        torch.testing.assert_close(fused, wanted)


def test_without_f_a_is_the_network_whose_joint_encoder_says_nothing(config):
    network = noisy(build_network(config)).eval()
    images, available = random_images(2, 4, 3, 12, 16), [True, False, True, False]
    plain = network(images, available, 3, attention=False)
    full = network(images, available, 3)
    with torch.no_grad():
        tsem = network.enhanced_map(images, available, 3)
        torch.testing.assert_close(tsem, (full - plain)[:, 1].abs())
        for parameter in network.joint_encoder.parameters():
            parameter.zero_()
    torch.testing.assert_close(network(images, available, 3), plain)
    assert (full - plain).abs().max() > 1e-3


def test_a_network_without_joint_path_has_an_empty_tsem():
    network = noisy(TSFPyramid(4, 3, (4, 8), 1, joint=False)).eval()
    assert not network.enhanced_map(random_images(1, 4, 3, 8, 8), [True] * 3 + [False], 3).any()


@pytest.mark.parametrize("norm", ["branch", "none", "everywhere"])
def test_only_a_stream_that_is_not_normalised_knows_how_bright_the_sources_are(norm):
    """Twice as bright an image changes the features at most by their scale if all is normalised."""
    network = noisy(TSFPyramid(4, 3, (4, 8), 1, norm)).eval()
    images = random_images(1, 4, 3, 16, 16)
    (first, _), (second, _) = (network.encode(x, 0) for x in (images, 0.5 * images))
    same = torch.allclose(first, second, atol=1e-3)
    assert same == (norm == "everywhere")


def test_each_target_has_a_last_layer_of_its_own():
    network = noisy(TSFPyramid(4, 3, (4, 8), 1)).eval()
    images, available = random_images(1, 4, 3, 8, 8), [True, True, False, False]
    before = [network(images, available, target) for target in (2, 3)]
    with torch.no_grad():
        network.decoder.last[2].bias += 0.1
    after = [network(images, available, target) for target in (2, 3)]
    assert (after[0] - before[0]).abs().max() > 0.05
    assert torch.equal(after[1], before[1])


def test_background_is_where_all_sources_are():
    network = noisy(TSFPyramid(4, 3, (4, 8), 1)).eval()
    network.regression.start[..., 0] = 0
    images = random_images(1, 4, 3, 8, 8)
    images[:, 0, :, :4] = images[:, 2, :, 2:6] = BACKGROUND
    output = network(images, [True, False, True, False], 3)
    assert (output[:, :, 2:4] == BACKGROUND).all()
    assert (output[:, :, :2] != BACKGROUND).any()


# --- training


def test_log_mse():
    error = torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1).expand(2, 3, 4, 5)
    wanted = (math.log(0.01 + 1e-4) + math.log(0.04 + 1e-4)) / 2
    assert log_mse(error).item() == pytest.approx(wanted)


def test_an_error_counts_relative_to_the_usual_one():
    """Of twice as large an error four times as much is expected: both tasks count alike."""
    errors = [torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1), torch.full((2, 1, 1, 1), 0.2)]
    usual = torch.tensor([0.01, 0.04]).unbind()
    wanted = ((0.01 + 0.09) / 2 / 0.01 + 1) / 2
    assert relative_mse(errors, usual).item() == pytest.approx(wanted)


def test_what_a_contrast_map_can_mend_is_no_error():
    """An output that differs from the target by a quadratic map of itself and the sources."""
    sources, output = random_images(2, 2, 3, 8, 8), random_images(2, 3, 8, 8, seed=2)
    wanted = 0.1 - 0.5 * output + 0.2 * sources[:, 1] + 0.3 * output * sources[:, 0] - output**2
    assert mapped_error(output, sources, wanted).abs().max() < 2e-3  # the ridge leaves a little
    assert (wanted - output).abs().max() > 0.5


def test_the_error_after_the_map_is_that_of_least_squares():
    """And its gradient that of the least squares as a whole, coefficients included."""
    sources, wanted = random_images(1, 1, 1, 6, 7), random_images(1, 1, 6, 7, seed=3)
    sources[..., :2] = BACKGROUND
    output = random_images(1, 1, 6, 7, seed=2).double().requires_grad_()
    brain = sources[0, 0, 0] > BACKGROUND
    x, y = sources[0, 0, 0][brain].double(), wanted[0, 0][brain].double()

    def left(f: torch.Tensor) -> torch.Tensor:
        design = torch.stack([torch.ones_like(x), x, f, x * x, x * f, f * f], dim=1)
        ridge = 1e-4 * (design.T @ design).diagonal().mean() * torch.eye(6)
        return y - design @ torch.linalg.solve(design.T @ design + ridge, design.T @ y)

    error = mapped_error(output, sources.double(), wanted.double())
    torch.testing.assert_close(error[0, 0][brain], left(output[0, 0][brain]))
    assert not error[0, 0][~brain].any()
    found, whole = (
        torch.autograd.grad(e.square().sum(), output)[0] for e in (error, left(output[0, 0][brain]))
    )
    torch.testing.assert_close(found, whole, rtol=0.01, atol=2e-3 * whole.abs().max().item())


@pytest.mark.parametrize("coin", [True, False])
def test_a_step_sees_all_missing_targets(config, coin):
    """Both of sources 0 and 2; on heads the drawn one without f_A, too."""
    network = noisy(build_network(config)).train()
    objective = PyramidObjective(network, PyramidLoss())
    images = random_images(2, 4, 3, 16, 16)
    crop = Crop(images, images, (0, 1, 2, 3), TASK, coin, ("a", "b"))
    available = [True, False, True, False]
    outputs = [(3, True), (1, True)] + ([(3, False)] if coin else [])
    errors = [network(crop.images, available, t, f_a) - crop.images[:, t] for t, f_a in outputs]
    terms = objective.losses("network", crop)
    wanted = sum(log_mse(error) for error in errors) / len(errors)
    torch.testing.assert_close(terms["log_mse"], wanted)
    usual = [network.regression_error((0, 2), target) for target, _ in outputs]
    torch.testing.assert_close(terms["mse"], relative_mse(errors, usual))
    torch.testing.assert_close(terms["l1"], sum(e.abs().mean() for e in errors) / len(errors))
    assert terms["perceptual"] == 0


def test_the_average_of_weights():
    """w = 1, 3, 5 after three steps, decay 0.5: kept 2/11 and 3/12 of the average before."""
    network = nn.Linear(1, 1)
    average = weight_average(network, 0.5)
    for value in (1.0, 3.0, 5.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    second = 2 / 11 * 1 + 9 / 11 * 3
    assert average.module.weight.item() == pytest.approx(3 / 12 * second + 9 / 12 * 5)
    assert network.weight.item() == 5
    for _ in range(100):  # in the end it is the decay that counts
        average.update_parameters(network)
    nn.init.constant_(network.weight, 7.0)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(6)


def test_an_average_that_keeps_everything_is_refused(config, tmp_path):
    with pytest.raises(UserError, match=r"train: average must be below 1, not 1"):
        load_config(tmp_path / "tiny.yaml", ["train.average=1"])


def test_averaged_weights_are_validated_and_saved(config, tmp_path, monkeypatch):
    train = dataclasses.replace(config.train, average=0.9, clip_norm=0.1)
    config = dataclasses.replace(config, train=train)
    trainer = Trainer(config, build_network(config), torch.device("cpu"), resume=False)
    seen = []
    validate = trainer.validator.__call__
    monkeypatch.setattr(
        trainer, "validator", lambda network: seen.append(network) or validate(network)
    )
    trainer.run()
    assert all(network is trainer.average.module for network in seen)
    assert seen
    saved = torch.load(config.train.output / "last.pth", weights_only=True)
    averaged = saved["training"]["companions"]["weight_average"]
    key = "decoder.last.3.weight"
    assert not torch.equal(averaged[f"module.{key}"], saved["weights"][key])
    best = torch.load(config.train.output / "best.pth", weights_only=True)["weights"]
    states = [trainer.average.module.state_dict(), trainer.network.state_dict()]
    assert best.keys() == states[0].keys() == states[1].keys()


def test_gradients_are_cut_to_the_norm(config):
    train = dataclasses.replace(config.train, clip_norm=0.01, steps=1)
    config = dataclasses.replace(config, train=train)
    trainer = Trainer(config, build_network(config), torch.device("cpu"), resume=False)
    trainer.run()
    norms = [p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_fit_is_kept_where_training_starts_from_weights(config):
    """Fine-tuning doesn't begin with another regression than that of the weights."""
    network = build_network(config)
    network.regression.set_fit(TASK, np.full(6, 0.125), np.eye(6))
    before = network.regression.start.clone()
    PyramidObjective(network, PyramidLoss()).prepare(config, [])
    assert torch.equal(network.regression.start, before)


def test_both_variants_are_named(config):
    assert build_network(config).variants == (FULL, WITHOUT_ATTENTION)


# --- explanations


def test_shares_of_the_regression_are_those_of_variances():
    """y = 0.3 a + 0.4 b of independent a and b of variance 1/3: shares 0.09 and 0.16 of 0.25."""
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 400_000))
    design = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b])
    head = RegressionHead(4)
    head.set_fit(TASK, np.array([0.2, 0.3, 0.4, 0, 0, 0]), design @ design.T / len(a))
    ((*labels, t1, t1ce, t2, flair),) = regression_share_table(head, [TASK], SEQUENCES).rows
    assert (labels, t1ce, flair) == (["t1+t2", "flair"], None, None)
    assert t1 == pytest.approx(0.36, abs=0.003)
    assert t2 == pytest.approx(0.64, abs=0.003)


def test_the_script_writes_weights_of_every_scale_and_shares(config, script, tmp_path):
    save_checkpoint(tmp_path / "one.pth", noisy(build_network(config)), config)
    outcome = script(explain_fusion_weights, "-l", tmp_path / "one.pth", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with (tmp_path / "out/fusion_weights_by_scale.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["scale"] for row in rows] == ["1/1", "1/2"] * 28
    for row in rows:
        assert sum(float(row[name] or 0) for name in SEQUENCES) == pytest.approx(1, abs=1e-5)
    with (tmp_path / "out/regression_shares.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 28


def test_a_task_folded_for_other_software_has_the_tsem(config):
    network = noisy(build_network(config)).eval()
    images = random_images(2, 4, 3, 8, 12)
    folded = TaskNetwork(network, Task((2, 0), 3), TaskOutputs(tsem=True))
    with torch.no_grad():
        image, tsem = folded(images[:, [2, 0]])
        wanted = network(images, [True, False, True, False], 3)
        torch.testing.assert_close(image, wanted)
        torch.testing.assert_close(
            tsem, network.enhanced_map(images, [True, False, True, False], 3)
        )
