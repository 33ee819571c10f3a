"""The study of TSF-Pyramid: its folds, its commands, and scores put together."""

import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, blob, save_nifti

from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import itertools

import network_study
import study

SUBJECTS = (*network_study.GLIOMAS, *network_study.OTHERS, *network_study.SCANNER)


@pytest.fixture
def scans(tmp_path) -> Path:
    for name in SUBJECTS:
        save_nifti(tmp_path / "scans" / name / "t1.nii.gz", blob(0))
    return tmp_path / "scans"


def values_after(command: list[str], option: str) -> list[str]:
    """What follows each `option`."""
    return [after for word, after in itertools.pairwise(command) if word == option]


def test_every_subject_is_tested_once_by_networks_that_never_saw_it():
    tested = [name for names in network_study.FOLDS.values() for name in names]
    assert sorted(tested) == sorted(SUBJECTS)


def test_commands(scans, tmp_path, monkeypatch):
    """Every network of a fold, trained on the others, and scored beside the baselines."""
    commands: list[list[str]] = []

    def note(*words: object) -> None:
        command = [*map(str, words)]
        commands.append(command)
        folder = Path(values_after(command, "-o")[0])
        if "evaluate.py" in command[0]:
            folder.mkdir(parents=True)
            name = folder.parent.parent.name
            (folder / "metrics.csv").write_text(f'name,method\n{name},"tsf, finished"\n')

    for module in (study, network_study):
        monkeypatch.setattr(module, "run_command", note)
    network_study.study(scans, tmp_path / "out", ["a", "b", "scanner"], [0], ablation=True)
    assert all((REPOSITORY / command[0]).is_file() for command in commands)
    of_fold = 2 + 1 + 1 + len(network_study.ABLATION) + 1
    assert len(commands) == 3 * of_fold + 1
    for fold in ("a", "b", "scanner"):
        training = (tmp_path / f"out/{fold}/train.csv").read_text().split()
        testing = (tmp_path / f"out/{fold}/test.csv").read_text().split()
        names = [{row.split(",")[0] for row in rows} for rows in (training, testing)]
        assert names[0].isdisjoint(names[1])
        assert names[0] | names[1] == set(SUBJECTS)
    assert (tmp_path / "out/seed0/metrics.csv").read_text() == (
        'name,method\na,"tsf, finished"\nb,"tsf, finished"\n'
    )
    scored = [command for command in commands if "--like" in command]
    assert len(scored) == 1
    assert "scanner" in values_after(scored[0], "-o")[0]


@pytest.mark.parametrize("name", network_study.ABLATION)
def test_settings_of_the_ablation_are_settings(name):
    path = REPOSITORY / "config/demo/tsf_pyramid.yaml"
    assert load_config(path, network_study.ABLATION[name]) != load_config(path)


def test_scores_of_other_columns_are_not_merged(tmp_path):
    (tmp_path / "a.csv").write_text("subject,psnr\nx,1\n")
    (tmp_path / "b.csv").write_text("subject,ssim\ny,1\n")
    with pytest.raises(UserError, match=r"b\.csv has other columns than .*a\.csv"):
        network_study.merge([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "merged.csv")
