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
    task_macs: tuple[float, ...]
    step_macs: float


def measure(small: bool, pixels: int) -> list[Cost]:
    """Of the published size, or the demo's."""
    return [_cost(name, small, pixels) for name in NAMES]


def table(costs: list[Cost]) -> list[list[str]]:
    """With ratios to the first."""
    first = costs[0]
    rows = [["network", "weights", "task of 1, 2, 3 sources (GMAC)", "ratio", "step", "ratio"]]
    for cost in costs:
        ratios = [own / other for own, other in zip(cost.task_macs, first.task_macs, strict=True)]
        rows.append(
            [
                cost.name,
                f"{cost.weights / 1e6:.2f} M",
                " / ".join(f"{macs / 1e9:.2f}" for macs in cost.task_macs),
                " / ".join(f"{ratio:.2f}" for ratio in ratios),
                f"{cost.step_macs / 1e9:.1f}",
                f"{cost.step_macs / first.step_macs:.2f}",
            ]
        )
    return rows


def to_json(costs: list[Cost]) -> list[dict[str, object]]:
    return [asdict(cost) for cost in costs]


def _cost(name: str, small: bool, pixels: int) -> Cost:
    path = CONFIGS / (f"demo/{name}.yaml" if small else f"{name}_brats_2d.yaml")
    config = load_config(path)
    network = build_network(config)
    images = torch.rand(1, 4, config.data.stack, pixels, pixels) * 2 - 1

    def task(sources: tuple[int, ...]) -> None:
        with torch.inference_mode():
            network.eval()(images, [i in sources for i in range(4)], TARGET)

    objective = NETWORKS[name].objective(network, config.loss, None)

    def step(sources: tuple[int, ...], coin: bool) -> None:
        crop = Crop(images, images, (0, 1, 2, 3), Task(sources, TARGET), coin, ("one",))
        objective.total(objective.losses("network", crop)).backward()

    tasks = tuple(_macs(lambda own=own: task(own)) for own in SOURCES)  # type: ignore[misc]
    network.train()
    choices = product(SOURCES, (False, True))
    steps = mean(_macs(lambda own=own: step(*own)) for own in choices)  # type: ignore[misc]
    return Cost(name, sum(p.numel() for p in network.parameters()), tasks, steps)


def _macs(job: Callable[[], None]) -> float:
    """Multiply-additions of convolutions and products."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops() / 2
