"""The figure of adapted networks: each metric by the number of references."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsf_seq2seq.evaluation.adaptation_curve import AdaptationCurve, Line
from tsf_seq2seq.evaluation.scores import Metric
from tsf_seq2seq.figures import COLOURS, FONT, SMALL_FONT, save_figure_pair
from tsf_seq2seq.synthesis.adapted_names import AS_TRAINED, GAIN_AND_OFFSET, QUADRATIC, families_of

LINE_COLOURS = tuple(COLOURS[place] for place in (5, 6, 2, 3, 1, 0, 7))  # dark ones first
MARKERS = "osD^vP*"
DASHES_OF_RIVALS = ((0, (4, 1.5)), (0, (1, 1.2)))
APART = 0.09  # between lines of other numbers of inputs, whose bars would cover each other
PANEL_SIZE, LEGEND_HEIGHT = (2.4, 2.2), 0.5  # inches


def plot_adaptation(curve: AdaptationCurve, path: Path) -> None:
    """Write the figure as `path` with .pdf and .png."""
    save_figure_pair(adaptation_figure(curve), path)


def adaptation_figure(curve: AdaptationCurve) -> Figure:
    """A row of panels per network, one per metric: a line per number of inputs and family.

    Bars of 95 % intervals at the networks' own lines; their rivals' are thin and dashed.
    """
    networks, metrics = curve.networks, curve.metrics
    width, height = PANEL_SIZE
    size = (len(metrics) * width, len(networks) * height + LEGEND_HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(networks), len(metrics), squeeze=False)
    for network, row in zip(networks, panels, strict=True):
        for metric, axes in zip(metrics, row, strict=True):
            _draw_panel(axes, curve, network, metric)
        if len(networks) > 1:
            row[0].set_ylabel(network, fontsize=FONT, fontweight="bold")
    figure.supxlabel("complete subjects of the site that the network is adapted by", fontsize=FONT)
    handles = _legend(curve)
    columns = min(len(handles), 2 * len(metrics))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        fontsize=SMALL_FONT,
        frameon=False,
    )
    return figure


def _draw_panel(axes: Axes, curve: AdaptationCurve, network: str, metric: Metric) -> None:
    lines, stops = curve.lines(network, metric), curve.stops(network)
    sizes = sorted({line.inputs for line in lines})
    for line in reversed(lines):  # the network's own on top
        place = sizes.index(line.inputs)
        offset = APART * (place - (len(sizes) - 1) / 2)
        _draw_line(axes, line, families_of(network).index(line.family), place, offset)
    axes.set_title(metric.title, fontsize=FONT)
    shown = [stop.replace(AS_TRAINED, "as\ntrained") for stop in stops]
    axes.set_xticks(range(len(stops)), shown)
    axes.set_xlim(-0.4, len(stops) - 0.6)
    axes.tick_params(labelsize=SMALL_FONT, length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3, linewidth=0.5)


def _draw_line(axes: Axes, line: Line, family: int, place: int, offset: float) -> None:
    """`family`: 0 for the network itself; `place`: of the number of inputs among all."""
    means, lows, highs = np.array(line.estimates).T
    x, style = np.array(line.places) + offset, _style(place, family)
    axes.plot(x, means, **style)
    if family == 0:
        ends = np.nan_to_num(np.stack([means - lows, highs - means]))
        axes.errorbar(
            x, means, ends, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=1.8
        )


def _style(place: int, family: int) -> dict[str, Any]:
    """Colour and marker of a number of inputs, dashes of a family."""
    style = {"color": LINE_COLOURS[place % len(LINE_COLOURS)]}
    style["marker"] = MARKERS[place % len(MARKERS)]
    if family == 0:
        return style | {"linewidth": 1.5, "markersize": 3.5}
    dashes = DASHES_OF_RIVALS[(family - 1) % len(DASHES_OF_RIVALS)]
    hollow = {"markersize": 2.5, "markerfacecolor": "white", "markeredgewidth": 0.7}
    return style | {"linewidth": 0.8, "linestyle": dashes} | hollow


def _legend(curve: AdaptationCurve) -> list[Line2D]:
    """Of the numbers of inputs, and where there are rivals, of what is adapted."""
    handles = []
    for place, inputs in enumerate(sorted({row.key[0] for row in curve.means})):
        label = "1 input" if inputs == 1 else f"{inputs} inputs"
        handles.append(Line2D([], [], label=label, **_style(place, 0)))
    found = {one.family for one in curve.methods}
    families = zip(*map(families_of, curve.networks), strict=True)
    labels = ["the network", GAIN_AND_OFFSET, QUADRATIC.replace("_", " ")]
    drawn = [not found.isdisjoint(names) for names in families]
    for family, label in enumerate(labels):
        if drawn[family] and any(drawn[1:]):
            style = _style(0, family) | {"color": "0.3", "marker": ""}
            handles.append(Line2D([], [], label=label, **style))
    return handles
