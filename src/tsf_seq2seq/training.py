"""The training loop of both stages."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from tqdm import tqdm

from tsf_seq2seq.architecture import Network
from tsf_seq2seq.backbones import load_features
from tsf_seq2seq.checkpoint import save_checkpoint
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.sampling import Crop, CropStream
from tsf_seq2seq.data.store import find_subjects
from tsf_seq2seq.data.subjects import Subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.losses import PerceptualLoss
from tsf_seq2seq.progress import enter_folder, save_progress
from tsf_seq2seq.stages import Stage, poly_learning_rate, trainable
from tsf_seq2seq.training_log import TrainingLog
from tsf_seq2seq.validation import Validator


def train(
    config: Config, network: Network, stage: Stage, device: torch.device, resume: bool = False
) -> None:
    """Train `network` as `config` says; its folder receives checkpoints, log and curves.

    Parameters that need no gradient stay as they are. With `resume`, goes on from the folder's
    last.pth exactly as if it had not stopped. SIGINT and SIGTERM save and end the process. Raises
    UserError for bad data, a folder already in use, and a loss that is not finite.
    """
    Trainer(config, network, stage, device, resume).run()


class Trainer:
    """One run: what stays the same over its steps."""

    def __init__(
        self, config: Config, network: Network, stage: Stage, device: torch.device, resume: bool
    ) -> None:
        self.config, self.stage, self.device = config, stage, device
        self.folder = config.train.output
        self.training, validation = _find_data(config, stage)
        self.validator = Validator(validation, stage, config)
        self.network = network.to(device)
        self.perceptual = _perceptual_loss(config, device)
        self.optimizer = torch.optim.Adam(
            trainable(network), lr=config.train.lr, fused=device.type == "cuda"
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        self.progress = enter_folder(self.folder, config, network, self.optimizer, resume)
        self.log = TrainingLog(self.folder, self.progress.step)

    def run(self) -> None:
        """Step until the run's last step, or until a signal comes."""
        progress, steps = self.progress, self.config.train.steps
        stream = CropStream(self.training, self.config, self.stage.sample_task, progress.position)
        bar = tqdm(total=steps, initial=progress.step, unit="step", desc=self.stage.title)
        with _interruptible() as interrupted, closing(iter(stream)) as crops, bar:
            while progress.step < steps:
                started = time.perf_counter()

                # --- one step on one crop
                crop, progress.position = next(crops)
                losses = self._step(crop)
                progress.step += 1
                progress.seconds += time.perf_counter() - started
                progress.sums = [a + b for a, b in zip(progress.sums, losses, strict=True)]
                bar.update()

                # --- log, images, validation, checkpoint
                self._record(crop, bar)
                if self._due(self.config.train.checkpoint_steps) or interrupted:
                    self._save()
                if interrupted:
                    tqdm.write(
                        f"stopped by {interrupted[0]} at step {progress.step}; --resume goes on"
                    )
                    raise SystemExit(128 + signal.Signals[interrupted[0]].value)
        self.log.close()
        print(
            f"{self.stage.title}: {progress.step} steps in {progress.seconds:.0f} s, best "
            f"validation PSNR {progress.best_psnr:.2f} dB; weights in {self.folder / 'best.pth'}"
        )

    def _step(self, crop: Crop) -> list[float]:
        """One optimizer step; the total loss before it and its unweighted terms."""
        train, epoch = self.config.train, self.progress.position.epoch
        for group in self.optimizer.param_groups:
            group["lr"] = poly_learning_rate(train.lr, epoch, train.schedule_epochs)
        self.network.train()
        self.optimizer.zero_grad()
        with autocast(self.device, train.precision):
            terms = self.stage.loss(
                self.network, crop.to(self.device), self.perceptual, self.config.loss
            )
        total = terms.total(self.config.loss)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        losses: list[float] = torch.stack([total, *terms]).detach().tolist()
        if not np.isfinite(losses[0]):
            raise UserError(self._not_finite(losses[0], crop))
        return losses

    def _record(self, crop: Crop, bar: tqdm) -> None:
        """Log losses, images and validation where they are due; keep the best weights."""
        train, progress = self.config.train, self.progress
        if progress.step % train.log_steps == 0:
            means = [value / train.log_steps for value in progress.sums]
            lr = self.optimizer.param_groups[0]["lr"]
            self.log.training(progress.step, progress.position.epoch, lr, means, progress.seconds)
            pace = (bar.format_dict["rate"] or 0) * train.batch_size
            bar.set_postfix_str(f"loss {means[0]:.4f}, {pace:.1f} crops/s")
            progress.sums = [0.0] * len(progress.sums)
        if self._due(train.image_steps):
            self.log.images(progress.step, self.network, crop.images[:1].to(self.device))
        if self._due(train.validation_steps):
            value = self.validator(self.network)
            self.log.validation(progress.step, value, progress.seconds)
            if value > progress.best_psnr:
                progress.best_psnr = value
                save_checkpoint(self.folder / "best.pth", self.network, self.config)

    def _due(self, interval: int) -> bool:
        """Whether something that comes every `interval` steps, and at the end, comes now."""
        step = self.progress.step
        return step % interval == 0 or step == self.config.train.steps

    def _save(self) -> None:
        self.log.flush()
        save_progress(
            self.folder / "last.pth", self.network, self.config, self.optimizer, self.progress
        )

    def _not_finite(self, loss: float, crop: Crop) -> str:
        sources, target = crop.task.label(list(self.config.data.sequences))
        last = self.folder / "last.pth"
        kept = f"; {last} keeps an earlier state" if last.exists() else ""
        return (
            f"the loss became {loss} at step {self.progress.step + 1}, on subject "
            f"{', '.join(crop.names)} ({sources} → {target}){kept}"
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
    for index, name in enumerate(config.data.sequences):
        count = sum(index in subject.files for subject in training)
        print(f"{name}: {count} of {len(training)} training subjects")
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
