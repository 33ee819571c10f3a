"""How much of an adapted output comes from the network, and how much from each source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tsf_seq2seq.explain.fusion_figure import HATCHES
from tsf_seq2seq.explain.tsem import parse_task
from tsf_seq2seq.figures import COLOURS, save_figure_pair
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.tables import Table

OUTPUT = "network"
ROW_HEIGHT, EDGES = 0.16, 0.9  # inches


def share_table(adaptation: Adaptation, names: Sequence[str]) -> Table:
    """One row per task: how its map was fitted, and the shares of its output's variance."""
    rows = []
    for key, fitted in adaptation.maps.items():
        shares = _shares(adaptation, key, names)
        strength = "∞" if fitted.strength is None else f"{fitted.strength:g}"
        cells = [None if np.isnan(share) else float(share) for share in shares]
        rows.append([*key.split(":"), strength, fitted.gain_db, *cells])
    headings = ["sources", "target", "prior's strength", "gain (dB)", *names, OUTPUT]
    caption = (
        "Maps. Strength: for how many references the prior counts. Gain: PSNR in the brain over "
        "the network's own, on references (of an only one, slabs) left out. Then the share of the "
        "output's variance over the references' brains that comes through each source and the "
        "network; products are halved between their factors."
    )
    return Table(caption, headings, rows, labels=2, style=".2f")


def plot_shares(adaptation: Adaptation, names: Sequence[str], path: Path) -> None:
    """Write the figure of the shares as `path` with .pdf and .png: a stacked bar for each task."""
    figure = Figure(figsize=(7, len(adaptation.maps) * ROW_HEIGHT + EDGES), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(adaptation.maps))
    shares = np.nan_to_num([_shares(adaptation, key, names) for key in adaptation.maps])
    right, left = np.zeros(len(places)), np.zeros(len(places))
    for number, name in enumerate([*names, OUTPUT]):
        own = shares[:, number]
        starts = np.where(own >= 0, right, left)
        grey = name == OUTPUT
        axes.barh(
            places,
            own,
            0.8,
            left=starts,
            label=name,
            color="0.35" if grey else COLOURS[number % len(COLOURS)],
            hatch="" if grey else HATCHES[number % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
        )
        right, left = right + own.clip(min=0), left + own.clip(max=0)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [key.replace(":", " → ") for key in adaptation.maps], fontsize=7)
    axes.set_xlabel("share of the output's variance over the references' brains", fontsize=8)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(ncols=len(names) + 1, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    save_figure_pair(figure, path)


def _shares(adaptation: Adaptation, key: str, names: Sequence[str]) -> np.ndarray:
    """Of every sequence and the network, (S + 1,); nan for what the task doesn't use."""
    fitted, task = adaptation.maps[key], parse_task(key, names)
    shares = np.full(len(names) + 1, np.nan)
    places = [*task.sources, *([len(names)] if fitted.uses_output else [])]
    shares[places] = fitted.shares()
    return shares
