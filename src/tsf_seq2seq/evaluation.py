"""The paper's evaluation: central stacks and crop, centre slices, metrics per volume."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.architecture import Network
from tsf_seq2seq.baselines import LinearRegression, MeanImage
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.nifti import write_volume
from tsf_seq2seq.data.slices import BACKGROUND, Window, central_window, stacks
from tsf_seq2seq.data.subjects import Subject, Volumes, find_subjects, load_subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.figures import plot_examples
from tsf_seq2seq.files import write_atomically
from tsf_seq2seq.metrics import LPIPS, psnr, ssim
from tsf_seq2seq.prediction import synthesize
from tsf_seq2seq.tasks import Task, all_tasks

TasksOf = Callable[[Subject], list[Task]]
EXAMPLES = 6  # rows of examples.png


@dataclass(frozen=True)
class Score:
    """One synthesized volume against the real one: a row of metrics.csv.

    `sources` in the sequences' order joined by +; psnr in dB, lpips summed over slices (nan where
    LPIPS's weights were not found).
    """

    name: str
    sources: str
    target: str
    method: str
    psnr: float
    ssim: float
    lpips: float

    @property
    def n_inputs(self) -> int:
        return self.sources.count("+") + 1


class Method(Protocol):
    """Something that synthesizes: window (S, Z, Y, X) → each task's centre slices."""

    name: str

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> dict[Task, np.ndarray]: ...


class NetworkMethod:
    """A trained network, `batch_size` stacks at once."""

    def __init__(self, name: str, network: Network, slices: int, batch_size: int) -> None:
        self.name, self.network, self.slices = name, network, slices
        self.batch_size = batch_size

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> dict[Task, np.ndarray]:
        return synthesize(self.network, stacks(window, self.slices), tasks, self.batch_size)


class BaselineMethod:
    """A yardstick without network, on the centre slices of the stacks."""

    def __init__(self, name: str, model: LinearRegression | MeanImage, slices: int) -> None:
        self.name, self.model, self.slices = name, model, slices

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> dict[Task, np.ndarray]:
        centres = centre_slices(window, self.slices)
        return {task: self.model.predict(centres, task) for task in tasks}


def centre_slices(window: np.ndarray, height: int) -> np.ndarray:
    """(S, Z, Y, X) → the centre slice of every stack of `height`, (S, Z − height + 1, Y, X)."""
    half = height // 2
    return window[:, half : window.shape[1] - half]


def evaluation_window(config: Config, volumes: Volumes) -> Window:
    """The central crop of the volumes' slices."""
    shape = volumes.images.shape[1:]
    return central_window(shape, config.data.slices, config.data.crop)


def fit_baselines(config: Config, names: Sequence[str]) -> list[Method]:
    """The yardsticks named (linear_regression, mean_image), fitted on the training subjects."""
    if not names:
        return []
    count, height = len(config.data.sequences), config.seq2seq.slices
    models: dict[str, LinearRegression | MeanImage] = {
        "linear_regression": LinearRegression(count),
        "mean_image": MeanImage(),
    }
    chosen = {name: models[name] for name in names}
    shape: tuple[int, ...] | None = None
    for subject in tqdm(find_subjects(config.data, config.data.train), desc="fitting baselines"):
        if len(subject.on_disk) < count:
            continue
        volumes = load_subject(subject, config.data.slices, count)
        window = centre_slices(evaluation_window(config, volumes).of(volumes.images), height)
        if shape is not None and shape != window.shape:
            raise UserError(
                f"subject {subject.name}: its window {window.shape[1:]} differs from the others' "
                f"{shape[1:]}, so that no baseline can be fitted"
            )
        shape = window.shape
        for model in chosen.values():
            model.fit([window])
    if shape is None:
        raise UserError(f"{config.data.train}: no subject has all sequences to fit baselines on")
    return [BaselineMethod(name, model, height) for name, model in chosen.items()]


def evaluate(
    config: Config,
    subjects: Sequence[Subject],
    tasks_of: TasksOf,
    methods: Sequence[Method],
    output: Path,
    lpips: LPIPS | None,
    predictions: bool = True,
) -> list[Score]:
    """Score every method on every task of every subject.

    `output` receives metrics.csv (brought up to date after each subject), examples.png and, with
    `predictions`, the first method's volumes as predict/<name>_<target>_from_<sources>.nii.gz.
    """
    names = list(config.data.sequences)
    scores: list[Score] = []
    examples: list[tuple[str, dict[str, np.ndarray | None]]] = []
    for subject in tqdm(subjects, unit="subject", desc="evaluating"):
        tasks = tasks_of(subject)
        if not tasks:
            continue
        needed = {index for task in tasks for index in (*task.sources, task.target)}
        volumes = load_subject(subject, config.data.slices, len(names), sorted(needed))
        window = evaluation_window(config, volumes)
        images = window.of(volumes.images)
        targets = centre_slices(images, config.seq2seq.slices)
        if targets.shape[1] < 1:
            raise UserError(f"subject {subject.name} has too few slices: {images.shape[1]}")
        for method in methods:
            outputs = method.predict(images, tasks)
            for task, output_volume in outputs.items():
                score = _score(
                    subject.name, task, names, method.name, targets, output_volume, lpips
                )
                scores.append(score)
            if method is methods[0]:
                if predictions:
                    _save_predictions(output / "predict", volumes, window, outputs, names)
                if len(examples) < EXAMPLES:
                    examples += list(_examples(subject.name, targets, outputs, names))
        write_scores(output / "metrics.csv", scores)
    if not scores:
        raise UserError(f"{config.data.test}: no subject gives a task to evaluate")
    plot_examples(examples[:EXAMPLES], output / "examples.png")
    return scores


def task_list(subject: Subject, n_sequences: int) -> list[Task]:
    """Every source set → missing target that the subject's sequences on disk allow."""
    on_disk = set(subject.on_disk)
    return [task for task in all_tasks(n_sequences) if on_disk >= {*task.sources, task.target}]


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write metrics.csv, all or nothing."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Score)])
            writer.writeheader()
            writer.writerows(asdict(score) for score in scores)

    write_atomically(path, write)


def summarise(
    scores: Sequence[Score], group: Callable[[Score], tuple[object, ...]]
) -> dict[tuple[object, ...], dict[str, tuple[float, float, int]]]:
    """Per group and metric: mean, standard deviation (ddof 0) and number of volume pairs."""
    groups: dict[tuple[object, ...], list[Score]] = {}
    for score in scores:
        groups.setdefault(group(score), []).append(score)
    return {
        key: {
            metric: (
                float(np.mean([getattr(score, metric) for score in members])),
                float(np.std([getattr(score, metric) for score in members])),
                len(members),
            )
            for metric in ("psnr", "ssim", "lpips")
        }
        for key, members in groups.items()
    }


def table_by_inputs(scores: Sequence[Score]) -> str:
    """Number of inputs × method: mean ± standard deviation of every metric."""
    rows = summarise(scores, lambda score: (score.n_inputs, score.method))
    width = max(len(score.method) for score in scores)
    lines = [f"inputs  pairs  {'method':{width}}  PSNR (dB)      SSIM             LPIPS"]
    for (inputs, method), metrics in sorted(rows.items(), key=lambda item: str(item[0][0])):
        lines.append(f"{inputs!s:6}  {metrics['psnr'][2]:5}  {method!s:{width}}  {_cells(metrics)}")
    return "\n".join(lines)


def table_by_pair(scores: Sequence[Score]) -> str:
    """Source × target: mean ± standard deviation of every metric."""
    rows = summarise(scores, lambda score: (score.sources, score.target))
    width = max(len(score.sources) for score in scores)
    lines = [f"{'source':{width}} → target  pairs  PSNR (dB)      SSIM             LPIPS"]
    for (source, target), metrics in rows.items():
        lines.append(
            f"{source!s:{width}} → {target!s:6}  {metrics['psnr'][2]:5}  {_cells(metrics)}"
        )
    return "\n".join(lines)


def _cells(metrics: Mapping[str, tuple[float, float, int]]) -> str:
    (psnr_mean, psnr_std, _), (ssim_mean, ssim_std, _) = metrics["psnr"], metrics["ssim"]
    lpips_mean, lpips_std, _ = metrics["lpips"]
    lpips = "–" if math.isnan(lpips_mean) else f"{lpips_mean:.2f} ± {lpips_std:.2f}"
    return f"{psnr_mean:5.2f} ± {psnr_std:4.2f}   {ssim_mean:.4f} ± {ssim_std:.4f}  {lpips}"


def _score(
    name: str,
    task: Task,
    names: Sequence[str],
    method: str,
    targets: np.ndarray,
    output: np.ndarray,
    lpips: LPIPS | None,
) -> Score:
    sources, target = task.label(names)
    wanted = targets[task.target]
    distance = math.nan if lpips is None else float(lpips.per_slice(wanted, output).sum())
    return Score(
        name, sources, target, method, psnr(wanted, output), ssim(wanted, output), distance
    )


def _save_predictions(
    folder: Path,
    volumes: Volumes,
    window: Window,
    outputs: Mapping[Task, np.ndarray],
    names: Sequence[str],
) -> None:
    """Write each output on the subject's whole grid; outside the evaluated window it is −1."""
    shape = volumes.images.shape[1:]
    depth = volumes.geometry.lps().shape[2]
    for task, output in outputs.items():
        half = (window.z.stop - window.z.start - len(output)) // 2
        inner = Window(slice(window.z.start + half, window.z.stop - half), window.y, window.x)
        whole = np.full((depth, *shape[1:]), BACKGROUND, dtype=np.float32)
        whole[volumes.slices] = inner.into(output, shape)
        sources, target = task.label(names)
        file_name = f"{volumes.subject.name}_{target}_from_{sources}.nii.gz".replace("/", "_")
        write_volume(folder / file_name, whole, volumes.geometry)


def _examples(
    name: str, targets: np.ndarray, outputs: Mapping[Task, np.ndarray], names: Sequence[str]
) -> Iterator[tuple[str, dict[str, np.ndarray | None]]]:
    """The middle slice of each task: sources, target, synthesis, absolute error."""
    middle = targets.shape[1] // 2
    for task, output in outputs.items():
        panels: dict[str, np.ndarray | None] = {
            sequence: targets[i, middle] if i in task.sources else None
            for i, sequence in enumerate(names)
        }
        panels["target"] = targets[task.target, middle]
        panels["synthesis"] = output[middle]
        panels["error"] = np.abs(output[middle] - targets[task.target, middle])
        yield f"{name}\n→ {names[task.target]}", panels
