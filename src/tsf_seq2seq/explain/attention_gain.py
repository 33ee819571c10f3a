"""How much of what the network gains comes through the attention residual f_A."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np

from tsf_seq2seq.evaluation.scores import COMPARED, METRICS, Score, examined_method
from tsf_seq2seq.evaluation.statistics import INTERVALS, bootstrap
from tsf_seq2seq.explain.source_values import without_attention
from tsf_seq2seq.synthesis.synthesizers import MEAN_IMAGE
from tsf_seq2seq.tables import Table, cell_text, group_by


@dataclass(frozen=True)
class AttentionGain:
    """What f_A brings on a task, mean over subjects: a row of attention_gain.csv.

    `gain`: what the method has more than its ablation without f_A, with its 95 % interval, positive
    where f_A helps (LPIPS's sign is turned); `wins`: share of subjects where it does; `of_total`:
    the gain as a share of what the network gains over the training subjects' mean image, nan where
    that wasn't scored.
    """

    LABELS: ClassVar[int] = 3
    sources: str
    target: str
    metric: str
    subjects: int
    gain: float
    low: float
    high: float
    wins: float
    of_total: float


def attention_gains(scores: Sequence[Score], method: str | None = None) -> list[AttentionGain]:
    """Per metric and task, over the subjects that have scores of `method` with and without f_A."""
    method = examined_method(scores, method)
    found = {(score.method, score.volume): score for score in scores}
    tasks = group_by(
        (s for s in scores if s.method == method), lambda score: (score.sources, score.target)
    )
    gains = []
    for metric in COMPARED:
        for task, own in tasks.items():
            full, plain, empty = (
                np.array([metric.of(found.get((rival, score.volume))) for score in own])
                for rival in (method, without_attention(method), MEAN_IMAGE)
            )
            both = np.isfinite(full - plain)
            if not both.any():
                continue
            differences = metric.sign * (full - plain)[both]
            total = metric.sign * float((full - empty)[both].mean())
            mean, wins = bootstrap(differences), float((differences > 0).mean())
            share = mean.mean / total if total else nan
            gains.append(AttentionGain(*task, metric.key, len(differences), *mean, wins, share))
    return gains


def attention_gain_table(gains: Sequence[AttentionGain]) -> Table:
    """One row a task: gains in every metric, and the first one's share of the whole gain."""
    metrics = [METRICS[key] for key in dict.fromkeys(gain.metric for gain in gains)]
    rows = []
    for task, own in group_by(gains, lambda gain: (gain.sources, gain.target)).items():
        shown = {g.metric: METRICS[g.metric].difference(g.gain, g.low, g.high) for g in own}
        first = own[0]
        cells = [first.subjects, f"{first.wins:.0%}", cell_text(first.of_total, ".1%")]
        rows.append([*task, *cells, *(shown.get(metric.key) for metric in metrics)])
    of = metrics[0].heading if metrics else "metric"
    return Table(
        "What f_A brings: the network with it minus without, positive where it helps (LPIPS's sign "
        f"is turned). {INTERVALS}. Subjects helped, and f_A's share of what the network gains over "
        f"the mean image, by {of}.",
        ["sources", "target", "subjects", "helps in", "share of the gain"]
        + [metric.heading for metric in metrics],
        rows,
        labels=2,
    )
