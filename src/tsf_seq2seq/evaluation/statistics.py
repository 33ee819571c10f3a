"""What the differences between methods are worth: intervals and tests over subjects."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import scipy.stats
from scipy.stats import rankdata, wilcoxon

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import (
    COMPARED,
    METRICS,
    Metric,
    Score,
    examined_method,
    measured_metrics,
    methods_of,
)
from tsf_seq2seq.tables import Table, cell_text, group_by, write_table

ALPHA = 0.05
RESAMPLES = 10_000
ROUNDING = 1e-12  # values that differ by less than this share of themselves are equal
INTERVALS = "95 % intervals in brackets: BCa bootstrap over subjects"


class OfSubject(Protocol):
    """A row that says something of a subject."""

    @property
    def name(self) -> str: ...


_Row = TypeVar("_Row", bound=OfSubject)


class Estimate(NamedTuple):
    """A mean over subjects with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0) -> Estimate:
    """Mean of one value per subject, and the BCa bootstrap's interval over subjects (Efron 1987).

    Values that are not finite are left out. The interval is nan for fewer than two subjects, the
    mean itself where all are equal (BCa is not defined for either), and too narrow for a handful.
    Equal numbers of subjects are drawn alike, so that the intervals of a table are of the same
    draws.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 2:
        return Estimate(float(finite[0]) if len(finite) else nan, nan, nan)
    mean = float(finite.mean())
    if np.ptp(finite) <= ROUNDING * np.abs(finite).max():
        return Estimate(mean, mean, mean)
    ends = scipy.stats.bootstrap(
        (finite,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - ALPHA,
        method="BCa",
        batch=max(1, 2_000_000 // len(finite)),  # keeps the draws of many subjects out of memory
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(ends.low), float(ends.high))


def subject_means(rows: Iterable[_Row], value: Callable[[_Row], float]) -> np.ndarray:
    """Each subject's mean of a value over its rows, (subjects,); what isn't finite is left out.

    A subject's tasks are averaged before subjects are: they are not independent of each other.
    """
    finite = [(row.name, own) for row in rows if isfinite(own := value(row))]
    subjects = group_by(finite, lambda pair: pair[0]).values()
    return np.array([np.mean([own for _, own in pairs]) for pairs in subjects])


def over_subjects(rows: Iterable[_Row], value: Callable[[_Row], float]) -> Estimate:
    """Mean and interval over subjects of a value that is averaged over a subject's tasks first."""
    return bootstrap(subject_means(rows, value))


class Means(NamedTuple):
    """A row of a table of means: what its rows share, their subjects and number, and estimates."""

    key: tuple[Any, ...]
    subjects: int
    volumes: int
    metrics: dict[str, Estimate]


def means_of(
    rows: Iterable[_Row], key: Callable[[_Row], tuple[Any, ...]], metrics: Iterable[Metric]
) -> list[Means]:
    """Metrics over subjects, by key: sorted by its first part, then in order of appearance."""
    groups = sorted(group_by(rows, key).items(), key=lambda group: group[0][0])
    means = []
    for name, own in groups:
        estimates = {metric.key: over_subjects(own, metric.of) for metric in metrics}
        means.append(Means(name, len({row.name for row in own}), len(own), estimates))
    return means


def means_table(
    caption: str, headings: Sequence[str], means: Iterable[Means], metrics: Sequence[Metric]
) -> Table:
    """One row per key; the caption is followed by what the numbers are."""
    return Table(
        f"{caption}. Means over subjects, whose tasks are averaged first. {INTERVALS}.",
        [*headings, "subjects", "volumes", *(metric.heading for metric in metrics)],
        [
            [*row.key, row.subjects, row.volumes]
            + [metric.text(*row.metrics[metric.key]) for metric in metrics]
            for row in means
        ],
        labels=len(headings),
    )


def method_means(scores: Sequence[Score]) -> list[Means]:
    """(number of inputs, method) → means of the metrics that were computed."""
    metrics = measured_metrics(scores)
    return means_of(scores, lambda score: (score.n_inputs, score.method), metrics)


def method_table(means: Sequence[Means]) -> Table:
    """One row per number of inputs and method."""
    metrics = [METRICS[key] for key in means[0].metrics]
    return means_table("Methods", ["inputs", "method"], means, metrics)


def write_method_means(path: Path, means: Iterable[Means]) -> None:
    """Write summary.csv: one row per number of inputs, method and metric."""
    columns = ["inputs", "method", "subjects", "pairs", "metric", "mean", "low", "high"]
    rows = [
        (*row.key, row.subjects, row.volumes, metric, *estimate)
        for row in means
        for metric, estimate in row.metrics.items()
    ]
    write_table(path, columns, rows)


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

    LABELS: ClassVar[int] = 4
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


def compare(scores: Sequence[Score], method: str | None = None) -> list[Comparison]:
    """`method` (else the first) against every other, per number of inputs and metric.

    Raises UserError where there are no scores of `method`, or none of another on the same tasks.
    """
    method = examined_method(scores, method)
    others = [other for other in methods_of(scores) if other != method]
    comparisons = compare_pairs(scores, [(method, other) for other in others])
    if not comparisons:
        raise UserError(f"there are no two methods to compare, only scores of {method}")
    return comparisons


def compare_pairs(scores: Sequence[Score], pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Each pair's first method against its second, per metric and number of inputs.

    Pairs without scores of the same tasks are left out.
    """
    sizes = sorted(group_by(scores, lambda score: score.n_inputs).items())
    comparisons = []
    for metric in COMPARED:
        groups = {
            (inputs, *pair): subject_differences(own, *pair, metric.key, inputs)
            for inputs, own in sizes
            for pair in pairs
        }
        groups = {key: differences for key, differences in groups.items() if len(differences)}
        p_values = [wilcoxon_p(differences) for differences in groups.values()]
        tests = zip(groups.items(), p_values, holm(p_values), strict=True)
        for (key, own), p, p_holm in tests:
            wins, effect, least = float((own > 0).mean()), rank_biserial(own), smallest_p(len(own))
            difference = bootstrap(own)
            comparisons.append(
                Comparison(metric.key, *key, len(own), *difference, wins, effect, p, p_holm, least)
            )
    return comparisons


def subject_differences(
    scores: Sequence[Score], method: str, other: str, metric: str, inputs: int
) -> np.ndarray:
    """Per subject, the mean over its tasks of `inputs` sources of how much better `method` is."""
    value = METRICS[metric].of
    rivals = {score.volume: value(score) for score in scores if score.method == other}
    own = [score for score in scores if score.method == method and score.n_inputs == inputs]
    return METRICS[metric].sign * subject_means(
        own, lambda score: value(score) - rivals.get(score.volume, nan)
    )


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison of one method with others."""
    method = comparisons[0].method
    labels = [(METRICS[c.metric].heading, c.inputs, c.other) for c in comparisons]
    headings = ["metric", "inputs", f"{method} against"]
    return paired_table("Paired differences", method, headings, labels, comparisons)


def paired_table(
    title: str,
    better: str,
    headings: Sequence[str],
    labels: Sequence[Sequence[object]],
    comparisons: Sequence[Comparison],
) -> Table:
    """One row a comparison, its labels first; `better`: who is where differences are positive.

    The caption says what the number of subjects lets the tests find.
    """
    return Table(
        f"{title} over subjects, whose tasks are averaged first; positive where {better} is "
        f"better. {INTERVALS}. {power_note(comparisons)}",
        [*headings, "subjects", "better by", "better in", "effect", "p", "p (Holm)"],
        [
            [
                *(*own, c.subjects),
                METRICS[c.metric].difference(c.difference, c.low, c.high),
                *(f"{c.wins:.0%}", cell_text(c.effect, "+.2f"), f"{c.p:.2g}", f"{c.p_holm:.2g}"),
            ]
            for own, c in zip(labels, comparisons, strict=True)
        ],
        labels=len(headings),
    )


def power_note(comparisons: Sequence[Comparison]) -> str:
    """Whether the tests could have found anything, in a sentence."""
    fewest, most = (choose(c.subjects for c in comparisons) for choose in (min, max))
    tests = max(map(len, group_by(comparisons, lambda c: c.metric).values()))
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
