"""TSEM and error maps as estimates of the error, voxel by voxel, beside others without a target."""

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
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.slices import stacks
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
from tsf_seq2seq.explain.shading import unshaded_error
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.models.base import WITHOUT_ATTENTION, SynthesisNetwork, variant_for
from tsf_seq2seq.models.error_estimator import ERROR_SCALE
from tsf_seq2seq.synthesis.error_map import ErrorMap, brain_psnr, with_error_map
from tsf_seq2seq.synthesis.source_statistics import gradient_magnitude
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import load_window, window_labels
from tsf_seq2seq.tasks import Task, source_sets, task_key

ORACLE, ERROR_MAP, FLOOR = "oracle", "error_map", "floor"
BLOCK_MM = 10  # of a side
BRAIN = "brain"


@dataclass(frozen=True)
class ErrorRow:
    """One estimator on one synthesized volume and region: a row of error_estimation.csv.

    psnr in dB, of the evaluated window; means of the estimate and of the absolute error
    (normalised intensities, range 2); Spearman's correlation of the two; AUSE (`area_between`),
    that of the random order, and their ratio: 0 for a perfect order, 1 for a random one;
    Spearman's correlation of the means in blocks of about 1 cm³, of the brain alone, with those of
    the error and of the error beyond contrast and shading (`unshaded_error`). The estimator `floor`
    orders errors that are drawn from an error map's own scales: no better order is possible where
    these are true.
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
    spearman_blocks: float = nan
    spearman_blocks_unshaded: float = nan


@dataclass(frozen=True)
class ErrorMapRow:
    """What an error map says of a volume, and what is true: a row of error_map.csv.

    PSNR (dB) in the brain, as expected and as it is, and how far the former may be off for 90 % of
    subjects; shares of the brain within the bands for 90 and 80 %; nan where calibration gave none.
    """

    LABELS: ClassVar[int] = 3
    name: str
    sources: str
    target: str
    expected_psnr: float
    psnr: float
    margin: float
    within_90: float
    within_80: float


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
    maps: list[ErrorMapRow] = field(default_factory=list)

    def to_json(self) -> list[Any]:
        """As JSON, from which `add_json` makes the same; the counts are packed."""
        rows, parts, maps = (
            [list(astuple(row)) for row in own] for own in (self.rows, self.parts, self.maps)
        )
        curves = [[*curve[:4], curve.errors.tolist()] for curve in self.curves]
        counts = np.array(list(self.counts.values()), "<i4").tobytes()
        packed = base64.b64encode(zlib.compress(counts)).decode()
        return [rows, parts, curves, list(self.counts), packed, maps]

    def add_json(self, values: Sequence[Any]) -> None:
        """Add what `to_json` gave of another."""
        rows, parts, curves, keys, packed, maps = values
        self.maps += [ErrorMapRow(*row) for row in maps]
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
    error_map: ErrorMap | None = None,
) -> Measured:
    """Measure every estimator on every task that a subject's sequences on disk allow.

    Only the maps of one target are in memory at a time. With an `error_map` of the network, that is
    one of them.
    """
    network = with_error_map(network, error_map)
    names, measured = list(config.data.sequences), Measured()
    loaded = load_window(config, subject)
    brain = brain_mask(loaded.centres)
    regions = error_regions(brain, window_labels(config, loaded))
    inside = {name: mask[brain] for name, mask in regions.items()}
    blocks = _blocks(brain, loaded.volumes.geometry)
    allowed = allowed_tasks(subject, tasks)
    for volume in synthesized(network, loaded.images, allowed, batch_size):
        wanted = loaded.centres[volume.task.target]
        key = subject.name, *volume.task.label(names)
        error = np.abs(volume.synthesis - wanted)[brain]
        unshaded = unshaded_error(wanted, volume.synthesis, brain)
        estimates = {name: own[brain] for name, own in volume.estimates.items()}
        quality = psnr(wanted, volume.synthesis)
        _measure(measured, key, quality, estimates, error, inside, blocks, unshaded)
        if error_map is not None:
            scale, told = estimates[ERROR_MAP], task_key(volume.task, names)
            measured.maps.append(_map_row(key, told, error_map, scale, error))
            drawn = np.abs(np.random.default_rng(0).laplace(0, scale)).astype(np.float32)
            floor = Measured()
            _measure(floor, key, quality, {FLOOR: scale}, drawn, {BRAIN: inside[BRAIN]}, blocks)
            measured.rows += floor.rows
    return measured


def _map_row(
    key: tuple[str, str, str], task: str, error_map: ErrorMap, scale: np.ndarray, error: np.ndarray
) -> ErrorMapRow:
    """Of scales and errors (N,) in the brain for a task (`task_key`)."""
    known = error_map.calibration
    factors = [known.factors.get(alpha) if known else None for alpha in ("0.1", "0.2")]
    margin = known.psnr_margins.get("0.1") if known else None
    within = [nan if f is None else float(np.mean(error <= f * scale)) for f in factors]
    expected = error_map.expected_psnr(scale, task)
    return ErrorMapRow(*key, expected, brain_psnr(error), margin or nan, *within)


def _blocks(brain: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Number (N,) of the block of about 1 cm³ that each voxel of the brain (Z, Y, X) lies in; −1 in
    blocks of which less than half is brain."""
    sizes = np.maximum(np.rint(BLOCK_MM / np.array(geometry.spacing)).astype(int), 1)
    places = [np.arange(n) // size for n, size in zip(brain.shape, sizes, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    numbers = ((z * (places[1][-1] + 1) + y) * (places[2][-1] + 1) + x)[brain]
    large = np.bincount(numbers) >= np.prod(sizes) / 2
    return np.where(large[numbers], numbers, -1)


def _block_means(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Means of values (N,) in each block."""
    inside = blocks >= 0
    counts = np.bincount(blocks[inside])
    return np.bincount(blocks[inside], values[inside])[counts > 0] / counts[counts > 0]


class Synthesized(NamedTuple):
    """A task's synthesis and the estimates of its error, (Z, Y, X) each."""

    task: Task
    synthesis: np.ndarray
    estimates: Mapping[str, np.ndarray]


def synthesized(
    network: SynthesisNetwork, window: np.ndarray, tasks: Sequence[Task], batch_size: int
) -> Iterator[Synthesized]:
    """Synthesis and estimates of each task, from a window (S, Z, Y, X), target by target.

    `error_map`: scales of errors, and `tsem`, of networks that have them; `gradient`: the
    synthesis' gradient magnitude, per voxel; `disagreement`: the standard deviation between the
    outputs of all sets of the task's sources, for two sources and more that the network can do.
    """
    blocks = stacks(window, network.slices)
    others = [v for v in (WITHOUT_ATTENTION, ERROR_SCALE) if v in network.variants]
    for target in dict.fromkeys(task.target for task in tasks):
        wanted = [task for task in tasks if task.target == target]
        sets = sorted({own for task in wanted for own in source_sets(task)})
        whole = variant_for(network, sets)
        sets = [own for own in sets if network.accepts(own, whole)]
        outputs = run_stacks(network, blocks, sets, batch_size, [whole, *others], centre=True)
        for task in (task for task in wanted if task in sets):
            synthesis, estimates = outputs[whole, task], {}
            if ERROR_SCALE in others:
                estimates[ERROR_MAP] = outputs[ERROR_SCALE, task]
            if WITHOUT_ATTENTION in others:
                estimates["tsem"] = np.abs(synthesis - outputs[WITHOUT_ATTENTION, task])
            estimates["gradient"] = gradient_magnitude(synthesis)
            subsets = [outputs[whole, own] for own in source_sets(task) if own in sets]
            if len(subsets) > 1:
                estimates["disagreement"] = np.std(subsets, axis=0)
            yield Synthesized(task, synthesis, estimates)


def _measure(
    measured: Measured,
    key: tuple[str, str, str],
    quality: float,
    estimates: Mapping[str, np.ndarray],
    error: np.ndarray,
    inside: Mapping[str, np.ndarray],
    blocks: np.ndarray,
    unshaded: np.ndarray | None = None,
) -> None:
    """Add one volume: estimates and error (N,) of the brain's voxels, `inside` regions of them,
    `blocks` the numbers of theirs, and their error beyond shading, where that is known."""
    block_errors = [_block_means(own, blocks) for own in (error, unshaded) if own is not None]
    for region, mask in inside.items():
        own = error[mask]
        truth = Ranking.of(own)
        oracle = sparsification_curve(truth, own)
        random = area_between(np.full_like(oracle, oracle[0]), oracle)
        for name, estimate in estimates.items():
            ranking = Ranking.of(estimate[mask])
            curve = sparsification_curve(ranking, own)
            agreed: list[float] = []
            if region == BRAIN:
                means = _block_means(estimate, blocks)
                agreed = [rank_correlation(means, own) for own in block_errors]
            ause = area_between(curve, oracle)
            measured.rows.append(
                ErrorRow(
                    *(*key, name, region, len(own), quality),
                    float(estimate[mask].mean()),
                    float(own.mean()),
                    spearman(ranking, truth),
                    *(ause, random, ause / random if random > 0 else nan),
                    *agreed,
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
