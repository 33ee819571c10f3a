"""Anatomy of the phantom: the MNI152 tissue maps, warped, with own sulci, vessels and a tumour."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from nilearn import datasets
from numpy.typing import NDArray
from scipy import ndimage

from tsf_seq2seq.phantom.fields import Array, Grid, curved_sheet, random_field, soft_step
from tsf_seq2seq.phantom.tumour import Tumour, draw_tumour, grow_tumour

TEMPLATE_CENTRE_MM = (0.0, -17.0, 7.0)  # of the brain mask, in MNI152 (RAS) coordinates


@dataclass(frozen=True)
class Anatomy:
    """Tissue fractions of one subject; 1-D arrays list the brain's voxels in C order."""

    mask: NDArray[np.bool_]  # the brain, over the crop
    fractions: dict[str, Array]  # tissue -> fraction of each brain voxel, 0..1, summing to 1
    segmentation: NDArray[np.uint8]  # over the crop: 0, 1 necrosis, 2 oedema, 4 enhancing


class _Map(NamedTuple):
    """A volume in MNI152 space."""

    volume: Array
    affine: NDArray[np.float64]  # voxel index -> mm, no rotation


def simulate_anatomy(rng: np.random.Generator, grid: Grid) -> Anatomy:
    """Draw one subject: a warped brain with its sulci, vessels and tumour."""
    tumour = draw_tumour(rng)
    points = _template_points(rng, grid, tumour)  # MNI mm, one (X, Y, Z) array per axis
    depth = _sample("depth", points)
    mask = _keep_largest(depth + 0.8 * random_field(rng, grid, 9.0) > 0.6)
    points = [p[mask] for p in points]
    tissue = _healthy_tissue(points)
    sheet = _sulcal_sheet(rng, grid, depth)[mask]
    depth = depth[mask]
    tissue = _carve_sulci(tissue, depth, sheet, rng.uniform(0.5, 1.3))
    vessel = _vessels(rng, grid, mask, points, depth, tissue["csf"])
    lesion = grow_tumour(rng, grid, mask, tumour, points, tissue)
    fractions = _compose(tissue, vessel, lesion)
    return Anatomy(mask, fractions, _label(fractions, mask))


def _compose(tissue: dict[str, Array], vessel: Array, lesion: dict[str, Array]) -> dict[str, Array]:
    """Let the tumour take the place of tissue and vessels, and vessels that of tissue."""
    room = (1 - lesion["necrosis"] - lesion["rim"]).clip(0, 1)
    oedema = lesion["oedema"] * room
    free = (room - oedema) * (1 - vessel)
    healthy = {name: fraction * free for name, fraction in tissue.items()}
    return {**healthy, "vessel": (room - oedema) * vessel, **lesion, "oedema": oedema}


def _label(fractions: dict[str, Array], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """BraTS 2021 labels: the lesion tissue that fills more than half of the lesion's voxel."""
    lesion = np.stack([fractions[name] for name in ("necrosis", "oedema", "rim")])
    label = np.array([1, 2, 4], np.uint8)[lesion.argmax(axis=0)]
    segmentation = np.zeros(mask.shape, np.uint8)
    segmentation[mask] = np.where(lesion.sum(axis=0) > 0.5, label, 0)
    return segmentation


@lru_cache(maxsize=1)
def _template() -> dict[str, _Map]:
    """The MNI152 2009 maps (Fonov et al., NeuroImage 2011) that nilearn ships: gm, wm and depth.

    `depth` is mm below the brain's surface, negative outside.
    """
    gm, wm = datasets.load_mni152_gm_template(1), datasets.load_mni152_wm_template(1)
    mask = datasets.load_mni152_brain_mask(2)  # 2 mm: distances vary slowly
    inside = np.asarray(mask.dataobj) > 0
    inside[:, :, 0] = False  # close the brain where the template cuts it off
    distance = ndimage.distance_transform_edt
    depth = 2.0 * (distance(inside) - distance(~inside))
    maps = {"gm": (gm.dataobj, gm), "wm": (wm.dataobj, wm), "depth": (depth, mask)}
    return {k: _Map(np.asarray(v, np.float32), image.affine) for k, (v, image) in maps.items()}


def _sample(name: str, points: list[Array]) -> Array:
    """Read a template map at MNI positions in mm, linearly interpolated."""
    volume, to_mm = _template()[name]
    affine = np.linalg.inv(to_mm).astype(np.float32)
    index = np.stack([affine[i, i] * p + affine[i, 3] for i, p in enumerate(points)])
    return ndimage.map_coordinates(volume, index, order=1, mode="nearest")


def _template_points(rng: np.random.Generator, grid: Grid, tumour: Tumour) -> list[Array]:
    """Map each voxel to MNI mm: tumour push, size, tilt, ventricle width and smooth warps."""
    position = [p.astype(np.float32) for p in np.meshgrid(*grid.axes, indexing="ij")]
    position = _push_back(position, tumour, rng.uniform(0.15, 0.4))
    scale = rng.normal((0.925, 0.925, 0.91), 0.013)
    tilt = rng.normal(0, math.radians(2), 3)
    rotation = np.eye(3) + np.cross(np.eye(3), tilt)
    matrix = rotation @ np.diag([-1, -1, 1] / scale)  # LPS to RAS
    rows: list[list[np.float32]] = list(matrix.astype(np.float32))
    points = [
        a * position[0] + b * position[1] + c * position[2] + np.float32(centre)
        for (a, b, c), centre in zip(rows, TEMPLATE_CENTRE_MM, strict=True)
    ]
    for knot_distance, amplitude in ((60.0, 3.0), (28.0, 1.5), (13.0, 0.8)):
        points = [p + amplitude * random_field(rng, grid, knot_distance) for p in points]
    return _resize_ventricles(points, rng.uniform(-0.35, 0.25))


def _push_back(position: list[Array], tumour: Tumour, strength: float) -> list[Array]:
    """Mass effect, as a pull-back: x → c + (x − c)·(1 − m·exp(−|x − c|² / 2(2R)²))."""
    offset = [p - np.float32(c) for p, c in zip(position, tumour.centre, strict=True)]
    distance2 = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2
    push = strength * np.exp(-distance2 / np.float32(2 * (2 * tumour.radius) ** 2))
    return [p - push * o for p, o in zip(position, offset, strict=True)]


def _resize_ventricles(points: list[Array], gain: float) -> list[Array]:
    """Widen (gain < 0) or narrow the ventricles: x → x + g·(x − v)·exp(−|x − v|² / 2σ²).

    It acts from left to right, and half as much from foot to head.
    """
    centre, sigma = (0.0, -15.0, 12.0), (22.0, 35.0, 18.0)
    offset = [p - np.float32(c) for p, c in zip(points, centre, strict=True)]
    squares = sum((o / np.float32(s)) ** 2 for o, s in zip(offset, sigma, strict=True))
    near = gain * np.exp(-squares / 2)
    return [points[0] + near * offset[0], points[1], points[2] + 0.5 * near * offset[2]]


def _keep_largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def _healthy_tissue(points: list[Array]) -> dict[str, Array]:
    """Sharpen the template's averaged maps to one brain's: p_k → (w_k·p_k)² / Σ (w·p)².

    The weights give back to white matter and CSF what averaging many brains gave to grey matter.
    """
    gm, wm = _sample("gm", points), _sample("wm", points)
    csf = (1 - gm - wm).clip(0, 1)
    maps = {"wm": 1.35 * wm, "gm": gm, "csf": 1.7 * csf}
    total = sum(p**2 for p in maps.values()) + np.float32(1e-6)
    sharp = {name: p**2 / total for name, p in maps.items()}
    return sharp | {"csf": 1 - sharp["wm"] - sharp["gm"]}


def _sulcal_sheet(rng: np.random.Generator, grid: Grid, depth: Array) -> Array:
    """Distance in mm to sheets that stand upright on the brain's surface, as sulci do.

    |f| / |∇f| for a random field f, divided by sin²(∇f, ∇depth) so that flat sheets recede.
    """
    field = random_field(rng, grid, 9.5)
    slope = np.gradient(field, grid.spacing)
    down = np.gradient(depth, grid.spacing)
    slope2 = sum(g**2 for g in slope) + np.float32(1e-6)
    down2 = sum(g**2 for g in down) + np.float32(1e-6)
    along = sum(g * d for g, d in zip(slope, down, strict=True)) ** 2 / (slope2 * down2)
    return np.abs(field) / np.sqrt(slope2) / (1 - along).clip(0.1)


def _carve_sulci(
    tissue: dict[str, Array], depth: Array, sheet: Array, width: float
) -> dict[str, Array]:
    """Fold the cortex along random sheets: CSF `width` mm to each side, then a band of grey."""
    shell = soft_step(22.0 - depth, 3.0)
    csf = np.maximum(
        tissue["csf"], soft_step(width - sheet, 0.4) * shell * soft_step(tissue["gm"] - 0.3, 0.1)
    )
    ribbon = soft_step(width + 2.0 - sheet, 0.5) * soft_step(19.0 - depth, 3.0)
    wm = np.minimum(tissue["wm"] * (1 - 0.9 * ribbon), 1 - csf)
    return {"wm": wm, "gm": 1 - csf - wm, "csf": csf}


def _vessels(
    rng: np.random.Generator,
    grid: Grid,
    mask: NDArray[np.bool_],
    points: list[Array],
    depth: Array,
    csf: Array,
) -> Array:
    """Fraction of vessels: cortical and choroid ones run where two random sheets cross."""
    across = curved_sheet(rng, grid, 10.0)[mask], curved_sheet(rng, grid, 10.0)[mask]
    bore = rng.uniform(0.9, 1.5)
    cortical = soft_step(9.0 - depth, 2.0) * (0.3 + 0.7 * soft_step(csf - 0.2, 0.1))
    x, y, z = points
    choroid = csf * np.exp(-((x / 22) ** 2) - ((y + 25) / 25) ** 2 - ((z - 8) / 18) ** 2)
    branches = soft_step(bore - np.hypot(*across), 0.4) * np.maximum(cortical, choroid)
    return np.maximum(branches, _sinuses(points, depth))


def _sinuses(points: list[Array], depth: Array) -> Array:
    """Fraction of the superior sagittal sinus (under the vertex and behind) and straight sinus."""
    x, y, z = points
    behind_top = soft_step(z - 0.8 * (y + 10) - 20, 5.0)
    sagittal = soft_step(2.2 - np.abs(x), 0.5) * soft_step(3.5 - depth, 0.5) * behind_top
    off_axis = np.hypot(x, z - 10 - 0.4 * (y + 45))
    straight = soft_step(1.8 - off_axis, 0.5) * soft_step(-42 - y, 2.0)
    return np.maximum(sagittal, straight)
