"""Baselines without network: fits that can be checked by hand or by explicit least squares."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from tsf_seq2seq.synthesis import polynomials
from tsf_seq2seq.synthesis.baselines import MeanImage, PolynomialRegression
from tsf_seq2seq.tasks import Task

SHAPE = (4, 5, 6)


def test_linear_regression_recovers_coefficients():
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(2):
        a, b = rng.uniform(-0.3, 0.3, (2, 4, 5, 6))
        windows.append(np.stack([a, b, 0.1 + 0.5 * a - 0.25 * b]))
    model = PolynomialRegression(3, degree=1).fit(windows)
    np.testing.assert_allclose(model.coefficients(Task((0, 1), 2)), [0.1, 0.5, -0.25], atol=1e-9)
    np.testing.assert_allclose(model.coefficients(Task((1, 0), 2)), [0.1, -0.25, 0.5], atol=1e-9)
    np.testing.assert_allclose(model.coefficients(Task((2, 1), 0)), [-0.2, 2, 0.5], atol=1e-9)
    np.testing.assert_allclose(model.predict(windows[0], Task((1, 0), 2)), windows[0][2], atol=1e-6)
    bright = np.ones((3, 1, 1, 1)) * np.array([1.0, -1, 0]).reshape(3, 1, 1, 1)
    assert model.predict(10 * bright, Task((0, 1), 2)).item() == 1  # 7.6, clipped


def test_mean_image_is_the_mean():
    windows = [np.full((2, 1, 2, 2), value) for value in (-1.0, 0.0, 0.4)]
    windows[2][1] = 0.7
    model = MeanImage().fit(windows)
    np.testing.assert_allclose(model.predict(windows[0], Task((0,), 1)), -0.1, atol=1e-7)
    np.testing.assert_allclose(model.predict(windows[0], Task((1,), 0)), -0.2, atol=1e-7)


def test_baselines_of_subjects_that_lack_sequences():
    """Each fit takes the windows that have the task's sequences, and only those."""
    rng = np.random.default_rng(0)
    a, b, c = rng.uniform(-0.3, 0.3, (3, 4, 5, 6))
    nothing = np.full_like(a, -1)
    windows = {
        (0, 1): np.stack([a, 0.1 + 2 * a, nothing]),
        (1, 2): np.stack([nothing, b, 0.5 * b]),
        (0, 2): np.stack([c, nothing, 0.3 - c]),
    }
    model, mean = PolynomialRegression(3, degree=1), MeanImage()
    for available, window in windows.items():
        model.fit([window], available)
        mean.fit([window], available)
    np.testing.assert_allclose(model.coefficients(Task((0,), 1)), [0.1, 2], atol=1e-9)
    np.testing.assert_allclose(model.coefficients(Task((1,), 2)), [0, 0.5], atol=1e-9)
    np.testing.assert_allclose(model.coefficients(Task((0,), 2)), [0.3, -1], atol=1e-9)
    assert model.covers(Task((2,), 0))
    assert not model.covers(Task((0, 1), 2))  # nobody has all three
    predicted = mean.predict(windows[0, 1], Task((0, 1), 2))
    np.testing.assert_allclose(predicted, (0.5 * b + 0.3 - c) / 2, atol=1e-7)
    assert mean.covers(Task((0, 1), 2))
    assert not MeanImage().fit([windows[0, 1]], (0, 1)).covers(Task((0,), 2))


# --- of second degree


def brain_windows(seed: int, n: int = 3) -> list[np.ndarray]:
    """Windows (3, 8, 9, 10) of related intensities with noise in half of the voxels, else −1."""
    rng = np.random.default_rng(seed)
    windows = []
    for _ in range(n):
        tissue = rng.normal(0, 0.4, (8, 9, 10))
        images = [
            np.tanh(scale * tissue + rng.normal(0, 0.2, tissue.shape)) for scale in (1, -2, 3)
        ]
        windows.append(np.where(rng.random(tissue.shape) < 0.5, np.stack(images), -1.0))
    return [window.astype(np.float32) for window in windows]


def explicit_design(windows: list[np.ndarray], sources: tuple[int, ...]) -> np.ndarray:
    """(voxels, terms): 1, the sources, and their products."""
    voxels = np.concatenate([w.reshape(len(w), -1) for w in windows], axis=1).astype(np.float64)
    pairs = combinations_with_replacement(sources, 2)
    columns = [np.ones(voxels.shape[1]), *voxels[list(sources)]]
    return np.stack([*columns, *(voxels[i] * voxels[j] for i, j in pairs)], axis=1)


def test_quadratic_regression_recovers_coefficients():
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(2):
        a, b = rng.uniform(-0.5, 0.5, (2, *SHAPE))
        windows.append(np.stack([a, b, 0.1 + 0.5 * a - 0.25 * b + 0.2 * a * a - 0.4 * a * b]))
    model = PolynomialRegression(3, degree=2).fit(windows)
    beta = [0.1, 0.5, -0.25, 0.2, -0.4, 0]
    np.testing.assert_allclose(model.coefficients(Task((0, 1), 2)), beta, atol=1e-9)
    turned = [0.1, -0.25, 0.5, 0, -0.4, 0.2]
    np.testing.assert_allclose(model.coefficients(Task((1, 0), 2)), turned, atol=1e-9)
    for sources in ((0, 1), (1, 0)):
        predicted = model.predict(windows[0], Task(sources, 2))
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, windows[0][2], atol=1e-6)
    bright = np.array([2.0, -2, 0]).reshape(3, 1, 1, 1)
    assert model.predict(bright, Task((0, 1), 2)).item() == 1  # 4, clipped


@pytest.mark.parametrize("sources", [(0,), (1, 0), (0, 1)])
def test_quadratic_regression_is_least_squares(monkeypatch, sources):
    windows = brain_windows(0)
    wanted, *_ = np.linalg.lstsq(
        explicit_design(windows, sources), np.concatenate([w[2].ravel() for w in windows])
    )
    whole = PolynomialRegression(3, degree=2).fit(windows)
    np.testing.assert_allclose(whole.coefficients(Task(sources, 2)), wanted, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(polynomials, "BLOCK", 10 * 7)  # 7 voxels at once; 720 are no multiple
    blocks = PolynomialRegression(3, degree=2).fit(windows)
    np.testing.assert_allclose(blocks.coefficients(Task(sources, 2)), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("task", [Task((0,), 1), Task((2,), 0), Task((0, 1), 2), Task((1, 2), 0)])
def test_quadratic_regression_is_no_worse_where_it_was_fitted(task):
    windows = brain_windows(1)
    errors = []
    for degree in (1, 2):
        model = PolynomialRegression(3, degree).fit(windows)
        differences = [model.predict(w, task) - w[task.target] for w in windows]
        errors.append(np.mean(np.square(differences)))
    assert errors[1] < errors[0]


def test_quadratic_regression_keeps_the_background():
    """Where all sources are background, so is the output, if not to the last digit."""
    model = PolynomialRegression(3, degree=2).fit(brain_windows(2))
    background = np.full((3, 1, 1, 1), -1, np.float32)
    for task in (Task((0,), 1), Task((0, 1), 2), Task((1, 2), 0)):
        assert -1 <= model.predict(background, task).item() < -0.9


def test_quadratic_regression_covers_what_the_linear_one_does():
    a = np.random.default_rng(0).uniform(-0.3, 0.3, SHAPE)
    window = np.stack([a, 0.1 + a * a, np.full_like(a, -1)])
    model = PolynomialRegression(3, degree=2).fit([window], (0, 1))
    assert model.covers(Task((0,), 1))
    assert not model.covers(Task((0,), 2))
    assert not model.covers(Task((0, 1), 2))
    np.testing.assert_allclose(model.coefficients(Task((0,), 1)), [0.1, 0, 1], atol=1e-9)
