"""The plain formulation that benchmarks compare with is the same mathematics."""

import sys

import pytest
import torch
from conftest import REPOSITORY

from tsf_seq2seq import stages
from tsf_seq2seq.config import LossConfig
from tsf_seq2seq.losses import PerceptualLoss
from tsf_seq2seq.prediction import decode_task, encode_source
from tsf_seq2seq.tasks import Task, all_tasks

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import bench
import plain


@pytest.fixture
def images(expected) -> torch.Tensor:
    return torch.from_numpy(expected["images"][:, :1, 0]).transpose(0, 1).contiguous()


def test_steps_have_equal_losses_and_gradients(reference_model, images):
    torch.manual_seed(0)
    loss = PerceptualLoss(bench.vgg19_features())
    pair, task = Task((3,), 0), Task((2, 0, 3), 1)
    jobs = [
        (reference_model.seq2seq, plain.seq2seq_loss, stages.seq2seq_loss, pair),
        (reference_model, plain.tsf_loss, stages.tsf_loss, task),
    ]
    for network, slow, fast, work in jobs:
        results = []
        for function in (slow, fast):
            network.zero_grad()
            total = function(network, images, work, loss).total(LossConfig())
            total.backward()
            gradients = {
                name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
            }
            results.append((total.item(), gradients))
        (slow_loss, slow_gradients), (fast_loss, fast_gradients) = results
        assert fast_loss == pytest.approx(slow_loss, rel=1e-5)
        for name, gradient in slow_gradients.items():
            if ".biases" in name or ".bias" in name:
                continue  # mostly analytically zero before an InstanceNorm
            scale = gradient.abs().max().item() + 1e-12
            assert (fast_gradients[name] - gradient).abs().max().item() < 0.01 * scale, name


def test_tasks_have_equal_outputs(reference_model, images):
    with torch.no_grad():
        features = {i: encode_source(reference_model, images[:, i]) for i in range(4)}
        for task in all_tasks(4):
            wanted = plain.tsf(reference_model, images, task.sources, task.target, attention=True)
            actual = decode_task(reference_model, features, task, images.shape[-2:])
            torch.testing.assert_close(actual, wanted, rtol=0, atol=5e-5)
