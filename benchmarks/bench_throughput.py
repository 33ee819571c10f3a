"""Measure crops per second of stage 2's training: the plain formulation, and a fast recipe.

plain: `plain.py` in float32, one crop a step, reading .nii.gz files; resident: the recipe of a YAML
file, with its crops already on the device; store: the recipe, reading a store on disk. All three
are whole runs of the library's training loop. It needs nibabel and blosc2.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import plain
import torch
from bench_crops import SHAPE, make_store, make_synthetic
from bench_steps import SMALL, vgg19_features
from machine import hardware, synchronize
from torch import Tensor

from tsf_seq2seq.config import Config, PerceptualConfig, TrainConfig, load_config
from tsf_seq2seq.data.check import subjects_of_folders
from tsf_seq2seq.data.sampling import Crop, CropStream, Position
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.models.build import NETWORKS, NetworkKind, build_network
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.tables import markdown
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training import loop as training
from tsf_seq2seq.training.objectives import TSFObjective

# One for each number of sources, in turns, so that every run sees the same work.
TASKS = (Task((0,), 1), Task((3, 0), 2), Task((2, 0, 3), 1), Task((1, 2, 3, 0), 3))
RESIDENT = 16  # batches that stay on the device: each task, with and without f_A most likely
Items = Iterator[tuple[Crop, Position]]
Losses = Callable[[TSFObjective, str, Crop], dict[str, Tensor]]


class TaskTurns:
    """Draws the TASKS in turns (in each reading process)."""

    def __init__(self) -> None:
        self.turns = itertools.cycle(TASKS)

    def __call__(
        self, available: Sequence[int], rng: np.random.Generator, done: float = 0.0
    ) -> Task:
        return next(self.turns)


class Clock:
    """Notes when steps begin: crops per second from step `warm_up` to the last.

    The device is idle at both ends, and nowhere else waited for.
    """

    def __init__(self, device: torch.device, warm_up: int, steps: int) -> None:
        self.device = device
        self.ends = warm_up, warm_up + steps
        self.step = self.crops = 0
        self.times: list[float] = []

    @torch.compiler.disable
    def note(self, crops: int) -> None:
        if self.step in self.ends:
            synchronize(self.device)
            self.times.append(time.perf_counter())
        if len(self.times) == 1:
            self.crops += crops
        self.step += 1

    @property
    def crops_per_second(self) -> float:
        start, end = self.times
        return self.crops / (end - start)


def plain_losses(objective: TSFObjective, _: str, crop: Crop) -> dict[str, Tensor]:
    """The plain formulation as stage 2's loss."""
    perceptual = objective.perceptual
    if perceptual is not None:
        perceptual.zero_grad()
        perceptual.features.requires_grad_(True)  # as an ordinary network's are
    return plain.tsf_loss(objective.network, crop.images, crop.task, perceptual, crop.coin)


def measured_objective(formulation: Losses, clock: Clock) -> type[TSFObjective]:
    """Stage 2's objective in a formulation, on the TASKS; the clock notes its steps."""

    class Measured(TSFObjective):
        sample_task = TaskTurns()

        def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
            clock.note(len(crop.images))
            return formulation(self, name, crop)

    return Measured


def throughput(
    config: Config, formulation: Losses, device: torch.device, warm_up: int, steps: int
) -> float:
    """Crops per second of a run of stage 2 in a formulation."""
    course = dataclasses.replace(config.train, steps=warm_up + steps + 1)
    clock = Clock(device, warm_up, steps)
    kind = NetworkKind(TSFSeq2SeqConfig, measured_objective(formulation, clock))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(NETWORKS, {config.network.name: kind}),
    ):
        course = dataclasses.replace(course, output=Path(folder))
        config = dataclasses.replace(config, train=course)
        training.train(config, build_network(config), device)
    return clock.crops_per_second


@contextlib.contextmanager
def resident_crops(config: Config, device: torch.device) -> Iterator[None]:
    """Within it, training takes the same few batches, which are on the device, again and again."""
    subjects = find_subjects(config.data, config.data.train)
    stream = CropStream(subjects, config, TaskTurns())
    with contextlib.closing(iter(stream)) as crops:
        kept = [crop.to(device) for crop, _ in itertools.islice(crops, RESIDENT)]

    def again(*_: Any, **__: Any) -> Items:
        for crop in itertools.cycle(kept):
            yield crop, Position()

    with mock.patch.object(training, "CropStream", again):
        yield


def measure(recipe: Config, device: torch.device, warm_up: int, steps: int) -> dict[str, float]:
    """Crops per second: plain, resident, store."""
    course = TrainConfig(seed=recipe.train.seed, crops_per_visit=recipe.train.crops_per_visit)
    files = dataclasses.replace(recipe.data, store=None, cache_gb=0.0)
    simple = dataclasses.replace(recipe, data=files, train=course)
    rates = {"plain": throughput(simple, plain_losses, device, warm_up, steps)}
    warm_up = max(warm_up, RESIDENT)
    with resident_crops(recipe, device):
        rates["resident"] = throughput(recipe, TSFObjective.losses, device, warm_up, steps)
    rates["store"] = throughput(recipe, TSFObjective.losses, device, warm_up, steps)
    return rates


def make_data(config: Config, folder: Path, root: Path | None) -> Config:
    """`config` with data in place: a data set's, or synthetic subjects, enough for two batches;
    their splits, their store, and random VGG-19 weights if it has a perceptual loss."""
    data, small = config.data, config.network == SMALL
    if root is None:
        shape = (80, 80, 40) if small else SHAPE
        names = make_synthetic(folder / "data", 2 * config.train.batch_size, shape)
        data = dataclasses.replace(data, root=folder / "data")
    else:
        data = dataclasses.replace(data, root=root)
        names = list(subjects_of_folders(data))
    everything = 2 ** len(data.sequences) - 1
    (folder / "train.csv").write_text("".join(f"{name},{everything}\n" for name in names))
    (folder / "valid.csv").write_text(f"{names[0]},{everything - 1}\n")
    make_store(data, dict.fromkeys(names, everything), folder / "store")
    data = dataclasses.replace(
        data,
        store=folder / "store",
        train=folder / "train.csv",
        valid=folder / "valid.csv",
        use_all_sequences=True,
    )
    config = dataclasses.replace(config, data=data)
    if config.perceptual.backbone == "none":
        return config
    weights = {f"features.{key}": value for key, value in vgg19_features().state_dict().items()}
    torch.save(weights, folder / "vgg19.pth")
    return dataclasses.replace(config, perceptual=PerceptualConfig("vgg19", folder / "vgg19.pth"))


def small_size(config: Config) -> Config:
    """The recipe on a small network and small crops."""
    return dataclasses.replace(
        config,
        network=SMALL,
        data=dataclasses.replace(config.data, slices=32, crop=(64, 64), validation_stacks=2),
    )


def report(recipe: Config, rates: dict[str, float]) -> str:
    """Table, with the settings in which the recipe departs from the defaults."""
    default = TrainConfig()
    settings = {
        field.name: getattr(recipe.train, field.name)
        for field in dataclasses.fields(TrainConfig)
        if getattr(recipe.train, field.name) != getattr(default, field.name)
    }
    settings = {key: value for key, value in settings.items() if key != "output"}
    rows = [
        ["stage 2 training", "crops/s", "ratio"],
        ["plain formulation, fp32, batch 1, .nii.gz", f"{rates['plain']:.3g}", ""],
        [
            "recipe, crops on the device",
            f"{rates['resident']:.3g}",
            f"{rates['resident'] / rates['plain']:.2f}× the plain one",
        ],
        [
            "recipe, reading a store",
            f"{rates['store']:.3g}",
            f"{rates['store'] / rates['resident']:.0%} of crops on the device",
        ],
    ]
    described = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"Recipe: {described}; {recipe.data.workers} reading processes.\n\n{markdown(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-d", "--device", default="cpu")
    parser.add_argument("-c", "--config", type=Path, required=True, help="the recipe (YAML)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--steps", type=int, default=64, help="timed steps of each")
    parser.add_argument("--warm-up", type=int, default=8, help="steps before them")
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else synthetic data)")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    arguments = parser.parse_args()
    recipe = load_config(arguments.config, arguments.set)
    if not isinstance(recipe.network, TSFSeq2SeqConfig):
        raise UserError(
            f"{arguments.config}: network.name must be tsf_seq2seq, whose training is measured, "
            f"not {recipe.network.name}"
        )
    if len(recipe.data.sequences) != 4:
        raise UserError(f"{arguments.config}: data.sequences must be four, as the tasks measured")
    recipe = small_size(recipe) if arguments.size == "small" else recipe
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_data(recipe, Path(folder), arguments.root)
        rates = measure(recipe, device, arguments.warm_up, arguments.steps)
    title = f"{hardware(device)}; PyTorch {torch.__version__}; {arguments.size} size"
    text = f"{title}\n\n{report(recipe, rates)}\n"
    print(text)
    if arguments.output:
        write_text(Path(f"{arguments.output}.md"), text)
        values = {"title": title, "crops_per_second": rates}
        write_text(Path(f"{arguments.output}.json"), json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    run_script(main)
