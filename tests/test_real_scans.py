"""Both stages on real scans of four naming schemes and three orientations, if at hand."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY_SEQ2SEQ, TINY_TSF, tiny_yaml

from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.train import train_seq2seq, train_tsf_seq2seq
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.subjects import find_segmentation, find_subjects
from tsf_seq2seq.evaluation.scores import read_scores

SCANS = REPOSITORY.parent / "shared" / "data"
SEQUENCES = {
    "t1": [
        "{name}/*-t1n.nii.gz",
        "{name}/t1.nii.gz",
        "{name}/*_t1_bet.nii.gz",
        "{name}/T1_*.nii.gz",
    ],
    "t1ce": ["{name}/*-t1c.nii.gz", "{name}/t1c.nii.gz", "{name}/*_t1c_bet.nii.gz", "{name}/T1P*"],
    "t2": [
        "{name}/*-t2w.nii.gz",
        "{name}/t2.nii.gz",
        "{name}/*_t2_bet.nii.gz",
        "{name}/T2_*.nii.gz",
    ],
    "flair": [
        "{name}/*-t2f.nii.gz",
        "{name}/flair.nii.gz",
        "{name}/*_fla_bet.nii.gz",
        "{name}/FL*",
    ],
}
TESTED = {"ms/patient26": 11, "metastasis/AURORA_example": 14}  # t1ce and flair are to be made


@pytest.mark.skipif(not SCANS.is_dir(), reason="real scans are not part of the repository")
@pytest.mark.parametrize("stage", ["seq2seq", "tsf_seq2seq"])
def test_few_scans_are_found(stage: str, monkeypatch):
    """Seven subjects with all sequences, each in one split; those of the test have label maps."""
    monkeypatch.chdir(REPOSITORY)
    data = load_config(Path(f"config/few_scans/{stage}.yaml"), [f"data.root={SCANS}"]).data
    splits = [find_subjects(data, split) for split in (data.train, data.valid, data.test)]
    assert [len(subjects) for subjects in splits] == [4, 1, 2]
    assert len({subject.name for subjects in splits for subject in subjects}) == 7
    assert all(subject.on_disk == (0, 1, 2, 3) for subjects in splits for subject in subjects)
    assert all(find_segmentation(data, subject.name) for subject in splits[2])


@pytest.mark.skipif(not SCANS.is_dir(), reason="real scans are not part of the repository")
def test_training_and_evaluation(script, tmp_path: Path):
    names = ["brats/BraTS-GLI-00000-000", "tcga/TCGA-DU-7294"]
    (tmp_path / "train.csv").write_text("".join(f"{name},15\n" for name in names))
    (tmp_path / "valid.csv").write_text("ms/patient07,13\n")
    (tmp_path / "test.csv").write_text("".join(f"{n},{mask}\n" for n, mask in TESTED.items()))
    values = yaml.safe_load(tiny_yaml(TINY_SEQ2SEQ, tmp_path, tmp_path / "run"))
    values["data"] |= {"root": str(SCANS), "sequences": SEQUENCES, "slices": 128}
    values["data"] |= {"crop": [192, 192], "validation_stacks": 2, "cache_gb": 2}
    values["train"] |= {"steps": 3, "validation_steps": 3}
    stage_1, stage_2 = tmp_path / "stage_1.yaml", tmp_path / "stage_2.yaml"
    stage_1.write_text(yaml.safe_dump(values, sort_keys=False))
    stage_2.write_text(f"base: stage_1.yaml\n{TINY_TSF}")
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    assert script(train_seq2seq, "-c", stage_1, "-o", one).code == 0
    weights = ("-m", one / "best.pth")
    assert script(train_tsf_seq2seq, "-c", stage_2, *weights, "-o", two).code == 0
    arguments = ["-l", two / "best.pth", "-o", out, "--max-slices", 3]
    assert script(evaluate_tsf_seq2seq, *arguments).code == 0
    assert all(np.isfinite(score.psnr) for score in read_scores(out / "metrics.csv"))
    predictions = {path.name: nib.load(path) for path in (out / "predict").iterdir()}
    for prediction, source in (
        ("ms_patient26_t1ce_from_t1+t2+flair.nii.gz", "ms/patient26/T1_*"),
        ("metastasis_AURORA_example_flair_from_t1+t1ce+t2.nii.gz", "metastasis/*/t1.nii.gz"),
    ):
        image, original = predictions[prediction], nib.load(next(SCANS.glob(source)))
        assert image.shape == original.shape
        np.testing.assert_allclose(image.affine, original.affine, atol=1e-5)
        inside = image.get_fdata() > -1
        assert 0 < inside.any(axis=(0, 1)).sum() <= 3  # the three central axial slices
