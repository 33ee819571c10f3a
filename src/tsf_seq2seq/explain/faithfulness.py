"""Do the fusion weights ω say what a source brings? Beside Shapley values of the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import METRICS
from tsf_seq2seq.evaluation.statistics import INTERVALS, bootstrap
from tsf_seq2seq.explain.fusion_weights import Omegas
from tsf_seq2seq.explain.source_values import SourceValue
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.tables import Table, cell_text, group_by


@dataclass(frozen=True)
class Faithfulness:
    """ω beside the means over subjects, with 95 % intervals: a row of faithfulness.csv.

    `share`: the mean Shapley value as a share of the sources' sum, which compares with ω; the rest
    as in shapley.csv.
    """

    LABELS: ClassVar[int] = 3
    target: str
    source: str
    metric: str
    subjects: int
    omega: float
    share: float
    shapley: float
    shapley_low: float
    shapley_high: float
    leave_one_out: float
    leave_one_out_low: float
    leave_one_out_high: float
    alone: float
    alone_low: float
    alone_high: float


@dataclass(frozen=True)
class Agreement:
    """How ω orders sources, against how what they bring does: a row of agreement.csv.

    Spearman's correlations of ω with each quantity over the sources of a target; the row "all"
    takes the (source, target) pairs of all targets together, ω against Shapley's shares, and means
    of the targets' correlations for the others, whose units differ between targets. `same_first`:
    whether (of "all": in what share of the targets) ω and Shapley put the same source first.
    """

    LABELS: ClassVar[int] = 2
    target: str
    metric: str
    pairs: int
    shapley: float
    leave_one_out: float
    alone: float
    same_first: float


def faithfulness(values: Sequence[SourceValue], fusion_weights: Omegas) -> list[Faithfulness]:
    """Means over subjects beside the ω of the task with all sources; UserError where it lacks."""
    omega = {
        (target, frozenset(sources.split("+"))): weights
        for (sources, target), weights in fusion_weights.items()
    }
    rows = []
    for (target, metric), group in group_by(values, lambda v: (v.target, v.metric)).items():
        sources = group_by(group, lambda value: value.source)
        weights = omega.get((target, frozenset(sources)))
        if weights is None:
            raise UserError(f"the fusion weights have no task {'+'.join(sources)} → {target}")
        total = sum(float(np.mean([v.shapley for v in own])) for own in sources.values())
        for source, own in sources.items():
            mean = bootstrap([v.shapley for v in own])
            lost = bootstrap([v.leave_one_out for v in own])
            alone = bootstrap([v.alone for v in own])
            key = target, source, metric, len(own), weights[source]
            share = mean.mean / total if total else nan
            rows.append(Faithfulness(*key, share, *mean, *lost, *alone))
    return rows


def agreements(rows: Sequence[Faithfulness]) -> list[Agreement]:
    """Rank correlations of ω per target and metric, and of all targets.

    Descriptive: a target with three sources has three numbers to rank.
    """
    found = []
    for metric, own in group_by(rows, lambda row: row.metric).items():
        targets = [_agreement(group) for group in group_by(own, lambda row: row.target).values()]
        lost, alone, same = (
            _finite_mean([getattr(target, field) for target in targets])
            for field in ("leave_one_out", "alone", "same_first")
        )
        pooled = _correlation_with_omega(own, "share")
        found += [*targets, Agreement("all", metric, len(own), pooled, lost, alone, same)]
    return found


def faithfulness_table(rows: Sequence[Faithfulness], target: str) -> Table:
    """ω of a target's sources beside what they bring to it."""
    cells = []
    for row in (row for row in rows if row.target == target):
        metric = METRICS[row.metric]
        numbers = [
            metric.difference(row.shapley, row.shapley_low, row.shapley_high),
            metric.difference(row.leave_one_out, row.leave_one_out_low, row.leave_one_out_high),
            metric.text(row.alone, row.alone_low, row.alone_high),
        ]
        key = row.source, metric.heading, row.omega, row.share
        cells.append([*key, *numbers, row.subjects])
    headings = ["source", "metric", "ω", "Shapley's share", "Shapley value", "lost without it"]
    return Table(
        f"What each source brings to {target}: Shapley values, and what is lost when only it is "
        f"missing, positive where it helps (LPIPS's sign is turned). {INTERVALS}.",
        [*headings, "alone", "subjects"],
        cells,
        labels=2,
    )


def agreement_table(rows: Sequence[Agreement]) -> Table:
    """Rank correlations of ω with what the sources bring."""
    cells = []
    for row in rows:
        ranks = [cell_text(r, "+.2f") for r in (row.shapley, row.leave_one_out, row.alone)]
        key = row.target, METRICS[row.metric].heading, row.pairs
        cells.append([*key, *ranks, f"{row.same_first:.0%}"])
    headings = ["target", "metric", "pairs", "ω and Shapley", "ω and lost without", "ω and alone"]
    return Table(
        "Does ω order the sources as what they bring does? Spearman's rank correlations, which "
        "three sources allow only to describe.",
        [*headings, "same source first"],
        cells,
        labels=2,
    )


def faithfulness_markdown(rows: Sequence[Faithfulness], found: Sequence[Agreement]) -> str:
    """ω beside what sources bring, a table per target, and the rank correlations."""
    tables = [faithfulness_table(rows, target) for target in group_by(rows, lambda row: row.target)]
    return "\n\n".join(table.markdown() for table in [*tables, agreement_table(found)])


def _agreement(rows: Sequence[Faithfulness]) -> Agreement:
    """Of one target; for LPIPS, a low value of a source alone is good."""
    first, sign = rows[0], METRICS[rows[0].metric].sign
    correlations = (
        _correlation_with_omega(rows, "shapley"),
        _correlation_with_omega(rows, "leave_one_out"),
        sign * _correlation_with_omega(rows, "alone"),
    )
    best = (max(rows, key=lambda row: getattr(row, field)) for field in ("omega", "shapley"))
    same = len({row.source for row in best}) == 1
    return Agreement(first.target, first.metric, len(rows), *correlations, float(same))


def _correlation_with_omega(rows: Sequence[Faithfulness], field: str) -> float:
    omega = np.array([row.omega for row in rows])
    return rank_correlation(omega, np.array([getattr(row, field) for row in rows]))


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else nan
