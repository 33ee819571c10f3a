"""Fusion weights of all tasks: table, CSV and the bars of Fig. 3, against the network's own."""

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.explain import explain_fusion_weights
from tsf_seq2seq.config import load_config
from tsf_seq2seq.explain.fusion_figure import fusion_figure
from tsf_seq2seq.explain.fusion_weights import (
    fusion_table,
    fusion_tasks,
    fusion_weight_table,
    omegas,
)
from tsf_seq2seq.models import build_network
from tsf_seq2seq.tasks import Task, all_tasks, mask_to_sequences


def bars_of(axes: Axes) -> np.ndarray:
    """Widths (bars, S) of a panel's segments, after a look at where they start."""
    containers = [part for part in axes.containers if isinstance(part, BarContainer)]
    widths = np.array([[bar.get_width() for bar in part] for part in containers]).T
    starts = np.array([[bar.get_x() for bar in part] for part in containers]).T
    np.testing.assert_allclose(starts, np.cumsum(widths, axis=1) - widths, rtol=0, atol=1e-6)
    return widths


@pytest.mark.parametrize(
    ("n_sequences", "outside", "every"), [(2, 2, 6), (3, 9, 21), (4, 28, 60), (5, 75, 155)]
)
def test_tasks(n_sequences, outside, every):
    """S · (2^(S−1) − 1) source sets without the target, S · (2^S − 1) in all."""
    tasks = fusion_tasks(n_sequences)
    assert len(tasks) == len(set(tasks)) == outside
    assert set(tasks) == set(all_tasks(n_sequences))
    tasks = fusion_tasks(n_sequences, with_reconstructions=True)
    assert len(tasks) == len(set(tasks)) == every


def test_table_is_the_networks(reference_model, expected):
    table = fusion_table(reference_model, fusion_tasks(4, with_reconstructions=True))
    for (mask, target), wanted in zip(expected["tasks"], expected["weights"], strict=True):
        sources = mask_to_sequences(int(mask), 4)
        weights = table[Task(sources, int(target))]
        np.testing.assert_allclose(weights, wanted, rtol=0, atol=1e-6)
        ours = reference_model.fusion_weights([i in sources for i in range(4)], int(target))
        np.testing.assert_array_equal(weights, ours.detach().numpy())
        assert weights.sum() == pytest.approx(1, abs=1e-6)
        assert {i for i in range(4) if weights[i] > 0} == set(sources)


def test_csv(reference_model, tmp_path):
    table = fusion_table(reference_model, fusion_tasks(4))
    shown = fusion_weight_table(omegas(table, SEQUENCES), SEQUENCES)
    shown.write_csv(tmp_path / "fusion_weights.csv")
    with open(tmp_path / "fusion_weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sources", "target", *SEQUENCES]
    for row, (task, weights) in zip(rows, table.items(), strict=True):
        assert (row["sources"], row["target"]) == task.label(SEQUENCES)
        for i, sequence in enumerate(SEQUENCES):
            if i in task.sources:
                assert float(row[sequence]) == pytest.approx(float(weights[i]), rel=1e-5)
            else:
                assert row[sequence] == ""


def test_markdown():
    """By hand."""
    table = {Task((0, 2), 1): np.array([0.25, 0, 0.75]), Task((2,), 0): np.array([0, 0, 1.0])}
    names = ("t1", "t2", "flair")
    shown = fusion_weight_table(omegas(table, names), names).markdown()
    assert shown.splitlines()[2:] == [
        "| sources  | target | t1    | t2 | flair |",
        "|----------|--------|-------|----|-------|",
        "| t1+flair | t2     | 0.250 | –  | 0.750 |",
        "| flair    | t1     | –     | –  | 1.000 |",
    ]


@pytest.mark.parametrize("with_reconstructions", [False, True])
def test_figure_shows_the_table(reference_model, with_reconstructions):
    table = fusion_table(reference_model, fusion_tasks(4, with_reconstructions))
    figure = fusion_figure(table, SEQUENCES)
    assert [axes.get_title() for axes in figure.axes] == [f"→ {name}" for name in SEQUENCES]
    for target, axes in enumerate(figure.axes):
        wanted = [weights for task, weights in table.items() if task.target == target]
        np.testing.assert_allclose(bars_of(axes), wanted, rtol=0, atol=1e-6)
    sizes = {text.get_fontsize() for axes in figure.axes for text in axes.texts}
    assert min(sizes) >= 7


@pytest.mark.parametrize(
    ("n_sequences", "bars"),
    # all sets up to six; then those of two, of all, and of all but one: 15 + 1 + 6, 21 + 1 + 7
    [(2, 1), (3, 3), (5, 15), (6, 31), (7, 22), (8, 29)],
)
def test_figure_of_other_numbers_of_sequences(n_sequences, bars):
    table = {}
    for task in fusion_tasks(n_sequences):
        weights = np.zeros(n_sequences)
        weights[list(task.sources)] = 1 / len(task.sources)
        table[task] = weights
    figure = fusion_figure(table, [f"s{i}" for i in range(n_sequences)])
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == n_sequences
    for axes in panels:
        widths = bars_of(axes)
        assert widths.shape == (bars, n_sequences)
        np.testing.assert_allclose(widths.sum(axis=1), 1)
    looks = [(bar[0].get_facecolor(), bar[0].get_hatch()) for bar in panels[0].containers]
    assert len(set(looks)) == n_sequences
    assert bool(figure.get_supxlabel()) == (n_sequences > 6)  # it says that sets are left out
    assert figure.get_size_inches().max() < 18


def test_script(script, tiny_config, tmp_path):
    config = load_config(tiny_config)
    network = build_network(config)
    save_checkpoint(tmp_path / "tsf.pth", network, config)
    outcome = run(script, "-l", tmp_path / "tsf.pth", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    table = fusion_table(network, fusion_tasks(4))
    shown = fusion_weight_table(omegas(table, SEQUENCES), SEQUENCES)
    assert outcome.out.startswith(shown.markdown())
    assert len((tmp_path / "out" / "fusion_weights.csv").read_text().splitlines()) == 29
    assert (tmp_path / "out" / "fusion_weights.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out" / "fusion_weights.png").read_bytes().startswith(b"\x89PNG")
    all_60 = run(script, "-l", tmp_path / "tsf.pth", "-o", tmp_path, "--with-reconstructions")
    assert all_60.code == 0
    assert len((tmp_path / "fusion_weights.csv").read_text().splitlines()) == 61


def run(script, *arguments: str | Path):
    return script(explain_fusion_weights, *arguments)
