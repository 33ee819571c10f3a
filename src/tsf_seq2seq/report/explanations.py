"""Sections on the explanations: what sources contribute, and what TSEM says of the error."""

from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import METRICS, check_metric
from tsf_seq2seq.explain.attention_gain import AttentionGain, attention_gain_table
from tsf_seq2seq.explain.contributions import contribution_share_table, read_contributions
from tsf_seq2seq.explain.error_estimation import CalibrationRow, ErrorMapRow, ErrorRow
from tsf_seq2seq.explain.error_summary import (
    ESTIMATORS_SHOWN,
    MEANINGS,
    calibration_means,
    calibration_table,
    error_map_table,
    error_tables,
    estimator_rank,
    shown_estimator,
)
from tsf_seq2seq.explain.faithfulness import (
    Agreement,
    Faithfulness,
    agreement_table,
    faithfulness_table,
)
from tsf_seq2seq.explain.fusion_weights import Omegas, fusion_weight_table, read_fusion_csv
from tsf_seq2seq.explain.share_agreement import ShareAgreement, share_agreement_table
from tsf_seq2seq.explain.tsem import Finding, finding_table
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Block, Chart, Drawn, Section
from tsf_seq2seq.report.error_map_charts import coverage_chart, expected_psnr_chart
from tsf_seq2seq.report.inputs import ReportSources, read_json
from tsf_seq2seq.tables import group_by, read_rows

EXPLAIN = "src/explain/seq2seq"
BAR_PIXELS = 24


def contributions(sources: ReportSources) -> Section:
    """Fusion weights, beside them Shapley values, and what f_A brings."""
    text, blocks, notes, files = [], list[Block](), [], []
    path = sources.take("fusion_weights", "fusion_weights.csv")
    if path is None:
        notes.append(f"Fusion weights are left out: {EXPLAIN}/fusion_weights.py makes them.")
    else:
        weights = read_fusion_csv(path)
        names = _ordered(sources, (n for task, to in weights for n in (to, *task.split("+"))))
        targets = [name for name in names if name in {target for _, target in weights}]
        blocks.append(Drawn("group", [fusion_chart(weights, names, t) for t in targets]))
        files.append(path.name)
        text.append("ω: the weights of the fusion's average; they sum to one over a source set.")
    path = sources.take("trust", "faithfulness.csv")
    if path is None:
        notes.append(f"Shapley values are left out: {EXPLAIN}/faithfulness.py makes them.")
    else:
        rows = read_rows(path, Faithfulness, check=check_metric)
        names = _ordered(sources, (name for row in rows for name in (row.target, row.source)))
        targets = [name for name in names if name in {row.target for row in rows}]
        blocks.append(Drawn("group", [shapley_chart(rows, names, t) for t in targets]))
        files.append(path.name)
        text.append(
            "Shapley values: what a source brings to the quality of the synthesis, averaged over "
            "all orders in which sources may arrive; shares add up to one over a target's sources."
        )
    if path := sources.take("trust", "agreement.csv"):
        blocks.append(agreement_table(read_rows(path, Agreement, check=check_metric)))
        files.append(path.name)
    if path := sources.take("trust", "attention_gain.csv"):
        blocks.append(attention_gain_table(read_rows(path, AttentionGain, check=check_metric)))
        files.append(path.name)
    if path := sources.take("trust", "contributions.csv"):
        rows_of_shares = read_contributions(path)
        names = _ordered(sources, (n for r in rows_of_shares for n in (r.target, r.source)))
        blocks.append(contribution_share_table(rows_of_shares, names))
        files.append(path.name)
    if path := sources.take("trust", "share_agreement.csv"):
        orders = read_rows(path, ShareAgreement, check=check_metric)
        blocks.append(share_agreement_table(orders))
        files.append(path.name)
    title, note = "What each source contributes", " ".join(notes)
    return Section("contributions", title, text, blocks, note, files)


def error_estimation(sources: ReportSources) -> Section:
    """TSEM, error map and others as estimates of the error."""
    title = "Do maps show where the error is?"
    path = sources.take("trust", "error_estimation.csv")
    if path is None:
        path = sources.take("tsem", "tsem.csv")
        note = f"Curves and rival estimates are left out: {EXPLAIN}/error_estimation.py makes them."
        if path is None:
            return Section("tsem", title, note=note)
        table = finding_table(read_rows(path, Finding))
        return Section("tsem", title, (), [table], note, [path.name])
    tables, files, shown = error_tables(read_rows(path, ErrorRow)), [path.name], list[Chart]()
    if path := sources.take("trust", "sparsification.json"):
        shown.append(sparsification_chart(path))
        files.append(path.name)
    if path := sources.take("trust", "calibration.csv"):
        shown.append(calibration_chart(read_rows(path, CalibrationRow)))
        files.append(path.name)
    if (path := sources.take("trust", "error_map.csv")) and (rows := read_rows(path, ErrorMapRow)):
        tables.insert(0, error_map_table(rows))
        banded = [row for row in rows if isfinite(row.within_90)]  # too few calibrate none
        shown += [coverage_chart(banded)] if banded else []
        shown.append(expected_psnr_chart(rows))
        files.append(path.name)
    text = [
        "TSEM, the map of what the attention residual changes, the error map, which was trained to "
        "tell the error, and others that need no target either: how well each orders a brain's "
        "voxels by their error.",
        MEANINGS,
    ]
    blocks: list[Block] = [Drawn("group", shown), *tables] if shown else [*tables]
    return Section("tsem", title, text, blocks, files=files)


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
    content = read_json(path)
    try:
        removed = np.array(content["removed"], float)
        tasks = [dict(task["curves"]) for task in content["tasks"]]
        most = max(len(curves) for curves in tasks)
        tasks = [curves for curves in tasks if len(curves) == most]
        means = {
            order: np.mean([np.array(curves[order], float) for curves in tasks], axis=0)
            for order in sorted(tasks[0], key=estimator_rank)
        }
        if any(mean.shape != removed.shape or mean.ndim != 1 for mean in means.values()):
            raise ValueError("curves and shares removed differ in length")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no sparsification curves ({error!r})") from None
    traces = []
    for colour, (order, mean) in enumerate(means.items()):
        traces.append(charts.line(shown_estimator(order), removed.tolist(), list(mean), colour))
    chance = [1.0] * len(removed)
    traces.append(charts.line(ESTIMATORS_SHOWN["random"], removed.tolist(), chance, len(traces)))
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


def _ordered(sources: ReportSources, found: Iterable[str]) -> list[str]:
    """The sequences found: in the report's order, then in that of their appearance."""
    found = list(found)
    return [name for name in dict.fromkeys([*sources.sequences, *found]) if name in found]
