"""What synthetic sequences are worth to a segmentation network that was trained on real ones."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.evaluation.scores import Metric
from tsf_seq2seq.evaluation.segmentation import REGIONS, region_masks, segment
from tsf_seq2seq.evaluation.statistics import (
    INTERVALS,
    bootstrap,
    holm,
    means_of,
    means_table,
    subject_means,
    wilcoxon_p,
)
from tsf_seq2seq.synthesis.synthesizers import MEAN_IMAGE, Synthesizer
from tsf_seq2seq.synthesis.windows import load_window, window_labels
from tsf_seq2seq.tables import Table
from tsf_seq2seq.tasks import Task

REAL_SEQUENCE, LEFT_OUT_SEQUENCE = "real", "left out"
DICE = Metric("dice", 1, "Dice", 3, 3)
HAUSDORFF = Metric("hausdorff_95", -1, "95 % Hausdorff (mm)", 1, 1)


@dataclass(frozen=True)
class SegmentationScore:
    """A region's segmentation where one sequence is missing: a row of downstream.csv.

    `target`: that sequence; `method`: what stands in its place: the real one, background ("left
    out"), or what a method made of all others. Dice; 95th percentile of the Hausdorff distance, mm,
    both ways, in 3-d. Where a region is in neither they are 1 and 0, where it is in one of both 0
    and the diagonal of the evaluated window.
    """

    LABELS: ClassVar[int] = 4
    name: str
    target: str
    method: str
    region: str
    dice: float
    hausdorff_95: float


def segmentation_scores(
    segmenter: nn.Module,
    config: Config,
    subject: Subject,
    synthesizers: Sequence[Synthesizer],
    batch_size: int,
) -> list[SegmentationScore]:
    """Of a subject with all sequences and a label map: each sequence in turn is missing."""
    names, stack = list(config.data.sequences), config.data.stack
    loaded = load_window(config, subject)
    labels = window_labels(config, loaded)
    assert labels is not None
    half, images = stack // 2, loaded.centres
    inner = slice(half, len(labels) - half)  # of the centre slices' own stacks
    truth = region_masks(labels[inner])
    spacing = loaded.volumes.geometry.spacing

    def scores(target: str, method: str, given: np.ndarray) -> list[SegmentationScore]:
        found = segment(segmenter, given, stack, batch_size)
        pairs = zip(REGIONS, found, truth, strict=True)
        return [
            SegmentationScore(subject.name, target, method, name, *_compared(own, wanted, spacing))
            for name, own, wanted in pairs
        ]

    rows, real = [], scores("", REAL_SEQUENCE, images)
    every = range(len(names))
    for target in every:
        task = Task(tuple(i for i in every if i != target), target)
        stand_ins = {LEFT_OUT_SEQUENCE: np.full(images.shape[1:], BACKGROUND, np.float32)}
        for synthesizer in synthesizers:
            for (method, _), output in synthesizer.predict(loaded, [task]).items():
                stand_ins[method] = output
        rows += [replace(row, target=names[target]) for row in real]
        for method, image in stand_ins.items():
            given = images.copy()
            given[target] = image
            rows += scores(names[target], method, given)
    return rows


def _compared(
    found: np.ndarray, wanted: np.ndarray, spacing: Sequence[float]
) -> tuple[float, float]:
    """Dice and the 95th percentile of the Hausdorff distance (mm) of two masks (Z, Y, X)."""
    if not found.any() and not wanted.any():
        return 1.0, 0.0
    if not found.any() or not wanted.any():
        return 0.0, float(np.linalg.norm(np.multiply(spacing, wanted.shape)))
    from monai.metrics import compute_hausdorff_distance

    dice = 2 * (found & wanted).sum() / (found.sum() + wanted.sum())
    a, b = (torch.from_numpy(own[None, None].astype(np.float32)) for own in (found, wanted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that MONAI itself gives
        distance = compute_hausdorff_distance(
            a, b, include_background=True, percentile=95, spacing=list(spacing)
        )
    return float(dice), float(distance)


def downstream_tables(rows: Sequence[SegmentationScore]) -> list[Table]:
    """Means by region and method, and by missing sequence; methods against what else could stand in
    the place of a missing sequence."""
    metrics, names = (DICE, HAUSDORFF), dict.fromkeys(row.method for row in rows)
    stand_ins = (REAL_SEQUENCE, LEFT_OUT_SEQUENCE, MEAN_IMAGE)
    methods = [name for name in names if name not in stand_ins]
    by_method = means_of(rows, lambda row: (row.region, row.method), metrics)
    by_sequence = means_of(rows, lambda row: (row.target, row.region, row.method), metrics)
    return [
        means_table("By region", ["region", "instead"], by_method, metrics),
        paired_table_of(rows, methods),
        means_table("By missing sequence", ["missing", "region", "instead"], by_sequence, metrics),
    ]


def paired_table_of(rows: Sequence[SegmentationScore], methods: Sequence[str]) -> Table:
    """Differences in Dice of each method to the other stand-ins and to the real sequence."""
    others = [name for name in dict.fromkeys(row.method for row in rows) if name not in methods]
    tests = []
    for region in REGIONS:
        values = {
            (row.name, row.target, row.method): row.dice for row in rows if row.region == region
        }
        for method in methods:
            for other in others:
                own = [row for row in rows if (row.region, row.method) == (region, method)]
                differences = subject_means(
                    own,
                    lambda row: row.dice - values[row.name, row.target, other],  # noqa: B023
                )
                tests.append((region, method, other, differences))
    p_values = [wilcoxon_p(differences) for *_, differences in tests]
    cells = [
        [
            *(region, method, other, len(differences)),
            DICE.difference(*bootstrap(differences)),
            *(f"{np.mean(differences > 0):.0%}", f"{p:.2g}", f"{adjusted:.2g}"),
        ]
        for (region, method, other, differences), p, adjusted in zip(
            tests, p_values, holm(p_values), strict=True
        )
    ]
    return Table(
        "Paired differences in Dice over subjects, whose missing sequences are averaged first; "
        f"positive where the method is better. {INTERVALS}. Wilcoxon signed-rank tests, Holm's "
        "correction over all.",
        ["region", "method", "against", "subjects", "better by", "better in", "p", "p (Holm)"],
        cells,
        labels=3,
    )
