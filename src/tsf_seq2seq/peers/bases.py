"""How networks of fixed inputs become networks of this house: families, and all-to-all ones.

A family holds a network for every pair of sequences, or for every two sources and a target; each is
trained on its own tasks alone, and a step trains one of them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.base import FULL, Availability, SynthesisNetwork
from tsf_seq2seq.models.scales import filled
from tsf_seq2seq.peers.blocks import pad_with_background
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import Task

MakeNetwork = Callable[[], nn.Module]


def member_name(task: Task) -> str:
    """The key of a family's member: its sources, ascending, and its target."""
    return "_".join(map(str, [*sorted(task.sources), task.target]))


def member_tasks(n_sequences: int, n_sources: int) -> list[Task]:
    """What a family of networks of so many sources has members for; ValueError for none."""
    if n_sequences <= n_sources:
        raise ValueError(f"{n_sources} sources and a target are more than {n_sequences} sequences")
    return [
        Task(sources, target)
        for sources in combinations(range(n_sequences), n_sources)
        for target in range(n_sequences)
        if target not in sources
    ]


class FixedNetwork(SynthesisNetwork):
    """What networks of fixed inputs share: sizes, at which they want background around.

    `judge_channels`: of the first layer of a discriminator that training puts beside it.
    """

    judge_channels: int

    def __init__(self, n_sequences: int, slices: int, multiple: int) -> None:
        """`multiple`: what must divide height and width; they are padded by background."""
        super().__init__()
        self.n_sequences, self.slices, self.size_multiple = n_sequences, slices, multiple

    @property
    def smallest_image(self) -> int:
        """Background pads any size."""
        return 1

    def pad(self, x: Tensor) -> Tensor:
        return pad_with_background(x, self.size_multiple)

    def given(self, images: Tensor, sources: Sequence[int]) -> Tensor:
        """Images (B, S, C, H, W), but background where they are no sources."""
        available = torch.zeros(self.n_sequences, device=images.device)
        available[list(sources)] = 1
        return filled(images, available)

    def forward(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """images (B, S, C, H, W) in [-1, 1], available (S,) bool → (B, C, H, W) in [-1, 1].

        Pixels of absent sequences are never read; ValueError for a task that it can't do.
        """
        self.check_target(target)
        task = Task(tuple(self.sources_of(available)), target)
        if not self.accepts(task):
            raise ValueError(f"a {type(self).__name__} can't do sources {task.sources} → {target}")
        ((_, _, output),) = self.synthesize(images, [task])
        return output


class Family(FixedNetwork):
    """A network for every task of `n_sources` sources."""

    n_sources: ClassVar[int]

    def __init__(
        self, n_sequences: int, slices: int, multiple: int, make_network: MakeNetwork
    ) -> None:
        super().__init__(n_sequences, slices, multiple)
        tasks = member_tasks(n_sequences, self.n_sources)
        self.members = nn.ModuleDict({member_name(task): make_network() for task in tasks})


class PairFamily(Family):
    """A network for each ordered pair; of several sources the outputs are averaged, as in the
    paper."""

    n_sources = 1

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        return task.target not in task.sources

    def translate(self, images: Tensor, source: int, target: int) -> Tensor:
        """One source's image (B, C, H, W) → the target's."""
        member = self.members[member_name(Task((source,), target))]
        height, width = images.shape[-2:]
        return member(self.pad(images[:, source]))[..., :height, :width]

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As every network does it; each pair is translated once."""
        for target, members in group_by(tasks, lambda task: task.target).items():
            used = sorted({source for task in members for source in task.sources})
            outputs = {source: self.translate(images, source, target) for source in used}
            for task in members:
                parts = [outputs[source] for source in task.sources]
                yield FULL, task, torch.stack(parts).mean(dim=0)


class TwoSourceFamily(Family):
    """A network for every two sources and a target; other numbers of sources it can't do."""

    n_sources = 2

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        return len(task.sources) == 2 and task.target not in task.sources

    def outputs(self, images: Tensor, task: Task) -> tuple[Tensor, ...]:
        """All that the task's network gives, the target (B, C, H, W) first."""
        height, width = images.shape[-2:]
        a, b = (self.pad(images[:, source]) for source in sorted(task.sources))
        found = self.members[member_name(task)](a, b)
        found = found if isinstance(found, tuple) else (found,)
        return tuple(image[..., :height, :width] for image in found)

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        for task in tasks:
            yield FULL, task, self.outputs(images, task)[0]


class AllToAll(FixedNetwork):
    """One network from all sequences, absent ones at background, to all sequences."""

    def __init__(self, n_sequences: int, slices: int, multiple: int, generator: nn.Module) -> None:
        """`generator`: (B, S·C, H, W) → the same, in [-1, 1]."""
        super().__init__(n_sequences, slices, multiple)
        self.generator = generator

    def generate(self, x: Tensor) -> Tensor:
        """What the generator makes of a stack."""
        return self.generator(x)

    def all_outputs(self, images: Tensor, sources: Sequence[int]) -> Tensor:
        """(B, S, C, H, W) → every sequence, available ones too, (B, S, C, H, W)."""
        height, width = images.shape[-2:]
        x = self.pad(self.given(images, sources).flatten(1, 2))  # (B, S·C, H', W')
        x = self.generate(x)[..., :height, :width]  # (B, S·C, H, W)
        return x.unflatten(1, (self.n_sequences, -1))

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As every network does it; each set of sources passes once."""
        for sources, members in group_by(tasks, lambda task: tuple(sorted(task.sources))).items():
            outputs = self.all_outputs(images, sources)  # (B, S, C, H, W)
            for task in members:
                yield FULL, task, outputs[:, task.target]
