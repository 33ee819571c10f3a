"""Figures: training curves, and sources, target and synthesis side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tsf_seq2seq.files.writing import write_atomically, write_together

FORMATS = ".pdf", ".png"
FONT, SMALL_FONT = 8, 7  # points, of a paper's figures
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#BBBBBB")


def plot_curves(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Training loss (left) and validation PSNR (right) over steps, from log.csv.

    The loss's axis is logarithmic where all losses are above zero, as a logarithm's needn't be.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    loss_axes, psnr_axes = figure.subplots(1, 2)
    losses = [(int(row["step"]), float(row["loss"])) for row in rows if row["loss"]]
    values = [
        (int(row["step"]), float(row["validation_psnr"])) for row in rows if row["validation_psnr"]
    ]
    if losses:
        loss_axes.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1)
        loss_axes.set_yscale("log" if min(loss for _, loss in losses) > 0 else "linear")
    loss_axes.set(xlabel="step", ylabel="training loss")
    if values:
        psnr_axes.plot(*zip(*values, strict=True), color="tab:orange", marker="o", markersize=3)
    psnr_axes.set(xlabel="step", ylabel="validation PSNR (dB)")
    for axes in (loss_axes, psnr_axes):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing."""
    FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))


def save_figure_pair(figure: Figure, path_without_suffix: Path) -> None:
    """Write a figure for a paper: `<path>.pdf` with editable text and `<path>.png`, 300 dpi.

    Both change, or none.
    """
    FigureCanvasAgg(figure)
    name, folder = path_without_suffix.name, path_without_suffix.parent
    writes = {folder / f"{name}{suffix}": partial(figure.savefig, dpi=300) for suffix in FORMATS}
    with rc_context({"pdf.fonttype": 42}):
        write_together(folder, writes)


@dataclass(frozen=True)
class Example:
    """One row of a picture of examples: a label, and panels (title → axial slice (H, W)).

    Slices are in [-1, 1]; a None stands for a missing sequence. The panel "error" holds
    |synthesis − target|.
    """

    label: str
    panels: Mapping[str, np.ndarray | None]


def plot_examples(examples: Sequence[Example], path: Path) -> None:
    """One row per example, with the titles of the first one's panels.

    Grey runs from -1 (background) to 0.25, a little above the 99th percentile (0), the error from
    0 to 0.5.
    """
    titles = list(examples[0].panels)
    figure = Figure(figsize=(1.3 * len(titles), 1.35 * len(examples) + 0.2), facecolor="white")
    grid = figure.subplots(
        len(examples),
        len(titles),
        squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0.06, "right": 0.995},
    )
    for row, example in enumerate(examples):
        shape = next(image.shape for image in example.panels.values() if image is not None)
        for column, title in enumerate(titles):
            axes = grid[row, column]
            axes.set(xticks=[], yticks=[])
            _show(axes, title, example.panels[title], shape)
            if row == 0:
                axes.set_title(title, fontsize=9)
        grid[row, 0].set_ylabel(example.label, fontsize=6.5)
    figure.subplots_adjust(top=1 - 0.25 / figure.get_figheight(), bottom=0.01)
    save_figure(figure, path)


def _show(axes: Axes, title: str, image: np.ndarray | None, shape: tuple[int, ...]) -> None:
    axes.spines[:].set_visible(False)
    if image is None:
        axes.imshow(np.ones(shape), cmap="gray", vmin=0, vmax=1.1)  # a light grey box
        axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
    elif title == "error":
        axes.imshow(image, cmap="magma", vmin=0, vmax=0.5)
    else:
        axes.imshow(image, cmap="gray", vmin=-1, vmax=0.25)
