"""The paper's evaluation: central stacks and crop, centre slices, metrics per volume."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.nifti import write_volume
from tsf_seq2seq.data.synthetic import is_marked_file
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import LPIPS, psnr, ssim
from tsf_seq2seq.evaluation.record import Entry, MadeFrom, Record, digest_of, made_from
from tsf_seq2seq.evaluation.scores import (
    ADAPTATION_FILES,
    MADE_OF_SCORES,
    TABLE_FILES,
    Score,
    check_distinct_files,
    prediction_path,
)
from tsf_seq2seq.figures import Example, plot_examples
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.synthesis.synthesizers import Outputs, Synthesizer
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tables import rows_text
from tsf_seq2seq.tasks import Task, all_tasks, needed_sequences

TasksOf = Callable[[Subject], list[Task]]
IDENTITY = "evaluation.json"
EXAMPLES, EXAMPLES_FILE = 6, "examples.png"  # so many subjects are in it


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is evaluated on each subject, and what is left in the folder.

    `identity` says what makes scores comparable (weights, methods, data); a folder whose scores
    come from another identity is refused. The first method's volumes are saved as predictions.
    `references_of`: the subjects that a subject's results depend on beside itself.
    """

    tasks_of: TasksOf
    synthesizers: Sequence[Synthesizer]
    lpips: LPIPS | None
    identity: Mapping[str, Any]
    save_predictions: bool = True
    max_stacks: int | None = None
    references_of: Callable[[Subject], Sequence[Subject]] = lambda subject: ()


def evaluate(
    config: Config,
    subjects: Sequence[Subject],
    protocol: EvaluationProtocol,
    output: Path,
    processes: Processes = ALONE,
) -> list[Score]:
    """Score every method on every task of every subject; the main process gets the scores.

    `output` receives metrics.csv (brought up to date after each subject), examples.png, the
    protocol's identity with the record of what each subject's scores were made from, and
    predictions as predict/<name>_<target>_from_<sources>.nii.gz. What the record says is done, and
    is still true, isn't done again. Several processes take one subject each at a time; each writes
    its predictions, the main one the rest.
    """
    tasks = {subject.name: own for subject in subjects if (own := protocol.tasks_of(subject))}
    if not tasks:
        raise UserError(f"{config.data.test}: no subject gives a task to evaluate")
    of_name = {subject.name: subject for subject in subjects}
    planned = {name: _predictions(name, own, config) for name, own in tasks.items()}
    if protocol.save_predictions:
        check_distinct_files(
            (name, file) for name, files in planned.items() for file in files.values()
        )
    results = _Results(output, protocol, list(tasks)) if processes.main else None
    inputs = {
        name: partial(_made_from, of_name[name], own, config, protocol)
        for name, own in tasks.items()
    }
    waiting = processes.gather(results.waiting(inputs) if results else [])[0]
    numbered = list(enumerate(of_name[name] for name in waiting))
    examples: list[Example] = []
    with tqdm(total=len(waiting), unit="subject", desc="evaluating", disable=not results) as bar:
        for start in range(0, len(waiting), processes.size):
            batch = numbered[start : start + processes.size]
            for _, subject in batch:
                if results:
                    results.record.begin(subject.name, planned[subject.name].values())
            processes.gather(None)  # no file of a subject changes before the record says so
            evaluated = [
                _evaluate_subject(config, subject, protocol, output, number)
                for number, subject in processes.share(batch)
            ]
            done = processes.gather_shares(evaluated)
            examples += [example for _, example in done if example is not None]
            if results:
                names = [subject.name for _, subject in batch]
                results.add(dict(zip(names, (entry for entry, _ in done), strict=True)))
            bar.update(len(done))
    if results is None:
        return []
    results.record.compact(tasks)
    if examples:
        plot_examples(examples, output / EXAMPLES_FILE)
    return results.scores


class _Results:
    """The folder of an evaluation: its record, and metrics.csv, which is made of it."""

    def __init__(self, output: Path, protocol: EvaluationProtocol, names: Sequence[str]) -> None:
        self.output, self.names, self.with_files = output, names, protocol.save_predictions
        self.metrics = output / "metrics.csv"
        self.record = Record(output / IDENTITY, protocol.identity, self.metrics)
        self._lines: dict[str, str] = {}  # each subject's, of metrics.csv

    @property
    def scores(self) -> list[Score]:
        """Of the subjects asked for that are done, in their order."""
        return [Score(*row) for rows in self.record.results(self.names) for row in rows]

    def waiting(self, inputs: Mapping[str, Callable[[], MadeFrom]]) -> list[str]:
        """The subjects that are to be done; says which are done again, and why.

        Of the others the scores are in metrics.csv; what isn't true any more is gone.
        """
        reasons = self.record.outdated(inputs, self.with_files)
        self._remove_strays()
        kept = [name for name in self.names if name not in reasons]
        for name, rows in zip(kept, self.record.results(kept), strict=True):
            self._take(name, rows)
        if any(reasons.values()):
            (self.output / EXAMPLES_FILE).unlink(missing_ok=True)
        if reasons or not self._are_written():
            self._remove_tables()
        if not kept:
            self.metrics.unlink(missing_ok=True)
        elif not self._are_written():
            write_text(self.metrics, self._text())
        return list(reasons)

    def _remove_strays(self) -> None:
        """Remove predictions that the record knows nothing of, as where it was damaged; say so."""
        known = {self.output / file for file in self.record.files}
        found = sorted(self.output.glob("predict/*.nii.gz"))
        strays = [path for path in found if path not in known and is_marked_file(path)]
        if strays:
            print(f"removed {len(strays)} predictions of no known result, such as {strays[0]}")
        for path in strays:
            path.unlink()

    def _remove_tables(self) -> None:
        """Remove what was made of former scores; of what other commands made, say so."""
        others = [name for name in MADE_OF_SCORES if (self.output / name).is_file()]
        if others:
            print(f"removed, as they were of former scores: {', '.join(others)}")
        for name in (*TABLE_FILES, *ADAPTATION_FILES, *others):
            (self.output / name).unlink(missing_ok=True)

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Subjects that have been done."""
        for name, entry in entries.items():
            self.record.finish(name, entry)
            self._take(name, entry.results)
        write_text(self.metrics, self._text())

    def _take(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        self._lines[name] = rows_text(Score, [Score(*row) for row in rows]).partition("\n")[2]

    def _text(self) -> str:
        own = (self._lines[name] for name in self.names if name in self._lines)
        return rows_text(Score, ()) + "".join(own)

    def _are_written(self) -> bool:
        return self.metrics.is_file() and self.metrics.read_bytes() == self._text().encode()


def _predictions(name: str, tasks: Iterable[Task], config: Config) -> dict[Task, str]:
    """Each task's prediction, relative to the folder."""
    names = list(config.data.sequences)
    paths = {task: prediction_path(Path(), name, *task.label(names)) for task in tasks}
    return {task: path.as_posix() for task, path in paths.items()}


def _made_from(
    subject: Subject, tasks: Sequence[Task], config: Config, protocol: EvaluationProtocol
) -> dict[str, str]:
    own = made_from(subject, needed_sequences(tasks), tasks, list(config.data.sequences))
    references = {f"reference {r.name}": digest_of([r]) for r in protocol.references_of(subject)}
    return own | references


def _evaluate_subject(
    config: Config, subject: Subject, protocol: EvaluationProtocol, output: Path, number: int
) -> tuple[Entry, Example | None]:
    """A subject's scores, and of the run's first few an example; predictions are saved."""
    names, tasks = list(config.data.sequences), protocol.tasks_of(subject)
    # Before they are read, in case they change.
    inputs = _made_from(subject, tasks, config, protocol)
    loaded = load_window(config, subject, needed_sequences(tasks), protocol.max_stacks)
    outputs: Outputs = {}
    for synthesizer in protocol.synthesizers:
        outputs |= synthesizer.predict(loaded, tasks)
    scores = _scores(subject.name, outputs, loaded.centres, names, protocol.lpips)
    first = protocol.synthesizers[0].names[0]
    files = _predictions(subject.name, [t for t in tasks if (first, t) in outputs], config)
    contents = None
    if protocol.save_predictions:
        for task, file in files.items():
            whole = loaded.on_whole_grid(outputs[first, task])
            title = f"prediction of {names[task.target]}"
            write_volume(output / file, whole, loaded.volumes.geometry, title)
        contents = {file: fingerprint(output / file) for file in files.values()}
    entry = Entry(inputs, [list(astuple(score)) for score in scores], contents)
    if number >= EXAMPLES or not files:
        return entry, None
    shown = list(files)[7 * number % len(files)]  # not always the first
    return entry, _example(subject, shown, loaded.centres, outputs[first, shown], names)


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
