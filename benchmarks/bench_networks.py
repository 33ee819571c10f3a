"""What the networks cost beside one another: counted arithmetic of a task and of a training step.

Counted, unlike timed, the numbers are the same on any machine. A step is that of a network's own
objective without perceptual term, on one crop whose subject has all sequences, the mean over the
numbers of sources and the crop's coin.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from torch.utils.flop_counter import FlopCounterMode

from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.sampling import Crop
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.build import NETWORKS
from tsf_seq2seq.tasks import Task

CONFIGS = Path(__file__).parent.parent / "config"
SOURCES = ((0,), (0, 1), (0, 1, 2))
TARGET = 3
NAMES = ("tsf_seq2seq", "tsf_pyramid", "unet")  # that do every task


@dataclass(frozen=True)
class Cost:
    """Of one network: weights, and multiply-additions for 192 × 192 × 3, of 1, 2, 3 sources."""

    name: str
    weights: int
    task_macs: tuple[float | None, ...]  # None where the network can't do it
    step_macs: float


def measure(small: bool, pixels: int) -> list[Cost]:
    """Of the published size, or the demo's."""
    ends = {name: f"demo/{name}.yaml" if small else f"{name}_brats_2d.yaml" for name in NAMES}
    return [cost_of(CONFIGS / end, pixels) for end in ends.values()]


def table(costs: list[Cost]) -> list[list[str]]:
    """With ratios to the first."""
    first = costs[0]
    rows = [["network", "weights", "task of 1, 2, 3 sources (GMAC)", "ratio", "step", "ratio"]]
    for cost in costs:
        macs = [own or 0.0 for own in cost.task_macs]  # NAMES do every task
        ratios = [own / (other or 1) for own, other in zip(macs, first.task_macs, strict=True)]
        rows.append(
            [
                cost.name,
                f"{cost.weights / 1e6:.2f} M",
                " / ".join(f"{own / 1e9:.2f}" for own in macs),
                " / ".join(f"{ratio:.2f}" for ratio in ratios),
                f"{cost.step_macs / 1e9:.1f}",
                f"{cost.step_macs / first.step_macs:.2f}",
            ]
        )
    return rows


def to_json(costs: list[Cost]) -> list[dict[str, object]]:
    return [asdict(cost) for cost in costs]


def cost_of(path: Path, pixels: int) -> Cost:
    """Of the network that a YAML describes, for stacks of pixels × pixels."""
    config = load_config(path)
    network = build_network(config)
    images = torch.rand(1, 4, config.data.stack, pixels, pixels) * 2 - 1
    able = [own for own in SOURCES if network.accepts(Task(own, TARGET))]

    def task(sources: tuple[int, ...]) -> None:
        with torch.inference_mode():
            tuple(network.eval().synthesize(images, [Task(sources, TARGET)]))

    objective = NETWORKS[config.network.name].objective(network, config.loss, None)

    def step(sources: tuple[int, ...], coin: bool) -> None:
        crop = Crop(images, images, (0, 1, 2, 3), Task(sources, TARGET), coin, ("one",))
        for name in objective.trained():
            objective.total(objective.losses(name, crop)).backward()

    tasks = tuple(_macs(lambda own=own: task(own)) if own in able else None for own in SOURCES)  # type: ignore[misc]
    network.train()
    steps = mean(_macs(lambda own=own: step(*own)) for own in product(able, (False, True)))  # type: ignore[misc]
    weights = sum(own.numel() for own in network.parameters())
    return Cost(config.network.name, weights, tasks, steps)


def _macs(job: Callable[[], None]) -> float:
    """Multiply-additions of convolutions and products."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops() / 2
