"""Figures of stage 1's explanations: sequence contribution, imaging-differentiation maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsf_seq2seq.explain.contribution import Contribution
from tsf_seq2seq.figures import FONT, SMALL_FONT, save_figure_pair

PAGE_WIDTH = 7.0  # inches, both columns of a paper
BLUE, ORANGE, SKY = "#0072B2", "#E69F00", "#56B4E9"  # of Okabe and Ito's colour-blind safe palette
TOTIPOTENCY = "totipotency $C_t$: mean of the row"
DIFFERENTIATION = "imaging differentiation $C_d$: −mean of the column"
NAMES_LETTERS = 32  # of all names: longer ones stand aslant below the matrix


def plot_contribution(contribution: Contribution, path: Path) -> None:
    """Write the figure as `path` with .pdf and .png."""
    save_figure_pair(contribution_figure(contribution), path)


def contribution_figure(contribution: Contribution) -> Figure:
    """A as a heat map with numbers (rows: sources), beside bars of C_t and C_d."""
    count = len(contribution.sequences)
    width = PAGE_WIDTH + 0.4 * max(0, count - 5)  # room for each number
    figure = Figure(figsize=(width, 0.36 * count + 0.85), layout="constrained")
    heat_axes, bar_axes = figure.subplots(1, 2, width_ratios=(max(1.25, 0.25 * count), 1))
    _draw_matrix(heat_axes, contribution)
    _draw_bars(bar_axes, contribution)
    return figure


def _draw_matrix(axes: Axes, contribution: Contribution) -> None:
    matrix, names = contribution.matrix, contribution.sequences
    limit = float(np.abs(matrix).max()) or 1.0
    axes.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        shown = f"{value:.2f}".replace("-", "−") if contribution.subjects[row, column] else "–"
        colour = "white" if abs(value) > 0.65 * limit else "black"
        axes.text(column, row, shown, ha="center", va="center", fontsize=FONT, color=colour)
    axes.set_xticks(range(len(names)), names, fontsize=FONT)
    if sum(map(len, names)) > NAMES_LETTERS:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names, fontsize=FONT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("target", fontsize=FONT)
    axes.set_ylabel("source", fontsize=FONT)
    axes.set_title("sequence contribution $A$", fontsize=FONT)


def _draw_bars(axes: Axes, contribution: Contribution) -> None:
    places = np.arange(len(contribution.sequences))
    height = 0.36
    for place, values, colour, label in (
        (places - 0.5 * height, contribution.totipotency, BLUE, TOTIPOTENCY),
        (places + 0.5 * height, contribution.differentiation, ORANGE, DIFFERENTIATION),
    ):
        axes.barh(place, values, height, color=colour, label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, contribution.sequences, fontsize=FONT)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=SMALL_FONT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1), fontsize=SMALL_FONT, frameon=False)


def plot_differentiation(
    names: Sequence[str],
    targets: np.ndarray,
    maps: np.ndarray,
    lesion: np.ndarray | None,
    title: str,
    path: Path,
) -> None:
    """Targets (S, H, W) in [-1, 1] above their M_d (S, H, W), lesion (H, W) outlined; PDF and PNG.

    Grey runs from -1 to 0.25, a little above the 99th percentile (0); M_d from 0 to the 99.5th
    percentile of the maps shown.
    """
    grid, bar_axes, figure = _panels(len(names), targets.shape[1] / targets.shape[2])
    largest = max(float(np.percentile(maps, 99.5)), 1e-3)
    for column, name in enumerate(names):
        grid[0, column].imshow(targets[column], cmap="gray", vmin=-1, vmax=0.25)
        grid[0, column].set_title(name, fontsize=FONT)
        heat = grid[1, column].imshow(maps[column], cmap="inferno", vmin=0, vmax=largest)
        for axes in grid[:, column]:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if lesion is not None:
                axes.contour(lesion, levels=[0.5], colors=[SKY], linewidths=0.8)
    grid[0, 0].set_ylabel("target", fontsize=FONT)
    grid[1, 0].set_ylabel("$M_d$", fontsize=FONT)
    figure.colorbar(heat, cax=bar_axes, extend="max")
    bar_axes.tick_params(labelsize=SMALL_FONT)
    figure.text(0.005, 0.995, title, ha="left", va="top", fontsize=SMALL_FONT)
    save_figure_pair(figure, path)


def _panels(columns: int, ratio: float) -> tuple[np.ndarray, Axes, Figure]:
    """Axes (2, columns) of pictures `ratio` times as high as wide, and those of a colour bar."""
    left, right, top, gap, bar = 0.2, 0.42, 0.33, 0.04, 0.1  # inches
    width = (PAGE_WIDTH - left - right - bar - gap * columns) / columns
    height = width * ratio
    figure_height = top + 2 * height + 2 * gap
    figure = Figure(figsize=(PAGE_WIDTH, figure_height), facecolor="white")

    def add(x: float, y: float, w: float, h: float) -> Axes:
        box = (x / PAGE_WIDTH, y / figure_height, w / PAGE_WIDTH, h / figure_height)
        return figure.add_axes(box)

    lefts = [left + column * (width + gap) for column in range(columns)]
    grid = [[add(x, y, width, height) for x in lefts] for y in (height + 2 * gap, gap)]
    bar_axes = add(left + columns * (width + gap), gap, bar, height)
    return np.array(grid), bar_axes, figure
