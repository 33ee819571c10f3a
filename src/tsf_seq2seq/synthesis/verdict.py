"""Whether a subject is of the kind that calibration saw, and if not, what of it isn't.

An error map holds for subjects like those it was calibrated on. Of each of these,
`source_statistics` and what the network said of them are kept; a subject is judged by the number
that lies furthest out, beside what the furthest one of each calibration subject was, seen from the
others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.tasks import Task

SHARE_OF_ALARMS = 0.05  # of subjects like those of the calibration
FEWEST = 9  # subjects; one in ten raises an alarm then
MOST_REASONS = 3
NEGLIGIBLE = 1e-6  # standard deviation, and amount


@dataclass(frozen=True)
class Reason:
    """A number outside of what calibration saw: `deviation` in standard deviations of theirs."""

    name: str
    value: float
    deviation: float
    seen: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.seen
        return f"{self.name} {self.value:.2f}, in calibration {low:.2f} to {high:.2f}"


@dataclass(frozen=True)
class Verdict:
    """`outside`: whether less than SHARE_OF_ALARMS of subjects like those of the calibration lie
    further out; `share`: how many do, at most (a conformal p-value); `subjects`: how many tell;
    `reasons`: why, the furthest first."""

    outside: bool
    share: float
    subjects: int
    reasons: tuple[Reason, ...]


def judge(
    values: Mapping[str, float], calibration: Sequence[Mapping[str, float]]
) -> Verdict | None:
    """A subject's `values` beside those of the calibration subjects that have all of them; None
    where these are too few."""
    names = list(values)
    known = [own for own in calibration if own.keys() >= set(names)]
    if len(known) < FEWEST:
        return None
    table = np.array([[own[name] for name in names] for own in known])  # (subjects, values)
    usual = [
        _deviations(own, np.delete(table, place, axis=0)).max() for place, own in enumerate(table)
    ]
    value = np.array([values[name] for name in names])
    deviations = _deviations(value, table)
    share = (1 + sum(own >= deviations.max() for own in usual)) / (len(known) + 1)
    outside = bool(share <= max(SHARE_OF_ALARMS, 1 / (len(known) + 1)))
    furthest, *others = np.argsort(-deviations)[:MOST_REASONS]
    shown = [furthest, *(place for place in others if deviations[place] > max(usual))]
    reasons = [
        Reason(
            *(names[place], float(value[place]), float(deviations[place])),
            (float(table[:, place].min()), float(table[:, place].max())),
        )
        for place in shown
    ]
    return Verdict(outside, float(share), len(known), tuple(reasons) if outside else ())


def expected_error_name(task: Task, names: Sequence[str]) -> str:
    """What a task's `log_rms` of the scales of its errors in the brain is called."""
    return f"{_of_task(task, names)}: expected error"


def disagreement_name(task: Task, names: Sequence[str]) -> str:
    """What the `disagreement` of its outputs is called."""
    return f"{_of_task(task, names)}: disagreement"


def fewer_sources(task: Task) -> list[Task]:
    """The task with each of its sources left out in turn; none of a single source."""
    rest = [tuple(own for own in task.sources if own != left) for left in task.sources]
    return [Task(sources, task.target) for sources in rest if sources]


def disagreement(task: Task, outputs: Mapping[Task, np.ndarray], brain: np.ndarray) -> float | None:
    """`log_rms` in the brain of what leaving out one source changes, over those of `fewer_sources`
    that are among the outputs (N, Y, X); None where none is. `brain` (N, Y, X)."""
    changes = [
        (outputs[own] - outputs[task])[brain] for own in fewer_sources(task) if own in outputs
    ]
    return log_rms(np.concatenate(changes)) if changes else None


def log_rms(values: np.ndarray) -> float:
    """Natural logarithm of the root mean square of values (N,)."""
    square = float(np.square(values, dtype=np.float64).mean()) if len(values) else 0.0
    return 0.5 * float(np.log(max(square, NEGLIGIBLE**2)))


def _deviations(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far values (V,) are from the mean of others (N, V), in standard deviations of such a
    difference."""
    spread = np.maximum(others.std(axis=0, ddof=1), NEGLIGIBLE) * np.sqrt(1 + 1 / len(others))
    distance: np.ndarray = np.abs(values - others.mean(axis=0)) / spread
    return distance


def _of_task(task: Task, names: Sequence[str]) -> str:
    sources, target = task.label(names)
    return f"{target} from {sources}"
