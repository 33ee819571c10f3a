"""What synthesizes: networks, their ablations, and baselines without a network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config, FinishStep
from tsf_seq2seq.data.slices import centre_slices, stacks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import AVERAGE, FULL, SynthesisNetwork
from tsf_seq2seq.synthesis.baselines import MeanImage, PolynomialRegression
from tsf_seq2seq.synthesis.contrast_map import brain_of
from tsf_seq2seq.synthesis.finish import Finish, finished_name, run_averaged
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window
from tsf_seq2seq.tasks import Task

MEAN_IMAGE = "mean_image"  # the method that looks at no source
BASELINES: dict[str, Callable[[int], PolynomialRegression | MeanImage]] = {
    "linear_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=1),
    "quadratic_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=2),
    MEAN_IMAGE: lambda n_sequences: MeanImage(),
}
Outputs = dict[tuple[str, Task], np.ndarray]


class Synthesizer(Protocol):
    """One or several methods that share work."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def finished(self) -> Mapping[str, Sequence[FinishStep]]:
        """Methods that there is a finished one of, too → the steps that were done to it."""
        ...

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        """A subject's window → (method, task): centre slices (Z − C + 1, Y, X).

        Of the tasks that a method can do.
        """
        ...


class NetworkSynthesizer:
    """Variants of one network, `batch_size` stacks at a time; a method `name` for the whole one,
    `name_variant` for each other. With a `finish`, the first that is no ablation is a further
    method as that makes it."""

    def __init__(
        self,
        name: str,
        network: SynthesisNetwork,
        variants: Sequence[str],
        batch_size: int,
        finish: Finish | None = None,
    ) -> None:
        self.network, self.batch_size = network, batch_size
        self.methods = {v: name if v == FULL else f"{name}_{v}" for v in variants}
        self.whole = next((v for v in variants if v in (FULL, AVERAGE)), None)
        self.finish = finish if self.whole is not None else None

    @property
    def names(self) -> Sequence[str]:
        return [*self.methods.values(), *map(finished_name, self.finished)]

    @property
    def finished(self) -> Mapping[str, Sequence[FinishStep]]:
        if self.finish is None or self.whole is None:
            return {}
        return {self.methods[self.whole]: self.finish.steps}

    @property
    def main(self) -> str:
        """The method that a scanner's maps are fitted on and applied to: the finished one, else the
        first."""
        return next(map(finished_name, self.finished), self.names[0])

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        of_variant = {v: self._accepted(v, tasks) for v in self.methods}
        blocks = stacks(loaded.images, self.network.slices)
        outputs, averaged = Outputs(), dict[Task, np.ndarray]()
        for own in dict.fromkeys(tuple(tasks) for tasks in of_variant.values()):  # mostly one
            variants = [v for v, tasks in of_variant.items() if tuple(tasks) == own]
            shared = self.network, blocks, own, self.batch_size, variants
            if self.finish is not None and self.whole in variants:
                found, averaged = run_averaged(*shared, self.finish.steps, self.whole)
                outputs |= found
            else:
                outputs |= run_stacks(*shared, centre=True)
        plain = {
            (method, task): outputs[variant, task]
            for variant, method in self.methods.items()
            for task in of_variant[variant]
        }
        if self.finish is None:
            return plain
        return plain | _finished(self.finish, self.main, loaded.centres, averaged)

    def _accepted(self, variant: str, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in tasks if self.network.accepts(task, variant)]


def _finished(
    finish: Finish, name: str, centres: np.ndarray, outputs: Mapping[Task, np.ndarray]
) -> Outputs:
    """Each task's output (Z, Y, X) of images (S, Z, Y, X), finished, as the method `name`."""
    found = Outputs()
    for task, output in outputs.items():
        sources = centres[list(task.sources)]
        found[name, task] = finish(task, sources, output, brain_of(sources))
    return found


class BaselineSynthesizer:
    """A baseline without network, on the centre slices of the stacks; with a `finish`, also as that
    makes it."""

    def __init__(
        self,
        name: str,
        model: PolynomialRegression | MeanImage,
        slices: int,
        finish: Finish | None = None,
    ) -> None:
        self.name, self.model, self.slices, self.finish = name, model, slices, finish

    @property
    def names(self) -> Sequence[str]:
        return [self.name, *map(finished_name, self.finished)]

    @property
    def finished(self) -> Mapping[str, Sequence[FinishStep]]:
        return {} if self.finish is None else {self.name: self.finish.steps}

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        centres = centre_slices(loaded.images, self.slices)
        outputs = {task: self.model.predict(centres, task) for task in tasks}
        plain = {(self.name, task): output for task, output in outputs.items()}
        if self.finish is None:
            return plain
        return plain | _finished(self.finish, finished_name(self.name), centres, outputs)


def fit_baselines(
    config: Config, names: Sequence[str], tasks: Iterable[Task], finish: Finish | None = None
) -> list[Synthesizer]:
    """The baselines among `names`, fitted on the training subjects' sequences on disk; with a
    `finish`, also as that makes them.

    Raises UserError where no training subject has the sequences of one of the `tasks`.
    """
    sequences, height = list(config.data.sequences), config.data.stack
    models = {name: make(len(sequences)) for name, make in BASELINES.items() if name in names}
    if not models:
        return []
    for subject in tqdm(find_subjects(config.data, config.data.train), desc="fitting baselines"):
        centres = load_window(config, subject).centres
        for model in models.values():
            model.fit([centres], subject.on_disk)
    for task in tasks:
        for name, model in models.items():
            if not model.covers(task):
                sources, target = task.label(sequences)
                raise UserError(
                    f"{config.data.train}: no subject has the sequences to fit {name} for "
                    f"{sources} → {target}; leave it out of the methods"
                )
    return [BaselineSynthesizer(name, model, height, finish) for name, model in models.items()]
