"""Benchmarks: the plain formulation is the same mathematics; each script measures and writes."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import Task, all_tasks
from tsf_seq2seq.training import acceleration
from tsf_seq2seq.training.objectives import Seq2SeqLoss, Seq2SeqObjective, TSFObjective
from tsf_seq2seq.training.perceptual import PerceptualLoss

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import bench
import bench_crops
import bench_memory
import bench_networks
import bench_steps
import bench_throughput
import machine
import plain

BENCHMARKS = REPOSITORY / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def images(expected) -> torch.Tensor:
    return torch.from_numpy(expected["images"][:, :1, 0]).transpose(0, 1).contiguous()


@pytest.mark.parametrize(("stage", "coin"), [(1, False), (2, False), (2, True)])
def test_steps_have_equal_losses_and_gradients(reference_model, images, stage, coin):
    """With and without f_A in the reconstruction of stage 2, which the coin decides."""
    torch.manual_seed(0)
    loss = PerceptualLoss(bench_steps.vgg19_features())
    if stage == 1:
        task, network, further = Task((3,), 0), reference_model.seq2seq, ()
        objective, slow = Seq2SeqObjective(network, Seq2SeqLoss(), loss), plain.seq2seq_loss
    else:
        task, network, further = Task((2, 0, 3), 1), reference_model, (coin,)
        objective, slow = TSFObjective(network, Seq2SeqLoss(), loss), plain.tsf_loss
    crop = Crop(images, images, (0, 1, 2, 3), task, coin, ("one",))
    wanted, gradients = total_and_gradients(objective, slow(network, images, task, loss, *further))
    total, ours = total_and_gradients(objective, objective.losses("network", crop))
    assert total == pytest.approx(wanted, rel=1e-5)
    for name, gradient in gradients.items():
        if ".biases" in name or ".bias" in name:
            continue  # mostly analytically zero before an InstanceNorm
        scale = gradient.abs().max().item() + 1e-12
        assert (ours[name] - gradient).abs().max().item() < 0.01 * scale, name


def total_and_gradients(objective, terms) -> tuple[float, dict[str, torch.Tensor]]:
    """The total loss and gradients by name, of the terms that the objective has."""
    assert tuple(terms) == objective.terms
    total = objective.total(terms)
    objective.network.zero_grad()
    total.backward()
    gradients = {n: p.grad for n, p in objective.network.named_parameters() if p.grad is not None}
    return total.item(), gradients


def test_tasks_have_equal_outputs(reference_model, images):
    with torch.no_grad():
        for _, task, actual in reference_model.synthesize(images, all_tasks(4)):
            wanted = plain.tsf(reference_model, images, task.sources, task.target, attention=True)
            torch.testing.assert_close(actual, wanted, rtol=0, atol=5e-5)


def run(main, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
    main()


def results(stem: Path) -> tuple[str, dict]:
    return stem.with_suffix(".md").read_text(), json.loads(stem.with_suffix(".json").read_text())


def test_steps_and_crops_are_measured(tmp_path, monkeypatch):
    arguments = ["--size", "small", "--pixels", 16, "--repeats", 1, "--sections", "steps", "crops"]
    run(bench.main, monkeypatch, *arguments, "--precisions", "fp32", "-o", tmp_path / "here")
    text, values = results(tmp_path / "here")
    assert [row["name"] for row in values["steps"]] == [
        "stage 1 step",
        "stage 2 step, three sources",
        "28 tasks of one stack",
    ]
    for row in values["steps"]:
        assert f"{row['faster']:.2f}×" in text
        assert row["faster"] == pytest.approx(row["plain_s"] / row["library_s"])
        assert row["plain_flop"] > row["library_flop"] > 0
        assert row["plain_bytes"] > 1e8
    files, store = values["crops"]
    assert files["crop_ms"] > files["visit_crop_ms"] > store["visit_crop_ms"] > 0


def test_steps_compiled_and_in_channels_last(monkeypatch, tmp_path):
    """By a back end that needs no C++ compiler; the arithmetic is counted as ever."""
    compile_part = functools.partialmethod(nn.Module.compile, backend="eager")
    monkeypatch.setattr(nn.Module, "compile", compile_part)
    monkeypatch.setattr(acceleration, "check_compiler", lambda device: None)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "hardware", lambda device: "Abacus 1")
    arguments = ["--size", "small", "--pixels", 16, "--repeats", 1, "--sections", "steps"]
    run(bench.main, monkeypatch, *arguments, "--precisions", "fp32")
    run(bench.main, monkeypatch, *arguments, "--precisions", "fp32", "--channels-last", "--compile")
    _, usual = results(tmp_path / "abacus-1")
    text, values = results(tmp_path / "abacus-1-channels-last-compile")
    assert "; the library with channels_last and compile. Best rate" in text
    for row, other in zip(values["steps"], usual["steps"], strict=True):
        assert row["library_flop"] == other["library_flop"] < row["plain_flop"]


def test_steps_need_no_packages_that_read_images(tmp_path):
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys("
        "['nibabel', 'blosc2', 'skimage', 'matplotlib', 'scipy', 'nilearn', 'torchvision'])); "
        f"sys.argv[1:] = '--size small --pixels 16 --repeats 1 -o {tmp_path / 'bare'}'.split(); "
        f"sys.path.insert(0, {str(BENCHMARKS)!r}); "
        f"runpy.run_path({str(BENCHMARKS / 'bench.py')!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    text, values = results(tmp_path / "bare")
    assert {row["precision"] for row in values["steps"]} == {"fp32", "bf16"}
    assert values["crops"] is None
    assert "crops left out: import of nibabel" in text
    assert "memory left out: import of nibabel" in text


def test_a_device_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"-d cuda:0: PyTorch .* finds no CUDA device"):
        run(bench.main, monkeypatch, "-d", "cuda:0", "-o", tmp_path / "none")


def test_tables_of_known_rows():
    times = {"fp32": (8.0, 2.0), "bf16": (4.0, 1.0)}
    rows = [
        bench_steps.Row("step", precision, *seconds, 3e9, 1.5e9, 6e9, 2e9, 4e9, "convolution")
        for precision, seconds in times.items()
    ]
    _, first, second = bench_steps.time_table(rows)
    assert first == ["step", "fp32", "8", "2", "4.00×", "3.00×", "133%", "4.00×", "25%"]
    assert second == ["step", "bf16", "4", "1", "4.00×", "3.00×", "133%", "8.00×", "50%"]
    assert bench_steps.memory_table(rows)[1] == ["step", "fp32", "3.00", "1.50", "2.00×"]
    assert "fp32 4 GFLOP/s (convolution)" in bench_steps.rate_note(rows)


def test_best_rate_is_that_of_the_fastest(monkeypatch):
    monkeypatch.setattr(machine, "timed", lambda job, device: 0.5)
    # in equal time, a convolution does 2·32²·9·48² operations and a product 2·256³, which is less
    rate, name = machine.best_rate(CPU, "fp32", small=True)
    assert rate == 4 * 32**2 * 9 * 48**2
    assert name.startswith("convolution")


def test_a_job_s_peak_memory():
    little = machine.peak(lambda: np.ones(1000), CPU)
    much = machine.peak(lambda: np.ones(40_000_000), CPU)  # 320 MB
    again = machine.peak(lambda: np.ones(1000), CPU)
    assert much - little == pytest.approx(320e6, rel=0.1)
    assert much - again == pytest.approx(320e6, rel=0.1)


def test_hardware_s_file_name():
    assert machine.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert machine.file_name("Intel(R) Core(TM), 1 thread") == "intel-r-core-tm-1-thread"


def test_memory_by_number_of_subjects(monkeypatch):
    runs = []

    def here(function, config):
        value = function(config)
        runs.append((function.__name__, config.data.store is not None))
        return value + 1e6 * len(runs)

    monkeypatch.setattr(bench_memory, "in_fresh_process", here)
    measured = bench_memory.measure((1, 2), shape=(24, 20, 12), steps=2)
    kinds = [("evaluation_peak", False), ("training_peak", False), ("training_peak", True)]
    assert runs == kinds * 2
    assert all(peak > 1e8 for growth in measured for peak in growth.peaks.values())
    assert [len(row) for row in bench_memory.table(measured)] == [4] * 4


def test_growth_is_that_of_the_last_subjects():
    growth = bench_memory.Growth("evaluation", {2: 100e6, 8: 160e6, 32: 184e6})
    assert growth.per_subject == 1e6
    assert bench_memory.table([growth])[1] == ["evaluation", "100", "160", "184", "1.00"]
    assert bench_memory.volume_bytes((10, 10, 10)) == 4 * 4000


def test_a_process_s_peak_is_its_own():
    held = np.ones(100_000_000)  # 800 MB, which a fresh process doesn't have
    peak = bench_memory.in_fresh_process(_own_peak, None)
    assert peak < machine.peak_bytes_of_process() - held.nbytes / 2


def _own_peak(_: None) -> float:
    return machine.peak_bytes_of_process()


def test_crops_per_second(tmp_path, monkeypatch, tiny_config, tiny_dataset, capsys):
    arguments = ["-c", tiny_config, "-r", tiny_dataset, "--steps", 4, "--warm-up", 1]
    recipe = ["--set", "train.batch_size=2", "train.precision=bf16"]
    run(bench_throughput.main, monkeypatch, *arguments, *recipe, "-o", tmp_path / "rates")
    text, values = results(tmp_path / "rates")
    rates = values["crops_per_second"]
    assert set(rates) == {"plain", "resident", "store"}
    assert f"{rates['resident'] / rates['plain']:.2f}× the plain one" in text
    assert "batch_size 2, precision bf16" in text


def test_the_clock_counts_from_the_warm_up_to_the_last_step(monkeypatch):
    clock = bench_throughput.Clock(CPU, warm_up=1, steps=2)
    seconds = iter([10.0, 14.0])
    monkeypatch.setattr(bench_throughput.time, "perf_counter", lambda: next(seconds))
    for crops in (1, 3, 5, 7):  # warm-up, two timed steps, and the one whose begin ends them
        clock.note(crops)
    assert clock.crops_per_second == (3 + 5) / 4


def test_every_number_of_sources_comes_in_turn():
    turns = bench_throughput.TaskTurns()
    drawn = [turns(range(4), np.random.default_rng(0)) for _ in range(8)]
    assert [len(task.sources) for task in drawn] == [1, 2, 3, 4] * 2


def test_synthetic_subjects(tmp_path):
    names = bench_crops.make_synthetic(tmp_path, 3, (24, 20, 12))
    files = [tmp_path / name / f"{name}_t2.nii.gz" for name in names]
    first, second, third = (file.read_bytes() for file in files)
    assert first == third  # a copy
    assert first != second


def test_arithmetic_of_networks():
    """Of the published sizes: a task of TSF-Pyramid, and a step, at most a third of TSF-Seq2Seq's.

    Counted at 32 × 32, since each pixel costs the same.
    """
    costs = {cost.name: cost for cost in bench_networks.measure(small=False, pixels=32)}
    tsf, pyramid = costs["tsf_seq2seq"], costs["tsf_pyramid"]
    for own, other in zip(pyramid.task_macs, tsf.task_macs, strict=True):
        assert own < other / 3
    assert pyramid.step_macs < tsf.step_macs / 3
    assert costs["unet"].task_macs[0] == costs["unet"].task_macs[2]
    rows = bench_networks.table(list(costs.values()))
    assert [row[0] for row in rows[1:]] == list(bench_networks.NAMES)
    assert rows[1][3] == "1.00 / 1.00 / 1.00"
