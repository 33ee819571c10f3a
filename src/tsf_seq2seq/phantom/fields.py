"""Where the phantom lies in the volume, and smooth random fields over it.

Positions are in millimetres, so that one seed gives the same brain on every voxel size. The first
axis runs from right to left, the second from front to back, the third from foot to head (LPS).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.floating[Any]]

BRAIN_CENTRE_MM = (119.5, 123.5, 77.5)  # in the volume, as in BraTS 2021 (SRI24 space)
CROP_HALF_MM = (80.0, 100.0, 78.0)  # the box around the brain that is simulated
FIELD_HALF_MM = (90.0, 110.0, 90.0)  # where random fields are defined, whatever the voxel size
SPLINE_STD = (151 / 315) ** 1.5  # of a 3D cubic B-spline of unit white noise, mean over space


@dataclass(frozen=True)
class Grid:
    """The crop of the output volume that holds the brain: its place and its positions in mm."""

    shape: tuple[int, int, int]  # of the whole output volume
    crop: tuple[slice, slice, slice]
    axes: tuple[Array, Array, Array]  # mm from the brain's centre, along each cropped axis
    spacing: float


def make_grid(shape: tuple[int, int, int], spacing: float) -> Grid:
    """Lay the brain's box over a volume of `shape` voxels of `spacing` mm."""
    slices, axes = [], []
    for size, centre, half in zip(shape, BRAIN_CENTRE_MM, CROP_HALF_MM, strict=True):
        position = np.arange(size) * spacing + (spacing - 1) / 2 - centre
        inside = np.flatnonzero(np.abs(position) <= half)
        slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
        axes.append(position[inside].astype(np.float32))
    return Grid(shape, (slices[0], slices[1], slices[2]), (axes[0], axes[1], axes[2]), spacing)


def random_field(rng: np.random.Generator, grid: Grid, scale: float) -> Array:
    """Draw a smooth random field of mean 0 and variance about 1 over the crop.

    f(x) = Σ_k c_k B((x₁−k₁)/s) B((x₂−k₂)/s) B((x₃−k₃)/s), c_k ~ N(0, 1), with B the cubic
    B-spline and s = `scale` in mm: the free-form field of Rueckert et al., IEEE TMI 1999.
    """
    knots = [math.ceil(2 * half / scale) + 4 for half in FIELD_HALF_MM]
    field = rng.standard_normal(knots, dtype=np.float32) / np.float32(SPLINE_STD)
    for axis, half in zip(grid.axes, FIELD_HALF_MM, strict=True):
        basis = _spline_basis((axis + half) / scale, field.shape[0])
        line = basis @ field.reshape(field.shape[0], -1)
        field = np.ascontiguousarray(np.moveaxis(line.reshape(len(axis), *field.shape[1:]), 0, 2))
    return field


def _spline_basis(position: Array, knots: int) -> sparse.csr_matrix:
    """Rows of cubic B-spline weights, four a row, for positions counted in knots from 0."""
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    columns = first[:, None] + np.arange(4)
    rows = np.repeat(np.arange(len(position)), 4)
    values = (weights / 6).astype(np.float32).ravel()
    return sparse.csr_matrix((values, (rows, columns.ravel())), shape=(len(position), knots))


def curved_sheet(rng: np.random.Generator, grid: Grid, scale: float) -> Array:
    """Distance in mm to the zero surface of a random field f, to first order |f| / |∇f|."""
    field = random_field(rng, grid, scale)
    slope2 = sum(g**2 for g in np.gradient(field, grid.spacing))
    return np.abs(field) / np.sqrt(slope2 + np.float32(0.02 / scale) ** 2)


def soft_step(x: Array, width: float) -> Array:
    """1 / (1 + exp(−x / width)): a step at 0 with a soft edge."""
    return 1 / (1 + np.exp((-x / np.float32(width)).clip(-30, 30)))
