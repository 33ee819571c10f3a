"""A scan that doesn't tell how it lies, or tells it twice, is never taken without a word."""

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, SEQUENCES, blob, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import open_model
from tsf_seq2seq.cli.data import check_dataset
from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_seq2seq
from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data import loading
from tsf_seq2seq.data.loading import load_segmentation, load_subject, positive_maximum
from tsf_seq2seq.data.nifti import UNKNOWN_ORIENTATION, read_volume
from tsf_seq2seq.data.prepare import STORED, fill_store
from tsf_seq2seq.data.store import VolumeStore
from tsf_seq2seq.data.subjects import find_subject, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation import impute

UNKNOWN = "does not tell its orientation: sform_code and qform_code are 0"


def make_unknown(*paths):
    """Save the files anew with both codes 0, which nibabel reads with an affine of its own."""
    for path in paths:
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None)
        nib.save(image, path)
        header = nib.load(path).header
        assert (header["sform_code"], header["qform_code"]) == (0, 0)


def unknown_image(voxels: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(nib.Nifti1Image(voxels, None).to_bytes())


def guessed_affine() -> np.ndarray:
    """What nibabel makes up for a blob without codes."""
    return nib.Nifti1Image(blob(0), None).header.get_base_affine()


def files_of(root, number):
    return [sequence_file(root, number, sequence) for sequence in SEQUENCES]


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(loading, "_TOLD", set())


def test_training_and_evaluation_say_it_once(script, tiny_stage1, stage_2, tiny_dataset, tmp_path):
    make_unknown(*(file for number in (0, 1, 3) for file in files_of(tiny_dataset, number)))
    trained = script(train_seq2seq, "-c", tiny_stage1, "-o", tmp_path / "run")
    assert trained.code == 0, trained.err
    (warning,) = [line for line in trained.err if line.startswith("warning:")]
    told = "warning: an image of subject Tiny_0000%s "
    told += f"{UNKNOWN_ORIENTATION}; check_dataset.py lists all such"
    assert warning == told % 0
    loading._TOLD.clear()  # another process
    outcome = script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    (warning,) = [line for line in outcome.err if line.startswith("warning:")]
    assert warning == told % 3


def test_a_store_remembers_it(tiny_dataset, tmp_path, capsys):
    make_unknown(*files_of(tiny_dataset, 0))
    data = DataConfig(root=tiny_dataset, store=tmp_path / "store")
    masks = {"Tiny_00000": 15, "Tiny_00001": 15}
    assert dict(fill_store(data, masks, tmp_path / "store")) == dict.fromkeys(masks, STORED)
    for name in SEQUENCES:
        sequence_file(tiny_dataset, 0, name).unlink()
    found = find_subjects(data, tiny_dataset / "train.csv")
    assert capsys.readouterr().err.startswith(f"warning: an image of subject Tiny_00000 {UNKNOWN}")
    assert load_subject(found[0], 12, 4).geometry.doubt == UNKNOWN_ORIENTATION
    assert load_subject(found[1], 12, 4).geometry.doubt is None
    assert VolumeStore(tmp_path / "store").entry("Tiny_00001").doubt is None


def test_no_word_where_all_is_known(tiny_dataset, capsys):
    for subject in find_subjects(DataConfig(root=tiny_dataset), tiny_dataset / "train.csv"):
        load_subject(subject, 12, 4)
    assert capsys.readouterr() == ("", "")


def test_one_subjects_files_known_and_unknown_are_refused(tiny_dataset):
    """Even where the affine that nibabel makes up is that of the others."""
    data = DataConfig(root=tiny_dataset)
    guess = guessed_affine()
    for number, path in enumerate(files_of(tiny_dataset, 0)):
        nib.save(nib.Nifti1Image(blob(number), guess), path)
    load_subject(find_subject(data, "Tiny_00000", 15), 12, 4)
    make_unknown(sequence_file(tiny_dataset, 0, "t2"))
    wanted = rf"subject Tiny_00000: Tiny_00000_t2\.nii\.gz {UNKNOWN}, .*_t1\.nii\.gz tells its own"
    with pytest.raises(UserError, match=wanted):
        load_subject(find_subject(data, "Tiny_00000", 15), 12, 4)


def test_a_label_map_of_unknown_orientation_is_refused(tiny_dataset):
    path = sequence_file(tiny_dataset, 0, "seg")
    guess = guessed_affine()
    nib.save(nib.Nifti1Image((blob(0) > 500).astype(np.uint8), guess), path)
    geometry = read_volume(path)[1]
    make_unknown(path)
    with pytest.raises(UserError, match=UNKNOWN):
        load_segmentation(path, geometry)


def test_check_dataset_lists_it(script, tiny_dataset):
    make_unknown(*files_of(tiny_dataset, 0), sequence_file(tiny_dataset, 1, "t2"))
    outcome = script(check_dataset, "-r", tiny_dataset)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    for file in files_of(tiny_dataset, 0):
        assert any(line.startswith(f"Tiny_00000: {file} {UNKNOWN}") for line in lines)
    assert any("Tiny_00001_t1.nii.gz tells its own" in line for line in lines)
    assert "4, 2 with defects" in outcome.out


def test_imputation_warns_in_its_line_and_sidecar(script, stage_2, tiny_dataset, tmp_path):
    folder = tiny_dataset / "Tiny_00000"
    sequence_file(tiny_dataset, 0, "flair").unlink()
    make_unknown(*folder.iterdir())
    outcome = script(impute_sequences, folder, "-l", stage_2, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert f"warning: t1 ({folder / 'Tiny_00000_t1.nii.gz'}) {UNKNOWN}" in outcome.out
    found = impute(
        {name: folder / f"Tiny_00000_{name}.nii.gz" for name in SEQUENCES[:3]}, stage_2, "flair"
    )
    assert [text.partition(" (")[0] for text in found.warnings] == ["t1", "t1ce", "t2"]
    assert all(UNKNOWN in text for text in found.warnings)
    assert (found.image.header["sform_code"], found.image.header["qform_code"]) == (0, 0)


@pytest.mark.parametrize("resample", [False, True])
def test_imputation_refuses_known_beside_unknown(stage_2, resample):
    guess = guessed_affine()
    given = {"t1": nib.Nifti1Image(blob(0), guess), "t2": unknown_image(blob(2))}
    with pytest.raises(UserError, match=f"the t2 image {UNKNOWN}"):
        impute(given, open_model(stage_2), "flair", resample=resample)


def test_what_is_unknown_is_not_resampled(stage_2):
    given = {"t1": unknown_image(blob(0)), "t2": unknown_image(blob(2, (20, 20, 12)))}
    with pytest.raises(UserError, match=f"the t2 image {UNKNOWN}.*can't be resampled"):
        impute(given, stage_2, "flair", resample=True)


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e-31])
def test_intensities_that_float32_cannot_hold(factor):
    volume = blob(0) / blob(0).max() * factor
    with pytest.raises(UserError, match=r"t1\.nii holds intensities up to .* 1e-30 to 1e\+30"):
        positive_maximum(volume, "t1.nii")
    assert positive_maximum(volume * (1e-29 / factor), "t1.nii") > 1e-30


def test_the_affine_of_a_known_file_is_its_own(tiny_dataset):
    path = sequence_file(tiny_dataset, 0, "t1")
    np.testing.assert_array_equal(read_volume(path)[1].affine, LPS_AFFINE)
