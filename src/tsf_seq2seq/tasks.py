"""Tasks: which source sequences are to give which target, and how training draws them."""

import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np

MIN_SEQUENCES, MAX_SEQUENCES = 2, 8  # eight already have 1016 tasks
# Headings beside sequence names in tables and figures.
RESERVED_NAMES = ("sources", "target", "synthesis", "error")


class Task(NamedTuple):
    """Source sequences → target sequence, as indices.

    In training the order of the sources counts: the first is the one that is reconstructed.
    """

    sources: tuple[int, ...]
    target: int

    def label(self, names: Sequence[str]) -> tuple[str, str]:
        """("t1+t2", "flair"): sources in the sequences' order, joined by +, and the target."""
        return "+".join(names[i] for i in sorted(self.sources)), names[self.target]


def task_key(task: Task, names: Sequence[str]) -> str:
    """Such as t1+t2:flair."""
    return ":".join(task.label(names))


def needed_sequences(tasks: Iterable[Task]) -> list[int]:
    """All sources and targets of tasks, ascending."""
    return sorted({index for task in tasks for index in (*task.sources, task.target)})


def n_inputs(sources: str) -> int:
    """How many sources a label such as t1+t2 names."""
    return sources.count("+") + 1


class Masked(Protocol):
    """A subject, as far as its mask says what it has."""

    @property
    def available(self) -> tuple[int, ...]: ...

    @property
    def missing_targets(self) -> tuple[int, ...]: ...


def check_sequence_names(names: Iterable[str]) -> None:
    """ValueError unless there are 2 to 8 names that suit file names, CSV columns and options."""
    names = list(names)
    if not MIN_SEQUENCES <= len(names) <= MAX_SEQUENCES:
        raise ValueError(
            f"sequences must be {MIN_SEQUENCES} to {MAX_SEQUENCES}, not {len(names)} "
            f"({', '.join(names)})"
        )
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(
                "a sequence's name must be letters (a to z), digits, _ and -, with a letter or "
                f"digit first, not '{name}'"
            )
        if name.lower() in RESERVED_NAMES:
            raise ValueError(
                f"a sequence can't be called {name}, which is a heading of tables and figures"
            )
    twins = [name for i, name in enumerate(names) if name.lower() in map(str.lower, names[:i])]
    if twins:
        raise ValueError(
            f"sequence {twins[0]} differs from another only in upper and lower case, or in nothing"
        )


def mask_to_sequences(mask: int, n_sequences: int) -> tuple[int, ...]:
    """Sequences that a split CSV's mask names; its highest of S bits is the first sequence."""
    return tuple(i for i in range(n_sequences) if mask >> (n_sequences - 1 - i) & 1)


def sequences_to_mask(sequences: Sequence[int], n_sequences: int) -> int:
    """The mask that names `sequences`."""
    return sum(1 << (n_sequences - 1 - i) for i in sequences)


def all_tasks(n_sequences: int) -> list[Task]:
    """Every source set with every target outside it: 28 tasks for four sequences."""
    return [
        Task(sources, target)
        for size in range(1, n_sequences)
        for sources in combinations(range(n_sequences), size)
        for target in range(n_sequences)
        if target not in sources
    ]


def source_sets(task: Task) -> list[Task]:
    """The task from every set of its sources: 2^n − 1 tasks, itself the last."""
    return [
        Task(sources, task.target)
        for size in range(1, len(task.sources) + 1)
        for sources in combinations(task.sources, size)
    ]


def translation_pairs(sequences: Sequence[int]) -> list[Task]:
    """Every ordered pair (source, target) of the sequences, equal ones included."""
    return [Task((source,), target) for source in sequences for target in sequences]


def sample_translation(available: Sequence[int], rng: np.random.Generator) -> Task:
    """Stage 1's task: a random source and a random target among the available, maybe equal."""
    source, target = rng.choice(available, size=2)
    return Task((int(source),), int(target))


def sample_missing_task(available: Sequence[int], rng: np.random.Generator) -> Task:
    """A target that is not among its sources: k of the shuffled others, k uniform in 1..n − 1.

    Of a single sequence, itself.
    """
    target, *others = (int(i) for i in rng.permutation(available))
    if not others:
        return Task((target,), target)
    return Task(tuple(others[: int(rng.integers(1, len(others) + 1))]), target)


def missing_target_tasks(subject: Masked) -> list[Task]:
    """The subject's available sequences → each of its missing ones that is on disk."""
    return [Task(subject.available, target) for target in subject.missing_targets]


def sample_fusion_task(available: Sequence[int], rng: np.random.Generator) -> Task:
    """Stage 2's task: the first k of the shuffled available sequences, k uniform in 1..n, as
    sources; as target a random one of the rest, of all where none is left."""
    shuffled = [int(i) for i in rng.permutation(available)]
    k = int(rng.integers(1, len(shuffled) + 1))
    target = rng.choice(shuffled[k:] or shuffled)
    return Task(tuple(shuffled[:k]), int(target))
