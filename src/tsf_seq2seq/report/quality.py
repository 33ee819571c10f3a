"""How good the synthesis is: charts of methods and regions, and the task matrix."""

from collections.abc import Sequence
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np

from tsf_seq2seq.evaluation.scores import (
    METRICS,
    Metric,
    Score,
    Summary,
    by_task,
    measured_metrics,
    methods_of,
)
from tsf_seq2seq.evaluation.statistics import Means
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Drawn
from tsf_seq2seq.tables import group_by


def method_charts(means: Sequence[Means]) -> Drawn:
    """One chart a metric: mean and interval over the number of inputs, a line per method."""
    metrics = [METRICS[key] for key in means[0].metrics]
    charts_of = [inputs_chart(means, f"methods-{m.key}", m, "method") for m in metrics]
    return Drawn("group", charts_of)


def inputs_chart(means: Sequence[Means], identifier: str, metric: Metric, what: str) -> Chart:
    """A metric by number of inputs, a line per `what`: the second part of the means' keys."""
    traces = []
    groups = group_by(means, lambda row: row.key[1])
    for colour, (name, own) in enumerate(groups.items()):
        points = [row.metrics[metric.key] for row in own]
        bars = charts.error_bars(*map(np.array, zip(*points, strict=True)))
        inputs, values = [row.key[0] for row in own], [point.mean for point in points]
        traces.append(charts.line(name, inputs, values, colour, error_y=bars))
    return Chart(
        identifier,
        metric.title,
        f"{metric.heading} by number of inputs, one line per {what} with 95 % confidence "
        "intervals; the table holds the numbers.",
        charts.figure(
            *(traces, "number of inputs", metric.heading),
            **charts.room_for_names(len(traces)),
            xaxis={"dtick": 1},
        ),
    )


def task_matrix(scores: Sequence[Score], sequences: Sequence[str]) -> dict[str, Any]:
    """{sequences, rows (source sets), methods, metrics, cells}, where cells[method][metric] is
    [row][column] → [mean, standard deviation, subjects], None where the task wasn't scored.
    """
    found = by_task(scores)
    every = ["+".join(c) for n in range(1, len(sequences) + 1) for c in combinations(sequences, n)]
    scored = {key[0] for key in found}
    rows = [label for label in every if label in scored]
    methods, metrics = methods_of(scores), measured_metrics(scores)

    def cells(method: str, metric: str) -> list[list[list[float] | None]]:
        own = {key[:2]: summary for key, summary in found.items() if key[2] == method}
        return [[_cell(own.get((row, to)), metric) for to in sequences] for row in rows]

    return {
        "sequences": list(sequences),
        "rows": rows,
        "methods": methods,
        "metrics": [
            {"key": m.key, "title": m.heading, "digits": m.decimals, "sign": m.sign}
            for m in metrics
        ],
        "cells": {name: {m.key: cells(name, m.key) for m in metrics} for name in methods},
    }


def _cell(summary: Summary | None, metric: str) -> list[float] | None:
    if summary is None or not isfinite(summary.mean[metric]):
        return None
    return [summary.mean[metric], summary.std[metric], summary.pairs]
