"""Benchmarks of adaptation: what it costs, and the studies of what it brings."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, REPOSITORY, SEQUENCES, blob, save_nifti

from tsf_seq2seq.errors import UserError

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import adaptation_study
import bench_adaptation
import study


def test_costs_of_adaptation(monkeypatch, tiny_config):
    """Every job runs in a process of its own; ratios are to the plain imputation."""

    def simulate(folder: Path, number: int, spacing: float) -> list[str]:
        names = [f"made{index}" for index in range(number)]
        for index, name in enumerate(names):
            for place, sequence in enumerate(SEQUENCES):
                path = folder / name / f"{name}_{sequence}.nii.gz"
                save_nifti(path, blob(10 * index + place))
        return names

    monkeypatch.setattr(bench_adaptation, "write_phantom_dataset", simulate)
    costs = bench_adaptation.measure(tiny_config, 2.0, "fp32", repeats=1)
    assert list(costs) == ["imputation", "adapting to one reference", "imputation, adapted"]
    assert all(cost.seconds > 0 and cost.peak > 1e7 for own in costs.values() for cost in own)
    made = {"a": [bench_adaptation.Cost(2, 3e9)], "b": [bench_adaptation.Cost(3, 4e9)]}
    assert bench_adaptation.table(made)[1:] == [
        ["a", "2.0", "1.00", "3.00", "+0.00"],
        ["b", "3.0", "1.50", "4.00", "+1.00"],
    ]


def test_voxels_are_means_of_eight(tmp_path):
    voxels = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    save_nifti(tmp_path / "scans/a/t1.nii.gz", voxels, LPS_AFFINE)
    labels = np.zeros((2, 2, 4), np.float32)
    labels[..., :2].flat[:3], labels[..., 2:].flat[:5] = 3, 4
    save_nifti(tmp_path / "scans/a/a-seg.nii.gz", labels, LPS_AFFINE)
    study.halve(tmp_path / "scans", tmp_path / "half", "a")
    image = nib.load(tmp_path / "half/a/t1.nii.gz")
    assert image.shape == (2, 3, 1)
    assert image.get_fdata()[1, 2, 0] == voxels[2:4, 4:6, :2].mean()
    halved = nib.load(tmp_path / "half/a/a-seg.nii.gz").get_fdata()
    assert halved.ravel().tolist() == [0, 4]  # the most frequent label
    np.testing.assert_allclose(image.affine @ (0, 0, 0, 1), LPS_AFFINE @ (0.5, 0.5, 0.5, 1))
    assert image.header.get_zooms() == (2, 2, 2)
    with pytest.raises(UserError, match=r"b holds no \.nii\.gz file"):
        study.halve(tmp_path / "scans", tmp_path / "half", "b")


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Those that a study would run, none of which is."""
    found: list[list[str]] = []
    for module in (study, adaptation_study):
        monkeypatch.setattr(module, "run_command", lambda *own: found.append([*map(str, own)]))
    return found


def test_the_study_of_scans(commands, tmp_path):
    for name in (*adaptation_study.TRAINED, *adaptation_study.TESTED):
        save_nifti(tmp_path / "scans" / name / "t1.nii.gz", blob(0))
    adaptation_study.study_scans(tmp_path / "scans", tmp_path / "out", [0, 1], 1.0)
    assert all((REPOSITORY / command[0]).is_file() for command in commands)
    assert len(commands) == 2 * (2 + 1 + 4 + 1)
    assert "train.steps=5000" in commands[0]
    assert "train.schedule_epochs=250" in commands[0]
    assert (tmp_path / "out/test.csv").read_text().splitlines()[0] == "ms/patient07,11,one"
    text = (tmp_path / "out/seed0/seq2seq.yaml").read_text()
    assert '- "{name}/T1POST_*.nii.gz"' in text


def test_the_study_of_phantoms(commands, tmp_path):
    data = tmp_path / "out/sites"
    data.mkdir(parents=True)
    (data / "test.csv").write_text("name,mask,site\nb,3,S\na,1,S\nc,2,S\n")
    adaptation_study.study_phantoms(tmp_path / "out", [0], 0.1)
    assert all((REPOSITORY / command[0]).is_file() for command in commands)
    assert (tmp_path / "out/reference.csv").read_text() == "a,15\n"
    assert (tmp_path / "out/rest.csv").read_text() == "name,mask,site\nb,3,S\nc,2,S\n"
    steps = [word for command in commands for word in command if word.startswith("train.steps")]
    assert steps == [f"train.steps={number}" for number in (400, 400, 70, 350, 1400)]
    assert commands[-1][-1] == str(tmp_path / "out/seed0/fine_tuned")
