"""What complete subjects of a scanner bring: scores by how many of them a network is adapted by."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from tsf_seq2seq.evaluation.scores import (
    METRICS,
    PSNR,
    Metric,
    Score,
    measured_metrics,
    methods_of,
)
from tsf_seq2seq.evaluation.statistics import (
    Comparison,
    Estimate,
    Means,
    compare_pairs,
    means_of,
    means_table,
    paired_table,
    subject_differences,
)
from tsf_seq2seq.synthesis.adapted_names import (
    AS_TRAINED,
    AdaptedMethod,
    adapted_methods,
    families_of,
)
from tsf_seq2seq.tables import Table, group_by, write_rows
from tsf_seq2seq.tasks import n_inputs

BY_REFERENCES, GAINS, BY_TASK = "By number of references", "Gains by adaptation", "Gain by task"
REFERENCES = (
    "References: the complete subjects of the same site that a method is adapted by; 0: by the "
    "checkpoint's own map of validation subjects"
)


@dataclass(frozen=True)
class AdaptationRow:
    """A method of an adapted network at one number of inputs: a row of adaptation.csv.

    `references`: their number, or "as trained". Mean of the metric over subjects, whose tasks are
    averaged first, with 95 % interval; the same of the gain over the network's method as trained,
    positive where adaptation is better (LPIPS's sign is turned); the share of subjects where it is,
    Wilcoxon's p, and p by Holm over all gains of the metric. The last six are nan as trained.
    """

    LABELS: ClassVar[int] = 4
    family: str
    references: str
    inputs: int
    metric: str
    subjects: int
    mean: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    wins: float
    p: float
    p_holm: float


class Line(NamedTuple):
    """A family at one number of inputs: estimates, and their places among the curve's stops."""

    family: str
    inputs: int
    places: list[int]
    estimates: list[Estimate]


@dataclass(frozen=True)
class AdaptationCurve:
    """Adapted networks' `methods`, and their `scores` of what these synthesize as trained.

    `means` by (number of inputs, AdaptedMethod); `gains`: each over its plain method.
    """

    methods: Sequence[AdaptedMethod]
    scores: Sequence[Score]
    means: Sequence[Means]
    gains: Sequence[Comparison]

    @property
    def networks(self) -> list[str]:
        """The methods as trained."""
        return list(dict.fromkeys(one.plain for one in self.methods))

    @property
    def metrics(self) -> list[Metric]:
        """Those that were computed."""
        return [METRICS[key] for key in self.means[0].metrics]

    def stops(self, network: str) -> list[str]:
        """What stands along its curve: as trained, and each number of references."""
        numbers = {one.references for one in self.methods if one.plain == network}
        return [AS_TRAINED, *map(str, sorted(number for number in numbers if number is not None))]

    def means_of_network(self, network: str) -> list[Means]:
        """Its own, and those of its rivals."""
        return [row for row in self.means if row.key[1].plain == network]

    def lines(self, network: str, metric: Metric) -> list[Line]:
        """Of the network itself by number of inputs, then of each rival."""
        stops, lines = self.stops(network), []
        own = self.means_of_network(network)
        for family in families_of(network):
            points = [row for row in own if row.key[1].family == family]
            for inputs, rows in group_by(points, lambda row: row.key[0]).items():
                places = [stops.index(row.key[1].adapted_by) for row in rows]
                lines.append(
                    Line(family, inputs, places, [row.metrics[metric.key] for row in rows])
                )
        return lines


def adaptation_curve(scores: Sequence[Score]) -> AdaptationCurve | None:
    """Of the scores' adapted networks; None where they are of none."""
    methods = adapted_methods(methods_of(scores))
    order = {one.name: (place, one) for place, one in enumerate(methods)}
    as_trained = {(score.method, score.volume) for score in scores}
    own = [
        score
        for score in scores
        if score.method in order and (order[score.method][1].plain, score.volume) in as_trained
    ]
    own.sort(key=lambda score: order[score.method][0])
    pairs = [(one.name, one.plain) for one in methods if one.name != one.plain]
    gains = compare_pairs(own, pairs)
    if not gains:
        return None
    means = means_of(
        own, lambda score: (score.n_inputs, order[score.method][1]), measured_metrics(own)
    )
    return AdaptationCurve(methods, own, means, gains)


def write_adaptation_rows(path: Path, curve: AdaptationCurve) -> None:
    """Write adaptation.csv."""
    gains = {(gain.metric, gain.inputs, gain.method): gain for gain in curve.gains}
    rows = []
    for row in curve.means:
        inputs, method = row.key
        for metric, estimate in row.metrics.items():
            gain, worth = gains.get((metric, inputs, method.name)), (nan,) * 6
            if gain is not None:
                interval = gain.difference, gain.low, gain.high
                worth = (*interval, gain.wins, gain.p, gain.p_holm)
            key = method.family, method.adapted_by, inputs, metric, row.subjects
            rows.append(AdaptationRow(*key, *estimate, *worth))
    write_rows(path, AdaptationRow, rows)


def adaptation_tables(curve: AdaptationCurve) -> dict[str, Table]:
    """By number of references, gains over the methods as trained, and gains by task, by title."""
    networks = curve.networks
    titles = {name: BY_TASK if len(networks) == 1 else f"{BY_TASK}: {name}" for name in networks}
    by_task = {title: task_gain_table(curve, name) for name, title in titles.items()}
    by_references = reference_table(curve.means, curve.metrics)
    return {BY_REFERENCES: by_references, GAINS: gain_table(curve)} | by_task


def reference_table(means: Sequence[Means], metrics: Sequence[Metric]) -> Table:
    """One row per number of inputs, family and number of references, of a curve's means."""
    rows = [
        row._replace(key=(row.key[0], row.key[1].family, row.key[1].adapted_by)) for row in means
    ]
    headings = ["inputs", "method", "references"]
    return means_table(f"Adapted networks. {REFERENCES}", headings, rows, metrics)


def gain_table(curve: AdaptationCurve) -> Table:
    """One row per metric, number of inputs and adapted method."""
    of_name = {one.name: one for one in curve.methods}
    labels = [
        (METRICS[gain.metric].heading, gain.inputs, own.family, own.adapted_by)
        for gain in curve.gains
        for own in [of_name[gain.method]]
    ]
    title = f"Gains over {' and '.join(curve.networks)} as trained: paired differences"
    headings = ["metric", "inputs", "method", "references"]
    return paired_table(title, "adaptation", headings, labels, curve.gains)


def task_gain_table(curve: AdaptationCurve, network: str) -> Table:
    """One row a task of the network, in the order of scores: its mean gain in PSNR."""
    adapted = [one for one in curve.methods if one.family == network != one.name]
    tasks = group_by(
        [score for score in curve.scores if score.method in {network, *(m.name for m in adapted)}],
        lambda score: (score.sources, score.target),
    )
    rows = []
    for task, own in sorted(tasks.items(), key=lambda item: n_inputs(item[0][0])):
        differences = [
            subject_differences(own, one.name, network, PSNR.key, n_inputs(task[0]))
            for one in adapted
        ]
        gains = [float(np.mean(found)) if len(found) else nan for found in differences]
        subjects = len({score.name for score in own})
        rows.append([*task, subjects, *(PSNR.difference(gain) for gain in gains)])
    return Table(
        f"Gain in {PSNR.heading} over {network} as trained, by number of references: means over "
        "subjects",
        ["sources", "target", "subjects", *(f"+ {one.references}" for one in adapted)],
        rows,
        labels=2,
    )
