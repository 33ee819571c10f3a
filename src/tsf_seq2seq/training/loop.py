"""The training loop of both stages."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from tsf_seq2seq.checkpoints.backbones import load_features
from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import Config, LossConfig
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.sampling import Crop, CropStream
from tsf_seq2seq.data.statistics import measure_statistics
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import ALONE, Processes, loss_of_processes_reported
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.build import Network
from tsf_seq2seq.training.acceleration import prepare
from tsf_seq2seq.training.log import NoLog, TrainingLog
from tsf_seq2seq.training.objectives import LossTerms, Stage, poly_learning_rate, trainable
from tsf_seq2seq.training.perceptual import PerceptualLoss
from tsf_seq2seq.training.state import enter_folder, save_progress
from tsf_seq2seq.training.validation import Validator


def train(
    config: Config,
    network: Network,
    stage: Stage,
    device: torch.device,
    resume: bool = False,
    processes: Processes = ALONE,
) -> None:
    """Train `network` as `config` says; its folder receives checkpoints, log and curves.

    Parameters that need no gradient stay as they are. With `resume`, goes on from the folder's
    last.pth exactly as if it had not stopped. SIGINT and SIGTERM save and end the process. Each of
    several `processes` trains on train.batch_size samples a step, all on one task. Raises UserError
    for bad data, a folder already in use, a loss that is not finite, and where another process
    ends before its time.
    """
    Trainer(config, network, stage, device, resume, processes).run()


class Trainer:
    """One run: what stays the same over its steps."""

    def __init__(
        self,
        config: Config,
        network: Network,
        stage: Stage,
        device: torch.device,
        resume: bool,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.stage, self.device, self.processes = config, stage, device, processes
        self.folder = config.train.output
        self.training, validation = _find_data(config, stage)
        self.validator = Validator(validation, stage, config, processes)
        self.network = network.to(device)
        self.perceptual = _perceptual_loss(config, device)
        prepare(self.network, self.perceptual, config.train, device)
        self.optimizer = torch.optim.Adam(
            trainable(network), lr=config.train.lr, fused=device.type == "cuda"
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        self.progress = enter_folder(self.folder, config, network, self.optimizer, resume)
        _check_same_start(self.folder, self.progress.step, processes)
        if self.progress.statistics is None and processes.main:
            self.progress.statistics = measure_statistics(config.data, self.training)
        self.log = TrainingLog(self.folder, self.progress.step) if processes.main else NoLog()
        self.loss = _synchronized(StepLoss(network, stage, config.loss), processes)

    def run(self) -> None:
        """Step until the run's last step, or until a signal comes."""
        progress, steps, main = self.progress, self.config.train.steps, self.processes.main
        if main:
            self._print_counts()
        stream = CropStream(
            self.training, self.config, self.stage.sample_task, progress.position, self.processes
        )
        title = self.stage.title
        bar = tqdm(total=steps, initial=progress.step, unit="step", desc=title, disable=not main)
        with _interruptible() as received, closing(iter(stream)) as crops, bar:
            while progress.step < steps:
                started = time.perf_counter()

                # --- one step on one crop
                crop, progress.position = next(crops)
                (samples,) = self.processes.sum([len(crop.names)])
                if not samples:
                    continue
                *losses, interrupted = self._step(crop, len(crop.names) / samples, received)
                progress.step += 1
                progress.seconds += time.perf_counter() - started
                progress.sums = [a + b for a, b in zip(progress.sums, losses, strict=True)]
                bar.update()

                # --- log, images, validation, checkpoint
                self._record(crop, bar)
                if self._due(self.config.train.checkpoint_steps) or interrupted:
                    self._save()
                if interrupted:
                    self._stop(received)
        self.log.close()
        if main:
            print(
                f"{title}: {progress.step} steps in {progress.seconds:.0f} s, best validation "
                f"PSNR {progress.best_psnr:.2f} dB; weights in {self.folder / 'best.pth'}"
            )

    def _step(self, crop: Crop, share: float, received: Sequence[str]) -> list[float]:
        """One optimizer step on the samples of all processes, of which this one has a `share`.

        The total loss before it, its unweighted terms, and whether any process received a signal.
        """
        train, epoch = self.config.train, self.progress.position.epoch
        for group in self.optimizer.param_groups:
            group["lr"] = poly_learning_rate(train.lr, epoch, train.schedule_epochs)
        self.network.train()
        self.optimizer.zero_grad()
        with loss_of_processes_reported():
            with autocast(self.device, train.precision):
                terms = self.loss(crop.to(self.device), self.perceptual)
            total = terms.total(self.config.loss)
            weight = share * self.processes.size  # DistributedDataParallel averages
            self.scaler.scale(total * weight).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        own = torch.stack([total, *terms]).detach().tolist()
        weighted = [share * value if share else 0.0 for value in own]
        values = self.processes.sum([*weighted, bool(received)])
        if not np.isfinite(values[0]):
            raise UserError(self._not_finite(values[0], crop))
        return values

    def _record(self, crop: Crop, bar: tqdm) -> None:
        """Log losses, images and validation where they are due; keep the best weights."""
        train, progress = self.config.train, self.progress
        if progress.step % train.log_steps == 0:
            means = [value / train.log_steps for value in progress.sums]
            lr = self.optimizer.param_groups[0]["lr"]
            self.log.training(progress.step, progress.position.epoch, lr, means, progress.seconds)
            pace = (bar.format_dict["rate"] or 0) * train.batch_size * self.processes.size
            bar.set_postfix_str(f"loss {means[0]:.4f}, {pace:.1f} crops/s")
            progress.sums = [0.0] * len(progress.sums)
        if self._due(train.image_steps):
            self.log.images(
                progress.step, self.network, crop.images[:1].to(self.device), crop.available
            )
        if self._due(train.validation_steps):
            value = self.validator(self.network)
            self.log.validation(progress.step, value, progress.seconds)
            if value > progress.best_psnr:
                progress.best_psnr = value
                self._save_best()

    def _due(self, interval: int) -> bool:
        """Whether something that comes every `interval` steps, and at the end, comes now."""
        step = self.progress.step
        return step % interval == 0 or step == self.config.train.steps

    def _save_best(self) -> None:
        if self.processes.main:
            path, statistics = self.folder / "best.pth", self.progress.statistics
            save_checkpoint(path, self.network, self.config, statistics=statistics)

    def _save(self) -> None:
        if not self.processes.main:
            return
        self.log.flush()
        save_progress(
            self.folder / "last.pth", self.network, self.config, self.optimizer, self.progress
        )

    def _stop(self, received: Sequence[str]) -> None:
        """End the process after a signal, its own or another process's."""
        name = received[0] if received else "SIGTERM"
        if self.processes.main:
            tqdm.write(f"stopped by {name} at step {self.progress.step}; --resume goes on")
        raise SystemExit(128 + signal.Signals[name].value)

    def _not_finite(self, loss: float, crop: Crop) -> str:
        sources, target = crop.task.label(list(self.config.data.sequences))
        last = self.folder / "last.pth"
        kept = f"; {last} keeps an earlier state" if last.exists() else ""
        return (
            f"the loss became {loss} at step {self.progress.step + 1}, on subject "
            f"{', '.join(crop.names)} ({sources} → {target}){kept}"
        )

    def _print_counts(self) -> None:
        for index, name in enumerate(self.config.data.sequences):
            count = sum(index in subject.files for subject in self.training)
            print(f"{name}: {count} of {len(self.training)} training subjects")


class StepLoss(nn.Module):
    """A stage's loss terms as a module's output, as DistributedDataParallel needs them.

    The perceptual loss is handed in: nothing of it is to be synchronized.
    """

    def __init__(self, network: Network, stage: Stage, weights: LossConfig) -> None:
        super().__init__()
        self.network, self.stage, self.weights = network, stage, weights

    def forward(self, crop: Crop, perceptual: PerceptualLoss | None) -> LossTerms:
        return self.stage.loss(self.network, crop, perceptual, self.weights)


def _synchronized(loss: StepLoss, processes: Processes) -> nn.Module:
    """The loss whose backward pass averages gradients over the processes."""
    if processes.size == 1:
        return loss
    with loss_of_processes_reported():
        return DistributedDataParallel(loss, gradient_as_bucket_view=True)


def _check_same_start(folder: Path, step: int, processes: Processes) -> None:
    steps = processes.gather(step)
    if len(set(steps)) > 1:
        raise UserError(
            f"the training processes find different states in {folder} (steps "
            f"{', '.join(map(str, steps))}): it must be one folder that all machines share"
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the networks; without effect for fp32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _find_data(config: Config, stage: Stage) -> tuple[list[Subject], list[Subject]]:
    training = find_subjects(config.data, config.data.train)
    validation = find_subjects(config.data, config.data.valid)
    if not any(stage.validation_tasks(subject) for subject in validation):
        raise UserError(
            f"{config.data.valid}: no subject gives a task to validate {stage.title} on; stage 2 "
            "needs masks that leave out a sequence which is on disk"
        )
    return training, validation


def _perceptual_loss(config: Config, device: torch.device) -> PerceptualLoss | None:
    settings = config.perceptual
    if settings.backbone == "none" or config.loss.perceptual == 0:
        return None
    return PerceptualLoss(load_features(settings.backbone, settings.weights)).to(device)


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
