"""Charts of what explains the network: fusion weights, Shapley values, TSEM."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import METRICS
from tsf_seq2seq.explain.error_estimation import CalibrationRow
from tsf_seq2seq.explain.error_summary import (
    ESTIMATORS_SHOWN,
    calibration_means,
    calibration_table,
    estimator_rank,
    shown_estimator,
)
from tsf_seq2seq.explain.faithfulness import Faithfulness, faithfulness_table
from tsf_seq2seq.explain.fusion_weights import Omegas, fusion_weight_table
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart
from tsf_seq2seq.tables import group_by

BAR_PIXELS = 24


def fusion_chart(weights: Omegas, sequences: Sequence[str], target: str) -> Chart:
    """Stacked bars of ω for every source set of a target: the paper's Fig. 3."""
    tasks = {
        sources: {name: own[name] for name in sources.split("+")}
        for (sources, of), own in weights.items()
        if of == target
    }
    traces = []
    for colour, name in enumerate(sequences):
        values = [own.get(name) for own in tasks.values()]
        if any(value is not None for value in values):
            more = {"orientation": "h", "hovertemplate": "%{y}: %{x:.3f}"}
            traces.append(charts.bars(name, values, list(tasks), colour, **more))
    height = 130 + BAR_PIXELS * len(tasks)
    layout = {"barmode": "stack", "legend": {"traceorder": "normal"}}
    axes = {"xaxis": {"range": [0, 1]}, "yaxis": {"autorange": "reversed", "title": {"text": ""}}}
    figure = charts.figure(traces, "fusion weight ω", "", height, **layout, **axes)
    return Chart(
        f"fusion-{sequences.index(target)}",
        f"→ {target}: fusion weights of every source set",
        f"Stacked bars: what each source contributes to {target}, for every source set. The table "
        "below holds the numbers.",
        figure,
        fusion_weight_table(weights, sequences, target),
    )


def shapley_chart(rows: Sequence[Faithfulness], sequences: Sequence[str], target: str) -> Chart:
    """ω of the task from all sources beside each source's share of the Shapley values."""
    own = sorted(
        (row for row in rows if row.target == target), key=lambda row: sequences.index(row.source)
    )
    omega = {row.source: row.omega for row in own}
    traces = [charts.bars("ω", list(omega), charts.numbers(list(omega.values())), 0)]
    for colour, (metric, of) in enumerate(group_by(own, lambda row: row.metric).items(), start=1):
        values = charts.numbers([row.share for row in of])
        name = f"Shapley's share, {METRICS[metric].heading}"
        traces.append(charts.bars(name, [row.source for row in of], values, colour))
    return Chart(
        f"shapley-{sequences.index(target)}",
        f"→ {target}: ω beside Shapley values",
        f"Bars: for each source of {target}, its fusion weight and its share of the gain in "
        "quality by Shapley values. The table below holds the numbers.",
        charts.figure(traces, "source", "share", barmode="group"),
        faithfulness_table(own, target),
    )


def sparsification_chart(path: Path) -> Chart:
    """Curves of sparsification.json, mean over the tasks that every estimator has."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        removed, tasks = content["removed"], [task["curves"] for task in content["tasks"]]
        most = max(len(curves) for curves in tasks)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no sparsification curves ({error!r})") from None
    tasks = [curves for curves in tasks if len(curves) == most]
    traces = []
    for colour, order in enumerate(sorted(tasks[0], key=estimator_rank)):
        mean = np.mean([curves[order] for curves in tasks], axis=0)
        traces.append(charts.line(shown_estimator(order), removed, list(mean), colour))
    traces.append(
        charts.line(ESTIMATORS_SHOWN["random"], removed, [1.0] * len(removed), len(traces))
    )
    figure = charts.figure(traces, "share of voxels removed", "mean error left (1 = all)", 380)
    return Chart(
        "sparsification",
        "Sparsification: how fast the error falls when the voxels marked worst are taken away",
        "Lines: mean error of the voxels that remain, for the order of each estimator, of the "
        f"error itself and of chance; mean over {len(tasks)} tasks. A good estimator lies near the "
        "error's own line.",
        figure,
    )


def calibration_chart(parts: Sequence[CalibrationRow]) -> Chart:
    """Mean error over mean estimate in ten equal parts of the voxels, mean over volumes."""
    traces = []
    for name, tenths in group_by(calibration_means(parts), lambda row: row[0]).items():
        x, y = [row[2] for row in tenths], [row[3] for row in tenths]
        traces.append(charts.line(shown_estimator(name), x, y, estimator_rank(name)))
    axis = {"rangemode": "tozero"}
    return Chart(
        "calibration",
        "Calibration: the error where an estimate is small and where it is large",
        "Lines: the brain voxels of a volume in ten equal parts by rising estimate, mean error "
        "over mean estimate; the table below holds the numbers.",
        charts.figure(traces, "mean estimate", "mean error", 380, xaxis=axis),
        calibration_table(parts),
    )
