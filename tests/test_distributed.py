"""Runs on several processes: they do together what one does alone, and end together."""

import dataclasses
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    REPOSITORY,
    TINY_PYRAMID,
    blob,
    save_nifti,
    sequence_file,
    tiny_yaml,
)
from torch import nn

from tsf_seq2seq import distributed
from tsf_seq2seq.checkpoints.checkpoint import read_checkpoint, save_checkpoint, stage1_config
from tsf_seq2seq.config import AugmentationConfig, Config, load_config
from tsf_seq2seq.data.sampling import CropStream, Position
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import ALONE, Processes, joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.training import loop
from tsf_seq2seq.training.loop import Trainer
from tsf_seq2seq.training.objectives import TSFObjective

CPU = torch.device("cpu")
TRAIN = "src/train/seq2seq/train_brats_seq2seq_2d.py"
EVALUATE = "src/evaluate/seq2seq/evaluate_brats_seq2seq_2d.py"


@pytest.fixture
def config(tiny_config, tiny_dataset) -> Config:
    """Five subjects to train on: with a batch of two, the last visit of an epoch is one short."""
    for subject in (4, 5, 6):
        for index, sequence in enumerate(("t1", "t1ce", "t2", "flair")):
            save_nifti(sequence_file(tiny_dataset, subject, sequence), blob(10 * subject + index))
    rows = [f"Tiny_0000{i},15" for i in (0, 1, 4, 5, 6)]
    (tiny_dataset / "train.csv").write_text("\n".join(rows))
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,11\nTiny_00003,14\nTiny_00004,7\n")
    return load_config(tiny_config)


# --- who does what


def test_shares_are_all_of_it():
    items = list("abcde")
    shares = [Processes(rank, 2).share(items) for rank in range(2)]
    assert shares == [["a", "c", "e"], ["b", "d"]]
    assert ALONE.share(items) == items
    assert ALONE.gather(3) == [3]
    assert ALONE.sum([1, 2.5]) == [1, 2.5]


def test_shares_are_put_together_in_order(monkeypatch):
    items = list("abcde")
    shares = [list(Processes(rank, 3).share(items)) for rank in range(3)]
    monkeypatch.setattr(Processes, "gather", lambda self, item: shares)
    assert Processes(1, 3).gather_shares(shares[1]) == items


@pytest.mark.parametrize("augmentation", [{}, {"rotation": 20, "elastic": 1, "noise": 0.05}])
@pytest.mark.parametrize("workers", [0, 1])
def test_streams_of_processes_make_up_the_stream_of_one(config, workers, augmentation):
    """Two processes with batch 1 see, in parts, what one with batch 2 sees."""
    subjects = find_subjects(config.data, config.data.train)

    def stream(processes: Processes, batch: int) -> list:
        train = dataclasses.replace(config.train, batch_size=batch)
        data = dataclasses.replace(config.data, workers=workers)
        varied = AugmentationConfig(**augmentation)
        settings = dataclasses.replace(config, train=train, data=data, augmentation=varied)
        crops = CropStream(subjects, settings, TSFObjective.task_at, Position(), processes)
        return list(islice(crops, 12))

    whole = stream(ALONE, 2)
    parts = [stream(Processes(rank, 2), 1) for rank in range(2)]
    for (crop, position), *others in zip(whole, *parts, strict=True):
        names, images, inputs = [], [], []
        for part, place in others:
            assert (part.task, part.coin) == (crop.task, crop.coin)
            assert place == position
            names += part.names
            images += list(part.images) if part.names else []
            inputs += list(part.inputs) if part.names else []
        assert tuple(names) == crop.names
        np.testing.assert_array_equal(torch.stack(images), crop.images)
        np.testing.assert_array_equal(torch.stack(inputs), crop.inputs)
    assert {len(crop.names) for crop, _ in whole} == {1, 2}
    assert any(not part.names for part, _ in parts[1])


# --- the same gradients


def gradients(config: Config, steps: int, processes: Processes) -> list[list]:
    """Each step's losses and gradients; the weights stay as they are."""
    network = build_network(config)
    trainer = Trainer(config, network, CPU, False, processes)
    for optimizer in trainer.trained.optimizers.values():
        optimizer.step = lambda *_: None  # type: ignore[method-assign]
    task_at = trainer.objective.task_at
    stream = CropStream(trainer.training, config, task_at, Position(), processes)
    results = []
    for crop, position in islice(stream, steps):
        trainer.state.position = position
        (samples,) = processes.sum([len(crop.names)])
        losses = list(trainer._step(crop, len(crop.names) / samples).values())
        grads = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        results.append([losses, grads])
    trainer.log.close()
    return results


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def in_a_process(rank: int, port: int, work: Callable, path: Path, arguments: tuple) -> None:
    """Run work(*arguments, processes) as one of two; its result is saved at `path`."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined_processes(CPU) as processes:
        torch.save(work(*arguments, processes), f"{path}.{rank}")


def on_two_processes(work: Callable, path: Path, *arguments) -> list:
    """What each of two connected processes returns."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=in_a_process, args=(rank, port, work, path, arguments))
        for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0, 0]
    return [torch.load(f"{path}.{rank}", weights_only=True) for rank in range(2)]


def gradients_of_both_stages(config: Config, steps: int, processes: Processes) -> dict[str, list]:
    return {
        "stage 1": gradients(stage1_config(config), steps, processes),
        "stage 2": gradients(config, steps, processes),
    }


def test_two_processes_give_the_gradients_of_one(config, tmp_path):
    """With batch B those of one process with 2·B, also where a process has no sample left."""
    steps = 6  # an epoch: two visits with two subjects, one with one
    first, second = on_two_processes(gradients_of_both_stages, tmp_path / "result", config, steps)
    double = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=2))
    whole = gradients_of_both_stages(double, steps, ALONE)
    for stage in ("stage 1", "stage 2"):
        for one, other, wanted in zip(first[stage], second[stage], whole[stage], strict=True):
            assert one[0] == other[0]
            np.testing.assert_allclose(one[0], wanted[0], rtol=1e-6)
            assert one[1].keys() == wanted[1].keys()
            largest = max(float(value.abs().max()) for value in wanted[1].values())
            for name, value in wanted[1].items():
                # A bias before instance norm has gradient zero, but for rounding.
                allowed = 1e-4 * float(value.abs().max()) + 1e-6 * largest
                assert float((one[1][name] - value).abs().max()) < allowed, name
                assert torch.equal(one[1][name], other[1][name])


# --- whole runs under torchrun


ONE_MACHINE = ("--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0")


def torchrun(*arguments: object, layout: Sequence[str] = ONE_MACHINE) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *layout]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )


def on_two_machines(*arguments: object) -> list[subprocess.Popen]:
    """A torchrun with one process for each of two machines, which are both this one."""
    shared = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
    shared.append(f"--master_port={free_port()}")
    return [torchrun(*arguments, layout=[*shared, f"--node_rank={rank}"]) for rank in range(2)]


def finish(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def losses_of(folder: Path) -> np.ndarray:
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    return np.array([[float(value) for value in row[3:7]] for row in rows if row[3]])


def test_a_run_on_two_processes_equals_one_with_their_batch(config, tiny_stage1, tmp_path):
    options = ["-c", tiny_stage1, "--set", "train.steps=4"]
    first, second = map(finish, on_two_machines(TRAIN, *options, "-o", tmp_path / "two"))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "4 steps in" in first[1]
    assert not second[1]  # only one process reports
    one = [sys.executable, TRAIN, *options, "-o", tmp_path / "one", "--set", "train.batch_size=2"]
    subprocess.run(list(map(str, one)), check=True, capture_output=True, cwd=REPOSITORY)
    np.testing.assert_allclose(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), rtol=1e-4)
    best = [read_checkpoint(tmp_path / name / "last.pth")["training"] for name in ("two", "one")]
    assert best[0]["best_psnr"] == pytest.approx(best[1]["best_psnr"], abs=1e-3)

    # --- an evaluation: the same scores, in the same order
    evaluate = ["-m", tmp_path / "two" / "best.pth", "--all-tasks"]
    evaluate += ["--set", f"data.test={config.data.valid}"]
    code, out, err = finish(torchrun(EVALUATE, *evaluate, "-o", tmp_path / "evaluated by two"))
    assert code == 0, err
    assert out.count("metrics.csv, tables, examples and predictions are in") == 1
    command = [sys.executable, EVALUATE, *evaluate, "-o", tmp_path / "evaluated by one"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=REPOSITORY)
    two, one = tmp_path / "evaluated by two", tmp_path / "evaluated by one"
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert {path.relative_to(two) for path in two.rglob("*") if path.is_file()} == files
    assert len(files) > 3 * 16
    for file in files:
        assert (two / file).read_bytes() == (one / file).read_bytes(), file


def test_every_target_of_a_step_on_two_processes(config, tmp_path):
    """TSF-Pyramid: a step's targets, clipped gradients and averaged weights, on two processes."""
    path = tmp_path / "pyramid.yaml"
    path.write_text(tiny_yaml(TINY_PYRAMID, config.data.root, tmp_path / "run"))
    options = ["-c", path, "--set", "train.average=0.5", "--set", "train.clip_norm=0.1"]
    code, _, err = finish(torchrun("src/train/train.py", *options, "-o", tmp_path / "two"))
    assert code == 0, err
    command = [sys.executable, "src/train/train.py", *options, "--set", "train.batch_size=2"]
    command += ["-o", tmp_path / "one"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=REPOSITORY)
    np.testing.assert_allclose(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), rtol=1e-3)
    states = [read_checkpoint(tmp_path / name / "last.pth") for name in ("two", "one")]
    averages = [state["training"]["companions"]["weight_average"] for state in states]
    assert averages[0].keys() == averages[1].keys()
    for key in averages[0]:
        torch.testing.assert_close(averages[0][key], averages[1][key], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("network", "same"),
    [
        ("{name: mm_gan, channels: 4, downs: 3, dropout: 0}", True),
        ("{name: pix2pix, channels: 4, downs: 3}", False),  # BatchNorm of each process's samples
        ("{name: diamond_gan, channels: 4}", False),  # pools of each process's samples
    ],
)
def test_discriminators_on_two_processes(config, network, same, tmp_path):
    """Which parts a step trains, and in which order, whatever several processes make of it."""
    path = tmp_path / "settings.yaml"
    text = tiny_yaml(f"\nnetwork: {network}\n", config.data.root, tmp_path / "run")
    path.write_text(text.replace("crop: [16, 16]", "crop: [32, 32]"))
    code, _, err = finish(torchrun("src/train/train.py", "-c", path, "-o", tmp_path / "two"))
    assert code == 0, err
    command = [sys.executable, "src/train/train.py", "-c", path, "--set", "train.batch_size=2"]
    command += ["-o", tmp_path / "one"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=REPOSITORY)
    first = None if same else 1  # step
    two, one = losses_of(tmp_path / "two")[:first], losses_of(tmp_path / "one")[:first]
    np.testing.assert_allclose(two, one, rtol=1e-2 if same else 0.5)


def test_a_folder_that_the_main_process_cannot_have_ends_both(tiny_stage1, tmp_path):
    """The other one, which doesn't ask for the folder, waits for it no longer than that."""
    stage1 = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "s.pth", build_network(stage1), stage1)
    (tmp_path / "file").write_text("")
    code, _, err = finish(torchrun(EVALUATE, "-m", tmp_path / "s.pth", "-o", tmp_path / "file"), 60)
    assert code != 0
    assert f"error: {tmp_path / 'file'} is a file, but must be a folder for the results" in err
    assert (tmp_path / "file").read_text() == ""


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> list[int]:
    """Process numbers of torchrun's training processes, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"PPid:\s*(\d+)", (folder / "status").read_text())
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        rank = re.search(rb"(?:^|\0)RANK=(\d+)", environment)
        if parent and int(parent[1]) == process.pid and rank:
            found[int(rank[1])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_killing_one_process_ends_the_other_and_resuming_goes_on(config, tiny_stage1, tmp_path):
    folder = tmp_path / "run"
    options = ["-c", tiny_stage1, "-o", folder, "--set", "train.steps=100000"]
    options += ["--set", "train.validation_steps=100000", "--resume"]
    process = torchrun(TRAIN, *options)
    wait_for(lambda: (folder / "last.pth").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    os.kill(workers_of(process)[1], signal.SIGKILL)
    killed = time.monotonic()
    code, _, err = finish(process, 60)
    assert time.monotonic() - killed < 30
    assert code != 0
    assert "error: another process of this run has ended or can't be reached any more" in err, err
    step = read_checkpoint(folder / "last.pth")["training"]["step"]

    # --- and on, until a signal stops all of it
    process = torchrun(TRAIN, *options)
    before = (folder / "last.pth").stat().st_mtime_ns
    wait_for(lambda: (folder / "last.pth").stat().st_mtime_ns > before or process.poll())
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process, 60)
    assert code != 0
    reached = read_checkpoint(folder / "last.pth")["training"]["step"]
    assert reached > step
    assert f"stopped by SIGTERM at step {reached}; --resume goes on" in out + err


# --- errors


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer"),
        RuntimeError("[/a/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed"),
        torch.distributed.DistNetworkError("The client socket has timed out"),
    ],
)
def test_connection_errors_are_told(error):
    told = pytest.raises(UserError, match="another process of this run has ended")
    with told, distributed.loss_of_processes_reported():
        raise error


def test_other_errors_are_no_connection_errors():
    other = pytest.raises(RuntimeError, match="shapes cannot be multiplied")
    with other, distributed.loss_of_processes_reported():
        nn.Linear(2, 2)(torch.zeros(3))
    other = pytest.raises(RuntimeError, match="/data/gloo/x")
    with other, distributed.loss_of_processes_reported():
        raise RuntimeError("can't write /data/gloo/x")


def test_a_folder_that_is_not_shared(config, monkeypatch):
    monkeypatch.setattr(Processes, "gather", lambda self, item: [500, 0])
    with pytest.raises(UserError, match=r"different states in .* \(steps 500, 0\)"):
        gradients(config, 1, Processes(0, 2))


def test_a_process_that_hangs_after_a_signal_ends(tmp_path):
    """Python's handlers can't run in a call that never returns; the watching thread still does."""
    code = """
import ctypes, signal, sys
from tsf_seq2seq import distributed
distributed.GRACE_SECONDS = 1
signal.signal(signal.SIGTERM, lambda *_: None)
with distributed._ended_after_signals():
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert out.startswith("error: SIGTERM came and no step ended within 1 s")


def test_the_watching_thread_ends_with_the_run():
    before = threading.active_count()
    with distributed._ended_after_signals():
        assert threading.active_count() == before + 1
    wait_for(lambda: threading.active_count() == before, 5)


@pytest.mark.parametrize("torchrun_s", [True, False])
def test_a_process_that_an_error_ends_is_not_ended_before_it_is_told(monkeypatch, torchrun_s):
    """torchrun's SIGTERM comes while it unwinds; alone, signals do again what they did before."""
    if torchrun_s:
        monkeypatch.setenv("LOCAL_RANK", "0")
    else:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(UserError), loop._interruptible():
            raise UserError("another process has ended")
        wanted = signal.SIG_IGN if torchrun_s else before
        assert signal.getsignal(signal.SIGTERM) == wanted
    finally:
        signal.signal(signal.SIGTERM, before)
