"""A network over the slice stacks of a subject, batch by batch: the one way to its outputs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.tasks import Task


@torch.inference_mode()
def run_stacks(
    network: SynthesisNetwork,
    stacks: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    variants: Sequence[str] = (FULL,),
    centre: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> dict[tuple[str, Task], np.ndarray]:
    """(variant, task) → output for slice stacks (S, N, C, H, W) in [-1, 1], where the network is.

    Outputs are (N, C, H, W), or with `centre` their centre slices (N, H, W). `progress` hears after
    each batch how many stacks are done, of how many.
    """
    device, total = next(network.parameters()).device, stacks.shape[1]
    parts: dict[tuple[str, Task], list[np.ndarray]] = {}
    network.eval()
    for start in range(0, total, batch_size):
        batch = stacks[:, start : start + batch_size].swapaxes(0, 1).copy()  # C order, writable
        images = torch.from_numpy(batch).to(device)  # (B, S, C, H, W)
        for variant, task, output in network.synthesize(images, tasks, variants):
            shown = output[:, network.slices // 2] if centre else output
            parts.setdefault((variant, task), []).append(shown.float().cpu().numpy())
        if progress is not None:
            progress(start + len(batch), total)
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}
