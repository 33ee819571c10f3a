"""Scores of synthesized volumes: metrics.csv, and the tables made of it."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import markdown, read_table, write_rows

METRICS = ("psnr", "ssim", "lpips", "lpips_per_slice")
HEADINGS = ("PSNR (dB)", "SSIM", "LPIPS (sum)", "LPIPS (mean)")
DECIMALS = (2, 3, 2, 4)


@dataclass(frozen=True)
class Score:
    """One synthesized volume against the real one: a row of metrics.csv.

    `sources` in the sequences' order, joined by +; psnr in dB; lpips summed over slices, as in the
    paper, and its mean per slice, both nan where LPIPS's weights were not found.
    """

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
        return self.sources.count("+") + 1


Group = tuple[object, ...]  # what the scores of one row of a table share


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (ddof 0) of every metric over `pairs` volume pairs."""

    pairs: int
    mean: Mapping[str, float]
    std: Mapping[str, float]


Table = tuple[Sequence[str], Mapping[Group, Summary]]  # headings of the groups, rows


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write metrics.csv, all or nothing."""
    write_rows(path, Score, scores)


def read_scores(path: Path) -> list[Score]:
    """Scores of a metrics.csv; UserError where it is missing or not one."""
    return read_table(path, _parse_row, "a metrics.csv of this software")


def summarise(scores: Iterable[Score], group: Callable[[Score], Group]) -> dict[Group, Summary]:
    """Scores by group, in order of first appearance."""
    groups: dict[Group, list[Score]] = {}
    for score in scores:
        groups.setdefault(group(score), []).append(score)
    return {
        key: Summary(
            len(members),
            {metric: float(np.mean(_values(members, metric))) for metric in METRICS},
            {metric: float(np.std(_values(members, metric))) for metric in METRICS},
        )
        for key, members in groups.items()
    }


def by_inputs(scores: Sequence[Score]) -> dict[Group, Summary]:
    """(number of inputs, method), sorted by number: the paper's Table 1."""
    summary = summarise(scores, lambda score: (score.n_inputs, score.method))
    return dict(sorted(summary.items(), key=lambda item: int(str(item[0][0]))))


def by_task(scores: Sequence[Score]) -> dict[Group, Summary]:
    """(sources, target, method)."""
    return summarise(scores, lambda score: (score.sources, score.target, score.method))


@dataclass(frozen=True)
class Advantage:
    """How much better one method is than another on the same volume pairs.

    Mean differences of PSNR (dB) and SSIM, and the share of pairs where each is higher.
    """

    pairs: int
    psnr: float
    psnr_wins: float
    ssim: float
    ssim_wins: float


def advantages(scores: Sequence[Score], method: str) -> dict[Group, Advantage]:
    """(number of inputs, other method) → advantage of `method`, paired over volumes."""
    own = {(s.name, s.sources, s.target): s for s in scores if s.method == method}
    groups: dict[Group, list[tuple[float, float]]] = {}
    for other in scores:
        mine = own.get((other.name, other.sources, other.target))
        if mine is not None and other.method != method:
            pair = (mine.psnr - other.psnr, mine.ssim - other.ssim)
            groups.setdefault((other.n_inputs, other.method), []).append(pair)
    results: dict[Group, Advantage] = {}
    for key in sorted(groups, key=lambda key: int(str(key[0]))):
        differences = np.array(groups[key])
        (psnr, ssim), (psnr_wins, ssim_wins) = differences.mean(0), (differences > 0).mean(0)
        results[key] = Advantage(
            len(differences), float(psnr), float(psnr_wins), float(ssim), float(ssim_wins)
        )
    return results


def advantage_table(method: str, rows: Mapping[Group, Advantage]) -> str:
    """Markdown of `advantages`."""
    cells = [["inputs", f"{method} against", "pairs", "PSNR (dB)", "higher", "SSIM", "higher"]]
    for key, row in rows.items():
        differences = [f"{row.psnr:+.2f}", f"{row.psnr_wins:.0%}"]
        differences += [f"{row.ssim:+.3f}", f"{row.ssim_wins:.0%}"]
        cells.append([*map(str, key), str(row.pairs), *differences])
    return markdown(cells)


def markdown_table(headings: Sequence[str], rows: Mapping[Group, Summary]) -> str:
    """Markdown with one row per group: its key, pairs, and mean ± standard deviation."""
    shown = [i for i in range(len(METRICS)) if any(not _missing(s, i) for s in rows.values())]
    cells = [[*headings, "pairs", *(HEADINGS[i] for i in shown)]]
    for key, summary in rows.items():
        cells.append([*map(str, key), str(summary.pairs), *(_cell(summary, i) for i in shown)])
    return markdown(cells)


def write_tables(
    folder: Path, title: str, tables: Mapping[str, Table], paired: str | None = None
) -> None:
    """Write table.md and table.json; `tables`: caption → (key headings, rows).

    `paired`: a Markdown table of paired differences, which table.md ends with.
    """
    texts = [f"# {title}"]
    content = {}
    for caption, (headings, rows) in tables.items():
        texts += [f"## {caption}", markdown_table(headings, rows)]
        content[caption] = [
            dict(zip(headings, key, strict=True)) | _json_values(summary)
            for key, summary in rows.items()
        ]
    if paired:
        texts += ["## Paired differences over volumes", paired]
    write_text(folder / "table.md", "\n\n".join(texts) + "\n")
    write_text(folder / "table.json", json.dumps(content, indent=1) + "\n")


def _parse_row(row: Mapping[str, str]) -> Score:
    values = [float(row.get(metric) or "nan") for metric in METRICS]
    return Score(row["name"], row["sources"], row["target"], row["method"], *values)


def _json_values(summary: Summary) -> dict[str, object]:
    values: dict[str, object] = {"pairs": summary.pairs}
    for metric in METRICS:
        mean, std = summary.mean[metric], summary.std[metric]
        finite = math.isfinite(mean)
        values[metric] = {"mean": mean, "std": std} if finite else None
    return values


def _values(scores: Sequence[Score], metric: str) -> list[float]:
    return [getattr(score, metric) for score in scores]


def _missing(summary: Summary, index: int) -> bool:
    return math.isnan(summary.mean[METRICS[index]])


def _cell(summary: Summary, index: int) -> str:
    mean, std = summary.mean[METRICS[index]], summary.std[METRICS[index]]
    decimals = DECIMALS[index]
    return "–" if math.isnan(mean) else f"{mean:.{decimals}f} ± {std:.{decimals}f}"
