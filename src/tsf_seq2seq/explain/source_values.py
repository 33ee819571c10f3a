"""What every source brings to every target, per subject: Shapley values of the metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import COMPARED, Metric, Score, examined_method
from tsf_seq2seq.explain.shapley import coalitions, leave_one_out, shapley_values
from tsf_seq2seq.models.base import WITHOUT_ATTENTION
from tsf_seq2seq.synthesis.synthesizers import MEAN_IMAGE

ScoresOfSubject = dict[tuple[frozenset[str], str], Score]  # sources and target → score


@dataclass(frozen=True)
class SourceValue:
    """What a source brings to a subject's synthesis of a target: a row of shapley.csv.

    `shapley` and `leave_one_out` are differences of the metric, positive where the source helps
    (LPIPS's sign is turned); the rest are the metric itself: of the source alone, of all sources,
    and of none, which is the training subjects' mean image.
    """

    LABELS: ClassVar[int] = 4
    name: str
    target: str
    source: str
    metric: str
    shapley: float
    leave_one_out: float
    alone: float
    all_sources: float
    no_source: float


def without_attention(method: str) -> str:
    """What the ablation of a method, its network without f_A, is called."""
    return f"{method}_{WITHOUT_ATTENTION}"


def source_values(
    scores: Sequence[Score], sequences: Sequence[str], method: str | None = None
) -> list[SourceValue]:
    """Shapley value, leave-one-out drop and quality alone of every source, per subject.

    Of `method`, else the first. The players for a target are all other `sequences`; the subjects,
    those with scores of all source sets. Raises UserError where there are none.
    """
    method = examined_method(scores, method)
    subjects: dict[str, ScoresOfSubject] = {}
    for score in scores:
        if score.method in (method, MEAN_IMAGE):
            sources = frozenset(score.sources.split("+") if score.method == method else ())
            subjects.setdefault(score.name, {})[sources, score.target] = score
    values = [
        value
        for metric in COMPARED
        for target in sequences
        for value in _of_target(subjects, sequences, target, metric)
    ]
    if not values:
        raise UserError(
            f"no subject has scores of {method} from all source sets and of {MEAN_IMAGE}: evaluate "
            f"with --all-tasks, and with {without_attention(method)} and {MEAN_IMAGE} among the "
            "methods"
        )
    return values


def _of_target(
    subjects: Mapping[str, ScoresOfSubject], sequences: Sequence[str], target: str, metric: Metric
) -> Iterator[SourceValue]:
    """One metric and target: all subjects that have every coalition's score."""
    sources = [name for name in sequences if name != target]
    sets = coalitions(frozenset(sources))
    games = {
        name: np.array([metric.of(own.get((members, target))) for members in sets])
        for name, own in subjects.items()
    }
    games = {name: values for name, values in games.items() if np.isfinite(values).all()}
    if not games:
        return
    raw = np.array(list(games.values()))  # (subjects, sets)
    game = dict(zip(sets, (metric.sign * raw).T, strict=True))
    shapley, lost = shapley_values(game), leave_one_out(game)
    for row, name in enumerate(games):
        for source in sources:
            alone = float(raw[row, sets.index(frozenset([source]))])
            brought = float(shapley[source][row]), float(lost[source][row])
            ends = alone, float(raw[row, -1]), float(raw[row, 0])
            yield SourceValue(name, target, source, metric.key, *brought, *ends)
