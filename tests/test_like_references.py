"""Who serves as reference, and who can't: each said in a sentence that names them."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, blob, save_nifti, sequence_file
from test_like import T1_T2, files_of, images_of, maxima_of

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import Model, open_model
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation.references import References


@pytest.fixture
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


def test_the_subject_itself_is_left_out(model, tiny_dataset, tmp_path):
    """Found by the content of its files, under any name; images by being the same objects."""
    subject = files_of(tiny_dataset, 1, *T1_T2)
    others = [tiny_dataset / f"Tiny_0000{number}" for number in (0, 2, 3)]
    wanted = impute(subject, model, "flair", like=others)
    found = impute(subject, model, "flair", like=[tiny_dataset])
    assert list(found.adapted.references) == [path.name for path in others]
    np.testing.assert_array_equal(found.image.get_fdata(), wanted.image.get_fdata())
    copied = {}
    for name, path in subject.items():
        copied[name] = tmp_path / f"copy of {name}.nii.gz"
        copied[name].write_bytes(path.read_bytes())
    found = impute(copied, model, "flair", like=[tiny_dataset])
    np.testing.assert_array_equal(found.image.get_fdata(), wanted.image.get_fdata())
    own, other = images_of(1), images_of(2)
    given = {name: own[name] for name in T1_T2}
    found = impute(given, model, "flair", like=[own, other])
    assert list(found.adapted.references) == ["2"]
    with pytest.raises(UserError) as error:
        impute(given, model, "flair", like=[own])
    assert str(error.value) == (
        "no reference but the subject itself has t1, t2, flair, by which flair could be adapted: "
        "1: t1, t1ce, t2, flair"
    )


def test_a_reference_with_one_common_source_is_another_subject(model):
    """Such as a template's: only a subject all of whose sources are the same is itself."""
    own, other = images_of(1), images_of(2)
    other["t1"] = own["t1"]
    given = {name: own[name] for name in T1_T2}
    found = impute(given, model, "flair", like=[other])
    assert list(found.adapted.references) == ["1"]


def test_only_references_that_have_all_sequences_serve(model, tiny_dataset):
    sequence_file(tiny_dataset, 1, "t2").unlink()
    sequence_file(tiny_dataset, 2, "flair").unlink()
    subject = files_of(tiny_dataset, 0, *T1_T2)
    like = [tiny_dataset / f"Tiny_0000{number}" for number in (1, 2, 3)]
    found = impute(subject, model, "flair", like=like)
    assert list(found.adapted.references) == ["Tiny_00003"]
    assert found.intensity_maximum == pytest.approx(*maxima_of((3,), "flair"))
    found = impute(subject, model, "flair", ["t1"], like=like)
    assert list(found.adapted.references) == ["Tiny_00001", "Tiny_00003"]
    with pytest.raises(UserError) as error:
        impute(subject, model, "flair", like=like[:2])
    assert str(error.value) == (
        "no reference has t1, t2, flair, by which flair could be adapted: Tiny_00001: t1, t1ce, "
        "flair; Tiny_00002: t1, t1ce, t2"
    )


def test_a_reference_on_two_grids_is_named(model, tiny_dataset):
    shifted = LPS_AFFINE.copy()
    shifted[2, 3] = 2.0
    like = images_of(1) | {"flair": nib.Nifti1Image(blob(13), shifted)}
    given = files_of(tiny_dataset, 0, *T1_T2)
    with pytest.raises(UserError) as error:
        impute(given, model, "flair", like=[images_of(2), like])
    start = "reference 2: the affines of the flair image and the t1 image place the same"
    assert str(error.value).startswith(start)
    found = impute(given, model, "flair", like=[like], resample=True)
    moved = np.zeros_like(blob(13))
    moved[:, :, 2:] = blob(13)[:, :, :-2]  # 2 mm are two slices
    wanted = impute(
        given, model, "flair", like=[like | {"flair": nib.Nifti1Image(moved, LPS_AFFINE)}]
    )
    np.testing.assert_allclose(found.image.get_fdata(), wanted.image.get_fdata(), atol=0.1)


def test_synthetic_images_are_no_references(model, tiny_dataset, tmp_path):
    """Neither given by themselves nor found in a folder."""
    given = files_of(tiny_dataset, 0, *T1_T2)
    made = impute(files_of(tiny_dataset, 1, "t1"), model, "flair").image
    with pytest.raises(UserError) as error:
        impute(given, model, "flair", like=[images_of(1) | {"flair": made}])
    assert str(error.value) == (
        "reference 1: the flair image is a synthetic image of this software, not a scan"
    )
    nib.save(made, sequence_file(tiny_dataset, 1, "flair"))
    with pytest.raises(UserError) as error:
        impute(given, model, "flair", like=[tiny_dataset / "Tiny_00001"])
    assert str(error.value) == (
        "no reference has t1, t2, flair, by which flair could be adapted: Tiny_00001: t1, t1ce, t2"
    )


def test_what_is_no_reference(model, tiny_dataset, tmp_path):
    given = files_of(tiny_dataset, 0, *T1_T2)
    scan = save_nifti(tmp_path / "scan.nii.gz", blob(1))
    doubled = tmp_path / "sub-1" / "anat"
    for name in ("sub-1_run-1_T1w", "sub-1_run-2_T1w", "sub-1_FLAIR"):
        save_nifti(doubled / f"{name}.nii.gz", blob(2))
    first, none = doubled / "sub-1_run-1_T1w.nii.gz", tmp_path / "none"
    cases: list[tuple[list, str]] = [
        ([none], f"reference {none} is no folder or file"),
        ([{"t1": none, "t2": scan, "flair": scan}], f"{none} can't be read: No such file or dir"),
        (
            [images_of(1), {"pd": scan}],
            f"reference 2: sequence pd is unknown to {model.path}, which knows t1, t1ce, t2, flair",
        ),
        (
            [scan],
            f"{scan} doesn't tell its sequence by a known name (the model's own patterns, BraTS "
            "2021, BraTS 2023 and later, BIDS): give its subject's folder",
        ),
        ([doubled], f"reference sub-1: t1 may be {first} or "),
    ]
    for like, message in cases:
        with pytest.raises(UserError) as error:
            impute(given, model, "flair", like=like)
        assert str(error.value).startswith(message)


def test_an_adapted_model_takes_no_references(model, tiny_dataset):
    like = References(model, {"a": files_of(tiny_dataset, 1), "b": files_of(tiny_dataset, 2)})
    adapted, _ = like.adaptation(["t1"], "flair")
    with pytest.raises(UserError) as error:
        impute(
            files_of(tiny_dataset, 0, "t1"),
            replace(model, adaptation=adapted),
            "flair",
            like=[tiny_dataset / "Tiny_00001"],
        )
    assert str(error.value) == (
        f"{model.path} is adapted already, to a, b: give the checkpoint that it was made from"
    )
