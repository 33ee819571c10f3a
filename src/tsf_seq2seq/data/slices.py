"""From volumes to what the network sees: intensities, central window, slice stacks, crops."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

BACKGROUND = -1.0
DATA_RANGE = 2.0  # of normalised volumes, which lie in [-1, 1]


class Images(Protocol):
    """Sequences (S, Z, Y, X) to cut boxes from: an array, or what reads each box from a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, box: tuple[slice, slice, slice, slice], /) -> np.ndarray: ...


def intensity_maximum(volume: np.ndarray) -> float:
    """m = 2 × 99th percentile over all voxels, background included (paper, Sec. 3.1)."""
    return 2 * float(np.percentile(volume, 99))


def normalise(volume: np.ndarray, maximum: float) -> np.ndarray:
    """x ← clip(x, 0, m) / m · 2 − 1, in float64, returned as float32 in [-1, 1]."""
    clipped = np.clip(volume.astype(np.float64, copy=False), 0, maximum)
    return (clipped / maximum * 2 - 1).astype(np.float32)


def central(length: int, wanted: int) -> slice:
    """The central `wanted` of `length` positions, floor of half the rest before; or all."""
    start = max(0, (length - wanted) // 2)
    return slice(start, min(length, start + wanted))


@dataclass(frozen=True)
class Window:
    """A box of a volume (z, y, x)."""

    z: slice
    y: slice
    x: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its size (z, y, x) in voxels."""
        z, y, x = (axis.stop - axis.start for axis in (self.z, self.y, self.x))
        return z, y, x

    def of(self, volumes: np.ndarray) -> np.ndarray:
        """The box of (..., z, y, x), a view."""
        return volumes[..., self.z, self.y, self.x]

    def into(
        self, box: np.ndarray, shape: tuple[int, ...], outside: float = BACKGROUND
    ) -> np.ndarray:
        """A volume of `shape` with `box` in its place and `outside` elsewhere."""
        volume = np.full(shape, outside, dtype=box.dtype)
        volume[self.z, self.y, self.x] = box
        return volume


def central_window(shape: tuple[int, ...], slices: int, crop: tuple[int, ...]) -> Window:
    """The central slices and crop of a volume of `shape` (z, y, x); shorter axes stay whole."""
    return Window(central(shape[0], slices), central(shape[1], crop[0]), central(shape[2], crop[1]))


def bounding_box(mask: np.ndarray, margin: int = 0) -> Window:
    """The smallest box around a mask (z, y, x), and `margin` voxels more; all, if it is empty."""
    ends = []
    for size, others in zip(mask.shape, ((1, 2), (0, 2), (0, 1)), strict=True):
        places = np.flatnonzero(mask.any(axis=others))
        low, high = (int(places[0]), int(places[-1]) + 1) if places.size else (0, size)
        ends.append(slice(max(0, low - margin), min(size, high + margin)))
    return Window(*ends)


def whole_window(shape: tuple[int, ...]) -> Window:
    """All of a volume of `shape` (z, y, x)."""
    return central_window(shape, shape[0], shape[1:])


def stacks(volumes: np.ndarray, height: int) -> np.ndarray:
    """Stacks of `height` neighbouring slices: (..., Z, Y, X) → (..., Z-height+1, height, Y, X).

    Stack k, a view, holds slices k to k + height - 1.
    """
    windows = np.lib.stride_tricks.sliding_window_view(volumes, height, axis=-3)
    return np.moveaxis(windows, -1, -3)


def centre_slices(volumes: np.ndarray, height: int) -> np.ndarray:
    """The centre slice of every stack of `height`: (S, Z, Y, X) → (S, Z − height + 1, Y, X)."""
    half = height // 2
    return volumes[:, half : volumes.shape[1] - half]


def pad_to(volumes: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """Surround (..., Y, X) with background, evenly, where an axis is shorter than the crop."""
    missing = [max(0, wanted - size) for wanted, size in zip(crop, volumes.shape[-2:], strict=True)]
    if not any(missing):
        return volumes
    padding = [(0, 0)] * (volumes.ndim - 2) + [(n // 2, n - n // 2) for n in missing]
    return np.pad(volumes, padding, constant_values=BACKGROUND)


def random_crop(
    images: Images, height: int, crop: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A random stack and crop of images (S, Z, Y, X) at least as large: (S, height, *crop)."""
    limits = np.subtract(images.shape[1:], (height, *crop)) + 1
    z, y, x = (int(i) for i in rng.integers(limits))
    return images[:, z : z + height, y : y + crop[0], x : x + crop[1]]
