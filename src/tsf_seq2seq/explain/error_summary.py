"""What the error estimates are worth over subjects: tables and curves of the volumes' rows."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import ClassVar

import numpy as np

from tsf_seq2seq.evaluation.scores import Metric
from tsf_seq2seq.evaluation.statistics import bootstrap, means_of, means_table
from tsf_seq2seq.explain.error_estimation import (
    BRAIN,
    ERROR_MAP,
    FLOOR,
    CalibrationRow,
    Curve,
    ErrorMapRow,
    ErrorRow,
    Measured,
)
from tsf_seq2seq.explain.ranking import REMOVED, pooled_spearman
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.tables import Table, group_by, rows_text, table_text
from tsf_seq2seq.tasks import n_inputs

SUMMARY_FILES = (
    "error_estimation.csv",
    "calibration.csv",
    "sparsification.csv",
    "pooled_counts.csv",
    "error_estimation_tasks.csv",
    "sparsification.json",
    "error_estimation.md",
    "error_map.csv",  # of a network that has one
)
SHARES = [f"removed_{share:.2f}" for share in REMOVED]
CURVE_COLUMNS = ["name", "sources", "target", "order"]
# What readers call the orders of voxels, the best possible one first.
ESTIMATORS_SHOWN = {"oracle": "the error itself", FLOOR: "floor of the error map"}
ESTIMATORS_SHOWN |= {ERROR_MAP: "error map", "tsem": "TSEM"}
ESTIMATORS_SHOWN |= {"disagreement": "disagreement of source sets"}
ESTIMATORS_SHOWN |= {"gradient": "gradient of the synthesis", "random": "random order"}
ERROR_METRICS = (
    Metric("spearman", 1, "Spearman", 3, signed=True),
    *(Metric("ause", -1, "AUSE", 3), Metric("ause_relative", -1, "relative AUSE", 3)),
    Metric("mean_error", -1, "mean error", 4),
    Metric("spearman_blocks", 1, "Spearman in cm³", 3, signed=True),
    Metric("spearman_blocks_unshaded", 1, "beyond shading", 3, signed=True),
)
MEANINGS = (
    "Spearman: correlation of an estimate with the absolute error over voxels. AUSE: the area "
    "between the sparsification curves of the estimate and of the error itself, in units of the "
    "mean error; relative AUSE: as a share of a random order's, 0 is perfect and 1 random. "
    "Disagreement: the standard deviation between the outputs from all sets of the sources. "
    "Spearman in cm³: of the means in blocks of 1 cm³; beyond shading: with the error that is left "
    "when contrast and a smooth shading are fitted to the target, which no source tells. The floor "
    "orders errors that are drawn from the error map's own scales."
)
COUNT_COLUMNS = ["sources", "target", "estimator", "estimate_class", "error_class", "voxels"]


@dataclass(frozen=True)
class TaskSummary:
    """An estimator on a task, in the brain, over subjects: a row of error_estimation_tasks.csv.

    Means over subjects of Spearman's correlation and of the relative AUSE with 95 % intervals;
    Spearman's correlation over all subjects' voxels together (by classes, see pooled_counts.csv);
    and that of the subjects' mean estimate with their PSNR, −1 where the estimate ranks subjects
    by quality, nan for fewer than three subjects.
    """

    LABELS: ClassVar[int] = 3
    sources: str
    target: str
    estimator: str
    subjects: int
    spearman: float
    spearman_low: float
    spearman_high: float
    spearman_pooled: float
    ause_relative: float
    ause_relative_low: float
    ause_relative_high: float
    mean_estimate_and_psnr: float


def task_summaries(measured: Measured) -> list[TaskSummary]:
    """One a task and estimator."""
    return [
        TaskSummary(
            *key,
            len(own),
            *bootstrap([row.spearman for row in own]),
            pooled_spearman(measured.counts[key]) if key in measured.counts else nan,
            *bootstrap([row.ause_relative for row in own]),
            _ranks_subjects(own),
        )
        for key, own in _in_brain(measured.rows).items()
    ]


def write_summary(output: Path, measured: Measured) -> str:
    """Write every volume's rows, calibration and curves, with the tables and curves over subjects:
    all files change together. The Markdown one is returned."""
    curves = ([*curve[:4], *curve.errors.tolist()] for curve in measured.curves)
    counts = (
        (*key, i, j, own[i, j])
        for key, own in measured.counts.items()
        for i, j in np.argwhere(own).tolist()
    )
    means = {"removed": REMOVED.tolist(), "tasks": mean_curves(measured.curves)}
    text = error_markdown(measured)
    contents = [
        rows_text(ErrorRow, measured.rows),
        rows_text(CalibrationRow, measured.parts),
        table_text([*CURVE_COLUMNS, *SHARES], curves),
        table_text(COUNT_COLUMNS, counts),
        rows_text(TaskSummary, task_summaries(measured)),
        json.dumps(means, indent=1) + "\n",
        text,
    ]
    if measured.maps:
        contents.append(rows_text(ErrorMapRow, measured.maps))
    write_texts(output, dict(zip(SUMMARY_FILES, contents, strict=False)))
    return text


def mean_curves(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Per task, each order's curve in shares of the volume's mean error, mean over subjects.

    The random order's is 1 throughout.
    """
    with_errors = (curve for curve in curves if curve.errors[0] > 0)
    tasks: list[dict[str, object]] = []
    for (sources, target), own in group_by(with_errors, lambda c: (c.sources, c.target)).items():
        means = {
            order: np.mean([curve.errors / curve.errors[0] for curve in group], axis=0).tolist()
            for order, group in group_by(own, lambda curve: curve.order).items()
        }
        tasks.append({"sources": sources, "target": target, "curves": means})
    return tasks


def error_markdown(measured: Measured) -> str:
    """The summary: by number of inputs, by region, calibration, by task."""
    brain = [row for row in measured.rows if row.region == BRAIN]
    by_task = _error_table("By task", brain, "task", lambda row: f"{row.sources} → {row.target}")
    tables = [*error_tables(measured.rows), calibration_table(measured.parts), by_task]
    if measured.maps:
        tables.insert(0, error_map_table(measured.maps))
    texts = ["# Estimates of the error", MEANINGS, *(own.markdown() for own in tables)]
    return "\n\n".join(texts) + "\n"


def error_tables(rows: Sequence[ErrorRow]) -> list[Table]:
    """Every estimator, by number of inputs and, where there are labels, by region."""
    brain = [row for row in rows if row.region == BRAIN]
    several = [row for row in rows if "+" in row.sources]  # for which every estimate exists
    caption = "In the brain, by number of inputs"
    tables = [_error_table(caption, brain, "inputs", lambda row: n_inputs(row.sources))]
    if len({row.region for row in several}) > 1:
        caption = "By region, from two and more sources"
        tables.append(_error_table(caption, several, "region", lambda row: row.region))
    return tables


def error_map_table(rows: Sequence[ErrorMapRow]) -> Table:
    """What an error map's bands and its expected PSNR are worth, by number of inputs."""
    cells: list[list[object]] = []
    groups = group_by(rows, lambda row: str(n_inputs(row.sources)))
    for inputs, own in {**groups, "all": list(rows)}.items():
        expected, true = _psnrs(own)
        off = np.abs(expected - true)
        within = [float(np.mean([getattr(row, f"within_{p}") for row in own])) for p in (90, 80)]
        known = [bool(o <= r.margin) for o, r in zip(off, own, strict=True) if isfinite(r.margin)]
        inside = float(np.mean(known)) if known else nan
        agreed = [rank_correlation(expected, true), _over_subjects(own)]
        subjects = len({row.name for row in own})
        cells.append([inputs, *within, *agreed, float(off.mean()), inside, subjects])
    return Table(
        "The error map: the share of the brain within its bands for 90 and 80 %; Spearman's "
        "correlation of expected with true PSNR over subjects and tasks, and over the subjects of "
        "a task (the mean over tasks); how far they are apart, and the share of volumes within the "
        "margin for 90 % of subjects.",
        [
            *("inputs", "within 90 %", "within 80 %", "expected and true PSNR"),
            *("of a task", "apart (dB)", "within the margin", "subjects"),
        ],
        cells,
        labels=1,
    )


def _psnrs(rows: Sequence[ErrorMapRow]) -> tuple[np.ndarray, np.ndarray]:
    """Expected and true ones (N,)."""
    return np.array([row.expected_psnr for row in rows]), np.array([row.psnr for row in rows])


def _over_subjects(rows: Sequence[ErrorMapRow]) -> float:
    """Mean over tasks of the rank correlation of expected with true PSNR over subjects."""
    tasks = group_by(rows, lambda row: (row.sources, row.target)).values()
    found = [rank_correlation(*_psnrs(own)) for own in tasks]
    known = [own for own in found if isfinite(own)]
    return float(np.mean(known)) if known else nan


def calibration_means(parts: Sequence[CalibrationRow]) -> list[tuple[str, int, float, float]]:
    """Estimator, tenth of a volume's voxels, mean estimate and mean error, means over volumes.

    Of tasks from two and more sources where there are any: all estimates exist for them.
    """
    parts = [part for part in parts if "+" in part.sources] or parts
    groups = group_by(parts, lambda part: (part.estimator, part.part))
    means = []
    for name, tenth in sorted(groups, key=lambda key: (estimator_rank(key[0]), key[1])):
        own = groups[name, tenth]
        estimate = float(np.mean([part.mean_estimate for part in own]))
        means.append((name, tenth, estimate, float(np.mean([part.mean_error for part in own]))))
    return means


def calibration_table(parts: Sequence[CalibrationRow]) -> Table:
    """One row an estimator and tenth."""
    return Table(
        "Calibration: a volume's brain voxels in ten equal parts by rising estimate, means over "
        "volumes.",
        ["estimate", "tenth", "mean estimate", "mean error"],
        [[shown_estimator(own), *numbers] for own, *numbers in calibration_means(parts)],
        labels=2,
        style=".4f",
    )


def shown_estimator(name: str) -> str:
    """What readers call an order of voxels."""
    return ESTIMATORS_SHOWN.get(name, name)


def estimator_rank(estimator: str) -> int:
    """Its place in tables and charts."""
    known = list(ESTIMATORS_SHOWN)
    return known.index(estimator) if estimator in known else len(known)


def _error_table(
    caption: str, rows: Sequence[ErrorRow], heading: str, key: Callable[[ErrorRow], object]
) -> Table:
    means = means_of(rows, lambda row: (key(row), shown_estimator(row.estimator)), ERROR_METRICS)
    return means_table(caption, [heading, "estimate"], means, ERROR_METRICS)


def _in_brain(rows: Iterable[ErrorRow]) -> dict[tuple[str, str, str], list[ErrorRow]]:
    """Rows of the brain by task and estimator."""
    brain = (row for row in rows if row.region == BRAIN)
    return group_by(brain, lambda row: (row.sources, row.target, row.estimator))


def _ranks_subjects(rows: Sequence[ErrorRow]) -> float:
    if len(rows) < 3:  # two always correlate by 1 or −1
        return nan
    estimates = np.array([row.mean_estimate for row in rows])
    return rank_correlation(estimates, np.array([row.psnr for row in rows]))
