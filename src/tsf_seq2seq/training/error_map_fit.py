"""Training and calibration of an error map for a network whose weights stay as they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tsf_seq2seq.config import AugmentationConfig, Config
from tsf_seq2seq.data.loading import Subject, load_box
from tsf_seq2seq.data.sampling import Crop, CropStream
from tsf_seq2seq.data.slices import BACKGROUND, stacks, whole_window
from tsf_seq2seq.data.statistics import evenly_spaced
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.protocol import complete_tasks
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.models.base import SynthesisNetwork, seeded
from tsf_seq2seq.models.error_estimator import (
    ERROR_SCALE,
    ErrorEstimator,
    ErrorEstimatorConfig,
    JudgedNetwork,
)
from tsf_seq2seq.synthesis.error_map import (
    Calibration,
    ErrorMap,
    brain_psnr,
    judged_variant,
    plain_psnr,
)
from tsf_seq2seq.synthesis.risk_control import Ratios, margin, smallest_factor
from tsf_seq2seq.synthesis.source_statistics import source_statistics
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.verdict import (
    disagreement,
    disagreement_name,
    expected_error_name,
    log_rms,
)
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tables import Table, group_by
from tsf_seq2seq.tasks import Task, sample_missing_task, task_key
from tsf_seq2seq.training.objectives import one_cycle_learning_rate
from tsf_seq2seq.training.prior import STACKS

ALPHAS = (0.1, 0.2)  # shares of the brain that may lie outside a band
FOLDS = 3  # of cross-fitting
OFFSET_PRIOR = 8  # subjects that the offset of all tasks counts as, in that of one
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class ErrorMapTraining:
    """How an estimator is trained."""

    settings: ErrorEstimatorConfig
    steps: int
    batch_size: int
    seed: int
    lr: float = 2e-3


@dataclass
class Seen:
    """What calibration sees of a subject: all tasks that its sequences allow."""

    name: str
    ratios: Ratios = field(default_factory=Ratios.none)
    error: float = 0  # sums over voxels
    scale: float = 0
    psnr: dict[str, tuple[float, float]] = field(default_factory=dict)  # task → by scales, true
    statistics: dict[str, float] = field(default_factory=dict)


def fit_estimator(
    network: SynthesisNetwork,
    config: Config,
    subjects: Sequence[Subject],
    training: ErrorMapTraining,
) -> ErrorEstimator:
    """An estimator of the network's errors on crops of the subjects, where the network is."""
    device = next(network.parameters()).device
    with seeded(training.seed):
        estimator = training.settings.build(network.n_sequences, network.slices).to(device)
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=training.lr)
    course = replace(
        config.train,
        batch_size=min(training.batch_size, len(subjects)),
        seed=training.seed,
        steps=training.steps,
    )
    data = replace(config.data, use_all_sequences=True)  # the targets are to be seen
    config = replace(config, data=data, train=course, augmentation=AugmentationConfig())
    variant = judged_variant(network)

    def sample_task(available: Sequence[int], rng: np.random.Generator, done: float) -> Task:
        while not network.accepts(task := sample_missing_task(available, rng), variant):
            pass
        return task

    network.eval()
    stream = iter(CropStream(subjects, config, sample_task))
    bar = tqdm(islice(stream, training.steps), total=training.steps, unit="step", leave=False)
    for step, (crop, _) in enumerate(bar):
        rate = one_cycle_learning_rate(training.lr, step / training.steps, warm_up=0.05)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = _loss(network, estimator, crop.to(device), variant)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(estimator.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        bar.set_postfix_str(f"loss {loss.item():.3f}")
    stream.close()
    return estimator.eval()


def _loss(network: SynthesisNetwork, estimator: ErrorEstimator, crop: Crop, variant: str) -> Tensor:
    """−log likelihood of the centre slices' errors in the brain, the mean over all targets."""
    sources, first = crop.task
    targets = [first, *(i for i in crop.available if i not in (*sources, first))]
    tasks = [Task(sources, target) for target in targets]
    images, middle = crop.inputs, network.slices // 2
    with torch.no_grad():
        outputs = list(network.synthesize(images, tasks, (variant,)))
    brain = (images[:, list(sources), middle] > BACKGROUND).any(dim=1)  # (B, H, W)
    terms = []
    for _, task, output in outputs:
        error = (output[:, middle] - crop.images[:, task.target, middle]).abs()  # (B, H, W)
        log_scale = estimator(images, output, task)
        losses = (log_scale + error * torch.exp(-log_scale)) * brain
        terms.append(losses.sum() / brain.sum().clamp(min=1))  # a slice may be empty
    return torch.stack(terms).mean()


def look_at(
    network: SynthesisNetwork,
    estimator: ErrorEstimator,
    config: Config,
    subject: Subject,
    batch_size: int,
) -> Seen:
    """A subject's errors beside their scales, target by target, on stacks spread over the
    evaluated window, and its statistics."""
    variant, seen, names = judged_variant(network), Seen(subject.name), list(config.data.sequences)
    judged = JudgedNetwork(network, estimator, variant)
    loaded = load_window(config, subject)
    places = evenly_spaced(loaded.images.shape[1] - loaded.height + 1, STACKS)
    blocks = stacks(loaded.images, loaded.height)[:, places]
    centres = loaded.centres[:, places]
    tasks = complete_tasks(subject, network.n_sequences)
    seen.statistics = _statistics(subject, names)
    for target in subject.on_disk:
        own = [t for t in tasks if t.target == target and network.accepts(t, variant)]
        outputs = run_stacks(judged, blocks, own, batch_size, (variant, ERROR_SCALE), centre=True)
        images = {task: outputs[variant, task] for task in own}
        for task in own:
            brain = brain_mask(centres[list(task.sources)])
            error = np.abs(images[task] - centres[target])[brain]
            scale = outputs[ERROR_SCALE, task][brain]
            seen.ratios.add(error, scale)
            seen.error += float(error.sum(dtype=np.float64))
            seen.scale += float(scale.sum(dtype=np.float64))
            seen.psnr[task_key(task, names)] = plain_psnr(scale), brain_psnr(error)
            seen.statistics[expected_error_name(task, names)] = log_rms(scale)
            if (apart := disagreement(task, images, brain)) is not None:
                seen.statistics[disagreement_name(task, names)] = apart
    return seen


def _statistics(subject: Subject, names: Sequence[str]) -> dict[str, float]:
    """Of all its sequences' whole volumes."""
    whole = load_box(subject, whole_window, len(names))
    images = {names[index]: whole.images[index] for index in subject.on_disk}
    return source_statistics(images, whole.geometry.spacing)


def calibration_of(seen: Sequence[Seen], separate: bool, slices: int | None = None) -> Calibration:
    """What scales mean, by the subjects seen, of which so many central `slices` were looked at."""
    expected = sum(own.error for own in seen) / sum(own.scale for own in seen)
    shift = -20 * np.log10(expected)  # what `expected` does to a PSNR by scales
    gaps = [{key: t - (s + shift) for key, (s, t) in own.psnr.items()} for own in seen]
    scores = []
    for number, own in enumerate(gaps):
        offset, offsets = _psnr_offsets([*gaps[:number], *gaps[number + 1 :]] or gaps)
        scores.append(max(abs(gap - offsets.get(key, offset)) for key, gap in own.items()))
    offset, offsets = _psnr_offsets(gaps)
    ratios = [own.ratios for own in seen]
    return Calibration(
        subjects=len(seen),
        separate=separate,
        expected=expected,
        factors={f"{alpha:g}": smallest_factor(ratios, alpha) for alpha in ALPHAS},
        psnr_offset=offset,
        psnr_offsets=offsets,
        psnr_margins={f"{alpha:g}": margin(scores, alpha) for alpha in ALPHAS},
        statistics=tuple(own.statistics for own in seen if own.statistics),
        slices=slices,
    )


def _psnr_offsets(gaps: Sequence[Mapping[str, float]]) -> tuple[float, dict[str, float]]:
    """The median of all subjects' true PSNR − that by the scales, task → gap each; and of each
    task, drawn towards that of all where few subjects know it."""
    overall = float(np.median([gap for own in gaps for gap in own.values()]))
    pairs = [pair for own in gaps for pair in own.items()]
    offsets = {}
    for key, own in group_by(pairs, lambda pair: pair[0]).items():
        weight = len(own) / (len(own) + OFFSET_PRIOR)
        offsets[key] = overall + weight * (float(np.median([gap for _, gap in own])) - overall)
    return overall, offsets


def usable_subjects(network: SynthesisNetwork, config: Config, split: Path) -> list[Subject]:
    """A split's subjects with sequences for a task of the network; UserError where none has."""
    variant = judged_variant(network)
    found = [
        subject
        for subject in find_subjects(config.data, split)
        if any(network.accepts(t, variant) for t in complete_tasks(subject, network.n_sequences))
    ]
    if not found:
        raise UserError(f"{split}: no subject has the sequences of a task of the network")
    return found


def fit_error_map(
    network: SynthesisNetwork,
    config: Config,
    fitted: Sequence[Subject],
    calibrated: Sequence[Subject],
    training: ErrorMapTraining,
    batch_size: int,
    say: Callable[[str], object],
) -> ErrorMap:
    """An estimator of the errors on `fitted` subjects, calibrated on others.

    Without `calibrated` subjects it is cross-fitted: those of each fold are looked at by an
    estimator of the other folds.
    """
    seen = []
    if not calibrated and len(fitted) > 1:
        folds = [fitted[number::FOLDS] for number in range(min(FOLDS, len(fitted)))]
        for number, fold in enumerate(folds, start=1):
            say(f"cross-fitting: fold {number} of {len(folds)}")
            names = {subject.name for subject in fold}
            others = [subject for subject in fitted if subject.name not in names]
            part = fit_estimator(network, config, others, training)
            seen += [look_at(network, part, config, one, batch_size) for one in fold]
    say(f"training on {len(fitted)} subjects")
    estimator = fit_estimator(network, config, fitted, training)
    for subject in tqdm(calibrated, unit="subject", desc="calibrating", disable=not calibrated):
        seen.append(look_at(network, estimator, config, subject, batch_size))
    calibration = calibration_of(seen, bool(calibrated), config.data.slices) if seen else None
    return ErrorMap(training.settings, estimator, calibration)


def band_table(calibration: Calibration) -> Table:
    """One row an α."""
    rows = [
        [alpha, calibration.factors[alpha] or nan, calibration.psnr_margins[alpha] or nan]
        for alpha in calibration.factors
    ]
    how = "that the estimator didn't see" if calibration.separate else "by cross-fitting"
    return Table(
        f"Calibration on {calibration.subjects} subjects, {how}: the mean absolute error is "
        f"{calibration.expected:.2f} times the mean scale. All but a share α of a brain lies "
        "within λ scales of the synthesis; its PSNR within the margin of the expected one for all "
        "but a share α of subjects.",
        ["α", "λ", "margin of PSNR (dB)"],
        rows,
        labels=1,
    )
