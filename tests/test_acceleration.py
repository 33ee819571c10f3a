"""Memory format and compilation: the numbers stay, and so do the parameters and their names."""

import copy
import functools
import re

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_SEQ2SEQ, TINY_TSF, TINY_UNET
from torch import nn

from tsf_seq2seq.config import TrainConfig, load_config
from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import TSFSeq2Seq, UNet, build_network
from tsf_seq2seq.models.blocks import HyperConv, feature_norm
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.acceleration import accelerate, compile_parts, use_channels_last
from tsf_seq2seq.training.objectives import (
    Seq2SeqLoss,
    Seq2SeqObjective,
    TSFObjective,
    UNetLoss,
    UNetObjective,
)
from tsf_seq2seq.training.perceptual import PerceptualLoss

CPU = torch.device("cpu")
STAGES = {
    "stage 1": [Task((3,), 0), Task((1,), 1)],
    "stage 2": [Task((2, 0), 1), Task((3,), 0), Task((1, 0, 3), 2)],
}


@pytest.fixture
def float64():
    """In it, rounding can't hide a difference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
    torch._dynamo.reset()


@pytest.fixture
def model(reference_model, float64):
    """The reference model in float64."""
    return reference_model.double()


@pytest.fixture
def perceptual() -> PerceptualLoss:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return PerceptualLoss(nn.Sequential(*layers, nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()))


def losses_and_gradients(
    network: TSFSeq2Seq, perceptual: PerceptualLoss, stage: str, task: Task, batch: int
):
    """Loss terms and gradients by name, of seeded images."""
    generator = torch.Generator().manual_seed(batch)
    images = torch.rand(batch, 4, 3, 32, 24, generator=generator) * 2 - 1
    network.zero_grad()
    if stage == "stage 1":
        objective = Seq2SeqObjective(network.seq2seq, Seq2SeqLoss(), perceptual)
    else:
        objective = TSFObjective(network, Seq2SeqLoss(), perceptual)
    crop = Crop(images, images, (0, 1, 2, 3), task, coin=False, names=("one",) * batch)
    terms = objective.losses("network", crop)
    objective.total(terms).backward()
    return terms, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def check_same(model, perceptual, change, stage, batches=(1, 2), n_tasks=None) -> None:
    """What `change` does leaves losses, gradients, outputs and names of parameters as they are."""
    network, loss = copy.deepcopy(model), copy.deepcopy(perceptual)
    change(network, loss)
    for batch in batches:
        for task in STAGES[stage][:n_tasks]:
            wanted, gradients = losses_and_gradients(model, perceptual, stage, task, batch)
            terms, ours = losses_and_gradients(network, loss, stage, task, batch)
            torch.testing.assert_close(terms, wanted, rtol=1e-5, atol=0)
            assert ours.keys() == gradients.keys()
            for name, gradient in gradients.items():
                atol = 1e-5 * max(gradient.abs().max().item(), 1e-3)
                torch.testing.assert_close(ours[name], gradient, rtol=0, atol=atol, msg=name)
    with torch.inference_mode():
        images, available = torch.rand(3, 4, 3, 32, 24) * 2 - 1, [True, False, True, True]
        close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-5)
        close(network.eval()(images, available, 1), model.eval()(images, available, 1))
    for (name, value), (other, wanted) in zip(
        network.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other
        assert value.stride() == wanted.stride()


@pytest.mark.parametrize("stage", STAGES)
def test_channels_last_changes_no_number(model, perceptual, stage):
    check_same(model, perceptual, use_channels_last, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_channels_last_holds_from_convolution_to_convolution(model, perceptual, stage):
    """Every convolution's input but the spatial attention's two maps lies in channels_last."""
    use_channels_last(model, perceptual)
    real, formats = F.conv2d, []

    def conv2d(x, *arguments, **options):
        if x.shape[1] > 2:
            formats.append(x.is_contiguous(memory_format=torch.channels_last))
        return real(x, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", conv2d)
        losses_and_gradients(model, perceptual, stage, STAGES[stage][0], 2)
    assert len(formats) > 10
    assert all(formats)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_traced_parts_give_the_same_numbers(model, perceptual, stage, monkeypatch):
    """In one graph a part, by a back end that needs no C++ compiler."""
    compile_part = functools.partialmethod(nn.Module.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(nn.Module, "compile", compile_part)
    check_same(model, perceptual, compile_parts, stage, batches=(2,))


@pytest.mark.slow
@pytest.mark.parametrize("change", [use_channels_last, compile_parts])
def test_a_unet_computes_the_same_numbers(float64, monkeypatch, change):
    compile_part = functools.partialmethod(nn.Module.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(nn.Module, "compile", compile_part)
    torch.manual_seed(0)
    network = UNet(4, 3, (4, 8), blocks=1, norm="instance")
    nn.init.normal_(network.last.weight)
    other = copy.deepcopy(network)
    change(other)
    images = torch.rand(2, 4, 3, 16, 12) * 2 - 1
    crop = Crop(images, images, (0, 1, 2, 3), Task((2, 0), 1), coin=False, names=("one", "two"))
    terms = [UNetObjective(unet, UNetLoss()).losses("network", crop) for unet in (network, other)]
    torch.testing.assert_close(*terms, rtol=1e-9, atol=0)
    for term in terms:
        term["l1"].backward()
    for ours, wanted in zip(other.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "text", [TINY_SEQ2SEQ, TINY_TSF, TINY_UNET], ids=("seq2seq", "tsf", "unet")
)
def test_every_convolution_lies_in_a_compiled_part(text, tmp_path):
    (tmp_path / "tiny.yaml").write_text(text)
    network = build_network(load_config(tmp_path / "tiny.yaml"))
    parts = list(network.compiled_parts())
    assert not any(isinstance(part, nn.ModuleList) for part in parts)  # nobody calls it
    compiled = {module for part in parts for module in part.modules()}
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | HyperConv)]
    assert len(convolutions) > 4
    assert compiled.issuperset(convolutions)


@pytest.mark.slow
def test_compiled_parts_in_channels_last(model, perceptual):
    """By the compiler that training uses, which takes its time."""

    def change(network, loss):
        accelerate(network, loss, TrainConfig(channels_last=True, compile=True), CPU)

    check_same(model, perceptual, change, "stage 2", batches=(2,), n_tasks=1)


@pytest.mark.slow
def test_every_variant_stays_compiled(model, perceptual, monkeypatch):
    """Batches, numbers of sources and modes that were seen once don't compile again."""
    monkeypatch.setattr(
        nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager")
    )
    compile_parts(model, perceptual)
    compiled = torch._dynamo.utils.counters["stats"]
    counts = []
    for batches in ((1, 2, 3), (3, 1, 2)):
        for batch in batches:
            for task in STAGES["stage 2"]:
                losses_and_gradients(model, perceptual, "stage 2", task, batch)
        counts.append(compiled["unique_graphs"])
    assert counts[0] == counts[1] > 0


def test_without_settings_nothing_changes(model, perceptual):
    accelerate(model, perceptual, TrainConfig(), CPU)
    for part in (model, perceptual):
        for module in part.modules():
            assert not module._forward_pre_hooks
            assert module._compiled_call_impl is None


def test_lack_of_a_compiler_is_one_sentence(model, monkeypatch):
    def fail(*_):
        raise RuntimeError("no g++ here\nand a long tale")

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(UserError) as error:
        accelerate(model, None, TrainConfig(compile=True), CPU)
    assert re.match(r"train\.compile needs a C\+\+ compiler .*\(no g\+\+ here\)$", str(error.value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_keeps_channels_last(dtype):
    x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 3 + 40
    x = x.to(dtype)
    ours = feature_norm(x.contiguous(memory_format=torch.channels_last), "instance")
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours.float(), F.instance_norm(x.float()), rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.float().mean((2, 3)), torch.zeros(2, 5), rtol=0, atol=tolerance)
