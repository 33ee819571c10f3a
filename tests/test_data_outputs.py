"""What make_split.py and make_phantom_dataset.py leave: all of it or nothing, one run at a time."""

import os
from pathlib import Path

import pytest

from tsf_seq2seq.cli.data import make_split
from tsf_seq2seq.cli.phantom import make_phantom_dataset
from tsf_seq2seq.config import BRATS_SEQUENCES
from tsf_seq2seq.data.split import group_by_patient, write_split
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.phantom import subject as phantom_module
from tsf_seq2seq.phantom.subject import write_phantom_dataset


def csvs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("*"))}


def test_splits_change_together(tiny_dataset, tmp_path, monkeypatch):
    output = tmp_path / "splits"
    write_split(tiny_dataset, BRATS_SEQUENCES, output, (2, 1, 1), 0)
    before, own = csvs(output), Path.write_bytes
    assert list(before) == ["test.csv", "train.csv", "valid.csv"]
    written = []

    def failing(path, content):
        own(path, content)
        written.append(path)
        if len(written) == 3:
            raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(UserError, match="No space left"):
        write_split(tiny_dataset, BRATS_SEQUENCES, output, (2, 1, 1), 1)
    assert (len(written), csvs(output)) == (3, before)
    monkeypatch.undo()
    write_split(tiny_dataset, BRATS_SEQUENCES, output, (2, 1, 1), 1)
    assert csvs(output).keys() == before.keys()
    assert csvs(output) != before


@pytest.mark.parametrize("shares", [("nan", 1, 1), ("inf", 1, 1), ("1e308", "1e308", "1e308")])
def test_shares_are_finite(script, tiny_dataset, tmp_path, shares):
    outcome = script(make_split, "-r", tiny_dataset, "-o", tmp_path / "out", "--shares", *shares)
    assert outcome.error.startswith("shares must be three numbers from 0, not [")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("patient", ["(a{99999999999999999999})", "(" * 5000 + ")" * 5000])
def test_patients_that_no_machine_matches(patient):
    with pytest.raises(UserError, match="is no regular expression"):
        group_by_patient(["a"], patient)


def test_a_group_that_finds_nothing_names_no_patient():
    """Else all such subjects would be one patient."""
    assert group_by_patient(["p1", "p2", "x3"], "(x)?.*") == [["p1"], ["p2"], ["x3"]]


def test_a_split_is_one_runs_at_a_time(script, tiny_dataset, tmp_path):
    with claimed(tmp_path / "out"):
        outcome = script(make_split, "-r", tiny_dataset, "-o", tmp_path / "out")
    assert outcome.error.startswith(f"{tmp_path / 'out'} is in use: process {os.getpid()} on ")
    (tmp_path / "file").write_text("")
    outcome = script(make_split, "-r", tiny_dataset, "-o", tmp_path / "file")
    assert outcome.error == f"{tmp_path / 'file'} is a file, but must be a folder for the results"


@pytest.fixture
def small_phantoms(monkeypatch):
    """Subjects are a file each, made in no time."""

    def write(root, seed, spacing, noise_free, sequences, sites, any_contrast, index):
        (root / str(index)).write_text(str(seed))
        return str(index)

    monkeypatch.setattr(phantom_module, "_write_subject", write)


def test_phantoms_are_one_runs_at_a_time(script, small_phantoms, tmp_path):
    with claimed(tmp_path / "out"):
        outcome = script(make_phantom_dataset, "-o", tmp_path / "out", "-n", 2)
    assert outcome.error.startswith(f"{tmp_path / 'out'} is in use: process {os.getpid()} on ")


def test_a_lock_that_a_killed_run_left_is_no_subject(small_phantoms, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("")
    assert write_phantom_dataset(tmp_path / "out", 2, seed=3) == ["0", "1"]
    assert csvs(tmp_path / "out").items() >= {"0": "3", "1": "3"}.items()
    with pytest.raises(UserError, match="holds phantoms of other settings"):
        write_phantom_dataset(tmp_path / "out", 2)
