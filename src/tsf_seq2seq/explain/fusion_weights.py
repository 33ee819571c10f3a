"""Fusion weights ω of every task, as a table: what each source contributes to each target."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.tables import Table, number, read_table
from tsf_seq2seq.tasks import Task

FusionTable = Mapping[Task, np.ndarray]  # task → ω (S,), 0 where a sequence is no source
Omegas = Mapping[tuple[str, str], Mapping[str, float]]  # (sources, target) → sequence → ω


def fusion_tasks(n_sequences: int, with_reconstructions: bool = False) -> list[Task]:
    """Every source set with every target outside it, target by target: 28 for four sequences.

    With reconstructions, targets among the sources too: 60 for four sequences.
    """
    return [
        Task(sources, target)
        for target in range(n_sequences)
        for size in range(1, n_sequences + 1)
        for sources in combinations(range(n_sequences), size)
        if with_reconstructions or target not in sources
    ]


@torch.inference_mode()
def fusion_table(network: SynthesisNetwork, tasks: Sequence[Task]) -> dict[Task, np.ndarray]:
    """Fusion weights ω (S,) of each task: they sum to one. UserError for a network without."""
    table = {}
    for task in tasks:
        available = [i in task.sources for i in range(network.n_sequences)]
        weights = network.fusion_weights(available, task.target)
        if weights is None:
            raise UserError(f"{type(network).__name__} has no fusion weights")
        table[task] = weights.cpu().numpy()
    return table


def omegas(table: FusionTable, names: Sequence[str]) -> Omegas:
    """The same, by the names of a task's sequences, as `read_fusion_csv` gives it."""
    return {task.label(names): dict(zip(names, own, strict=True)) for task, own in table.items()}


def fusion_weight_table(weights: Omegas, names: Sequence[str], target: str = "") -> Table:
    """One row a task, one column a sequence: ω, empty where it is no source; of one target or all.

    With six digits, as fusion_weights.csv has them.
    """
    chosen = {key: own for key, own in weights.items() if key[1] == target or not target}
    headings = ["sources"] if target else ["sources", "target"]
    rows = []
    for key, own in chosen.items():
        sources = key[0].split("+")
        cells = [float(f"{own[name]:.6g}") if name in sources else None for name in names]
        rows.append([*key[: len(headings)], *cells])
    of = f", target {target}" if target else ""
    return Table(
        f"Fusion weights ω{of}: the shares of a task's sources in the fusion; they sum to one.",
        [*headings, *names],
        rows,
        len(headings),
    )


@torch.inference_mode()
def scale_weight_table(
    network: SynthesisNetwork, tasks: Sequence[Task], names: Sequence[str]
) -> Table | None:
    """One row a task and scale: ω there; None for a network that has one set of them."""
    rows = []
    for task in tasks:
        available = [i in task.sources for i in range(network.n_sequences)]
        weights = network.scale_weights(available, task.target)
        for scale, own in enumerate([] if weights is None else weights.tolist()):
            cells = [own[i] if i in task.sources else None for i in range(len(names))]
            rows.append([*task.label(names), f"1/{2**scale}", *cells])
    if len(rows) <= len(tasks):
        return None
    caption = "Fusion weights ω at every scale, as a share of the full resolution."
    return Table(caption, ["sources", "target", "scale", *names], rows, labels=3, style=".3f")


def read_fusion_csv(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(sources, target), labels such as ("t1+t2", "flair") → ω of every sequence, in order.

    0 where a sequence is no source. Raises UserError where the file is missing or not such a table.
    """
    what, labels = "a fusion_weights.csv", ("sources", "target")

    def parse(row: Mapping[str, str]) -> tuple[tuple[str, str], dict[str, float]]:
        cells = {name: cell for name, cell in row.items() if name not in labels}
        sources = row["sources"].split("+")
        for name in (*sources, row["target"]):
            if name not in cells:
                raise ValueError(f"there is no column of sequence {name!r}")
        given = {name for name, cell in cells.items() if cell}
        if given != set(sources) or len(given) < len(sources):
            raise ValueError("weights must stand where the sources are, and nowhere else")
        weights = {name: number(cell or "0") for name, cell in cells.items()}
        if not all(0 <= weight <= 1 for weight in weights.values()):
            raise ValueError("a weight is not from 0 to 1")
        return (row["sources"], row["target"]), weights

    table = dict(read_table(path, parse, what, labels))
    if not table:
        raise UserError(f"{path} is not {what} (it has no rows)")
    return table
