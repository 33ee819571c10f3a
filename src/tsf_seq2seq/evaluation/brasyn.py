"""SSIM as the BraSyn challenge (BraTS: synthesis of missing MRI) measures it."""

from math import nan

import numpy as np
from scipy.ndimage import gaussian_filter

from tsf_seq2seq.data.slices import bounding_box

PERCENTILES = (0.5, 99.5)
SIGMA, RADIUS = 1.5, 5  # of torchmetrics' Gaussian window, voxels
K1, K2 = 0.01, 0.03


def brasyn_ssim(target: np.ndarray, synthesis: np.ndarray, mask: np.ndarray) -> float:
    """SSIM of both volumes (z, y, x) inside a mask: (0, 1] for non-negative ones, 1 when equal.

    Each volume is clipped to its own 0.5 and 99.5 percentiles, over all of its voxels, scaled to
    [0, 1] and multiplied by the mask; then comes `gaussian_ssim` of the whole volumes, to which
    what lies outside the mask adds ones.
    """
    return gaussian_ssim(scaled(synthesis) * mask, scaled(target) * mask)


def scaled(volume: np.ndarray) -> np.ndarray:
    """Clipped to the 0.5 and 99.5 percentiles, which become 0 and 1 (float64); 0 if they agree."""
    low, high = np.percentile(volume, PERCENTILES)
    if high <= low:
        return np.zeros(volume.shape)
    return (np.clip(volume, low, high) - low) / (high - low)


def gaussian_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two volumes (z, y, x) ≥ 0, as torchmetrics' defaults give it in 3-d.

    A Gaussian window of 11³ voxels (σ 1.5), mirrored at the edges, and as data range the larger of
    the two volumes' ranges; nan where both are constant. Filtered axis by axis, and only around
    what isn't 0 in both: in under 1 s for 155 × 240 × 240 voxels, where torchmetrics takes 9.
    """
    data_range = max(np.ptp(a), np.ptp(b))
    if data_range == 0:
        return nan
    # One radius reaches every voxel whose window touches the mask, the other holds their windows.
    box = bounding_box((a != 0) | (b != 0), 2 * RADIUS)
    inside = _ssim_map(box.of(a), box.of(b), float(data_range))
    return float((inside.sum() + a.size - inside.size) / a.size)  # SSIM is 1 where both are 0


def _ssim_map(a: np.ndarray, b: np.ndarray, data_range: float) -> np.ndarray:
    """SSIM of each voxel (Wang et al. 2004, Eq. 13), variances at least 0."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = _smooth(a), _smooth(b)
    variances = (_smooth(a * a) - mean_a**2).clip(0) + (_smooth(b * b) - mean_b**2).clip(0)
    covariance = _smooth(a * b) - mean_a * mean_b
    ssim: np.ndarray = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    )
    return ssim


def _smooth(volume: np.ndarray) -> np.ndarray:
    return gaussian_filter(volume, SIGMA, radius=RADIUS, mode="mirror")
