"""How training draws tasks, plans epochs and streams crops."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import sequence_file
from torch.utils.data._utils.pin_memory import pin_memory

from tsf_seq2seq.config import load_config
from tsf_seq2seq.data import sampling
from tsf_seq2seq.data.loading import load_subject
from tsf_seq2seq.data.sampling import CropStream, Position, Visit, plan_epoch
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import (
    Task,
    all_tasks,
    sample_fusion_task,
    sample_translation,
    translation_pairs,
)

DRAWS = 6000


def near(count: int, probability: float) -> bool:
    """Within five standard deviations of a binomial count."""
    deviation = (DRAWS * probability * (1 - probability)) ** 0.5
    return abs(count - DRAWS * probability) <= 5 * deviation


# --- tasks


def test_all_tasks():
    tasks = all_tasks(4)
    assert len(tasks) == len(set(tasks)) == 28  # 4 · 3 + 6 · 2 + 4 · 1
    assert all(task.target not in task.sources for task in tasks)
    assert Counter(len(task.sources) for task in tasks) == {1: 12, 2: 12, 3: 4}


def test_translation_pairs():
    assert translation_pairs((0, 3)) == [
        Task((0,), 0),
        Task((0,), 3),
        Task((3,), 0),
        Task((3,), 3),
    ]


def test_labels_stand_in_the_sequences_order():
    assert Task((3, 0), 1).label(["t1", "t1ce", "t2", "flair"]) == ("t1+flair", "t1ce")


def test_translation_draws_every_pair_alike():
    rng = np.random.default_rng(0)
    counts = Counter(sample_translation((0, 2, 3), rng) for _ in range(DRAWS))
    assert set(counts) == {Task((i,), j) for i in (0, 2, 3) for j in (0, 2, 3)}
    assert all(near(count, 1 / 9) for count in counts.values())


@pytest.mark.parametrize("available", [(0, 1, 2, 3), (0, 2, 3), (1, 3), (2,)])
def test_fusion_tasks(available):
    rng = np.random.default_rng(1)
    n = len(available)
    tasks = [sample_fusion_task(available, rng) for _ in range(DRAWS)]
    for task in tasks:
        assert len(set(task.sources)) == len(task.sources)
        assert set(task.sources) <= set(available)
        assert task.target in available
        assert (task.target in task.sources) == (len(task.sources) == n)
    sizes = Counter(len(task.sources) for task in tasks)
    assert set(sizes) == set(range(1, n + 1))
    assert all(near(count, 1 / n) for count in sizes.values())
    first = Counter(task.sources[0] for task in tasks)
    targets = Counter(task.target for task in tasks)
    assert all(near(first[i], 1 / n) and near(targets[i], 1 / n) for i in available)


# --- epochs


def test_an_epoch_visits_everyone_once():
    available = [(0, 1)] * 5 + [(0, 2)] * 3 + [(1,)]
    groups = plan_epoch(available, 2, seed=0, epoch=0)
    assert sorted(i for group in groups for i in group) == list(range(9))
    assert all(len({available[i] for i in group}) == 1 for group in groups)
    assert sorted(map(len, groups)) == [1, 1, 1, 2, 2, 2]


def test_epochs_differ_and_repeat_with_the_seed():
    available = [(0, 1)] * 20
    plans = [plan_epoch(available, 1, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(plan) for plan in plans}) == 4
    assert plan_epoch(available, 1, 1, 1) == plans[3]


# --- the stream


@pytest.fixture
def stream(tiny_config):
    """stream(start, overrides, task) over the training subjects."""

    def make(start=Position(), *overrides, sample_task=sample_fusion_task):  # noqa: B008
        config = load_config(tiny_config, overrides)
        subjects = find_subjects(config.data, config.data.train)
        return iter(CropStream(subjects, config, lambda own, rng, _: sample_task(own, rng), start))

    return make


def same(first, second) -> bool:
    (crop, position), (other, other_position) = first, second
    told = (crop.task, crop.coin, crop.names, position)
    wanted = (other.task, other.coin, other.names, other_position)
    return told == wanted and np.array_equal(crop.images, other.images)


def test_crops_of_the_stream(stream):
    crops = list(islice(stream(), 8))
    positions = [tuple(position) for _, position in crops]
    assert positions == [(e, v, c) for e in range(2) for v in range(2) for c in (1, 2)]
    for crop, _ in crops:
        assert crop.images.shape == (1, 4, 3, 16, 16)
        assert -1 <= crop.images.min() < crop.images.max() <= 1
    assert {crop.names for crop, _ in crops} == {("Tiny_00000",), ("Tiny_00001",)}


def test_the_stream_is_seeded(stream):
    first = list(islice(stream(), 6))
    assert all(map(same, first, islice(stream(), 6)))
    other = list(islice(stream(Position(), "train.seed=1"), 6))
    assert not all(map(same, first, other))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_can_be_entered_anywhere(stream, workers):
    crops = list(islice(stream(), 8))
    entries = range(8) if workers == 0 else (3, 4)
    for done in entries:
        start = crops[done - 1][1] if done else Position()
        entered = islice(stream(start, f"data.workers={workers}"), 8 - done)
        assert all(map(same, crops[done:], entered))


def test_a_batch_shares_its_task(stream):
    crops = [crop for crop, _ in islice(stream(Position(), "train.batch_size=2"), 4)]
    for crop in crops:
        assert crop.images.shape == (2, 4, 3, 16, 16)
        assert set(crop.names) == {"Tiny_00000", "Tiny_00001"}


def test_masks_count_where_asked(stream, tiny_dataset):
    (tiny_dataset / "train.csv").write_text("Tiny_00000,8\nTiny_00001,8\n")
    masked = islice(stream(Position(), "data.use_all_sequences=false"), 8)
    assert {crop.task for crop, _ in masked} == {Task((0,), 0)}
    assert len({crop.task for crop, _ in islice(stream(), 8)}) > 1


def test_crops_without_anatomy_in_the_first_source_are_skipped(stream, monkeypatch):
    def emptied(*arguments):
        volumes = load_subject(*arguments)
        volumes.images[3] = -1
        return volumes

    monkeypatch.setattr("tsf_seq2seq.data.loading.load_subject", emptied)
    crops = list(islice(stream(Position(), "train.crops_per_visit=8"), 40))
    assert any(3 in crop.task.sources for crop, _ in crops if crop.names)
    skipped = [crop for crop, _ in crops if not crop.names]
    assert skipped  # and not made up for: a visit has 8 crops with them
    assert all((crop.task.sources[0] == 3) == (not crop.names) for crop, _ in crops)
    for crop in skipped:
        assert crop.images.shape == (1, 4, 3, 16, 16)
        assert (crop.images == -1).all()


def test_a_batch_loses_only_the_empty_sample(stream, monkeypatch):
    def emptied(subject, *arguments):
        volumes = load_subject(subject, *arguments)
        if subject.name == "Tiny_00001":
            volumes.images[:] = -1
        return volumes

    monkeypatch.setattr("tsf_seq2seq.data.loading.load_subject", emptied)
    for crop, _ in islice(stream(Position(), "train.batch_size=2"), 4):
        assert crop.names == ("Tiny_00000",)
        assert crop.images.shape == (1, 4, 3, 16, 16)


def test_half_the_visits_are_flipped(tiny_config):
    config = load_config(tiny_config, ["data.crop=[20, 24]", "data.cache_gb=1"])
    subjects = find_subjects(config.data, config.data.train)[:1]
    images = load_subject(subjects[0], 12, 4).images
    visits = sampling._Visits(subjects, config, sample_translation)
    flipped = 0
    for epoch in range(400):
        prepared, _ = visits._prepare(0, epoch, 3)
        as_it_is = np.array_equal(prepared, images)
        assert as_it_is or np.array_equal(prepared, images[..., ::-1])
        flipped += not as_it_is
    assert 150 < flipped < 250


def test_the_coin_shows_heads_in_half_of_the_crops(stream):
    crops = [crop for crop, _ in islice(stream(Position(), "train.crops_per_visit=100"), 400)]
    assert 150 < sum(crop.coin for crop in crops) < 250


def test_small_volumes_are_padded(stream):
    for crop, _ in islice(stream(Position(), "data.crop=[28, 28]"), 4):
        assert crop.images.shape == (1, 4, 3, 28, 28)
        assert (crop.images[..., :4, :] == -1).all()  # 20 rows: 4 before, 4 behind
        assert (crop.images[..., -4:, :] == -1).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_subject(stream, tiny_dataset, workers):
    file = sequence_file(tiny_dataset, 1, "t2")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError) as error:
        list(islice(stream(Position(), f"data.workers={workers}"), 8))
    message = str(error.value)
    assert message.startswith(f"subject Tiny_00001: {file} is damaged")
    assert "Traceback" not in message
    assert "\n" not in message


def test_too_few_slices_for_a_stack(stream):
    with pytest.raises(UserError, match="has 2 axial slices, but a stack needs 3"):
        next(stream(Position(), "data.slices=2"))


def test_crops_go_through_page_locked_memory(stream, monkeypatch):
    """What DataLoader does where there is CUDA: it asks every crop of a visit for `pin_memory`."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda images: images + 8)
    visit, crops = pin_memory((Visit(2, 5, (0, 1)), [crop for crop, _ in islice(stream(), 2)]))
    wanted = [crop for crop, _ in islice(stream(), 2)]
    assert (visit.epoch, visit.number) == (2, 5)
    for crop, other in zip(crops, wanted, strict=True):
        assert torch.equal(crop.images, other.images + 8)
        assert (crop.task, crop.names) == (other.task, other.names)
