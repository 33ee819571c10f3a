"""One task as ONNX: onnxruntime gives the network's numbers, on any batch and image size."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY, TINY_UNET, tiny_yaml
from report_page import halved

from tsf_seq2seq import __version__
from tsf_seq2seq.checkpoints.checkpoint import load_model, save_checkpoint
from tsf_seq2seq.cli.convert import export_model
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.export import onnx_file as onnx_export
from tsf_seq2seq.export.onnx_file import export_onnx, find_task, task_outputs
from tsf_seq2seq.export.task_network import TaskNetwork, TaskOutputs
from tsf_seq2seq.models import TSFSeq2Seq, build_network
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.error_estimator import ErrorEstimatorConfig
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.error_map import Calibration, ErrorMap
from tsf_seq2seq.tasks import Task, all_tasks

NAMES = ("t1", "t1ce", "t2", "flair")
SIZES = ((1, 24, 40), (2, 32, 32), (3, 52, 16))  # batch, height, width: divisible by 4


def random_images(batch: int, *size: int) -> torch.Tensor:
    """(B, 4, 3, H, W) in [-1, 1]."""
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 4, 3, *size, generator=generator) * 2 - 1


@torch.no_grad()
def wanted_outputs(network: SynthesisNetwork, images: torch.Tensor, task: Task) -> list[np.ndarray]:
    """The target, and of a TSFSeq2Seq the TSEM, by the networks' own methods."""
    available = [i in task.sources for i in range(4)]
    outputs = [network(images, available, task.target)]
    if isinstance(network, TSFSeq2Seq):
        outputs.append(network.enhanced_map(images, available, task.target))
    return [output.numpy() for output in outputs]


def check(path: Path, network: SynthesisNetwork, task: Task) -> None:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    assert names == ["image", "tsem"][: len(names)]
    for batch, *size in SIZES:
        images = random_images(batch, *size)
        inputs = {"images": images[:, task.sources].numpy()}
        wanted = wanted_outputs(network, images, task)
        for actual, output in zip(session.run(None, inputs), wanted, strict=False):
            np.testing.assert_allclose(actual, output, rtol=0, atol=1e-4)
        assert wanted[0].std() > 0.01


# --- the folded network


@pytest.fixture
def tiny(tiny_config) -> SynthesisNetwork:
    """A TSFSeq2Seq with two attention layers and instance norm in them."""
    changes = ["attention_channels=[16,16]", "attention_kernels=[3,5]", "attention_norm=instance"]
    config = load_config(tiny_config, [f"network.{change}" for change in changes])
    return build_network(config).eval()


@pytest.mark.parametrize("task", [*all_tasks(4), Task((3, 0, 2, 1), 3), Task((2, 1), 2)])
def test_folding_changes_nothing(tiny, task):
    images = random_images(2, 12, 16)
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    folded = TaskNetwork(tiny, task, TaskOutputs(tsem=True))
    wanted = wanted_outputs(tiny, images, task)
    state = tiny.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.zero_()  # the folded network doesn't look at them
    for actual, output in zip(folded(images[:, task.sources]), wanted, strict=True):
        np.testing.assert_allclose(actual, output, rtol=0, atol=1e-6)


def test_folded_fusion_weights_follow_the_order_of_the_sources(tiny):
    weights = TaskNetwork(tiny, Task((3, 0), 1)).weights
    omega = tiny.fusion_weights([True, False, False, True], 1)
    assert weights.tolist() == [omega[3].item(), omega[0].item()]


def test_smallest_size(tiny, reference_model):
    assert TaskNetwork(tiny, Task((0,), 1)).smallest_size == 2 * 4  # the 7×7 spatial attention
    assert TaskNetwork(reference_model.seq2seq, Task((0,), 1)).smallest_size == 4 * 4


# --- ONNX files


@pytest.mark.parametrize("task", [Task((0,), 1), Task((2, 0), 1), Task((0, 1, 3), 2)])
def test_reference_model(reference_model, tmp_path, task):
    path = tmp_path / "task.onnx"
    difference = export_onnx(path, reference_model, task, NAMES)
    assert difference < 1e-4
    check(path, reference_model.eval(), task)


def test_even_background_costs_no_accuracy(reference_model, tmp_path):
    """onnxruntime's own instance normalisation is off by far more than rounding there."""
    path, task = tmp_path / "task.onnx", Task((1,), 3)
    export_onnx(path, reference_model.seq2seq.eval(), task, NAMES)
    images = random_images(1, 192, 192)
    images[..., 50:] = -1
    (actual,) = onnxruntime.InferenceSession(path).run(None, {"images": images[:, [1]].numpy()})
    (wanted,) = wanted_outputs(reference_model.seq2seq, images, task)
    assert np.abs(actual - wanted).max() < 3e-5


def test_tsem_is_a_second_output(tiny, tmp_path):
    path, task = tmp_path / "task.onnx", Task((0, 2, 3), 1)
    export_onnx(path, tiny, task, NAMES, with_tsem=True)
    check(path, tiny, task)
    assert len(onnxruntime.InferenceSession(path).get_outputs()) == 2


def error_map_of(reduction: int) -> ErrorMap:
    """An estimator whose end is drawn anew; with 2 of coarser images than the tiny network."""
    settings = ErrorEstimatorConfig((4, 4), reduction=reduction)
    estimator = settings.build(4, 3).eval()
    torch.nn.init.normal_(estimator.last.weight, std=0.5)
    calibration = Calibration(9, True, 1.5, {"0.1": 3.0, "0.2": None}, 0.0, {})
    return ErrorMap(settings, estimator, calibration)


@pytest.mark.parametrize("reduction", [1, 2])
def test_expected_error_is_a_further_output(tiny, reduction, tmp_path):
    error_map = error_map_of(reduction)
    path, task = tmp_path / "task.onnx", Task((2, 0), 1)
    export_onnx(path, tiny, task, NAMES, with_tsem=True, error_map=error_map)
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["image", "tsem", "error"]
    images = random_images(2, 24, 40)
    image, _, error = session.run(None, {"images": images[:, task.sources].numpy()})
    with torch.no_grad():
        wanted = 1.5 * error_map.estimator(images, torch.from_numpy(image), task).exp()
    np.testing.assert_allclose(error, wanted.numpy(), rtol=1e-4, atol=1e-4)
    assert error.shape == (2, 24, 40)
    assert error.std() > 0.01
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["size_multiple"] == str(2 * reduction)  # the network's own is 2
    assert facts["error_calibration"] == "9 subjects"
    assert facts["error_band_0.1"].startswith("2 (all but 0.1 of a brain")  # 3 / 1.5
    assert "error_band_0.2" not in facts


def test_error_map_of_an_adapted_network(tiny, tmp_path):
    adaptation = Adaptation((), {"t1:flair": halved(2)}, {})
    with pytest.raises(UserError, match="its error map is of the network's own output"):
        export_onnx(
            tmp_path / "x.onnx",
            *(tiny, Task((0,), 3), NAMES),
            adaptation=adaptation,
            error_map=error_map_of(2),
        )


def test_stage_1(reference_model, tmp_path):
    network, task = reference_model.seq2seq.eval(), Task((2,), 0)
    export_onnx(tmp_path / "task.onnx", network, task, NAMES)
    check(tmp_path / "task.onnx", network, task)


def test_unet(tiny_dataset, tmp_path):
    """Sources in any order; untrained it gives nothing but background, so its end is drawn anew."""
    (tmp_path / "unet.yaml").write_text(tiny_yaml(TINY_UNET, tiny_dataset, tmp_path))
    network = build_network(load_config(tmp_path / "unet.yaml")).eval()
    torch.nn.init.normal_(network.last.weight, std=0.05)
    for name, task in (("one", Task((2,), 0)), ("two", Task((3, 1), 0))):
        export_onnx(tmp_path / f"{name}.onnx", network, task, NAMES)
        check(tmp_path / f"{name}.onnx", network, task)
    with pytest.raises(UserError, match="a UNet has no TSEM"):
        export_onnx(tmp_path / "x.onnx", network, task, NAMES, with_tsem=True)


def test_network_that_keeps_the_size(tiny_config, tmp_path):
    changes = ["encoder_channels=[16]", "encoder_kernels=[5]", "encoder_strides=[1]"]
    changes += ["decoder_channels=[3]", "decoder_kernels=[5]"]
    config = load_config(tiny_config, [f"network.{change}" for change in changes])
    network = build_network(config).eval()
    export_onnx(tmp_path / "task.onnx", network, Task((1,), 2), NAMES)
    session = onnxruntime.InferenceSession(tmp_path / "task.onnx")
    images = random_images(1, 17, 23)  # any size
    (actual,) = session.run(None, {"images": images[:, [1]].numpy()})
    wanted = wanted_outputs(network, images, Task((1,), 2))[0]
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4)


@pytest.fixture
def checkpoints(tiny_stage1, tiny_config, tmp_path) -> dict[int, Path]:
    """Untrained networks of both stages."""
    paths = {}
    statistics = TrainingStatistics({"t1": 1234.5, "flair": 800.0}, (1.0, 0.9375))
    for stage, path in ((1, tiny_stage1), (2, tiny_config)):
        config = load_config(path)
        paths[stage] = tmp_path / f"stage_{stage}.pth"
        save_checkpoint(paths[stage], build_network(config), config, statistics=statistics)
    return paths


def test_script(checkpoints, script, tmp_path):
    path = tmp_path / "new" / "t1.onnx"
    task = ["--sources", "flair,t2", "--target", "t1"]
    outcome = script(export_model, "-l", checkpoints[2], *task, "-o", path)
    assert (outcome.code, outcome.err) == (0, [])
    first, second = outcome.out.splitlines()
    assert first == f"{path} synthesizes t1 from flair,t2"
    sentence = "largest difference between onnxruntime and PyTorch: "
    assert float(second.removeprefix(sentence)) < 1e-4
    check(path, load_model(checkpoints[2]), Task((3, 2), 0))
    assert [entry.name for entry in path.parent.iterdir()] == ["t1.onnx"]  # one file

    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "sequences": "t1,t1ce,t2,flair",
        "sources": "flair,t2",
        "target": "t1",
        "slices": "3",
        "size_multiple": "2",
        "intensity": onnx_export.INTENSITY_RULE,
        "orientation": "axes z, y, x of a volume in LPS voxel order; slices neighbour along z",
        "software": f"tsf-seq2seq {__version__}",
        "license": "MIT for the software; the data's terms may bind the weights",
        "use": "research use only, not for clinical decisions",
        "voxel_size": "1,0.9375 (y, x in mm)",
        "target_maximum": "1234.5 (median m of t1 in the training data: "
        "intensity = (x + 1) / 2 * m)",
    }
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape] == [0, 2, 3, 0, 0]  # 0: free
    # plain convolutions: no generated kernels, and weights of four dimensions at most
    operators = {node.op_type for node in model.graph.node}
    assert "Conv" in operators
    assert not operators & {"MatMul", "Gemm", "Softmax"}
    assert max(len(tensor.dims) for tensor in model.graph.initializer) == 4
    # first_step of both ConvLSTMs: 3 · 16 of 64 channels, of the input half
    kernels = [list(tensor.dims) for tensor in model.graph.initializer]
    assert kernels.count([48, 16, 3, 3]) == 2
    assert str(REPOSITORY).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("stage", "task", "sentence"),
    [
        (2, ["t1,t3", "t2"], "sequence 't3' is unknown; the model knows t1, t1ce, t2, flair"),
        (2, ["t1", "t2 "], "sequence 't2 ' is unknown; the model knows t1, t1ce, t2, flair"),
        (2, ["t1,t1", "t2"], "sources must be named once each, not t1,t1"),
        (1, ["t1,t2", "flair"], "a Seq2Seq takes one source"),
        (1, ["t1", "t2", "--with-tsem"], "a Seq2Seq has no TSEM"),
        (2, ["t1", "t2", "--with-error-map"], "{} has no error map; train_error_map.py makes one"),
    ],
)
def test_impossible_tasks(checkpoints, script, tmp_path, stage, task, sentence):
    sources, target, *further = task
    arguments = ["--sources", sources, "--target", target, *further]
    outcome = script(export_model, "-l", checkpoints[stage], *arguments, "-o", tmp_path / "x.onnx")
    assert outcome.error.startswith(sentence.format(checkpoints[stage]))
    assert not (tmp_path / "x.onnx").exists()


def test_no_sources():
    with pytest.raises(UserError, match="not none"):
        find_task([], "t1", NAMES)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages(tiny, tmp_path, monkeypatch, missing):
    monkeypatch.setattr(onnx_export, "_installed", lambda package: package != missing)
    with pytest.raises(UserError, match="needs the packages onnx and onnxscript"):
        export_onnx(tmp_path / "x.onnx", tiny, Task((0,), 1), NAMES)


def test_files_that_grow_too_large(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 1000)
    with pytest.raises(UserError, match=r"x\.onnx would need 0\.0 GB, but an ONNX file holds 2 GB"):
        export_onnx(tmp_path / "x.onnx", tiny, Task((0,), 1), NAMES)


def test_a_file_that_differs_is_not_kept(checkpoints, script, tmp_path, monkeypatch):
    def brighter(*arguments):
        return tuple(output + 0.01 for output in task_outputs(*arguments))

    monkeypatch.setattr(onnx_export, "task_outputs", brighter)
    task = ["--sources", "t1", "--target", "t2"]
    outcome = script(export_model, "-l", checkpoints[2], *task, "-o", tmp_path / "x.onnx")
    sentence = "x.onnx was not kept: onnxruntime's outputs differ from PyTorch's by 1.0e-02, more"
    assert sentence in outcome.error
    assert not list(tmp_path.glob("*x*"))


def test_without_onnxruntime_it_is_said(checkpoints, script, tmp_path, monkeypatch):
    class Program:
        model = SimpleNamespace(metadata_props={})

        def save(self, path: Path, external_data: bool) -> None:
            path.write_text("a model")

    monkeypatch.setattr(onnx_export, "_installed", lambda package: package != "onnxruntime")
    monkeypatch.setattr(onnx_export, "_to_program", lambda _: Program())
    task = ["--sources", "t1", "--target", "t2"]
    outcome = script(export_model, "-l", checkpoints[2], *task, "-o", tmp_path / "x.onnx")
    assert outcome.out.splitlines()[1] == "onnxruntime is not installed: the file was not checked"
    assert (tmp_path / "x.onnx").read_text() == "a model"


def test_nothing_else_imports_onnx():
    code = "import sys, tsf_seq2seq.cli, tsf_seq2seq.export.onnx_file; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"onnx", "onnxscript", "onnxruntime", "onnx_ir", "safetensors"}
