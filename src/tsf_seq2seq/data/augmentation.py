"""Training crops varied at random: shapes of all sequences alike, intensities of inputs alone."""

from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F

from tsf_seq2seq.config import AugmentationConfig
from tsf_seq2seq.data.slices import BACKGROUND

CONTROL_POINTS = 4  # of a smooth field, along each axis


def augment(
    images: np.ndarray, config: AugmentationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A crop (S, C, H, W), float32 in [-1, 1] → what outputs are compared with, and the inputs.

    The crop is not written to. What isn't varied is returned as the array that it was: two times
    the same one without variations of intensity.
    """
    if not (config.spatial or config.intensity) or rng.random() >= config.probability:
        return images, images
    if config.spatial:
        height, width = images.shape[-2:]
        images = warp(images, random_positions(height, width, config, rng))
    return images, vary_intensities(images, config, rng) if config.intensity else images


def random_positions(
    height: int, width: int, config: AugmentationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Positions (2, H, W) of a random rotation, scale and elastic deformation, for `warp`.

    The angle is uniform in ± config.rotation degrees, the factor in 1 ± config.scale; displacements
    at the control points are normal with a deviation of config.elastic voxels.
    """
    angle, change = rng.uniform(-1, 1, 2) * (config.rotation, config.scale)
    points = config.elastic * rng.standard_normal((2, CONTROL_POINTS, CONTROL_POINTS))
    positions = turned_positions(height, width, float(angle), 1 + float(change))
    return positions + smooth_field(points, height, width)


def turned_positions(height: int, width: int, degrees: float, scale: float) -> np.ndarray:
    """p = R⁻¹ q / s: where each voxel q (y, x) of a turned and scaled slice was before, (2, H, W).

    Both in voxels from the centre of the slice; turned as np.rot90 does, larger for s > 1.
    """
    y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.stack([cos * y + sin * x, cos * x - sin * y]) / scale


def warp(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Images (S, C, H, W) in [-1, 1] at positions (2, H, W): y and x in voxels from the centre.

    Cubic, within [-1, 1]. Exactly background where the nearest voxel is so in all sequences, or
    outside of the slice: a voxel above background counts as anatomy, overshoot beside it must not.
    """
    (height, width), (y, x) = images.shape[-2:], positions
    grid = torch.from_numpy(np.stack([2 * x / (width - 1), 2 * y / (height - 1)], axis=-1))
    sample = partial(F.grid_sample, grid=grid.float()[None], align_corners=True)  # zeros outside
    above = torch.from_numpy(np.ascontiguousarray(images) - np.float32(BACKGROUND))
    warped = sample(above.flatten(0, 1)[None], mode="bicubic").view(images.shape)
    somewhere = torch.from_numpy((images > BACKGROUND).any(axis=0).astype(np.float32))
    anatomy = sample(somewhere[None], mode="nearest") > 0  # (1, C, H, W)
    return torch.where(anatomy, warped.clamp(0, 2) + BACKGROUND, BACKGROUND).numpy()


def vary_intensities(
    images: np.ndarray, config: AugmentationConfig, rng: np.random.Generator
) -> np.ndarray:
    """u ← clip(g · b · u^γ + n, 0, 1) of images (S, C, H, W), u = (x + 1) / 2; background stays.

    Each sequence has its own g, γ = exp N(0, config.gain²), exp N(0, config.gamma²); b, equal in
    all slices, is the exponential of a smooth field with a deviation of config.bias at its control
    points; n ~ N(0, config.noise²) at each voxel.
    """
    varied = images.copy()
    for sequence in varied:  # (C, H, W)
        gain, gamma = np.exp(rng.standard_normal(2) * (config.gain, config.gamma))
        points = config.bias * rng.standard_normal((1, CONTROL_POINTS, CONTROL_POINTS))
        factors = float(gain) * np.exp(smooth_field(points, *sequence.shape[1:]))  # (1, H, W)
        anatomy = sequence > BACKGROUND
        u = ((sequence[anatomy] + 1) / 2) ** np.float32(gamma)
        u *= np.broadcast_to(factors, sequence.shape)[anatomy]
        if config.noise:  # much slower to draw than the others
            u += np.float32(config.noise) * rng.standard_normal(u.size, dtype=np.float32)
        sequence[anatomy] = 2 * u.clip(0, 1) - 1
    return varied


def smooth_field(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fields (N, H, W), float32, through control points (N, 4, 4) that span the slice: cubic
    polynomials along both axes."""
    rows, columns = _cubic_weights(height), _cubic_weights(width)
    lines = np.einsum("nij,wj->niw", points.astype(np.float32), columns)  # (N, 4, W)
    return np.einsum("hi,niw->nhw", rows, lines)  # no BLAS: the same with any number of threads


@lru_cache
def _cubic_weights(size: int) -> np.ndarray:
    """Weights (size, 4) of 4 control points in the cubic polynomial through them."""
    points = np.arange(CONTROL_POINTS)
    places = np.linspace(0, CONTROL_POINTS - 1, size)
    weights = np.vander(places, CONTROL_POINTS) @ np.linalg.inv(np.vander(points))
    return weights.astype(np.float32)
