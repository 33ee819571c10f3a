"""What the differences between methods are worth: intervals and tests over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, wilcoxon

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.tables import interval, markdown, number

ALPHA = 0.05
RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean over subjects with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0) -> Estimate:
    """Mean of one value per subject, and the percentile bootstrap's interval over subjects.

    Values that are not finite are left out; the interval is nan for fewer than two subjects, and
    too narrow for a handful. Equal numbers of subjects are drawn alike, so that the intervals of a
    table are of the same draws.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 2:
        return Estimate(float(finite[0]) if len(finite) else nan, nan, nan)
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(finite))  # keeps the draws of many subjects out of memory
    means = [
        finite[rng.integers(len(finite), size=(min(block, RESAMPLES - done), len(finite)))].mean(1)
        for done in range(0, RESAMPLES, block)
    ]
    low, high = np.quantile(np.concatenate(means), [ALPHA / 2, 1 - ALPHA / 2])
    return Estimate(float(finite.mean()), float(low), float(high))


def rank_biserial(differences: Sequence[float] | np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation r = (W₊ − W₋) / (W₊ + W₋), in [-1, 1].

    W₊, W₋: sums of the ranks of |difference| over positive and negative ones (Kerby 2014); zeros
    are left out. nan where all are zero.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return nan
    ranks = rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; zeros are left out, 1 where all are zero."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    return float(wilcoxon(values).pvalue) if len(values) else 1.0


def smallest_p(subjects: int) -> float:
    """2 / 2^n: the least that the two-sided test can give for n subjects, all of one sign."""
    return min(1.0, 2.0 ** (1 - subjects))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: max over j ≤ i of min(1, (m − j + 1) · p_(j)), p rising."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """One method against another at one number of inputs: a row of comparisons.csv.

    Differences are those of a subject's mean over the tasks that both methods have, in the
    direction in which positive says that `method` is better (LPIPS's sign is turned): their mean
    with 95 % interval, the share of subjects where positive, the rank-biserial effect, Wilcoxon's
    p, p by Holm over all comparisons of the metric, and the least p that so many subjects allow.
    """

    metric: str
    inputs: int
    method: str
    other: str
    subjects: int
    difference: float
    low: float
    high: float
    wins: float
    effect: float
    p: float
    p_holm: float
    p_smallest: float


def compare(scores: Sequence[Score], method: str) -> list[Comparison]:
    """`method` against every other, per number of inputs and metric.

    Raises UserError where there are no scores of `method`, or none of another on the same tasks.
    """
    methods = list(dict.fromkeys(score.method for score in scores))
    if method not in methods:
        raise UserError(f"there are no scores of method {method}, only of {', '.join(methods)}")
    inputs = sorted({score.n_inputs for score in scores})
    comparisons = []
    for metric in SIGNS:
        groups = {
            (n, other): subject_differences(scores, method, other, metric, n)
            for n in inputs
            for other in methods
            if other != method
        }
        groups = {key: differences for key, differences in groups.items() if len(differences)}
        p_values = [wilcoxon_p(differences) for differences in groups.values()]
        for key, p, p_holm in zip(groups, p_values, holm(p_values), strict=True):
            comparisons.append(_comparison(metric, method, key, groups[key], p, p_holm))
    if not comparisons:
        raise UserError(f"there are no two methods to compare, only scores of {method}")
    return comparisons


def subject_differences(
    scores: Sequence[Score], method: str, other: str, metric: str, inputs: int
) -> np.ndarray:
    """Per subject, the mean over its tasks of `inputs` sources of how much better `method` is.

    A subject's tasks are averaged first: they are not independent of each other.
    """
    rivals = {
        (s.name, s.sources, s.target): getattr(s, metric) for s in scores if s.method == other
    }
    subjects: dict[str, list[float]] = {}
    for score in scores:
        if score.method == method and score.n_inputs == inputs:
            rival = rivals.get((score.name, score.sources, score.target), nan)
            difference = SIGNS[metric] * (getattr(score, metric) - rival)
            if isfinite(difference):
                subjects.setdefault(score.name, []).append(difference)
    return np.array([np.mean(differences) for differences in subjects.values()])


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """One row a comparison, and what the number of subjects lets the tests say."""
    rows = [["metric", "inputs", "method", "against", "subjects", "better by [95 % interval]"]]
    rows[0] += ["better in", "effect", "p", "p (Holm)"]
    for c in comparisons:
        style = "+.2f" if c.metric == "psnr" else "+.4f" if c.metric == "ssim" else "+.3f"
        cells = [interval(c.difference, c.low, c.high, style), f"{c.wins:.0%}"]
        cells += [number(c.effect, "+.2f"), f"{c.p:.2g}", f"{c.p_holm:.2g}"]
        rows.append([c.metric, str(c.inputs), c.method, c.other, str(c.subjects), *cells])
    return f"{markdown(rows)}\n\n{power_note(comparisons)}"


def power_note(comparisons: Sequence[Comparison]) -> str:
    """Whether the tests could have found anything, in a sentence."""
    fewest, most = (choose(c.subjects for c in comparisons) for choose in (min, max))
    tests = max(sum(c.metric == metric for c in comparisons) for metric in SIGNS)
    numbers = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    least = smallest_p(most)
    text = (
        f"Wilcoxon signed-rank tests over {numbers} subjects, two-sided; effect: matched-pairs "
        f"rank-biserial correlation. With {most} subjects the least p possible is {least:.2g}, "
        f"after Holm's correction over {tests} tests {min(1.0, tests * least):.2g}"
    )
    if least > ALPHA:
        return f"{text}: with fewer than 6 subjects no test can be significant at {ALPHA}."
    if tests * least > ALPHA:
        return f"{text}: no test can stay significant at {ALPHA} after it."
    return f"{text}."


def _comparison(
    metric: str,
    method: str,
    key: tuple[int, str],
    differences: np.ndarray,
    p: float,
    p_holm: float,
) -> Comparison:
    n = len(differences)
    wins, effect = float((differences > 0).mean()), rank_biserial(differences)
    mean = bootstrap(differences)
    return Comparison(
        metric, key[0], method, key[1], n, *mean, wins, effect, p, p_holm, smallest_p(n)
    )
