"""ONNX files of an adapted checkpoint: the map is in them, the sources in any order."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import SEQUENCES
from test_onnx_export import SIZES, random_images, wanted_outputs

from tsf_seq2seq.checkpoints.checkpoint import Model, open_model, save_checkpoint
from tsf_seq2seq.cli.convert import export_model
from tsf_seq2seq.export.onnx_file import task_outputs
from tsf_seq2seq.export.task_network import TaskNetwork, TaskOutputs
from tsf_seq2seq.synthesis.adaptation import Adaptation, Reference
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, map_terms
from tsf_seq2seq.synthesis.polynomials import products
from tsf_seq2seq.tasks import Task, all_tasks


def made_map(n_sources: int, uses_output: bool = True) -> ContrastMap:
    """Coefficients that are all different, of sources in their order and the output."""
    n_terms = len(map_terms(n_sources + uses_output))
    coefficients = np.random.default_rng(n_terms).uniform(-0.4, 0.4, n_terms).tolist()
    return ContrastMap(tuple(coefficients), (0.0,) * n_terms**2, uses_output, 1.0)


MAPS = {":".join(task.label(SEQUENCES)): made_map(len(task.sources)) for task in all_tasks(4)}
REFERENCES = (Reference("sub-1", {"t1": "sha256:0"}), Reference("sub-2", {"t1": "sha256:1"}))
MADE = Adaptation(REFERENCES, MAPS, {"flair": 812.5})


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Model:
    """An untrained network, adapted."""
    plain = open_model(checkpoint)
    path = tmp_path / "adapted.pth"
    statistics = plain.statistics
    save_checkpoint(path, plain.network, plain.config, statistics=statistics, adaptation=MADE)
    return open_model(path)


def some_images(batch: int, *size: int) -> torch.Tensor:
    """(B, 4, 3, H, W); a corner is background in all sequences, another one in t1 alone."""
    images = random_images(batch, *size)
    images[..., :5, :7] = -1
    images[:, 0, :, -5:] = -1
    return images


def mapped(images: torch.Tensor, task: Task, fitted: ContrastMap, output: np.ndarray) -> np.ndarray:
    """β · φ of sources in the sequences' order and the network's output, all (B, C, H, W)."""
    sources = images[:, sorted(task.sources)].swapaxes(0, 1).double().numpy()
    variables = np.stack([*sources, *([output] if fitted.uses_output else [])])
    terms = products(variables, map_terms(len(variables)))
    image = np.tensordot(fitted.coefficients, terms, 1).clip(-1, 1)
    return np.where((sources > -1).any(axis=0), image, -1)


@pytest.mark.parametrize("task", [*all_tasks(4)[::5], Task((3, 0, 2), 1), Task((2, 1), 3)])
def test_the_folded_network_maps_its_output(model, task):
    fitted = MADE.map_of(task, SEQUENCES)
    folded = TaskNetwork(model.network, task, TaskOutputs(tsem=True, fitted=fitted))
    images = some_images(2, 12, 16)
    output, wanted_tsem = wanted_outputs(model.network, images, task)
    image, tsem = folded(images[:, task.sources])
    wanted = mapped(images, task, fitted, output)
    assert np.abs(wanted - output).max() > 0.2
    np.testing.assert_allclose(image, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(tsem, wanted_tsem, rtol=0, atol=1e-6)  # the network's own
    plain = TaskNetwork(model.network, task)(images[:, task.sources])
    np.testing.assert_allclose(plain, output, rtol=0, atol=1e-6)


def test_a_map_of_the_sources_alone(model):
    task, fitted = Task((2, 0), 3), made_map(2, uses_output=False)
    images = some_images(2, 12, 16)
    (output,) = wanted_outputs(model.network, images, task)[:1]
    image = TaskNetwork(model.network, task, TaskOutputs(fitted=fitted))(images[:, task.sources])
    np.testing.assert_allclose(image, mapped(images, task, fitted, output), rtol=0, atol=1e-5)


def test_what_files_are_checked_with(model):
    """The network with nothing folded, and numpy's map of its output."""
    task, fitted, images = Task((2, 0), 3), MAPS["t1+t2:flair"], some_images(3, 12, 16)
    image, tsem = task_outputs(
        model.network, images[:, task.sources], task, TaskOutputs(True, fitted)
    )
    output, wanted_tsem = wanted_outputs(model.network, images, task)
    np.testing.assert_allclose(image, mapped(images, task, fitted, output), rtol=0, atol=1e-5)
    np.testing.assert_allclose(tsem, wanted_tsem, rtol=0, atol=1e-6)


def test_a_file_with_map_and_tsem(model, script, tmp_path):
    """Sources in an order of their own; onnxruntime on any size; who the references were."""
    path = tmp_path / "flair.onnx"
    options = ["--sources", "t2,t1", "--target", "flair", "--with-tsem"]
    outcome = script(export_model, "-l", model.path, *options, "-o", path)
    assert (outcome.code, outcome.err) == (0, [])
    difference = float(outcome.out.split("largest difference between onnxruntime and PyTorch: ")[1])
    assert difference < 1e-4
    session, task = onnxruntime.InferenceSession(path), Task((2, 0), 3)
    for batch, *size in SIZES:
        images = some_images(batch, *size)
        image, tsem = session.run(None, {"images": images[:, task.sources].numpy()})
        output, wanted_tsem = wanted_outputs(model.network, images, task)
        wanted = mapped(images, task, MAPS["t1+t2:flair"], output)
        np.testing.assert_allclose(image, wanted, rtol=0, atol=1e-4)
        np.testing.assert_allclose(tsem, wanted_tsem, rtol=0, atol=1e-4)
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts["sources"] == "t2,t1"
    assert facts["references"] == "sub-1, sub-2"
    assert facts["target_maximum"] == (
        "812.5 (median m of flair in the references: intensity = (x + 1) / 2 * m)"
    )


@pytest.mark.parametrize(
    ("sources", "target", "told"),
    [("flair,t1", "flair", "t1+flair → flair"), ("t2", "t2", "t2 → t2")],
)
def test_tasks_without_a_map(model, script, tmp_path, sources, target, told):
    """Reconstructions have none."""
    options = ["--sources", sources, "--target", target]
    outcome = script(export_model, "-l", model.path, *options, "-o", tmp_path / "x.onnx")
    assert outcome.error == f"the checkpoint is adapted, but has no map for {told}"
    assert not (tmp_path / "x.onnx").exists()
