"""What is done to a network's outputs in the end: the steps of `evaluation.finish`, in this order.

flip        outputs for the stacks flipped from left to right, flipped back, count as much as those
            for the stacks as they are
neighbours  a slice is the mean of what all stacks that hold it predict for it, not only the one
            whose centre it is; at a window's ends fewer do
map         the checkpoint's own map of its validation subjects
background  voxels at which every source is background are background
clip        values are clipped to [-1, 1]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsf_seq2seq.config import EvaluationConfig, FinishStep
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.settings import parse
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.stacks import Progress, as_array, output_batches, run_stacks
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import Task

AVERAGING: tuple[FinishStep, ...] = ("flip", "neighbours")  # what needs the network
OF_IMAGES: tuple[FinishStep, ...] = ("background", "clip")  # what any image can have


@dataclass(frozen=True)
class Finish:
    """Steps that are done to outputs; `prior`: the maps of `map`, of tasks of the `sequences`."""

    steps: tuple[FinishStep, ...]
    prior: Adaptation | None = None
    sequences: tuple[str, ...] = ()

    def __call__(
        self, task: Task, sources: np.ndarray, output: np.ndarray, brain: np.ndarray
    ) -> np.ndarray:
        """What comes after averaging: sources (n, Z, Y, X) in [-1, 1], the output and the brain
        (Z, Y, X), where any source is above the background → (Z, Y, X)."""
        fitted = self.prior.map_of(task, self.sequences) if self.prior else None
        if fitted is not None:
            output = fitted(sources, output, brain)
        if "background" in self.steps:
            output = np.where(brain, output, np.float32(BACKGROUND))
        return output.clip(-1, 1) if "clip" in self.steps else output


def finished_name(method: str) -> str:
    """Such as tsf, finished."""
    return f"{method}, finished"


def finish_line(finished: Mapping[str, Sequence[str]]) -> str:
    """Method → its steps, in one line, "" for none; such as

    finished: flip, map, clip (quadratic_regression: clip)
    """
    groups = group_by(finished, lambda method: ", ".join(finished[method]))
    first, *others = groups or [""]
    rest = "; ".join(f"{', '.join(groups[steps])}: {steps}" for steps in others)
    return (f"finished: {first}" if first else "") + (f" ({rest})" if rest else "")


def chosen_steps(given: Sequence[str] | None, settings: EvaluationConfig) -> tuple[FinishStep, ...]:
    """The steps `given`, in their order; those of the settings where it is None.

    UserError for a step that there isn't, or one that is given twice.
    """
    if given is not None:
        settings = parse(EvaluationConfig, {"finish": given}, "--finish", "evaluation.")
    return settings.finish


def network_finish(
    given: Sequence[str] | None,
    settings: EvaluationConfig,
    prior: Adaptation | None,
    sequences: Sequence[str],
    path: Path,
    replaced: bool = False,
) -> Finish | None:
    """The finish of the network of the checkpoint `path`; None without a step.

    `map` is left out where other maps take its place (`replaced`), and where the checkpoint has no
    `prior`: a UserError if it was `given`, rather than by the settings.
    """
    steps = chosen_steps(given, settings)
    if "map" in steps and given is not None and prior is None and not replaced:
        raise UserError(
            f"{path} carries no map of validation subjects, which --finish map asks for: training "
            "writes one into best.pth"
        )
    maps = prior if "map" in steps and not replaced else None
    done = tuple(step for step in steps if step != "map" or maps is not None)
    return Finish(done, maps, tuple(sequences)) if done else None


def image_finish(steps: Sequence[FinishStep]) -> Finish | None:
    """What of the steps a method without a network can have; None without a step."""
    done = tuple(step for step in steps if step in OF_IMAGES)
    return Finish(done) if done else None


def run_averaged(
    network: SynthesisNetwork,
    stacks: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    variants: Sequence[str],
    steps: Sequence[str],
    averaged: str = FULL,
    progress: Progress | None = None,
) -> tuple[dict[tuple[str, Task], np.ndarray], dict[Task, np.ndarray]]:
    """Centre slices (N, H, W) as `run_stacks` gives them, and those of the variant `averaged` as
    `flip` and `neighbours` make them, where they are among the `steps`.

    Stacks (S, N, C, H, W) pass once, flipped ones a second time.
    """
    if not set(AVERAGING) & set(steps):
        plain = run_stacks(network, stacks, tasks, batch_size, variants, True, progress)
        return plain, {task: plain[averaged, task] for task in tasks}
    flip, total, half = "flip" in steps, stacks.shape[1], network.slices // 2
    means = {task: _SliceMeans(total, "neighbours" in steps) for task in tasks}
    parts: dict[tuple[str, Task], list[np.ndarray]] = {}
    passes = [(stacks, variants), (stacks[..., ::-1], [averaged])]
    for number, (given, chosen) in enumerate(passes[: 1 + flip]):
        told = _part_of(progress, number, 1 + flip)
        batches = output_batches(network, given, tasks, batch_size, chosen, told)
        for start, variant, task, output in batches:
            array = as_array(output)
            if number == 0:
                parts.setdefault((variant, task), []).append(array[:, half].copy())
            if variant == averaged:
                means[task].add(start, array if number == 0 else array[..., ::-1])
    plain = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    return plain, {task: own.mean for task, own in means.items()}


def _part_of(progress: Progress | None, number: int, passes: int) -> Progress | None:
    """What one of several passes over the same stacks tells of all."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, passes * total)


class _SliceMeans:
    """Means of what is predicted for the centre slices of `total` stacks, kept as sums.

    `all_slices`: stacks' slices beside the centre ones count, too, where they are centre slices of
    other stacks.
    """

    def __init__(self, total: int, all_slices: bool) -> None:
        self.total, self.all_slices, self.sums = total, all_slices, np.zeros(())
        self.counts = np.zeros((total, 1, 1), dtype=np.float32)

    def add(self, start: int, output: np.ndarray) -> None:
        """Outputs (B, C, H, W) for the stacks from `start` on: slice k of stack n is that of the
        centre of stack n + k - C // 2."""
        n, slices, *shape = output.shape
        if not self.sums.ndim:
            self.sums = np.zeros((self.total, *shape), dtype=np.float32)
        half = slices // 2
        for k in range(slices) if self.all_slices else (half,):
            first = start + k - half
            low, high = max(first, 0), min(first + n, self.total)
            if low < high:
                self.sums[low:high] += output[low - first : high - first, k]
                self.counts[low:high] += 1

    @property
    def mean(self) -> np.ndarray:
        return self.sums / self.counts
