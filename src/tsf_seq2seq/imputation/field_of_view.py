"""What of an axial slice the network sees: the training's voxel size and field of view.

InstanceNorm makes every output value depend on all that is in view, so that a network does best on
what it was trained on: crops of one size, mostly filled by the brain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.data.statistics import in_plane_spacing
from tsf_seq2seq.errors import UserError

SPACING_TOLERANCE = 0.10 + 1e-6  # of the training data's voxel size
LARGEST_RATIO = 8  # between two voxel sizes: beyond, it isn't the same kind of image
LARGEST_SIDE = 1024  # of the window: beyond, the network would ask for gigabytes
Plane = tuple[int, int]  # height and width, pixels


@dataclass(frozen=True)
class FieldOfView:
    """The way of axial slices to what the network sees, and back.

    `grid`: the subject's plane; `scaled`: the same plane in the network's pixels; `start`: first
    pixel (y, x) of the window there, maybe outside of it; `size`: the window's.
    """

    grid: Plane
    scaled: Plane
    start: Plane
    size: Plane

    def to_network(self, slices: np.ndarray) -> np.ndarray:
        """(N, Y, X) in [-1, 1] → (N, *size), background where the window leaves the plane."""
        slices = resize(slices, self.scaled)
        window = np.full((len(slices), *self.size), BACKGROUND, dtype=np.float32)
        plane, inner = self._overlap()
        window[:, *inner] = slices[:, *plane]
        return window

    def to_grid(self, window: np.ndarray, outside: float) -> np.ndarray:
        """(N, *size) → (N, Y, X), `outside` where the window doesn't reach."""
        slices = np.full((len(window), *self.scaled), outside, dtype=np.float32)
        plane, inner = self._overlap()
        slices[:, *plane] = window[:, *inner]
        return resize(slices, self.grid)

    def _overlap(self) -> tuple[list[slice], list[slice]]:
        """Where plane and window overlap, in the plane's pixels and in the window's."""
        plane, inner = [], []
        for start, size, length in zip(self.start, self.size, self.scaled, strict=True):
            low, high = max(start, 0), min(start + size, length)
            plane.append(slice(low, high))
            inner.append(slice(low - start, high - start))
        return plane, inner


def field_of_view(
    brain: Sequence[tuple[int, int]], grid: Plane, scaled: Plane, crop: Plane, multiple: int
) -> FieldOfView:
    """The smallest window that holds the brain and the training crop, centred on the brain.

    `brain`: first and behind the last y and x, in the grid's pixels; the window's sides are
    multiples of `multiple`. Raises UserError where one is longer than 1024 pixels.
    """
    start, size = [], []
    for (low, high), length, new, least in zip(brain, grid, scaled, crop, strict=True):
        low, high = low * new // length, -(-high * new // length)
        side = -(-max(least, high - low) // multiple) * multiple
        size.append(side)
        start.append((low + high - side) // 2)
    if max(size) > LARGEST_SIDE:
        raise UserError(
            f"the brain spans a window of {size[0]} × {size[1]} pixels, but a side can't be longer "
            f"than {LARGEST_SIDE}"
        )
    return FieldOfView(grid, scaled, (start[0], start[1]), (size[0], size[1]))


def scaled_plane(grid: Plane, spacing: Plane | Sequence[float], wanted: Sequence[float]) -> Plane:
    """`grid` in pixels of the size `wanted` (mm; y, x) where `spacing` differs by more than 10 %.

    Raises UserError where the sizes differ by more than a factor of 8.
    """
    ratios = [own / other for own, other in zip(spacing, wanted, strict=True)]
    if all(abs(ratio - 1) <= SPACING_TOLERANCE for ratio in ratios):
        return grid
    if not all(1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO for ratio in ratios):
        raise UserError(
            f"voxels of {spacing_text(spacing)} within axial slices differ from the training "
            f"data's {spacing_text(wanted)} by more than a factor of {LARGEST_RATIO}"
        )
    height, width = (
        max(1, round(length * ratio)) for length, ratio in zip(grid, ratios, strict=True)
    )
    return height, width


def training_plane(geometry: Geometry, wanted: Sequence[float] | None) -> Plane:
    """The plane (Y, X) of a grid, in pixels of the size `wanted` (mm; y, x), if that is known."""
    width, height, _ = geometry.lps().shape
    if wanted is None:
        return height, width
    return scaled_plane((height, width), in_plane_spacing(geometry), wanted)


def resize(slices: np.ndarray, plane: Plane) -> np.ndarray:
    """(N, Y, X) → (N, *plane) by cubic splines, smoothed before shrinking, within its range."""
    if slices.shape[1:] == plane or not len(slices):
        return slices
    shrinking = [old / new for old, new in zip(slices.shape[1:], plane, strict=True)]
    smoothing = [max(0.0, (factor - 1) / 2) for factor in shrinking]
    low, high = slices.min(), slices.max()
    resized = np.empty((len(slices), *plane), dtype=np.float32)
    for number, image in enumerate(slices):
        smooth = ndimage.gaussian_filter(image, smoothing, mode="nearest")
        zoom = [1 / factor for factor in shrinking]
        enlarged = ndimage.zoom(smooth, zoom, order=3, mode="nearest", grid_mode=True)
        resized[number] = enlarged.clip(low, high)
    return resized


def spacing_text(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in spacing) + " mm"
