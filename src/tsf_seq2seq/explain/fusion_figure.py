"""The paper's Fig. 3: fusion weights of every source set, one panel per target."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from tsf_seq2seq.explain.fusion_weights import FusionTable
from tsf_seq2seq.figures import COLOURS, save_figure_pair

HATCHES = ("", "/////", ".....", "\\\\\\\\\\", "xxxxx", "-----", "+++++", "ooooo")  # beside colours
SOURCE_COLUMN = 0.085  # width of a column of source marks, where the longest bar is 1
NUMBERED = 0.1  # narrower segments carry no number
WHITE = {"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none"}
NUMBER: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "center_baseline", "bbox": WHITE}
PANEL_WIDTH, BAR_HEIGHT, PANEL_MARGIN = 3.5, 0.17, 0.75  # inches
MOST_BARS = 31  # per panel, as many as six sequences have source sets
PANEL_COLUMNS = {2: 2, 3: 3, 4: 2, 5: 3, 6: 3}  # of panels, by the number of targets; else 4


def plot_fusion_weights(table: FusionTable, names: Sequence[str], path: Path) -> None:
    """Write the figure as `path` with .pdf and .png."""
    save_figure_pair(fusion_figure(table, names), path)


def fusion_figure(table: FusionTable, names: Sequence[str]) -> Figure:
    """One panel per target: a stacked bar for every source set, segments as wide as ω.

    The marks left of a bar name its sources, in the order of its segments. Where there are too many
    sets for a page, only `telling_sets` are shown.
    """
    whole, table = len(table), telling_sets(table)
    targets = sorted({task.target for task in table})
    columns = PANEL_COLUMNS.get(len(targets), 4)
    rows = math.ceil(len(targets) / columns)
    bars = max(sum(task.target == target for task in table) for target in targets)
    size = (columns * PANEL_WIDTH, rows * (bars * BAR_HEIGHT + PANEL_MARGIN))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.05))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(targets) :]:
        axes.set_axis_off()
    for axes, target in zip(panels, targets, strict=False):
        shown = {task: weights for task, weights in table.items() if task.target == target}
        _draw_marks(axes, [task.sources for task in shown], names)
        _draw_bars(axes, np.stack(list(shown.values())), names)
        start = -len(names) * SOURCE_COLUMN - 0.03
        middle = (0.5 - start) / (1.005 - start)  # the bars', as a share of the panel
        axes.set_title(f"→ {names[target]}", fontsize=9, fontweight="bold", x=middle)
        axes.set_xlabel("fusion weight ω", fontsize=7, labelpad=1, x=middle)
        axes.set(xlim=(start, 1.005), ylim=(len(shown) - 0.4, -0.6), yticks=[])
        axes.spines[:].set_visible(False)
    if len(table) < whole:
        note = "source sets of two, of all, and of all but one; every set is in fusion_weights.csv"
        figure.supxlabel(note, fontsize=7)
    return figure


def telling_sets(table: FusionTable) -> FusionTable:
    """The table, or its source sets of two, of all, and of all but one, where a target has more
    than MOST_BARS."""
    counts = Counter(task.target for task in table)
    if max(counts.values()) <= MOST_BARS:
        return table
    largest = max(len(task.sources) for task in table)
    sizes = (2, largest - 1, largest)
    return {task: weights for task, weights in table.items() if len(task.sources) in sizes}


def _draw_bars(axes: Axes, weights: np.ndarray, names: Sequence[str]) -> None:
    """Stacked bars of ω (bars, S), sequence after sequence."""
    places, left = np.arange(len(weights)), np.zeros(len(weights))
    for source, name in enumerate(names):
        widths = weights[:, source]
        bars = axes.barh(places, widths, 0.82, left=left, label=name, linewidth=0)
        for bar in bars:
            bar.set(**_filling(source))
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= NUMBERED:
                text = f"{width:.2f}".replace("0.", ".")
                axes.text(start + width / 2, place, text, **NUMBER)
        left = left + widths
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"], fontsize=7)
    axes.tick_params(length=2, pad=1)


def _draw_marks(axes: Axes, source_sets: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """A column per sequence, headed by its name: filled where the bar's set holds it."""
    for source, name in enumerate(names):
        x = (source - len(names)) * SOURCE_COLUMN - 0.03
        axes.text(x + 0.04, -0.7, name, fontsize=7, rotation=90, ha="center", va="bottom")
        for place, sources in enumerate(source_sets):
            filling = _filling(source) if source in sources else {"facecolor": "0.93"}
            mark = axes.add_patch(Rectangle((x, place - 0.36), 0.07, 0.72, linewidth=0))
            mark.set(**filling)


def _filling(source: int) -> dict[str, str]:
    """Colour and hatch of a sequence; from the ninth sequence on they begin anew."""
    index = source % len(COLOURS)
    return {"facecolor": COLOURS[index], "hatch": HATCHES[index], "edgecolor": "white"}
