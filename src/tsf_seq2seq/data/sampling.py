"""The endless, seeded stream of training crops.

Tasks come from (seed, epoch, visit), flip, crops and augmentation of a subject from (seed, epoch,
subject): any position of the stream can be entered anew, and neither reading processes nor the
number of training processes changes it.
"""

import math
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.augmentation import augment
from tsf_seq2seq.data.loading import Subject, SubjectCache, check_slices
from tsf_seq2seq.data.slices import BACKGROUND, Images, pad_to, random_crop
from tsf_seq2seq.data.store import StoredImages, open_store
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.processes import check_memory
from tsf_seq2seq.tasks import Task

# A task of available sequences, when a share of the run is past.
SampleTask = Callable[[Sequence[int], np.random.Generator, float], Task]


MOST_WORKERS = 1000  # processes that read volumes
EMPTY_VISITS = 10  # visits per subject without anatomy, after which the stream gives up
# What a random stream is for, the first part of its seed:
EPOCH, TASKS, CROPS, AUGMENTATION = 1, 2, 3, 4


class Position(NamedTuple):
    """A place in the stream: this many crops of visit `visit` of epoch `epoch` are past."""

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
    """What one optimizer step sees: images and inputs (B, S, C, H, W) in [-1, 1] and their task.

    `images`: what outputs are compared with; `inputs`: what networks are given, the same tensor
    without augmentation of intensities;
    `available`: the sequences that training takes of these subjects; others may be background;
    `coin`: heads or tails, for what an objective leaves to chance.
    Without `names` no sample is left: `images` is then one of background only.
    """

    images: Tensor
    inputs: Tensor
    available: tuple[int, ...]
    task: Task
    coin: bool
    names: tuple[str, ...]

    def to(self, device: torch.device) -> "Crop":
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Crop":
        """The crop in page-locked memory, as DataLoader asks for it: its copy to CUDA overlaps."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Crop":
        images = move(self.images)
        inputs = images if self.inputs is self.images else move(self.inputs)
        return replace(self, images=images, inputs=inputs)


def plan_epoch(
    available: Sequence[tuple[int, ...]], batch_size: int, seed: int, epoch: int
) -> list[tuple[int, ...]]:
    """Groups of at most `batch_size` subjects (indices) with equal sequences, in random order."""
    rng = np.random.default_rng([EPOCH, seed, epoch])
    waiting: dict[tuple[int, ...], list[int]] = {}
    groups = []
    for index in rng.permutation(len(available)).tolist():
        group = waiting.setdefault(available[index], [])
        group.append(index)
        if len(group) == batch_size:
            groups.append(tuple(waiting.pop(available[index])))
    return groups + [tuple(group) for group in waiting.values()]


def check_sizes(config: Config, n_subjects: int) -> None:
    """UserError where reading crops would take more memory or processes than a machine has."""
    data, train = config.data, config.train
    samples = train.crops_per_visit * min(train.batch_size, n_subjects)
    voxels = samples * len(data.sequences) * data.stack * math.prod(data.crop)
    voxels *= 2 if config.augmentation.intensity else 1  # images and inputs
    check_memory(
        f"a visit's {samples:,} crops (train.batch_size, train.crops_per_visit) of "
        f"{data.stack:,} × {data.crop[0]:,} × {data.crop[1]:,} voxels (data.stack, data.crop)",
        4 * voxels,
    )
    check_memory("data.cache_gb in all data.workers", data.cache_gb * 1e9 * max(data.workers, 1))
    if data.workers > MOST_WORKERS:
        raise UserError(f"data.workers must be at most {MOST_WORKERS}, not {data.workers:,}")


class CropStream:
    """Iterates over (crop, position after it), from `start` on, without end.

    Each of several processes gets its part of every crop's samples; task and position are the same
    in all. A crop of which a process has no sample left comes too, without names.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        config: Config,
        sample_task: SampleTask,
        start: Position = Position(),  # noqa: B008  (a NamedTuple is immutable)
        processes: Processes = ALONE,
    ) -> None:
        self.start = start
        self.visits = _Visits(subjects, config, sample_task, processes)

    def __iter__(self) -> Generator[tuple[Crop, Position], None, None]:
        """Close it when done: that ends the reading processes, which hear no signal."""
        loader = DataLoader(
            self.visits,
            batch_size=None,
            sampler=self._plan(),
            num_workers=self.visits.config.data.workers,
            collate_fn=tuple,  # as it is
            worker_init_fn=_leave_signals_to_the_main_process,
            pin_memory=torch.cuda.is_available(),
        )
        skip = self.start.crops
        empty = 0
        for visit, crops in loader:
            if isinstance(crops, UserError):
                raise crops
            empty = 0 if any(crop.names for crop in crops) else empty + 1
            if empty > EMPTY_VISITS * len(self.visits.subjects):
                raise UserError("every training crop is all background: look at data.slices")
            for number, crop in enumerate(crops[skip:], start=skip + 1):
                yield crop, Position(visit.epoch, visit.number, number)
            skip = 0

    def _plan(self) -> Iterator[Visit]:
        """The visits of all epochs, from `start` on."""
        train = self.visits.config.train
        batch_size = train.batch_size * self.visits.processes.size
        for epoch in count(self.start.epoch):
            groups = plan_epoch(self.visits.available, batch_size, train.seed, epoch)
            for number, members in enumerate(groups):
                if (epoch, number) >= self.start[:2]:
                    yield Visit(epoch, number, members)


@dataclass(eq=False)
class _Visits(Dataset[tuple[Visit, "list[Crop] | UserError"]]):
    """A visit → its crops, or the error that kept them from being read.

    (Raised in a reading process, the error would reach the user wrapped in a traceback.)
    """

    subjects: Sequence[Subject]
    config: Config
    sample_task: SampleTask
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        data = self.config.data
        self.available = [subject.trained_on(data.use_all_sequences) for subject in self.subjects]
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
        tasks = np.random.default_rng([TASKS, train.seed, visit.epoch, visit.number])
        available, height = self.available[visit.members[0]], self.config.data.stack
        augmentation = self.config.augmentation
        volumes = [
            (
                self.subjects[i],
                *self._prepare(i, visit.epoch, height),
                np.random.default_rng([AUGMENTATION, train.seed, visit.epoch, i]),
            )
            for i in self.processes.share(visit.members)
        ]
        done = self._done(visit)
        for _ in range(train.crops_per_visit):
            task = self.sample_task(available, tasks, done)
            coin = bool(tasks.random() < 0.5)
            samples = {
                subject.name: augment(random_crop(images, height, crop, rng), augmentation, chance)
                for subject, images, rng, chance in volumes
            }
            kept = {
                name: sample
                for name, sample in samples.items()
                if (sample[1][task.sources[0]] > BACKGROUND).any()
            }
            shape = (len(self.config.data.sequences), height, *crop)
            background = np.full(shape, BACKGROUND, dtype=np.float32)
            wanted, given = zip(*(kept.values() or [(background, background)]), strict=True)
            images = torch.from_numpy(np.stack(wanted))
            inputs = torch.from_numpy(np.stack(given)) if augmentation.intensity else images
            yield Crop(images, inputs, available, task, coin, tuple(kept))

    def _done(self, visit: Visit) -> float:
        """The share of the run that is past at a visit, in [0, 1], were all visits full."""
        train, samples = self.config.train, self.config.train.batch_size * self.processes.size
        visits = visit.epoch * math.ceil(len(self.subjects) / samples) + visit.number
        return min(1.0, visits * train.crops_per_visit / train.steps)

    def _prepare(self, index: int, epoch: int, height: int) -> tuple[Images, np.random.Generator]:
        """A subject's sequences (S, Z, Y, X), flipped left-right with p = 0.5, and what its crops
        are drawn with."""
        subject, data = self.subjects[index], self.config.data
        rng = np.random.default_rng([CROPS, self.config.train.seed, epoch, index])
        flipped = bool(rng.random() < 0.5)
        images: Images
        if self.store is not None:
            images = StoredImages(self.store.open(subject.name), data.slices, data.crop, flipped)
        else:
            volumes = self.cache.load(subject).images
            images = pad_to(volumes[..., ::-1] if flipped else volumes, data.crop)
        check_slices(subject.name, images.shape[1], height)
        return images, rng


def _leave_signals_to_the_main_process(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
