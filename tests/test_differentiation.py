"""Imaging-differentiation maps: the reference's outputs, the script, label maps."""

import dataclasses
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import load_model, save_checkpoint
from tsf_seq2seq.cli.explain import map_differentiation
from tsf_seq2seq.config import Config, DataConfig, load_config
from tsf_seq2seq.data.loading import Subject, load_segmentation, load_subject
from tsf_seq2seq.data.nifti import Geometry, read_volume
from tsf_seq2seq.data.subjects import find_segmentation
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.differentiation import (
    complete_subjects,
    differentiation_maps,
    slice_to_show,
)
from tsf_seq2seq.models import build_network

SHAPE = (24, 20, 12)
GRID = Geometry(SHAPE, LPS_AFFINE)


def test_reference_outputs(reference_model, expected):
    """M_d from the authors' outputs: the mean over sources of the distance to the target."""
    window = expected["images"][:, 0, 0]  # (4, 3, 40, 32): one stack of three slices
    outputs = expected["seq2seq_out"][:, :, 0, 0, 1]  # (sources, targets, 40, 32), centre slices
    wanted = np.abs(outputs - window[np.newaxis, :, 1]).mean(axis=0)
    maps = differentiation_maps(reference_model.seq2seq, window, 8)
    assert maps.shape == (4, 1, 40, 32)
    np.testing.assert_allclose(maps[:, 0], wanted, rtol=0, atol=5e-5)


def test_slice_to_show():
    lesion = np.zeros((5, 4, 4), bool)
    assert slice_to_show(None, 5) == slice_to_show(lesion, 5) == 2
    lesion[1, :1] = lesion[3, :2] = True
    assert slice_to_show(lesion, 5) == 3


def test_choice_of_subjects():
    files = {i: Path(f"{i}.nii") for i in range(4)}
    subjects = [Subject("a", (0,), files), Subject("b", (0,), {0: files[0]})]
    assert [subject.name for subject in complete_subjects(subjects, 4)] == ["a"]
    assert [subject.name for subject in complete_subjects(subjects, 4, ["a", "a"])] == ["a"]
    with pytest.raises(UserError, match="subject c is not in the test split"):
        complete_subjects(subjects, 4, ["a", "c"])
    with pytest.raises(UserError, match="none of the 1 subjects has all 4 sequences"):
        complete_subjects(subjects, 4, ["b"])


# --- the script


@pytest.fixture
def config(tiny_stage1) -> Config:
    return load_config(tiny_stage1)


@pytest.fixture
def stage_1(config, tmp_path) -> Path:
    save_checkpoint(tmp_path / "seq2seq.pth", build_network(config), config)
    return tmp_path / "seq2seq.pth"


@pytest.fixture
def run(script):
    return partial(script, map_differentiation)


@pytest.mark.parametrize("turned", [False, True])
def test_script(run, stage_1, tiny_dataset, tmp_path, turned):
    labels = np.zeros(SHAPE, np.int16)
    labels[10:14, 8:12, 4] = 4
    affine = np.diag([-1.0, 1, 1, 1]) if turned else LPS_AFFINE  # LAS, as the MS data set has it
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i), affine)
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), labels, affine)
    outcome = run("-m", stage_1, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    network = load_model(stage_1)
    files = {i: sequence_file(tiny_dataset, 3, name) for i, name in enumerate(SEQUENCES)}
    images = load_subject(Subject("Tiny_00003", (0, 1, 2, 3), files), 12, 4).images
    wanted = differentiation_maps(network, images[..., 2:18, 4:20], 8)
    assert wanted.shape == (4, 10, 16, 16)
    for i, sequence in enumerate(SEQUENCES):
        path = tmp_path / "out" / f"Tiny_00003_{sequence}_differentiation.nii.gz"
        np.testing.assert_array_equal(nib.load(path).affine, affine)
        voxels, geometry = read_volume(path)
        volume = geometry.to_network(voxels)
        inside = volume[1:11, 2:18, 4:20]
        np.testing.assert_allclose(inside, wanted[i], rtol=0, atol=1e-6)
        assert inside.sum() > 0
        outside = volume.copy()
        outside[1:11, 2:18, 4:20] = 0
        assert (outside == 0).all()
    figure = tmp_path / "out" / "Tiny_00003_differentiation"
    assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert figure.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_incomplete_subjects_are_left_out(run, stage_1, tiny_dataset, tmp_path):
    (tiny_dataset / "test.csv").write_text("Tiny_00002,1\nTiny_00003,15\n")
    sequence_file(tiny_dataset, 2, "t1").unlink()
    outcome = run("-l", stage_1, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "1 subjects without all sequences" in outcome.out
    assert {path.name[:10] for path in (tmp_path / "out").iterdir()} == {"Tiny_00003"}
    error = run("-l", stage_1, "-o", tmp_path / "out", "--subjects", "Tiny_00002").error
    assert error == "none of the 1 subjects has all 4 sequences on disk"


def test_a_label_map_on_another_grid(run, stage_1, tiny_dataset, tmp_path):
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), np.ones((24, 20, 11), np.int16))
    error = run("-m", stage_1, "-o", tmp_path / "out").error
    assert error.startswith("subject Tiny_00003: ")
    assert "_seg.nii.gz has shape (24, 20, 11)" in error


@pytest.mark.parametrize("number", ["0", "-3"])
def test_numbers_below_one(run, stage_1, tmp_path, number):
    outcome = run("-m", stage_1, "-o", tmp_path / "out", "--max-subjects", number)
    assert outcome.code == 2
    message = f"argument --max-subjects: invalid whole number from 1 value: '{number}'"
    assert outcome.err[-1].endswith(message)


# --- label maps


def test_find_segmentation(tiny_dataset):
    data = DataConfig(root=tiny_dataset)
    assert find_segmentation(data, "Tiny_00000") is None
    path = save_nifti(sequence_file(tiny_dataset, 0, "seg"), np.zeros(SHAPE, np.int16))
    assert find_segmentation(data, "Tiny_00000") == path
    none = dataclasses.replace(data, segmentation=())
    assert find_segmentation(none, "Tiny_00000") is None


def test_segmentation_patterns_of_yaml(tiny_config):
    assert load_config(tiny_config, ["data.segmentation=[]"]).data.segmentation == ()
    data = load_config(tiny_config, ["data.segmentation='{name}/labels.nii'"]).data
    assert data.segmentation == ("{name}/labels.nii",)


def test_labels_come_in_lps_order(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 5, 7] = 4
    path = save_nifti(tmp_path / "seg.nii.gz", labels)
    loaded = load_segmentation(path, GRID)
    assert loaded.shape == (12, 20, 24)
    assert loaded[7, 5, 3] == 4
    assert np.issubdtype(loaded.dtype, np.integer)
    flipped = LPS_AFFINE.copy()
    flipped[0] = (1, 0, 0, -23)  # the same grid, x to the right
    save_nifti(path, labels[::-1], flipped)
    np.testing.assert_array_equal(load_segmentation(path, GRID), loaded)


def test_labels_that_are_refused(tmp_path):
    shifted = LPS_AFFINE.copy()
    shifted[2, 3] = 2
    path = save_nifti(tmp_path / "seg.nii.gz", np.zeros(SHAPE, np.uint8), shifted)
    with pytest.raises(UserError, match=r"seg\.nii\.gz and the subject's sequences .* 2 mm apart"):
        load_segmentation(path, GRID)
    save_nifti(path, np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(UserError, match=r"is no label map: it holds the value 0\.5"):
        load_segmentation(path, GRID)
    save_nifti(path, np.full(SHAPE, 70000, np.int32))
    with pytest.raises(UserError, match="it holds the value 70000"):
        load_segmentation(path, GRID)
