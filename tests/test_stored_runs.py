"""Every script that reads a data set leaves the same files with a store as without."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    SEQUENCES,
    TINY_SHAPE,
    TINY_UNET,
    blob,
    save_nifti,
    sequence_file,
    tiny_yaml,
)

from tsf_seq2seq.checkpoints.checkpoint import read_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_networks, evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.cli.explain import map_differentiation, map_tsem
from tsf_seq2seq.cli.report import make_report
from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.cli.trust import check_error_estimates, evaluate_tumour
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data import store as store_module
from tsf_seq2seq.data.prepare import STORED, fill_store
from tsf_seq2seq.data.store import StoredVolume, VolumeStore
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.training.log import read_log

NAMES = [f"Tiny_0000{i}" for i in range(4)]
LAS = np.diag([-1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def path(tiny_dataset, tmp_path) -> Path:
    """A store of all subjects, subject 3 in LAS order and with a label map."""
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i), LAS)
    labels = np.zeros(TINY_SHAPE, np.int16)
    labels[10:14, 8:12, 4] = 4
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), labels, LAS)
    path = tmp_path / "store"
    outcomes = dict(fill_store(DataConfig(root=tiny_dataset), dict.fromkeys(NAMES, 15), path))
    assert outcomes == dict.fromkeys(NAMES, STORED)
    return path


def remove_originals(root: Path, segmentations: bool) -> None:
    for file in root.glob("*/*.nii.gz"):
        if segmentations or not file.name.endswith("_seg.nii.gz"):
            file.unlink()


def left_in(folder: Path) -> dict[str, bytes]:
    """Content of every file but PDFs, which hold the time."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pdf"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


BASELINES = ("--methods", "tsf", "linear_regression", "mean_image")


@pytest.mark.parametrize(
    ("main", "options", "predictions"),
    [
        (evaluate_tsf_seq2seq, ("--max-slices", 8), 2),
        (evaluate_tsf_seq2seq, ("--all-tasks", *BASELINES), 28),
        (evaluate_seq2seq, (), 8),
    ],
)
def test_evaluation(script, stage_2, path, tiny_dataset, tmp_path, main, options, predictions):
    arguments = [main, "-l", stage_2, *options]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=True)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted = left_in(tmp_path / "files")
    assert sum(name.startswith("predict/") for name in wanted) == predictions
    assert {"metrics.csv", "evaluation.json", "table.json", "examples.png"} < set(wanted)
    assert left_in(tmp_path / "stored") == wanted


def test_an_evaluation_of_files_goes_on_from_a_store(script, stage_2, path, tiny_dataset, tmp_path):
    (tiny_dataset / "test.csv").write_text("Tiny_00000,14\nTiny_00003,10\n")
    arguments = [evaluate_tsf_seq2seq, "-l", stage_2]
    script(*arguments, "-o", tmp_path / "whole", "--no-predictions")
    script(*arguments, "-o", tmp_path / "out", "--no-predictions", "--max-subjects", 1)
    remove_originals(tiny_dataset, segmentations=True)
    stored = ("--set", f"data.store={path}")
    outcome = script(*arguments, "-o", tmp_path / "out", *stored)
    assert outcome.code == 0, outcome.err
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("whole", "out")]
    assert metrics[0] == metrics[1]
    names = {file.name[:10] for file in (tmp_path / "out" / "predict").iterdir()}
    assert names == {"Tiny_00000", "Tiny_00003"}  # subject 0 was scored without them before
    assert outcome.out.startswith("1 subject is done again")
    assert "Tiny_00000 (without predictions)\n" in outcome.out


@pytest.mark.parametrize("segmentations", ["kept", "removed"])
@pytest.mark.parametrize(
    ("main", "options"),
    [(map_tsem, ()), (map_tsem, ("--task", "flair:t1ce")), (map_differentiation, ())],
)
def test_explanations(script, stage_2, path, tiny_dataset, tmp_path, main, options, segmentations):
    if segmentations == "removed":
        sequence_file(tiny_dataset, 3, "seg").unlink()
    arguments = [main, "-l", stage_2, *options]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=False)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted = left_in(tmp_path / "files")
    maps = sum(file.endswith(".nii.gz") for file in wanted)
    assert maps == (4 if main is map_differentiation else len(options) // 2 or 2)
    assert left_in(tmp_path / "stored") == wanted


def test_label_maps_are_looked_for_beside_a_store(script, stage_2, path, tiny_dataset, tmp_path):
    arguments = [map_tsem, "-l", stage_2, "--set", f"data.store={path}"]
    figures = []
    for folder in ("with", "without"):
        assert script(*arguments, "-o", tmp_path / folder).code == 0
        figures.append((tmp_path / folder / "tsem.png").read_bytes())
        shutil.rmtree(tiny_dataset / "Tiny_00003", ignore_errors=True)
    assert figures[0] != figures[1]


def test_only_the_window_is_read(path, tiny_config, monkeypatch):
    """16 × 16 of 20 × 24, and 4 of 12 slices: two stacks of 3."""
    crops = []
    whole = StoredVolume.crop

    def crop(volume, *arguments):
        crops.append(arguments)
        return whole(volume, *arguments)

    monkeypatch.setattr(StoredVolume, "crop", crop)
    subject = VolumeStore(path).subject("Tiny_00003", 10)
    loaded = load_window(load_config(tiny_config), subject, [0, 2], max_stacks=2)
    assert crops == [([4, 2, 4], [4, 16, 16], [0, 2])]
    assert loaded.images.base is None  # of nothing larger
    assert (loaded.images[[1, 3]] == -1).all()
    assert np.isnan(loaded.volumes.maxima).tolist() == [False, True, False, True]


def test_the_index_is_read_once(script, stage_2, path, tiny_dataset, tmp_path, monkeypatch):
    read, paths = store_module.read_index, []
    monkeypatch.setattr(store_module, "read_index", lambda path: paths.append(path) or read(path))
    (tiny_dataset / "test.csv").write_text("".join(f"{name},14\n" for name in NAMES))
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--set", f"data.store={path}"]
    assert script(evaluate_tsf_seq2seq, *arguments, "--no-predictions").code == 0
    assert paths == [path]


@pytest.mark.parametrize("main", [evaluate_seq2seq, map_tsem, map_differentiation])
def test_a_subject_that_is_not_stored(script, stage_2, path, tiny_dataset, tmp_path, main):
    (tiny_dataset / "test.csv").write_text("Tiny_00003,10\nTiny_00009,10\n")
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--set", f"data.store={path}"]
    error = script(main, *arguments).error
    assert error == (
        f"subject Tiny_00009 is not in the store {path}; src/data/prepare_brats.py adds it"
    )


def test_baselines_are_fitted_on_the_store(script, stage_2, path, tiny_dataset, tmp_path):
    (tiny_dataset / "train.csv").write_text("Tiny_00008,15\n")
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--set", f"data.store={path}"]
    error = script(evaluate_tsf_seq2seq, *arguments, *BASELINES).error
    assert error.startswith(f"subject Tiny_00008 is not in the store {path}")


# --- scripts that look at what others left, comparison of networks, training


@pytest.mark.parametrize("segmentations", ["kept", "removed"])
def test_error_estimation(script, stage_2, path, tiny_dataset, tmp_path, segmentations):
    if segmentations == "removed":
        sequence_file(tiny_dataset, 3, "seg").unlink()
    arguments = [check_error_estimates, "-l", stage_2, "--tasks", "t1:t2", "t1+flair:t2"]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=False)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted = left_in(tmp_path / "files")
    assert (b",tumour," in wanted["error_estimation.csv"]) == (segmentations == "kept")
    assert left_in(tmp_path / "stored") == wanted


def test_tumours(script, stage_2, path, tiny_dataset, tmp_path):
    folder = tmp_path / "evaluation"
    assert script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", folder).code == 0
    arguments = [evaluate_tumour, folder, "-l", stage_2]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=False)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted = left_in(tmp_path / "files")
    assert b",whole_tumour," in wanted["tumour.csv"]
    assert left_in(tmp_path / "stored") == wanted


def test_report(script, stage_2, path, tiny_dataset, tmp_path):
    folder = tmp_path / "evaluation"
    assert script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", folder, "--no-predictions").code == 0
    arguments = [make_report, "-l", stage_2, "--evaluation", folder]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=False)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted, found = left_in(tmp_path / "files"), left_in(tmp_path / "stored")
    for files in (wanted, found):
        del files["index.html"]  # it tells the command
    assert sum(name.endswith("picture_tsem.png") for name in wanted) == 2
    assert found == wanted


def test_comparison_of_networks(script, stage_2, path, tiny_dataset, tmp_path):
    arguments = [evaluate_networks, "-l", stage_2, "--names", "tsf", "--all-tasks"]
    arguments += ["--ablations", "--baselines", "linear_regression", "mean_image"]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=True)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    wanted = left_in(tmp_path / "files")
    assert sum(name.startswith("predict/") for name in wanted) == 28
    assert left_in(tmp_path / "stored") == wanted


@pytest.mark.parametrize("network", ["seq2seq", "tsf_seq2seq", "unet"])
def test_training(script, stage_2, path, tiny_config, tiny_stage1, tiny_dataset, tmp_path, network):
    unet = tmp_path / "unet.yaml"
    unet.write_text(tiny_yaml(TINY_UNET, tiny_dataset, tmp_path / "run"))
    config = {"seq2seq": tiny_stage1, "tsf_seq2seq": tiny_config, "unet": unet}[network]
    arguments = [train_network, "-c", config]
    if network == "tsf_seq2seq":
        arguments += ["-m", stage_2]
    assert script(*arguments, "-o", tmp_path / "files").code == 0
    remove_originals(tiny_dataset, segmentations=True)
    outcome = script(*arguments, "-o", tmp_path / "stored", "--set", f"data.store={path}")
    assert outcome.code == 0, outcome.err
    logs, states = [], []
    for folder in ("files", "stored"):
        rows = read_log(tmp_path / folder / "log.csv")
        logs.append([row | {"seconds": ""} for row in rows])
        state = read_checkpoint(tmp_path / folder / "last.pth")
        states.append(state["weights"] | {"best": torch.tensor(state["training"]["best_psnr"])})
        assert state["statistics"]["spacing"] == [1, 1]
    assert len(logs[0]) == 8
    assert logs[1] == logs[0]
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
