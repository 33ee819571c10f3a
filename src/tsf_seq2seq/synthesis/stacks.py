"""A network over the slice stacks of a subject, batch by batch: the one way to its outputs."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.tasks import Task

Progress = Callable[[int, int], object]  # stacks done, of how many


def run_stacks(
    network: SynthesisNetwork,
    stacks: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    variants: Sequence[str] = (FULL,),
    centre: bool = False,
    progress: Progress | None = None,
) -> dict[tuple[str, Task], np.ndarray]:
    """(variant, task) → output for slice stacks (S, N, C, H, W) in [-1, 1], where the network is.

    Outputs are (N, C, H, W), or with `centre` their centre slices (N, H, W). `progress` hears after
    each batch how many stacks are done, of how many.
    """
    parts: dict[tuple[str, Task], list[np.ndarray]] = {}
    batches = output_batches(network, stacks, tasks, batch_size, variants, progress)
    for _, variant, task, output in batches:
        shown = output[:, network.slices // 2] if centre else output
        parts.setdefault((variant, task), []).append(as_array(shown))
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


@torch.inference_mode()
def output_batches(
    network: SynthesisNetwork,
    stacks: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    variants: Sequence[str] = (FULL,),
    progress: Progress | None = None,
) -> Iterator[tuple[int, str, Task, Tensor]]:
    """The same piece by piece: (number of the batch's first stack, variant, task, (B, C, H, W))."""
    device, total = next(network.parameters()).device, stacks.shape[1]
    network.eval()
    for start in range(0, total, batch_size):
        batch = stacks[:, start : start + batch_size].swapaxes(0, 1).copy()  # C order, writable
        images = torch.from_numpy(batch).to(device)  # (B, S, C, H, W)
        for variant, task, output in network.synthesize(images, tasks, variants):
            yield start, variant, task, output
        if progress is not None:
            progress(start + len(batch), total)


def as_array(output: Tensor) -> np.ndarray:
    """A network's output as float32 in the processor's memory."""
    array: np.ndarray = output.float().cpu().numpy()
    return array
