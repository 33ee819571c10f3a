"""From a subject's sources to a target's slices: what the network sees, and its way back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.slices import BACKGROUND, bounding_box, stacks
from tsf_seq2seq.data.statistics import evenly_spaced, in_plane_spacing
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.imputation.field_of_view import (
    FieldOfView,
    field_of_view,
    spacing_text,
    training_plane,
)
from tsf_seq2seq.imputation.mapped import source_stack
from tsf_seq2seq.imputation.sources import Sources
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, SynthesisNetwork
from tsf_seq2seq.models.error_estimator import ERROR_SCALE
from tsf_seq2seq.synthesis.error_map import judged_variant, with_error_map
from tsf_seq2seq.synthesis.finish import Finish, run_averaged
from tsf_seq2seq.synthesis.stacks import Progress, run_stacks
from tsf_seq2seq.synthesis.verdict import disagreement, fewer_sources
from tsf_seq2seq.tasks import Task

BATCH_SIZE = 4  # stacks that pass the network together
COMPARED_SLICES = 8  # slices on which outputs of fewer sources are looked at, spread over the brain


class Slices(NamedTuple):
    """A target's axial slices (N, Y, X) in [-1, 1], their TSEM and the scales of their errors (None
    for a network without), and how far apart outputs of fewer sources are (`disagreement`)."""

    image: np.ndarray
    tsem: np.ndarray | None
    scale: np.ndarray | None = None
    apart: float | None = None


def synthesize_slices(
    network: SynthesisNetwork,
    window: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    precision: str = "fp32",
    progress: Progress | None = None,
    with_maps: bool = True,
    finish: Finish | None = None,
) -> dict[Task, Slices]:
    """Centre slices of the network's stacks of a window (S, Z, Y, X) in [-1, 1].

    Images are averaged as `finish` says; maps are of the plain outputs. `progress` hears after each
    batch how many slices are done, of how many. Raises UserError where the network gives a value
    that is not finite.
    """
    wanted = (FULL, WITHOUT_ATTENTION, ERROR_SCALE) if with_maps else (FULL,)
    variants = [v for v in wanted if v in network.variants]
    blocks = stacks(window, network.slices)
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        steps = finish.steps if finish else ()
        outputs, images = run_averaged(
            network, blocks, tasks, batch_size, variants, steps, progress=progress
        )
    if not all(np.isfinite(output).all() for output in (*outputs.values(), *images.values())):
        raise UserError("the network gave values that are not finite: its weights are unusable")
    slices = {}
    for task in tasks:
        full, without = outputs[FULL, task], outputs.get((WITHOUT_ATTENTION, task))
        tsem = None if without is None else np.abs(full - without)
        slices[task] = Slices(images[task], tsem, outputs.get((ERROR_SCALE, task)))
    return slices


def _disagreements(
    network: SynthesisNetwork,
    window: np.ndarray,
    tasks: Sequence[Task],
    batch_size: int,
    precision: str,
) -> dict[Task, float | None]:
    """The disagreement of each task's outputs on some slices of a window (S, Z, Y, X)."""
    several = [task for task in tasks if len(task.sources) > 1]
    if not several:
        return {}
    variant, blocks = judged_variant(network), stacks(window, network.slices)
    blocks = blocks[:, evenly_spaced(blocks.shape[1], COMPARED_SLICES)]
    sets = {own: None for task in several for own in (task, *fewer_sources(task))}
    wanted = [own for own in sets if network.accepts(own, variant)]
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        found = run_stacks(network, blocks, wanted, batch_size, (variant,), centre=True)
    outputs = {own: output for (_, own), output in found.items()}
    centres = blocks[:, :, network.slices // 2]
    return {
        task: disagreement(task, outputs, brain_mask(centres[list(task.sources)]))
        for task in several
    }


def synthesize_grid(
    model: Model,
    sources: Sources,
    tasks: Sequence[Task],
    precision: str,
    batch_size: int,
    progress: Progress | None = None,
    with_maps: bool = True,
    finish: Finish | None = None,
) -> tuple[dict[Task, Slices], tuple[str, ...]]:
    """Each task's whole grid in [-1, 1], as `finish` makes it, and the resampling that was done
    for it. The tasks' sources are among `sources`, whose brain is theirs, too."""
    names, height = list(model.sequences), model.network.slices
    view, resampling = _view(model, sources)

    # --- the brain's slices, and their neighbours: at the volume's ends, the end slice again
    z = bounding_box(sources.brain).z
    low, high = z.start, z.stop
    places = np.arange(low - height // 2, high + height // 2).clip(0, len(sources.brain) - 1)
    window = np.full((len(names), len(places), *view.size), BACKGROUND, dtype=np.float32)
    for name, image in sources.images.items():
        window[names.index(name)] = view.to_network(image[places])

    # --- the network
    network = with_error_map(model.network, model.error_map)
    outputs = synthesize_slices(
        network, window, tasks, batch_size, precision, progress, with_maps, finish
    )

    # --- back to the whole grid
    def whole(output: np.ndarray, outside: float) -> np.ndarray:
        volume = np.full(sources.brain.shape, outside, dtype=np.float32)
        volume[low:high] = view.to_grid(output, outside)
        volume[~sources.brain] = outside
        return volume

    apart: dict[Task, float | None] = {}
    if with_maps and model.error_map is not None:
        apart = _disagreements(model.network, window, tasks, batch_size, precision)
    slices = {}
    for task in tasks:
        image, tsem, scale, _ = outputs[task]
        image = whole(image, BACKGROUND)
        if finish is not None:
            image = finish(task, source_stack(model, sources, task), image, sources.brain)
        tsem, scale = (None if own is None else whole(own, 0) for own in (tsem, scale))
        slices[task] = Slices(image, tsem, scale, apart.get(task))
    return slices, resampling


def _view(model: Model, sources: Sources) -> tuple[FieldOfView, tuple[str, ...]]:
    """What the network sees of the sources' axial slices, and all resampling on the way."""
    wanted = model.statistics.spacing if model.statistics else None
    scaled, (_, height, width) = training_plane(sources.geometry, wanted), sources.brain.shape
    resampling = sources.resampled
    if wanted is not None and scaled != (height, width):
        own, usual = spacing_text(in_plane_spacing(sources.geometry)), spacing_text(wanted)
        resampling += (f"axial slices from {own} to the training data's {usual} and back",)
    box = bounding_box(sources.brain)
    brain = [(axis.start, axis.stop) for axis in (box.y, box.x)]
    multiple = model.network.size_multiple
    view = field_of_view(brain, (height, width), scaled, model.config.data.crop, multiple)
    return view, resampling
