"""Charts and tables of what explains the network: fusion weights, Shapley values, TSEM."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.explain.error_estimation import BRAIN, CalibrationRow, ErrorRow
from tsf_seq2seq.explain.error_summary import over_subjects
from tsf_seq2seq.explain.faithfulness import Agreement, Faithfulness
from tsf_seq2seq.explain.tsem import Finding
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Table
from tsf_seq2seq.report.quality import HEADING, STYLE
from tsf_seq2seq.tables import interval, number

Weights = Mapping[tuple[str, str], Mapping[str, float]]  # (sources, target) → source → ω
BAR_PIXELS = 24
TITLES = {"tsem": "TSEM", "gradient": "gradient of the synthesis", "oracle": "the error itself"}
TITLES |= {"disagreement": "disagreement of source sets", "random": "random order"}


def fusion_chart(weights: Weights, sequences: Sequence[str], target: str) -> Chart:
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
    rows = [
        [sources, *(number(own[n]) if n in own else "–" for n in sequences)]
        for sources, own in tasks.items()
    ]
    return Chart(
        f"fusion-{sequences.index(target)}",
        f"→ {target}: fusion weights of every source set",
        f"Stacked bars: what each source contributes to {target}, for every source set. The table "
        "below holds the numbers.",
        figure,
        Table(f"Fusion weights ω, target {target}", ["sources", *sequences], rows),
    )


def shapley_chart(rows: Sequence[Faithfulness], sequences: Sequence[str], target: str) -> Chart:
    """ω of the task from all sources beside each source's share of the Shapley values."""
    own = sorted(
        (row for row in rows if row.target == target), key=lambda row: sequences.index(row.source)
    )
    omega = {row.source: row.omega for row in own}
    traces = [charts.bars("ω", list(omega), charts.numbers(list(omega.values())), 0)]
    for colour, metric in enumerate(SIGNS, start=1):
        shares = {row.source: row.share for row in own if row.metric == metric}
        if shares:
            values = charts.numbers(list(shares.values()))
            name = f"Shapley's share, {metric.upper()}"
            traces.append(charts.bars(name, list(shares), values, colour))
    return Chart(
        f"shapley-{sequences.index(target)}",
        f"→ {target}: ω beside Shapley values",
        f"Bars: for each source of {target}, its fusion weight and its share of the gain in "
        "quality by Shapley values. The table below holds the numbers.",
        charts.figure(traces, "source", "share", barmode="group"),
        _shapley_table(own, target),
    )


def _shapley_table(rows: Sequence[Faithfulness], target: str) -> Table:
    cells = []
    for row in rows:
        signed = f"+{STYLE[row.metric]}"
        shapley = interval(row.shapley, row.shapley_low, row.shapley_high, signed)
        lost = interval(row.leave_one_out, row.leave_one_out_low, row.leave_one_out_high, signed)
        numbers = [number(row.omega), number(row.share), shapley, lost]
        cells.append([row.source, HEADING[row.metric], *numbers, str(row.subjects)])
    headings = ["source", "metric", "ω", "Shapley's share", "Shapley value [95 %]"]
    return Table(
        f"What each source brings to {target}",
        [*headings, "lost without it [95 %]", "subjects"],
        cells,
        labels=2,
    )


def agreement_table(rows: Sequence[Agreement]) -> Table:
    """Rank correlations of ω with what the sources bring."""
    cells = []
    for row in rows:
        ranks = [number(r, "+.2f") for r in (row.shapley, row.leave_one_out, row.alone)]
        cells.append([row.target, HEADING[row.metric], *ranks, f"{row.same_first:.0%}"])
    headings = ["target", "metric", "ω and Shapley", "ω and lost without", "ω and alone"]
    caption = "Does ω order the sources as their contributions do? Spearman's rank correlation"
    return Table(caption, [*headings, "same source first"], cells, labels=2)


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
    for colour, order in enumerate(sorted(tasks[0], key=_rank)):
        mean = np.mean([curves[order] for curves in tasks], axis=0)
        traces.append(charts.line(TITLES.get(order, order), removed, list(mean), colour))
    traces.append(charts.line(TITLES["random"], removed, [1.0] * len(removed), len(traces)))
    figure = charts.figure(traces, "share of voxels removed", "mean error left (1 = all)", 380)
    return Chart(
        "sparsification",
        "Sparsification: how fast the error falls when the voxels marked worst are taken away",
        "Lines: mean error of the voxels that remain, for the order of each estimator, of the "
        f"error itself and of chance; mean over {len(tasks)} tasks. A good estimator lies near the "
        "error's own line.",
        figure,
    )


def _rank(order: str) -> int:
    known = ("oracle", "tsem", "disagreement", "gradient")
    return known.index(order) if order in known else len(known)


def calibration_chart(parts: Sequence[CalibrationRow]) -> Chart:
    """Mean error over mean estimate in ten equal parts of the voxels, mean over volumes."""
    traces, cells = [], []
    parts = [part for part in parts if "+" in part.sources] or parts  # all estimates exist for them
    for colour, estimator in enumerate(sorted({p.estimator for p in parts}, key=_rank), start=1):
        tenths = [
            np.mean(
                [(p.mean_estimate, p.mean_error) for p in parts if (p.estimator, p.part) == key],
                axis=0,
            )
            for key in sorted({(p.estimator, p.part) for p in parts if p.estimator == estimator})
        ]
        x, y = np.transpose(tenths)
        traces.append(charts.line(TITLES.get(estimator, estimator), list(x), list(y), colour))
        cells += [
            [TITLES.get(estimator, estimator), str(n), f"{a:.4f}", f"{b:.4f}"]
            for n, (a, b) in enumerate(tenths, start=1)
        ]
    figure = charts.figure(
        traces, "mean estimate", "mean error", 380, xaxis={"rangemode": "tozero"}
    )
    headings = ["estimate", "tenth", "mean estimate", "mean error"]
    return Chart(
        "calibration",
        "Calibration: the error where an estimate is small and where it is large",
        "Lines: the brain voxels of a volume in ten equal parts by rising estimate, mean error "
        "over mean estimate; the table below holds the numbers.",
        figure,
        Table("Calibration, means over volumes", headings, cells, labels=2),
    )


def error_tables(rows: Sequence[ErrorRow]) -> list[Table]:
    """AUSE and Spearman's correlation of each estimator: by number of inputs, and by region."""
    brain = [row for row in rows if row.region == BRAIN]
    inputs = _error_table(brain, "inputs", lambda row: str(row.sources.count("+") + 1))
    if len({row.region for row in rows}) < 2:
        return [inputs]
    several = [row for row in rows if "+" in row.sources]  # for which every estimate exists
    return [inputs, _error_table(several, "region", lambda row: row.region)]


def _error_table(rows: Sequence[ErrorRow], heading: str, group: Callable[[ErrorRow], str]) -> Table:
    cells = []
    for key, estimator in dict.fromkeys(sorted((group(r), r.estimator) for r in rows)):
        own = [row for row in rows if (group(row), row.estimator) == (key, estimator)]
        rho = interval(*over_subjects(own, lambda row: row.spearman), "+.3f")
        ause = interval(*over_subjects(own, lambda row: row.ause))
        relative = interval(*over_subjects(own, lambda row: row.ause_relative))
        subjects = str(len({row.name for row in own}))
        cells.append([key, TITLES.get(estimator, estimator), subjects, rho, ause, relative])
    headings = [heading, "estimate", "subjects", "Spearman [95 %]", "AUSE [95 %]"]
    caption = (
        "In the brain, by number of inputs"
        if heading == "inputs"
        else "By region, from two and more sources"
    )
    return Table(caption, [*headings, "relative AUSE [95 %]"], cells, labels=2)


def finding_table(findings: Sequence[Finding]) -> Table:
    """tsem.csv: TSEM and error of single volumes."""
    rows = []
    for f in findings:
        numbers = [f"{f.psnr:.2f}", f"{f.mean_tsem:.4f}", f"{f.mean_error:.4f}"]
        rows.append([f.name, f.sources, f.target, *numbers, number(f.spearman, "+.3f")])
    headings = ["subject", "sources", "target", "PSNR (dB)", "mean TSEM", "mean error", "Spearman"]
    return Table("TSEM and error within the brain", headings, rows, labels=3)
