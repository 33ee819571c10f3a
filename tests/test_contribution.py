"""Sequence contribution: the reference's numbers, a case by hand, the script."""

import csv
import json
import re
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE, SEQUENCES
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tsf_seq2seq.cli.explain import explain_contribution
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, write_scores
from tsf_seq2seq.explain.contribution import (
    Contribution,
    contribution_of,
    contribution_table,
    ranks,
)
from tsf_seq2seq.explain.seq2seq_figures import contribution_figure

METRICS = REFERENCE / "metrics"
NAN = float("nan")


def reference_scores() -> list[Score]:
    with open(METRICS / "single_source_metrics.csv", newline="") as file:
        return [
            score(
                SEQUENCES[int(row["src"])],
                SEQUENCES[int(row["tgt"])],
                *(float(row[metric]) for metric in ("psnr", "ssim", "lpips")),
                name=row["name"],
            )
            for row in csv.DictReader(file)
        ]


def score(
    source: str,
    target: str,
    psnr: float,
    ssim: float = 0.5,
    lpips: float = NAN,
    name: str = "A",
    method: str = "seq2seq",
) -> Score:
    return Score(name, source, target, method, psnr, ssim, lpips, lpips / 126)


def reference_numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, C_t and C_d."""
    text = (METRICS / "contribution_raw.txt").read_text()
    matrix = re.findall(r"float32\(([^)]+)\)", text)
    totipotency = re.findall(r"metric_ct: (\S+)", text)
    differentiation = re.findall(r"metric_cd: (\S+)", text)
    return (
        np.array(matrix, float).reshape(4, 4),
        np.array(totipotency, float),
        np.array(differentiation, float),
    )


def test_reference_contribution():
    contribution = contribution_of(reference_scores())
    matrix, totipotency, differentiation = reference_numbers()
    assert contribution.sequences == SEQUENCES
    np.testing.assert_allclose(contribution.matrix, matrix, rtol=0, atol=1e-4)
    np.testing.assert_allclose(contribution.totipotency, totipotency, rtol=0, atol=1e-4)
    np.testing.assert_allclose(contribution.differentiation, differentiation, rtol=0, atol=1e-4)


def test_by_hand():
    """PSNR 10, 14 | 18 | none | 22, 26: mean 18, σ √32; SSIM alike everywhere, LPIPS missing."""
    scores = [
        score("a", "a", 10),
        score("a", "a", 14, name="B"),
        score("a", "b", 18),
        score("b", "b", 22),
        score("b", "b", 26, name="B"),
        score("b", "b", NAN, name="C"),  # left out
        score("a+b", "c", 99),  # not of one source
        score("a", "c", 99, method="tsf"),  # not of Seq2Seq
    ]
    contribution = contribution_of(scores)
    sigma = np.sqrt(32)
    wanted = np.array([[-6, 0], [0, 6]]) / sigma
    assert contribution.sequences == ("a", "b")
    np.testing.assert_allclose(contribution.matrix, wanted, atol=1e-6)
    np.testing.assert_allclose(contribution.totipotency, [-3 / sigma, 3 / sigma], atol=1e-6)
    np.testing.assert_allclose(contribution.differentiation, [3 / sigma, -3 / sigma], atol=1e-6)
    assert contribution.subjects.tolist() == [[2, 1], [0, 3]]


def test_lpips_counts_against():
    contribution = contribution_of([score("a", "a", 20, lpips=1), score("a", "b", 20, lpips=3)])
    np.testing.assert_allclose(contribution.matrix, [[1, -1], [0, 0]], atol=1e-6)


def test_order_and_choice_of_sequences():
    contribution = contribution_of(reference_scores())
    order = ("flair", "t1", "t2", "t1ce")
    turned = contribution_of(reference_scores(), order)
    places = [SEQUENCES.index(name) for name in order]
    assert turned.sequences == order
    np.testing.assert_allclose(turned.matrix, contribution.matrix[np.ix_(places, places)])
    fewer = contribution_of(reference_scores(), ("t1", "t2"))
    among = [row for row in reference_scores() if {row.sources, row.target} <= {"t1", "t2"}]
    np.testing.assert_array_equal(fewer.matrix, contribution_of(among).matrix)


def test_ranks():
    assert ranks(np.array([0.5, 2.0, -1.0, 1.0])) == [3, 1, 4, 2]


def test_table():
    contribution = Contribution(("t1", "t2"), np.array([[1.0, -2], [3, 4]]), np.ones((2, 2), int))
    lines = contribution_table(contribution).markdown().splitlines()[4:]
    assert [line.replace("|", " ").split() for line in lines] == [
        ["t1", "1.000", "-2.000", "-0.500", "2", "-2.000", "2"],
        ["t2", "3.000", "4.000", "3.500", "1", "-1.000", "1"],
    ]


def test_what_is_refused():
    with pytest.raises(UserError, match="no scores of single-source synthesis"):
        contribution_of([score("a+b", "c", 20)])
    with pytest.raises(UserError, match="no scores of t9, only of t1, t1ce, t2, flair"):
        contribution_of(reference_scores(), ("t1", "t9"))


@pytest.fixture
def run(script):
    return partial(script, explain_contribution)


def test_script(run, tmp_path):
    write_scores(tmp_path / "metrics.csv", reference_scores())
    outcome = run(tmp_path)
    assert outcome.code == 0
    matrix, totipotency, differentiation = reference_numbers()
    content = json.loads((tmp_path / "contribution.json").read_text())
    assert content["sequences"] == list(SEQUENCES)
    np.testing.assert_allclose(content["A"], matrix, atol=1e-4)
    assert content["C_t_rank"] == [4, 3, 2, 1]
    assert content["C_d_rank"] == [4, 3, 2, 1]
    with open(tmp_path / "contribution.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["C_t"]) for row in rows], totipotency, atol=1e-4)
    np.testing.assert_allclose([float(row["C_d"]) for row in rows], differentiation, atol=1e-4)
    np.testing.assert_allclose(float(rows[1]["A to flair"]), matrix[1, 3], atol=1e-4)
    assert (tmp_path / "contribution.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "contribution.png").read_bytes().startswith(b"\x89PNG")
    assert "-2.297" in outcome.out


def test_script_with_lpips_missing_and_other_folder(run, tmp_path):
    scores = [replace(row, lpips=NAN, lpips_per_slice=NAN) for row in reference_scores()]
    write_scores(tmp_path / "metrics.csv", scores)
    target = tmp_path / "new" / "folder"
    arguments = ("-o", target, "--sequences", "t1", "flair")
    assert run(tmp_path / "metrics.csv", *arguments).code == 0
    content = json.loads((target / "contribution.json").read_text())
    assert content["sequences"] == ["t1", "flair"]
    assert np.isfinite(content["A"]).all()


def test_script_without_metrics(run, tmp_path):
    assert run(tmp_path).error == f"{Path(tmp_path) / 'metrics.csv'} does not exist"


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_numbers_and_names_of_the_figure_do_not_overlap(count):
    names = ("t1", "t1ce", "t2", "flair", "pd", "t1_inversion", "dir", "t2star")[:count]
    matrix = np.full((count, count), -1.23)
    figure = contribution_figure(Contribution(names, matrix, np.ones(matrix.shape, int)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, axes = canvas.get_renderer(), figure.axes[0]
    numbers = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(numbers) == count**2
    assert not any(a.overlaps(b) for a, b in combinations(numbers, 2))
    if sum(map(len, names)) <= 32:  # else they stand aslant, where boxes overlap
        labels = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
