"""The endless, seeded stream of training crops.

Everything random in a visit to a subject comes from (seed, epoch, visit), so that any position of
the stream can be entered anew and reading processes don't change it.
"""

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import BACKGROUND, Images, pad_to, random_crop
from tsf_seq2seq.data.store import StoredImages, open_store
from tsf_seq2seq.data.subjects import Subject, SubjectCache, check_slices
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import Task

SampleTask = Callable[[Sequence[int], np.random.Generator], Task]


EMPTY_VISITS = 10  # visits per subject without a crop, after which the stream gives up


class Position(NamedTuple):
    """A place in the stream: this many crops of visit `visit` of epoch `epoch` are done."""

    epoch: int = 0
    visit: int = 0
    crops: int = 0


class Visit(NamedTuple):
    """A visit to one subject, or to several that have the same sequences."""

    epoch: int
    number: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Crop:
    """What one optimizer step sees: images (B, S, C, H, W) in [-1, 1] and their task."""

    images: Tensor
    task: Task
    skip_attention: bool
    names: tuple[str, ...]

    def to(self, device: torch.device) -> "Crop":
        return replace(self, images=self.images.to(device))


def plan_epoch(
    available: Sequence[tuple[int, ...]], batch_size: int, seed: int, epoch: int
) -> list[tuple[int, ...]]:
    """Groups of at most `batch_size` subjects (indices) with equal sequences, in random order."""
    rng = np.random.default_rng([seed, epoch])
    waiting: dict[tuple[int, ...], list[int]] = {}
    groups = []
    for index in rng.permutation(len(available)).tolist():
        group = waiting.setdefault(available[index], [])
        group.append(index)
        if len(group) == batch_size:
            groups.append(tuple(waiting.pop(available[index])))
    return groups + [tuple(group) for group in waiting.values()]


class CropStream:
    """Iterates over (crop, position after it), from `start` on, without end."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        config: Config,
        sample_task: SampleTask,
        start: Position = Position(),  # noqa: B008  (a NamedTuple is immutable)
    ) -> None:
        self.start = start
        self.visits = _Visits(subjects, config, sample_task)
        self.plan = _Plan(self.visits.available, config, start)
        self.workers = config.data.workers

    def __iter__(self) -> Generator[tuple[Crop, Position], None, None]:
        """Close it when done: that ends the reading processes, which hear no signal."""
        loader = DataLoader(
            self.visits,
            batch_size=None,
            sampler=self.plan,
            num_workers=self.workers,
            collate_fn=_unchanged,
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        skip = self.start.crops
        empty = 0
        for visit, crops in loader:
            if isinstance(crops, UserError):
                raise crops
            empty = 0 if crops else empty + 1
            if empty > EMPTY_VISITS * len(self.visits.subjects):
                raise UserError("every training crop is all background: look at data.slices")
            for number, crop in enumerate(crops[skip:], start=skip + 1):
                yield crop, Position(visit.epoch, visit.number, number)
            skip = 0


class _Plan(Sampler[Visit]):
    """The visits of all epochs, from `start` on."""

    def __init__(
        self, available: Sequence[tuple[int, ...]], config: Config, start: Position
    ) -> None:
        self.available, self.start = available, start
        self.batch_size, self.seed = config.train.batch_size, config.train.seed

    def __iter__(self) -> Iterator[Visit]:
        epoch, first = self.start.epoch, self.start.visit
        while True:
            groups = plan_epoch(self.available, self.batch_size, self.seed, epoch)
            for number in range(first, len(groups)):
                yield Visit(epoch, number, groups[number])
            epoch, first = epoch + 1, 0


class _Visits(Dataset[tuple[Visit, "list[Crop] | UserError"]]):
    """A visit → its crops, or the error that kept them from being read.

    (Raised in a reading process, the error would reach the user wrapped in a traceback.)
    """

    def __init__(
        self, subjects: Sequence[Subject], config: Config, sample_task: SampleTask
    ) -> None:
        self.subjects, self.config, self.sample_task = subjects, config, sample_task
        self.available = [
            subject.on_disk if config.data.use_all_sequences else subject.available
            for subject in subjects
        ]
        data = config.data
        self.store = open_store(data)
        self.cache = SubjectCache(data.slices, len(data.sequences), data.cache_gb)

    def __getitem__(self, visit: Visit) -> "tuple[Visit, list[Crop] | UserError]":
        try:
            return visit, list(self.crops(visit))
        except UserError as error:
            return visit, error

    def crops(self, visit: Visit) -> Iterator[Crop]:
        """The visit's crops; samples whose first source is all background are left out."""
        train, crop = self.config.train, self.config.data.crop
        rng = np.random.default_rng([train.seed, visit.epoch, visit.number])
        height = self.config.seq2seq.slices
        volumes = [self._prepare(self.subjects[i], height, rng) for i in visit.members]
        for _ in range(train.crops_per_visit):
            task = self.sample_task(self.available[visit.members[0]], rng)
            skip_attention = bool(rng.random() < 0.5)
            samples = [random_crop(volume, height, crop, rng) for volume in volumes]
            kept = [
                (sample, self.subjects[i].name)
                for sample, i in zip(samples, visit.members, strict=True)
                if (sample[task.sources[0]] > BACKGROUND).any()
            ]
            if kept:
                images = torch.from_numpy(np.stack([sample for sample, _ in kept]))
                yield Crop(images, task, skip_attention, tuple(name for _, name in kept))

    def _prepare(self, subject: Subject, height: int, rng: np.random.Generator) -> Images:
        """The subject's sequences (S, Z, Y, X), flipped left-right with p = 0.5."""
        images = self._images(subject, flipped=bool(rng.random() < 0.5))
        check_slices(subject.name, images.shape[1], height)
        return images

    def _images(self, subject: Subject, flipped: bool) -> Images:
        data = self.config.data
        if self.store is not None:
            return StoredImages(self.store.open(subject.name), data.slices, data.crop, flipped)
        images = self.cache.load(subject).images
        return pad_to(images[..., ::-1] if flipped else images, data.crop)


def _unchanged(item: object) -> object:
    return item


def _leave_signals_to_the_main_process(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
