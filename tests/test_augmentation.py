"""Crops varied at random: where voxels go, what becomes of intensities, and what stays as it is."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_SEQ2SEQ, TINY_TSF, TINY_UNET, tiny_yaml

from tsf_seq2seq.config import AugmentationConfig, load_config
from tsf_seq2seq.data import sampling
from tsf_seq2seq.data.augmentation import (
    augment,
    random_positions,
    smooth_field,
    turned_positions,
    vary_intensities,
    warp,
)
from tsf_seq2seq.data.sampling import Crop, CropStream, Position
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.build import NETWORKS
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.objectives import TSFObjective

SPATIAL = {"rotation": 20, "scale": 0.1, "elastic": 1}
INTENSITY = {"gain": 0.1, "gamma": 0.2, "bias": 0.2, "noise": 0.02}


def images_of(*shape: int, seed: int = 0) -> np.ndarray:
    """Images above background everywhere."""
    return np.random.default_rng(seed).uniform(-0.9, 1, shape).astype(np.float32)


def with_background(*shape: int) -> np.ndarray:
    """The same with a rim of background, four voxels wide."""
    images = np.full(shape, -1, dtype=np.float32)
    images[..., 4:-4, 4:-4] = images_of(*shape)[..., 4:-4, 4:-4]
    return images


def varied(images: np.ndarray, seed: int = 0, **keys: float) -> np.ndarray:
    return vary_intensities(images, AugmentationConfig(**keys), np.random.default_rng(seed))


def share(images: np.ndarray) -> np.ndarray:
    """u = (x + 1) / 2."""
    return (images.astype(float) + 1) / 2


# --- nothing to do


@pytest.mark.parametrize("keys", [{}, {"probability": 0, **SPATIAL, **INTENSITY}])
def test_nothing_is_the_very_same_array(keys):
    images = images_of(4, 3, 8, 8)
    wanted, inputs = augment(images, AugmentationConfig(**keys), np.random.default_rng(0))
    assert wanted is images
    assert inputs is images


def test_the_probability_is_the_share_of_varied_crops():
    images, rng = images_of(1, 1, 8, 8), np.random.default_rng(0)
    config = AugmentationConfig(probability=0.3, gain=0.1)
    n_varied = sum(augment(images, config, rng)[1] is not images for _ in range(1000))
    assert 230 < n_varied < 370  # five standard deviations


@pytest.mark.parametrize("keys", [SPATIAL, INTENSITY, SPATIAL | INTENSITY])
def test_a_crop_is_read_only_and_may_be_a_flipped_view(keys):
    images = with_background(4, 3, 24, 20)[..., ::-1]
    images.flags.writeable = False
    results = [
        augment(crop, AugmentationConfig(**keys), np.random.default_rng(3))
        for crop in (images, np.ascontiguousarray(images))
    ]
    for ours, same in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, same)
        assert ours.dtype == np.float32
        assert ours.shape == images.shape
        assert -1 <= ours.min() < ours.max() <= 1
    other = augment(images, AugmentationConfig(**keys), np.random.default_rng(4))
    assert not np.array_equal(other[1], results[0][1])


# --- shapes


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
@pytest.mark.parametrize("size", [16, 17])
def test_quarter_turns(degrees, quarters, size):
    images = images_of(2, 3, size, size)
    turned = warp(images, turned_positions(size, size, degrees, 1))
    wanted = np.rot90(images, quarters, axes=(-2, -1))
    np.testing.assert_allclose(turned, wanted, rtol=0, atol=1e-4)


def test_twice_as_large():
    """Every second voxel, counted from the centre, is one of before."""
    images = images_of(1, 1, 17, 25)
    larger = warp(images, turned_positions(17, 25, 0, 2))
    wanted = images[..., 4:13, 6:19]
    np.testing.assert_allclose(larger[..., ::2, ::2], wanted, rtol=0, atol=1e-4)


def test_half_as_large():
    images = images_of(1, 1, 17, 25)
    smaller = warp(images, turned_positions(17, 25, 0, 0.5))
    np.testing.assert_allclose(smaller[..., 4:13, 6:19], images[..., ::2, ::2], rtol=0, atol=1e-4)
    smaller[..., 4:13, 6:19] = -1
    assert (smaller == -1).all()


def test_positions_are_rows_and_columns():
    images = images_of(2, 3, 9, 12)
    positions = turned_positions(9, 12, 0, 1) + np.array([2, -1]).reshape(2, 1, 1)
    moved = warp(images, positions)
    np.testing.assert_allclose(moved[..., :-2, 1:], images[..., 2:, :-1], rtol=0, atol=1e-4)
    assert (moved[..., -2:, :] == -1).all()
    assert (moved[..., :1] == -1).all()


def test_fields_go_through_their_control_points():
    points = np.random.default_rng(0).standard_normal((2, 4, 4))
    field = smooth_field(points, 16, 10)  # a control point every 5 rows and 3 columns
    np.testing.assert_allclose(field[:, ::5, ::3], points, rtol=0, atol=1e-5)
    row = smooth_field(np.tile(np.arange(4.0), (1, 4, 1)) ** 3, 5, 31)[0, 2]
    np.testing.assert_allclose(row, (np.arange(31) / 10) ** 3, rtol=0, atol=1e-4)


def test_angles_and_factors_are_uniform():
    rng, config = np.random.default_rng(0), AugmentationConfig(rotation=30, scale=0.2)
    drawn = []
    for _ in range(500):
        positions = random_positions(9, 9, config, rng)
        y, x = positions[:, 4, 5]  # of the voxel right of the centre
        drawn.append((np.degrees(np.arctan2(y, x)), 1 / np.hypot(y, x)))
        assert np.allclose(positions[:, 4, 4], 0)
    angles, factors = np.transpose(drawn)
    assert 29 < angles.max() <= 30.001
    assert -30.001 <= angles.min() < -29
    assert 1.19 < factors.max() <= 1.2001
    assert 0.7999 <= factors.min() < 0.81
    assert abs(np.corrcoef(angles, factors)[0, 1]) < 0.25


def test_elastic_displacements_have_their_deviation():
    rng, config = np.random.default_rng(0), AugmentationConfig(elastic=2)
    rest = turned_positions(16, 16, 0, 1)
    moves = np.stack([random_positions(16, 16, config, rng) - rest for _ in range(200)])
    at_points = moves[..., ::5, ::5]  # 6400 draws
    assert at_points.std() == pytest.approx(2, abs=0.1)
    assert abs(at_points.mean()) < 0.13
    assert np.abs(np.diff(moves, axis=-1)).max() < 10  # smooth: 5 voxels between the points


def test_equal_sequences_and_slices_stay_equal():
    images = np.broadcast_to(with_background(1, 1, 24, 20), (4, 3, 24, 20))
    config = AugmentationConfig(**SPATIAL)
    warped, inputs = augment(images, config, np.random.default_rng(0))
    assert inputs is warped
    assert (warped == warped[:1, :1]).all()
    assert not np.allclose(warped, images, atol=0.1)


def test_what_is_not_anatomy_is_background():
    """A bright square, turned by 45°: all around is -1, whatever the interpolation."""
    images = np.full((3, 2, 20, 20), -1, dtype=np.float32)
    images[0, :, 6:14, 6:14] = 1
    images[1, :, 8:12, 8:12] = 0.5  # background where the other has anatomy
    positions = turned_positions(20, 20, 45, 1)
    warped = warp(images, positions)
    inside = np.abs(positions).max(axis=0) < 4  # voxels 6 to 13, half a voxel around them
    assert (warped[0][:, inside] > -1).all()
    assert (warped[:, :, ~inside] == -1).all()
    assert (warped[2] == -1).all()  # a sequence that is missing
    far = np.abs(positions).max(axis=0) > 4.5  # two voxels from the smaller square and more
    assert (warped[1][:, far] == -1).all()


# --- intensities


def test_gain_alone():
    images = with_background(3, 2, 16, 16)
    bright = varied(images, gain=0.3)
    gains = []
    for u, ours in zip(share(images), share(bright), strict=True):
        gain = (
            ours[0, 8, 8] / u[0, 8, 8] if ours[0, 8, 8] < 1 else ours[u > 0].min() / u[u > 0].min()
        )
        np.testing.assert_allclose(ours, np.clip(u * gain, 0, 1), rtol=0, atol=1e-5)
        gains.append(gain)
    assert len({round(gain, 4) for gain in gains}) == 3  # each sequence has its own
    logs = [
        np.log(share(varied(np.full((1, 1, 8, 8), -0.9, np.float32), seed, gain=0.3))[0, 0, 0, 0])
        for seed in range(500)
    ]
    assert np.mean(logs) == pytest.approx(np.log(0.05), abs=0.07)
    assert np.std(logs) == pytest.approx(0.3, abs=0.05)


def test_gamma_alone():
    images = with_background(3, 2, 16, 16)
    gammas = []
    for u, ours in zip(share(images), share(varied(images, gamma=0.3)), strict=True):
        gamma = np.log(ours[0, 8, 8]) / np.log(u[0, 8, 8])
        np.testing.assert_allclose(ours, u**gamma, rtol=0, atol=1e-5)
        gammas.append(gamma)
    assert len({round(gamma, 4) for gamma in gammas}) == 3


def test_bias_alone_is_smooth_and_equal_in_all_slices():
    images = images_of(2, 3, 24, 24) * 0.4 - 0.5  # far from clipping
    logs = np.log(share(varied(images, bias=0.1)) / share(images))
    np.testing.assert_allclose(logs, np.broadcast_to(logs[:, :1], logs.shape), rtol=0, atol=1e-5)
    assert np.abs(logs[0] - logs[1]).max() > 0.05
    assert logs.std() > 0.03
    assert np.abs(np.diff(logs, axis=-1)).max() < 0.25 * np.ptp(logs)


def test_noise_alone():
    images = np.zeros((2, 3, 64, 64), np.float32)
    noise = share(varied(images, noise=0.05)) - 0.5
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    assert abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("keys", [{"gain": 1}, {"gamma": 1}, {"bias": 1}, {"noise": 0.5}])
def test_background_and_range(keys):
    images = with_background(4, 3, 24, 20)
    images[2] = -1
    ours = varied(images, **keys)
    assert (ours[images == -1] == -1).all()
    assert ours.min() >= -1
    assert ours.max() <= 1
    assert ours.dtype == np.float32
    assert not np.allclose(ours, images, atol=0.05)


def test_targets_have_the_intensities_of_before():
    images = with_background(4, 3, 24, 20)
    wanted, inputs = augment(images, AugmentationConfig(**INTENSITY), np.random.default_rng(0))
    assert wanted is images
    assert inputs is not images
    config = AugmentationConfig(**SPATIAL, **INTENSITY)
    wanted, inputs = augment(images, config, np.random.default_rng(0))
    alone, _ = augment(images, AugmentationConfig(**SPATIAL), np.random.default_rng(0))
    np.testing.assert_array_equal(wanted, alone)
    assert (inputs[wanted == -1] == -1).all()  # of the same shape


# --- settings


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("rotation=181", "augmentation: rotation must be at most 180, not 181"),
        ("scale=1", "augmentation: scale must be at most 0.9, not 1"),
        ("elastic=11", "augmentation: elastic must be at most 10, not 11"),
        ("probability=1.5", "augmentation: probability must be at most 1, not 1.5"),
        ("noise=0.6", "augmentation: noise must be at most 0.5, not 0.6"),
        ("gain=-0.1", "'augmentation.gain' must be at least 0, not -0.1"),
        ("gama=0.1", "unknown key 'augmentation.gama'; the nearest known key is 'gamma'"),
    ],
)
def test_settings_without_sense(tiny_config, override, part):
    with pytest.raises(UserError) as error:
        load_config(tiny_config, [f"augmentation.{override}"])
    assert part in str(error.value)


# --- the stream


def overrides_of(keys: dict[str, float]) -> list[str]:
    return [f"augmentation.{key}={value}" for key, value in keys.items()]


@pytest.fixture
def crops(tiny_config) -> Callable[..., list[tuple[Crop, Position]]]:
    """crops(keys, number, start, overrides): of the stream over the training subjects."""

    def take(keys, number=8, start=Position(), *overrides):  # noqa: B008
        config = load_config(tiny_config, [*overrides_of(keys), *overrides])
        subjects = find_subjects(config.data, config.data.train)
        return list(islice(CropStream(subjects, config, TSFObjective.task_at, start), number))

    return take


def check_same(first, second) -> None:
    for (crop, position), (other, other_position) in zip(first, second, strict=True):
        assert (crop.task, crop.names, position) == (other.task, other.names, other_position)
        assert torch.equal(crop.images, other.images)
        assert torch.equal(crop.inputs, other.inputs)


def test_inputs_that_are_images(crops, monkeypatch):
    """Not a copy, wherever the crop goes."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 8)
    for workers in (0, 1):
        for crop, _ in crops(SPATIAL, 2, Position(), f"data.workers={workers}"):
            moved = [crop, crop.to(torch.device("cpu")), crop.to(torch.device("meta"))]
            assert all(one.inputs is one.images for one in [*moved, crop.pin_memory()])
    for crop, _ in crops(INTENSITY, 2):
        pinned = crop.pin_memory()
        assert torch.equal(pinned.images, crop.images + 8)
        assert torch.equal(pinned.inputs, crop.inputs + 8)


def test_flips_and_places_of_crops_stay(crops):
    plain, other = crops({}), crops(INTENSITY)
    for (crop, position), (ours, same_position) in zip(plain, other, strict=True):
        assert (crop.task, crop.coin, position) == (ours.task, ours.coin, same_position)
        assert torch.equal(crop.images, ours.images)
        assert not torch.allclose(crop.inputs, ours.inputs, atol=0.01)
    for (crop, _), (ours, _) in zip(plain, crops({"rotation": 1e-9}), strict=True):
        torch.testing.assert_close(ours.images, crop.images, rtol=0, atol=1e-3)


def test_crops_of_a_visit_differ_and_seeds_do(crops):
    keys = {"gain": 0.3}
    (one, _), (two, _), *_ = crops(keys, 8, Position(), "data.crop=[20, 24]", "data.slices=3")
    assert torch.equal(one.images, two.images)  # the volume has but one crop
    assert not torch.equal(one.inputs, two.inputs)
    pairs = zip(crops(keys), crops(keys, 8, Position(), "train.seed=1"), strict=True)
    assert not any(torch.equal(one[0].inputs, two[0].inputs) for one, two in pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_stream_can_be_entered_anywhere(crops, workers):
    keys = {**SPATIAL, **INTENSITY, "probability": 0.7}
    whole = crops(keys)
    for done in (3, 4):
        entered = crops(keys, 8 - done, whole[done - 1][1], f"data.workers={workers}")
        check_same(entered, whole[done:])


def test_samples_that_augmentation_empties_are_left_out(crops, monkeypatch):
    def emptied(images, config, rng):
        inputs = images.copy()
        inputs[3] = -1
        return images, inputs

    monkeypatch.setattr(sampling, "augment", emptied)
    found = [crop for crop, _ in crops(INTENSITY, 40)]
    assert {bool(crop.names) for crop in found} == {True, False}
    assert all((crop.task.sources[0] == 3) == (not crop.names) for crop in found)
    assert all((crop.inputs == -1).all() for crop in found if not crop.names)


# --- what networks are given, and what their outputs are compared with


def tiny_objective(name: str, network: str, tiny_dataset, tmp_path):
    path = tmp_path / f"{name}.yaml"
    path.write_text(tiny_yaml(network, tiny_dataset, tmp_path / "run"))
    config = load_config(path)
    return NETWORKS[name].objective(build_network(config).eval(), config.loss)


@pytest.mark.parametrize(
    ("name", "network"), [("seq2seq", TINY_SEQ2SEQ), ("tsf_seq2seq", TINY_TSF), ("unet", TINY_UNET)]
)
def test_losses_compare_with_images_what_comes_from_inputs(name, network, tiny_dataset, tmp_path):
    objective = tiny_objective(name, network, tiny_dataset, tmp_path)
    images, inputs = (torch.from_numpy(images_of(2, 4, 3, 16, 16, seed=seed)) for seed in (0, 1))
    sources, target = Task((2,) if name == "seq2seq" else (2, 0), 1)
    crop = Crop(images, inputs, (0, 1, 2, 3), Task(sources, target), False, ("one", "two"))
    available = [index in sources for index in range(4)]
    to_target, to_source = (
        objective.network(inputs, available, index) for index in (target, sources[0])
    )
    wanted, original = images[:, target], images[:, sources[0]]
    terms = objective.losses("network", crop)
    if name == "unet":
        assert terms["l1"].item() == pytest.approx(F.l1_loss(to_target, wanted).item(), rel=1e-5)
        return
    pairs = [(to_target, wanted), (to_source, original)]
    if name == "tsf_seq2seq":
        plain = objective.network(inputs, available, target, attention=False)
        pairs.append((plain, wanted))
    else:
        there = torch.zeros_like(images)
        there[:, target] = to_target
        back = objective.network(there, [index == target for index in range(4)], sources[0])
        cycle = F.smooth_l1_loss(back, original).item()
        assert terms["cycle"].item() == pytest.approx(cycle, rel=1e-5)
    total = sum(F.smooth_l1_loss(*pair).item() for pair in pairs)
    assert terms["reconstruction"].item() == pytest.approx(total, rel=1e-5)
