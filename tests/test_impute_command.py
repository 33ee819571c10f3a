"""The command tsf-impute: what it finds, what it writes, and what it says of unusable input."""

import errno
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY_UNET, blob, save_nifti, sequence_file, tiny_yaml

import tsf_seq2seq
from tsf_seq2seq.checkpoints.checkpoint import open_model, save_checkpoint
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.discovery import FoundSubject, discover
from tsf_seq2seq.data.namings import canonical_name, own_namings
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation import impute
from tsf_seq2seq.imputation.output import Output
from tsf_seq2seq.models import build_network

BRATS = DataConfig()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(script, checkpoint, out):
    """run(arguments…) of tsf-impute with checkpoint and output folder."""
    return lambda *arguments: script(impute_sequences, *arguments, "-l", checkpoint, "-o", out)


def save_all(*paths: Path) -> None:
    for number, path in enumerate(paths):
        save_nifti(path, blob(number))


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def found_in(*folders: Path, data: DataConfig = BRATS) -> dict[str, dict[str, str]]:
    """Subject → sequence → file name."""
    found = discover(list(folders), data)
    return {s.name: {key: path.name for key, path in s.files.items()} for s in found}


# --- finding


def test_visits_in_their_patients_folders(tmp_path):
    data = DataConfig(sequences={"t1": ("{name}/t1.nii.gz",), "t2": ("{name}/t2.nii.gz",)})
    for folder in ("a/visit1", "a/visit2", "b/visit1", "c"):
        save_all(tmp_path / folder / "t1.nii.gz")
    scan = {"t1": "t1.nii.gz"}
    wanted = dict.fromkeys(("a/visit1", "a/visit2", "b/visit1", "c"), scan)
    assert found_in(tmp_path, data=data) == wanted
    assert found_in(tmp_path / "a", data=data) == {"visit1": scan, "visit2": scan}
    assert found_in(tmp_path / "a" / "visit2", data=data) == {"visit2": scan}


def test_brats_names_of_a_data_set_and_of_one_subject(tmp_path):
    for name in ("a_t1", "a_t1ce", "a_flair", "a_seg", "b_t2"):
        save_all(tmp_path / name[0] / f"{name}.nii.gz")
    save_all(tmp_path / "BraTS-GLI-1-000" / "BraTS-GLI-1-000-t2f.nii.gz")
    a = {"t1": "a_t1.nii.gz", "t1ce": "a_t1ce.nii.gz", "flair": "a_flair.nii.gz"}
    new = {"BraTS-GLI-1-000": {"flair": "BraTS-GLI-1-000-t2f.nii.gz"}}
    assert found_in(tmp_path) == {"a": a, "b": {"t2": "b_t2.nii.gz"}} | new
    assert found_in(tmp_path / "a") == {"a": a}
    assert found_in(tmp_path / "BraTS-GLI-1-000") == new


def test_flat_folders_and_unpacked_files(tmp_path):
    save_all(tmp_path / "x-t1n.nii", tmp_path / "x-t1c.nii.gz", tmp_path / "y_t2.nii")
    assert found_in(tmp_path) == {
        "x": {"t1": "x-t1n.nii", "t1ce": "x-t1c.nii.gz"},
        "y": {"t2": "y_t2.nii"},
    }


def test_bids(tmp_path):
    one = tmp_path / "sub-01" / "anat"
    two = tmp_path / "sub-02" / "ses-pre" / "anat"
    save_all(one / "sub-01_T1w.nii.gz", one / "sub-01_ce-gadolinium_T1w.nii.gz")
    save_all(two / "sub-02_ses-pre_acq-3d_FLAIR.nii.gz", two / "sub-02_ses-pre_run-1_T2w.nii.gz")
    save_all(
        two / "sub-02_ses-pre_acq-3d_ce-gd_run-1_T1w.nii.gz", two / "sub-02_ses-pre_dwi.nii.gz"
    )
    save_all(tmp_path / "derivatives" / "x" / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    assert found_in(tmp_path) == {
        "sub-01": {"t1": "sub-01_T1w.nii.gz", "t1ce": "sub-01_ce-gadolinium_T1w.nii.gz"},
        "sub-02_ses-pre": {
            "t1ce": "sub-02_ses-pre_acq-3d_ce-gd_run-1_T1w.nii.gz",
            "flair": "sub-02_ses-pre_acq-3d_FLAIR.nii.gz",
            "t2": "sub-02_ses-pre_run-1_T2w.nii.gz",
        },
    }
    assert list(found_in(two)) == ["sub-02_ses-pre"]


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_nnunet(tmp_path, key):
    """Channels by name, in an order of their own; names that the model doesn't know are left."""
    channels = {"0": "FLAIR", "1": "T1Gd", "2": "ADC", "3": "T1w"}
    (tmp_path / "dataset.json").write_text(json.dumps({key: channels}))
    for channel in range(4):
        save_all(tmp_path / "imagesTr" / f"case_7_{channel:04d}.nii.gz")
    wanted = {"flair": "case_7_0000.nii.gz", "t1ce": "case_7_0001.nii.gz"}
    wanted["t1"] = "case_7_0003.nii.gz"
    assert found_in(tmp_path) == found_in(tmp_path / "imagesTr") == {"case_7": wanted}
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="holds no file of the sequences t1, t1ce, t2, flair"):
        found_in(tmp_path)
    (tmp_path / "dataset.json").write_text("[")
    with pytest.raises(UserError, match=r"dataset\.json can't be read"):
        found_in(tmp_path)


def test_the_models_own_patterns_come_first(tmp_path):
    data = DataConfig(
        sequences={"T1w": ("{name}/T1_*.nii.gz", "{name}/?1.nii.gz"), "pd": ("{name}/pd.nii.gz",)}
    )
    save_all(
        tmp_path / "s" / "T1_N4.nii.gz", tmp_path / "s" / "pd.nii.gz", tmp_path / "r" / "x1.nii"
    )
    save_all(tmp_path / "q-t1n.nii.gz")
    assert found_in(tmp_path, data=data) == {
        "s": {"T1w": "T1_N4.nii.gz", "pd": "pd.nii.gz"},
        "r": {"T1w": "x1.nii"},
        "q": {"T1w": "q-t1n.nii.gz"},
    }


def test_what_could_be_either(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    save_all(anat / "sub-1_run-1_T1w.nii.gz", anat / "sub-1_run-2_T1w.nii.gz")
    save_all(anat / "sub-1_T2w.nii", anat / "sub-1_T2w.nii.gz")
    both = tmp_path / "b"  # two names of one sequence: the model's first pattern counts
    save_all(both / "b_t1.nii.gz", both / "b-t1n.nii.gz")
    found, subject = discover([tmp_path], BRATS)
    assert (found.name, found.doubles) == ("b", [])
    assert found.files == {"t1": both / "b_t1.nii.gz"}
    assert len(subject.doubles) == 1
    assert "run-1_T1w.nii.gz or " in subject.doubles[0]
    assert subject.files["t2"].name == "sub-1_T2w.nii.gz"  # packed and unpacked: one file


def test_names_of_sequences():
    assert [canonical_name(n) for n in ("T1-Gd", "T2w", "FLAIR", "t1n", "DWI")] == [
        *("t1ce", "t2", "flair", "t1", None)
    ]


# --- writing


def test_data_set(run, checkpoint, tiny_dataset, out):
    """Subject 0 lacks t1ce, 1 lacks all but t2, the others lack nothing."""
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    for name in ("t1", "t1ce", "flair"):
        sequence_file(tiny_dataset, 1, name).unlink()
    outcome = run(tiny_dataset)
    assert outcome.code == 0, outcome.err
    assert outcome.err == []
    made = ["Tiny_00000_t1ce", "Tiny_00001_t1", "Tiny_00001_t1ce", "Tiny_00001_flair"]
    kinds = ("synth.nii.gz", "tsem.nii.gz", "synth.json")
    assert files_in(out) == {f"{name}_{kind}" for name in made for kind in kinds}
    assert "Tiny_00003: no sequence is missing" in outcome.out
    others = ("t1", "t2", "flair")
    files = {name: sequence_file(tiny_dataset, 0, name) for name in others}
    found = impute(files, checkpoint, "t1ce")
    for kind, image in (("synth", found.image), ("tsem", found.tsem)):
        voxels, _ = read_volume(out / f"Tiny_00000_t1ce_{kind}.nii.gz")
        np.testing.assert_array_equal(voxels, image.get_fdata())
    record = json.loads((out / "Tiny_00000_t1ce_synth.json").read_text())
    inside = np.any([blob(i) > 0 for i in (0, 2, 3)], axis=0)
    assert record.pop("MeanTSEM") == pytest.approx(found.tsem.get_fdata()[inside].mean())
    assert sum(record["FusionWeights"].values()) == pytest.approx(1)
    assert record.pop("FusionWeights") == found.fusion_weights
    assert record.pop("Command").startswith("impute_sequences ")
    made = {"image": "synth", "TSEM": "tsem"}
    assert record.pop("OutputFingerprints") == {
        key: fingerprint(out / f"Tiny_00000_t1ce_{kind}.nii.gz") for key, kind in made.items()
    }
    assert record == {
        "Description": "synthetic image, research use",
        "Target": "t1ce",
        "SourceSequences": list(others),
        "Sources": [str(path) for path in files.values()],
        "Network": "tsf_seq2seq",
        "TSEMUnits": "network scale, range 2; mean over the brain",
        "IntensityMaximum": 1000,
        "IntensityScale": "median of t1ce in the training data",
        "Resampling": [],
        "Warnings": [],
        "SkullStripped": True,
        "Precision": "fp32",
        "Finish": None,
        "Resample": False,
        "RecordVersion": 2,
        "ReferenceFingerprints": None,
        "Adaptation": None,
        "Contributions": None,
        "ErrorMap": None,
        "SourceFingerprints": [fingerprint(path) for path in files.values()],
        "Checkpoint": "tsf.pth",
        "CheckpointSHA256": open_model(checkpoint).sha256,
        "Software": "TSF-Seq2Seq",
        "SoftwareVersion": tsf_seq2seq.__version__,
    }


def test_skips_what_is_done(run, checkpoint, tiny_dataset, out):
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    folder = tiny_dataset / "Tiny_00000"
    assert run(folder).code == 0
    image = out / "Tiny_00000_t1ce_synth.nii.gz"
    before, time = image.read_bytes(), image.stat().st_mtime_ns
    assert "t1ce is done already" in run(folder).out
    assert image.stat().st_mtime_ns == time
    assert run(folder, "--sources", "t2,t1").code == 0  # other sources
    assert image.read_bytes() != before
    content = torch.load(checkpoint, weights_only=True)
    content["weights"]["fusion.linear.bias"] += 1
    torch.save(content, checkpoint)
    outcome = run(folder, "--sources", "t2,t1")  # other weights
    assert "t1ce is made again: the checkpoint is another one" in outcome.out
    record = json.loads((out / "Tiny_00000_t1ce_synth.json").read_text())
    assert record["CheckpointSHA256"] == open_model(checkpoint).sha256


def test_goes_on_after_bad_subjects(run, tiny_dataset, out):
    for subject in range(4):
        sequence_file(tiny_dataset, subject, "flair").unlink()
    sequence_file(tiny_dataset, 0, "t1").write_bytes(b"no image")
    save_nifti(sequence_file(tiny_dataset, 2, "t2"), blob(0)[:20])
    outcome = run(tiny_dataset)
    assert outcome.code == 1
    assert outcome.err[0] == "2 of 4 subjects failed:"
    assert outcome.err[1].startswith("  Tiny_00000: ")
    assert outcome.err[1].endswith("Tiny_00000_t1.nii.gz is not a NIfTI file")
    assert outcome.err[2].startswith("  Tiny_00002: ")
    assert len(outcome.err) == 3
    assert {name[:10] for name in files_in(out)} == {"Tiny_00001", "Tiny_00003"}


def test_target_that_exists_is_made_beside_it(run, tiny_dataset, out):
    folder = tiny_dataset / "Tiny_00000"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, "--target", "t1", "flair").code == 0
    record = json.loads((out / "Tiny_00000_t1_synth.json").read_text())
    assert record["SourceSequences"] == ["t1ce", "t2", "flair"]
    record = json.loads((out / "Tiny_00000_flair_synth.json").read_text())
    assert record["SourceSequences"] == ["t1", "t1ce", "t2"]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_results_beside_the_sources_are_no_sources(script, checkpoint, tiny_dataset):
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    folder = tiny_dataset / "Tiny_00000"
    for option, name in (("--keep-names", "Tiny_00000_t1ce.nii.gz"), ("--bids", "anat")):
        for _ in range(2):  # the second run finds t1ce missing still, and done
            outcome = script(impute_sequences, folder, "-l", checkpoint, "-o", folder, option)
            assert outcome.code == 0, outcome.err
        assert "t1ce is done already" in outcome.out
        assert list(folder.rglob(name))


def test_keep_names(run, tmp_path, out):
    subject = tmp_path / "BraSyn" / "BraTS-GLI-9-000"
    save_all(*(subject / f"{subject.name}-{end}.nii.gz" for end in ("t1n", "t2w", "t2f")))
    assert run(subject, "--keep-names").code == 0
    assert files_in(out) == {
        "BraTS-GLI-9-000-t1c.nii.gz",
        "BraTS-GLI-9-000-t1c.json",
        "tsem/BraTS-GLI-9-000_t1ce_tsem.nii.gz",
    }


def test_keep_names_never_replaces_a_scan(script, checkpoint, tiny_dataset):
    folder = tiny_dataset / "Tiny_00000"
    before = sequence_file(tiny_dataset, 0, "t1").read_bytes()
    arguments = [folder, "-l", checkpoint, "-o", folder, "--keep-names", "--target", "t1"]
    assert "exists and is not of a synthetic image" in script(impute_sequences, *arguments).error
    assert sequence_file(tiny_dataset, 0, "t1").read_bytes() == before
    assert len(files_in(folder)) == 4


def test_bids_derivatives(run, tmp_path, out):
    anat = tmp_path / "set" / "sub-02" / "ses-a" / "anat"
    save_all(*(anat / f"sub-02_ses-a_{end}.nii.gz" for end in ("T1w", "T2w", "FLAIR")))
    assert run(tmp_path / "set", "--bids").code == 0
    stem = "sub-02/ses-a/anat/sub-02_ses-a_ce-gadolinium_desc-"
    kinds = {f"{stem}{k}_T1w.{end}" for k in ("synth", "tsem") for end in ("nii.gz", "json")}
    assert files_in(out) == {"dataset_description.json", *kinds}
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "TSF-Seq2Seq"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sub-02_ses-a", ["sub-02", "ses-a"]),
        ("sub-02/ses-a", ["sub-02", "ses-a"]),
        ("sub-02", ["sub-02"]),
        ("Tiny_1", ["sub-Tiny1"]),
        ("p_1/visit 2", ["sub-p1", "ses-visit2"]),
    ],
)
def test_bids_labels(name, labels, tmp_path):
    (naming,) = own_namings(BRATS)[:1]
    paths = Output(tmp_path, "bids").paths(FoundSubject(name, naming), "t2")
    assert paths.image.parent == tmp_path.joinpath(*labels, "anat")
    assert paths.image.name == f"{'_'.join(labels)}_desc-synth_T2w.nii.gz"


def test_files_with_spaces_and_other_letters(script, checkpoint, tmp_path):
    folder, out = tmp_path / "Größe 北 é", tmp_path / "aus gabe ü"
    save_nifti(folder / "erste Serie ä.nii.gz", blob(0))
    save_nifti(folder / "zweite.nii.gz", blob(1))
    arguments = ["--flair", folder / "erste Serie ä.nii.gz", "--t1", folder / "zweite.nii.gz"]
    outcome = script(impute_sequences, *arguments, "-l", checkpoint, "-o", out, "--target", "t2")
    assert outcome.code == 0, outcome.err
    record = json.loads((out / "zweite_t2_synth.json").read_text(encoding="utf-8"))
    assert record["Sources"][1] == str(folder / "erste Serie ä.nii.gz")


def test_options_are_the_models_sequences(script, tiny_stage1, tmp_path):
    names = ["data.sequences={T2-SPACE: '{name}.nii.gz', output: x.nii.gz}"]
    config = load_config(tiny_stage1, names)
    save_checkpoint(tmp_path / "own.pth", build_network(config), config)
    save_all(tmp_path / "s.nii.gz")
    arguments = ["-l", tmp_path / "own.pth", "-o", tmp_path / "out"]
    outcome = script(impute_sequences, "--T2-SPACE", tmp_path / "s.nii.gz", *arguments)
    assert outcome.code == 0, outcome.err
    assert "output from T2-SPACE" in outcome.out
    assert "--sequence-output" in script(impute_sequences, "-h", *arguments).out
    assert "--t1ce" in script(impute_sequences, "-h").out


def test_stage_1(script, tiny_stage1, tiny_dataset, tmp_path, out):
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "one.pth", build_network(config), config)
    sequence_file(tiny_dataset, 0, "t1").unlink()
    arguments = [tiny_dataset / "Tiny_00000", "-l", tmp_path / "one.pth", "-o", out]
    outcome = script(impute_sequences, *arguments)
    assert outcome.code == 0, outcome.err
    assert files_in(out) == {"Tiny_00000_t1_synth.nii.gz", "Tiny_00000_t1_synth.json"}
    record = json.loads((out / "Tiny_00000_t1_synth.json").read_text())
    assert (record["Network"], record["SourceSequences"]) == ("seq2seq", ["t1ce"])
    assert record["FusionWeights"] is record["MeanTSEM"] is None
    assert record["Warnings"][0].startswith("a seq2seq checkpoint takes one source: t1ce was used")
    assert "warning: a seq2seq checkpoint takes one source" in outcome.out


def test_unet(script, tiny_dataset, tmp_path, out):
    """It takes all sources, and has neither TSEM nor fusion weights."""
    (tmp_path / "unet.yaml").write_text(tiny_yaml(TINY_UNET, tiny_dataset, tmp_path))
    config = load_config(tmp_path / "unet.yaml")
    save_checkpoint(tmp_path / "unet.pth", build_network(config), config)
    sequence_file(tiny_dataset, 0, "t1").unlink()
    arguments = [tiny_dataset / "Tiny_00000", "-l", tmp_path / "unet.pth", "-o", out]
    outcome = script(impute_sequences, *arguments)
    assert outcome.code == 0, outcome.err
    assert files_in(out) == {"Tiny_00000_t1_synth.nii.gz", "Tiny_00000_t1_synth.json"}
    record = json.loads((out / "Tiny_00000_t1_synth.json").read_text())
    assert (record["Network"], record["SourceSequences"]) == ("unet", ["t1ce", "t2", "flair"])
    assert record["FusionWeights"] is record["MeanTSEM"] is None
    assert record["Warnings"] == []


def test_entry_point():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["tsf-impute"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


# --- mistakes: one sentence, and nothing left behind


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def singular(path: Path) -> None:
    image = nib.Nifti1Image(blob(0), None)
    image.header["sform_code"] = 1  # with all rows zero
    path.write_bytes(gzip.compress(image.to_bytes()))


def with_nan(path: Path) -> None:
    voxels = blob(0).astype(np.float32)
    voxels[3, 3, 3] = np.nan
    save_nifti(path, voxels)


DAMAGES = [
    (lambda p: save_nifti(p, blob(0, (20, 20, 12))), "has shape (20, 20, 12), but"),
    (singular, "has a singular affine"),
    (lambda p: save_nifti(p, np.stack([blob(0)] * 2, -1)), "must be a 3-d volume, not one of"),
    (lambda p: save_nifti(p, 0 * blob(0)), "is all but empty"),
    (with_nan, "holds 1 NaN or infinite voxels"),
    (truncated, "is damaged: its gzip stream does not check out"),
    (flipped, "is damaged: its gzip stream does not check out"),
    (lambda p: p.write_bytes(b"DICM" * 200), "is not a NIfTI file"),
    (lambda p: p.write_bytes(b""), "is not a NIfTI file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_source(run, tiny_dataset, out, damage, message):
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    damage(sequence_file(tiny_dataset, 0, "t2"))
    assert message in run(tiny_dataset / "Tiny_00000").error
    assert files_in(out) == set()


def test_unusable_arguments(run, tiny_dataset, tmp_path, out):
    folder = tiny_dataset / "Tiny_00000"
    (tmp_path / "empty").mkdir()
    scan = sequence_file(tiny_dataset, 0, "t1")
    for arguments, message in (
        ([tmp_path / "empty"], "empty holds no file of the sequences t1, t1ce, t2, flair under a"),
        ([tmp_path / "none"], "none is not a folder"),
        ([folder, "--target", "pd"], "target pd is unknown to"),
        ([folder, "--target", "t1", "--sources", "t1x"], "source t1x is unknown to"),
        ([], "give either SUBJECT_FOLDER or files, such as --t1 FILE --t1ce FILE"),
        ([folder, "--t1", scan], "give either SUBJECT_FOLDER or files"),
        (["--t1", scan, "--target", "t1"], "there is no source to make t1 from"),
        (["--t1", tmp_path / "none.nii"], "none.nii does not exist"),
        (["--t1", scan, "-d", "tpu"], "-d tpu is no device"),
    ):
        assert message in run(*arguments).error
        assert files_in(out) == set()


def test_full_disk_by_error(run, tiny_dataset, out, monkeypatch):
    """Each of the writes in turn meets a full disk: nothing stays."""
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    real, count = os.fsync, [0]
    for failing in range(4):
        count[0] = 0

        def fsync(handle, failing=failing):
            count[0] += 1
            if count[0] == failing + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        error = run(tiny_dataset).error  # of all four subjects, the run ends at the first
        assert "could not be written: [Errno 28] No space left on device" in error
        assert files_in(out) == set()
    monkeypatch.setattr(os, "fsync", real)
    assert run(tiny_dataset).code == 0


def test_full_disk(checkpoint, tiny_dataset, tmp_path):
    """A file system of 4 kB, in a private mount namespace."""
    private = ["unshare", "-rm", "sh", "-c"]
    out = tmp_path / "full"
    out.mkdir()
    mount = f"mount -t tmpfs -o size=4k none '{out}'"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*private, mount], capture_output=True).returncode
    ):
        pytest.skip("this system allows no private mount namespace")
    code = "from tsf_seq2seq.cli import tsf_impute; tsf_impute()"
    scan = sequence_file(tiny_dataset, 0, "t1")
    command = f"'{sys.executable}' -c '{code}' --t1 '{scan}' -l '{checkpoint}' -o '{out}'"
    script = f"{mount}; {command}; echo code $?; find '{out}' -type f"
    source = str(Path(tsf_seq2seq.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*private, script], capture_output=True, text=True, env=environment)
    assert done.stdout == "code 2\n"
    error = done.stderr.replace("\r", "\n").splitlines()[-1]
    assert error.startswith("error: ")
    assert error.endswith("No space left on device")
