"""The network over all slices of a window: each source encoded once, every target with its TSEM."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.models.build import Network
from tsf_seq2seq.synthesis.stacks import Features, decode_task, run_stacks
from tsf_seq2seq.tasks import Task


class Slices(NamedTuple):
    """A target's axial slices (N, Y, X) in [-1, 1], and their TSEM (None for a stage 1 network)."""

    image: np.ndarray
    tsem: np.ndarray | None


def synthesize_slices(
    network: Network,
    window: np.ndarray,
    tasks: Sequence[Task],
    height: int,
    batch_size: int,
    precision: str = "fp32",
    progress: Callable[[int, int], object] | None = None,
) -> dict[Task, Slices]:
    """Centre slices of the stacks of `height` neighbours of a window (S, Z, Y, X) in [-1, 1].

    `progress` hears after each batch how many slices are done, of how many. Raises UserError where
    the network gives a value that is not finite.
    """
    total, done = window.shape[1] - height + 1, 0
    passes = (True, False) if isinstance(network, TSFSeq2Seq) else (True,)
    centre = height // 2

    def decode(features: Features) -> dict[tuple[Task, bool], np.ndarray]:
        nonlocal done
        outputs = {}
        for task in tasks:
            for attention in passes:
                image = decode_task(network, features, task, window.shape[-2:], attention)
                outputs[task, attention] = image[:, centre].float().cpu().numpy()
        done += len(image)
        if progress is not None:
            progress(done, total)
        return outputs

    device = next(network.parameters()).device
    sources = {source for task in tasks for source in task.sources}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = run_stacks(network, stacks(window, height), sources, batch_size, decode)
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise UserError("the network gave values that are not finite: its weights are unusable")
    slices = {}
    for task in tasks:
        image = outputs[task, True]
        plain = outputs.get((task, False))
        slices[task] = Slices(image, None if plain is None else np.abs(image - plain))
    return slices
