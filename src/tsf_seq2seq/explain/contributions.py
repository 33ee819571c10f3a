"""Contributions of test subjects' sources: a table of shares, and what the figure shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.explain.contribution_figure import Panels, contribution_maps_figure
from tsf_seq2seq.explain.contribution_maps import Explanation, explain_contributions
from tsf_seq2seq.explain.differentiation import shown_slice
from tsf_seq2seq.explain.error_estimation import BRAIN
from tsf_seq2seq.explain.tsem import Case
from tsf_seq2seq.figures import save_figure_pair
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.synthesis.synthesizers import Synthesizer
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window, window_labels
from tsf_seq2seq.tables import Table, group_by, read_rows, write_rows
from tsf_seq2seq.tasks import Task, needed_sequences

CSV = "contributions.csv"
LESION = "lesion"


@dataclass(frozen=True)
class SourceShare:
    """What a source adds to a synthesis, over a region: a row of contributions.csv.

    Region: the brain, where any source is above background, or with a label map the lesion. Means
    of the contribution and of its amount (normalised intensities, range 2); `share`: its part of
    the sources' amounts, which sum to one.
    """

    LABELS: ClassVar[int] = 5
    name: str
    sources: str
    target: str
    source: str
    region: str
    mean: float
    amount: float
    share: float


def write_contributions(
    network: SynthesisNetwork,
    config: Config,
    cases: Sequence[Case],
    empty: Synthesizer,
    batch_size: int,
    output: Path,
    shown: int,
) -> list[SourceShare]:
    """Write contributions.csv (after each subject) and, of the first `shown` cases,
    contributions.pdf and .png; v(∅) is what `empty` gives, the training subjects' mean image."""
    names, rows = list(config.data.sequences), list[SourceShare]()
    pictures: dict[tuple[str, Task], Panels] = {}
    order = [(case.subject.name, case.task) for case in cases]
    subjects = group_by(cases, lambda case: case.subject.name)
    for name, own in tqdm(subjects.items(), unit="subject", desc="explaining"):
        tasks = list(dict.fromkeys(case.task for case in own))
        needed = needed_sequences(tasks)
        loaded = load_window(config, own[0].subject, needed)
        labels = window_labels(config, loaded)
        means = {task.target: own for (_, task), own in empty.predict(loaded, tasks).items()}
        for found in explain_contributions(network, loaded.images, tasks, batch_size, means):
            brain = brain_mask(loaded.centres[list(found.task.sources)])
            rows += _rows(name, found, brain, labels, names)
            if (name, found.task) in order[:shown]:
                pictures[name, found.task] = _panels(config, loaded, found, brain, names)
        write_rows(output / CSV, SourceShare, rows)
    figure = contribution_maps_figure([pictures[key] for key in order[:shown]])
    save_figure_pair(figure, output / "contributions")
    return rows


def read_contributions(path: Path) -> list[SourceShare]:
    """Rows of a contributions.csv; UserError where the file is missing or no such table."""
    return read_rows(path, SourceShare, f"a {CSV}")


def contribution_share_table(rows: Sequence[SourceShare], names: Sequence[str]) -> Table:
    """One row a task and region: the mean share of each source over subjects."""
    cells = []
    groups = group_by(rows, lambda row: (row.sources, row.target, row.region))
    for key, group in groups.items():
        of_source = group_by(group, lambda row: row.source)
        shares = {source: np.mean([row.share for row in own]) for source, own in of_source.items()}
        subjects = len({row.name for row in group})
        cells.append([*key, *(shares.get(name) for name in names), subjects])
    return Table(
        "Contributions: each source's share of what the sources add to the synthesis (mean of its "
        "amount, by Shapley values at every voxel); means over subjects.",
        ["sources", "target", "region", *names, "subjects"],
        cells,
        labels=3,
    )


def _rows(
    name: str,
    found: Explanation,
    brain: np.ndarray,
    labels: np.ndarray | None,
    names: Sequence[str],
) -> list[SourceShare]:
    regions: Mapping[str, np.ndarray] = {BRAIN: brain}
    if labels is not None and (lesion := brain & (labels > 0)).any():
        regions = {BRAIN: brain, LESION: lesion}
    return [
        SourceShare(
            *(name, *found.task.label(names), names[source], region),
            float(found.contributions[source][mask].mean()),
            float(np.abs(found.contributions[source][mask]).mean()),
            share,
        )
        for region, mask in regions.items()
        for source, share in found.shares(mask).items()
    ]


def _panels(
    config: Config,
    loaded: SubjectWindow,
    found: Explanation,
    brain: np.ndarray,
    names: Sequence[str],
) -> Panels:
    """The slice with the largest lesion, else the middle one."""
    z, outline = shown_slice(config, loaded)
    wanted, shares = loaded.centres[found.task.target], found.shares(brain)
    name, quality = loaded.volumes.subject.name.replace("/", "/\n"), psnr(wanted, found.synthesis)
    label = f"{name}\n→ {names[found.task.target]}\n{quality:.1f} dB"
    maps = {
        f"{names[source]}: {shares[source]:.0%}": own[z]
        for source, own in found.contributions.items()
    }
    return Panels(label, wanted[z], found.synthesis[z], found.empty[z], maps, outline)
