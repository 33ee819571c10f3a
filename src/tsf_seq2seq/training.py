"""The training loop of both stages."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tsf_seq2seq.architecture import Network
from tsf_seq2seq.backbones import load_features
from tsf_seq2seq.checkpoint import checkpoint_config, read_checkpoint, save_checkpoint
from tsf_seq2seq.config import Config, to_mapping
from tsf_seq2seq.data.sampling import Crop, CropStream, Position
from tsf_seq2seq.data.slices import central, central_window, stacks
from tsf_seq2seq.data.subjects import Subject, SubjectCache, check_depth, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.losses import PerceptualLoss
from tsf_seq2seq.metrics import psnr
from tsf_seq2seq.prediction import synthesize
from tsf_seq2seq.stages import LossTerms, Stage, poly_learning_rate, trainable
from tsf_seq2seq.training_log import TrainingLog
from tsf_seq2seq.weights import load_state

VALIDATION_BATCH = 8  # stacks that pass the network together


@dataclass
class Progress:
    """Where a run stands: all that resuming needs beside weights and optimizer."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_psnr: float = -np.inf
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)


def train(
    config: Config, network: Network, stage: Stage, device: torch.device, resume: bool = False
) -> None:
    """Train `network` as `config` says; its folder receives checkpoints, log and curves.

    Parameters that need no gradient stay as they are. With `resume`, goes on from the folder's
    last.pth exactly as if it had not stopped. SIGINT and SIGTERM save and end the process. Raises
    UserError for bad data, a folder already in use, and a loss that is not finite.
    """
    folder = config.train.output
    last, best = folder / "last.pth", folder / "best.pth"

    # --- data, network, optimizer
    training, validation = _find_data(config, stage)
    network.to(device)
    perceptual = _perceptual_loss(config, device)
    optimizer = torch.optim.Adam(trainable(network), lr=config.train.lr)
    progress = _prepare_folder(folder, config, network, optimizer, resume)
    validator = Validator(validation, stage, config)
    log = TrainingLog(folder, progress.step)
    stream = CropStream(training, config, stage.sample_task, progress.position)
    bar = tqdm(total=config.train.steps, initial=progress.step, unit="step", desc=stage.title)

    first_step, begun = progress.step, time.perf_counter()

    with _interruptible() as interrupted, closing(iter(stream)) as crops, bar:
        while progress.step < config.train.steps:
            started = time.perf_counter()

            # --- one step on one crop
            crop, progress.position = next(crops)
            _set_learning_rate(optimizer, config, progress.position.epoch)
            terms, loss = _step(network, stage, crop, perceptual, optimizer, config, device)
            progress.step += 1
            progress.seconds += time.perf_counter() - started
            _stop_unless_finite(loss, crop, progress.step, config, last)
            values = [loss, *(term.item() for term in terms)]
            progress.sums = [a + b for a, b in zip(progress.sums, values, strict=True)]
            bar.update()

            # --- log, images, validation, checkpoint
            step, ends = progress.step, progress.step == config.train.steps
            if step % config.train.log_steps == 0:
                means = [value / config.train.log_steps for value in progress.sums]
                lr = optimizer.param_groups[0]["lr"]
                log.training(step, progress.position.epoch, lr, means, progress.seconds)
                pace = (step - first_step) * config.train.batch_size / (time.perf_counter() - begun)
                bar.set_postfix_str(f"loss {means[0]:.4f}, {pace:.1f} crops/s")
                progress.sums = [0.0] * 4
            if step % config.train.image_steps == 0 or ends:
                log.images(step, network, crop.images[:1].to(device))
            if step % config.train.validation_steps == 0 or ends:
                value = validator(network)
                log.validation(step, value, progress.seconds)
                if value > progress.best_psnr:
                    progress.best_psnr = value
                    save_checkpoint(best, network, config)
            if step % config.train.checkpoint_steps == 0 or ends or interrupted:
                log.flush()
                _save_last(last, network, config, optimizer, progress)
            if interrupted:
                tqdm.write(f"stopped by {interrupted[0]} at step {step}; --resume goes on from it")
                raise SystemExit(128 + signal.Signals[interrupted[0]].value)
    log.close()
    print(
        f"{stage.title}: {progress.step} steps in {progress.seconds:.0f} s, best validation PSNR "
        f"{progress.best_psnr:.2f} dB; weights in {best}"
    )


class Validator:
    """Mean PSNR over subjects and the stage's tasks, on the central stacks and crop.

    PSNR takes all slices of the block of stacks, data range 2 (the paper's choice of the best
    weights).
    """

    def __init__(self, subjects: Sequence[Subject], stage: Stage, config: Config) -> None:
        data = config.data
        self.subjects, self.stage, self.config = subjects, stage, config
        self.cache = SubjectCache(data.slices, len(data.sequences), data.cache_gb)

    def __call__(self, network: Network) -> float:
        data, height = self.config.data, self.config.seq2seq.slices
        values = []
        for subject in self.subjects:
            volumes = self.cache.load(subject)
            check_depth(volumes, height)
            images = volumes.images
            window = central_window(images.shape[1:], data.slices, data.crop)
            blocks = stacks(window.of(images), height)
            blocks = blocks[:, central(blocks.shape[1], data.validation_stacks)]  # (S, N, C, H, W)
            tasks = self.stage.validation_tasks(subject)
            outputs = synthesize(network, blocks, tasks, VALIDATION_BATCH)
            values += [psnr(blocks[task.target], outputs[task]) for task in tasks]
        network.train()
        return float(np.mean(values))


def _step(
    network: Network,
    stage: Stage,
    crop: Crop,
    perceptual: PerceptualLoss | None,
    optimizer: torch.optim.Optimizer,
    config: Config,
    device: torch.device,
) -> tuple[LossTerms, float]:
    """One optimizer step; the unweighted loss terms and the total before it."""
    network.train()
    crop = Crop(crop.images.to(device), crop.task, crop.skip_attention, crop.names)
    optimizer.zero_grad()
    terms = stage.loss(network, crop, perceptual, config.loss)
    total = terms.total(config.loss)
    total.backward()
    optimizer.step()
    return terms, total.item()


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, epoch: int) -> None:
    rate = poly_learning_rate(config.train.lr, epoch, config.train.schedule_epochs)
    for group in optimizer.param_groups:
        group["lr"] = rate


def _stop_unless_finite(loss: float, crop: Crop, step: int, config: Config, last: Path) -> None:
    if np.isfinite(loss):
        return
    sources, target = crop.task.label(list(config.data.sequences))
    kept = f"; {last} keeps an earlier state" if last.exists() else ""
    raise UserError(
        f"the loss became {loss} at step {step}, on subject {', '.join(crop.names)} "
        f"({sources} → {target}){kept}"
    )


def _find_data(config: Config, stage: Stage) -> tuple[list[Subject], list[Subject]]:
    training = find_subjects(config.data, config.data.train)
    validation = find_subjects(config.data, config.data.valid)
    if not any(stage.validation_tasks(subject) for subject in validation):
        raise UserError(
            f"{config.data.valid}: no subject gives a task to validate {stage.title} on; stage 2 "
            "needs masks that leave out a sequence which is on disk"
        )
    for index, name in enumerate(config.data.sequences):
        count = sum(index in subject.files for subject in training)
        print(f"{name}: {count} of {len(training)} training subjects")
    return training, validation


def _perceptual_loss(config: Config, device: torch.device) -> PerceptualLoss | None:
    settings = config.perceptual
    if settings.backbone == "none" or config.loss.perceptual == 0:
        return None
    return PerceptualLoss(load_features(settings.backbone, settings.weights)).to(device)


def _prepare_folder(
    folder: Path,
    config: Config,
    network: Network,
    optimizer: torch.optim.Optimizer,
    resume: bool,
) -> Progress:
    """A fresh start, or the state of the folder's last.pth put into network and optimizer."""
    last = folder / "last.pth"
    if not last.exists():
        if resume:
            print(f"{last} does not exist: training starts from the beginning")
        return Progress()
    if not resume:
        raise UserError(f"{folder} holds a run already: --resume goes on, -o names another folder")
    content = read_checkpoint(last)
    if "training" not in content:
        raise UserError(f"{last} holds no training state, so that it can't be resumed")
    load_state(network, content["weights"], last)
    _report_changes(checkpoint_config(content, last), config)
    state: dict[str, Any] = content["training"]
    optimizer.load_state_dict(state["optimizer"])
    return Progress(
        step=state["step"],
        position=Position(*state["position"]),
        best_psnr=state["best_psnr"],
        seconds=state["seconds"],
        sums=list(state["sums"]),
    )


def _report_changes(before: Config, now: Config) -> None:
    old, new = to_mapping(before), to_mapping(now)
    for section in new:
        for key in new[section] or {}:
            was, value = (old[section] or {}).get(key), new[section][key]
            if was != value:
                print(f"resuming with {section}.{key} = {value}, which was {was}")


def _save_last(
    path: Path,
    network: Network,
    config: Config,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    state = {
        "optimizer": optimizer.state_dict(),
        "step": progress.step,
        "position": tuple(progress.position),
        "best_psnr": float(progress.best_psnr),
        "seconds": progress.seconds,
        "sums": progress.sums,
    }
    save_checkpoint(path, network, config, state)


@contextmanager
def _interruptible() -> Iterator[list[str]]:
    """Within it, SIGINT and SIGTERM don't interrupt: their names appear in the list it gives."""
    received: list[str] = []

    def note(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
