"""A run's folder: damage that resuming meets, changed data, other runs, full disks, Ctrl-C."""

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import (
    REPOSITORY,
    SEQUENCES,
    TINY_SEQ2SEQ,
    blob,
    save_nifti,
    sequence_file,
    tiny_yaml,
)

from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.prepare import STORED, fill_store
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import LOCK, claimed
from tsf_seq2seq.models import build_network
from tsf_seq2seq.report.inputs import Inputs, ReportSources
from tsf_seq2seq.report.sections import training
from tsf_seq2seq.training import loop
from tsf_seq2seq.training.log import TrainingLog, read_log, writers_thread_quiet

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
HEADER = "step,epoch,lr,loss,reconstruction,validation_psnr,seconds\r\n"
ROWS = "1,0,0.1,2.5,0.25,,0.1\r\n2,0,0.1,1.5,0.15,,0.2\r\n2,,,,,20.5,0.3\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No curves.png: its drawing takes longer than all steps."""
    monkeypatch.setattr("tsf_seq2seq.training.log.plot_curves", lambda *_: None)


@pytest.fixture
def yaml(tiny_dataset, tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(tiny_yaml(TINY_SEQ2SEQ, tiny_dataset, tmp_path / "run"))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def train(yaml, script):
    """train(*options) → how the training script ended; two steps unless it is told otherwise."""
    return lambda *options: script(
        train_network, "-c", yaml, "--set", "train.steps=2", *map(str, options)
    )


def longer(*options: object) -> tuple[object, ...]:
    return "--resume", "--set", "train.steps=4", *options


# --- log.csv


def write_log(folder: Path, content: str | bytes) -> Path:
    path = folder / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rows_of_a_log(tmp_path):
    rows = read_log(write_log(tmp_path, HEADER + ROWS))
    assert [(row["step"], row["loss"], row["validation_psnr"]) for row in rows] == [
        ("1", "2.5", ""),
        ("2", "1.5", ""),
        ("2", "", "20.5"),
    ]


def test_a_line_that_a_killed_run_left_unfinished(tmp_path):
    """Wherever it is cut, also where what is left of it would be a row."""
    whole = HEADER + ROWS
    start = whole.index("2,,,,,20.5")
    wanted = read_log(write_log(tmp_path, whole[:start]))
    assert len(wanted) == 2
    for end in range(start, len(whole)):
        assert read_log(write_log(tmp_path, whole[:end])) == wanted


DAMAGE = [
    ("", "line 1: column 'step' stands 0 times"),
    ("\r\n", "line 1: column 'step' stands 0 times"),
    (HEADER.replace("seconds", "second") + ROWS, "line 1: column 'seconds' stands 0 times"),
    (HEADER.replace("epoch", "loss") + ROWS, "line 1: column 'loss' stands 2 times"),
    (HEADER.replace("epoch", "lr") + ROWS, "line 1: column 'lr' stands 2 times"),
    (HEADER + ROWS.replace("1.5", "x"), "line 3: 'loss' must be a number, not 'x'"),
    (HEADER + ROWS.replace("0.3", ""), "line 4: 'seconds' must be a number, not ''"),
    (HEADER + "1.5" + ROWS[1:], "line 2: 'step' must be a whole number, not '1.5'"),
    (HEADER + "-1" + ROWS[1:], "line 2: 'step' must be a whole number, not '-1'"),
    (HEADER + HEADER + ROWS, "line 2: 'step' must be a whole number, not 'step'"),
    (HEADER + ROWS.replace(",,0.2", ",0.2"), "line 3: 6 values for 7 columns"),
    (HEADER + ROWS.replace(",,0.2", ",,,0.2"), "line 3: 8 values for 7 columns"),
    (HEADER + '"1,2\r\n', "is damaged or no log of a training: unexpected end of data"),
    (HEADER.encode() + b"\xff\xfe\n", "is damaged or no log of a training: 'utf-8' codec"),
    (b"\x89PNG\r\n\x1a\n\0\0\0", "is damaged or no log of a training"),
    (HEADER.encode() + bytes(4096) + b"\n", "log.csv"),
]


@pytest.mark.parametrize(("content", "part"), DAMAGE)
def test_damaged_logs(tmp_path, content, part):
    path = write_log(tmp_path, content)
    with pytest.raises(UserError, match=re.escape(part)) as error:
        read_log(path)
    assert str(path) in str(error.value)


def test_a_damaged_log_when_a_run_is_resumed(train, folder):
    assert train().code == 0
    path = write_log(folder, HEADER + ROWS.replace("1.5", "x"))
    before = {name: (folder / name).read_bytes() for name in ("last.pth", "best.pth", "log.csv")}
    assert train(*longer()).error == (
        f"{path}, line 3: 'loss' must be a number, not 'x'; without the file, the run goes on with "
        "a new one"
    )
    assert {name: (folder / name).read_bytes() for name in before} == before
    path.unlink()
    assert train(*longer()).code == 0


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["log.csv", "last.pth", "best.pth", "curves.png"])
def test_something_else_in_a_files_place(name, make, train, folder):
    folder.mkdir()
    make(folder / name)
    for options in ((), ("--resume",)):
        assert train(*options).error == f"{folder / name} must be a file: the run writes one there"
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_in_the_place_of_tensorboards_folder(train, folder):
    folder.mkdir()
    (folder / "tensorboard").write_text("mine")
    error = train().error
    assert error == f"{folder / 'tensorboard'} must be a folder: the run writes one there"


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log\.csv is not a file"):
        read_log(tmp_path / "log.csv")


def test_a_damaged_log_in_the_report(train, folder, tmp_path):
    assert train().code == 0
    sources = ReportSources(Inputs(stage1=folder), tmp_path / "report")
    assert training(sources).files == ["stage1_log.csv"]
    path = write_log(folder, HEADER + ROWS.replace("1.5", "x"))
    with pytest.raises(UserError, match=re.escape(f"{path}, line 3: 'loss' must be a number")):
        training(sources)


# --- last.pth


def replace(content: dict, key: str, value: object) -> None:
    *sections, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for section in sections:
        content = content[section]
    content[last] = value


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("training", [], "'training' must be a mapping of keys, not list"),
        ("training.step", -2, "'training.step' must be at least 0, not -2"),
        ("training.step", "x", "'training.step' must be a whole number, not 'x'"),
        ("training.seconds", float("nan"), "'training.seconds' must be a number, not nan"),
        ("training.best_psnr", float("nan"), "'training.best_psnr' must be a number"),
        ("training.position", (1, 2), "'training.position' must be a list of 3 values"),
        ("training.sums", {"loss": "x"}, "'training.sums.loss' must be a number, not 'x'"),
        ("training.data", {"data.train": 3}, "'training.data.data.train' must be a mapping"),
        ("training.optimizers", [], "'training.optimizers' must be a mapping of keys, not list"),
        ("training.companions", [], "'training.companions' must be a mapping of keys, not list"),
        ("training.companions", {"critic": {}}, "is of a run with the companions critic"),
        ("training.optimizers.network.state", {}, "is of 0 parameters, but training.kept_param"),
        ("training.optimizers.network.state.0", {}, "must hold step, exp_avg, exp_avg_sq, not no"),
        ("training.optimizers.network.state.0.exp_avg", torch.ones(2), "exp_avg is (2,) instead"),
        ("training.optimizers.network.state.0.step", 3.0, "step must be Tensor, not float"),
        ("training.optimizers.network.param_groups", [], "param_groups is not of this run's"),
        ("statistics.spacing", (1.0, -1.0), "maxima and spacing must be above 0, not -1"),
        ("weights", {}, "is of another architecture: "),
    ],
)
def test_tampered_states(key, value, part, train, folder):
    assert train().code == 0
    last = folder / "last.pth"
    content = torch.load(last, weights_only=True)
    replace(content, key, value)
    torch.save(content, last)
    before = last.read_bytes()
    error = train(*longer()).error
    assert error.startswith(str(last))
    assert part in error
    assert last.read_bytes() == before


def test_weights_that_became_nan_are_not_saved(yaml, train, folder, monkeypatch):
    """The step that spoils them has a finite loss yet, so that only the next one would tell."""
    assert train().code == 0
    before = (folder / "last.pth").read_bytes()
    real = loop.Trainer._step

    def step(self, *arguments):
        losses = real(self, *arguments)
        with torch.no_grad():
            self.network.style.bias[1] = float("nan")
        return losses

    monkeypatch.setattr(loop.Trainer, "_step", step)
    error = train(*longer("--set", "train.checkpoint_steps=1")).error
    last = folder / "last.pth"
    assert error == f"{last} was not written: style.bias holds NaN or infinite values"
    assert last.read_bytes() == before


def test_infinite_squares_of_gradients_are_resumed(train, folder):
    """Adam goes on with them, if slowly."""
    assert train().code == 0
    last = folder / "last.pth"
    content = torch.load(last, weights_only=True)
    content["training"]["optimizers"]["network"]["state"][0]["exp_avg_sq"][:] = float("inf")
    torch.save(content, last)
    assert train(*longer()).code == 0


# --- the data


def warnings_of(train, *options) -> list[str]:
    outcome = train(*longer(*options))
    assert outcome.code == 0
    return outcome.err


def test_nothing_is_said_of_data_that_stayed(train, folder, tiny_dataset):
    assert train().code == 0
    for file in tiny_dataset.rglob("*.nii.gz"):
        os.utime(file, (0, 0))
    assert warnings_of(train) == []


def test_changed_data_are_told(train, folder, tiny_dataset):
    assert train().code == 0
    save_nifti(sequence_file(tiny_dataset, 1, "t2"), blob(99))
    for sequence in SEQUENCES:
        save_nifti(sequence_file(tiny_dataset, 4, sequence), blob(5))
    (tiny_dataset / "train.csv").write_text("Tiny_00001,15\nTiny_00004,15\n")
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,14\n")
    assert sorted(warnings_of(train)) == [
        "warning: since the run was saved, data.train has changed (1 changed (image or mask): "
        "Tiny_00001; 1 new: Tiny_00004; 1 gone: Tiny_00000): it goes on with what is there now",
        "warning: since the run was saved, data.valid has changed (1 changed (image or mask): "
        "Tiny_00002): it goes on with what is there now",
    ]
    assert warnings_of(train, "--set", "train.steps=6") == []  # told once


def test_the_first_three_and_a_count(train, folder, tiny_dataset):
    assert train().code == 0
    for subject in range(4, 9):
        for sequence in SEQUENCES:
            save_nifti(sequence_file(tiny_dataset, subject, sequence), blob(subject))
    rows = [f"Tiny_0000{subject},15\n" for subject in (0, 1, 4, 5, 6, 7, 8)]
    (tiny_dataset / "train.csv").write_text("".join(rows))
    (line,) = warnings_of(train)
    assert "(5 new: Tiny_00004, Tiny_00005, Tiny_00006 and 2 more)" in line


def test_the_order_of_subjects_counts(train, folder, tiny_dataset):
    assert train().code == 0
    (tiny_dataset / "train.csv").write_text("Tiny_00001,15\nTiny_00000,15\n")
    (line,) = warnings_of(train)
    assert "data.train has changed (the order of its subjects)" in line


def test_unpacked_files(train, folder, tiny_dataset):
    for file in sorted(tiny_dataset.rglob("*_t1.nii.gz")):
        subject = int(file.name[9])
        save_nifti(file.with_suffix(""), blob(10 * subject, (48, 40, 36)))
        for sequence in SEQUENCES[1:]:
            save_nifti(sequence_file(tiny_dataset, subject, sequence), blob(3, (48, 40, 36)))
        file.unlink()
    assert train().code == 0
    path = sequence_file(tiny_dataset, 0, "t1").with_suffix("")
    voxels = blob(0, (48, 40, 36))
    voxels[24, 20, 18] += 1  # at the centre: size and border stay
    save_nifti(path, voxels)
    (line,) = warnings_of(train)
    assert "1 changed (image or mask): Tiny_00000" in line


def test_states_of_former_runs_are_resumed_without_a_word(train, folder, tiny_dataset):
    assert train().code == 0
    last = folder / "last.pth"
    content = torch.load(last, weights_only=True)
    del content["training"]["data"], content["training"]["kept_parameters"]
    torch.save(content, last)
    save_nifti(sequence_file(tiny_dataset, 1, "t2"), blob(99))
    assert warnings_of(train) == []


@pytest.fixture
def fill(yaml, tmp_path):
    """Bring a store of the data set up to date; the option that names it."""
    names = [f"Tiny_0000{subject}" for subject in range(3)]

    def fill() -> list[str]:
        outcomes = fill_store(load_config(yaml).data, dict.fromkeys(names, 0), tmp_path / "store")
        assert STORED in dict(outcomes).values()
        return ["--set", f"data.store={tmp_path / 'store'}"]

    return fill


def test_a_changed_store(train, fill, tiny_dataset):
    store = fill()
    assert train(*store).code == 0
    assert warnings_of(train, *store) == []
    save_nifti(sequence_file(tiny_dataset, 0, "flair"), blob(77))
    fill()
    (line,) = warnings_of(train, *store, "--set", "train.steps=6")
    assert "data.train has changed (1 changed (image or mask): Tiny_00000)" in line


# --- other runs


def test_a_second_run_in_the_folder_is_told(train, folder):
    assert train().code == 0
    before = (folder / "last.pth").read_bytes()
    holder = "import sys, time; from pathlib import Path; "
    holder += "from tsf_seq2seq.files.folder import claimed\n"
    holder += "with claimed(Path(sys.argv[1])):\n print('ready', flush=True)\n sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        error = train(*longer()).error
        process.stdin.close()
    assert error.startswith(f"{folder} is in use: process {process.pid} on ")
    assert (folder / "last.pth").read_bytes() == before
    assert train(*longer()).code == 0
    assert not (folder / LOCK).exists()


def test_a_file_in_the_folders_place(train, folder):
    folder.write_text("mine")
    assert train().error == f"{folder} is a file, but must be a folder for the results"
    assert folder.read_text() == "mine"


def test_leftovers_of_killed_runs_go(train, folder):
    folder.mkdir()
    left = folder / ".last.abcd1234.unfinished.pth"
    left.write_bytes(b"half")
    assert train().code == 0
    assert not left.exists()


def test_processes_end_when_the_first_may_not_enter(yaml, folder):
    """Of two that torchrun started, with the folder in another run's hands."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "src/train/train.py", "-c", yaml]
    with claimed(folder):
        done = subprocess.run(
            list(map(str, command)),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode != 0
    assert f"error: {folder} is in use: process {os.getpid()} on " in done.stderr
    assert "tsf_seq2seq/" not in done.stderr  # no traceback but torchrun's own


# --- full disks


def run(yaml: Path, resume: bool = False, **changes: int) -> None:
    config: Config = load_config(yaml, [f"train.{key}={value}" for key, value in changes.items()])
    loop.train(config, build_network(config), torch.device("cpu"), resume)


def test_a_full_disk_for_the_log(yaml, train, folder, monkeypatch):
    assert train().code == 0
    before = (folder / "last.pth").read_bytes()
    real = open

    def refuse(path, mode="r", *arguments, **options):
        if Path(path).name == "log.csv" and mode == "a":
            raise FULL
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    error = train(*longer()).error
    assert error == f"{folder / 'log.csv'} could not be written: {FULL}"
    assert (folder / "last.pth").read_bytes() == before


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_a_full_disk_for_tensorboard(after, train, folder, monkeypatch):
    """Its thread meets it; the main one tells, before last.pth of the same step is written."""
    assert train().code == 0
    before = (folder / "last.pth").read_bytes()
    written = []

    def refuse(self, data):
        written.append(data)
        if len(written) > after:
            raise FULL

    place = "tensorboard.summary.writer.record_writer.RecordWriter.write"
    monkeypatch.setattr(place, refuse)
    outcome = train(*longer("--set", "train.checkpoint_steps=4"))
    assert outcome.error == f"{folder / 'tensorboard'} could not be written: {FULL}"
    assert (folder / "last.pth").read_bytes() == before


def test_other_threads_errors_are_not_hidden(capsys):
    seen = []

    def fail() -> None:
        raise ValueError("mine")

    before = threading.excepthook
    threading.excepthook = lambda arguments: seen.append(str(arguments.exc_value))
    try:
        with writers_thread_quiet():
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert seen == ["mine"]


LIMITED = """
import resource, sys
from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.errors import run_script

size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_script(lambda: train_network("description"))
"""


@pytest.mark.parametrize("size", [100, 3_000, 60_000])
def test_files_that_the_system_refuses(size, yaml, train, folder):
    """A limit on the size of files stands for the disk; the earlier state stays whole."""
    assert train().code == 0
    before = (folder / "last.pth").read_bytes()
    assert len(before) > 60_000
    options = ["-c", yaml, "--resume", "--set", "train.steps=200", "--set", "train.log_steps=1"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = lines
    assert str(folder) in line
    assert "could not be written: [Errno 27] File too large" in line
    assert (folder / "last.pth").read_bytes() == before


def test_a_log_cut_by_a_full_disk_goes_on(yaml, folder, tmp_path):
    folder.mkdir()
    log = TrainingLog(folder, 0, ["l1"])
    log.training(1, 0, 0.1, {"loss": 1.0, "l1": 1.0}, 0.1)
    log.close()
    with open(folder / "log.csv", "a") as file:
        file.write("2,0,0.1,1.")
    log = TrainingLog(folder, 1, ["l1"])
    log.training(2, 0, 0.1, {"loss": 0.5, "l1": 0.5}, 0.2)
    log.close()
    assert [(row["step"], row["loss"]) for row in read_log(folder / "log.csv")] == [
        ("1", "1.0"),
        ("2", "0.5"),
    ]


# --- Ctrl-C


@pytest.mark.parametrize(
    "place",
    [
        "tsf_seq2seq.cli.train.build_network",
        "tsf_seq2seq.training.loop.find_subjects",
        "tsf_seq2seq.training.loop.measure_statistics",
        "tsf_seq2seq.training.loop.subject_digests",
        "tsf_seq2seq.training.loop.TrainingLog",
        "tsf_seq2seq.training.loop.CropStream",
    ],
)
def test_ctrl_c_before_the_loop(place, train, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    outcome = train()
    assert outcome.code == 130
    assert outcome.err == ["interrupted"]
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left <= {"log.csv", "tensorboard"}
    monkeypatch.undo()
    assert train().code == 0
