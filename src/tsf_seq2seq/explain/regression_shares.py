"""What each source brings to the regression that a network's output starts from."""

from collections.abc import Sequence

import numpy as np
import torch

from tsf_seq2seq.models.regression_head import RegressionHead
from tsf_seq2seq.synthesis.contrast_map import ContrastMap
from tsf_seq2seq.tables import Table
from tsf_seq2seq.tasks import Task


@torch.no_grad()
def head_map(head: RegressionHead, task: Task) -> ContrastMap:
    """A task's regression, as learned, as a map of the sources (in the sequences' order)."""
    rows = head.rows_of(task.sources)
    coefficients = head.coefficients(task.sources, task.target)[rows].double().cpu().numpy()
    # Columns B in which φ are orthonormal: B Bᵀ is the inverse of the mean of φ φᵀ.
    basis = head.basis_of(task.sources)[rows][:, rows].double().cpu().numpy()
    metric = np.linalg.pinv(basis @ basis.T)
    return ContrastMap(tuple(coefficients.tolist()), tuple(metric.ravel().tolist()), False, 0)


def regression_share_table(
    head: RegressionHead, tasks: Sequence[Task], names: Sequence[str]
) -> Table:
    """One row a task: the share of each source in the regression's variance over training brains.

    Products are halved between their factors: a row sums to one, and may have negative shares.
    """
    rows = []
    for task in tasks:
        shares = dict(zip(sorted(task.sources), head_map(head, task).shares(), strict=True))
        cells = [float(shares[i]) if i in shares else None for i in range(len(names))]
        rows.append([*task.label(names), *cells])
    caption = (
        "Regression: the share of each source in the variance, over the brains of the training "
        "data, of the image that the network's output starts from; products are halved between "
        "their factors."
    )
    return Table(caption, ["sources", "target", *names], rows, labels=2, style=".3f")
