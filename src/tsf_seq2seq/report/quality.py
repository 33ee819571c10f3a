"""How good the synthesis is: charts of methods and regions, and the task matrix."""

from collections.abc import Sequence
from itertools import combinations
from math import isfinite
from typing import Any

from tsf_seq2seq.evaluation.scores import (
    METRICS,
    PSNR,
    Score,
    Summary,
    by_task,
    measured_metrics,
    methods_of,
)
from tsf_seq2seq.evaluation.statistics import MethodMean
from tsf_seq2seq.evaluation.tumour import RegionMeans
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Group
from tsf_seq2seq.tables import group_by


def method_charts(means: Sequence[MethodMean]) -> Group:
    """One chart a metric: mean and interval over the number of inputs, a line per method."""
    found = []
    for key, own in group_by(means, lambda row: row.metric).items():
        metric = METRICS[key]
        lines = {
            method: [(row.inputs, row.mean, row.low, row.high) for row in rows]
            for method, rows in group_by(own, lambda row: row.method).items()
        }
        better = "higher" if metric.sign > 0 else "lower"
        found.append(
            Chart(
                f"methods-{key}",
                f"{metric.heading}, {better} is better",
                f"{metric.heading} by number of inputs, one line per method with 95 % confidence "
                "intervals; the summary's table holds the numbers.",
                charts.inputs_figure(lines, metric.heading),
            )
        )
    return Group(found)


def region_chart(means: Sequence[RegionMeans]) -> Chart:
    """PSNR and interval over the number of inputs, a line per region."""
    lines = {
        region: [(row.inputs, *row.metrics[PSNR.key]) for row in own]
        for region, own in group_by(means, lambda row: row.region).items()
    }
    words = "PSNR by number of inputs, one line per region; the table below holds the numbers."
    figure = charts.inputs_figure(lines, PSNR.heading)
    return Chart("tumour-psnr", "PSNR inside and outside the tumour", words, figure)


def task_matrix(scores: Sequence[Score], sequences: Sequence[str]) -> dict[str, Any]:
    """{sequences, rows (source sets), methods, metrics, cells}, where cells[method][metric] is
    [row][column] → [mean, standard deviation, subjects], None where the task wasn't scored.
    """
    found = by_task(scores)
    every = ["+".join(c) for n in range(1, len(sequences) + 1) for c in combinations(sequences, n)]
    scored = {key[0] for key in found}
    rows = [label for label in every if label in scored]
    methods, metrics = methods_of(scores), measured_metrics(scores)
    cells = {
        method: {
            metric.key: [
                [_cell(found.get((row, target, method)), metric.key) for target in sequences]
                for row in rows
            ]
            for metric in metrics
        }
        for method in methods
    }
    labels = [
        {"key": m.key, "title": m.heading, "digits": m.decimals, "sign": m.sign} for m in metrics
    ]
    return {
        "sequences": list(sequences),
        "rows": rows,
        "methods": methods,
        "metrics": labels,
        "cells": cells,
    }


def _cell(summary: Summary | None, metric: str) -> list[float] | None:
    if summary is None or not isfinite(summary.mean[metric]):
        return None
    return [summary.mean[metric], summary.std[metric], summary.pairs]
