"""Synthesis of whole windows: every source encoded once, every task decoded from the features."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tsf_seq2seq.architecture import Network
from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.tasks import Task


@torch.inference_mode()
def synthesize(
    network: Network,
    stacks: np.ndarray,
    tasks: Iterable[Task],
    batch_size: int,
    centre_only: bool = True,
) -> dict[Task, np.ndarray]:
    """Each task's output for slice stacks (S, N, C, H, W) of one subject.

    Gives the centre slices (N, H, W), or with `centre_only` false all slices (N, C, H, W). A
    Seq2Seq takes tasks of one source. Work runs where the network is, `batch_size` stacks at once.
    """
    tasks = list(tasks)
    sources = sorted({source for task in tasks for source in task.sources})
    device = next(network.parameters()).device
    size = stacks.shape[-2:]
    outputs: dict[Task, list[np.ndarray]] = {task: [] for task in tasks}
    network.eval()
    for start in range(0, stacks.shape[1], batch_size):
        batch = np.ascontiguousarray(stacks[:, start : start + batch_size])
        images = torch.from_numpy(batch).to(device)  # (S, N, C, H, W)
        features = {source: encode_source(network, images[source]) for source in sources}
        for task in tasks:
            output = decode_task(network, features, task, size)  # (N, C, H, W)
            output = output[:, output.shape[1] // 2] if centre_only else output
            outputs[task].append(output.float().cpu().numpy())
    return {task: np.concatenate(parts) for task, parts in outputs.items()}


def encode_source(network: Network, images: Tensor) -> Tensor:
    """Feature (N, c, h, w) of one source's stacks (N, C, H, W)."""
    seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
    return seq2seq.encode(images.unsqueeze(1))


def decode_task(
    network: Network,
    features: Mapping[int, Tensor],
    task: Task,
    size: Sequence[int],
    attention: bool = True,
) -> Tensor:
    """Images (N, C, H, W) of the task's target from its sources' features (N, c, h, w)."""
    if not isinstance(network, TSFSeq2Seq):
        (source,) = task.sources
        return network.decode(features[source], task.target, size).squeeze(1)
    stacked = torch.stack([features[source] for source in task.sources], dim=1)
    feature = network.fuse(stacked, task.sources, task.target)
    if attention:
        feature = feature + network.attend(stacked, feature, task.sources, task.target)
    return network.decode(feature, task.target, size)
