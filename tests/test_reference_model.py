"""Our networks give the numbers of the authors' implementation."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from tsf_seq2seq.checkpoints import published
from tsf_seq2seq.checkpoints.published import load_published
from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.tasks import Task, mask_to_sequences
from tsf_seq2seq.training.loop import trainable
from tsf_seq2seq.training.objectives import (
    Seq2SeqLoss,
    Seq2SeqObjective,
    TSFObjective,
    poly_learning_rate,
)

TOLERANCE = 5e-5
PUBLISHED_YAML = """
seq2seq: {ndims: 2, c_s: 64, c_w: 16, c_in: 3, c_enc: [64, 128, 256], k_enc: [7, 3, 3],
  s_enc: [1, 2, 2], nres_enc: 6, norm: InstanceNorm, c_lstm: 256, c_dec: [128, 64, 3],
  k_dec: [3, 3, 7], s_dec: [1, 1, 1], nres_dec: 6, pretrain: none.pth}
TSF_seq2seq: {c_s_source: 4, c_s_target: 4, c_w: 4, c_enc: [256], k_enc: [3], s_enc: [1],
  norm: None}
"""


def close(actual: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), wanted, rtol=0, atol=TOLERANCE)


def batch(expected, samples=slice(None)) -> torch.Tensor:
    """(B, S, C, H, W) of the stored (S, B, T, C, H, W)."""
    return torch.from_numpy(expected["images"][:, samples, 0]).transpose(0, 1).contiguous()


def availability(sources) -> list[bool]:
    return [i in sources for i in range(4)]


def test_features(reference_model, expected):
    for source in range(4):
        feature = reference_model.seq2seq.encode(torch.from_numpy(expected["images"][source]))
        close(feature, expected["features"][source][:, 0])


def test_single_source_outputs(reference_model, expected):
    for source in range(4):
        images = torch.from_numpy(expected["images"][source])
        for target in range(4):
            output = reference_model.seq2seq.translate(images, target)
            close(output, expected["seq2seq_out"][source, target])


def test_two_time_steps(reference_model, expected):
    images = torch.from_numpy(expected["images_T2"])
    output = reference_model.seq2seq.translate(images, 2, n_out=2)
    close(output, expected["seq2seq_T2_n2_tgt2"])


@pytest.mark.parametrize("number", range(60))
def test_task(reference_model, expected, number):
    mask, target = (int(x) for x in expected["tasks"][number])
    available = availability(mask_to_sequences(mask, 4))
    images = batch(expected, slice(0, 1))
    images[:, ~torch.tensor(available)] = float("nan")
    with torch.no_grad():
        close(reference_model.fusion_weights(available, target), expected["weights"][number])
        refined = reference_model(images, available, target)
        plain = reference_model(images, available, target, attention=False)
        enhanced = reference_model.enhanced_map(images, available, target)
    close(refined[0], expected["tsf_out"][number])
    close(plain[0], expected["tsf_out_without_attention"][number])
    wanted = expected["tsf_out"][number] - expected["tsf_out_without_attention"][number]
    close(enhanced[0], np.abs(wanted[1]))


def check_gradients(expected, prefix, names, network):
    """Within 1 % of each tensor's largest value; analytically zero bias gradients left out."""
    ours = {name: p.grad for name, p in network.named_parameters()}
    checked = 0
    for key, wanted in expected.items():
        if not key.startswith(prefix):
            continue
        theirs = key.removeprefix(prefix)
        (name,) = names({theirs: torch.zeros(())})
        if _is_bias_before_norm(name):
            continue
        gradient = ours[name]
        actual = np.zeros_like(wanted) if gradient is None else gradient.numpy()
        largest = np.abs(wanted).max()
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=0.01 * largest, err_msg=key)
        checked += 1
    return checked


def _is_bias_before_norm(name: str) -> bool:
    pattern = r"(residual_blocks|upsampling)\..*(\.biases|\.bias_mixture\.\w+)$|^encoder\..*\.bias$"
    return re.search(pattern, name) is not None


def run_steps(objective, images, task, n_steps=3):
    """Losses before each of three Adam steps, and the network after the first backward pass."""
    crop = Crop(images, images, (0, 1, 2, 3), task, coin=False, names=("one",))
    optimizer = torch.optim.Adam(trainable(objective.network), lr=1e-3)
    values = []
    for step in range(n_steps):
        optimizer.zero_grad()
        terms = objective.losses("network", crop)
        objective.total(terms).backward()
        if step == 0:
            yield objective.network
        optimizer.step()
        values.append(terms)
    yield values


def test_stage_2_losses_and_gradients(reference_model, expected):
    objective = TSFObjective(reference_model, Seq2SeqLoss(10.0, 0.0, 10.0))
    steps = run_steps(objective, batch(expected, slice(0, 1)), Task((2, 0), 1))
    network = next(steps)
    assert check_gradients(expected, "tsf_grad/tsf/", published.tsf_names, network) == 23
    assert (
        check_gradients(expected, "tsf_grad/seq2seq/", published.seq2seq_names, network.seq2seq)
        == 13
    )
    losses = [terms["reconstruction"].item() for terms in next(steps)]
    np.testing.assert_allclose(losses, expected["tsf_losses"], rtol=1e-3)


def test_stage_1_losses_and_gradients(reference_model, expected):
    objective = Seq2SeqObjective(reference_model.seq2seq, Seq2SeqLoss(10.0, 0.0, 10.0))
    steps = run_steps(objective, batch(expected, slice(0, 1)), Task((3,), 0))
    assert check_gradients(expected, "seq2seq_grad/", published.seq2seq_names, next(steps)) == 7
    values = next(steps)
    losses = [terms["reconstruction"].item() for terms in values]
    cycles = [terms["cycle"].item() for terms in values]
    np.testing.assert_allclose(losses, expected["seq2seq_losses"], rtol=1e-3)
    np.testing.assert_allclose(cycles, expected["seq2seq_cycle_losses"], rtol=1e-3)


def test_poly_schedule():
    wanted = np.load(REFERENCE / "metrics" / "metrics.npz")["poly_lr"]
    rates = [poly_learning_rate(1e-4, epoch, 500) for epoch in (0, 1, 10, 250, 499)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_full_size_takes_the_published_keys(tmp_path):
    shapes = json.loads((REFERENCE / "published_state_dicts.json").read_text())
    for part, keys in shapes.items():
        # One stored number a tensor, seen in the published shape.
        state = {key: torch.full((1,), 0.5).expand(shape) for key, shape in keys.items()}
        torch.save(state, tmp_path / f"{part}.pth")
    (tmp_path / "theirs.yaml").write_text(PUBLISHED_YAML)
    network = load_published(
        tmp_path / "theirs.yaml", tmp_path / "seq2seq.pth", tmp_path / "tsf.pth"
    )
    assert (len(shapes["seq2seq"]), len(shapes["tsf"])) == (134, 23)
    state = network.state_dict()
    assert len(state) == 134 + 23
    assert all((value == 0.5).all() for value in state.values())
