"""Table 1 from one command: what it trains, and what it makes of the scores."""

import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import REPOSITORY, blob, save_nifti
from test_network_study import score, subjects_of, values_after

from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import read_scores, write_scores

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import study
import table1
from bench_networks import Cost

JOBS = 3
METHODS = {
    **{"tsf": 23.5, "pyramid": 27.0, "hi_net": 28.0, "mm_gan": 24.0, "mean_image": 24.5},
    **{"unet": 22.0, "resvit": 23.0, "pix2pix": 26.0, "diamond_gan": 25.5},
}


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What would be run; an evaluation gives METHODS' scores, Hi-Net's of two inputs alone."""
    noted: list[list[str]] = []

    def note(*words: object, processes: int = 1) -> None:
        command = [*map(str, words)]
        assert (processes == JOBS) == ("src/evaluate/evaluate.py" in command[0])
        noted.append(command)
        (folder,) = map(Path, values_after(command, "-o"))
        folder.mkdir(parents=True, exist_ok=True)
        if "train" in command[0]:
            (folder / "log.csv").write_text("step,seconds\n50,2\n")
        elif "evaluate.py" in command[0]:
            rows = [
                score("x", method, psnr, sources)
                for method, psnr in METHODS.items()
                for sources in ("t1", "t1+flair")
                if (method, sources) != ("hi_net", "t1")
            ]
            write_scores(folder / "metrics.csv", rows)

    for module in (study, table1):
        monkeypatch.setattr(module, "run_command", note)
    cost = Cost("any", 1_000_000, (1e9, None, 3e9), 4e9)
    monkeypatch.setattr(table1, "cost_of", lambda *_: cost)
    return noted


@pytest.fixture
def phantoms(tmp_path) -> Path:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.csv").write_text("name,mask\nP0,7\nP1,11\n")
    return tmp_path


def test_every_method_sees_as_many_crops_and_the_first_four_twice(commands, phantoms, tmp_path):
    data = table1.phantoms(phantoms, crops=800)
    assert data.n_training == 2
    table1.table1(data, tmp_path / "out", [0, 1], JOBS)
    trained = [command for command in commands if "train" in command[0]]
    first = 2 + len(table1.OWN) + len(table1.PEERS)
    again = [Path(values_after(command, "-c")[0]).stem for command in trained[first:]]
    assert {*again} == {"tsf_pyramid", "pix2pix", "mm_gan", "diamond_gan"}  # tsf isn't among them
    assert len(again) == 4
    assert all((REPOSITORY / command[0]).is_file() for command in commands)
    crops = {"seq2seq": 0, "tsf_seq2seq": 0}
    for command in trained[first:]:
        assert load_config(Path(values_after(command, "-c")[0])).network.name
    for command in trained[:first]:
        config = load_config(Path(values_after(command, "-c")[0]), values_after(command, "--set"))
        crops[config.network.name] = config.train.steps * config.train.batch_size
        assert config.data.root == phantoms
        assert config.data.train == phantoms / "train.csv"
    assert crops.pop("seq2seq") + crops.pop("tsf_seq2seq") == 800
    assert set(crops.values()) == {800}
    assert set(crops) == {*table1.OWN, *table1.PEERS}


def test_table(commands, phantoms, tmp_path):
    """The best is the best of those that do every task; what a method can't do is left out."""
    table1.table1(table1.phantoms(phantoms, 800), tmp_path / "out", [0, 1], JOBS)
    compared = next(command for command in commands if "compare_methods.py" in command[0])
    assert values_after(compared, "--method") == ["pyramid"]
    text = (tmp_path / "out/table1.md").read_text()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in text.splitlines())
        if len(cells) > 2
    }
    scores = ["– / – / –", "28.00 / 0.500 / 3.00", "– / +1.00", "– / +1.00", "2"]
    assert rows["hi_net"] == scores
    assert rows["tsf"][2:] == ["-3.50 / -3.50", "-3.50 / -3.50", "4"]  # both stages
    assert rows["any"] == ["1.00 M", "1.00 / – / 3.00", "4.0"]
    assert len(read_scores(tmp_path / "out/metrics.csv")) == 2 * len(METHODS) - 1


def test_tasks_run_side_by_side():
    both = threading.Barrier(2, timeout=20)  # broken unless two wait at the same time
    study.side_by_side([both.wait] * 4, jobs=2)


def test_no_task_starts_after_an_error():
    started = []

    def fail() -> None:
        started.append("failed")
        raise UserError("train.py failed")

    with pytest.raises(UserError, match=r"train\.py failed"):
        study.side_by_side(
            [fail, *[partial(time.sleep, 0.3)] * 2, *[partial(started.append, 1)] * 99], 2
        )
    assert len(started) < 100


def test_scans(tmp_path):
    for name in (*table1.TRAINED, *table1.VALIDATED, *table1.TESTED):
        save_nifti(tmp_path / "scans" / name / "t1.nii.gz", blob(0))
    data = table1.real_scans(tmp_path / "scans", tmp_path / "out", 800)
    assert (data.n_training, data.scans) == (4, True)
    names = [subjects_of(data.settings[part]) for part in ("train", "valid", "test")]
    assert [len(own) for own in names] == [4, 1, 2]
    assert len({name for own in names for name in own}) == 7


def test_phantoms_that_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv does not exist: -r must name the phantoms"):
        table1.phantoms(tmp_path, 800)
