"""Sequence contribution: how well each sequence synthesizes the others (Seq2Seq, 2302.00517)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import COMPARED, Score, examined_method
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.tables import Table, group_by, table_text


@dataclass(frozen=True)
class Contribution:
    """A (S, S), source × target; `subjects` (S, S): volume pairs behind each entry."""

    sequences: tuple[str, ...]
    matrix: np.ndarray
    subjects: np.ndarray

    @property
    def totipotency(self) -> np.ndarray:
        """C_t(i) = Σ_j A[i, j] / S: how well sequence i gives all sequences."""
        return self.matrix.sum(axis=1) / len(self.sequences)

    @property
    def differentiation(self) -> np.ndarray:
        """C_d(i) = −Σ_j A[j, i] / S: how badly all sequences give sequence i."""
        return -self.matrix.sum(axis=0) / len(self.sequences)


def contribution_of(
    scores: Sequence[Score], sequences: Sequence[str] = (), method: str | None = None
) -> Contribution:
    """Contribution of the sequences (of those named, else in order of first appearance).

    Only single-source scores of `method` (else the first) among them count, reconstructions
    (source = target) included. Raises UserError where there are none, or a sequence named is in
    none of them.
    """
    method = examined_method(scores, method)
    rows = [row for row in scores if row.method == method and row.n_inputs == 1]
    found = list(dict.fromkeys(name for row in rows for name in (row.sources, row.target)))
    if not found:
        raise UserError(f"there are no scores of single-source synthesis (method {method})")
    unknown = [name for name in sequences if name not in found]
    if unknown:
        raise UserError(f"there are no scores of {unknown[0]}, only of {', '.join(found)}")
    names = tuple(dict.fromkeys(sequences or found))
    rows = [row for row in rows if {row.sources, row.target} <= set(names)]

    def pair(row: Score) -> tuple[int, int]:
        return names.index(row.sources), names.index(row.target)

    subjects = np.zeros((len(names), len(names)), dtype=int)
    matrix = np.zeros(subjects.shape)
    for place, own in group_by(rows, pair).items():
        subjects[place] = len(own)
    for metric in COMPARED:
        finite = [row for row in rows if isfinite(metric.of(row))]
        every = [metric.of(row) for row in finite]
        for place, own in group_by(finite, pair).items():
            matrix[place] += metric.sign * z_score([metric.of(row) for row in own], every)
    return Contribution(names, matrix, subjects)


def z_score(values: Sequence[float], every: Sequence[float]) -> float:
    """z = (mean of a pair's values − mean of every pair's) / (σ of every pair's + 1e-9)."""
    return float((np.mean(values) - np.mean(every)) / (np.std(every) + 1e-9))


def ranks(values: np.ndarray) -> list[int]:
    """1 for the largest value, 2 for the next, …"""
    return [int(rank) for rank in rankdata(-values, method="ordinal")]


def contribution_table(contribution: Contribution) -> Table:
    """One row a sequence: its A to every target, C_t and C_d with their ranks."""
    totipotency, differentiation = contribution.totipotency, contribution.differentiation
    columns: list[Sequence[object]] = [
        contribution.sequences,
        *contribution.matrix.T.tolist(),
        *(totipotency.tolist(), ranks(totipotency)),
        *(differentiation.tolist(), ranks(differentiation)),
    ]
    headings = ["source", *(f"A to {name}" for name in contribution.sequences)]
    return Table(
        "Sequence contribution A = z(PSNR) + z(SSIM) − z(LPIPS) of each source's synthesis of each "
        "target; C_t, totipotency: how well a sequence gives the others; C_d, imaging "
        "differentiation: how badly the others give it.",
        [*headings, "C_t", "C_t rank", "C_d", "C_d rank"],
        list(zip(*columns, strict=True)),
    )


def write_contribution(folder: Path, contribution: Contribution) -> None:
    """Write contribution.csv (one row a sequence) and contribution.json."""
    content = {
        "sequences": contribution.sequences,
        "A": contribution.matrix.tolist(),
        "subjects": contribution.subjects.tolist(),
        "C_t": contribution.totipotency.tolist(),
        "C_d": contribution.differentiation.tolist(),
        "C_t_rank": ranks(contribution.totipotency),
        "C_d_rank": ranks(contribution.differentiation),
    }
    table = contribution_table(contribution)
    texts = table_text(table.headings, table.rows), json.dumps(content, indent=1) + "\n"
    write_texts(folder, dict(zip(("contribution.csv", "contribution.json"), texts, strict=True)))
