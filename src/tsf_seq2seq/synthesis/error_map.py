"""The error map: what a network's outputs are expected to be off by, voxel by voxel."""

from dataclasses import dataclass, field

import numpy as np

from tsf_seq2seq.data.slices import DATA_RANGE
from tsf_seq2seq.models.base import SynthesisNetwork, variant_for
from tsf_seq2seq.models.error_estimator import ErrorEstimator, ErrorEstimatorConfig, JudgedNetwork
from tsf_seq2seq.tasks import all_tasks

SMALLEST = 1e-12  # mean square, of a perfect synthesis


@dataclass(frozen=True)
class Calibration:
    """What the scales of an estimator mean, by subjects whose targets are known.

    `subjects`: how many; `separate`: whether none of them trained the estimator that was looked at;
    `expected`: the mean absolute error as a multiple of the mean scale; `factors`: α, such as
    "0.1" → λ, the multiple of the scale within which all but a share α of the brain lies, and
    `psnr_margins`: α → how far the PSNR of the brain may lie from the expected one (dB), for all
    tasks of a subject; None where there were too few. `psnr_offset`: what the PSNR by the scales is
    off by (dB), and `psnr_offsets` for each task (`task_key`) that was seen. `statistics`: of each
    subject what a verdict on others goes by, name → value; `slices`: how many of a volume, the
    central ones, were looked at, all where it isn't known. Checkpoints that were made before know
    none of the last three.
    """

    subjects: int
    separate: bool
    expected: float
    factors: dict[str, float | None]
    psnr_offset: float
    psnr_margins: dict[str, float | None]
    psnr_offsets: dict[str, float] = field(default_factory=dict)
    statistics: tuple[dict[str, float], ...] = ()
    slices: int | None = None

    def __post_init__(self) -> None:
        for value in (self.expected, *(own for own in self.factors.values() if own is not None)):
            if not value > 0:
                raise ValueError(f"a factor must be above 0, not {value:g}")


@dataclass(frozen=True)
class StoredErrorMap:
    """What a checkpoint tells of an error map beside its weights."""

    settings: ErrorEstimatorConfig
    calibration: Calibration | None = None
    network_sha256: str | None = None


@dataclass(frozen=True)
class ErrorMap:
    """An estimator with its settings and what its scales mean (None before it is calibrated).

    `network_sha256`: of the weights file whose network it judges.
    """

    settings: ErrorEstimatorConfig
    estimator: ErrorEstimator = field(repr=False)
    calibration: Calibration | None = None
    network_sha256: str | None = None

    def expected_error(self, scale: np.ndarray) -> np.ndarray:
        """Scales → expected absolute errors, normalised intensities."""
        return scale * np.float32(self.calibration.expected if self.calibration else 1)

    def expected_psnr(self, scale: np.ndarray, task: str) -> float:
        """Of the brain's scales (N,) for a task, such as t1+t2:flair: PSNR there, range 2, dB."""
        known = self.calibration
        offset = known.psnr_offsets.get(task, known.psnr_offset) if known else 0
        return plain_psnr(self.expected_error(scale)) + offset


def judged_variant(network: SynthesisNetwork) -> str:
    """The variant whose outputs an error map is of: what the network gives for all its tasks."""
    return variant_for(network, all_tasks(network.n_sequences))


def with_error_map(network: SynthesisNetwork, error_map: ErrorMap | None) -> SynthesisNetwork:
    """The network with the variant ERROR_SCALE, where there is an error map; else itself."""
    if error_map is None:
        return network
    return JudgedNetwork(network, error_map.estimator, judged_variant(network))


def plain_psnr(expected: np.ndarray) -> float:
    """PSNR (dB) of errors that are Laplace distributed around 0 with mean amount `expected` (N,):
    their mean square is twice the square of that."""
    return _decibels(2 * np.square(expected, dtype=np.float64))


def brain_psnr(error: np.ndarray) -> float:
    """PSNR (dB) of absolute errors (N,) in the brain."""
    return _decibels(np.square(error, dtype=np.float64))


def _decibels(squares: np.ndarray) -> float:
    return float(10 * np.log10(DATA_RANGE**2 / max(float(squares.mean()), SMALLEST)))
