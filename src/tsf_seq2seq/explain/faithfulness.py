"""Do the fusion weights ω say what a source brings? Beside Shapley values of the metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.statistics import bootstrap
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.explain.source_values import SourceValue
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.tables import interval, markdown, number

Omegas = Mapping[tuple[str, str], Mapping[str, float]]  # (sources, target) → source → ω
STYLES = {"psnr": ".2f", "ssim": ".4f", "lpips": ".3f"}


@dataclass(frozen=True)
class Faithfulness:
    """ω beside the means over subjects, with 95 % intervals: a row of faithfulness.csv.

    `share`: the mean Shapley value as a share of the sources' sum, which compares with ω; the rest
    as in shapley.csv.
    """

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
    groups: dict[tuple[str, str], dict[str, list[SourceValue]]] = {}
    for value in values:
        sources = groups.setdefault((value.target, value.metric), {})
        sources.setdefault(value.source, []).append(value)
    rows = []
    for (target, metric), sources in groups.items():
        weights = omega.get((target, frozenset(sources)))
        if weights is None:
            raise UserError(f"the fusion weights have no task {'+'.join(sources)} → {target}")
        total = sum(float(np.mean([v.shapley for v in own])) for own in sources.values())
        for source, own in sources.items():
            mean = bootstrap([v.shapley for v in own])
            lost = bootstrap([v.leave_one_out for v in own])
            alone = bootstrap([v.alone for v in own])
            key = target, source, metric, len(own), weights[source]
            rows.append(
                Faithfulness(*key, mean.mean / total if total else nan, *mean, *lost, *alone)
            )
    return rows


def agreements(rows: Sequence[Faithfulness]) -> list[Agreement]:
    """Rank correlations of ω per target and metric, and of all targets.

    Descriptive: a target with three sources has three numbers to rank.
    """
    found = []
    for metric in dict.fromkeys(row.metric for row in rows):
        of_metric = [row for row in rows if row.metric == metric]
        targets = [
            _agreement(target, [row for row in of_metric if row.target == target])
            for target in dict.fromkeys(row.target for row in of_metric)
        ]
        pooled = rank_correlation(
            np.array([row.omega for row in of_metric]), np.array([row.share for row in of_metric])
        )
        lost = _finite_mean([own.leave_one_out for own in targets])
        alone = _finite_mean([own.alone for own in targets])
        same = _finite_mean([own.same_first for own in targets])
        found += [*targets, Agreement("all", metric, len(of_metric), pooled, lost, alone, same)]
    return found


def faithfulness_markdown(rows: Sequence[Faithfulness], found: Sequence[Agreement]) -> str:
    """ω beside Shapley values, a table per metric, and the rank correlations."""
    texts = []
    for metric in dict.fromkeys(row.metric for row in rows):
        style = STYLES[metric]
        cells = [["target", "source", "ω", "Shapley's share", f"Shapley ({metric})"]]
        cells[0] += ["lost without it", "alone", "subjects"]
        for r in (row for row in rows if row.metric == metric):
            signed = "+" + style
            numbers = [number(r.omega), number(r.share)]
            numbers += [interval(r.shapley, r.shapley_low, r.shapley_high, signed)]
            lost = r.leave_one_out, r.leave_one_out_low, r.leave_one_out_high
            numbers += [interval(*lost, signed)]
            numbers += [interval(r.alone, r.alone_low, r.alone_high, style)]
            cells.append([r.target, r.source, *numbers, str(r.subjects)])
        texts.append(markdown(cells))
    cells = [["metric", "target", "pairs", "ω and Shapley", "ω and lost", "ω and alone"]]
    cells[0].append("same first")
    for a in found:
        ranks = [number(rho, "+.2f") for rho in (a.shapley, a.leave_one_out, a.alone)]
        cells.append([a.metric, a.target, str(a.pairs), *ranks, f"{a.same_first:.0%}"])
    texts.append("Spearman's rank correlations, which three sources allow only to describe:")
    return "\n\n".join([*texts, markdown(cells)])


def _agreement(target: str, rows: Sequence[Faithfulness]) -> Agreement:
    """Of one target; for LPIPS, a low value of a source alone is good."""
    sign = SIGNS[rows[0].metric]
    omega = np.array([row.omega for row in rows])
    shapley = np.array([row.shapley for row in rows])
    lost = np.array([row.leave_one_out for row in rows])
    alone = sign * np.array([row.alone for row in rows])
    same = float(omega.argmax() == shapley.argmax())
    return Agreement(
        target,
        rows[0].metric,
        len(rows),
        rank_correlation(omega, shapley),
        rank_correlation(omega, lost),
        rank_correlation(omega, alone),
        same,
    )


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else nan
