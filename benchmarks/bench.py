"""Measure training steps and synthesis against the plain formulation, in one run, as ratios."""

import argparse
import contextlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import plain
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tsf_seq2seq import stages
from tsf_seq2seq.architecture import build_tsf_seq2seq
from tsf_seq2seq.config import FusionConfig, LossConfig, Seq2SeqConfig
from tsf_seq2seq.losses import PerceptualLoss
from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.prediction import decode_task, encode_source
from tsf_seq2seq.tables import markdown
from tsf_seq2seq.tasks import Task, all_tasks
from tsf_seq2seq.training import autocast

WEIGHTS = LossConfig()
VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)
SMALL = Seq2SeqConfig(
    encoder_channels=(16, 32, 64),
    encoder_residual_blocks=1,
    lstm_channels=64,
    decoder_channels=(32, 16, 3),
    decoder_residual_blocks=1,
)
Job = Callable[[], object]


def vgg19_features() -> nn.Sequential:
    """The first 30 modules' layout of VGG-19 with random weights, which cost as much time."""
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
    """The two formulations on one network, one image and one device."""

    def __init__(self, device: torch.device, size: str, precision: str, pixels: int) -> None:
        torch.manual_seed(0)
        self.device, self.precision = device, precision
        config = Seq2SeqConfig() if size == "full" else SMALL
        fusion = FusionConfig(attention_channels=(config.lstm_channels,))
        self.network: TSFSeq2Seq = build_tsf_seq2seq(config, fusion, 4).to(device)
        self.images = torch.rand(1, 4, config.slices, pixels, pixels, device=device) * 2 - 1
        self.loss = PerceptualLoss(vgg19_features()).to(device)

    def pairs(self) -> Iterator[tuple[str, Job, Job]]:
        """(name, plain formulation, the library's)."""
        pair = Task((3,), 0)
        self.network.requires_grad_(True)
        yield (
            "stage 1 step",
            lambda: self._step(lambda: self._plain(plain.seq2seq_loss, self.network.seq2seq, pair)),
            lambda: self._step(
                lambda: stages.seq2seq_loss(self.network.seq2seq, self.images, pair, self.loss)
            ),
        )
        task = Task((2, 0, 3), 1)
        stages.freeze_encoder(self.network)
        yield (
            "stage 2 step, three sources",
            lambda: self._step(lambda: self._plain(plain.tsf_loss, self.network, task)),
            lambda: self._step(lambda: stages.tsf_loss(self.network, self.images, task, self.loss)),
        )
        yield "28 tasks of one stack", self._plain_tasks, self._tasks

    def _plain(self, loss: Callable[..., stages.LossTerms], network: nn.Module, task: Task) -> Any:
        self.loss.features.requires_grad_(True)  # as an ordinary network's are
        return loss(network, self.images, task, self.loss)

    def _step(self, loss: Callable[[], stages.LossTerms]) -> Tensor:
        self.network.zero_grad()
        self.loss.zero_grad()
        with autocast(self.device, self.precision):
            total = loss().total(WEIGHTS)
        total.backward()
        return total.detach()

    @torch.inference_mode()
    def _plain_tasks(self) -> list[Tensor]:
        with autocast(self.device, self.precision):
            return [
                plain.tsf(self.network, self.images, task.sources, task.target, attention=True)
                for task in all_tasks(4)
            ]

    @torch.inference_mode()
    def _tasks(self) -> list[Tensor]:
        with autocast(self.device, self.precision):
            features = {i: encode_source(self.network, self.images[:, i]) for i in range(4)}
            size = self.images.shape[-2:]
            return [decode_task(self.network, features, task, size) for task in all_tasks(4)]


def library_mode(bench: Bench) -> None:
    """The library's perceptual network is frozen."""
    bench.loss.features.requires_grad_(False)


def measure(bench: Bench, slow: Job, fast: Job, repeats: int) -> dict[str, float]:
    """Median seconds of both, in turns, and their counted arithmetic (FLOP)."""
    flops = {}
    for name, job in (("plain", slow), ("library", fast)):
        library_mode(bench)
        precision, bench.precision = bench.precision, "fp32"  # the counter can't see through casts
        with FlopCounterMode(display=False) as counter:
            job()
        flops[name] = float(counter.get_total_flops())
        bench.precision = precision
    seconds: dict[str, list[float]] = {"plain": [], "library": []}
    for _ in range(repeats):
        for name, job in (("plain", slow), ("library", fast)):
            library_mode(bench)
            seconds[name].append(timed(job, bench.device))
    return {
        "plain_s": median(seconds["plain"]),
        "library_s": median(seconds["library"]),
        "plain_flop": flops["plain"],
        "library_flop": flops["library"],
    }


def timed(job: Job, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    job()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of large matrix multiplications, the most that this machine gives."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / median(timed(lambda: torch.mm(a, b), device) for _ in range(5))


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {torch.get_num_threads()} threads"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-d", "--device", default="cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--pixels", type=int, default=192, help="height and width of the crop")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    headings = ["", "precision", "plain (s)", "library (s)", "faster", "arithmetic allows"]
    cells = [[*headings, "of the allowed", "of the matmul rate"]]
    results = []
    baseline: dict[str, float] = {}
    for precision in arguments.precisions:
        bench = Bench(device, arguments.size, precision, arguments.pixels)
        rate = matmul_rate(device, precision)
        for name, slow, fast in bench.pairs():
            row = measure(bench, slow, fast, arguments.repeats)
            plain_s = baseline.setdefault(name, row["plain_s"])  # the plain one is float32
            faster = plain_s / row["library_s"]
            allowed = row["plain_flop"] / row["library_flop"]
            share = row["plain_s"] / row["library_s"] / allowed
            of_rate = row["library_flop"] / row["library_s"] / rate
            results.append({"name": name, "precision": precision, "faster": faster, **row})
            cells.append(
                [
                    *(name, precision, f"{plain_s:.2f}", f"{row['library_s']:.2f}"),
                    *(f"{faster:.2f}×", f"{allowed:.2f}×", f"{share:.0%}", f"{of_rate:.0%}"),
                ]
            )
            print(markdown([cells[0], cells[-1]]), flush=True)
    title = f"{hardware(device)}; PyTorch {torch.__version__}; {arguments.size} size, "
    title += f"{arguments.pixels} × {arguments.pixels}, batch 1, medians of {arguments.repeats}"
    text = f"{title}\n\n{markdown(cells)}\n"
    print(text)
    if arguments.output:
        arguments.output.with_suffix(".md").write_text(text, encoding="utf-8")
        content = {"title": title, "results": results}
        arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
