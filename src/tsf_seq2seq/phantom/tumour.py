"""The phantom's tumour: necrotic core, enhancing rim, and oedema that follows white matter."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsf_seq2seq.phantom.fields import Array, Grid, random_field, soft_step


@dataclass(frozen=True)
class Tumour:
    """Where the tumour is and how large it is, in mm."""

    centre: tuple[float, float, float]  # from the brain's centre
    radius: float  # of the enhancing tumour
    reach: float  # of the oedema beyond it
    necrosis: float  # share of the radius that is necrotic


def draw_tumour(rng: np.random.Generator) -> Tumour:
    """Draw size and place: in the white matter of either hemisphere, above the tentorium."""
    side = rng.choice([-1.0, 1.0])
    angle = rng.uniform(0, 2 * math.pi)
    x = side * rng.uniform(22, 38)
    y = 48 * math.sin(angle) * rng.uniform(0.5, 1)
    z = rng.uniform(-5, 38)
    radius = rng.uniform(9, 22)
    return Tumour((x, y, z), radius, rng.uniform(10, 28), rng.uniform(0.25, 0.8))


def grow_tumour(
    rng: np.random.Generator,
    grid: Grid,
    mask: NDArray[np.bool_],
    tumour: Tumour,
    points: list[Array],
    tissue: dict[str, Array],
) -> dict[str, Array]:
    """Fractions of necrosis, rim and oedema around the tumour's centre, irregular in shape."""
    coarse, fine, inner, spread = (
        random_field(rng, grid, scale)[mask] for scale in (12.0, 5.0, 6.0, 11.0)
    )
    outside = _outside_mm(rng, grid, mask, tumour) + tumour.radius * (0.36 * coarse + 0.16 * fine)
    other_side = np.float32(np.sign(tumour.centre[0])) * points[0]  # mm across the midline
    outside = outside + other_side.clip(0, 12) + 6.0 * tissue["csf"]
    edge = 0.6
    whole = soft_step(-outside, edge)
    thickness = tumour.radius * (1 - tumour.necrosis) * (1 + 0.6 * inner)
    necrosis = soft_step(-outside - thickness.clip(1.5), edge)
    reach = outside - tumour.reach * (1 + 0.5 * spread) * (tissue["wm"] - 0.15)
    oedema = soft_step(-reach, 2.0) * (tissue["wm"] + 0.25 * tissue["gm"])
    return {"necrosis": necrosis, "rim": (whole - necrosis).clip(0, 1), "oedema": oedema}


def _outside_mm(
    rng: np.random.Generator, grid: Grid, mask: NDArray[np.bool_], tumour: Tumour
) -> Array:
    """Distance in mm from an ellipsoid of mean radius R: (|(x − c) / a| − 1)·R."""
    stretch = np.exp(rng.normal(0, 0.15, 3))
    x, y, z = (
        ((axis - c) / (tumour.radius * s)).astype(np.float32) ** 2
        for axis, c, s in zip(grid.axes, tumour.centre, stretch, strict=True)
    )
    radius = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :])[mask]
    return (radius - 1) * np.float32(tumour.radius)
