"""The figure of contributions: target, synthesis, what it starts from, what each source adds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tsf_seq2seq.explain.tsem_figure import (
    BAR,
    EDGE,
    FOOT,
    GAP,
    LABEL,
    LABEL_LETTERS,
    WIDTH,
)
from tsf_seq2seq.figures import FONT, SMALL_FONT

TITLES = ("target", "synthesis", "without sources")
LESION_COLOUR = "#009E73"  # Okabe and Ito's green, seen on grey as on orange and purple
ROW_TITLE = 0.17  # inches


@dataclass(frozen=True)
class Panels:
    """One row: an axial slice of target, synthesis and v(∅) in [-1, 1], and `maps`, title → what a
    source adds, all (H, W); `lesion` is outlined where there is one."""

    label: str
    target: np.ndarray
    synthesis: np.ndarray
    empty: np.ndarray
    maps: Mapping[str, np.ndarray]
    lesion: np.ndarray | None


def contribution_maps_figure(rows: Sequence[Panels]) -> Figure:
    """One row a case.

    Grey runs from -1 to 0.25, a little above the 99th percentile (0); contributions from purple
    (darker) to orange (brighter), to the 99.5th percentile of their amounts in the figure.
    """
    columns = len(TITLES) + max(len(row.maps) for row in rows)
    height, width = rows[0].target.shape
    side = (WIDTH - LABEL - EDGE - (columns - 1) * GAP) / columns
    step = ROW_TITLE + side * height / width
    whole = GAP + len(rows) * step + GAP + BAR + FOOT
    figure = Figure(figsize=(WIDTH, whole), facecolor="white")
    amounts = np.concatenate([np.abs(own).ravel() for row in rows for own in row.maps.values()])
    limit = max(float(np.percentile(amounts, 99.5)), 1e-6)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": -1, "vmax": 0.25}
    colours: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    for number, row in enumerate(rows):
        pictures = dict(zip(TITLES, (row.target, row.synthesis, row.empty), strict=True))
        for column, (title, image) in enumerate((pictures | dict(row.maps)).items()):
            x = LABEL + column * (side + GAP)
            low = whole - GAP - (number + 1) * step
            box = (x / WIDTH, low / whole, side / WIDTH, (step - ROW_TITLE) / whole)
            axes = figure.add_axes(box)
            heat = axes.imshow(image, **(grey if title in TITLES else colours))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(title, fontsize=FONT, pad=3)
            if row.lesion is not None:
                axes.contour(row.lesion, levels=[0.5], colors=[LESION_COLOUR], linewidths=0.7)
            if column == 0:
                label = "\n".join(fill(line, LABEL_LETTERS) for line in row.label.splitlines())
                place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "center"}
                axes.text(-0.05, 0.5, label, fontsize=SMALL_FONT, linespacing=1.4, **place)
    start = LABEL + len(TITLES) * (side + GAP)
    shown = ((start + GAP) / WIDTH, FOOT / whole, (WIDTH - EDGE - start - 2 * GAP) / WIDTH)
    bar = figure.colorbar(
        heat, cax=figure.add_axes((*shown, BAR / whole)), orientation="horizontal", extend="both"
    )
    bar.ax.tick_params(labelsize=SMALL_FONT, length=2, pad=1)
    return figure
