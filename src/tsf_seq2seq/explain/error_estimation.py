"""TSEM as an estimate of the error, voxel by voxel, beside rival estimates that need no target."""

import base64
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from math import nan
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_segmentation
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.record import made_from
from tsf_seq2seq.evaluation.regions import brain_mask, error_regions
from tsf_seq2seq.explain.ranking import (
    CLASSES,
    Ranking,
    area_between,
    calibration,
    classes,
    joint_counts,
    sparsification_curve,
    spearman,
)
from tsf_seq2seq.explain.tsem import enhanced_maps
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.synthesis.windows import load_window, window_labels
from tsf_seq2seq.tasks import Task, source_sets

ORACLE = "oracle"
BRAIN = "brain"


@dataclass(frozen=True)
class ErrorRow:
    """One estimator on one synthesized volume and region: a row of error_estimation.csv.

    psnr in dB, of the evaluated window; means of the estimate and of the absolute error
    (normalised intensities, range 2); Spearman's correlation of the two; AUSE (`area_between`),
    that of the random order, and their ratio: 0 for a perfect order, 1 for a random one.
    """

    LABELS: ClassVar[int] = 5
    name: str
    sources: str
    target: str
    estimator: str
    region: str
    voxels: int
    psnr: float
    mean_estimate: float
    mean_error: float
    spearman: float
    ause: float
    ause_random: float
    ause_relative: float


@dataclass(frozen=True)
class CalibrationRow:
    """A tenth of a volume's brain voxels, by rising estimate: a row of calibration.csv."""

    LABELS: ClassVar[int] = 5
    name: str
    sources: str
    target: str
    estimator: str
    part: int
    voxels: int
    mean_estimate: float
    mean_error: float


class Curve(NamedTuple):
    """A volume's sparsification curve in the brain, by an estimator or the oracle: mean errors."""

    name: str
    sources: str
    target: str
    order: str
    errors: np.ndarray


def no_counts() -> defaultdict[tuple[str, str, str], np.ndarray]:
    """Joint counts (64, 64) to add to, 0 for whatever key."""
    return defaultdict(lambda: np.zeros((CLASSES, CLASSES), int))


@dataclass
class Measured:
    """What was measured, volume by volume.

    `counts`: (sources, target, estimator) → joint counts of all subjects' brain voxels.
    """

    rows: list[ErrorRow] = field(default_factory=list)
    parts: list[CalibrationRow] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    counts: dict[tuple[str, str, str], np.ndarray] = field(default_factory=no_counts)

    def to_json(self) -> list[Any]:
        """As JSON, from which `add_json` makes the same; the counts are packed."""
        rows, parts = ([list(astuple(row)) for row in own] for own in (self.rows, self.parts))
        curves = [[*curve[:4], curve.errors.tolist()] for curve in self.curves]
        counts = np.array(list(self.counts.values()), "<i4").tobytes()
        packed = base64.b64encode(zlib.compress(counts)).decode()
        return [rows, parts, curves, list(self.counts), packed]

    def add_json(self, values: Sequence[Any]) -> None:
        """Add what `to_json` gave of another."""
        rows, parts, curves, keys, packed = values
        self.rows += [ErrorRow(*row) for row in rows]
        self.parts += [CalibrationRow(*row) for row in parts]
        self.curves += [Curve(n, s, t, order, np.array(own)) for n, s, t, order, own in curves]
        counts = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<i4")
        for key, own in zip(keys, counts.reshape(-1, CLASSES, CLASSES), strict=True):
            sources, target, estimator = key
            self.counts[sources, target, estimator] += own


def allowed_tasks(subject: Subject, tasks: Iterable[Task]) -> list[Task]:
    """The tasks that a subject's sequences on disk allow."""
    return [task for task in tasks if set(subject.on_disk) >= {*task.sources, task.target}]


def inputs_of(subject: Subject, tasks: Sequence[Task], config: Config) -> dict[str, str]:
    """What a subject's rows are made from: its tasks, all its sequences, and its label map."""
    labels = find_segmentation(config.data, subject.name)
    content = {} if labels is None else {"label map": fingerprint(labels)}
    names = list(config.data.sequences)
    return made_from(subject, subject.on_disk, allowed_tasks(subject, tasks), names) | content


def measure_errors(
    network: SynthesisNetwork,
    config: Config,
    subject: Subject,
    tasks: Sequence[Task],
    batch_size: int,
) -> Measured:
    """Measure every estimator on every task that a subject's sequences on disk allow.

    Only the maps of one target are in memory at a time.
    """
    names, measured = list(config.data.sequences), Measured()
    loaded = load_window(config, subject)
    brain = brain_mask(loaded.centres)
    regions = error_regions(brain, window_labels(config, loaded))
    inside = {name: mask[brain] for name, mask in regions.items()}
    allowed = allowed_tasks(subject, tasks)
    for volume in synthesized(network, loaded.images, allowed, batch_size):
        wanted = loaded.centres[volume.task.target]
        key = subject.name, *volume.task.label(names)
        error = np.abs(volume.synthesis - wanted)[brain]
        estimates = {name: own[brain] for name, own in volume.estimates.items()}
        _measure(measured, key, psnr(wanted, volume.synthesis), estimates, error, inside)
    return measured


class Synthesized(NamedTuple):
    """A task's synthesis and the estimates of its error, (Z, Y, X) each."""

    task: Task
    synthesis: np.ndarray
    estimates: Mapping[str, np.ndarray]


def synthesized(
    network: SynthesisNetwork, window: np.ndarray, tasks: Sequence[Task], batch_size: int
) -> Iterator[Synthesized]:
    """Synthesis and estimates of each task, from a window (S, Z, Y, X), target by target.

    `tsem`; `gradient`: the synthesis' gradient magnitude, per voxel; `disagreement`: the standard
    deviation between the outputs of all sets of the task's sources, for two sources and more.
    """
    for target in dict.fromkeys(task.target for task in tasks):
        wanted = [task for task in tasks if task.target == target]
        sets = sorted({own for task in wanted for own in source_sets(task)})
        maps = enhanced_maps(network, window, sets, batch_size)
        for task in wanted:
            synthesis, tsem = maps[task]
            estimates = {"tsem": tsem, "gradient": gradient_magnitude(synthesis)}
            if len(task.sources) > 1:
                estimates["disagreement"] = np.std([maps[s][0] for s in source_sets(task)], axis=0)
            yield Synthesized(task, synthesis, estimates)


def gradient_magnitude(volume: np.ndarray) -> np.ndarray:
    """|∇x| of (Z, Y, X) by central differences, in intensity per voxel.

    Axes of one voxel have no gradient.
    """
    axes = tuple(axis for axis, size in enumerate(volume.shape) if size > 1)
    parts = np.gradient(volume, axis=axes)
    magnitude: np.ndarray = np.linalg.norm(np.reshape(parts, (-1, *volume.shape)), axis=0)
    return magnitude


def _measure(
    measured: Measured,
    key: tuple[str, str, str],
    quality: float,
    estimates: Mapping[str, np.ndarray],
    error: np.ndarray,
    inside: Mapping[str, np.ndarray],
) -> None:
    """Add one volume: estimates and error (N,) of the brain's voxels, `inside` regions of them."""
    for region, mask in inside.items():
        own = error[mask]
        truth = Ranking.of(own)
        oracle = sparsification_curve(truth, own)
        random = area_between(np.full_like(oracle, oracle[0]), oracle)
        for name, estimate in estimates.items():
            ranking = Ranking.of(estimate[mask])
            curve = sparsification_curve(ranking, own)
            ause = area_between(curve, oracle)
            measured.rows.append(
                ErrorRow(
                    *(*key, name, region, len(own), quality),
                    float(estimate[mask].mean()),
                    float(own.mean()),
                    spearman(ranking, truth),
                    *(ause, random, ause / random if random > 0 else nan),
                )
            )
            if region == BRAIN:
                measured.curves.append(Curve(*key, name, curve))
                tenths = enumerate(calibration(ranking, estimate, own), start=1)
                measured.parts += [CalibrationRow(*key, name, n, *tenth) for n, tenth in tenths]
        if region == BRAIN:
            measured.curves.append(Curve(*key, ORACLE, oracle))
    error_classes = classes(error)
    for name, estimate in estimates.items():
        measured.counts[*key[1:], name] += joint_counts(classes(estimate), error_classes)
