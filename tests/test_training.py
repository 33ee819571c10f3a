"""Training runs: resuming exactly, stopping cleanly, and what they leave in their folder."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SEQUENCES, TINY_SEQ2SEQ, TINY_TSF, TINY_UNET, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    load_seq2seq_weights,
    load_weights,
    read_checkpoint,
)
from tsf_seq2seq.cli.train import train_network, train_seq2seq, train_tsf_seq2seq
from tsf_seq2seq.config import Config, config_from_mapping, load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import TSFSeq2Seq, UNet, build_network
from tsf_seq2seq.training import loop as training
from tsf_seq2seq.training import validation
from tsf_seq2seq.training.objectives import Seq2SeqObjective, TSFObjective

CPU = torch.device("cpu")
AUGMENTED = ["augmentation.rotation=20", "augmentation.elastic=1", "augmentation.noise=0.05"]
NETWORKS = {"stage 1": TINY_SEQ2SEQ, "stage 2": TINY_TSF, "unet": TINY_UNET}


class Killed(BaseException):
    """Stands for kill -9: nothing in the library may catch it."""


@pytest.fixture
def quick(monkeypatch):
    """No curves.png: its drawing takes longer than all steps."""
    monkeypatch.setattr("tsf_seq2seq.training.log.plot_curves", lambda *_: None)


@pytest.fixture
def yaml(tiny_dataset, tmp_path):
    """yaml(network): settings of a tiny run of one of the NETWORKS."""

    def write(network: str) -> Path:
        path = tmp_path / f"{network}.yaml"
        path.write_text(tiny_yaml(NETWORKS[network], tiny_dataset, tmp_path / "run"))
        return path

    return write


@pytest.fixture
def settings(yaml, tmp_path):
    """settings(network, folder, overrides…) of a tiny run."""

    def make(network: str, folder: str = "run", *overrides: str) -> Config:
        return load_config(yaml(network), [f"train.output={tmp_path / folder}", *overrides])

    return make


def run(config: Config, resume: bool = False) -> Path:
    """Train in the config's folder, as the scripts do; the folder."""
    training.train(config, build_network(config), CPU, resume)
    return config.train.output


def before_each_step(patch, act) -> None:
    """Call `act` with the number of steps that the run has done."""
    real, done = training.Trainer._step, []

    def step(*arguments):
        act(len(done))
        done.append(1)
        return real(*arguments)

    patch.setattr(training.Trainer, "_step", step)


def run_and_kill(monkeypatch, steps: int, *arguments, **options) -> None:
    """A run whose process dies in the step after `steps` of them."""

    def die(done: int) -> None:
        if done == steps:
            raise Killed

    with monkeypatch.context() as patch:
        before_each_step(patch, die)
        with pytest.raises(Killed):
            run(*arguments, **options)


def log_of(folder: Path) -> list[dict[str, str]]:
    """Rows of log.csv without the column of seconds."""
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def check_same_run(folder: Path, wanted: Path) -> None:
    """Logs, weights and optimizer state are equal bit for bit."""
    assert log_of(folder) == log_of(wanted)
    ours, theirs = (read_checkpoint(path / "last.pth") for path in (folder, wanted))
    check_equal(ours["weights"], theirs["weights"])
    for part in ("optimizers", "companions", "step", "position", "best_psnr", "sums"):
        check_equal(ours["training"][part], theirs["training"][part])
    best, other = (read_checkpoint(path / "best.pth")["weights"] for path in (folder, wanted))
    check_equal(best, other)


def check_equal(one, other) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            check_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


# --- resuming


@pytest.mark.parametrize("network", NETWORKS)
def test_resuming_after_a_kill_is_exact(network, settings, quick, monkeypatch):
    whole = run(settings(network, "whole"))
    assert [row["step"] for row in log_of(whole) if row["loss"]] == list("123456")
    for steps in range(1, 6):
        config = settings(network, f"after {steps}")
        run_and_kill(monkeypatch, steps, config)
        last = config.train.output / "last.pth"  # written every second step
        assert last.exists() == (steps > 1)
        if last.exists():
            assert read_checkpoint(last)["training"]["step"] == steps // 2 * 2
        check_same_run(run(config, resume=True), whole)


@pytest.mark.parametrize("augmentation", [[], AUGMENTED])
def test_resuming_twice_with_means_over_steps_and_workers(
    augmentation, settings, quick, monkeypatch
):
    overrides = ["train.log_steps=3", "train.checkpoint_steps=1", "train.validation_steps=6"]
    overrides += augmentation
    whole = run(settings("stage 1", "whole", *overrides))
    config = settings("stage 1", "run", *overrides, "data.workers=1")
    for steps in (2, 2):
        run_and_kill(monkeypatch, steps, config, resume=True)
    check_same_run(run(config, resume=True), whole)


def test_going_on_for_longer(settings, quick, capsys):
    short = settings("stage 1", "run", "train.steps=2")
    run(short)
    run(dataclasses.replace(short, train=dataclasses.replace(short.train, steps=6)), resume=True)
    assert "resuming with train.steps = 6, which was 2" in capsys.readouterr().out
    steps = [int(row["step"]) for row in log_of(short.train.output) if row["loss"]]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resume_without_a_run_starts_afresh(settings, quick, capsys):
    folder = run(settings("stage 1"), resume=True)
    assert "does not exist: training starts from the beginning" in capsys.readouterr().out
    assert read_checkpoint(folder / "last.pth")["training"]["step"] == 6


def test_resume_with_a_lost_log(settings, quick):
    config = settings("stage 1", "run", "train.steps=2")
    (run(config) / "log.csv").unlink()
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=3))
    folder = run(longer, resume=True)
    assert [row["step"] for row in log_of(folder) if row["loss"]] == ["3"]


def test_a_folder_in_use_is_refused(settings, quick):
    config = settings("stage 1", "run", "train.steps=1")
    before = (run(config) / "last.pth").read_bytes()
    with pytest.raises(UserError, match="holds a run already: --resume goes on"):
        run(config)
    assert (config.train.output / "last.pth").read_bytes() == before


def test_stage_2_does_not_resume_stage_1(settings, quick):
    run(settings("stage 1", "run", "train.steps=1"))
    with pytest.raises(UserError, match=r"last\.pth is of another architecture"):
        run(settings("stage 2", "run", "train.steps=2"), resume=True)


def former_settings(config: dict) -> dict:
    """The settings of a checkpoint as version 1 had them, with sections seq2seq and fusion."""
    seq2seq, data, train = (dict(config[key]) for key in ("network", "data", "train"))
    fusion = None
    if seq2seq.pop("name") == "tsf_seq2seq":
        fusion = {
            "attention_channels": seq2seq.pop("attention_channels"),
            "attention_kernels": seq2seq.pop("attention_kernels"),
            "kernels": seq2seq.pop("attention_mixed"),
            "norm": seq2seq.pop("attention_norm"),
        }
    seq2seq["slices"] = data.pop("stack")
    train["output_start"] = seq2seq.pop("output_start")
    kept = {key: config[key] for key in ("loss", "perceptual")}
    return {"seq2seq": seq2seq, "fusion": fusion, "data": data, "train": train, **kept}


def make_former(folder: Path) -> None:
    """Turn last.pth and log.csv into what version 1 left after the same steps."""
    content = torch.load(folder / "last.pth", weights_only=True)
    training = content["training"]
    training["optimizer"] = training.pop("optimizers")["network"]
    del training["companions"]
    names = ("loss", "reconstruction", "perceptual", "cycle")
    training["sums"] = [training["sums"].get(name, 0.0) for name in names]
    content |= {"version": 1, "config": former_settings(content["config"])}
    torch.save(content, folder / "last.pth")
    with open(folder / "log.csv", newline="") as file:
        rows = [{"cycle": "0.0", **row} for row in csv.DictReader(file)]
    columns = ("step", "epoch", "lr", *names, "validation_psnr", "seconds")
    with open(folder / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("network", ["stage 1", "stage 2"])
def test_a_run_of_version_1_goes_on_exactly(network, settings, quick, monkeypatch):
    """In the middle of a line of log.csv, so that the sums count."""
    overrides = ["train.log_steps=3", "network.output_start=background"]
    whole = run(settings(network, "whole", *overrides))
    config = settings(network, "run", *overrides)
    run_and_kill(monkeypatch, 5, config)
    make_former(config.train.output)
    former = torch.load(config.train.output / "last.pth", weights_only=True)
    assert former["training"]["step"] == 4
    assert former["training"]["sums"][0] > 0
    assert "network" not in former["config"]
    check_same_run(run(config, resume=True), whole)


def test_networks_of_version_1_load(settings, quick):
    folder = run(settings("stage 2"))
    wanted = load_model(folder / "last.pth").state_dict()
    make_former(folder)
    network = load_model(folder / "last.pth")
    assert isinstance(network, TSFSeq2Seq)
    check_equal(network.state_dict(), wanted)


# --- scripts


@pytest.mark.parametrize(
    ("main", "own", "network", "other"),
    [
        (train_seq2seq, "seq2seq", "stage 2", "tsf_seq2seq"),
        (train_seq2seq, "seq2seq", "unet", "unet"),
        (train_tsf_seq2seq, "tsf_seq2seq", "stage 1", "seq2seq"),
        (train_tsf_seq2seq, "tsf_seq2seq", "unet", "unet"),
    ],
)
def test_the_papers_scripts_refuse_other_networks(main, own, network, other, yaml, script):
    path = yaml(network)
    assert script(main, "-c", path).error == (
        f"{path} describes network {other}, but this script trains {own}; src/train/train.py "
        "trains any"
    )


def test_one_script_trains_every_network(yaml, script, tmp_path):
    weights = tmp_path / "stage 1" / "best.pth"
    for network in NETWORKS:
        options = ["-c", yaml(network), "-o", tmp_path / network, "--set", "train.steps=1"]
        if network == "stage 2":
            options += ["-m", weights]
        assert script(train_network, *options).code == 0
    stage_1, stage_2 = (load_model(tmp_path / f"stage {i}" / "best.pth") for i in (1, 2))
    check_equal(stage_2.seq2seq.encoder.state_dict(), stage_1.encoder.state_dict())
    assert type(load_model(tmp_path / "unet" / "best.pth")) is UNet
    error = script(train_network, "-c", yaml("unet"), "-m", weights).error
    assert error == f"network unet builds on no other network: leave -m {weights} out"


# --- stopping


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signals_save_after_the_step(name, settings, quick, monkeypatch, capsys):
    config = settings("stage 1", "run", "train.checkpoint_steps=1000")
    number = signal.Signals[name]
    before = signal.getsignal(number)

    def interrupt(done: int) -> None:
        if done == 2:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        before_each_step(patch, interrupt)
        with pytest.raises(SystemExit) as end:
            run(config)
    assert end.value.code == 128 + number
    assert f"stopped by {name} at step 3; --resume goes on" in capsys.readouterr().out
    assert read_checkpoint(config.train.output / "last.pth")["training"]["step"] == 3
    assert signal.getsignal(number) is before
    whole = settings("stage 1", "whole", "train.checkpoint_steps=1000")
    check_same_run(run(config, resume=True), run(whole))


def test_sigterm_to_the_script(tiny_stage1, tmp_path):
    command = [
        sys.executable,
        REPOSITORY / "src/train/seq2seq/train_brats_seq2seq_2d.py",
        *("-c", tiny_stage1, "-o", tmp_path / "run", "--set", "train.steps=1000000"),
        *("--set", "train.validation_steps=1000000", "--set", "train.checkpoint_steps=1000000"),
        *("--set", "data.workers=1", "--set", "train.log_steps=1"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            deadline = time.monotonic() + 60
            events = tmp_path / "run" / "tensorboard"
            while not list(events.glob("events.out*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)  # the loop begins
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 143
    (line,) = [line for line in out.splitlines() if line.startswith("stopped by")]
    step = read_checkpoint(tmp_path / "run" / "last.pth")["training"]["step"]
    assert line == f"stopped by SIGTERM at step {step}; --resume goes on"
    assert step >= 1
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_stops_the_run(settings, quick, monkeypatch):
    config = settings("stage 1", "run", "train.steps=2")
    last = run(config) / "last.pth"
    before = last.read_bytes()

    real = Seq2SeqObjective.losses

    def losses(*arguments):
        terms = real(*arguments)
        return {**terms, "reconstruction": terms["reconstruction"] * float("nan")}

    monkeypatch.setattr(Seq2SeqObjective, "losses", losses)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=6))
    with pytest.raises(UserError) as error:
        run(longer, resume=True)
    message = str(error.value)
    assert message.startswith("the loss became nan at step 3, on subject Tiny_0000")
    assert f"{last} keeps an earlier state" in message
    assert last.read_bytes() == before


# --- what a run leaves


@pytest.fixture
def folder(settings) -> Path:
    return run(settings("stage 2"))


def test_files_of_a_run(folder):
    assert {path.name for path in folder.iterdir()} == {
        "best.pth",
        "curves.png",
        "last.pth",
        "log.csv",
        "tensorboard",
    }
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert any(path.name.startswith("events.out") for path in (folder / "tensorboard").iterdir())


def test_log_of_a_run(folder):
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,lr,loss,reconstruction,perceptual,validation_psnr,seconds"
    rows = log_of(folder)
    assert [(row["step"], bool(row["loss"])) for row in rows] == [
        ("1", True),
        ("2", True),
        ("3", True),
        ("3", False),
        ("4", True),
        ("5", True),
        ("6", True),
        ("6", False),
    ]
    losses = [row for row in rows if row["loss"]]
    assert [row["epoch"] for row in losses] == list("000011")  # 2 subjects, 2 crops a visit
    rates = [float(row["lr"]) for row in losses]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.9**0.9)
    for row in losses:
        assert float(row["perceptual"]) == 0
        assert float(row["loss"]) == pytest.approx(10 * float(row["reconstruction"]), rel=1e-5)


@pytest.mark.parametrize(
    ("network", "terms", "weights"),
    [
        ("stage 1", ("reconstruction", "perceptual", "cycle"), (10, 0.01, 10)),
        ("unet", ("l1",), (1,)),
    ],
)
def test_the_log_has_the_terms_of_the_network(network, terms, weights, settings, quick):
    rows = log_of(run(settings(network)))
    assert tuple(rows[0]) == ("step", "epoch", "lr", "loss", *terms, "validation_psnr")
    for row in (row for row in rows if row["loss"]):
        total = sum(w * float(row[term]) for w, term in zip(weights, terms, strict=True))
        assert float(row["loss"]) == pytest.approx(total, rel=1e-5)


def test_rates_of_one_cycle(settings, quick):
    """Of ten steps: lr/25 first, along a cosine to lr after 3 of them, and down again."""
    config = settings("unet", "run", "train.steps=10", "train.validation_steps=10")
    rates = [float(row["lr"]) for row in log_of(run(config)) if row["loss"]]
    low, rise = 1e-3 / 25, 1e-3 * 24 / 25
    assert rates[:4] == pytest.approx([low, low + 0.25 * rise, low + 0.75 * rise, 1e-3])
    last, left = 1e-3 / 250_000, (1 + np.cos(np.pi * 6 / 7)) / 2
    assert rates[9] == pytest.approx(last + (1e-3 - last) * left)


def test_best_holds_weights_settings_statistics_and_maps_only(folder, settings):
    best, last = (read_checkpoint(folder / name) for name in ("best.pth", "last.pth"))
    assert best.keys() == {"format", "version", "config", "weights", "statistics", "prior"}
    assert last["statistics"] == best["statistics"]
    assert last.keys() == best.keys() - {"prior"} | {"training"}
    assert config_from_mapping(best["config"], "best") == settings("stage 2")
    psnr = max(float(row["validation_psnr"]) for row in log_of(folder) if row["validation_psnr"])
    assert last["training"]["best_psnr"] == psnr
    assert isinstance(load_model(folder / "best.pth"), TSFSeq2Seq)


def test_stage_2_freezes_the_encoder_only(folder, settings):
    before = build_network(settings("stage 2")).state_dict()
    after = read_checkpoint(folder / "last.pth")["weights"]
    frozen = ("seq2seq.encoder.", "seq2seq.encoder_lstm.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(frozen) for name in changed)
    for part in (
        "fusion.",
        "attention.",
        "seq2seq.decoder.",
        "seq2seq.decoder_lstm.",
        "seq2seq.style.",
    ):
        assert any(name.startswith(part) for name in changed), part


def test_stage_1_trains_everything(settings, quick):
    config = settings("stage 1")
    before = build_network(config).state_dict()
    after = read_checkpoint(run(config) / "last.pth")["weights"]
    same = {name for name in before if torch.equal(before[name], after[name])}
    # A bias before instance norm has no effect; biases of hidden HyperConvs and they stay near 0.
    assert all("bias" in name for name in same)


def test_weights_go_on_into_both_stages(folder, settings, quick):
    stage_2 = load_model(folder / "best.pth")
    network = build_network(settings("stage 1"))
    load_seq2seq_weights(network, folder / "best.pth", SEQUENCES)
    check_equal(network.state_dict(), stage_2.seq2seq.state_dict())
    other = build_network(settings("stage 2", "other", "train.seed=1"))
    load_weights(other, folder / "best.pth", None, SEQUENCES)
    check_equal(other.state_dict(), stage_2.state_dict())


def test_initial_weights_follow_the_seed(settings):
    random = torch.random.get_rng_state()
    one, same, other = (
        build_network(settings("stage 1", "run", f"train.seed={seed}")).state_dict()
        for seed in (0, 0, 1)
    )
    check_equal(one, same)
    assert not torch.equal(one["style.weight"], other["style.weight"])
    assert torch.equal(torch.random.get_rng_state(), random)


def test_validation_psnr_by_hand(settings, tiny_dataset):
    config = settings("stage 2")
    subjects = find_subjects(config.data, config.data.valid)
    network = build_network(config).eval()
    objective = TSFObjective(network, config.loss)
    value = validation.Validator(subjects, objective, config)(network)
    assert network.training
    images = validation.SubjectCache(12, 4, 0).load(subjects[0]).images
    block = images[:, :, 2:18, 4:20]  # central 16 × 16 of 20 × 24, and stacks 3 to 6 of 10
    errors = []
    with torch.no_grad():
        for z in range(3, 7):
            stack = torch.from_numpy(block[None, :, z : z + 3])
            output = network(stack, [True, False, True, True], 1)
            errors.append((output[0] - stack[0, 1]).square().mean().item())
    assert value == pytest.approx(10 * np.log10(4 / np.mean(errors)), abs=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_batches_of_two(network, settings, quick):
    folder = run(settings(network, "run", "train.batch_size=2"))
    assert len([row for row in log_of(folder) if row["loss"]]) == 6


def test_stage_2_needs_a_missing_target_to_validate_on(settings, tiny_dataset):
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,15\n")
    with pytest.raises(UserError, match=r"valid\.csv: no subject gives a task to validate"):
        run(settings("stage 2"))


def test_overfitting_one_subject(settings, tiny_dataset, quick):
    (tiny_dataset / "train.csv").write_text("Tiny_00000,15\n")
    overrides = ["train.steps=60", "train.lr=3e-3", "train.validation_steps=60"]
    overrides += ["train.checkpoint_steps=60", "train.crops_per_visit=10", "data.cache_gb=1"]
    folder = run(settings("stage 1", "run", *overrides))
    losses = [float(row["loss"]) for row in log_of(folder) if row["loss"]]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_close(settings, precision):
    """Few steps from the same weights; the stored weights stay float32."""
    losses = {}
    for name in ("fp32", precision):
        folder = run(settings("stage 2", name, f"train.precision={name}"))
        losses[name] = [float(row["loss"]) for row in log_of(folder) if row["loss"]]
    np.testing.assert_allclose(losses[precision], losses["fp32"], rtol=0.1)
    weights = torch.load(folder / "best.pth", weights_only=True)["weights"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
