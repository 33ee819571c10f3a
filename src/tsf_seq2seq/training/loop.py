"""The training loop of every network."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from tsf_seq2seq.checkpoints.backbones import load_features
from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.sampling import Crop, CropStream, check_sizes
from tsf_seq2seq.data.statistics import measure_statistics
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import (
    ALONE,
    Processes,
    local_rank,
    loss_of_processes_reported,
)
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork, seeded
from tsf_seq2seq.models.build import NETWORKS
from tsf_seq2seq.training.acceleration import accelerate
from tsf_seq2seq.training.average import WEIGHT_AVERAGE, weight_average
from tsf_seq2seq.training.data_changes import report_data_changes, subject_digests
from tsf_seq2seq.training.log import NoLog, TrainingLog, writers_thread_quiet
from tsf_seq2seq.training.objectives import Objective
from tsf_seq2seq.training.perceptual import PerceptualLoss
from tsf_seq2seq.training.prior import add_prior
from tsf_seq2seq.training.state import Trained, enter_folder, kept_of_a_parameter, save_state
from tsf_seq2seq.training.validation import Validator


def train(
    config: Config,
    network: SynthesisNetwork,
    device: torch.device,
    resume: bool = False,
    processes: Processes = ALONE,
) -> None:
    """Train `network` as `config` says; its folder receives checkpoints, log and curves.

    What is optimized, the table of networks says. With `resume`, goes on from the folder's last.pth
    exactly as if it had not stopped. SIGINT and SIGTERM save and end the process. Each of several
    `processes` trains on train.batch_size samples a step, all on one task. Raises UserError for bad
    data, a folder already in use, a loss that is not finite, and where another process ends before
    its time.
    """
    with processes.claim(config.train.output), writers_thread_quiet():
        Trainer(config, network, device, resume, processes).run()


class Trainer:
    """One run: what stays the same over its steps."""

    def __init__(
        self,
        config: Config,
        network: SynthesisNetwork,
        device: torch.device,
        resume: bool,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.folder = config.train.output
        self.network = network.to(device)
        perceptual = _perceptual_loss(config, device)
        objective_of = NETWORKS[config.network.name].objective
        with seeded(config.train.seed):  # an objective may bring modules of its own
            self.objective = objective_of(network, config.loss, perceptual)
            self.objective.configure(config)
        self.training, self.validation = _find_data(config, self.objective, processes)
        check_sizes(config, len(self.training))
        _check_crop(config, network, self.objective)
        self.validator = Validator(self.validation, self.objective, config, processes)
        accelerate(network, perceptual, config.train, device)
        self.trained = _trained(self.objective, config, device)
        average = self.trained.companions.get(WEIGHT_AVERAGE)
        self.average = average if isinstance(average, AveragedModel) else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        self.state = enter_folder(self.folder, config, self.trained, resume)
        _check_same_start(self.folder, self.state.step, processes)
        if self.state.step == 0:
            self.objective.prepare(config, self.training)
        if processes.main:
            self._look_at_data()
        terms = self.objective.terms
        self.log = TrainingLog(self.folder, self.state.step, terms) if processes.main else NoLog()
        self.losses = {
            name: _synchronized(StepLoss(self.objective, name), processes)
            for name in self.trained.optimizers
        }

    def run(self) -> None:
        """Step until the run's last step, or until a signal comes."""
        state, steps, main = self.state, self.config.train.steps, self.processes.main
        if main:
            self._print_counts()
        sample_task, title = self.objective.task_at, self.objective.title
        stream = CropStream(self.training, self.config, sample_task, state.position, self.processes)
        bar = tqdm(total=steps, initial=state.step, unit="step", desc=title, disable=not main)
        with _interruptible() as received, closing(iter(stream)) as crops, bar:
            while state.step < steps:
                started = time.perf_counter()

                # --- one step on one crop
                crop, state.position = next(crops)
                (samples,) = self.processes.sum([len(crop.names)])
                if not samples:
                    continue
                with seeded(self._chance()):
                    losses = self._step(crop, len(crop.names) / samples)
                state.step += 1
                state.seconds += time.perf_counter() - started
                state.sums = {key: state.sums.get(key, 0.0) + losses[key] for key in losses}
                bar.update()

                # --- log, images, validation, checkpoint
                interrupted = self.processes.any(bool(received))
                self._record(crop, bar)
                if self._due(self.config.train.checkpoint_steps) or interrupted:
                    self._save()
                if interrupted:
                    self._stop(received)
        self.log.close()
        add_prior(
            self.folder / "best.pth", self.validation, self.training, self.device, self.processes
        )
        if main:
            print(
                f"{title}: {state.step} steps in {state.seconds:.0f} s, best validation "
                f"PSNR {state.best_psnr:.2f} dB; weights in {self.folder / 'best.pth'}"
            )

    @property
    def best_network(self) -> SynthesisNetwork:
        """What is validated and saved: the network with averaged weights, where there are such."""
        if self.average is None:
            return self.network
        averaged = self.average.module
        assert isinstance(averaged, SynthesisNetwork)
        return averaged

    def _step(self, crop: Crop, share: float) -> dict[str, float]:
        """Let every optimizer step on the samples of all processes, of which this has a `share`.

        The total loss before it, as `loss`, and its unweighted terms, over all processes.
        """
        train, objective = self.config.train, self.objective
        objective.begin(train, self.state.step)
        rate = objective.learning_rate(train, self.state.position.epoch, self.state.step)
        crop = crop.to(self.device)
        self.network.train()
        values: dict[str, Tensor] = {}
        for name, optimizer in self.trained.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            with loss_of_processes_reported():
                with autocast(self.device, train.precision):
                    terms = self.losses[name](crop)
                total = objective.total(terms)
                weight = share * self.processes.size  # DistributedDataParallel averages
                self.scaler.scale(total * weight).backward()
            if train.clip_norm:
                self.scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(_parameters(optimizer), train.clip_norm)
            self.scaler.step(optimizer)
            values |= {"loss": values["loss"] + total if "loss" in values else total, **terms}
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        measured = torch.stack(list(values.values())).detach().tolist()
        summed = self.processes.sum([share * value if share else 0.0 for value in measured])
        losses = dict(zip(values, summed, strict=True))
        if not np.isfinite(losses["loss"]):
            raise UserError(self._not_finite(losses["loss"], crop))
        return losses

    def _chance(self) -> int:
        """What a step's random numbers come from, such as which features are dropped: the same
        whether or not the run was resumed."""
        place = self.config.train.seed, self.state.step, self.processes.rank
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def _record(self, crop: Crop, bar: tqdm) -> None:
        """Log losses, images and validation where they are due; keep the best weights."""
        train, state = self.config.train, self.state
        if state.step % train.log_steps == 0:
            means = {
                name: state.sums.get(name, 0.0) / train.log_steps
                for name in ("loss", *self.objective.terms)
            }
            lr = next(iter(self.trained.optimizers.values())).param_groups[0]["lr"]
            self.log.training(state.step, state.position.epoch, lr, means, state.seconds)
            pace = (bar.format_dict["rate"] or 0) * train.batch_size * self.processes.size
            bar.set_postfix_str(f"loss {means['loss']:.4f}, {pace:.1f} crops/s")
            state.sums = {}
        if self._due(train.image_steps):
            self.log.images(
                state.step, self.best_network, crop.images[:1].to(self.device), crop.available
            )
        if self._due(train.validation_steps):
            value = self.validator(self.best_network)
            self.log.validation(state.step, value, state.seconds)
            if value > state.best_psnr:
                state.best_psnr = value
                self._save_best()

    def _look_at_data(self) -> None:
        """Measure what is usual in the training data; tell what changed since the state before."""
        data, before = self.config.data, self.state.data or {}
        if self.state.statistics is None:
            self.state.statistics = measure_statistics(data, self.training)
        splits = {"data.train": self.training, "data.valid": self.validation}
        self.state.data = {name: subject_digests(split) for name, split in splits.items()}
        for name in before.keys() & self.state.data:
            report_data_changes(name, before[name], self.state.data[name])

    def _due(self, interval: int) -> bool:
        """Whether something that comes every `interval` steps, and at the end, comes now."""
        step = self.state.step
        return step % interval == 0 or step == self.config.train.steps

    def _save_best(self) -> None:
        if self.processes.main:
            path, statistics = self.folder / "best.pth", self.state.statistics
            save_checkpoint(path, self.best_network, self.config, statistics=statistics)

    def _save(self) -> None:
        if self.processes.main:
            self.log.flush()
            save_state(self.folder / "last.pth", self.config, self.trained, self.state)

    def _stop(self, received: Sequence[str]) -> None:
        """End the process after a signal, its own or another process's."""
        name = received[0] if received else "SIGTERM"
        if self.processes.main:
            tqdm.write(f"stopped by {name} at step {self.state.step}; --resume goes on")
        raise SystemExit(128 + signal.Signals[name].value)

    def _not_finite(self, loss: float, crop: Crop) -> str:
        sources, target = crop.task.label(list(self.config.data.sequences))
        last = self.folder / "last.pth"
        kept = f"; {last} keeps an earlier state" if last.exists() else ""
        return (
            f"the loss became {loss} at step {self.state.step + 1}, on subject "
            f"{', '.join(crop.names)} ({sources} → {target}){kept}"
        )

    def _print_counts(self) -> None:
        for index, name in enumerate(self.config.data.sequences):
            count = sum(index in subject.files for subject in self.training)
            print(f"{name}: {count} of {len(self.training)} training subjects")


class StepLoss(nn.Module):
    """The loss terms of an optimizer's step as a module's output, as DistributedDataParallel needs
    them; only what the optimizer trains is to be synchronized."""

    def __init__(self, objective: Objective, name: str) -> None:
        super().__init__()
        self.objective, self.name = objective, name
        self.trained = objective.trained()[name]

    def forward(self, crop: Crop) -> dict[str, Tensor]:
        return self.objective.losses(self.name, crop)


def _synchronized(loss: StepLoss, processes: Processes) -> nn.Module:
    """The loss whose backward pass averages gradients over the processes."""
    if processes.size == 1:
        return loss
    with loss_of_processes_reported():
        return DistributedDataParallel(
            loss,
            gradient_as_bucket_view=True,
            find_unused_parameters=loss.objective.some_rest,
        )


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


def _trained(objective: Objective, config: Config, device: torch.device) -> Trained:
    """What the run changes, on the device."""
    modules = objective.trained()
    optimizers = {
        name: objective.optimizer(name, trainable(module.to(device)), config.train)
        for name, module in modules.items()
    }
    network = objective.network
    companions = {name: module for name, module in modules.items() if module is not network}
    if config.train.average:
        companions[WEIGHT_AVERAGE] = weight_average(network, config.train.average)
    kept = {name: kept_of_a_parameter(objective, name, config.train) for name in optimizers}
    return Trained(network, optimizers, companions, kept)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that need gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _find_data(
    config: Config, objective: Objective, processes: Processes
) -> tuple[list[Subject], list[Subject]]:
    """The subjects to train on, those left out that have too few sequences, and to validate on."""
    found, fewest = find_subjects(config.data, config.data.train), objective.fewest_sequences
    everything = config.data.use_all_sequences
    training = [own for own in found if len(own.trained_on(everything)) >= fewest]
    if not training:
        raise UserError(
            f"{config.data.train}: no subject has the {fewest} sequences that {objective.title} is "
            "trained on"
        )
    if len(training) < len(found) and processes.main:
        left_out = len(found) - len(training)
        print(f"{left_out} of {len(found)} training subjects have fewer than {fewest} sequences")
    validation = find_subjects(config.data, config.data.valid)
    if not any(objective.validation_tasks(subject) for subject in validation):
        raise UserError(
            f"{config.data.valid}: no subject gives a task to validate {objective.title} on; masks "
            "must leave out a sequence which is on disk"
        )
    return training, validation


def _check_crop(config: Config, network: SynthesisNetwork, objective: Objective) -> None:
    """UserError where crops can't be padded to a size that the network takes, or are too small for
    what judges its outputs."""
    for size in config.data.crop:
        if size < objective.smallest_crop:
            raise UserError(
                f"data.crop {size} is too small to train {objective.title}, which takes "
                f"{objective.smallest_crop} or more"
            )
        if size < network.smallest_image:
            raise UserError(
                f"data.crop {size} is too small for network {config.network.name}, which takes "
                f"multiples of {network.size_multiple:,}"
            )


def _perceptual_loss(config: Config, device: torch.device) -> PerceptualLoss | None:
    settings = config.perceptual
    if settings.backbone == "none" or not getattr(config.loss, "perceptual", 0):
        return None
    return PerceptualLoss(load_features(settings.backbone, settings.weights)).to(device)


@contextmanager
def _interruptible() -> Iterator[list[str]]:
    """Within it, SIGINT and SIGTERM don't interrupt: their names appear in the list it gives.

    A process of torchrun's that an error ends ignores SIGTERM from then on: torchrun sends one as
    soon as another process has ended, and this one has yet to say so.
    """
    received: list[str] = []

    def note(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except UserError:
        if local_rank() is not None:
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
