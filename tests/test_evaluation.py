"""Evaluation end to end: the reference's predictions and metrics, tables."""

import csv
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REFERENCE, REPOSITORY, SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.backbones import find_weights
from tsf_seq2seq.checkpoints.checkpoint import load_model, save_checkpoint
from tsf_seq2seq.checkpoints.published import load_published
from tsf_seq2seq.cli.evaluate import evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation import protocol
from tsf_seq2seq.evaluation.metrics import psnr, ssim
from tsf_seq2seq.evaluation.protocol import complete_tasks
from tsf_seq2seq.evaluation.scores import (
    Score,
    by_inputs,
    by_task,
    read_scores,
    score_table,
    summaries,
)
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task

MODEL = REFERENCE / "model"
LOADER = REFERENCE / "loader"
DATA = [
    *("--set", f"data.root={LOADER / 'images'}", "--set", f"data.test={LOADER / 'test.csv'}"),
    *("--set", "data.crop=[40, 36]"),
]
OUR_KEYS = """
network: {name: tsf_seq2seq, sequence_code: 12, kernels: 4, encoder_channels: [8, 16, 32],
  encoder_kernels: [7, 3, 3], encoder_strides: [1, 2, 2], encoder_residual_blocks: 2,
  lstm_channels: 32, lstm_layers: 3,
  decoder_channels: [16, 8, 3], decoder_kernels: [3, 3, 7], decoder_residual_blocks: 2,
  attention_channels: [32], attention_kernels: [3], attention_mixed: 3, attention_norm: none}
"""


def rows_of(output: Path) -> list[dict[str, str]]:
    with open(output / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def cells_of(table: str) -> list[list[str]]:
    """Rows of the first Markdown table in a text, without its headings."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def check_reference_metrics(output: Path) -> None:
    wanted = np.load(REFERENCE / "evaluation" / "expected.npz")["metrics_1"]
    (row,) = rows_of(output)
    assert row["name"] == "BraTS2021_00000"
    assert (row["sources"], row["target"], row["method"]) == ("t1+t2+flair", "t1ce", "tsf")
    values = [float(row[metric]) for metric in ("psnr", "ssim", "lpips")]
    measured = 3 if find_weights("alexnet") else 2
    np.testing.assert_allclose(values[:measured], wanted[:measured], rtol=1e-4)
    assert measured == 3 or np.isnan(values[2])
    np.testing.assert_allclose(float(row["lpips_per_slice"]), values[2] / 126, rtol=1e-6)


# --- against the authors' implementation


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """Checkpoint that src/convert/import_published.py makes of the reference model."""
    path = tmp_path_factory.mktemp("imported") / "imported.pth"
    script = [sys.executable, REPOSITORY / "src" / "convert" / "import_published.py"]
    files = ["-c", MODEL / "config.yaml", "-m", MODEL / "seq2seq.pth", "-l", MODEL / "tsf.pth"]
    done = subprocess.run([*script, *files, "-o", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "holds the imported TSFSeq2Seq" in done.stdout
    return path


def test_reference_evaluation(imported, script, tmp_path):
    outcome = script(evaluate_tsf_seq2seq, "-l", imported, "-o", tmp_path, *DATA)
    assert outcome.code == 0
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "name,sources,target,method,psnr,ssim,lpips,lpips_per_slice"
    check_reference_metrics(tmp_path)
    assert (tmp_path / "examples.png").read_bytes().startswith(b"\x89PNG")
    (path,) = (tmp_path / "predict").iterdir()
    assert path.name == "BraTS2021_00000_t1ce_from_t1+t2+flair.nii.gz"
    source = nib.load(LOADER / "images" / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz")
    written = nib.load(path)
    assert written.shape == source.shape == (40, 44, 141)
    np.testing.assert_array_equal(written.affine, source.affine)
    voxels, geometry = read_volume(path)
    volume = geometry.to_network(voxels)  # (z, y, x)
    inner = (slice(7, 133), slice(2, 42), slice(2, 38))
    wanted = np.load(REFERENCE / "evaluation" / "expected.npz")["prediction_1"]
    np.testing.assert_allclose(volume[inner], wanted, rtol=0, atol=5e-5)
    outside = np.ones(volume.shape, bool)
    outside[inner] = False
    assert (volume[outside] == -1).all()


def test_reference_evaluation_of_the_authors_files(script, tmp_path):
    (tmp_path / "ours.yaml").write_text(OUR_KEYS)
    files = ["-c", tmp_path / "ours.yaml", "-m", MODEL / "seq2seq.pth", "-l", MODEL / "tsf.pth"]
    files += ["--batch-size", 50, "--no-predictions"]
    outcome = script(evaluate_tsf_seq2seq, *files, "-o", tmp_path / "out", *DATA)
    assert outcome.code == 0
    check_reference_metrics(tmp_path / "out")
    assert not (tmp_path / "out" / "predict").exists()


@torch.no_grad()
def test_our_checkpoint_gives_the_same_network(imported, expected):
    ours = load_model(imported)
    theirs = load_published(MODEL / "config.yaml", MODEL / "seq2seq.pth", MODEL / "tsf.pth")
    images = torch.from_numpy(expected["images"][:, :1, 0]).transpose(0, 1)
    available = [True, False, True, True]
    assert not ours.training
    assert torch.equal(ours(images, available, 1), theirs(images, available, 1))


def test_seq2seq_alone_is_imported_too(script, tmp_path):
    (tmp_path / "ours.yaml").write_text(OUR_KEYS)
    arguments = ["-c", tmp_path / "ours.yaml", "-m", MODEL / "seq2seq.pth", "--no-predictions"]
    small = ["--set", "data.slices=9", "-o", tmp_path / "out"]
    outcome = script(evaluate_seq2seq, *arguments, *DATA, *small)
    assert outcome.code == 0
    assert {row["method"] for row in rows_of(tmp_path / "out")} == {"seq2seq"}


# --- tiny networks on the tiny data set


@pytest.fixture
def config(tiny_config) -> Config:
    return load_config(tiny_config)


@pytest.fixture
def stage_2(config, tmp_path) -> Path:
    """An untrained TSFSeq2Seq."""
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    return tmp_path / "tsf.pth"


def test_pairs_of_stage_1(tiny_stage1, script, tmp_path):
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "s.pth", build_network(config), config)
    outcome = script(evaluate_seq2seq, "-l", tmp_path / "s.pth", "-o", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    pairs = [(row["sources"], row["target"]) for row in rows]
    assert pairs == [(s, t) for s in ("t1", "t2") for t in SEQUENCES]  # mask 10 = t1 and t2
    assert {row["name"] for row in rows} == {"Tiny_00003"}
    assert [tuple(row[:4]) for row in cells_of(outcome.out)] == [
        (source, target, "seq2seq", "1") for source, target in pairs
    ]
    names = {path.name for path in (tmp_path / "out" / "predict").iterdir()}
    assert names == {f"Tiny_00003_{t}_from_{s}.nii.gz" for s, t in pairs}


def test_stage_1_evaluation_of_a_stage_2_checkpoint(stage_2, script, tmp_path):
    outcome = script(evaluate_seq2seq, "-l", stage_2, "-o", tmp_path / "out", "--no-predictions")
    assert outcome.code == 0
    assert len(rows_of(tmp_path / "out")) == 8


def test_the_papers_protocol_and_metrics(stage_2, script, tmp_path, tiny_dataset):
    script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["sources"], row["target"]) for row in rows] == [
        ("t1+t2", "t1ce"),
        ("t1+t2", "flair"),
    ]
    target, _ = read_volume(sequence_file(tiny_dataset, 3, "flair"))
    maximum = 2 * np.percentile(target, 99)
    target = (target.clip(0, maximum) / maximum * 2 - 1).transpose(2, 1, 0)
    path = tmp_path / "out" / "predict" / "Tiny_00003_flair_from_t1+t2.nii.gz"
    volume = read_volume(path)[0].transpose(2, 1, 0)
    inner = (slice(1, 11), slice(2, 18), slice(4, 20))  # 16 × 16 of 20 × 24, centres of 12 slices
    assert float(rows[1]["psnr"]) == pytest.approx(psnr(target[inner], volume[inner]), abs=1e-4)
    assert float(rows[1]["ssim"]) == pytest.approx(ssim(target[inner], volume[inner]), abs=1e-5)


def test_all_tasks_and_baselines(stage_2, script, tmp_path, config):
    methods = ("tsf", "linear_regression", "mean_image")
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--all-tasks", "--no-predictions"]
    outcome = script(evaluate_tsf_seq2seq, *arguments, "--methods", *methods)
    rows = rows_of(tmp_path / "out")
    assert [row["method"] for row in rows] == [m for m in methods for _ in range(28)]
    sizes = {"1": "12", "2": "12", "3": "4"}
    counts = [tuple(row[:3]) for row in cells_of(outcome.out.split("Paired")[0])]
    assert counts == [(size, m, pairs) for size, pairs in sizes.items() for m in methods]
    # the mean image is the mean of the two training subjects, whatever the sources
    mean = [row for row in rows if row["method"] == "mean_image" and row["target"] == "t2"]
    assert len({row["psnr"] for row in mean}) == 1


def test_limits_and_overrides(stage_2, script, tmp_path, tiny_dataset):
    (tiny_dataset / "test.csv").write_text("Tiny_00000,14\nTiny_00003,15\nTiny_00001,14\n")
    arguments = ["-l", stage_2, "--no-predictions"]
    script(evaluate_tsf_seq2seq, *arguments, "-o", tmp_path / "all")
    assert [row["name"] for row in rows_of(tmp_path / "all")] == ["Tiny_00000", "Tiny_00001"]
    script(evaluate_tsf_seq2seq, *arguments, "-o", tmp_path / "one", "--max-subjects", 1)
    assert [row["name"] for row in rows_of(tmp_path / "one")] == ["Tiny_00000"]
    outcome = script(
        *(evaluate_tsf_seq2seq, *arguments, "-o", tmp_path / "none"),
        *("--set", f"data.test={tiny_dataset / 'train.csv'}"),
    )
    assert "train.csv: no subject gives a task to evaluate" in outcome.error
    outcome = script(evaluate_tsf_seq2seq, *arguments, "-o", tmp_path, "--batch-size", 0)
    assert outcome.code == 2
    assert "argument --batch-size: invalid whole number from 1 value: '0'" in outcome.err[-1]


def test_an_interrupted_evaluation_goes_on(stage_2, script, tmp_path, tiny_dataset, monkeypatch):
    (tiny_dataset / "test.csv").write_text("Tiny_00000,14\nTiny_00003,10\n")
    arguments = [evaluate_tsf_seq2seq, "-l", stage_2, "--no-predictions"]
    script(*arguments, "-o", tmp_path / "whole")
    script(*arguments, "-o", tmp_path / "out", "--max-subjects", 1)
    read: list[str] = []

    def watched(config, subject, *more):
        read.append(subject.name)
        return load_window(config, subject, *more)

    monkeypatch.setattr(protocol, "load_window", watched)
    assert script(*arguments, "-o", tmp_path / "out").code == 0
    assert read == ["Tiny_00003"]
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("whole", "out")]
    assert metrics[0] == metrics[1]
    other = script(*arguments, "-o", tmp_path / "out", "--all-tasks")
    assert other.error.startswith(f"{tmp_path / 'out'} holds the results of another run")


def test_axes_shorter_than_the_crop(stage_2, script, tmp_path, tiny_dataset):
    for index, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(index, (24, 13, 12)))
    outcome = script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", tmp_path / "out")
    assert outcome.code == 0
    path = tmp_path / "out" / "predict" / "Tiny_00003_t1ce_from_t1+t2.nii.gz"
    voxels, geometry = read_volume(path)
    assert geometry.shape == (24, 13, 12)
    inside = np.zeros((24, 13, 12), bool)
    inside[4:20, :, 1:11] = True
    assert (voxels[~inside] == -1).all()
    assert (voxels[inside] > -1).all()


def test_too_few_slices(stage_2, script, tmp_path):
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--set", "data.slices=2"]
    outcome = script(evaluate_tsf_seq2seq, *arguments)
    assert outcome.error == "subject Tiny_00003 has 2 axial slices, but a stack needs 3"


def test_batches_do_not_matter(config):
    network = build_network(config).eval()
    stacks = np.random.default_rng(0).uniform(-1, 1, (4, 5, 3, 16, 12)).astype(np.float32)
    tasks = [Task((0,), 1), Task((0, 3), 1), Task((1, 2, 3), 0)]
    together = run_stacks(network, stacks, tasks, 5)
    apart = run_stacks(network, stacks, tasks, 2)
    images = torch.from_numpy(stacks).transpose(0, 1)
    for task in tasks:
        available = [i in task.sources for i in range(4)]
        with torch.no_grad():
            wanted = network(images, available, task.target).numpy()
        assert together[FULL, task].shape == wanted.shape == (5, 3, 16, 12)
        np.testing.assert_allclose(together[FULL, task], apart[FULL, task], atol=1e-5)
        np.testing.assert_allclose(together[FULL, task], wanted, atol=1e-5)


# --- tables


def scores() -> list[Score]:
    nothing = float("nan")
    return [
        Score("a", "t1+t2", "flair", "tsf", 30.0, 0.9, nothing, nothing),
        Score("a", "t1", "t2", "tsf", 20.0, 0.5, nothing, nothing),
        Score("b", "t1", "t2", "tsf", 24.0, 0.7, nothing, nothing),
    ]


def test_summary_by_hand():
    rows = summaries(scores(), lambda score: (score.n_inputs,))
    assert (rows[(1,)].pairs, rows[(2,)].pairs) == (2, 1)
    assert (rows[(1,)].mean["psnr"], rows[(1,)].std["psnr"]) == (22.0, 2.0)
    assert (rows[(1,)].mean["ssim"], rows[(1,)].std["ssim"]) == pytest.approx((0.6, 0.1))
    assert (rows[(2,)].mean["psnr"], rows[(2,)].std["psnr"]) == (30.0, 0.0)


@pytest.mark.filterwarnings("error")
def test_a_perfect_volume_says_nothing_on_the_screen():
    perfect = Score("c", "t1", "t2", "tsf", float("inf"), 1.0, float("nan"), float("nan"))
    rows = summaries([*scores(), perfect], lambda score: (score.n_inputs,))
    assert rows[(1,)].mean["psnr"] == float("inf")
    assert np.isnan(rows[(1,)].std["psnr"])
    assert rows[(1,)].mean["ssim"] == pytest.approx(2.2 / 3)


def test_tables_by_hand():
    table = score_table(("inputs", "method"), by_inputs(scores())).markdown()
    assert "LPIPS" not in table  # nobody measured it
    assert cells_of(table) == [
        ["1", "tsf", "2", "22.00 ± 2.00", "0.600 ± 0.100"],
        ["2", "tsf", "1", "30.00 ± 0.00", "0.900 ± 0.000"],
    ]
    assert list(by_task(scores())) == [("t1+t2", "flair", "tsf"), ("t1", "t2", "tsf")]


def test_metrics_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_scores(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("name,psnr\na,3\n")
    with pytest.raises(UserError, match=r"is not a metrics\.csv of this software"):
        read_scores(tmp_path / "metrics.csv")


def test_tasks_of_incomplete_subjects(config, tiny_dataset):
    three = Subject("x", (0,), dict.fromkeys((0, 1, 3), tiny_dataset))
    tasks = complete_tasks(three, 4)
    assert len(tasks) == 3 * 2 + 3 * 1
    assert all(2 not in (*task.sources, task.target) for task in tasks)
