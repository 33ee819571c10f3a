"""Results of an evaluation belong to what lies there: what changed is done again, and said so."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.trust import compare_methods
from tsf_seq2seq.config import load_config
from tsf_seq2seq.evaluation import protocol
from tsf_seq2seq.models import build_network
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer

NAMES = [f"Tiny_0000{number}" for number in range(4)]
HOLDER = """
import sys, time
from pathlib import Path
from tsf_seq2seq.files.folder import claimed
with claimed(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(60)
"""
SPLIT = "Tiny_00000,14\nTiny_00003,10\nTiny_00001,7\n"  # 1, 2 and 1 missing


@pytest.fixture
def run(stage_2, script, tmp_path, tiny_dataset):
    """run(folder, options…): the evaluation of three subjects into a folder."""
    (tiny_dataset / "test.csv").write_text(SPLIT)
    return lambda folder, *options: script(
        evaluate_tsf_seq2seq, "-l", stage_2, "-o", tmp_path / folder, *options
    )


def left_in(folder: Path) -> dict[str, bytes]:
    """Content of every file, but for the picture of examples of the subjects done last."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: own for name, own in content.items() if name != "examples.png"}


def subjects_in(folder: Path) -> list[str]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(dict.fromkeys(row["name"] for row in csv.DictReader(file)))


def again(*reasons: str) -> str:
    """What is said of subjects that are done again."""
    subjects = "1 subject is" if len(reasons) == 1 else f"{len(reasons)} subjects are"
    return f"{subjects} done again, to be true to what lies there: {', '.join(reasons)}"


def check_as_new(run, tmp_path: Path) -> None:
    """The folder `out` holds what a run into a new folder leaves."""
    assert run("clean").code == 0
    assert left_in(tmp_path / "out") == left_in(tmp_path / "clean")


# --- what lies there has changed


def test_a_scan_that_changed(run, tiny_dataset, tmp_path):
    assert run("out").code == 0
    before = left_in(tmp_path / "out")
    save_nifti(sequence_file(tiny_dataset, 3, "t2"), blob(99))
    outcome = run("out")
    assert outcome.out.splitlines()[0] == again(f"{NAMES[3]} (changed: t2)")
    assert left_in(tmp_path / "out")["metrics.csv"] != before["metrics.csv"]
    check_as_new(run, tmp_path)


def test_a_scan_that_no_task_needs(run, tiny_dataset, tmp_path):
    """Mask 6 = t1ce and t2, to flair alone: t1 is not on disk, and whether it is doesn't count."""
    sequence_file(tiny_dataset, 2, "t1").unlink()
    (tiny_dataset / "test.csv").write_text("Tiny_00002,6\n")
    assert run("out").code == 0
    before = left_in(tmp_path / "out")
    sequence_file(tiny_dataset, 2, "flair").touch()
    outcome = run("out")
    assert "again" not in outcome.out
    assert left_in(tmp_path / "out") == before


def test_a_mask_that_changed(run, tiny_dataset, tmp_path):
    """The tasks are others: predictions of those before are gone."""
    assert run("out").code == 0
    (tiny_dataset / "test.csv").write_text(SPLIT.replace("3,10", "3,11"))
    outcome = run("out")
    assert outcome.out.splitlines()[0].startswith(again(f"{NAMES[3]} (changed: ")[:-1])
    assert "its tasks)" in outcome.out
    names = {path.name for path in (tmp_path / "out" / "predict").glob("Tiny_00003*")}
    assert names == {"Tiny_00003_t1ce_from_t1+t2+flair.nii.gz"}
    check_as_new(run, tmp_path)


def test_predictions_that_are_missing_or_changed(run, tmp_path):
    assert run("out").code == 0
    before = left_in(tmp_path / "out")
    predictions = sorted((tmp_path / "out" / "predict").iterdir())
    predictions[0].unlink()
    predictions[-1].write_bytes(predictions[1].read_bytes())
    outcome = run("out")
    assert outcome.out.splitlines()[0] == again(
        f"{NAMES[0]} (predictions missing or changed)",
        f"{NAMES[3]} (predictions missing or changed)",
    )
    assert left_in(tmp_path / "out") == before


def test_predictions_are_made_later(run, tmp_path):
    assert run("out", "--no-predictions").code == 0
    scores = left_in(tmp_path / "out")["metrics.csv"]
    outcome = run("out")
    reasons = [f"{NAMES[number]} (without predictions)" for number in (0, 3, 1)]
    assert outcome.out.splitlines()[0] == again(*reasons)
    assert left_in(tmp_path / "out")["metrics.csv"] == scores
    check_as_new(run, tmp_path)
    assert "again" not in run("out", "--no-predictions").out
    assert left_in(tmp_path / "out") == left_in(tmp_path / "clean")


def test_old_predictions_of_a_subject_done_again_without_are_gone(run, tiny_dataset, tmp_path):
    assert run("out").code == 0
    save_nifti(sequence_file(tiny_dataset, 0, "t1"), blob(98))
    assert run("out", "--no-predictions").code == 0
    owners = {path.name[:10] for path in (tmp_path / "out" / "predict").iterdir()}
    assert owners == {NAMES[1], NAMES[3]}


def test_more_subjects_than_a_line_names(run, tiny_dataset):
    (tiny_dataset / "test.csv").write_text("".join(f"{name},14\n" for name in NAMES))
    assert run("out").code == 0
    for number in range(4):
        save_nifti(sequence_file(tiny_dataset, number, "flair"), blob(90 + number))
    first = run("out").out.splitlines()[0]
    reasons = [f"{name} (changed: flair)" for name in NAMES]
    assert first == again(*reasons).replace(f", {reasons[3]}", " and 1 more")


# --- subjects that are not asked for


def test_subjects_that_are_not_asked_for_are_kept(run, tiny_dataset, tmp_path):
    assert run("out").code == 0
    whole = left_in(tmp_path / "out")
    record = tmp_path / "out" / "evaluation.record"
    outcome = run("out", "--max-subjects", 1)
    assert outcome.out.splitlines()[0] == (
        f"2 subjects are not asked for now, and kept in {record}: {NAMES[3]}, {NAMES[1]}"
    )
    assert subjects_in(tmp_path / "out") == [NAMES[0]]
    assert run("one", "--max-subjects", 1).code == 0
    one = left_in(tmp_path / "one")
    for name in ("metrics.csv", "table.md", "table.json"):
        assert left_in(tmp_path / "out")[name] == one[name]
    save_nifti(sequence_file(tiny_dataset, 1, "flair"), blob(97))
    assert run("out").out.splitlines()[0] == again(f"{NAMES[1]} (changed: flair)")
    check_as_new(run, tmp_path)
    assert set(left_in(tmp_path / "out")) == set(whole)


def test_what_was_made_of_former_scores_goes(run, script, tiny_dataset, tmp_path):
    assert run("out", "--methods", "tsf", "mean_image").code == 0
    assert script(compare_methods, tmp_path / "out").code == 0
    files = {"comparisons.csv", "comparisons.md"}
    assert "removed" not in run("out", "--methods", "tsf", "mean_image").out
    assert files <= set(left_in(tmp_path / "out"))
    save_nifti(sequence_file(tiny_dataset, 3, "flair"), blob(97))
    said = run("out", "--methods", "tsf", "mean_image").out.splitlines()
    assert said[1] == "removed, as they were of former scores: comparisons.csv, comparisons.md"
    assert not files & set(left_in(tmp_path / "out"))


def test_rows_stand_in_the_splits_order(run, tiny_dataset, tmp_path):
    (tiny_dataset / "test.csv").write_text("".join(reversed(SPLIT.splitlines(True))))
    assert run("out").code == 0
    (tiny_dataset / "test.csv").write_text(SPLIT)
    assert "again" not in run("out").out
    assert subjects_in(tmp_path / "out") == [NAMES[0], NAMES[3], NAMES[1]]
    check_as_new(run, tmp_path)


# --- what else results depend on


def test_other_runs_are_refused_by_what_differs(run, tiny_config, stage_2):
    assert run("out").code == 0
    assert "evaluation.json differs in data)" in run("out", "--set", "data.crop=[8, 8]").error
    assert "evaluation.json differs in max_slices)" in run("out", "--max-slices", 3).error
    config = load_config(tiny_config)
    save_checkpoint(stage_2, build_network(config), config)  # other random weights
    assert "evaluation.json differs in weights)" in run("out").error


def test_baselines_belong_to_the_training_subjects(run, tiny_dataset, tmp_path):
    options = ("--methods", "tsf", "mean_image")
    assert run("out", *options).code == 0
    assert run("out", *options).code == 0
    save_nifti(sequence_file(tiny_dataset, 1, "t1ce"), blob(96))
    error = run("out", *options).error
    assert "evaluation.json differs in training_subjects)" in error


def test_scores_of_an_earlier_version_are_not_overwritten(run, tmp_path):
    assert run("out").code == 0
    (tmp_path / "out" / "evaluation.record").unlink()
    (tmp_path / "out" / "evaluation.json").write_text("{}")
    assert "holds the results of another run" in run("out").error


# --- runs that ended


@pytest.mark.parametrize("damage", ["cut", "edited", "gone"])
def test_metrics_that_lost_a_row_are_made_anew(run, tmp_path, damage):
    assert run("out").code == 0
    before = left_in(tmp_path / "out")
    path = tmp_path / "out" / "metrics.csv"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(before["metrics.csv"][:-9] + (b"" if damage == "cut" else b"123456.5\n"))
    assert "again" not in run("out").out
    assert left_in(tmp_path / "out") == before


def test_a_record_whose_line_is_damaged(run, tmp_path):
    assert run("out").code == 0
    before = left_in(tmp_path / "out")
    path = tmp_path / "out" / "evaluation.record"
    path.write_bytes(before["evaluation.record"][:-30])
    assert run("out").code == 0
    assert left_in(tmp_path / "out") == before


def test_ctrl_c(run, tmp_path, monkeypatch):
    """One line, 130; what is done stays, and of the subject that was begun nothing does."""
    predict, calls = NetworkSynthesizer.predict, []

    def interrupted(self, window, tasks):
        calls.append(tasks)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(self, window, tasks)

    monkeypatch.setattr(NetworkSynthesizer, "predict", interrupted)
    outcome = run("out")
    assert (outcome.code, outcome.err) == (130, ["interrupted"])
    assert subjects_in(tmp_path / "out") == [NAMES[0]]
    outcome = run("out")
    assert outcome.out.splitlines()[0] == again(f"{NAMES[3]} (left unfinished)")
    assert len(calls) == 4
    check_as_new(run, tmp_path)


def test_a_run_that_is_killed_while_it_redoes_a_subject(run, tiny_dataset, tmp_path, monkeypatch):
    """Its former predictions and row are gone, whoever asks next, and for whom."""
    assert run("out").code == 0
    save_nifti(sequence_file(tiny_dataset, 3, "t1"), blob(95))

    def killed(path, *more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(protocol, "write_volume", killed)
    assert run("out").error == "No space left on device"
    monkeypatch.undo()
    assert subjects_in(tmp_path / "out") == [NAMES[0], NAMES[1]]
    assert not list((tmp_path / "out" / "predict").glob("Tiny_00003*"))
    for name in ("table.md", "table.json", "examples.png"):
        assert not (tmp_path / "out" / name).exists()
    assert run("out").out.splitlines()[0] == again(f"{NAMES[3]} (left unfinished)")
    check_as_new(run, tmp_path)


def test_two_runs_at_once(stage_2, run, tmp_path, tiny_dataset):
    """The second is told before it does anything."""
    folder = tmp_path / "out"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert run("out").error.startswith(f"{folder} is in use: process {process.pid} on ")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("out").code == 0


def test_an_output_that_is_a_file_is_told_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "out").write_text("")
    monkeypatch.setattr(protocol, "load_window", lambda *_: pytest.fail("work has begun"))
    assert run("out").error == f"{tmp_path / 'out'} is a file, but must be a folder for the results"


# --- names


def test_predictions_that_would_be_one_file(run, tiny_dataset):
    for i, sequence in enumerate(SEQUENCES):
        for name in ("a/b", "a_b", "A_b"):
            save_nifti(tiny_dataset / name / f"{Path(name).name}_{sequence}.nii.gz", blob(i))
    patterns = ", ".join(f"{s}: '{{name}}/*_{s}.nii.gz'" for s in SEQUENCES)
    option = ("--set", f"data.sequences={{{patterns}}}")
    for names in (("a/b", "a_b"), ("a_b", "A_b")):
        (tiny_dataset / "test.csv").write_text("".join(f"{name},14\n" for name in names))
        error = run("out", *option).error
        assert error.endswith(
            f"would be a file of subject {names[1]} and of subject {names[0]}: rename one"
        )
        assert np.all([name in error for name in names])
        assert run(f"none {names[0]}".replace("/", ""), *option, "--no-predictions").code == 0
