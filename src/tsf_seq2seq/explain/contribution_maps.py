"""Contributions that add up: the exact Shapley value of every source, at every voxel.

The game of a task: v(A) is the image that the network gives from the sources A alone, v(∅) one that
needs none of them. So Σ_i φ_i + v(∅) is the synthesis, everywhere, whatever the network; the target
isn't needed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.shapley import shapley_values
from tsf_seq2seq.models.base import SynthesisNetwork, variant_for
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.tasks import Task, source_sets


class Explanation(NamedTuple):
    """A task's synthesis, and of each source (its index) what it adds to it, (Z, Y, X) each.

    `empty`: v(∅), which the contributions start from.
    """

    task: Task
    synthesis: np.ndarray
    empty: np.ndarray
    contributions: Mapping[int, np.ndarray]

    def shares(self, region: np.ndarray) -> dict[int, float]:
        """Each source's part of Σ_i |φ_i| in a region (Z, Y, X): they sum to one; nan where no
        source moves anything."""
        amounts = {i: float(np.abs(own[region]).mean()) for i, own in self.contributions.items()}
        total = sum(amounts.values())
        return {i: own / total if total else float("nan") for i, own in amounts.items()}


def explained(task: Task, outputs: Mapping[Task, np.ndarray], empty: np.ndarray) -> Explanation:
    """The contributions (Z, Y, X), float32, of a task's sources, of the outputs from all its
    `source_sets` and v(∅)."""
    game = {frozenset(own.sources): outputs[own].astype(np.float64) for own in source_sets(task)}
    game[frozenset()] = empty.astype(np.float64)
    values = shapley_values(game)
    maps = {source: values[source].astype(np.float32) for source in sorted(values)}
    return Explanation(task, outputs[task], empty, maps)


def check_explicable(network: SynthesisNetwork, tasks: Iterable[Task]) -> None:
    """UserError unless the network can do each task from every set of its sources."""
    if not can_be_explained(network, tasks):
        raise UserError(
            f"a {type(network).__name__} can't do with fewer sources, which is what "
            "contributions are made of"
        )


def can_be_explained(network: SynthesisNetwork, tasks: Iterable[Task]) -> bool:
    """Whether the network can do each task from every set of its sources."""
    return all(
        network.accepts(own, variant)
        for able in map(source_sets, tasks)
        for variant in [variant_for(network, able)]
        for own in able
    )


def explain_contributions(
    network: SynthesisNetwork,
    window: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    empty: Mapping[int, np.ndarray],
) -> Iterator[Explanation]:
    """Each task's contributions, from a window (S, Z, Y, X) in [-1, 1], target by target.

    Of the centre slices of its stacks, (Z − C + 1, Y, X), as v(∅) of each target in `empty` is.
    A target's sources are encoded once.
    """
    check_explicable(network, tasks)
    blocks = stacks(window, network.slices)
    for target in dict.fromkeys(task.target for task in tasks):
        wanted = [task for task in tasks if task.target == target]
        sets = sorted({own for task in wanted for own in source_sets(task)})
        variant = variant_for(network, sets)
        outputs = run_stacks(network, blocks, sets, batch_size, [variant], centre=True)
        images = {own: outputs[variant, own] for own in sets}
        for task in wanted:
            yield explained(task, images, empty[target])
