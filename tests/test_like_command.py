"""tsf-impute --like: who is meant, what the sidecar records, what is done again."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES, Outcome, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import Model, open_model, save_checkpoint
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.discovery import discover_files
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation import impute
from tsf_seq2seq.imputation.references import References

BRATS = DataConfig()
NAMES = [f"Tiny_0000{number}" for number in range(4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(script, checkpoint, out):
    """run(arguments…) of tsf-impute with checkpoint and output folder."""
    return lambda *arguments: script(impute_sequences, "-l", checkpoint, "-o", out, *arguments)


@pytest.fixture
def patient(tiny_dataset: Path) -> Path:
    """A subject's folder that lacks flair; the data set's others are complete."""
    sequence_file(tiny_dataset, 0, "flair").unlink()
    return tiny_dataset / NAMES[0]


def record_of(out: Path, name: str = NAMES[0], target: str = "flair") -> dict:
    return json.loads((out / f"{name}_{target}_synth.json").read_text())


def image_of(out: Path, name: str = NAMES[0]) -> bytes:
    return (out / f"{name}_flair_synth.nii.gz").read_bytes()


def done(outcome: Outcome) -> list[str]:
    """What was said, of a run in which all went well."""
    assert outcome.code == 0, outcome.err
    return outcome.out.splitlines()


def all_files(root: Path, *numbers: int) -> list[Path]:
    return [sequence_file(root, number, name) for number in numbers for name in SEQUENCES]


# --- who is meant


def test_folders_files_and_names_of_the_data_sets_subjects(run, patient, tiny_dataset, out):
    """Each the same reference, of which the sidecar says who it was."""
    found = []
    for number, (folders, like) in enumerate(
        (
            ([patient], [tiny_dataset / NAMES[1]]),
            ([patient], all_files(tiny_dataset, 1)),
            ([tiny_dataset], [NAMES[1]]),
            ([tiny_dataset], [NAMES[1], tiny_dataset / NAMES[1]]),
        )
    ):
        place = out / str(number)
        lines = done(run(*folders, "-o", place, "--like", *like))
        assert f", adapted to {NAMES[1]}, " in lines[0]
        record = record_of(place)
        assert record.pop("Command").endswith(" ".join(map(str, like)))
        found.append((record, image_of(place)))
    assert all(one == found[0] for one in found)
    assert found[0][0]["Adaptation"]["References"] == [NAMES[1]]


def test_a_data_set_serves_itself(run, patient, tiny_dataset, out, checkpoint):
    """With all complete subjects, but for the subject itself, also where a target exists."""
    lines = done(run(tiny_dataset, "--target", "flair", "--like", tiny_dataset))
    for number, name in enumerate(NAMES):
        others = [other for other in NAMES[1:] if other != name]
        assert record_of(out, name)["Adaptation"]["References"] == others
        assert list(record_of(out, name)["ReferenceFingerprints"]) == others
        line = next(line for line in lines if line.startswith(f"{name}: flair from t1 (ω "))
        assert f", adapted to {', '.join(others)}, " in line
        sources = {key: sequence_file(tiny_dataset, number, key) for key in SEQUENCES[:3]}
        like = [tiny_dataset / other for other in others]
        wanted = impute(sources, checkpoint, "flair", like=like)
        assert record_of(out, name)["IntensityMaximum"] == wanted.intensity_maximum
        coefficients = record_of(out, name)["Adaptation"]["Coefficients"]
        np.testing.assert_allclose(
            list(coefficients.values()), wanted.adapted.fitted.coefficients, atol=1e-6
        )


def test_references_of_one_name(run, patient, tiny_dataset, tmp_path):
    """Folders tell two subjects apart; a file and a folder can't both be the same subject."""
    other = tmp_path / "second" / NAMES[1]
    for index, name in enumerate(SEQUENCES):
        save_nifti(other / f"{NAMES[1]}_{name}.nii.gz", blob(50 + index))
    lines = done(run(patient, "--like", tiny_dataset / NAMES[1], other))
    assert f", adapted to second/{NAMES[1]}, tiny/{NAMES[1]}" in lines[0]
    files = sorted(other.iterdir())
    for folders, like in (
        ([patient], [tiny_dataset / NAMES[1], *files]),
        ([tiny_dataset], [NAMES[1], other]),
    ):
        assert run(*folders, "--like", *like).error == (
            f"two references are called {NAMES[1]}: give them in one folder"
        )


def test_what_is_no_reference(run, patient, tmp_path, out):
    (tmp_path / "empty").mkdir()
    scan = save_nifti(tmp_path / "scan.nii.gz", blob(1))
    for like, message in (
        ("none", f"reference none is no folder or file, nor the name of one of {NAMES[0]}"),
        (tmp_path / "empty", f"{tmp_path / 'empty'} holds no file of the sequences t1, t1ce, t2,"),
        (scan, f"{scan} doesn't tell its sequence by a known name (the model's own patterns, "),
        (patient, "no reference has t1, t1ce, t2, flair, by which flair could be adapted: Tiny_0"),
    ):
        assert run(patient, "--like", like).error.startswith(message)
        assert not list(out.glob("*synth*"))


def test_a_subject_whose_sources_no_reference_has(run, tiny_dataset, out):
    """The others are imputed."""
    for number, name in ((0, "flair"), (1, "flair"), (2, "t1"), (3, "t1ce")):
        sequence_file(tiny_dataset, number, name).unlink()
    sequence_file(tiny_dataset, 0, "t1").unlink()
    outcome = run(tiny_dataset, "--target", "flair", "--like", NAMES[2])
    assert outcome.code == 1
    assert outcome.err == [
        "3 of 4 subjects failed:",
        f"  {NAMES[1]}: no reference has t1, t1ce, t2, flair, by which flair could be adapted: "
        f"{NAMES[2]}: t1ce, t2, flair",
        f"  {NAMES[2]}: no reference but the subject itself has t1ce, t2, flair, by which flair "
        f"could be adapted: {NAMES[2]}: t1ce, t2, flair",
        f"  {NAMES[3]}: no reference has t1, t2, flair, by which flair could be adapted: "
        f"{NAMES[2]}: t1ce, t2, flair",
    ]
    assert [path.name for path in out.glob("*_synth.json")] == [f"{NAMES[0]}_flair_synth.json"]


def test_an_adapted_checkpoint_takes_no_references(script, checkpoint, patient, tmp_path, out):
    model = open_model(checkpoint)
    found = adaptation_of(model, patient.parent)
    path = tmp_path / "adapted.pth"
    save_checkpoint(path, model.network, model.config, adaptation=found)
    outcome = script(
        impute_sequences, patient, "-l", path, "-o", out, "--like", patient.parent / NAMES[1]
    )
    assert outcome.error == (
        f"{path} is adapted already, to {NAMES[1]}: give the checkpoint that it was made from"
    )
    assert not list(out.glob("*synth*"))


def adaptation_of(model: Model, root: Path):
    files = dict(zip(SEQUENCES, all_files(root, 1), strict=True))
    return References(model, {NAMES[1]: files}).adaptation(SEQUENCES[:3], "flair")[0]


# --- what the sidecar records


def test_the_sidecar(run, patient, tiny_dataset, out, checkpoint):
    like = [tiny_dataset / NAMES[number] for number in (2, 1)]
    done(run(patient, "--sources", "t1,t2", "--like", *like))
    record = record_of(out)
    sources = {name: sequence_file(tiny_dataset, 0, name) for name in ("t1", "t2")}
    wanted = impute(sources, checkpoint, "flair", like=like)
    assert record["IntensityMaximum"] == wanted.intensity_maximum
    assert record["IntensityScale"] == "median of flair in the references"
    assert record["ReferenceFingerprints"] == {
        name: {
            sequence: fingerprint(tiny_dataset / name / f"{name}_{sequence}.nii.gz")
            for sequence in SEQUENCES
        }
        for name in NAMES[1:3]
    }
    found, fitted = record["Adaptation"], wanted.adapted.fitted
    terms = ("1", "t1", "t2", "output", "t1*t1", "t1*t2", "t1*output", "t2*t2", "t2*output")
    labels = (*terms, "output*output")
    assert found.pop("Coefficients") == dict(zip(labels, fitted.coefficients, strict=True))
    assert sum(found["VarianceShares"].values()) == pytest.approx(1)
    assert found == {
        "References": NAMES[1:3],
        "CoefficientsOf": "the network's scale, -1 to 1; output: the network's own",
        "PriorStrength": fitted.strength,
        "PriorStrengthUnits": "references that the prior counts for; null: infinitely many",
        "LeftOutGain": fitted.gain_db,
        "LeftOutGainUnits": "dB of PSNR in the brain, on references (or slabs) left out of the map",
        "VarianceShares": wanted.adapted.shares,
        "Departure": wanted.adapted.departure,
        "DepartureUnits": "root mean square change of the output in the brain, network scale",
        "Differences": [
            {
                "Sequence": one.sequence,
                "Reference": one.reference,
                "Distance": one.distance,
                "UsualDistance": None,
                "UsualDistanceOf": "nothing to compare with",
            }
            for one in wanted.adapted.differences
        ],
    }


def test_warnings_are_said_and_recorded(run, patient, tiny_dataset, out):
    """Three references alike but for noise, and a subject of another contrast."""
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        for index, name in enumerate(SEQUENCES):
            voxels = blob(10 + index) * rng.uniform(0.99, 1.01, (24, 20, 12))
            save_nifti(sequence_file(tiny_dataset, number, name), voxels.astype(np.int16))
    voxels = blob(10).astype(float)
    voxels = voxels.max() * (voxels / voxels.max()) ** 0.3
    save_nifti(sequence_file(tiny_dataset, 0, "t1"), voxels.astype(np.int16))
    like = [tiny_dataset / name for name in NAMES[1:]]
    first, *others = done(run(patient, "--sources", "t1", "--like", *like))
    assert first.startswith(f"{NAMES[0]}: flair from t1 (ω 1.00), adapted to ")
    (warning,) = others
    start = f"{NAMES[0]}: warning: t1 differs from that of reference Tiny_0000"
    assert warning.startswith(start)
    assert record_of(out)["Warnings"] == [warning.removeprefix(f"{NAMES[0]}: warning: ")]


# --- what is done again


def test_what_is_done_stays(run, patient, tiny_dataset, out):
    """References in another order, or found otherwise, are the same; more or fewer are not."""
    both = [tiny_dataset / name for name in NAMES[1:3]]
    done(run(patient, "--like", *both))
    before, time = image_of(out), (out / f"{NAMES[0]}_flair_synth.nii.gz").stat().st_mtime_ns
    for folders, like in (([patient], both[::-1]), ([tiny_dataset], NAMES[1:3])):
        lines = done(run(*folders, "--like", *like))
        assert lines[0] == f"{NAMES[0]}: flair is done already"
    assert (out / f"{NAMES[0]}_flair_synth.nii.gz").stat().st_mtime_ns == time
    changed = f"{NAMES[0]}: flair is made again: its references have changed"
    for like in (both[:1], [tiny_dataset]):
        assert done(run(patient, "--like", *like))[0] == changed
        assert image_of(out) != before
    done(run(patient, "--like", *both))
    assert image_of(out) == before


def test_a_changed_reference(run, patient, tiny_dataset, out):
    like = tiny_dataset / NAMES[1]
    done(run(patient, "--like", like))
    before = image_of(out)
    save_nifti(sequence_file(tiny_dataset, 1, "flair"), blob(99))
    assert done(run(patient, "--like", like))[0] == (
        f"{NAMES[0]}: flair is made again: its references have changed"
    )
    assert image_of(out) != before
    prints = record_of(out)["ReferenceFingerprints"][NAMES[1]]
    assert prints["flair"] == fingerprint(sequence_file(tiny_dataset, 1, "flair"))


def test_with_and_without_references(run, patient, tiny_dataset, out):
    done(run(patient))
    assert record_of(out)["Adaptation"] is record_of(out)["ReferenceFingerprints"] is None
    plain = image_of(out)
    assert done(run(patient, "--like", tiny_dataset / NAMES[1]))[0] == (
        f"{NAMES[0]}: flair is made again: it was made without references"
    )
    assert image_of(out) != plain
    assert done(run(patient))[0] == (
        f"{NAMES[0]}: flair is made again: it was adapted to references"
    )
    assert image_of(out) == plain


def test_results_of_earlier_versions_are_done_without_references(run, patient, out):
    """Their sidecars say nothing of references."""
    done(run(patient))
    record = record_of(out)
    del record["ReferenceFingerprints"], record["Adaptation"]
    (out / f"{NAMES[0]}_flair_synth.json").write_text(json.dumps(record))
    assert done(run(patient)) == [f"{NAMES[0]}: flair is done already"]


# --- files that tell their sequence


def test_files_of_several_subjects_and_namings(tmp_path):
    files = [
        tmp_path / "a" / "a_t1.nii.gz",
        tmp_path / "a" / "a_flair.nii.gz",
        tmp_path / "BraTS-GLI-1-000-t2w.nii.gz",
        tmp_path / "sub-1" / "anat" / "sub-1_ce-gadolinium_T1w.nii.gz",
    ]
    for number, path in enumerate(files):
        save_nifti(path, blob(number))
    found = {subject.name: subject.files for subject in discover_files(files, BRATS)}
    assert found == {
        "a": {"t1": files[0], "flair": files[1]},
        "BraTS-GLI-1-000": {"t2": files[2]},
        "sub-1": {"t1ce": files[3]},
    }


def test_files_of_one_name_in_two_folders_are_two_subjects(tmp_path):
    files = [tmp_path / folder / "s" / "s_t1.nii.gz" for folder in ("x", "y")]
    for number, path in enumerate(files):
        save_nifti(path, blob(number))
    found = {subject.name: subject.files for subject in discover_files(files, BRATS)}
    assert found == {"x/s": {"t1": files[0]}, "y/s": {"t1": files[1]}}


def test_nnunets_files_need_their_data_set(tmp_path):
    """Channels by dataset.json, in the folder or above it."""
    path = save_nifti(tmp_path / "imagesTr" / "case_7_0000.nii.gz", blob(0))
    with pytest.raises(UserError, match=r"case_7_0000\.nii\.gz doesn't tell its sequence by a"):
        discover_files([path], BRATS)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2w"}}))
    (found,) = discover_files([path], BRATS)
    assert (found.name, found.files) == ("case_7", {"t2": path})
