"""Tumour-aware metrics: by hand, the challenge's SSIM against torchmetrics, the script."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, SEQUENCES, blob, save_nifti, sequence_file
from torchmetrics.functional.image import structural_similarity_index_measure

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.trust import evaluate_tumour
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.evaluation.brasyn import brasyn_ssim, gaussian_ssim, scaled
from tsf_seq2seq.evaluation.metrics import ssim
from tsf_seq2seq.evaluation.regions import tumour_regions
from tsf_seq2seq.evaluation.tumour import region_psnr, slice_difference, ssim_map
from tsf_seq2seq.models import build_network
from tsf_seq2seq.synthesis.windows import load_window


def torchmetrics_ssim(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (torch.from_numpy(own)[None, None] for own in (a, b))
    return float(structural_similarity_index_measure(first, second))


# --- regions


@pytest.mark.parametrize("enhancing", [3, 4])
def test_regions(enhancing):
    """BraTS 2023's and 2021's label of enhancing tumour."""
    brain = np.ones((2, 3, 4), bool)
    brain[0] = False
    labels = np.zeros(brain.shape, int)
    labels[1, 0] = [1, 2, enhancing, 0]
    regions = tumour_regions(brain, labels)
    sizes = {name: int(mask.sum()) for name, mask in regions.items()}
    assert sizes == {"brain": 12, "whole_tumour": 3, "enhancing_tumour": 1, "healthy": 9}
    assert regions["enhancing_tumour"][1, 0, 2]
    lesion = tumour_regions(brain, (labels > 0).astype(int))
    assert list(lesion) == ["brain", "whole_tumour", "healthy"]
    assert list(tumour_regions(brain, None)) == ["brain"]


# --- metrics


def test_region_psnr():
    """Errors of 0.2 inside: 10·log10(4 / 0.04) = 20 dB, whatever is outside."""
    target = np.zeros((2, 2, 2))
    synthesis = np.full((2, 2, 2), 1.0)
    mask = np.zeros((2, 2, 2), bool)
    mask[0] = True
    synthesis[mask] = 0.2
    assert region_psnr(target, synthesis, mask) == pytest.approx(20)
    assert region_psnr(target, target, mask) == float("inf")


def test_ssim_map():
    """Its mean over the volume without scikit-image's margin of 3 voxels is the paper's SSIM."""
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 9, 10, 11))
    inner = ssim_map(a, b)[3:-3, 3:-3, 3:-3]
    assert inner.mean() == pytest.approx(ssim(a, b))
    assert np.isnan(ssim_map(a[:6], b[:6])).all()


def test_slice_difference():
    """By hand: |1 − 0| and |3 − 1| in two columns; the third has no neighbour in the mask."""
    volume = np.zeros((3, 1, 3))
    volume[:, 0, 0] = [0, 1, 3]
    volume[:, 0, 1] = [0, 1, 3]
    volume[:, 0, 2] = [0, 9, 0]
    mask = np.ones(volume.shape, bool)
    mask[1, 0, 2] = False
    assert slice_difference(volume, mask) == pytest.approx((1 + 2) / 2)
    assert np.isnan(slice_difference(volume[:1], mask[:1]))


def test_scaled():
    """Of 0 to 200 the 0.5 and 99.5 percentiles are 1 and 199."""
    volume = np.arange(201.0).reshape(3, 67, 1)
    values = scaled(volume).ravel()
    assert values[1] == values[0] == 0
    assert values[199] == values[200] == 1
    assert values[100] == pytest.approx(0.5)
    assert (scaled(np.ones((3, 3, 3))) == 0).all()


@pytest.mark.parametrize("shape", [(16, 17, 19), (12, 40, 33)])
def test_gaussian_ssim_is_torchmetrics(shape):
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 1, shape)
    b = np.clip(a + rng.normal(0, 0.2, shape), 0, 0.8)
    assert gaussian_ssim(a, b) == pytest.approx(torchmetrics_ssim(a, b), abs=1e-9)
    assert gaussian_ssim(a, a) == pytest.approx(1)


def test_ssim_of_a_small_mask_is_that_of_the_whole_volume():
    """Only the surroundings of the mask are filtered; torchmetrics looks at the whole volume."""
    rng = np.random.default_rng(1)
    target, synthesis = rng.uniform(-1, 1, (2, 40, 42, 44))
    for corner in ((3, 4, 5), (20, 20, 20), (36, 38, 40)):
        mask = np.zeros(target.shape, bool)
        mask[tuple(slice(start, start + 4) for start in corner)] = True
        wanted = torchmetrics_ssim(scaled(synthesis) * mask, scaled(target) * mask)
        assert brasyn_ssim(target, synthesis, mask) == pytest.approx(wanted, abs=1e-9)
        assert 0.9 < wanted < 1
        rest = torchmetrics_ssim(scaled(synthesis) * ~mask, scaled(target) * ~mask)
        assert brasyn_ssim(target, synthesis, ~mask) == pytest.approx(rest, abs=1e-9)
    assert np.isnan(brasyn_ssim(target, target, np.zeros(target.shape, bool)))


# --- the script


@pytest.fixture
def run(script):
    return partial(script, evaluate_tumour)


@pytest.fixture
def evaluation(script, tiny_config, tmp_path) -> Path:
    """Folder of a tiny evaluation: subject 3's t1ce and flair, from t1 and t2."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    folder = tmp_path / "evaluation"
    outcome = script(evaluate_tsf_seq2seq, "-l", tmp_path / "tsf.pth", "-o", folder)
    assert outcome.code == 0, outcome.err
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "tumour.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("turned", [False, True])
def test_script(run, script, tiny_config, tiny_dataset, tmp_path, turned):
    affine = np.diag([-1.0, 1, 1, 1]) if turned else LPS_AFFINE
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i), affine)
    labels = np.zeros((24, 20, 12), np.int16)
    labels[10:14, 6:12, 4:7] = 2
    labels[11, 8, 5] = 3
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), labels, affine)
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    folder = tmp_path / "evaluation"
    assert script(evaluate_tsf_seq2seq, "-l", tmp_path / "tsf.pth", "-o", folder).code == 0
    outcome = run(folder, "-l", tmp_path / "tsf.pth")
    assert outcome.code == 0, outcome.err
    rows = rows_of(folder)
    assert [(r["target"], r["region"]) for r in rows] == [
        (target, region)
        for target in ("t1ce", "flair")
        for region in ("brain", "whole_tumour", "enhancing_tumour", "healthy")
    ]
    loaded = load_window(config, find_subjects(config.data, config.data.test)[0])
    voxels, geometry = read_volume(folder / "predict" / "Tiny_00003_flair_from_t1+t2.nii.gz")
    whole = geometry.to_network(voxels)
    synthesis = whole[1:11, 2:18, 4:20]
    target = loaded.centres[3]
    tumour = geometry.to_network(labels)
    inner = tumour[1:11, 2:18, 4:20]
    row = next(r for r in rows if (r["target"], r["region"]) == ("flair", "whole_tumour"))
    assert (row["name"], row["sources"], row["method"]) == ("Tiny_00003", "t1+t2", "tsf")
    assert int(row["voxels"]) == (inner > 0).sum() == 72
    assert float(row["psnr"]) == pytest.approx(region_psnr(target, synthesis, inner > 0), rel=1e-5)
    error = np.abs(target - synthesis)[inner > 0].mean()
    assert float(row["mae"]) == pytest.approx(error, rel=1e-5)
    real = np.full(whole.shape, -1.0)
    real[1:11, 2:18, 4:20] = target
    for region, mask in (("whole_tumour", tumour > 0), ("healthy", tumour == 0)):
        row = next(r for r in rows if (r["target"], r["region"]) == ("flair", region))
        wanted = torchmetrics_ssim(scaled(whole) * mask, scaled(real) * mask)
        assert float(row["brasyn_ssim"]) == pytest.approx(wanted, abs=1e-6)
    assert "| 2      | enhancing tumour | 1        | 2       |" in outcome.out
    assert (folder / "tumour.md").read_text().startswith("# Tumour and healthy tissue\n")


def test_without_labels(run, evaluation, tiny_config, tmp_path):
    outcome = run(evaluation, "-c", tiny_config, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "out")
    assert [row["region"] for row in rows] == ["brain", "brain"]
    assert {row["brasyn_ssim"] for row in rows} == {"nan"}
    assert "no subject has a label map" in outcome.out


def test_mistakes(run, evaluation, tiny_config, tiny_dataset, tmp_path):
    assert run(evaluation).error == "the data set's settings are needed: give -c or -l"
    error = run(tmp_path, "-c", tiny_config).error
    assert error.startswith(f"{tmp_path} is no folder of an evaluation")
    (tiny_dataset / "test.csv").write_text("Tiny_00002,10\n")
    error = run(evaluation, "-c", tiny_config).error
    assert f"{evaluation} has no predictions of the subjects in {tiny_dataset}" in error
    (tiny_dataset / "test.csv").write_text("Tiny_00003,10\n")
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i, (24, 20, 14)))
    error = run(evaluation, "-c", tiny_config).error
    assert error.endswith("has shape (24, 20, 12), but its subject (24, 20, 14)")
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i))
    path = evaluation / "predict" / "Tiny_00003_t1ce_from_t1+t2.nii.gz"
    before = path.read_bytes()
    voxels, _ = read_volume(path)
    save_nifti(path, voxels.astype(np.float32), LPS_AFFINE)
    error = run(evaluation, "-c", tiny_config).error
    assert error == f"subject Tiny_00003: {path} is not as it was evaluated: evaluate it again"
    moved = LPS_AFFINE.copy()
    moved[0, 3] = 5
    save_nifti(path, voxels.astype(np.float32), moved)
    error = run(evaluation, "-c", tiny_config).error
    assert error.startswith(f"the affines of {path} and subject Tiny_00003 place the same voxel")
    path.write_bytes(before)
    save_nifti(sequence_file(tiny_dataset, 3, "t1"), blob(99))
    error = run(evaluation, "-c", tiny_config).error
    assert error == "subject Tiny_00003: t1 is not as it was evaluated: evaluate it again"
    files = {s: f"'{{name}}/{{name}}_{s}.nii.gz'" for s in SEQUENCES}
    patterns = ", ".join(f"{s.replace('t1ce', 'gd')}: {file}" for s, file in files.items())
    options = ("-c", tiny_config, "--set")
    error = run(evaluation, *options, f"data.sequences={{{patterns}}}").error
    metrics = evaluation / "metrics.csv"
    assert error.startswith(f"{metrics}: subject Tiny_00003 has scores of sequence t1ce, which is")
    for path in (evaluation / "predict").iterdir():
        path.unlink()
    error = run(evaluation, "-c", tiny_config).error
    assert error == f"{evaluation} has no predictions: evaluate without --no-predictions"
    (evaluation / "evaluation.json").write_text(json.dumps({"methods": []}))
    assert "is no folder of an evaluation" in run(evaluation, "-c", tiny_config).error
