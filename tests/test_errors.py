"""A user's mistake is one line on standard error and exit code 2; checkpoints survive the worst."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, REPOSITORY, Outcome, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    load_model_and_config,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.cli.evaluate import evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.cli.loading import find_device
from tsf_seq2seq.cli.train import train_seq2seq, train_tsf_seq2seq
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_atomically, write_text
from tsf_seq2seq.models import build_network

SCRIPTS = REPOSITORY / "src"
TRAIN_1 = SCRIPTS / "train" / "seq2seq" / "train_brats_seq2seq_2d.py"
EVALUATE_2 = SCRIPTS / "evaluate" / "seq2seq" / "evaluate_brats_tsf_seq2seq_2d.py"


@pytest.fixture
def stage_1(tiny_stage1, tmp_path) -> Path:
    """An untrained Seq2Seq of the tiny settings."""
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "stage_1.pth", build_network(config), config)
    return tmp_path / "stage_1.pth"


@pytest.fixture
def stage_2(tiny_config, tmp_path) -> Path:
    """An untrained TSFSeq2Seq of the tiny settings."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "stage_2.pth", build_network(config), config)
    return tmp_path / "stage_2.pth"


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


# --- the real scripts


def test_real_scripts(tiny_config, tmp_path):
    misspelt = [TRAIN_1, "-c", tiny_config, "--set", "train.stepz=3"]
    without_weights = [EVALUATE_2, "-l", "none.pth", "-o", "out"]
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for command in (misspelt, without_weights)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    outcomes = [
        Outcome(process.returncode, *answer)
        for process, answer in zip(processes, answers, strict=True)
    ]
    assert [outcome.error for outcome in outcomes] == [
        f"{tiny_config}: unknown key 'train.stepz'; the nearest known key is 'steps'",
        "weights file none.pth does not exist",
    ]
    assert not (tmp_path / "out").exists()


def test_missing_weights(tiny_config, tiny_stage1, run, script):
    needed = "network tsf_seq2seq builds on stage 1's Seq2Seq: give its weights with -m"
    assert script(train_tsf_seq2seq, "-c", tiny_config).error == needed
    outcome = script(train_tsf_seq2seq, "-c", tiny_config, "--resume")  # nothing to resume
    assert outcome.error == needed
    calls = [
        (train_tsf_seq2seq, "-c", tiny_config, "-m", "none.pth"),
        (train_seq2seq, "-c", tiny_stage1, "-l", "none.pth"),
        (evaluate_seq2seq, "-c", tiny_config, "-m", "none.pth", "-o", run),
        (evaluate_seq2seq, "-m", "none.pth", "-o", run),
        (evaluate_tsf_seq2seq, "-c", tiny_config, "-l", "none.pth", "-o", run),
    ]
    for call in calls:
        assert script(*call).error == "weights file none.pth does not exist"
    assert not run.exists()


def test_an_error_is_one_line(capsys):
    def main() -> None:
        raise UserError("first\nsecond")

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: first second\n"


# --- settings, devices, folders


def test_missing_settings(script):
    outcome = script(train_seq2seq, "-c", "none.yaml")
    assert outcome.error == "config file none.yaml does not exist"


@pytest.mark.parametrize(
    ("device", "part"),
    [
        ("gpu", "-d gpu is no device; use cpu, cuda:0 or mps"),
        ("meta", "-d meta is not supported"),
        pytest.param(
            "cuda:0",
            "this machine offers PyTorch 0 CUDA devices; -d cpu works everywhere",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there"),
        ),
        pytest.param(
            "mps",
            "this machine offers PyTorch no MPS device",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS is there"),
        ),
    ],
)
def test_devices(tiny_stage1, stage_2, run, script, device, part):
    assert part in script(train_seq2seq, "-c", tiny_stage1, "-d", device).error
    arguments = ["-l", stage_2, "-o", run]
    assert part in script(evaluate_tsf_seq2seq, *arguments, "-d", device).error
    assert not run.exists()


def test_the_cpu_is_a_device():
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["2024", "null", "a: b", "run #2"])
def test_output_folders_are_taken_literally(
    tiny_stage1, stage_1, script, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    quick = ["--set", "train.steps=1"]
    assert script(train_seq2seq, "-c", tiny_stage1, "-o", name, *quick).code == 0
    assert (tmp_path / name / "last.pth").exists()


def test_a_run_folder_in_use(tiny_stage1, run, script):
    first = script(train_seq2seq, "-c", tiny_stage1, "--set", "train.steps=1")
    assert first.code == 0
    again = script(train_seq2seq, "-c", tiny_stage1)
    assert again.error == f"{run} holds a run already: --resume goes on, -o names another folder"
    more = script(train_seq2seq, "-c", tiny_stage1, "--resume", "--set", "train.steps=2")
    assert more.code == 0
    assert read_checkpoint(run / "last.pth")["training"]["step"] == 2


def test_both_stages_from_their_scripts(tiny_config, tiny_stage1, run, script, tmp_path):
    quick = ["--set", "train.steps=1", "--seed", 3]
    assert script(train_seq2seq, "-c", tiny_stage1, "-o", tmp_path / "1", *quick).code == 0
    best = tmp_path / "1" / "best.pth"
    outcome = script(
        *(train_tsf_seq2seq, "-c", tiny_config, "-m", best, "-o", tmp_path / "2", *quick)
    )
    assert outcome.code == 0
    network, config = load_model_and_config(tmp_path / "2" / "best.pth")
    assert config.train.seed == 3
    encoder = load_model(best).encoder.state_dict()
    for name, value in network.seq2seq.encoder.state_dict().items():
        assert torch.equal(value, encoder[name])


# --- weights


def test_weights_of_another_architecture(tiny_config, stage_1, run, script):
    arguments = ["-c", tiny_config, "-m", stage_1, "--set", "network.sequence_code=9"]
    outcome = script(train_tsf_seq2seq, *arguments)
    assert outcome.error.startswith(f"{stage_1} is of another architecture: style.weight is (8, 8)")
    assert "(8, 8) instead of (9, 9); style.bias is (8,) instead of (9,)" in outcome.error
    outcome = script(evaluate_tsf_seq2seq, "-c", tiny_config, "-l", stage_1, "-o", run)
    assert "is of another architecture: " in outcome.error
    assert "is missing" in outcome.error
    assert not run.exists()


def test_stage_1_weights_as_stage_2_start(tiny_config, stage_1, run, script):
    outcome = script(train_tsf_seq2seq, "-c", tiny_config, "-l", stage_1)
    assert "is of another architecture: " in outcome.error
    assert not run.exists()


class Code:
    """Pickled, it makes a folder when it is read carelessly."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_pickles_with_code_are_refused(tiny_config, tiny_stage1, run, script, tmp_path, container):
    path, proof = tmp_path / "evil.pth", tmp_path / "proof"
    if container == "torch":
        torch.save({"weights": Code(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Code(proof), protocol=2))
    outcomes = [
        script(train_tsf_seq2seq, "-c", tiny_config, "-m", path),
        script(train_seq2seq, "-c", tiny_stage1, "-l", path),
        script(evaluate_tsf_seq2seq, "-l", path, "-o", run),
        script(evaluate_seq2seq, "-c", tiny_config, "-l", path, "-o", run),
    ]
    for outcome in outcomes:
        assert outcome.error.startswith(f"{path} was refused: ")
    assert not proof.exists()
    assert not run.exists()


def test_refusals_give_no_advice_to_run_the_code(tiny_stage1, script, tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Code(tmp_path / "proof"), protocol=4))
    with warnings.catch_warnings(record=True) as shown:
        outcome = script(train_seq2seq, "-c", tiny_stage1, "-l", path)
    assert "weights_only" not in outcome.error
    assert not shown  # on standard error, beside the one line


@pytest.mark.parametrize("settings", [True, False])
@pytest.mark.parametrize("parts", [{}, {"weights": 3}, {"weights": {1: 2}}])
def test_checkpoints_with_parts_missing(tiny_config, run, script, tmp_path, parts, settings):
    path = tmp_path / "part.pth"
    torch.save({"format": "tsf-seq2seq checkpoint", "version": 1, **parts}, path)
    given = ["-c", tiny_config] if settings else []
    outcome = script(evaluate_seq2seq, *given, "-l", path, "-o", run)
    assert outcome.error.startswith(str(path))


def test_damaged_weights(tiny_config, stage_1, script):
    stage_1.write_bytes(stage_1.read_bytes()[:-500])
    outcome = script(train_tsf_seq2seq, "-c", tiny_config, "-m", stage_1)
    assert outcome.error.startswith(f"{stage_1} is damaged or not a weights file")


def test_files_that_are_no_checkpoints(run, script, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"style_fc.0.weight": torch.zeros(1)}, path)
    outcome = script(evaluate_tsf_seq2seq, "-l", path, "-o", run)
    assert "is not a checkpoint of this software; for the authors' weights" in outcome.error
    torch.save({"format": "tsf-seq2seq checkpoint", "version": 99}, path)
    outcome = script(evaluate_tsf_seq2seq, "-l", path, "-o", run)
    assert "has format version 99, but this software reads 1 and 2" in outcome.error


def test_best_cannot_be_resumed(tiny_stage1, run, script):
    script(train_seq2seq, "-c", tiny_stage1, "--set", "train.steps=1")
    (run / "best.pth").replace(run / "last.pth")
    outcome = script(train_seq2seq, "-c", tiny_stage1, "--resume")
    assert "last.pth holds no training state, so that it can't be resumed" in outcome.error


# --- images


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def reshape(path: Path) -> None:
    save_nifti(path, blob(0, (24, 20, 11)))


def shift(path: Path) -> None:
    affine = LPS_AFFINE.copy()
    affine[0, 3] = 5
    save_nifti(path, blob(0), affine)


def spoil(path: Path) -> None:
    voxels = blob(0).astype(np.float32)
    voxels[3, 4, 5] = np.nan
    save_nifti(path, voxels)


DAMAGE = [
    (truncate, "is damaged: its gzip stream does not check out"),
    (flip_bit, "is damaged: its gzip stream does not check out"),
    (reshape, "has shape (24, 20, 11), but"),
    (shift, "place the same voxel up to 5 mm apart, more than 0.1 mm"),
    (spoil, "holds 1 NaN or infinite voxels"),
    (Path.unlink, "t2 is named by its mask"),
]


@pytest.mark.parametrize(("damage", "part"), DAMAGE)
def test_damaged_subjects(tiny_stage1, tiny_dataset, stage_2, run, script, damage, part):
    damage(sequence_file(tiny_dataset, 1, "t2"))
    outcome = script(train_seq2seq, "-c", tiny_stage1)
    assert outcome.error.startswith("subject Tiny_00001: ")
    assert part in outcome.error
    damage(sequence_file(tiny_dataset, 3, "t2"))
    outcome = script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", run / "out")
    assert outcome.error.startswith("subject Tiny_00003: ")
    assert part in outcome.error


def test_missing_split_and_root(tiny_stage1, tiny_dataset, script):
    outcome = script(train_seq2seq, "-c", tiny_stage1, "--set", "data.train=none.csv")
    assert outcome.error == "split CSV none.csv does not exist"
    outcome = script(train_seq2seq, "-c", tiny_stage1, "--set", "data.root=none")
    assert outcome.error == "data.root none is not a folder"


def test_too_few_slices_to_validate_on(tiny_stage1, tiny_dataset, script):
    for sequence in ("t1", "t1ce", "t2", "flair"):
        save_nifti(sequence_file(tiny_dataset, 2, sequence), blob(1, (24, 20, 2)))
    outcome = script(train_seq2seq, "-c", tiny_stage1, "--set", "train.steps=1")
    assert outcome.error.startswith("subject Tiny_00002 has")


# --- files that are whole or not there

SAVER = """
import os, sys, torch
from pathlib import Path
from tsf_seq2seq.models.build import build_network
from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import load_config

path, config = Path(sys.argv[1]), load_config(Path(sys.argv[2]), ["network.sequence_code=256"])
network = build_network(config)
for _ in sys.stdin:  # each line asks for a process that saves version 1, 2, 3, … without end
    child = os.fork()
    version = 0
    while child == 0:
        version += 1
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(version)
        save_checkpoint(path, network, config, {"version": version})
        if version == 1:
            print(os.getpid(), flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def test_kill_while_a_checkpoint_is_written(tiny_config, tmp_path):
    path = tmp_path / "checkpoints" / "last.pth"
    command = [sys.executable, "-c", SAVER, path, tiny_config]
    rng = np.random.default_rng(0)
    versions = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            for _ in range(10):
                process.stdin.write("next\n")
                child = int(process.stdout.readline())
                time.sleep(rng.uniform(0.005, 0.1))
                os.kill(child, signal.SIGKILL)
                assert process.stdout.readline() == "gone\n"
                versions.append(read_checkpoint(path)["training"]["version"])
                parameters = load_model(path).state_dict().values()
                assert all((value == versions[-1]).all() for value in parameters)
        finally:
            process.kill()
    assert max(versions) > 1
    left = {entry.name for entry in path.parent.iterdir()} - {"last.pth"}
    assert left  # some kills did hit a file that was half written
    assert all(name.startswith(".last.") and ".unfinished" in name for name in left)


@pytest.mark.parametrize("place", ["os.fsync", "torch.save"])
def test_full_disk_keeps_the_old_checkpoint(tiny_config, stage_1, monkeypatch, place):
    network, config = load_model_and_config(stage_1)
    before = stage_1.read_bytes()

    def refuse(*_):
        if place == "torch.save":  # this is how it reports a full disk
            raise RuntimeError("PytorchStreamWriter failed writing file data/0\nmore")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(place, refuse)
        with pytest.raises(UserError, match=r"stage_1\.pth could not be written: .*") as error:
            save_checkpoint(stage_1, network, config)
    assert "\n" not in str(error.value)
    assert stage_1.read_bytes() == before
    assert not [path for path in stage_1.parent.iterdir() if ".unfinished" in path.name]


def test_full_disk_ends_a_training_run_with_one_line(tiny_stage1, run, script, monkeypatch):
    def refuse(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr("torch.save", refuse)
    outcome = script(train_seq2seq, "-c", tiny_stage1)
    assert outcome.error.startswith(f"{run / 'last.pth'} could not be written")


def test_interrupted_writing_leaves_nothing_behind(tmp_path):
    path = tmp_path / "new" / "notes.txt"

    def interrupted(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    write_text(path, "whole")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert [entry.name for entry in path.parent.iterdir()] == ["notes.txt"]
    assert path.read_text() == "whole"


def test_written_files_have_ordinary_permissions(tmp_path):
    write_text(tmp_path / "a.txt", "")
    (tmp_path / "b.txt").write_text("")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_sequences_in_another_order(tiny_config, stage_2, script, tmp_path):
    text = tiny_config.read_text().replace(
        "data:\n",
        "data:\n  sequences:\n"
        + "".join(
            f"    {name}: '{{name}}/{{name}}_{name}.nii.gz'\n"
            for name in ("flair", "t1", "t1ce", "t2")
        ),
    )
    (tmp_path / "other.yaml").write_text(text)
    arguments = ["-c", tmp_path / "other.yaml", "-l", stage_2, "-o", tmp_path / "out"]
    error = script(evaluate_tsf_seq2seq, *arguments).error
    assert "knows the sequences t1, t1ce, t2, flair, but the settings name flair, t1" in error


# --- before the work


@pytest.mark.parametrize(
    "command", [(EVALUATE_2,), ("-c", "from tsf_seq2seq.cli import tsf_impute; tsf_impute()")]
)
def test_ctrl_c_while_pytorch_loads(command, tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('loads', flush=True)\ntime.sleep(60)\n")
    paths = os.pathsep.join([str(tmp_path), str(SCRIPTS)])
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loads\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")
