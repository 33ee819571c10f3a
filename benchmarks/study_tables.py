"""What several trainings of the same networks come to: means over seeds, and what each cost."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tsf_seq2seq.evaluation.scores import (
    COMPARED,
    METRICS,
    Score,
    methods_of,
    read_scores,
    write_scores,
)
from tsf_seq2seq.tables import group_by, markdown

Scores = Mapping[int, Sequence[Path]]  # of each seed, a metrics.csv of every fold


def merge(scores: Scores, path: Path) -> None:
    """One metrics.csv of those of all folds: each volume's mean over the seeds.

    Subjects are in one fold each, so that tests over subjects stay tests over subjects.
    """
    groups = group_by(
        (row for own in scores.values() for row in _read(own)), lambda row: (row.volume, row.method)
    )
    write_scores(path, (_mean(rows) for rows in groups.values()))


def summarise(
    scores: Scores, reference: str, seconds: Mapping[str, Sequence[float]] | None = None
) -> str:
    """Markdown: each method's scores by the number of inputs, its PSNR less the reference's by
    seed, and the mean `seconds` of its training, where they are known."""
    rows = {seed: _read(own) for seed, own in scores.items()}
    together = [row for own in rows.values() for row in own]
    counts = sorted({row.n_inputs for row in together})
    headings = ["method", *(f"{n} input{'s' * (n > 1)}" for n in counts)]
    headings += [f"− {reference}, seed {seed} (dB)" for seed in rows]
    headings += ["training (s)"] if seconds else []
    lines = [headings]
    for method in methods_of(together):
        line = [method]
        for n in counts:
            means = [_means(together, metric.key, method).get(n) for metric in COMPARED]
            known = zip(COMPARED, means, strict=True)
            line.append(" / ".join("–" if mean is None else one.text(mean) for one, mean in known))
        for own in rows.values():
            ours, theirs = (_means(own, "psnr", name) for name in (method, reference))
            line.append(
                " / ".join(f"{ours[n] - theirs[n]:+.2f}" if n in ours else "–" for n in counts)
            )
        if seconds:
            took = seconds.get(method)
            line.append(f"{np.mean(took):.0f}" if took else "–")
        lines.append(line)
    return markdown(lines) + "\n"


def training_seconds(folder: Path) -> float:
    """What the steps of a training took, by the last line of its log.csv."""
    with (folder / "log.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    return float(last["seconds"])


def _read(paths: Iterable[Path]) -> list[Score]:
    return [row for path in paths for row in read_scores(path)]


def _mean(rows: Sequence[Score]) -> Score:
    means = {key: float(np.mean([getattr(row, key) for row in rows])) for key in METRICS}
    return replace(rows[0], **means)


def _means(rows: Iterable[Score], key: str, method: str) -> dict[int, float]:
    """Mean of a metric by the number of inputs."""
    groups = group_by((row for row in rows if row.method == method), lambda row: row.n_inputs)
    return {n: float(np.mean([getattr(row, key) for row in own])) for n, own in groups.items()}
