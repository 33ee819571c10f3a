"""The maps of validation subjects that a training leaves in its best.pth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tsf_seq2seq.checkpoints.checkpoint import open_model, save_model
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.slices import centre_slices, stacks
from tsf_seq2seq.data.statistics import SAMPLE, evenly_spaced
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.models.base import SynthesisNetwork, variant_for
from tsf_seq2seq.synthesis.adaptation import Adaptation, Reference, median_maxima
from tsf_seq2seq.synthesis.adapted import task_moments
from tsf_seq2seq.synthesis.likeness import Histogram, histogram
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.polynomials import Moments
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, all_tasks, task_key
from tsf_seq2seq.training.validation import VALIDATION_BATCH

STACKS = 32  # of a validation subject, spread over its window


def add_prior(
    path: Path,
    validation: Sequence[Subject],
    training: Sequence[Subject],
    device: torch.device,
    processes: Processes = ALONE,
) -> None:
    """Give the checkpoint `path` maps of at most 32 validation subjects, unless it has them.

    With them come histograms of at most 32 training subjects, which say how much sites differ.
    Each of several processes looks at its share of the subjects; the main one writes.
    """
    if not path.is_file():  # moved away from a run that had ended before
        return
    model = open_model(path, device)
    if any(processes.gather(model.prior is not None)):
        return
    names = list(model.sequences)
    chosen = [validation[i] for i in evenly_spaced(len(validation), SAMPLE)]
    looked = [_look(model.network, model.config, one) for one in processes.share(chosen)]
    sample = [training[i] for i in evenly_spaced(len(training), SAMPLE)]
    shapes = [_histogram(model.config, one) for one in processes.share(sample)]
    found = [one for one in processes.gather_shares(looked) if one[2]]
    histograms = [one for one in processes.gather_shares(shapes) if one.quantiles]
    if not processes.main:
        return
    maps = {}
    for task in all_tasks(len(names)):
        own = {r.name: moments[task] for r, _, moments in found if task in moments}
        if own:
            maps[task_key(task, names)] = fit_map(own, uses_output=True)
    if not maps:
        return
    maxima = median_maxima([own for _, own, _ in found])
    prior = Adaptation(tuple(r for r, _, _ in found), maps, maxima, tuple(histograms))
    save_model(path, replace(model, prior=prior))


def _look(
    network: SynthesisNetwork, config: Config, subject: Subject
) -> tuple[Reference, dict[str, float], dict[Task, list[Moments]]]:
    """A subject, its intensity maxima, and the moments of each task that its sequences allow."""
    names, loaded = list(config.data.sequences), load_window(config, subject)
    places = evenly_spaced(loaded.images.shape[1] - loaded.height + 1, STACKS)
    blocks = stacks(loaded.images, loaded.height)[:, places]
    centres = centre_slices(loaded.images, loaded.height)[:, places]
    on_disk, moments = set(subject.on_disk), dict[Task, list[Moments]]()
    tasks = [t for t in all_tasks(len(names)) if on_disk >= {*t.sources, t.target}]
    for variant in network.variants:
        own = [task for task in tasks if variant == variant_for(network, [task])]
        own = [task for task in own if network.accepts(task, variant)]
        outputs = run_stacks(network, blocks, own, VALIDATION_BATCH, [variant], True) if own else {}
        moments |= {task: task_moments(centres, outputs[variant, task], task) for task in own}
    fingerprints = {names[i]: subject.fingerprint(i) for i in subject.on_disk}
    maxima = {names[i]: float(loaded.volumes.maxima[i]) for i in subject.on_disk}
    return Reference(subject.name, fingerprints), maxima, moments


def _histogram(config: Config, subject: Subject) -> Histogram:
    names = list(config.data.sequences)
    indices = subject.trained_on(config.data.use_all_sequences)
    images = load_window(config, subject, indices).images
    return histogram(subject.name, {names[i]: images[i] for i in indices}, subject.site)
