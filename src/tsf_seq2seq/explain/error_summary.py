"""What the error estimates are worth over subjects: tables and curves of the volumes' rows."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np

from tsf_seq2seq.evaluation.statistics import Estimate, bootstrap
from tsf_seq2seq.explain.error_estimation import (
    BRAIN,
    CalibrationRow,
    Curve,
    ErrorRow,
    Measured,
)
from tsf_seq2seq.explain.ranking import CLASSES, REMOVED, pooled_spearman
from tsf_seq2seq.explain.tsem import rank_correlation
from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import (
    interval,
    markdown,
    number,
    read_rows,
    read_table,
    write_rows,
    write_table,
)

ROWS, CALIBRATION = "error_estimation.csv", "calibration.csv"
CURVES, COUNTS = "sparsification.csv", "pooled_counts.csv"
SHARES = [f"removed_{share:.2f}" for share in REMOVED]
CURVE_COLUMNS = ["name", "sources", "target", "order"]
COUNT_COLUMNS = ["sources", "target", "estimator", "estimate_class", "error_class", "voxels"]


@dataclass(frozen=True)
class TaskSummary:
    """An estimator on a task, in the brain, over subjects: a row of error_estimation_tasks.csv.

    Means over subjects of Spearman's correlation and of the relative AUSE with 95 % intervals;
    Spearman's correlation over all subjects' voxels together (by classes, see pooled_counts.csv);
    and that of the subjects' mean estimate with their PSNR, −1 where the estimate ranks subjects
    by quality, nan for fewer than three subjects.
    """

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
    groups: dict[tuple[str, str, str], list[ErrorRow]] = {}
    for row in measured.rows:
        if row.region == BRAIN:
            groups.setdefault((row.sources, row.target, row.estimator), []).append(row)
    return [
        TaskSummary(
            *key,
            len(own),
            *bootstrap([row.spearman for row in own]),
            pooled_spearman(measured.counts[key]),
            *bootstrap([row.ause_relative for row in own]),
            _ranks_subjects(own),
        )
        for key, own in groups.items()
    ]


def over_subjects(rows: Iterable[ErrorRow], value: Callable[[ErrorRow], float]) -> Estimate:
    """Mean and interval over subjects of a value that is averaged over a subject's tasks first."""
    subjects: dict[str, list[float]] = {}
    for row in rows:
        if np.isfinite(value(row)):
            subjects.setdefault(row.name, []).append(value(row))
    return bootstrap([float(np.mean(values)) for values in subjects.values()])


def write_measured(output: Path, measured: Measured) -> None:
    """Write what was measured so far: every volume's curves, calibration and, at last, rows."""
    write_rows(output / CALIBRATION, CalibrationRow, measured.parts)
    _write_curves(output / CURVES, measured.curves)
    _write_counts(output / COUNTS, measured)
    write_rows(output / ROWS, ErrorRow, measured.rows)


def read_measured(output: Path) -> Measured:
    """What `write_measured` wrote. Nothing, where it was interrupted between its files.

    Raises UserError where a file is not what it wrote.
    """
    rows = read_rows(output / ROWS, ErrorRow)
    done = {row.name for row in rows}
    parts = [row for row in read_rows(output / CALIBRATION, CalibrationRow) if row.name in done]
    curves = [curve for curve in _read_curves(output / CURVES) if curve.name in done]
    measured = Measured(rows, parts, curves, _read_counts(output / COUNTS))
    voxels: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        if row.region == BRAIN:
            voxels[row.sources, row.target, row.estimator] += row.voxels
    counted = {key: int(counts.sum()) for key, counts in measured.counts.items()}
    return measured if counted == voxels else Measured()


def write_summary(output: Path, measured: Measured) -> str:
    """Write the tables and curves over subjects; the Markdown one is returned, too."""
    summaries = task_summaries(measured)
    write_rows(output / "error_estimation_tasks.csv", TaskSummary, summaries)
    content = {"removed": REMOVED.tolist(), "tasks": mean_curves(measured.curves)}
    write_text(output / "sparsification.json", json.dumps(content, indent=1) + "\n")
    text = error_markdown(measured, summaries)
    write_text(output / "error_estimation.md", text)
    return text


def mean_curves(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Per task, each order's curve in shares of the volume's mean error, mean over subjects.

    The random order's is 1 throughout.
    """
    tasks: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for curve in curves:
        orders = tasks.setdefault((curve.sources, curve.target), {})
        if curve.errors[0] > 0:
            orders.setdefault(curve.order, []).append(curve.errors / curve.errors[0])
    return [
        {
            "sources": sources,
            "target": target,
            "curves": {order: np.mean(own, axis=0).tolist() for order, own in orders.items()},
        }
        for (sources, target), orders in tasks.items()
    ]


def error_markdown(measured: Measured, summaries: Sequence[TaskSummary]) -> str:
    """The summary: by number of inputs, by region, calibration, by task."""
    texts = [
        "# TSEM as an estimate of the error",
        "Rank correlation: Spearman's, of the estimate with the absolute error, voxel by voxel. "
        "AUSE: area between the sparsification curves of the estimate and of the error itself, as "
        "a share of a random order's: 0 is perfect, 1 random. Means over subjects (whose tasks "
        "are averaged first) with 95 % bootstrap intervals. Disagreement: the standard deviation "
        "between the outputs from all sets of the sources.",
        "## In the brain, by number of inputs",
        _table([row for row in measured.rows if row.region == BRAIN], "inputs", _n_inputs),
        "## By region",
        "Only tasks of two and more sources, for which all estimates exist.",
        _table(
            [row for row in measured.rows if "+" in row.sources], "region", lambda row: row.region
        ),
        "## Calibration of TSEM",
        "A subject's brain voxels in ten equal parts by rising TSEM; means over all volumes.",
        _calibration_table(measured.parts),
        "## By task",
        _task_table(summaries),
    ]
    return "\n\n".join(texts) + "\n"


def _ranks_subjects(rows: Sequence[ErrorRow]) -> float:
    if len(rows) < 3:  # two always correlate by 1 or −1
        return nan
    estimates = np.array([row.mean_estimate for row in rows])
    return rank_correlation(estimates, np.array([row.psnr for row in rows]))


def _n_inputs(row: ErrorRow) -> str:
    return str(row.sources.count("+") + 1)


def _table(rows: Sequence[ErrorRow], heading: str, group: Callable[[ErrorRow], str]) -> str:
    """One row per group and estimator."""
    cells = [[heading, "estimate", "subjects", "rank correlation", "AUSE (relative)", "error"]]
    for key in sorted({(group(row), row.estimator) for row in rows}):
        own = [row for row in rows if (group(row), row.estimator) == key]
        rho = over_subjects(own, lambda row: row.spearman)
        ause = over_subjects(own, lambda row: row.ause_relative)
        error = over_subjects(own, lambda row: row.mean_error)
        numbers = [interval(*rho, "+.3f"), interval(*ause), number(error.mean, ".4f")]
        cells.append([*key, str(len({row.name for row in own})), *numbers])
    return markdown(cells)


def _calibration_table(parts: Sequence[CalibrationRow]) -> str:
    cells = [["part", "TSEM", "error"]]
    tsem = [part for part in parts if part.estimator == "tsem"]
    for n in sorted({part.part for part in tsem}):
        own = [part for part in tsem if part.part == n]
        means = np.mean([(part.mean_estimate, part.mean_error) for part in own], axis=0)
        cells.append([str(n), *(f"{mean:.4f}" for mean in means)])
    return markdown(cells)


def _task_table(summaries: Sequence[TaskSummary]) -> str:
    cells = [["sources", "target", "estimate", "subjects", "rank correlation", "all voxels"]]
    cells[0] += ["AUSE (relative)", "mean estimate and PSNR"]
    for s in summaries:
        rho = interval(s.spearman, s.spearman_low, s.spearman_high, "+.3f")
        ause = interval(s.ause_relative, s.ause_relative_low, s.ause_relative_high)
        ranks = number(s.spearman_pooled, "+.3f"), number(s.mean_estimate_and_psnr, "+.2f")
        key = s.sources, s.target, s.estimator, str(s.subjects)
        cells.append([*key, rho, ranks[0], ause, ranks[1]])
    return markdown(cells)


def _write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """One row a volume and order: mean error of what remains, a column per share removed."""
    cells = ([*curve[:4], *curve.errors.tolist()] for curve in curves)
    write_table(path, [*CURVE_COLUMNS, *SHARES], cells)


def _read_curves(path: Path) -> list[Curve]:
    def curve(row: Mapping[str, str]) -> Curve:
        name, sources, target, order = (row[column] for column in CURVE_COLUMNS)
        return Curve(name, sources, target, order, np.array([float(row[key]) for key in SHARES]))

    return read_table(path, curve, "a table of sparsification curves")


def _write_counts(path: Path, measured: Measured) -> None:
    """Voxels per task, estimator, class of estimate and class of error, where there are any."""
    rows = (
        (*key, int(i), int(j), int(counts[i, j]))
        for key, counts in measured.counts.items()
        for i, j in np.argwhere(counts)
    )
    write_table(path, COUNT_COLUMNS, rows)


def _read_counts(path: Path) -> dict[tuple[str, str, str], np.ndarray]:
    counts: dict[tuple[str, str, str], np.ndarray] = {}

    def add(row: Mapping[str, str]) -> None:
        sources, target, estimator, *numbers = (row[column] for column in COUNT_COLUMNS)
        i, j, voxels = map(int, numbers)
        own = counts.setdefault((sources, target, estimator), np.zeros((CLASSES, CLASSES), int))
        own[i, j] += voxels

    read_table(path, add, "a table of voxels per pair of classes")
    return counts
