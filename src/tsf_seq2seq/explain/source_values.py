"""What every source brings to every target, per subject: Shapley values of the metrics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.explain.shapley import Coalition, coalitions, leave_one_out, shapley_values

FULL, PLAIN, EMPTY = "tsf", "tsf_without_attention", "mean_image"


@dataclass(frozen=True)
class SourceValue:
    """What a source brings to a subject's synthesis of a target: a row of shapley.csv.

    `shapley` and `leave_one_out` are differences of the metric, positive where the source helps
    (LPIPS's sign is turned); the rest are the metric itself: of the source alone, of all sources,
    and of none, which is the training subjects' mean image.
    """

    name: str
    target: str
    source: str
    metric: str
    shapley: float
    leave_one_out: float
    alone: float
    all_sources: float
    no_source: float


class Key(NamedTuple):
    """What a score is of; the mean image has no sources."""

    method: str
    name: str
    sources: Coalition
    target: str


def score_table(scores: Iterable[Score], metric: str) -> dict[Key, float]:
    """The finite scores of one metric."""
    table = {}
    for score in scores:
        sources = score.sources.split("+") if score.method != EMPTY else ()
        value = getattr(score, metric)
        if isfinite(value):
            table[Key(score.method, score.name, frozenset(sources), score.target)] = value
    return table


def source_values(scores: Sequence[Score], sequences: Sequence[str]) -> list[SourceValue]:
    """Shapley value, leave-one-out drop and quality alone of every source, per subject.

    The players for a target are all other `sequences`; the subjects, those with scores of all
    source sets. Raises UserError where there are none.
    """
    values = []
    for metric, sign in SIGNS.items():
        table = score_table(scores, metric)
        names = list(dict.fromkeys(score.name for score in scores))
        for target in sequences:
            sources = [name for name in sequences if name != target]
            values += _of_target(table, names, sources, target, metric, sign)
    if not values:
        raise UserError(
            f"no subject has scores of {FULL} from all source sets and of {EMPTY}: evaluate with "
            f"--all-tasks --methods {FULL} {PLAIN} {EMPTY}"
        )
    return values


def _of_target(
    table: dict[Key, float],
    names: Sequence[str],
    sources: Sequence[str],
    target: str,
    metric: str,
    sign: int,
) -> list[SourceValue]:
    """One metric and target: all subjects that have every coalition's score."""
    sets = coalitions(frozenset(sources))
    keys = {
        name: [Key(FULL if members else EMPTY, name, members, target) for members in sets]
        for name in names
    }
    complete = [name for name in names if all(key in table for key in keys[name])]
    if not complete:
        return []
    raw = np.array([[table[key] for key in keys[name]] for name in complete])  # (subjects, sets)
    game = dict(zip(sets, (sign * raw).T, strict=True))
    shapley, lost = shapley_values(game), leave_one_out(game)
    values = []
    for row, name in enumerate(complete):
        for source in sources:
            alone = float(raw[row, sets.index(frozenset([source]))])
            brought = float(shapley[source][row]), float(lost[source][row])
            ends = alone, float(raw[row, -1]), float(raw[row, 0])
            values.append(SourceValue(name, target, source, metric, *brought, *ends))
    return values
