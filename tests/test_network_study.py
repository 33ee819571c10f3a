"""The studies of TSF-Pyramid: their folds, their commands, and scores put together."""

import itertools
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, blob, save_nifti

from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, read_scores, write_scores

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import network_study
import study
import study_tables

SUBJECTS = (*network_study.GLIOMAS, *network_study.OTHERS, *network_study.SCANNER)
Commands = list[list[str]]


@pytest.fixture
def commands(monkeypatch) -> Commands:
    """What would be run, instead of running it; evaluations and trainings leave a few files."""
    noted: Commands = []

    def note(*words: object) -> None:
        command = [*map(str, words)]
        noted.append(command)
        (folder,) = map(Path, values_after(command, "-o"))
        folder.mkdir(parents=True, exist_ok=True)
        if "train" in command[0]:
            (folder / "log.csv").write_text("step,seconds\n50,1.5\n100,3\n")
        elif "evaluate.py" in command[0]:
            names = command[command.index("--names") + 1 : command.index("--set")]
            fold = values_after(command, "--set")[1].split("/")[-2]
            rows = [score(f"{fold}_subject", name, 20 + len(name)) for name in names]
            write_scores(folder / "metrics.csv", rows)

    for module in (study, network_study):
        monkeypatch.setattr(module, "run_command", note)
    return noted


def score(name: str, method: str, psnr: float, sources: str = "t1") -> Score:
    return Score(name, sources, "t2", method, psnr, 0.5, 3.0, 0.1)


def values_after(command: list[str], option: str) -> list[str]:
    """What follows each `option`."""
    return [after for word, after in itertools.pairwise(command) if word == option]


def subjects_of(path: Path) -> list[str]:
    return [row.split(",")[0] for row in path.read_text().split()]


def test_every_subject_is_tested_once_by_networks_that_never_saw_it():
    tested = [name for names in network_study.FOLDS.values() for name in names]
    assert sorted(tested) == sorted(SUBJECTS)


def test_networks(commands, tmp_path):
    """Every network of a fold, trained on the others, and scored beside the baselines."""
    network_study.study_networks(tmp_path, ["a", "b", "scanner"], [0, 1])
    assert all((REPOSITORY / command[0]).is_file() for command in commands)
    assert len(commands) == 3 * 2 * (2 + 1 + 1) + 2
    for fold in ("a", "b", "scanner"):
        training, testing = (
            subjects_of(tmp_path / fold / f"{part}.csv") for part in ("train", "test")
        )
        assert sorted(training + testing) == sorted(SUBJECTS)
    merged = {row.name for row in read_scores(tmp_path / "networks/folds/metrics.csv")}
    assert merged == {"a_subject", "b_subject"}
    scored = [command for command in commands if "--like" in command]
    assert len(scored) == 2
    assert all("/scanner/" in values_after(command, "-o")[0] for command in scored)


def test_ablation(commands, tmp_path):
    network_study.study_ablation(tmp_path, ["b"], [0])
    trained = [command for command in commands if "train.py" in command[0]]
    assert len(trained) == 1 + len(network_study.ABLATION)
    table = (tmp_path / "ablation/summary.md").read_text()
    line = next(line for line in table.splitlines() if line.startswith("| no_joint"))
    assert [*map(str.strip, line.split("|")[2:-1])] == ["28.00 / 0.500 / 3.00", "+1.00", "3"]


def test_pretraining(commands, tmp_path):
    """Pre-trained and fresh networks see the same patients: two, four, all."""
    weights = tmp_path / "pretrained.pth"
    network_study.study_pretraining(tmp_path, ["c"], [0], weights)
    trained = [command for command in commands if "train.py" in command[0]]
    by_start = [
        [
            subjects_of(Path(word.removeprefix("data.train=")))
            for word in command
            if "data.train=" in word
        ]
        for start in (True, False)
        for command in trained
        if ("-l" in command) == start
    ]
    assert [len(names) for (names,) in by_start] == [2, 4, 5] * 2
    assert by_start[:3] == by_start[3:]
    assert all(values_after(command, "-l") in ([], [str(weights)]) for command in trained)
    evaluated = next(command for command in commands if "evaluate.py" in command[0])
    assert evaluated[evaluated.index("--set") - 1] == "pretrained"


@pytest.mark.parametrize("name", network_study.ABLATION)
def test_settings_of_the_ablation_are_settings(name):
    path = REPOSITORY / "config/demo/tsf_pyramid.yaml"
    assert load_config(path, network_study.ABLATION[name]) != load_config(path)


def test_seeds_are_averaged_volume_by_volume(tmp_path):
    """Folds hold different subjects, seeds the same; by hand."""
    rows = {
        (0, "a"): [
            score("x", "p", 20),
            score("x", "q", 19),
            score("x", "p", 24, "t1+flair"),
            score("x", "q", 23, "t1+flair"),
        ],
        (0, "b"): [
            score("y", "p", 30),
            score("y", "q", 31),
            score("y", "p", 30, "t1+flair"),
            score("y", "q", 31, "t1+flair"),
        ],
        (1, "a"): [
            score("x", "p", 22),
            score("x", "q", 18),
            score("x", "p", 26, "t1+flair"),
            score("x", "q", 25, "t1+flair"),
        ],
        (1, "b"): [
            score("y", "p", 32),
            score("y", "q", 31),
            score("y", "p", 28, "t1+flair"),
            score("y", "q", 29, "t1+flair"),
        ],
    }
    for (seed, fold), own in rows.items():
        write_scores(tmp_path / f"{fold}{seed}.csv", own)
    scores = {seed: [tmp_path / f"{fold}{seed}.csv" for fold in "ab"] for seed in (0, 1)}
    study_tables.merge(scores, tmp_path / "merged.csv")
    merged = {
        (row.name, row.method, row.sources): row.psnr
        for row in read_scores(tmp_path / "merged.csv")
    }
    assert merged == {
        ("x", "p", "t1"): 21,
        ("x", "q", "t1"): 18.5,
        ("x", "p", "t1+flair"): 25,
        ("x", "q", "t1+flair"): 24,
        ("y", "p", "t1"): 31,
        ("y", "q", "t1"): 31,
        ("y", "p", "t1+flair"): 29,
        ("y", "q", "t1+flair"): 30,
    }
    table = study_tables.summarise(scores, "p", {"q": [10, 20]}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[0][-3:] == ["− p, seed 0 (dB)", "− p, seed 1 (dB)", "training (s)"]
    of_p = [
        "p",
        "26.00 / 0.500 / 3.00",
        "27.00 / 0.500 / 3.00",
        "+0.00 / +0.00",
        "+0.00 / +0.00",
        "–",
    ]
    assert cells[2] == of_p


def test_scans_that_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"patient07 holds no \.nii\.gz file"):
        study.halve(tmp_path / "scans", tmp_path / "out", "ms/patient07")


def test_scans_are_halved(tmp_path):
    save_nifti(tmp_path / "scans/ms/patient07/t1.nii.gz", blob(0))
    study.halve(tmp_path / "scans", tmp_path / "out", "ms/patient07")
    assert (tmp_path / "out/ms/patient07/t1.nii.gz").exists()
