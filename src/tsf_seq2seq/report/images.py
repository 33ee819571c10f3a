"""Files that a browser shows: quantised volumes as NIfTI, slices as PNG strips and pictures."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
from PIL import Image

from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.synthetic import mark
from tsf_seq2seq.files.writing import filling, write_atomically

LEVELS = 255
COLOUR_MAP = "inferno"  # of maps; ordered in brightness, for colour-blind readers too
SIGNED_COLOUR_MAP = "RdBu_r"
OPAQUE_FROM = 128  # quantised values of an overlay below it let the synthesis shine through


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as the whole numbers 0 to 255; what lies outside is clipped."""

    low: float
    high: float

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """uint8 of the same shape."""
        shares = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return np.rint(np.clip(shares, 0, 1) * LEVELS).astype(np.uint8)


INTENSITY = Scale(-1.0, 1.0)
SHOWN_INTENSITY = Scale(-1.0, 0.25)  # a little above the 99th percentile (0)


def cropped_affine(geometry: Geometry, start: Sequence[int]) -> np.ndarray:
    """Affine (4, 4) of the grid's part, in LPS order, whose first voxel is `start` (z, y, x)."""
    affine = geometry.lps().affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(start[::-1], float)
    return affine


def write_quantised(
    path: Path, volume: np.ndarray, affine: np.ndarray, scale: Scale, content: str | None = None
) -> None:
    """Write (z, y, x) in LPS order as uint8 NIfTI, whose header's slope gives the values back.

    With `content`, which it names, the header says that the volume is synthetic.
    """
    image = nib.Nifti1Image(scale.quantise(volume).transpose(2, 1, 0), affine)
    image.header.set_slope_inter((scale.high - scale.low) / LEVELS, scale.low)
    image.header.set_xyzt_units("mm", "sec")
    if content is not None:
        mark(image.header, content)
    packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    write_atomically(path, filling(packed))


def write_grey(path: Path, slices: np.ndarray) -> None:
    """Slices (N, Y, X) in [-1, 1] side by side, as grey PNG."""
    _save(path, Image.fromarray(np.hstack(list(SHOWN_INTENSITY.quantise(slices)))))


def write_colours(path: Path, slices: np.ndarray, scale: Scale, overlay: bool = False) -> None:
    """Slices (N, Y, X) of a map side by side, as PNG; low values of an `overlay` are transparent.

    Colours follow the square root of the value, so that small ones are seen too.
    """
    shares = np.clip((slices - scale.low) / (scale.high - scale.low), 0, 1)
    levels = np.rint(np.sqrt(shares) * LEVELS).astype(np.uint8)
    _save_levels(path, levels, colours(), opacities() if overlay else None)


def write_signed(path: Path, slices: np.ndarray, scale: Scale, overlay: bool = False) -> None:
    """The same of a signed map, whose scale has 0 in the middle: there an `overlay` is clear.

    Colours follow the signed square root of the value.
    """
    shares = np.clip(slices / scale.high, -1, 1)
    roots = np.sign(shares) * np.sqrt(np.abs(shares))
    levels = np.rint((roots + 1) / 2 * LEVELS).astype(np.uint8)
    _save_levels(path, levels, signed_colours(), signed_opacities() if overlay else None)


def signed_colours() -> np.ndarray:
    """The colour map of signed maps: (256, 3) uint8, blue below the middle and red above."""
    return _palette(SIGNED_COLOUR_MAP)


def signed_opacities() -> np.ndarray:
    """How opaque each colour of a signed overlay is: (256,) uint8."""
    from_middle = np.abs(2 * np.arange(256) - LEVELS)
    return np.minimum(from_middle * 255 // OPAQUE_FROM, 255).astype(np.uint8)


def colours() -> np.ndarray:
    """The colour map of maps: (256, 3) uint8."""
    return _palette(COLOUR_MAP)


def _palette(name: str) -> np.ndarray:
    shares = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return np.rint(shares * 255).astype(np.uint8)


def opacities() -> np.ndarray:
    """How opaque each colour of an overlay is: (256,) uint8."""
    return np.minimum(np.arange(256) * 255 // OPAQUE_FROM, 255).astype(np.uint8)


def overlay_colours(nodes: int = 17) -> dict[str, list[int]]:
    """The overlay's colours as NiiVue takes them: R, G, B, A at intensities I, 0 to 255.

    On the square-root scale of the strips.
    """
    places = np.rint(np.linspace(0, LEVELS, nodes)).astype(int)
    return _nodes(places, LEVELS * (places / LEVELS) ** 2, colours(), opacities())


def signed_overlay_colours(nodes: int = 17) -> dict[str, dict[str, list[int]]]:
    """Those of a signed overlay above and below 0, by their amounts."""
    places = np.rint(np.linspace(0, LEVELS, nodes)).astype(int)
    halves = {"above": signed_colours()[128:], "below": signed_colours()[127::-1]}
    amounts = LEVELS * (places / LEVELS) ** 2
    return {
        name: _nodes(places, amounts, np.repeat(half, 2, axis=0), opacities())
        for name, half in halves.items()
    }


def _nodes(
    places: np.ndarray, values: np.ndarray, palette: np.ndarray, opaque: np.ndarray
) -> dict[str, list[int]]:
    """NiiVue's nodes: of the palette's `places`, at intensities `values`, each once."""
    intensities, first = np.unique(np.rint(values).astype(int), return_index=True)
    parts = dict(zip("RGB", palette[places[first]].T.tolist(), strict=True))
    return parts | {"A": opaque[places[first]].tolist(), "I": intensities.tolist()}


def _save_levels(
    path: Path, levels: np.ndarray, palette: np.ndarray, opaque: np.ndarray | None
) -> None:
    """Slices (N, Y, X) of indices into a palette, side by side."""
    image = Image.fromarray(np.hstack(list(levels)), "P")
    image.putpalette(palette.tobytes())
    _save(path, image, **({} if opaque is None else {"transparency": opaque.tobytes()}))


def _save(path: Path, image: Image.Image, **more: object) -> None:
    write_atomically(path, lambda temporary: image.save(temporary, "PNG", optimize=True, **more))
