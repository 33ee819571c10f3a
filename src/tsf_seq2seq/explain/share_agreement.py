"""Do contributions order the sources as what they bring does, better than ω? Subject by subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import METRICS
from tsf_seq2seq.explain.contributions import SourceShare
from tsf_seq2seq.explain.error_estimation import BRAIN
from tsf_seq2seq.explain.fusion_weights import Omegas
from tsf_seq2seq.explain.source_values import SourceValue
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.tables import Table, cell_text, group_by

Shares = Mapping[tuple[str, str], Mapping[str, float]]  # subject and target → source → share


@dataclass(frozen=True)
class ShareAgreement:
    """How ω and the shares of contributions order a target's sources, against their Shapley values
    of a metric: a row of share_agreement.csv.

    Means over subjects (of the row "all", over subjects and targets): Spearman's rank correlation,
    and in what part of them the same source comes first.
    """

    LABELS: ClassVar[int] = 2
    target: str
    metric: str
    subjects: int
    omega: float
    omega_first: float
    contributions: float
    contributions_first: float


def share_agreements(
    values: Sequence[SourceValue], omega: Omegas, rows: Sequence[SourceShare]
) -> list[ShareAgreement]:
    """Of the subjects that have both Shapley values and contributions from all sources of a target.

    Raises UserError where there are none.
    """
    shares: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.region == BRAIN:
            shares.setdefault((row.name, row.target), {})[row.source] = row.share
    weights = {(frozenset(sources.split("+")), to): own for (sources, to), own in omega.items()}
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for (name, target, metric), own in group_by(
        values, lambda value: (value.name, value.target, value.metric)
    ).items():
        brought = {value.source: value.shapley for value in own}
        orders = weights.get((frozenset(brought), target)), shares.get((name, target))
        if any(order is None or not brought.keys() <= order.keys() for order in orders):
            continue
        agreed = [part for order in orders if order for part in _agreement(order, brought)]
        found.setdefault((target, metric), []).append(tuple(agreed))
    if not found:
        raise UserError(
            "no subject has both scores from all source sets and contributions from all sources"
        )
    agreements = [
        ShareAgreement(target, metric, len(own), *np.nanmean(own, axis=0).tolist())
        for (target, metric), own in found.items()
    ]
    for metric in dict.fromkeys(metric for _, metric in found):
        every = [row for (_, own), rows in found.items() if own == metric for row in rows]
        mean = np.nanmean(every, axis=0).tolist()
        agreements.append(ShareAgreement("all", metric, len(every), *mean))
    return agreements


def share_agreement_table(rows: Sequence[ShareAgreement]) -> Table:
    """One row a target and metric."""
    cells = [
        [
            *(row.target, METRICS[row.metric].heading, row.subjects),
            *(cell_text(row.omega, "+.2f"), f"{row.omega_first:.0%}"),
            *(cell_text(row.contributions, "+.2f"), f"{row.contributions_first:.0%}"),
        ]
        for row in rows
    ]
    headings = ["target", "metric", "subjects", "ω", "ω: same first", "contributions"]
    return Table(
        "Do ω and the shares of the contributions order a target's sources as their Shapley values "
        "of a metric do? Means of the rank correlations of single subjects, and how often the same "
        "source comes first.",
        [*headings, "contributions: same first"],
        cells,
        labels=2,
    )


def _agreement(order: Mapping[str, float], brought: Mapping[str, float]) -> tuple[float, float]:
    """Rank correlation of an order of sources with what they bring, and 1 for the same first."""
    sources = list(brought)
    first, best = (max(sources, key=own.__getitem__) for own in (order, brought))
    pair = (np.array([own[source] for source in sources]) for own in (order, brought))
    return rank_correlation(*pair), float(first == best)
