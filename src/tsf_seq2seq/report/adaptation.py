"""What adaptation to a scanner brings: its section, where an evaluation scored it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsf_seq2seq.evaluation.adaptation_curve import (
    AdaptationCurve,
    Line,
    adaptation_curve,
    gain_table,
    reference_table,
    task_gain_table,
    write_adaptation_rows,
)
from tsf_seq2seq.evaluation.scores import Metric, read_scores
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Drawn, Section
from tsf_seq2seq.report.inputs import ReportSources
from tsf_seq2seq.synthesis.adapted_names import families_of

WORDS = (
    "The network adapted to the scanner of each test subject by other complete subjects of the "
    "same site: for every task, a map of sources and output that is fitted on them makes the "
    "synthesis."
)
PRIOR_ALONE = "0 stands for the checkpoint's own map of validation subjects."
RIVALS = (
    "Thin lines are rivals fitted on the same subjects: gain and offset of the network's output, "
    "and a quadratic regression of the sources without a network."
)
RIVAL_DASHES = ("dash", "dot")
BETWEEN_LINES = 0.06  # of the way from one number of references to the next


def adaptation_sections(sources: ReportSources) -> list[Section]:
    """The section on adapted networks, of an evaluation of its own or the report's; none where no
    scores are of such methods."""
    copy = "adaptation_metrics.csv"
    path = sources.take("adaptation", "metrics.csv", copy)
    curve = adaptation_curve(sources.scores if path is None else read_scores(path))
    if curve is None:
        return []
    write_adaptation_rows(sources.path("adaptation.csv"), curve)
    networks, found = curve.networks, {one.family for one in curve.methods}
    notes = [PRIOR_ALONE] if any(one.references == 0 for one in curve.methods) else []
    if not found.isdisjoint(rival for name in networks for rival in families_of(name)[1:]):
        notes.append(RIVALS)
    shown = [
        reference_chart(curve, network, metric) for network in networks for metric in curve.metrics
    ]
    by_task = [task_gain_table(curve, network) for network in networks]
    return [
        Section(
            "adaptation",
            "Adaptation to the scanner",
            [WORDS, " ".join(notes)] if notes else [WORDS],
            [Drawn("choice", shown), gain_table(curve), *by_task],
            files=["metrics.csv" if path is None else copy, "adaptation.csv"],
        )
    ]


def reference_chart(curve: AdaptationCurve, network: str, metric: Metric) -> Chart:
    """A metric by number of references: a line per number of inputs, and thin ones of rivals."""
    lines, stops = curve.lines(network, metric), curve.stops(network)
    sizes = sorted({line.inputs for line in lines})
    traces = [_trace(line, network, metric, stops, sizes) for line in lines]
    axis = {"tickvals": list(range(len(stops))), "ticktext": stops, "zeroline": False}
    title = "complete subjects of the site"
    beginning = f"{network}: " if len(curve.networks) > 1 else ""
    return Chart(
        f"adaptation-{curve.networks.index(network)}-{metric.key}",
        f"{beginning}{metric.title}",
        f"Lines: {metric.heading} of {network} by the number of subjects that it is adapted by, "
        "one per number of inputs, with 95 % confidence intervals; the table below holds the "
        "numbers.",
        charts.figure(traces, title, metric.heading, 420, xaxis=axis),
        reference_table(curve.means_of_network(network), [metric]),
    )


def _trace(
    line: Line, network: str, metric: Metric, stops: Sequence[str], sizes: Sequence[int]
) -> dict[str, Any]:
    """Plotly's; lines of other numbers of inputs lie a little apart, for their bars' sake."""
    family, colour = families_of(network).index(line.family), sizes.index(line.inputs)
    x = [place + BETWEEN_LINES * (colour - (len(sizes) - 1) / 2) for place in line.places]
    means, lows, highs = np.array(line.estimates).T
    name = f"{line.inputs} input{'s' if line.inputs > 1 else ''}"
    more: dict[str, Any] = {
        "text": [stops[place] for place in line.places],
        "hovertemplate": f"%{{text}}: %{{y:.{metric.decimals}f}}",
    }
    if family == 0:
        more |= {"line": {"width": 2.5}, "error_y": charts.error_bars(means, lows, highs)}
    else:
        name = f"{name}, {line.family.removeprefix(f'{network}, ').replace('_', ' ')}"
        symbol = f"{charts.SYMBOLS[colour % len(charts.SYMBOLS)]}-open"
        more |= {"line": {"width": 1, "dash": RIVAL_DASHES[family - 1]}}
        more |= {"marker": {"symbol": symbol, "size": 6}}
    return charts.line(name, x, means.tolist(), colour, **more)
