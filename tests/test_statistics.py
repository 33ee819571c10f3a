"""Intervals, effect sizes, Holm's correction and paired tests, by hand; the script."""

import csv
from math import inf, nan

import numpy as np
import pytest

from tsf_seq2seq.cli.trust import compare_methods
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, write_scores
from tsf_seq2seq.evaluation.statistics import (
    bootstrap,
    compare,
    comparison_table,
    holm,
    rank_biserial,
    smallest_p,
    subject_differences,
    wilcoxon_p,
)


def score(name: str, sources: str, method: str, psnr: float, lpips: float = nan) -> Score:
    return Score(name, sources, "flair", method, psnr, 0.9, lpips, nan)


def test_bootstrap():
    """Two subjects: of the draws a quarter each hold one of them alone, so the ends are theirs."""
    assert bootstrap([1.0, 3.0, nan, inf]) == (2, 1, 3)
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean, low, high = bootstrap(values)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * values.std() / 20, abs=0.02)
    assert high == pytest.approx(mean + 1.96 * values.std() / 20, abs=0.02)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values)
    assert bootstrap([4.0, 4.0, 4.0]) == (4, 4, 4)
    almost = bootstrap([1.0, 1 + 2**-52])  # equal but for rounding
    assert almost.low == almost.mean == almost.high
    one = bootstrap([4.0])
    assert one.mean == 4
    assert np.isnan(one[1:]).all()
    assert np.isnan(bootstrap([])).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("subjects", [2, 3, 5, 330])
def test_intervals_hold_the_mean_without_warnings(subjects):
    """Of a symmetric sample, of one subject apart from all others, and of whole numbers."""
    rng = np.random.default_rng(subjects)
    apart = np.append(np.zeros(subjects - 1), 1)
    for values in (rng.normal(size=subjects), apart, np.arange(subjects) % 2):
        mean, low, high = bootstrap(values)
        assert min(values) <= low <= mean <= high <= max(values)


def test_rank_biserial():
    """|d| = 1, 2, 3, 4 have the ranks 1 to 4: (1 + 3 + 4 − 2) / 10."""
    assert rank_biserial([0.1, 0.2, 0.5]) == 1
    assert rank_biserial([-0.1, -0.2, -0.5]) == -1
    assert rank_biserial([1, -2, 3, 4]) == pytest.approx(0.6)
    assert rank_biserial([1, -1, 0]) == 0  # a tie; zeros are left out
    assert np.isnan(rank_biserial([0, 0]))


def test_holm():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04 → never falling."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


def test_wilcoxon():
    """Exact: six of one sign is one of 2⁶ sign patterns, and its mirror image."""
    assert wilcoxon_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64) == smallest_p(6)
    assert wilcoxon_p([0, 0]) == 1
    assert smallest_p(5) > 0.05 > smallest_p(6)
    assert smallest_p(0) == 1


def test_a_subjects_tasks_are_averaged_first():
    scores = [
        *(score("a", sources, "tsf", 30.0, 4.0) for sources in ("t1", "t2")),
        score("a", "t1", "other", 29.0, 5.0),
        score("a", "t2", "other", 26.0, 8.0),
        score("b", "t1", "tsf", 30.0, 4.0),
        score("b", "t1", "other", 31.0, 3.0),
        score("c", "t1", "tsf", 30.0),  # the other has no score of it
        score("a", "t1+t2", "tsf", 99.0),
        score("a", "t1+t2", "other", 9.0),
    ]
    np.testing.assert_allclose(subject_differences(scores, "tsf", "other", "psnr", 1), [2.5, -1])
    # lower LPIPS is better
    np.testing.assert_allclose(subject_differences(scores, "tsf", "other", "lpips", 1), [2.5, -1])
    np.testing.assert_allclose(subject_differences(scores, "tsf", "other", "psnr", 2), [90])


def scores_of(subjects: int) -> list[Score]:
    """tsf is better by 1, 2, 3, … dB, and as good in SSIM."""
    return [
        score(str(i), "t1", method, 30.0 - (i + 1) * (method == "other"))
        for i in range(subjects)
        for method in ("tsf", "other")
    ]


def test_compare():
    psnr, ssim = compare(scores_of(6), "tsf")
    assert (psnr.metric, psnr.inputs, psnr.method, psnr.other) == ("psnr", 1, "tsf", "other")
    assert (psnr.subjects, psnr.difference, psnr.wins, psnr.effect) == (6, 3.5, 1, 1)
    assert psnr.p == psnr.p_holm == psnr.p_smallest == pytest.approx(1 / 32)
    assert 1 < psnr.low < 3.5 < psnr.high < 6
    assert (ssim.metric, ssim.difference, ssim.wins, ssim.p) == ("ssim", 0, 0, 1)
    assert np.isnan(ssim.effect)
    worse = compare(scores_of(6), "other")[0]
    assert (worse.difference, worse.effect) == (-3.5, -1)


def test_what_few_subjects_allow():
    few = comparison_table(compare(scores_of(5), "tsf")).markdown()
    assert "with fewer than 6 subjects no test can be significant at 0.05" in few
    enough = comparison_table(compare(scores_of(6), "tsf")).markdown()
    assert "the least p possible is 0.031, after Holm's correction over 1 tests 0.031." in enough
    twice = [*scores_of(6), *(score(str(i), "t1", "third", 20.0 + i) for i in range(6))]
    text = comparison_table(compare(twice, "tsf")).markdown()
    assert "over 2 tests 0.062: no test can stay significant at 0.05 after it" in text
    assert all(c.p_holm > 0.05 for c in compare(twice, "tsf"))


def test_nothing_to_compare():
    with pytest.raises(UserError, match="no scores of method best, only of tsf, other"):
        compare(scores_of(2), "best")
    with pytest.raises(UserError, match="there are no two methods to compare"):
        compare([score("a", "t1", "tsf", 30.0)], "tsf")


def test_script(script, tmp_path):
    write_scores(tmp_path / "metrics.csv", scores_of(6))
    outcome = script(compare_methods, tmp_path)
    assert outcome.code == 0, outcome.err
    with open(tmp_path / "comparisons.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == ["psnr", "ssim"]
    assert float(rows[0]["difference"]) == 3.5
    assert "| PSNR (dB) | 1      | other       | 6        | +3.50 [" in outcome.out
    assert (tmp_path / "comparisons.md").read_text().startswith("# Paired comparisons")
