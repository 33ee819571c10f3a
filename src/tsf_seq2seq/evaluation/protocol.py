"""The paper's evaluation: central stacks and crop, centre slices, metrics per volume."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.nifti import write_volume
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.fingerprint import goes_on
from tsf_seq2seq.evaluation.metrics import LPIPS, psnr, ssim
from tsf_seq2seq.evaluation.scores import Score, prediction_path, read_scores, write_scores
from tsf_seq2seq.figures import Example, plot_examples
from tsf_seq2seq.synthesis.synthesizers import Outputs, Synthesizer
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, all_tasks

TasksOf = Callable[[Subject], list[Task]]
EXAMPLES = 6  # subjects in examples.png


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is evaluated on each subject, and what is left in the folder.

    `identity` says what makes scores comparable (weights, methods, data); a folder whose scores
    come from another identity is refused. The first method's volumes are saved as predictions.
    """

    tasks_of: TasksOf
    synthesizers: Sequence[Synthesizer]
    lpips: LPIPS | None
    identity: Mapping[str, Any]
    save_predictions: bool = True
    max_stacks: int | None = None


def evaluate(
    config: Config,
    subjects: Sequence[Subject],
    protocol: EvaluationProtocol,
    output: Path,
    processes: Processes = ALONE,
) -> list[Score]:
    """Score every method on every task of every subject; goes on where it was interrupted.

    `output` receives metrics.csv (brought up to date after each subject), examples.png, the
    protocol's identity, and predictions as predict/<name>_<target>_from_<sources>.nii.gz. Several
    processes take one subject each at a time; each writes its predictions, the main one the rest.
    """
    metrics = output / "metrics.csv"
    known = goes_on(metrics, output / "evaluation.json", protocol.identity)
    scores = read_scores(metrics) if known else []
    done = {score.name for score in scores}
    waiting = [s for s in subjects if s.name not in done and protocol.tasks_of(s)]
    if not scores and not waiting:
        raise UserError(f"{config.data.test}: no subject gives a task to evaluate")
    numbered = list(enumerate(waiting))
    examples: list[Example] = []
    hidden = not processes.main
    with tqdm(total=len(waiting), unit="subject", desc="evaluating", disable=hidden) as bar:
        for start in range(0, len(waiting), processes.size):
            own = [
                _evaluate_subject(config, subject, protocol, output, number)
                for number, subject in processes.share(numbered[start : start + processes.size])
            ]
            results = processes.gather_shares(own)
            scores += [score for of_subject, _ in results for score in of_subject]
            examples += [example for _, example in results if example is not None]
            if processes.main:
                write_scores(metrics, scores)
            bar.update(len(results))
    if examples and processes.main:
        plot_examples(examples, output / "examples.png")
    return scores


def _evaluate_subject(
    config: Config, subject: Subject, protocol: EvaluationProtocol, output: Path, number: int
) -> tuple[list[Score], Example | None]:
    """A subject's scores, and of the run's first few an example; predictions are saved."""
    names, tasks = list(config.data.sequences), protocol.tasks_of(subject)
    needed = sorted({index for task in tasks for index in (*task.sources, task.target)})
    loaded = load_window(config, subject, needed, protocol.max_stacks)
    outputs: Outputs = {}
    for synthesizer in protocol.synthesizers:
        outputs |= synthesizer.predict(loaded.images, tasks)
    scores = _scores(subject.name, outputs, loaded.centres, names, protocol.lpips)
    first = protocol.synthesizers[0].names[0]
    able = [task for task in tasks if (first, task) in outputs]
    if protocol.save_predictions:
        for task in able:
            path = prediction_path(output, subject.name, *task.label(names))
            whole = loaded.on_whole_grid(outputs[first, task])
            title = f"prediction of {names[task.target]}"
            write_volume(path, whole, loaded.volumes.geometry, title)
    if number >= EXAMPLES or not able:
        return scores, None
    shown = able[7 * number % len(able)]  # not always the first
    return scores, _example(subject, shown, loaded.centres, outputs[first, shown], names)


def complete_tasks(subject: Subject, n_sequences: int) -> list[Task]:
    """Every source set → missing target that the subject's sequences on disk allow."""
    on_disk = set(subject.on_disk)
    return [task for task in all_tasks(n_sequences) if on_disk >= {*task.sources, task.target}]


def _scores(
    name: str, outputs: Outputs, targets: np.ndarray, names: Sequence[str], lpips: LPIPS | None
) -> list[Score]:
    """Score each output against its target; an output that serves several tasks is looked at once.

    Target by target, so that LPIPS computes a target's features once.
    """
    values: dict[tuple[int, int], tuple[float, float, float, float]] = {}
    for index, target in enumerate(targets):
        own = {id(output): output for (_, task), output in outputs.items() if task.target == index}
        values |= {(index, key): _metrics(target, output, lpips) for key, output in own.items()}
    return [
        Score(name, *task.label(names), method, *values[task.target, id(output)])
        for (method, task), output in outputs.items()
    ]


def _metrics(
    target: np.ndarray, output: np.ndarray, lpips: LPIPS | None
) -> tuple[float, float, float, float]:
    """PSNR, SSIM, LPIPS summed over slices, and its mean."""
    distances = np.array([math.nan]) if lpips is None else lpips.per_slice(target, output)
    summed, mean = float(distances.sum()), float(distances.mean())
    return psnr(target, output), ssim(target, output), summed, mean


def _example(
    subject: Subject, task: Task, targets: np.ndarray, output: np.ndarray, names: Sequence[str]
) -> Example:
    """The middle slice of a task: sources, target, synthesis, absolute error.

    Slices are copied: as views they would keep the whole volumes in memory.
    """
    middle = targets.shape[1] // 2
    slices, synthesis = targets[:, middle].copy(), output[middle].copy()
    target = slices[task.target]
    panels = {name: slices[i] if i in task.sources else None for i, name in enumerate(names)}
    panels |= {"target": target, "synthesis": synthesis, "error": np.abs(synthesis - target)}
    name = subject.name.replace("/", "/\n")
    return Example(f"{name}\n→ {names[task.target]}", panels)
