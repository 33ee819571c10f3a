"""check_dataset.py: every kind of defect is found and named, and good data pass."""

import gzip
import json
import os
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, REPOSITORY, SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.cli.data import check_dataset
from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data import check as check_module
from tsf_seq2seq.data.check import check_subject, summarise

REAL = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def run(script):
    return partial(script, check_dataset)


class BadData:
    """One way to spoil subject 0 a method; each says what the report must hold."""

    def __init__(self, root: Path) -> None:
        self.t2 = sequence_file(root, 0, "t2")

    def missing_file(self) -> str:
        self.t2.unlink()
        return "t2 is named by its mask 15 but has no file in"

    def damaged_gzip(self) -> str:
        self.t2.write_bytes(self.t2.read_bytes()[:-20])
        return f"{self.t2} is damaged: its gzip stream does not check out"

    def not_nifti(self) -> str:
        self.t2.write_text("hello")
        return f"{self.t2} is not a NIfTI file"

    def other_shape(self) -> str:
        save_nifti(self.t2, blob(2, (24, 20, 11)))
        return "Tiny_00000_t2.nii.gz has shape (24, 20, 11), but Tiny_00000_t1.nii.gz (24, 20, 12)"

    def other_affine(self) -> str:
        save_nifti(self.t2, blob(2), LPS_AFFINE + np.diag([0, 0, 0.5, 0]))
        return "affines of Tiny_00000_t2.nii.gz and Tiny_00000_t1.nii.gz place the same voxel up to"

    def nan(self) -> str:
        save_nifti(self.t2, np.where(np.arange(12) == 3, np.nan, blob(2).astype(np.float32)))
        return f"{self.t2} holds 480 NaN or infinite voxels"

    def infinite(self) -> str:
        voxels = blob(2).astype(np.float32)
        voxels[0, 0, 0] = np.inf
        save_nifti(self.t2, voxels)
        return f"{self.t2} holds 1 NaN or infinite voxels"

    def empty(self) -> str:
        save_nifti(self.t2, np.zeros((24, 20, 12), np.int16))
        return f"{self.t2} is all but empty: its 99th percentile is 0"

    def identical(self) -> str:
        self.t2.write_bytes(self.t2.with_name("Tiny_00000_t1.nii.gz").read_bytes())
        return f"t1 and t2 are identical, in {self.t2}"

    def four_dimensions(self) -> str:
        save_nifti(self.t2, np.stack([blob(2), blob(3)], axis=-1))
        return "must be a 3-d volume"

    def damaged_labels(self) -> str:
        self.t2.with_name("Tiny_00000_seg.nii.gz").write_text("hello")
        return "segmentation: "


DEFECTS = [name for name in vars(BadData) if not name.startswith("_")]


@pytest.mark.parametrize("kind", DEFECTS)
def test_each_defect(tiny_dataset, kind):
    wanted = getattr(BadData(tiny_dataset), kind)()
    report = check_subject(DataConfig(root=tiny_dataset), "Tiny_00000", 15)
    assert len(report.defects) == 1, report.defects
    assert wanted in report.defects[0]


def test_a_pattern_that_matches_several_files(tiny_dataset):
    sequences = {"t1": ("{name}/*_t1*.nii.gz",), "t2": ("{name}/*_t2.nii.gz",)}
    report = check_subject(DataConfig(root=tiny_dataset, sequences=sequences), "Tiny_00000", 3)
    (defect,) = report.defects
    assert defect.startswith("pattern {name}/*_t1*.nii.gz matches several files")
    assert list(report.sequences) == ["t2"]


def test_two_sequences_of_one_file(tiny_dataset):
    sequences = {"t1": ("{name}/*_t1.nii.gz",), "t2": ("{name}/*_t1.nii.gz",)}
    report = check_subject(DataConfig(root=tiny_dataset, sequences=sequences), "Tiny_00000", 3)
    (defect,) = report.defects
    assert defect.startswith("t1 and t2 are identical")


def test_all_defects_of_a_subject(tiny_dataset):
    """t1 missing, t1ce on another grid with NaN, t2 empty, flair no NIfTI."""
    sequence_file(tiny_dataset, 0, "t1").unlink()
    save_nifti(sequence_file(tiny_dataset, 0, "t1ce"), np.full((24, 20, 11), np.nan, np.float32))
    save_nifti(sequence_file(tiny_dataset, 0, "t2"), np.zeros((24, 20, 12), np.int16))
    sequence_file(tiny_dataset, 0, "flair").write_text("")
    defects = check_subject(DataConfig(root=tiny_dataset), "Tiny_00000", 15).defects
    parts = ["t1 is named", "5280 NaN", "(24, 20, 12), but", "all but empty", "not a NIfTI"]
    assert len(defects) == len(parts)
    assert all(part in defect for part, defect in zip(parts, defects, strict=True))


def test_sequences_that_the_mask_does_not_name_may_be_missing(tiny_dataset):
    data = DataConfig(root=tiny_dataset)
    sequence_file(tiny_dataset, 0, "t2").unlink()
    assert not check_subject(data, "Tiny_00000", 13).defects
    assert not check_subject(data, "Tiny_00000", 0).defects
    assert check_subject(data, "nobody", 0).defects == ["no sequence has a file"]
    assert len(check_subject(data, "nobody", 15).defects) == 4


def test_summary(tiny_dataset):
    data = DataConfig(root=tiny_dataset)
    ras = np.diag([1.0, 1, 2, 1])
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 1, sequence), blob(10 + i, (20, 20, 12)), ras)
    reports = [check_subject(data, f"Tiny_0000{i}", 15) for i in range(3)]
    summary = summarise(reports)
    assert summary["subjects"] == 3
    assert summary["sequences"] == dict.fromkeys(SEQUENCES, 3)
    assert summary["grid_sizes"] == {"24 × 20 × 12": 2, "20 × 20 × 12": 1}
    assert summary["spacings_mm"] == {"1 × 1 × 1": 2, "1 × 1 × 2": 1}
    assert summary["orientations"] == {"LPS": 2, "RAS": 1}
    volumes = [np.asarray(nib.load(sequence_file(tiny_dataset, i, "t2")).dataobj) for i in range(3)]
    assert summary["intensities"]["t2"] == {
        "minimum": 0,
        "brain_median": np.median([np.median(v[v > 0]) for v in volumes]),
        "percentile_99": np.median([np.percentile(v, 99) for v in volumes]),
        "maximum": np.median([v.max() for v in volumes]),
    }


# --- the script


def test_a_clean_data_set(run, tiny_dataset):
    outcome = run("-r", tiny_dataset)
    assert outcome.code == 0
    assert outcome.out.startswith("4 subjects of ")
    assert "train.csv" in outcome.out
    assert "4, 0 with defects" in outcome.out


def test_goes_on_after_a_bad_subject(run, tiny_config, tiny_dataset, tmp_path):
    wanted = BadData(tiny_dataset).damaged_gzip()
    save_nifti(sequence_file(tiny_dataset, 2, "flair"), np.zeros((24, 20, 12), np.int16))
    outcome = run("-c", tiny_config, "--processes", 2, "-o", tmp_path / "report.json")
    assert outcome.code == 1
    assert f"Tiny_00000: {wanted}" in outcome.out
    assert "4, 2 with defects" in outcome.out
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["summary"]["subjects_with_defects"] == 2
    bad = {subject["name"]: subject["defects"] for subject in content["subjects"]}
    assert [name for name, defects in bad.items() if defects] == ["Tiny_00000", "Tiny_00002"]
    assert "all but empty" in bad["Tiny_00002"][0]
    t1 = content["subjects"][3]["sequences"]["t1"]
    assert (t1["shape"], t1["spacing"], t1["orientation"]) == ([24, 20, 12], [1, 1, 1], "LPS")


def test_splits_and_folders(run, tiny_dataset, tmp_path):
    split = tmp_path / "some.csv"
    split.write_text("Tiny_00001,15\n")
    assert run("-r", tiny_dataset, "--split", split).out.startswith("1 subjects of ")
    sequence_file(tiny_dataset, 1, "t1").unlink()
    assert run("-r", tiny_dataset, "--split", split).code == 1
    assert run("-r", tiny_dataset, "--folders").code == 0  # no mask asks for t1
    for name in ("train", "valid", "test"):
        (tiny_dataset / f"{name}.csv").unlink()
    outcome = run("-r", tiny_dataset)
    assert (outcome.code, outcome.out[:10]) == (0, "4 subjects")


def test_what_the_user_must_mend(run, tiny_dataset, tmp_path):
    assert run("-r", tmp_path / "none").error == f"data.root {tmp_path / 'none'} is not a folder"
    missing = run("-r", tiny_dataset, "--split", tmp_path / "no.csv")
    assert missing.error == f"split CSV {tmp_path / 'no.csv'} does not exist"
    none = run("-r", tiny_dataset, "--processes", 0)
    message = "argument --processes: invalid whole number from 1 value: '0'"
    assert (none.code, none.err[-1].endswith(message)) == (2, True)
    (tmp_path / "empty").mkdir()
    wanted = f"{tmp_path / 'empty'} holds no subjects: no file such as {{name}}/{{name}}_t1.nii.gz"
    assert run("-r", tmp_path / "empty").error == wanted


def test_where_the_report_cannot_go_is_told_before_the_work(run, tiny_dataset, tmp_path):
    (tmp_path / "file").write_text("")
    for place, said in (
        (tmp_path, f"{tmp_path} is a folder, but must be a file for the results"),
        (
            tmp_path / "file" / "report.json",
            f"{tmp_path / 'file' / 'report.json'} can't be written: {tmp_path / 'file'} is not a "
            "folder",
        ),
    ):
        outcome = run("-r", tiny_dataset, "-o", place)
        assert (outcome.error, outcome.out) == (said, "")
    assert run("-r", tiny_dataset, "-o", tmp_path / "new" / "report.json").code == 0
    assert json.loads((tmp_path / "new" / "report.json").read_text())["summary"]["subjects"] == 4


@pytest.mark.parametrize("processes", [1, 2])
def test_no_file_ends_the_batch(run, tiny_dataset, processes):
    """A FIFO, a header that overflows, an affine without end: each is its subject's defect."""
    t2 = [sequence_file(tiny_dataset, number, "t2") for number in range(4)]
    t2[0].unlink()
    os.mkfifo(t2[0])
    content = bytearray(gzip.decompress(t2[1].read_bytes()))
    content[108:112] = np.float32(np.inf).tobytes()  # vox_offset
    t2[1].write_bytes(gzip.compress(content))
    content = bytearray(gzip.decompress(t2[2].read_bytes()))
    content[280:284] = np.float32(np.inf).tobytes()  # srow_x
    t2[2].write_bytes(gzip.compress(content))
    outcome = run("-r", tiny_dataset, "--processes", processes)
    assert outcome.code == 1
    defects = [line for line in outcome.out.splitlines() if line.startswith("Tiny_")]
    assert [line[:10] for line in defects] == ["Tiny_00000", "Tiny_00001", "Tiny_00002"]
    assert "4, 3 with defects" in outcome.out


def test_any_failure_of_a_library_is_a_subjects_defect(tiny_dataset, monkeypatch):
    def broken(*_):
        raise RuntimeError("a library's own trouble")

    monkeypatch.setattr(check_module, "describe", broken)
    report = check_subject(DataConfig(root=tiny_dataset), "Tiny_00000", 15)
    assert report.defects == ["its files can't be used (RuntimeError: a library's own trouble)"] * 4


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not here")
def test_real_scans():
    sequences = {
        "t1": ("{name}/*-t1n.nii.gz", "{name}/t1.nii.gz"),
        "t1ce": ("{name}/*-t1c.nii.gz", "{name}/t1c.nii.gz"),
        "t2": ("{name}/*-t2w.nii.gz", "{name}/t2.nii.gz"),
        "flair": ("{name}/*-t2f.nii.gz", "{name}/flair.nii.gz"),
    }
    data = DataConfig(root=REAL, sequences=sequences, segmentation=("{name}/*-seg.nii.gz",))
    names = ("brats/BraTS-GLI-00000-000", "metastasis/AURORA_example")
    reports = [check_subject(data, name, 15) for name in names]
    assert [report.defects for report in reports] == [[], []]
    summary = summarise(reports)
    assert summary["grid_sizes"] == {"240 × 240 × 155": 2}
    assert summary["orientations"] == {"LPS": 1, "RAS": 1}
