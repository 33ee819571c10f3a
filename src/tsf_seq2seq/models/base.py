"""What every network is: images of some sequences in, the image of one other sequence out."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.regression_head import RegressionHead
from tsf_seq2seq.tasks import Task

Availability = Tensor | Sequence[bool]
FULL = "full"
WITHOUT_ATTENTION = "without_attention"  # TSEM is what it differs from FULL by
AVERAGE = "average"  # of the outputs from one source each


def code_of(task: Task, n_sequences: int, device: torch.device) -> Tensor:
    """z = [availability (S), one-hot target (S)] of a task."""
    code = torch.zeros(2 * n_sequences, device=device)
    code[list(task.sources)] = 1
    code[n_sequences + task.target] = 1
    return code


class SynthesisNetwork(nn.Module):
    """A network that synthesizes any of `n_sequences` sequences from some of the others.

    It sees stacks of `slices` neighbouring slices, of which the centre one is scored, and pads H
    and W to multiples of `size_multiple` by itself. `variants`: what it can put out for a task, the
    whole network first, then ablations of it. `builds_on`: the part whose weights a training starts
    from, none for a network that starts from nothing.
    """

    n_sequences: int
    slices: int
    size_multiple: int
    variants: ClassVar[tuple[str, ...]] = (FULL,)
    builds_on: ClassVar[str | None] = None

    def forward(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """images (B, S, C, H, W) in [-1, 1], available (S,) bool → `target` (B, C, H, W)."""
        raise NotImplementedError

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        """Whether the network can do the task."""
        return True

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """Every variant of every task: (variant, task, (B, C, H, W)) of images (B, S, C, H, W).

        What tasks share, a network computes once where it can; this one does them one by one.
        """
        for task in tasks:
            available = [index in task.sources for index in range(self.n_sequences)]
            yield FULL, task, self(images, available, task.target)

    def fusion_weights(self, available: Availability, target: int) -> Tensor | None:
        """Fusion weights ω (S,) of a task, which sum to one; None where there are none."""
        return None

    def scale_weights(self, available: Availability, target: int) -> Tensor | None:
        """ω of every scale, (scales, S), the full resolution first; None without such."""
        return None

    @property
    def smallest_image(self) -> int:
        """The smallest height and width that `pad` can bring to a multiple: reflection less than
        doubles a side."""
        return self.size_multiple // 2 + 1

    @property
    def regression_head(self) -> RegressionHead | None:
        """What the output starts from at every voxel, where there is such a part."""
        return None

    def enhanced_map(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """TSEM |output with f_A − output without f_A| of the centre slice, (B, H, W).

        Raises ValueError for a network that has no output without f_A.
        """
        if WITHOUT_ATTENTION not in self.variants:
            raise ValueError(f"a {type(self).__name__} has no TSEM")
        task = Task(tuple(self.sources_of(available)), target)
        outputs = self.synthesize(images, [task], (FULL, WITHOUT_ATTENTION))
        refined, plain = (image[:, self.slices // 2] for _, _, image in outputs)  # (B, H, W) each
        return (refined - plain).abs()

    def compiled_parts(self) -> Iterable[nn.Module]:
        """The parts in which the time goes, each of which torch.compile takes as a whole.

        Here all children; of a ModuleList, which is itself never called, its members.
        """
        for child in self.children():
            yield from child if isinstance(child, nn.ModuleList) else (child,)

    def sources_of(self, available: Availability) -> list[int]:
        """Indices of the available sequences, ascending; ValueError for a wrong number or none."""
        flags = available.tolist() if isinstance(available, Tensor) else list(available)
        if len(flags) != self.n_sequences:
            raise ValueError(f"availability of {self.n_sequences} sequences needed, not {flags}")
        if not any(flags):
            raise ValueError("no source sequence is available")
        return [index for index, flag in enumerate(flags) if flag]

    def check_target(self, target: int) -> None:
        """ValueError unless `target` is one of the sequences."""
        if not 0 <= target < self.n_sequences:
            raise ValueError(f"target must be 0 to {self.n_sequences - 1}, not {target}")

    def task_code(self, sources: Sequence[int], target: int) -> Tensor:
        """z = [availability (S), one-hot target (S)]."""
        self.check_target(target)
        device = next(self.parameters()).device
        return code_of(Task(tuple(sources), target), self.n_sequences, device)

    def pad(self, x: Tensor) -> Tensor:
        """Reflect right and bottom edges of (N, C, H, W) so that `size_multiple` divides H, W."""
        return reflect_to_multiple(x, self.size_multiple)


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) with right and bottom edges reflected until `multiple` divides H and W."""
    bottom, right = (-x.shape[-2] % multiple, -x.shape[-1] % multiple)
    return F.pad(x, (0, right, 0, bottom), mode="reflect") if bottom or right else x


def variant_for(network: SynthesisNetwork, tasks: Iterable[Task]) -> str:
    """The first variant that can do all the tasks; the whole network where none can."""
    tasks = list(tasks)
    able = (v for v in network.variants if all(network.accepts(task, v) for task in tasks))
    return next(able, FULL)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, random weights come from `seed`; random numbers outside stay untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
