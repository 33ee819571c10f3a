"""Figures: training curves, and sources, target and synthesis side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tsf_seq2seq.files import write_atomically


def plot_curves(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Training loss (left, logarithmic) and validation PSNR (right) over steps, from log.csv."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    loss_axes, psnr_axes = figure.subplots(1, 2)
    losses = [(int(row["step"]), float(row["loss"])) for row in rows if row["loss"]]
    values = [
        (int(row["step"]), float(row["validation_psnr"])) for row in rows if row["validation_psnr"]
    ]
    if losses:
        loss_axes.semilogy(*zip(*losses, strict=True), color="tab:blue", linewidth=1)
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


def plot_examples(rows: Sequence[tuple[str, Mapping[str, np.ndarray | None]]], path: Path) -> None:
    """One row of axial slices per example: (row label, panel title → slice (H, W) in [-1, 1]).

    Titles are those of the first row; a None leaves the panel empty. Panels named "error" show
    |synthesis − target| from 0 to 0.5.
    """
    titles = list(rows[0][1])
    figure = Figure(figsize=(1.55 * len(titles), 1.75 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_row, (label, panels) in zip(grid, rows, strict=True):
        for axes, title in zip(axes_row, titles, strict=True):
            image = panels[title]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if image is None:
                axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
            elif title == "error":
                axes.imshow(image, cmap="magma", vmin=0, vmax=0.5)
            else:
                axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
            if axes_row is grid[0]:
                axes.set_title(title, fontsize=9)
        axes_row[0].set_ylabel(label, fontsize=8)
    save_figure(figure, path)
