"""Scores of synthesized volumes: the metrics, metrics.csv, and the tables made of it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.tables import Name, Table, group_by, interval, read_rows, write_rows
from tsf_seq2seq.tasks import MAX_SEQUENCES, n_inputs


@dataclass(frozen=True)
class Metric:
    """A measure of synthesized volumes.

    `key`: its field in rows such as Score; `sign`: 1 where higher is better, −1 where lower is, 0
    where neither; decimals of its values and of their differences; `signed`: values show a +, too.
    """

    key: str
    sign: int
    heading: str
    decimals: int
    difference_decimals: int = 0
    signed: bool = False

    def of(self, row: Any) -> float:
        """The row's value; nan where there is no row."""
        return nan if row is None else float(getattr(row, self.key))

    @property
    def title(self) -> str:
        """The heading, and which values are better, for charts."""
        return f"{self.heading}, {'higher' if self.sign > 0 else 'lower'} is better"

    def text(self, mean: float, low: float = nan, high: float = nan) -> str:
        """A value, with its interval where it has one."""
        return interval(mean, low, high, f"{'+' if self.signed else ''}.{self.decimals}f")

    def difference(self, mean: float, low: float = nan, high: float = nan) -> str:
        """A difference with its sign, and with its interval where it has one."""
        return interval(mean, low, high, f"+.{self.difference_decimals}f")


PSNR = Metric("psnr", 1, "PSNR (dB)", 2, 2)
SSIM = Metric("ssim", 1, "SSIM", 3, 4)
LPIPS_SUM = Metric("lpips", -1, "LPIPS (sum)", 2, 3)
COMPARED = (PSNR, SSIM, LPIPS_SUM)  # what comparisons and explanations look at
METRICS = {
    metric.key: metric
    for metric in (*COMPARED, Metric("lpips_per_slice", -1, "LPIPS (mean)", 4, 5))
}
TABLE_FILES = "table.md", "table.json"
ADAPTATION_FILES = "adaptation.csv", "adaptation.pdf", "adaptation.png"  # of adapted networks
# What other commands make of an evaluation, in its own folder unless they are told otherwise.
MADE_OF_SCORES = tuple(
    f"{name}.{suffix}"
    for name, suffixes in {
        "comparisons": ("csv", "md"),
        "tumour": ("csv", "md"),
        "contribution": ("csv", "json", "pdf", "png"),
    }.items()
    for suffix in suffixes
)


@dataclass(frozen=True)
class Score:
    """One synthesized volume against the real one: a row of metrics.csv.

    `sources` in the sequences' order, joined by +; psnr in dB; lpips summed over slices, as in the
    paper, and its mean per slice, both nan where LPIPS's weights were not found.
    """

    LABELS: ClassVar[int] = 4
    name: str
    sources: str
    target: str
    method: str
    psnr: float
    ssim: float
    lpips: float
    lpips_per_slice: float

    @property
    def n_inputs(self) -> int:
        return n_inputs(self.sources)

    @property
    def volume(self) -> tuple[str, str, str]:
        """What every method synthesizes: subject, sources, target."""
        return self.name, self.sources, self.target


class OfMetric(Protocol):
    """A row that says something of a metric."""

    @property
    def metric(self) -> str: ...


def check_metric(row: OfMetric) -> None:
    """ValueError where it is none of METRICS."""
    if row.metric not in METRICS:
        raise ValueError(f"metric {row.metric!r} is none of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (ddof 0) of every metric over `pairs` volume pairs."""

    pairs: int
    mean: Mapping[str, float]
    std: Mapping[str, float]


Summaries = tuple[Sequence[str], Mapping[Any, Summary]]  # headings of the keys, rows


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write metrics.csv, all or nothing."""
    write_rows(path, Score, scores)


def read_scores(path: Path) -> list[Score]:
    """Scores of a metrics.csv; UserError where it is missing, not one, or not whole.

    Whole: a task that was scored by several methods was scored by them for every subject that has
    it.
    """
    scores = read_rows(path, Score, "a metrics.csv of this software", _check_score)
    if not scores:
        raise UserError(f"{path} holds no scores")
    tasks = {_task(score) for score in scores}
    names = {name for sources, target in tasks for name in (target, *sources.split("+"))}
    if len(names) > MAX_SEQUENCES:
        raise UserError(f"{path} names {len(names)} sequences, but {MAX_SEQUENCES} are the most")
    methods = {task: methods_of(own) for task, own in group_by(scores, _task).items()}
    for (name, sources, target), own in group_by(scores, lambda score: score.volume).items():
        missing = set(methods[sources, target]) - set(methods_of(own))
        if missing:
            raise UserError(
                f"{path} is not whole: it has no row of subject {name}, {sources} → {target}, by "
                f"{min(missing)}, which scored it for other subjects"
            )
    return scores


def _task(score: Score) -> tuple[str, str]:
    return score.sources, score.target


def _check_score(score: Score) -> None:
    """ValueError for what no evaluation writes."""
    sources = score.sources.split("+")
    if not all(sources) or len(set(sources)) < len(sources):
        raise ValueError(f"its sources must be names joined by +, not {score.sources!r}")
    if isnan(score.psnr):
        raise ValueError("its psnr is nan")
    if abs(score.ssim) > 1.000001:  # 1, but for rounding
        raise ValueError(f"its ssim is {score.ssim:g}, outside -1 to 1")


def check_known(path: Path, scores: Iterable[Score], sequences: Iterable[str]) -> None:
    """UserError where the scores of `path` are of other sequences than those named."""
    known = list(sequences)
    for score in scores:
        for name in (*score.sources.split("+"), score.target):
            if name not in known:
                raise UserError(
                    f"{path}: subject {score.name} has scores of sequence {name}, which is none "
                    f"of {', '.join(known)}"
                )


def prediction_path(folder: Path, name: str, sources: str, target: str) -> Path:
    """Where an evaluation saves a prediction: predict/<name>_<target>_from_<sources>.nii.gz."""
    return folder / "predict" / f"{name.replace('/', '_')}_{target}_from_{sources}.nii.gz"


def check_distinct_files(files: Iterable[tuple[str, str]]) -> None:
    """UserError where two of the (subject, file) would be one, on disks without case, too."""
    owners: dict[str, str] = {}
    for name, file in files:
        key = file.casefold()
        if key in owners:
            raise UserError(
                f"{file} would be a file of subject {name} and of subject {owners[key]}: rename one"
            )
        owners[key] = name


def methods_of(scores: Iterable[Score]) -> list[str]:
    """The methods, in order of appearance."""
    return list(dict.fromkeys(score.method for score in scores))


def examined_method(scores: Sequence[Score], named: str | None = None) -> str:
    """The method that explanations and comparisons are of: the one named, else the first.

    Raises UserError where there are no scores of it.
    """
    methods = methods_of(scores)
    if not methods:
        raise UserError("there are no scores")
    if named and named not in methods:
        raise UserError(f"there are no scores of method {named}, only of {', '.join(methods)}")
    return named or methods[0]


def measured_metrics(scores: Sequence[Score]) -> list[Metric]:
    """The metrics that were computed: LPIPS needs weights that may have been missing."""
    return [metric for metric in COMPARED if any(isfinite(metric.of(score)) for score in scores)]


def summaries(scores: Iterable[Score], group: Callable[[Score], Name]) -> dict[Name, Summary]:
    """Scores by group, in order of first appearance."""
    rows = {}
    for name, own in group_by(scores, group).items():
        values = {key: [metric.of(score) for score in own] for key, metric in METRICS.items()}
        mean = {key: float(np.mean(numbers)) for key, numbers in values.items()}
        with np.errstate(invalid="ignore"):  # a perfect volume's PSNR is infinite
            std = {key: float(np.std(numbers)) for key, numbers in values.items()}
        rows[name] = Summary(len(own), mean, std)
    return rows


def by_inputs(scores: Sequence[Score]) -> dict[tuple[int, str], Summary]:
    """(number of inputs, method), sorted by number: the paper's Table 1."""
    rows = summaries(scores, lambda score: (score.n_inputs, score.method))
    return dict(sorted(rows.items(), key=lambda item: item[0][0]))


def by_task(scores: Sequence[Score]) -> dict[tuple[str, str, str], Summary]:
    """(sources, target, method)."""
    return summaries(scores, lambda score: (score.sources, score.target, score.method))


def score_table(headings: Sequence[str], rows: Mapping[Any, Summary]) -> Table:
    """One row per group: its key, pairs, and mean ± standard deviation."""
    means = [row.mean for row in rows.values()]
    shown = [m for m in METRICS.values() if not all(np.isnan(mean[m.key]) for mean in means)]
    cells = [
        [*key, row.pairs, *(_mean_and_deviation(row, metric) for metric in shown)]
        for key, row in rows.items()
    ]
    columns = [*headings, "pairs", *(metric.heading for metric in shown)]
    return Table("Mean ± standard deviation over volume pairs.", columns, cells, len(headings))


def write_tables(
    folder: Path,
    title: str,
    tables: Mapping[str, Summaries],
    further: Mapping[str, Table] | None = None,
    note: str = "",
) -> None:
    """Write table.md and table.json; `tables`: title → (headings of the keys, rows).

    `further` tables follow in table.md alone, which says the `note` first.
    """
    shown = {name: score_table(*own) for name, own in tables.items()} | dict(further or {})
    texts = [f"# {title}", *([note] if note else [])]
    texts += [f"## {heading}\n\n{table.markdown()}" for heading, table in shown.items()]
    content = {
        heading: [
            dict(zip(headings, key, strict=True)) | _json_values(row) for key, row in rows.items()
        ]
        for heading, (headings, rows) in tables.items()
    }
    contents = "\n\n".join(texts) + "\n", json.dumps(content, indent=1) + "\n"
    write_texts(folder, dict(zip(TABLE_FILES, contents, strict=True)))


def _mean_and_deviation(row: Summary, metric: Metric) -> str:
    mean = row.mean[metric.key]
    return "–" if np.isnan(mean) else f"{metric.text(mean)} ± {metric.text(row.std[metric.key])}"


def _json_values(row: Summary) -> dict[str, object]:
    return {"pairs": row.pairs} | {
        key: {"mean": row.mean[key], "std": row.std[key]} if isfinite(row.mean[key]) else None
        for key in METRICS
    }
