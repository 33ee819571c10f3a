"""What synthesizes: networks, their ablations, and baselines without a network."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import centre_slices, stacks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.synthesis.baselines import MeanImage, PolynomialRegression
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window
from tsf_seq2seq.tasks import Task

BASELINES: dict[str, Callable[[int], PolynomialRegression | MeanImage]] = {
    "linear_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=1),
    "quadratic_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=2),
    "mean_image": lambda n_sequences: MeanImage(),
}
Outputs = dict[tuple[str, Task], np.ndarray]


class Synthesizer(Protocol):
    """One or several methods that share work."""

    @property
    def names(self) -> Sequence[str]: ...

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        """A subject's window → (method, task): centre slices (Z − C + 1, Y, X).

        Of the tasks that a method can do.
        """
        ...


class NetworkSynthesizer:
    """Variants of one network, `batch_size` stacks at a time; a method `name` for the whole one,
    `name_variant` for each other."""

    def __init__(
        self, name: str, network: SynthesisNetwork, variants: Sequence[str], batch_size: int
    ) -> None:
        self.network, self.batch_size = network, batch_size
        self.methods = {v: name if v == FULL else f"{name}_{v}" for v in variants}

    @property
    def names(self) -> Sequence[str]:
        return list(self.methods.values())

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        of_variant = {v: self._accepted(v, tasks) for v in self.methods}
        blocks = stacks(loaded.images, self.network.slices)
        outputs: Outputs = {}
        for own in dict.fromkeys(tuple(tasks) for tasks in of_variant.values()):  # mostly one
            variants = [v for v, tasks in of_variant.items() if tuple(tasks) == own]
            outputs |= run_stacks(self.network, blocks, own, self.batch_size, variants, centre=True)
        return {
            (method, task): outputs[variant, task]
            for variant, method in self.methods.items()
            for task in of_variant[variant]
        }

    def _accepted(self, variant: str, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in tasks if self.network.accepts(task, variant)]


def variant_for(network: SynthesisNetwork, tasks: Iterable[Task]) -> str:
    """The first variant that can do all the tasks; the whole network where none can."""
    tasks = list(tasks)
    able = (v for v in network.variants if all(network.accepts(task, v) for task in tasks))
    return next(able, FULL)


class BaselineSynthesizer:
    """A baseline without network, on the centre slices of the stacks."""

    def __init__(self, name: str, model: PolynomialRegression | MeanImage, slices: int) -> None:
        self.names, self.model, self.slices = (name,), model, slices

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        centres = centre_slices(loaded.images, self.slices)
        return {(self.names[0], task): self.model.predict(centres, task) for task in tasks}


def fit_baselines(config: Config, names: Sequence[str], tasks: Iterable[Task]) -> list[Synthesizer]:
    """The baselines among `names`, fitted on the training subjects' sequences on disk.

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
    return [BaselineSynthesizer(name, model, height) for name, model in models.items()]
