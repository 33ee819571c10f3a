"""Both stages' steps and the synthesis of all tasks, against the plain formulation.

Of the library as it is, or also in channels_last and compiled (`TrainConfig`). It needs PyTorch,
numpy, PyYAML and tqdm only: no files are read.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import plain
import torch
from machine import Job, arithmetic, best_rate, peak, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tsf_seq2seq.config import DataConfig, TrainConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.tasks import Task, all_tasks
from tsf_seq2seq.training.acceleration import accelerate
from tsf_seq2seq.training.objectives import (
    NETWORK,
    Objective,
    Seq2SeqLoss,
    Seq2SeqObjective,
    TSFObjective,
)
from tsf_seq2seq.training.perceptual import PerceptualLoss

VGG19 = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M")
SMALL = TSFSeq2SeqConfig(
    encoder_channels=(16, 32, 64),
    encoder_residual_blocks=1,
    lstm_channels=64,
    decoder_channels=(32, 16, 3),
    decoder_residual_blocks=1,
    attention_channels=(64,),
)


@dataclass(frozen=True)
class Row:
    """Medians of both formulations, and their counted arithmetic."""

    name: str
    precision: str
    plain_s: float
    library_s: float
    plain_bytes: float
    library_bytes: float
    plain_flop: float
    library_flop: float
    best_rate: float  # FLOP/s that this machine reaches, and on what
    best_rate_of: str

    @property
    def faster(self) -> float:
        return self.plain_s / self.library_s

    @property
    def allowed(self) -> float:
        return self.plain_flop / self.library_flop

    @property
    def share_of_rate(self) -> float:
        return self.library_flop / self.library_s / self.best_rate


def vgg19_features() -> nn.Sequential:
    """VGG-19's convolutional part with random weights, which cost as much time as ImageNet's."""
    layers: list[nn.Module] = []
    c_in = 3
    for entry in VGG19:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(c_in, entry, 3, padding=1), nn.ReLU()]
            c_in = entry
    return nn.Sequential(*layers)


class Bench:
    """The two formulations on one network, or copies of it, one image and one device.

    `course` says whether the library computes in channels_last and compiled.
    """

    def __init__(self, device: torch.device, small: bool, pixels: int, course: TrainConfig) -> None:
        torch.manual_seed(0)
        self.device, self.precision = device, "fp32"
        stack = DataConfig().stack
        self.network = (SMALL if small else TSFSeq2SeqConfig()).build(4, stack).to(device)
        self.images = torch.rand(1, 4, stack, pixels, pixels, device=device) * 2 - 1
        self.loss = PerceptualLoss(vgg19_features()).to(device)
        self.fast, self.fast_loss = self.network, self.loss
        if course.channels_last or course.compile:
            self.fast, self.fast_loss = copy.deepcopy((self.network, self.loss))
            accelerate(self.fast, self.fast_loss, course, device)

    def pairs(self) -> Iterator[tuple[str, Job, Job]]:
        """(name, plain formulation, the library's)."""
        pair, weights = Task((3,), 0), Seq2SeqLoss()
        stage_1 = Seq2SeqObjective(self.fast.seq2seq, weights, self.fast_loss)
        yield (
            "stage 1 step",
            lambda: self._plain_step(stage_1, plain.seq2seq_loss, self.network.seq2seq, pair),
            lambda: self._library_step(stage_1, pair),
        )
        task = Task((2, 0, 3), 1)
        TSFObjective(self.network, weights)  # freezes the encoder, which stage 1 trained
        stage_2 = TSFObjective(self.fast, weights, self.fast_loss)
        yield (
            "stage 2 step, three sources",
            lambda: self._plain_step(stage_2, plain.tsf_loss, self.network, task),
            lambda: self._library_step(stage_2, task),
        )
        yield "28 tasks of one stack", self._plain_tasks, self._tasks

    def clear(self) -> None:
        """No gradients, and a frozen perceptual network, as the library's is."""
        for module in (self.network, self.fast, self.loss):
            module.zero_grad()
        self.loss.features.requires_grad_(False)

    def _plain_step(
        self,
        objective: Objective,
        loss: Callable[..., dict[str, Tensor]],
        network: nn.Module,
        task: Task,
    ) -> Tensor:
        self.loss.features.requires_grad_(True)  # as an ordinary network's are
        return self._step(objective, lambda: loss(network, self.images, task, self.loss))

    def _library_step(self, objective: Objective, task: Task) -> Tensor:
        crop: Any = SimpleNamespace(images=self.images, inputs=self.images, task=task, coin=False)
        return self._step(objective, lambda: objective.losses(NETWORK, crop))

    def _step(self, objective: Objective, terms: Callable[[], dict[str, Tensor]]) -> Tensor:
        with arithmetic(self.device, self.precision):
            total = objective.total(terms())
        total.backward()
        return total.detach()

    @torch.inference_mode()
    def _plain_tasks(self) -> list[Tensor]:
        with arithmetic(self.device, self.precision):
            return [
                plain.tsf(self.network, self.images, task.sources, task.target, attention=True)
                for task in all_tasks(4)
            ]

    @torch.inference_mode()
    def _tasks(self) -> list[Tensor]:
        with arithmetic(self.device, self.precision):
            return [output for _, _, output in self.fast.synthesize(self.images, all_tasks(4))]


def measure(
    device: torch.device,
    small: bool,
    pixels: int,
    precisions: Sequence[str],
    repeats: int,
    course: TrainConfig,
) -> list[Row]:
    """Both formulations in turns, warmed up; the best rate is looked for before and after."""
    before = {precision: best_rate(device, precision, small) for precision in precisions}
    bench, results = Bench(device, small, pixels, course), []
    for name, slow, fast in bench.pairs():
        flops = [count(bench, job) for job in (slow, fast)]
        for precision in precisions:
            bench.precision = precision
            for job in (slow, fast) * (2 if device.type == "cuda" else 0):
                run(bench, job)
            peaks = [peak_of(bench, job) for job in (slow, fast)]  # the last warm-up
            samples = [[run(bench, job) for job in (slow, fast)] for _ in range(repeats)]
            seconds = [median(column) for column in zip(*samples, strict=True)]
            results.append((name, precision, *seconds, *peaks, *flops))
            print(f"{name}, {precision}: {seconds[0] / seconds[1]:.2f}×", flush=True)
    rates = {key: max(before[key], best_rate(device, key, small)) for key in precisions}
    return [Row(*values, *rates[values[1]]) for values in results]


def run(bench: Bench, job: Job) -> float:
    bench.clear()
    return timed(job, bench.device)


def peak_of(bench: Bench, job: Job) -> float:
    bench.clear()
    return peak(job, bench.device)


def count(bench: Bench, job: Job) -> float:
    """Counted arithmetic (FLOP) of convolutions and products; of fp32, whatever the precision."""
    bench.clear()
    bench.precision = "fp32"  # the counter can't see through casts
    uncompiled = torch.compiler.set_stance("force_eager")  # the counter can't see into the compiled
    with uncompiled, FlopCounterMode(display=False) as counter:
        job()
    return float(counter.get_total_flops())


def time_table(rows: Sequence[Row]) -> list[list[str]]:
    """Headings and a line per row; the first precision's plain formulation is the yardstick."""
    first = rows[0].precision
    yardstick = {row.name: row.plain_s for row in rows if row.precision == first}
    headings = ["", "precision", "plain (s)", "library (s)", "faster", "arithmetic allows"]
    headings += ["of the allowed", f"faster than plain {first}", "of the best rate"]
    return [headings] + [
        [
            *(row.name, row.precision, f"{row.plain_s:.3g}", f"{row.library_s:.3g}"),
            *(f"{row.faster:.2f}×", f"{row.allowed:.2f}×", f"{row.faster / row.allowed:.0%}"),
            *(f"{yardstick[row.name] / row.library_s:.2f}×", f"{row.share_of_rate:.0%}"),
        ]
        for row in rows
    ]


def memory_table(rows: Sequence[Row]) -> list[list[str]]:
    """Headings and a line per row."""
    headings = ["peak memory", "precision", "plain (GB)", "library (GB)", "plain / library"]
    return [headings] + [
        [
            *(row.name, row.precision, f"{row.plain_bytes / 1e9:.2f}"),
            *(f"{row.library_bytes / 1e9:.2f}", f"{row.plain_bytes / row.library_bytes:.2f}×"),
        ]
        for row in rows
    ]


def rate_note(rows: Sequence[Row]) -> str:
    """What 100% of the best rate is."""
    rates = {row.precision: row for row in rows}
    each = [
        f"{key} {row.best_rate / 1e9:.0f} GFLOP/s ({row.best_rate_of})"
        for key, row in rates.items()
    ]
    return (
        "Best rate: the fastest of a large matrix product and a large convolution, "
        "measured here: " + ", ".join(each) + "."
    )


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**asdict(row), "faster": row.faster, "allowed": row.allowed} for row in rows]
