"""Synthesis of whole windows: every source encoded once, every task decoded from the features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.models.build import Network
from tsf_seq2seq.tasks import Task

Features = Mapping[int, Tensor]  # source → its feature (N, c, h, w) of N stacks
Key = TypeVar("Key")


@torch.inference_mode()
def run_stacks(
    network: Network,
    stacks: np.ndarray,
    sources: Iterable[int],
    batch_size: int,
    decode: Callable[[Features], Mapping[Key, np.ndarray]],
) -> dict[Key, np.ndarray]:
    """Encode slice stacks (S, N, C, H, W), batch by batch, and join what `decode` makes of them.

    Each of the `sources` is encoded once a batch, where the network is; `decode` gives arrays whose
    first axis runs over the batch's stacks.
    """
    device = next(network.parameters()).device
    parts: dict[Key, list[np.ndarray]] = {}
    sources = sorted(sources)
    network.eval()
    for start in range(0, stacks.shape[1], batch_size):
        batch = stacks[:, start : start + batch_size]
        features = {
            source: encode_source(network, torch.from_numpy(np.array(batch[source])).to(device))
            for source in sources
        }
        for key, output in decode(features).items():
            parts.setdefault(key, []).append(output)
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def synthesize(
    network: Network, stacks: np.ndarray, tasks: Sequence[Task], batch_size: int
) -> dict[Task, np.ndarray]:
    """Each task's output (N, C, H, W) for slice stacks (S, N, C, H, W) of one subject.

    A Seq2Seq takes tasks of one source.
    """

    def decode(features: Features) -> dict[Task, np.ndarray]:
        size = stacks.shape[-2:]
        return {
            task: decode_task(network, features, task, size).float().cpu().numpy() for task in tasks
        }

    sources = {source for task in tasks for source in task.sources}
    return run_stacks(network, stacks, sources, batch_size, decode)


def encode_source(network: Network, images: Tensor) -> Tensor:
    """Feature (N, c, h, w) of one source's stacks (N, C, H, W)."""
    seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
    return seq2seq.encode(images.unsqueeze(1))


def decode_task(
    network: Network,
    features: Features,
    task: Task,
    size: Sequence[int],
    attention: bool = True,
) -> Tensor:
    """Images (N, C, H, W) of the task's target from its sources' features (N, c, h, w)."""
    if not isinstance(network, TSFSeq2Seq):
        (source,) = task.sources
        return network.decode(features[source], task.target, size).squeeze(1)
    stacked = torch.stack([features[source] for source in task.sources], dim=1)
    return network.synthesize(stacked, task.sources, task.target, size, attention)
