"""Sections on how good the synthesis is: summary, methods compared, task matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from tsf_seq2seq.evaluation.scores import DECIMALS, HEADINGS, METRICS, Score, Summary, by_task
from tsf_seq2seq.evaluation.statistics import Comparison, Estimate, bootstrap
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Group, Table
from tsf_seq2seq.tables import interval, number, write_table

HEADING = dict(zip(METRICS, HEADINGS, strict=True))
STYLE = {metric: f".{digits}f" for metric, digits in zip(METRICS, DECIMALS, strict=True)}
SHOWN = tuple(SIGNS)  # psnr, ssim, lpips


@dataclass(frozen=True)
class MethodSummary:
    """A method at a number of inputs: per metric, mean and interval over subjects."""

    inputs: int
    method: str
    subjects: int
    pairs: int
    metrics: Mapping[str, Estimate]


def sequences_of(scores: Sequence[Score]) -> list[str]:
    """Sequences in the order in which they first stand among sources, then among targets."""
    sources = (name for score in scores for name in score.sources.split("+"))
    return list(dict.fromkeys([*sources, *(score.target for score in scores)]))


def measured(scores: Sequence[Score]) -> list[str]:
    """The metrics that were computed: LPIPS needs weights that may have been missing."""
    return [m for m in SHOWN if any(isfinite(getattr(score, m)) for score in scores)]


def summarise_methods(scores: Sequence[Score]) -> list[MethodSummary]:
    """By number of inputs, then method in order of appearance.

    A subject's tasks are averaged first; intervals are bootstrapped over subjects.
    """
    metrics, groups = measured(scores), dict[tuple[int, str], list[Score]]()
    for score in scores:
        groups.setdefault((score.n_inputs, score.method), []).append(score)
    methods = list(dict.fromkeys(score.method for score in scores))
    summaries = []
    for inputs, method in sorted(groups, key=lambda key: (key[0], methods.index(key[1]))):
        own = groups[inputs, method]
        found = {metric: bootstrap(subject_means(own, metric)) for metric in metrics}
        subjects = len({score.name for score in own})
        summaries.append(MethodSummary(inputs, method, subjects, len(own), found))
    return summaries


def subject_means(scores: Sequence[Score], metric: str) -> list[float]:
    """Each subject's mean of a metric over its tasks, those without a finite value left out."""
    subjects: dict[str, list[float]] = {}
    for score in scores:
        value = getattr(score, metric)
        if isfinite(value):
            subjects.setdefault(score.name, []).append(value)
    return [float(np.mean(values)) for values in subjects.values()]


def write_summary(path: Path, summaries: Sequence[MethodSummary]) -> None:
    """summary.csv: one row per number of inputs, method and metric."""
    columns = ["inputs", "method", "subjects", "pairs", "metric", "mean", "low", "high"]
    rows = [
        (s.inputs, s.method, s.subjects, s.pairs, metric, *found)
        for s in summaries
        for metric, found in s.metrics.items()
    ]
    write_table(path, columns, rows)


def summary_table(summaries: Sequence[MethodSummary]) -> Table:
    """Means with 95 % intervals."""
    metrics = list(summaries[0].metrics)
    rows = [
        [str(s.inputs), s.method, str(s.subjects), str(s.pairs)]
        + [interval(*s.metrics[metric], STYLE[metric]) for metric in metrics]
        for s in summaries
    ]
    headings = ["inputs", "method", "subjects", "volume pairs", *(HEADING[m] for m in metrics)]
    return Table("Mean over subjects [95 % confidence interval]", headings, rows, labels=2)


def method_charts(summaries: Sequence[MethodSummary]) -> Group:
    """One chart a metric: mean and interval over the number of inputs, a line per method."""
    found = []
    for metric in summaries[0].metrics:
        traces = []
        for colour, method in enumerate(dict.fromkeys(s.method for s in summaries)):
            own = [s for s in summaries if s.method == method]
            means, lows, highs = zip(*(s.metrics[metric] for s in own), strict=True)
            bars = charts.error_bars(means, lows, highs)
            inputs = [s.inputs for s in own]
            traces.append(charts.line(method, inputs, means, colour, error_y=bars))
        figure = charts.figure(traces, "number of inputs", HEADING[metric], xaxis={"dtick": 1})
        better = "higher" if SIGNS[metric] > 0 else "lower"
        found.append(
            Chart(
                f"methods-{metric}",
                f"{HEADING[metric]}, {better} is better",
                f"{HEADING[metric]} by number of inputs, one line per method with 95 % confidence "
                "intervals; the summary's table holds the numbers.",
                figure,
            )
        )
    return Group(found)


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Paired tests, one row a comparison."""
    rows = []
    for c in comparisons:
        style = f"+{STYLE[c.metric]}"
        cells = [interval(c.difference, c.low, c.high, style), f"{c.wins:.0%}"]
        cells += [number(c.effect, "+.2f"), f"{c.p:.2g}", f"{c.p_holm:.2g}"]
        rows.append([HEADING[c.metric], str(c.inputs), c.other, str(c.subjects), *cells])
    against = f"{comparisons[0].method} against"
    headings = ["metric", "inputs", against, "subjects", "better by [95 % interval]"]
    headings += ["better in", "effect", "p", "p (Holm)"]
    return Table("Paired differences over subjects", headings, rows, labels=3)


def task_matrix(scores: Sequence[Score], sequences: Sequence[str]) -> dict[str, Any]:
    """{sequences, rows (source sets), methods, metrics, cells}, where cells[method][metric] is
    [row][column] → [mean, standard deviation, subjects], None where the task wasn't scored.
    """
    found = by_task(scores)
    every = ["+".join(c) for n in range(1, len(sequences) + 1) for c in combinations(sequences, n)]
    scored = {str(key[0]) for key in found}
    rows = [label for label in every if label in scored]
    methods = list(dict.fromkeys(score.method for score in scores))
    metrics = measured(scores)
    cells = {
        method: {
            metric: [
                [_cell(found.get((row, target, method)), metric) for target in sequences]
                for row in rows
            ]
            for metric in metrics
        }
        for method in methods
    }
    labels = [
        {"key": m, "title": HEADING[m], "digits": DECIMALS[METRICS.index(m)]} for m in metrics
    ]
    for label in labels:
        label["sign"] = SIGNS[str(label["key"])]
    content = {"sequences": list(sequences), "rows": rows, "methods": methods}
    return content | {"metrics": labels, "cells": cells}


def _cell(summary: Summary | None, metric: str) -> list[float] | None:
    if summary is None or not isfinite(summary.mean[metric]):
        return None
    return [summary.mean[metric], summary.std[metric], summary.pairs]
