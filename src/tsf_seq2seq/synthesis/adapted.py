"""Networks adapted to a scanner: maps fitted on evaluated windows of other subjects."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tsf_seq2seq.config import Config, FinishStep
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.adapted_names import BACKGROUND_SET, adapted_name, families_of
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of, slab_moments
from tsf_seq2seq.synthesis.map_fits import (
    fit_map,
    gain_and_offset,
    identity_map,
    regression_map,
)
from tsf_seq2seq.synthesis.polynomials import Moments, sum_of
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer, Outputs
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window
from tsf_seq2seq.tasks import Task

ReferencesOf = Callable[[Subject], Sequence[Subject]]


@dataclass
class AdaptedSynthesizer:
    """A network's main method, and the same adapted by maps fitted on other subjects.

    `references_of`: a subject's references, of which the first n serve `name + n`, for each n of
    `counts`; with 0, the `prior` alone. With `beside`, what the map is to be compared with:
    the network's output with the background set as maps set it, its gain and offset, and (with
    `regression`: of several networks, one gives it) the quadratic regression, both fitted on the
    same references.
    """

    plain: NetworkSynthesizer
    config: Config
    counts: Sequence[int]
    references_of: ReferencesOf
    prior: Adaptation | None = None
    beside: bool = False
    regression: bool = True
    _moments: dict[tuple[str, Task], list[Moments]] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        name = self.plain.main
        own = [adapted_name(name, n) for n in self.counts]
        if self.beside:
            own += [f"{name}, {BACKGROUND_SET}"]
            own += [adapted_name(rival, n) for n in self.counts if n for rival in self._rivals]
        return [*self.plain.names, *own]

    @property
    def finished(self) -> Mapping[str, Sequence[FinishStep]]:
        return self.plain.finished

    @property
    def _rivals(self) -> Sequence[str]:
        _, gain, quadratic = families_of(self.plain.main)
        return [gain, quadratic] if self.regression else [gain]

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        outputs = self.plain.predict(loaded, tasks)
        references = self.references_of(loaded.volumes.subject)
        self._look_at(references, tasks)
        name, found = self.plain.main, Outputs()
        for task in tasks:
            sources, output = loaded.centres[list(task.sources)], outputs.get((name, task))
            brain = brain_of(sources)
            for method, fitted in self._maps(task, references, output is not None).items():
                found[method, task] = fitted(sources, output, brain)
        return outputs | found

    def _maps(
        self, task: Task, references: Sequence[Subject], uses_output: bool
    ) -> dict[str, ContrastMap]:
        """Method → map."""
        name, maps = self.plain.main, {}
        prior = self.prior.map_of(task, list(self.config.data.sequences)) if self.prior else None
        if self.beside and uses_output:
            identity = identity_map(len(task.sources) + 1)
            maps[f"{name}, {BACKGROUND_SET}"] = identity
        for n in self.counts:
            own = {r.name: self._moments[r.name, task] for r in references[:n]}
            if n == 0:
                known = prior or identity_map(len(task.sources) + 1)
                if uses_output or not known.uses_output:
                    maps[adapted_name(name, 0)] = known
                continue
            shrunk_to = prior.prior if prior and prior.uses_output == uses_output else None
            maps[adapted_name(name, n)] = fit_map(own, uses_output, shrunk_to)
            if self.beside:
                total = sum_of([part for slabs in own.values() for part in slabs])
                gain, *quadratic = self._rivals
                if uses_output:
                    maps[adapted_name(gain, n)] = gain_and_offset(total)
                for rival in quadratic:
                    maps[adapted_name(rival, n)] = regression_map(total, uses_output)
        return maps

    def _look_at(self, references: Sequence[Subject], tasks: Sequence[Task]) -> None:
        """Keep the moments of what references serve for and weren't looked at for yet."""
        for subject in references[: max(self.counts)]:
            missing = [task for task in tasks if (subject.name, task) not in self._moments]
            if missing:
                loaded = load_window(self.config, subject)
                for task, slabs in window_moments(self.plain, loaded, missing).items():
                    self._moments[subject.name, task] = slabs


class MappedSynthesizer:
    """A network's methods, the first and the main one with the maps of its checkpoint, where these
    know a task; with `beside`, the network alone is a method, too."""

    def __init__(
        self,
        plain: NetworkSynthesizer,
        adaptation: Adaptation,
        sequences: Sequence[str],
        beside: bool = False,
    ) -> None:
        self.plain, self.adaptation, self.sequences = plain, adaptation, sequences
        self.beside = beside

    @property
    def names(self) -> Sequence[str]:
        return [*self.plain.names, *([self._without] if self.beside else ())]

    @property
    def finished(self) -> Mapping[str, Sequence[FinishStep]]:
        return self.plain.finished

    @property
    def _without(self) -> str:
        return f"{self.plain.names[0]}_without_map"

    def predict(self, loaded: SubjectWindow, tasks: Sequence[Task]) -> Outputs:
        outputs, name = self.plain.predict(loaded, tasks), self.plain.names[0]
        centres = loaded.centres
        for task in tasks:
            output = outputs.get((name, task))
            if self.beside and output is not None:
                outputs[self._without, task] = output
            for method in dict.fromkeys((name, self.plain.main)):
                output = outputs.get((method, task))
                mapped = self.adaptation.mapped(task, self.sequences, centres, output)
                if mapped is not None:
                    outputs[method, task] = mapped
        return outputs


def references_by_site(
    pool: Sequence[Subject], subjects: Sequence[Subject], number: int, n_sequences: int, seed: int
) -> dict[str, list[Subject]]:
    """For each of the subjects, by name, `number` others of its site that have all sequences.

    Drawn from the `pool` by the seed and the subject's name: fewer are the first of more. Raises
    UserError where a subject has no site, or its site too few.
    """
    chosen = {}
    for subject in subjects:
        if subject.site is None:
            raise UserError(
                f"subject {subject.name} has no site: adaptation to others of its site needs the "
                "split file's third column"
            )
        others = [
            other
            for other in sorted(pool, key=lambda one: one.name)
            if other.site == subject.site
            and other.name != subject.name
            and len(other.on_disk) == n_sequences
        ]
        if len(others) < number:
            raise UserError(
                f"subject {subject.name}: its site {subject.site} has {len(others)} other subjects "
                f"with all sequences, but {number} are asked for"
            )
        own = np.random.default_rng([seed, zlib.crc32(subject.name.encode())])
        chosen[subject.name] = [others[i] for i in own.permutation(len(others))[:number]]
    return chosen


def window_moments(
    plain: NetworkSynthesizer, loaded: SubjectWindow, tasks: Sequence[Task]
) -> dict[Task, list[Moments]]:
    """Each task's moments of a subject's evaluated window; f is the main method's output."""
    outputs, centres = plain.predict(loaded, tasks), loaded.centres
    return {task: task_moments(centres, outputs.get((plain.main, task)), task) for task in tasks}


def task_moments(images: np.ndarray, output: np.ndarray | None, task: Task) -> list[Moments]:
    """Moments of images (S, Z, Y, X) and a network's output (Z, Y, X) where there is one."""
    sources = images[list(task.sources)]
    return slab_moments(sources, output, images[task.target], brain_of(sources))
