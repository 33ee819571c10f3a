"""Task-specific enhanced maps (TSEM): where the attention residual f_A changes the output."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.nifti import write_volume
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.data.statistics import evenly_spaced
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.evaluation.scores import PSNR, Score, check_distinct_files, examined_method
from tsf_seq2seq.explain.differentiation import shown_slice
from tsf_seq2seq.explain.tsem_figure import Picture, tsem_figure
from tsf_seq2seq.figures import save_figure_pair
from tsf_seq2seq.models.base import WITHOUT_ATTENTION, SynthesisNetwork, variant_for
from tsf_seq2seq.models.error_estimator import ERROR_SCALE
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window
from tsf_seq2seq.tables import Table, cell_text, group_by, write_rows
from tsf_seq2seq.tasks import Task, missing_target_tasks, needed_sequences


class Case(NamedTuple):
    """A subject, and a task that its sequences on disk allow."""

    subject: Subject
    task: Task


@dataclass(frozen=True)
class Finding:
    """One case in numbers: a row of tsem.csv.

    psnr in dB, of the evaluated window; the rest over the brain: means of TSEM and of the absolute
    error (normalised intensities, range 2), and Spearman's rank correlation of the two, nan where
    one of them is constant.
    """

    LABELS: ClassVar[int] = 3
    name: str
    sources: str
    target: str
    psnr: float
    mean_tsem: float
    mean_error: float
    spearman: float


class WindowMaps(NamedTuple):
    """Per task the synthesis, of a network with f_A TSEM, and of a judged one the scale of its
    errors, (Z − C + 1, Y, X) each."""

    syntheses: Mapping[Task, np.ndarray]
    tsem: Mapping[Task, np.ndarray]
    scales: Mapping[Task, np.ndarray]


def window_maps(
    network: SynthesisNetwork, window: np.ndarray, tasks: Sequence[Task], batch_size: int
) -> WindowMaps:
    """Of a window (S, Z, Y, X) in [-1, 1], the centre slices of its stacks of C slices.

    TSEM = |output with f_A − output without f_A| (paper, Sec. 2.3).
    """
    whole, blocks = variant_for(network, tasks), stacks(window, network.slices)
    variants = [whole, *(v for v in (WITHOUT_ATTENTION, ERROR_SCALE) if v in network.variants)]
    outputs = run_stacks(network, blocks, tasks, batch_size, variants, centre=True)
    images = {v: {task: outputs[v, task] for task in tasks} for v in variants}
    plain = images.get(WITHOUT_ATTENTION, {})
    tsem = {task: np.abs(images[whole][task] - without) for task, without in plain.items()}
    return WindowMaps(images[whole], tsem, images.get(ERROR_SCALE, {}))


def check_has_tsem(network: SynthesisNetwork) -> None:
    """UserError for a network without f_A."""
    if WITHOUT_ATTENTION not in network.variants:
        raise UserError(f"{type(network).__name__} has no attention residual f_A, and so no TSEM")


def parse_task(text: str, names: Sequence[str]) -> Task:
    """The task that "t1+t2:flair" stands for: sources joined by +, a colon, the target."""
    sources, _, target = text.partition(":")
    named = [*sources.split("+"), target]
    unknown = [name for name in named if name not in names]
    if unknown or len(set(named[:-1])) < len(named) - 1:
        raise UserError(
            f"task '{text}' must be sources and target, such as t1+t2:flair, each source once, of "
            f"the sequences {', '.join(names)}"
        )
    return Task(tuple(sorted(names.index(name) for name in named[:-1])), names.index(target))


def possible_cases(subjects: Iterable[Subject], tasks: Sequence[Task] = ()) -> list[Case]:
    """Every subject with each of the `tasks` that its sequences on disk allow.

    Without `tasks`: its available sequences, by its mask, → each missing one that is on disk.
    """
    return [
        Case(subject, task)
        for subject in subjects
        for task in tasks or missing_target_tasks(subject)
        if set(subject.on_disk) >= {*task.sources, task.target}
    ]


def scored_cases(
    scores: Iterable[Score],
    subjects: Iterable[Subject],
    tasks: Sequence[Task],
    names: Sequence[str],
    count: int,
    method: str | None = None,
) -> list[Case]:
    """`count` cases among those that an evaluation scored for `method` (else its first), evenly
    from the highest PSNR to the lowest: three are the best, the median (of two, the better) and the
    worst.

    Only of the `subjects`, and of the `tasks` where some are given.
    """
    scores = list(scores)
    method = method or examined_method(scores)
    known = {subject.name: subject for subject in subjects}
    own = [s for s in scores if s.method == method and s.name in known and not isnan(s.psnr)]
    own.sort(key=lambda score: -score.psnr)
    cases = [Case(known[s.name], parse_task(f"{s.sources}:{s.target}", names)) for s in own]
    cases = [case for case in cases if not tasks or case.task in tasks]
    return [cases[index] for index in evenly_spaced(len(cases), count)]


def write_tsem(
    network: SynthesisNetwork,
    config: Config,
    cases: Sequence[Case],
    batch_size: int,
    output: Path,
    shown: int,
) -> list[Finding]:
    """Write each case's map, `<name>_<target>_from_<sources>_tsem.nii.gz`, tsem.csv (after each
    subject) and, of the first `shown` cases, tsem.pdf and .png.

    The maps lie on the subject's grid, in normalised intensities (range 2), 0 outside the evaluated
    window. A subject's sources are encoded once for all its cases.
    """
    check_has_tsem(network)
    names = list(config.data.sequences)
    order = [(case.subject.name, case.task) for case in cases]
    files = {(name, task): _map_file(name, task, names) for name, task in order}
    check_distinct_files((name, file) for (name, _), file in files.items())
    findings: dict[tuple[str, Task], Finding] = {}
    pictures: dict[tuple[str, Task], Picture] = {}
    subjects = group_by(cases, lambda case: case.subject.name)
    for name, own in tqdm(subjects.items(), unit="subject", desc="mapping"):
        tasks = [case.task for case in own]
        explained = explain(network, config, own[0].subject, tasks, batch_size)
        for task, tsem in explained.maps.tsem.items():
            findings[name, task] = finding = _finding(explained, task, names)
            whole = explained.loaded.on_whole_grid(tsem, outside=0)
            path, geometry = output / files[name, task], explained.loaded.volumes.geometry
            write_volume(path, whole, geometry, f"TSEM of {finding.target}")
            if (name, task) in order[:shown]:
                pictures[name, task] = _picture(config, explained, task, finding)
        write_rows(output / "tsem.csv", Finding, [findings[k] for k in order if k in findings])
    save_figure_pair(tsem_figure([pictures[key] for key in order[:shown]]), output / "tsem")
    return [findings[key] for key in order]


def _map_file(name: str, task: Task, names: Sequence[str]) -> str:
    sources, target = task.label(names)
    return f"{name.replace('/', '_')}_{target}_from_{sources}_tsem.nii.gz"


@dataclass(frozen=True)
class Explained:
    """A subject's evaluated window, and the network's maps of it."""

    loaded: SubjectWindow
    maps: WindowMaps

    def mapped(self, adaptation: Adaptation, names: Sequence[str]) -> "Explained":
        """The same with every synthesis as an adaptation's map makes it; other maps as they are."""
        centres, syntheses = self.loaded.centres, {}
        for task, output in self.maps.syntheses.items():
            synthesis = adaptation.mapped(task, names, centres, output)
            syntheses[task] = output if synthesis is None else synthesis
        return replace(self, maps=self.maps._replace(syntheses=syntheses))


def explain(
    network: SynthesisNetwork,
    config: Config,
    subject: Subject,
    tasks: Sequence[Task],
    batch_size: int,
) -> Explained:
    """Load a subject and compute its syntheses and the maps that the network has."""
    tasks = list(dict.fromkeys(tasks))
    loaded = load_window(config, subject, needed_sequences(tasks))
    return Explained(loaded, window_maps(network, loaded.images, tasks, batch_size))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays; nan where one of them is constant."""
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return nan
    return float(spearmanr(a, b).statistic)


def finding_table(findings: Iterable[Finding]) -> Table:
    """One row a case."""
    return Table(
        "TSEM and absolute error, means over the brain, and Spearman's correlation of the two.",
        ["subject", "sources", "target", PSNR.heading, "TSEM", "error", "Spearman"],
        [
            [name, sources, target, PSNR.text(quality), tsem, error, cell_text(correlation)]
            for name, sources, target, quality, tsem, error, correlation in map(astuple, findings)
        ],
        labels=3,
        style=".4f",
    )


def _finding(explained: Explained, task: Task, names: Sequence[str]) -> Finding:
    """A case in numbers; the brain is where any source is above background."""
    synthesis, tsem = explained.maps.syntheses[task], explained.maps.tsem[task]
    wanted = explained.loaded.centres[task.target]
    error = np.abs(synthesis - wanted)
    brain = brain_mask(explained.loaded.centres[list(task.sources)])
    return Finding(
        explained.loaded.volumes.subject.name,
        *task.label(names),
        psnr(wanted, synthesis),
        float(tsem[brain].mean()),
        float(error[brain].mean()),
        rank_correlation(tsem[brain], error[brain]),
    )


def _picture(config: Config, explained: Explained, task: Task, finding: Finding) -> Picture:
    """The slice with the largest lesion, else the middle one."""
    z, outline = shown_slice(config, explained.loaded)
    synthesis, tsem = explained.maps.syntheses[task], explained.maps.tsem[task]
    wanted = explained.loaded.centres[task.target]
    name = finding.name.replace("/", "/\n")
    sources = finding.sources.replace("+", " + ")
    label = "\n".join([name, sources, f"→ {finding.target}", f"{finding.psnr:.1f} dB"])
    return Picture(label, wanted[z], synthesis[z], tsem[z], outline)
