"""Complete subjects of the same scanner, and the contrast maps that they give an imputation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.discovery import FoundSubject, discover, discover_files
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation.mapped import source_stack, training_histograms
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.slices import synthesize_grid
from tsf_seq2seq.imputation.sources import Image, load_sources, told_synthetic
from tsf_seq2seq.synthesis.adaptation import Adaptation, Reference, median_maxima
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, slab_moments
from tsf_seq2seq.synthesis.finish import Finish
from tsf_seq2seq.synthesis.likeness import Histogram, differences, histogram
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.polynomials import Moments
from tsf_seq2seq.tasks import Task, all_tasks, task_key

Like = Path | str | Mapping[str, Image]


@dataclass(frozen=True)
class _Look:
    """A reference seen from a set of sources to one target."""

    moments: list[Moments]
    maximum: float  # the target's intensity that became 1
    histogram: Histogram  # of the sources
    warnings: tuple[str, ...]


@dataclass
class References:
    """Subjects (name → sequence → image) that tell a model its user's scanner.

    Each is put through the network once for every set of sources and target that is asked for; what
    comes out is finished as `finish` says.
    """

    model: Model
    subjects: Mapping[str, Mapping[str, Image]]
    options: ImputeOptions = ImputeOptions()
    finish: Finish | None = None
    _looks: dict[tuple[str, tuple[str, ...], str], _Look] = field(default_factory=dict)

    def check_model(self) -> None:
        """UserError where the model is adapted already."""
        if self.model.adaptation is not None:
            others = ", ".join(reference.name for reference in self.model.adaptation.references)
            raise UserError(
                f"{self.model.path} is adapted already, to {others}: give the checkpoint that it "
                "was made from"
            )

    def complete(
        self, sources: Sequence[str], target: str, but: Mapping[str, Image] | None = None
    ) -> list[str]:
        """Names of the subjects that have these sequences, and aren't the subject of the images
        `but`. UserError where there are none."""
        needed = [*sources, target]
        having = [
            name
            for name, own in self.subjects.items()
            if all(sequence in own for sequence in needed)
        ]
        found = [n for n in having if not _is_same(self.subjects[n], but or {}, sources)]
        if not found:
            itself = " but the subject itself" if having else ""
            raise UserError(
                f"no reference{itself} has {', '.join(needed)}, by which {target} could be "
                f"adapted: {self._having}"
            )
        return found

    def fingerprints(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Name → sequence → what changes when the content of the file does."""
        return {
            name: {
                sequence: fingerprint(Path(image))
                for sequence, image in self.subjects[name].items()
                if isinstance(image, str | Path)
            }
            for name in sorted(names)
        }

    def adaptation(
        self,
        sources: Sequence[str],
        target: str,
        but: Mapping[str, Image] | None = None,
        targets: Sequence[str] = (),
    ) -> tuple[Adaptation, tuple[str, ...]]:
        """The map of a task, and what is to be said of its references; `sources` as chosen, the
        first of which gives the grid, `but` as in `complete`; `targets`: all that will be asked
        for, so that a reference is put through the network once."""
        key, fitted, looks = self._fit(sources, target, but, targets)
        warnings = [
            f"reference {name}: {text}" for name, look in looks.items() for text in look.warnings
        ]
        adaptation = Adaptation(
            tuple(Reference(*item) for item in self.fingerprints(list(looks)).items()),
            {key: fitted},
            median_maxima([{target: look.maximum} for look in looks.values()]),
            tuple(look.histogram for look in looks.values()),
        )
        return adaptation, tuple(warnings)

    def adaptation_of_all(self, progress: Iterable[Task] | None = None) -> Adaptation:
        """The maps of all tasks that the references have the sequences for and the network does.

        `progress`: `tasks` as a progress bar gives them. Raises UserError where there is no task.
        """
        names, maps = list(self.model.sequences), dict[str, ContrastMap]()
        for task in self.tasks if progress is None else progress:
            sources = [names[i] for i in task.sources]  # seen once by all that is made of them
            targets = [names[t.target] for t in self.tasks if t.sources == task.sources]
            key, fitted, _ = self._fit(sources, names[task.target], None, targets)
            maps[key] = fitted
        if not maps:
            raise UserError(f"no reference has the sequences of a task: {self._having}")
        loaded = {
            name: load_sources(dict(own), self.options.resample)
            for name, own in self.subjects.items()
        }
        prints = self.fingerprints(list(self.subjects))
        return Adaptation(
            tuple(Reference(*item) for item in prints.items()),
            maps,
            median_maxima([loaded[name].maxima for name in prints]),
            tuple(histogram(name, loaded[name].images) for name in prints),
        )

    @property
    def tasks(self) -> list[Task]:
        """Those of which the network is able and a reference has all sequences."""
        names = list(self.model.sequences)
        having = [{names.index(sequence) for sequence in own} for own in self.subjects.values()]
        return [
            task
            for task in all_tasks(len(names))
            if self.model.network.accepts(task)
            and any(own >= {*task.sources, task.target} for own in having)
        ]

    def differences(self, adaptation: Adaptation) -> list[str]:
        """In which sequences the references differ among each other more than is usual, in words;
        of the adaptation to all of them."""
        training, shapes = training_histograms(self.model), adaptation.histograms
        found = []
        for number, one in enumerate(shapes):
            pairs = differences(one, shapes[:number], training)
            found += [f"reference {one.name}: {own.text()}" for own in pairs if not own.is_alike]
        return found

    @property
    def _having(self) -> str:
        """Which sequences each has, in words."""
        return "; ".join(f"{name}: {', '.join(own)}" for name, own in self.subjects.items())

    def _fit(
        self,
        sources: Sequence[str],
        target: str,
        but: Mapping[str, Image] | None,
        targets: Sequence[str],
    ) -> tuple[str, ContrastMap, dict[str, _Look]]:
        """The task, such as t1+t2:flair, its map, and by name the references that it is from."""
        names, found = list(self.model.sequences), sorted(self.complete(sources, target, but))
        self._look_at(found, sources, targets or [target])
        looks = {name: self._looks[name, tuple(sources), target] for name in found}
        task = self.model.task(sources, target)
        prior = self.model.prior.map_of(task, names) if self.model.prior else None
        moments = {name: look.moments for name, look in looks.items()}
        fitted = fit_map(moments, True, prior.prior if prior else None)
        return task_key(task, names), fitted, looks

    def _look_at(
        self, subjects: Sequence[str], sources: Sequence[str], targets: Sequence[str]
    ) -> None:
        """Put what was not looked at yet through the network."""
        for name in subjects:
            own = self.subjects[name]
            having = [target for target in targets if target in own]
            key = tuple(sources)
            if left := [target for target in having if (name, key, target) not in self._looks]:
                try:
                    found = self._synthesize(name, sources, left)
                except UserError as error:
                    raise UserError(f"reference {name}: {error}") from error
                self._looks |= {(name, key, target): look for target, look in found.items()}

    def _synthesize(
        self, name: str, sources: Sequence[str], targets: Sequence[str]
    ) -> dict[str, _Look]:
        given = {sequence: self.subjects[name][sequence] for sequence in (*sources, *targets)}
        told_synthetic(given, allowed=False, hint="")
        loaded = load_sources(given, self.options.resample)
        seen = loaded.of(sources)
        tasks = {target: self.model.task(sources, target) for target in targets}
        slices, _ = synthesize_grid(
            *(self.model, seen, list(tasks.values()), self.options.precision),
            self.options.batch_size,
            with_maps=False,
            finish=self.finish,
        )
        images = source_stack(self.model, seen, next(iter(tasks.values())))
        shape = histogram(name, seen.images)
        return {
            target: _Look(
                slab_moments(images, slices[task].image, loaded.images[target], seen.brain),
                loaded.maxima[target],
                shape,
                loaded.not_stripped + loaded.doubts,
            )
            for target, task in tasks.items()
        }


def find_references(
    like: Sequence[Like], model: Model, known: Sequence[FoundSubject] = ()
) -> dict[str, Mapping[str, Image]]:
    """Name → images of the subjects that `like` names: folders, files, names of `known` subjects,
    or mappings from sequence to image. UserError for what is none of these."""
    data, by_name = model.config.data, {subject.name: subject for subject in known}
    found: list[FoundSubject] = []
    folders, files, mappings = [], [], []
    for item in like:
        if isinstance(item, Mapping):
            mappings.append(item)
        elif str(item) in by_name:
            found.append(by_name[str(item)])
        elif Path(item).is_dir():
            folders.append(Path(item))
        elif Path(item).is_file():
            files.append(Path(item))
        else:
            names = f", nor the name of one of {', '.join(by_name)}" if by_name else ""
            raise UserError(f"reference {item} is no folder or file{names}")
    found += discover(folders, data) if folders else []
    found += discover_files(files, data) if files else []
    subjects: dict[str, Mapping[str, Image]] = {}
    for subject in found:
        if subject.doubles:
            raise UserError(f"reference {subject.name}: {subject.doubles[0]}")
        if subjects.get(subject.name, subject.files) != subject.files:
            raise UserError(f"two references are called {subject.name}: give them in one folder")
        own = subject.files
        subjects[subject.name] = {name: own[name] for name in model.sequences if name in own}
    for number, images in enumerate(mappings, 1):
        if unknown := [name for name in images if name not in model.sequences]:
            raise UserError(
                f"reference {number}: sequence {unknown[0]} is unknown to {model.path}, which "
                f"knows {', '.join(model.sequences)}"
            )
        subjects[str(number)] = images
    return subjects


def _is_same(a: Mapping[str, Image], b: Mapping[str, Image], sequences: Sequence[str]) -> bool:
    """Whether two subjects' images of the sequences are the same files or objects."""
    pairs = [(a[name], b[name]) for name in sequences if name in a and name in b]
    return bool(pairs) and all(_content(one) == _content(other) for one, other in pairs)


def _content(image: Image) -> object:
    return fingerprint(Path(image)) if isinstance(image, str | Path) else id(image)
