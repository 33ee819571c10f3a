"""What the tests of the report share: made-up scores, a tiny experiment, a reader of its HTML."""

import csv
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from conftest import SEQUENCES

from tsf_seq2seq.config import load_config
from tsf_seq2seq.evaluation.scores import Score, write_scores
from tsf_seq2seq.models import build_network
from tsf_seq2seq.report.report import Experiment
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, map_terms
from tsf_seq2seq.tasks import all_tasks

METHODS = ("tsf", "tsf_without_attention", "seq2seq_average")


def made_up_scores(
    subjects: Sequence[str],
    sequences: Sequence[str] = SEQUENCES,
    methods: Sequence[str] = METHODS,
    lpips: bool = True,
) -> list[Score]:
    """Every task by every method, each with numbers of its own."""
    rng = np.random.default_rng(0)
    scores = []
    for name in subjects:
        for task in all_tasks(len(sequences)):
            for place, method in enumerate(methods):
                psnr, ssim, distance = rng.normal((25 - place, 0.8, 5), (2, 0.05, 1))
                distances = (distance, distance / 8) if lpips else (np.nan, np.nan)
                label = task.label(sequences)
                scores.append(Score(name, *label, method, psnr, ssim, *distances))
    return scores


def evaluation(folder: Path, scores: Sequence[Score]) -> Path:
    """A folder as evaluations leave it."""
    write_scores(folder / "metrics.csv", scores)
    identity = {"weights": {"best.pth": "0" * 64}, "methods": ["tsf"], "all_tasks": True}
    (folder / "evaluation.json").write_text(json.dumps(identity))
    return folder


def training_run(folder: Path, steps: int = 3) -> Path:
    """A folder with a log.csv of `steps` rows: loss 1 / step, and a validation at the end."""
    folder.mkdir(parents=True)
    with open(folder / "log.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "lr", "loss", "validation_psnr", "seconds"])
        writer.writerows([step, 0, 1e-3, 1 / step, "", 1] for step in range(1, steps + 1))
        writer.writerow([steps, "", "", "", 24.5, 2])
    return folder


def tiny_experiment(config_path: Path) -> Experiment:
    """An untrained network on the tiny data set, with two subjects to test on."""
    config = load_config(config_path)
    config.data.test.write_text("Tiny_00003,10\nTiny_00002,5\n")
    network = build_network(config)
    weights = config_path.parent / "best.pth"
    weights.write_bytes(b"weights")
    return Experiment(network.eval(), config, weights, 4)


def halved(n_variables: int) -> ContrastMap:
    """The map f / 2 of a network's output f, the last of so many variables."""
    terms = len(map_terms(n_variables))
    coefficients = [0.0] * terms
    coefficients[n_variables] = 0.5
    return ContrastMap(tuple(coefficients), (0.0,) * terms**2, True, 1.0)


class Page(HTMLParser):
    """The tables of a page by caption, its links and sources, headings, and JSON scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[object] = []
        self.stack: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attributes)))
        self.stack.append(tag)
        if tag == "table":
            self.rows, self.caption = [], dict(attributes).get("aria-label") or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self.caption] = self.rows
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self.stack:
            if data.strip():
                self.scripts.append(json.loads(data))
            return
        self.text += data
        if "caption" in self.stack:
            self.caption += data
        elif self.stack and self.stack[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def table(self, beginning: str) -> list[list[str]]:
        """The one table whose caption starts so."""
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(beginning)]
        return rows

    def values(self, tag: str, attribute: str) -> list[str]:
        """What an attribute holds, wherever it stands."""
        found = (own.get(attribute) for name, own in self.attributes if name == tag)
        return [value for value in found if value is not None]
