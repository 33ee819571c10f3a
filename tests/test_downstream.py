"""Segmentation with a synthesized sequence: regions and distances by hand, the script."""

import csv

import numpy as np
import pytest
import torch
from conftest import blob, save_nifti, sequence_file

from tsf_seq2seq.cli.downstream import evaluate_downstream
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.evaluation import downstream, segmentation
from tsf_seq2seq.evaluation.downstream import SegmentationScore, paired_table_of
from tsf_seq2seq.evaluation.segmentation import new_segmenter, region_masks, segment


def test_regions_of_both_label_conventions():
    """1 necrosis, 2 oedema, 3 (2023) and 4 (2021) enhancing tumour."""
    whole, core, enhancing = region_masks(np.array([0, 1, 2, 3, 4]))
    assert whole.tolist() == [False, True, True, True, True]
    assert core.tolist() == [False, True, False, True, True]
    assert enhancing.tolist() == [False, False, False, True, True]


def test_dice_and_distance_by_hand():
    """Two cubes of 2 voxels a side, one voxel of 3 mm apart along z: half of either overlaps."""
    spacing = (3.0, 1.0, 1.0)
    one, other = np.zeros((2, 8, 8, 8), bool)
    one[2:4, 2:4, 2:4] = True
    other[3:5, 2:4, 2:4] = True
    dice, distance = downstream._compared(one, other, spacing)
    assert dice == 0.5
    assert distance == pytest.approx(3)
    nothing = np.zeros_like(one)
    assert downstream._compared(nothing, nothing, spacing) == (1, 0)
    diagonal = np.sqrt(24**2 + 8**2 + 8**2)
    for pair in ((one, nothing), (nothing, one)):
        assert downstream._compared(*pair, spacing) == pytest.approx((0, diagonal))


def test_sizes_that_16_does_not_divide():
    images = np.random.default_rng(0).uniform(-1, 1, (4, 7, 13, 18)).astype(np.float32)
    network = new_segmenter(4, 3).eval()
    found = segment(network, images, 3, 2)
    assert found.shape == (3, 5, 13, 18)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, segment(network, images, 3, 5))


def test_paired_differences_by_hand():
    """tsf is 0.1 above nothing in one subject's two missing sequences, 0.3 in the other's."""
    rows = []
    for name, more in (("a", 0.1), ("b", 0.3)):
        for target in ("t1", "t2"):
            for region in segmentation.REGIONS:
                for method, dice in (("real", 0.9), ("left out", 0.5), ("tsf", 0.5 + more)):
                    rows.append(SegmentationScore(name, target, method, region, dice, 1.0))
    cells = {(row[0], row[2]): row for row in paired_table_of(rows, ["tsf"]).rows}
    assert len(cells) == 3 * 2
    shown = cells["whole tumour", "left out"]
    assert shown[3] == 2
    assert shown[4].startswith("+0.200 ")
    assert shown[5] == "100%"
    assert cells["whole tumour", "real"][4].startswith("-0.200 ")


@pytest.fixture
def labelled(tiny_dataset):
    """A lesion in every subject: two cubes, one in the other."""
    labels = np.zeros(blob(0).shape, np.int16)
    labels[8:16, 8:16, 3:9] = 2
    labels[10:14, 10:14, 4:8] = 4
    for number in range(4):
        save_nifti(sequence_file(tiny_dataset, number, "seg"), labels)
    return tiny_dataset


@pytest.fixture
def run(script, checkpoint, tmp_path):
    options = ("-l", checkpoint, "--names", "tsf", "-o", tmp_path / "out", "--steps", 3)
    return lambda *more: script(evaluate_downstream, *options, *more)


def test_script(run, labelled, tmp_path):
    """Every sequence of the test subject in turn; what is done isn't trained again."""
    outcome = run()
    assert outcome.code == 0, outcome.err
    with (tmp_path / "out/downstream.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    methods = ["real", "left out", "tsf", "mean_image"]
    assert [row["method"] for row in rows[::3]] == 4 * methods
    assert [row["target"] for row in rows[::12]] == ["t1", "t1ce", "t2", "flair"]
    assert [row["region"] for row in rows[:3]] == list(segmentation.REGIONS)
    real = [row for row in rows if row["method"] == "real"]
    assert len({row["dice"] for row in real if row["region"] == "whole tumour"}) == 1
    assert "Paired differences in Dice" in outcome.out
    first = torch.load(tmp_path / "out/segmenter.pth", weights_only=True)
    time = (tmp_path / "out/segmenter.pth").stat().st_mtime_ns
    assert run().code == 0
    assert (tmp_path / "out/segmenter.pth").stat().st_mtime_ns == time
    assert run("--seed", 1).code == 0
    other = torch.load(tmp_path / "out/segmenter.pth", weights_only=True)
    pairs = zip(first["weights"].values(), other["weights"].values(), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)


def test_the_segmenter_learns(labelled, tiny_config, tmp_path):
    """A lesion that every sequence shows is found after some steps."""
    for number in range(4):
        for index, name in enumerate(("t1", "t1ce", "t2", "flair")):
            voxels = blob(10 * number + index).astype(np.int16)
            voxels[8:16, 8:16, 3:9] = 2 * voxels.max()
            save_nifti(sequence_file(labelled, number, name), voxels)
    config = load_config(tiny_config)
    training = find_subjects(config.data, config.data.train)
    shared = config, training, tmp_path / "one.pth"
    network = segmentation.train_segmenter(*shared, 60, 4, 0, torch.device("cpu"))
    subject = find_subjects(config.data, config.data.test)[0]
    rows = downstream.segmentation_scores(network, config, subject, [], 4)
    (real,) = {row.dice for row in rows if (row.method, row.region) == ("real", "whole tumour")}
    assert real > 0.6


def test_mistakes(run, script, tiny_dataset, checkpoint, monkeypatch, tmp_path):
    assert "no subject has all 4 sequences and a label map" in run().error
    twice = ("-l", checkpoint, checkpoint, "--names", "a", "a", "-o", tmp_path / "out")
    error = script(evaluate_downstream, *twice).error
    assert error == "two methods would be called a: name the checkpoints by --names"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run().error == 'segmentation needs MONAI: pip install "monai>=1.4"'
