"""The paper's Fig. 4: target, synthesis, absolute error and TSEM."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from tsf_seq2seq.figures import FONT, SMALL_FONT

PANEL_TITLES = ("target", "synthesis", "|error|", "TSEM")
OUTLINE = "#56B4E9"  # the sky blue of Okabe and Ito, seen on grey as on the maps' colours
WIDTH, LABEL, GAP, EDGE = 7.0, 1.2, 0.04, 0.1  # inches
LABEL_LETTERS = 20  # in a line of a label
TOP, BAR, FOOT = 0.22, 0.09, 0.2  # inches: titles, colour bars, the bars' ticks


@dataclass(frozen=True)
class Picture:
    """One row: an axial slice of target and synthesis in [-1, 1] and of TSEM, all (H, W); `lesion`
    is outlined where there is one."""

    label: str
    target: np.ndarray
    synthesis: np.ndarray
    tsem: np.ndarray
    lesion: np.ndarray | None


def tsem_figure(pictures: Sequence[Picture]) -> Figure:
    """One row per picture.

    Grey runs from -1 to 0.25, a little above the 99th percentile (0); error and TSEM each from 0 to
    the 99.5th percentile of what is shown of them, on a square-root scale: small ones are seen too.
    """
    errors = [np.abs(picture.synthesis - picture.target) for picture in pictures]
    largest = [_limit(errors), _limit([picture.tsem for picture in pictures])]
    height, width = pictures[0].target.shape
    figure, grid, bars = _layout(len(pictures), height / width)
    for row, picture, error in zip(grid, pictures, errors, strict=True):
        row[0].imshow(picture.target, cmap="gray", vmin=-1, vmax=0.25)
        row[1].imshow(picture.synthesis, cmap="gray", vmin=-1, vmax=0.25)
        heats = [
            axes.imshow(image, cmap="inferno", norm=PowerNorm(0.5, 0, limit))
            for axes, image, limit in zip(row[2:], (error, picture.tsem), largest, strict=True)
        ]
        _finish(row, picture)
    for axes, title in zip(grid[0], PANEL_TITLES, strict=True):
        axes.set_title(title, fontsize=FONT, pad=3)
    for heat, axes, limit in zip(heats, bars, largest, strict=True):
        ticks = [0, *(float(f"{share**2 * limit:.1g}") for share in (0.25, 0.5, 0.75))]
        bar = figure.colorbar(heat, cax=axes, orientation="horizontal", extend="max")
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize=SMALL_FONT, length=2, pad=1)
    return figure


def _limit(images: Sequence[np.ndarray]) -> float:
    """The 99.5th percentile, and something above 0 where all is 0."""
    return max(float(np.percentile(np.concatenate([i.ravel() for i in images]), 99.5)), 1e-6)


def _finish(row: Sequence[Axes], picture: Picture) -> None:
    label = "\n".join(fill(line, LABEL_LETTERS) for line in picture.label.splitlines())
    place: dict[str, Any] = {"transform": row[0].transAxes, "ha": "right", "va": "center"}
    row[0].text(-0.05, 0.5, label, fontsize=SMALL_FONT, linespacing=1.4, **place)
    for axes in row:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if picture.lesion is not None:
            axes.contour(picture.lesion, levels=[0.5], colors=[OUTLINE], linewidths=0.7)


def _layout(rows: int, ratio: float) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Axes (rows, 4) of panels `ratio` times as high as wide; colour bars below the last two."""
    width = (WIDTH - LABEL - EDGE - 3 * GAP) / 4
    height = width * ratio
    whole = TOP + rows * (height + GAP) + BAR + FOOT
    figure = Figure(figsize=(WIDTH, whole), facecolor="white")

    def add(column: int, top: float, inset: float, high: float) -> Axes:
        x = LABEL + column * (width + GAP) + inset
        box = (x / WIDTH, 1 - (top + high) / whole, (width - 2 * inset) / WIDTH, high / whole)
        return figure.add_axes(box)

    tops = [TOP + row * (height + GAP) for row in range(rows)]
    grid = [[add(column, top, 0, height) for column in range(4)] for top in tops]
    bars = [add(column, whole - BAR - FOOT + GAP, 0.05, BAR) for column in (2, 3)]
    return figure, grid, bars
