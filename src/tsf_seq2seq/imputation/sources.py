"""The sources of an imputation: read, checked, on one grid, in the network's order and range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from nibabel.spatialimages import SpatialImage

from tsf_seq2seq.data.loading import check_both_oriented, check_same_grid, positive_maximum
from tsf_seq2seq.data.nifti import UNKNOWN_ORIENTATION, Geometry, read_image, voxels_and_grid
from tsf_seq2seq.data.slices import BACKGROUND, bounding_box, normalise
from tsf_seq2seq.data.synthetic import is_marked, is_synthetic
from tsf_seq2seq.errors import UserError

Image = Path | str | SpatialImage
# A brain with its CSF fills up to 2 litres and about half of the box around it.
LARGEST_BRAIN_LITRES = 2.2
FULLEST_BOX = 0.85
WAY_OUT = (
    "; --synthetic-sources (in Python synthetic_sources=True) takes it as a source all the same"
)


@dataclass(frozen=True)
class Sources:
    """Source sequences on the grid of the first.

    `images`: name → (Z, Y, X) float32 in [-1, 1], LPS order; `maxima`: the intensities that became
    1; `brain` (Z, Y, X): where any source is above 0; `template`: the first as nibabel image;
    `not_stripped`, `doubts`: a sentence on each source that is not a brain alone, or whose
    orientation is in doubt.
    """

    images: dict[str, np.ndarray]
    maxima: dict[str, float]
    origins: dict[str, str]
    brain: np.ndarray
    geometry: Geometry
    template: nib.Nifti1Image
    resampled: tuple[str, ...]
    not_stripped: tuple[str, ...]
    doubts: tuple[str, ...]

    def of(self, names: Sequence[str]) -> "Sources":
        """Some of them alone: the brain is theirs, the grid stays."""
        images = {name: self.images[name] for name in names}
        brain = np.any([image > BACKGROUND for image in images.values()], axis=0)
        return replace(self, images=images, brain=brain)


def load_sources(given: Mapping[str, Image], resample: bool = False) -> Sources:
    """Read sources (sequence → file or nibabel image), the first of which gives the grid.

    With `resample`, others are brought to that grid by linear interpolation. Raises UserError where
    one can't be used, lies on another grid, or is alone in telling its orientation or not.
    """
    images, maxima, origins = {}, {}, {}
    resampled, not_stripped, doubts = [], [], []
    brain: np.ndarray | None = None
    for name, source in given.items():
        image, origin = open_image(source, name)
        voxels, own = voxels_and_grid(image, origin)
        if brain is None:
            template, geometry, first = image, own, origin
        check_both_oriented(geometry, own, first, origin)
        if own.doubt:
            doubts.append(f"{name} ({origin}) {own.doubt}")
        if (difference := grid_difference(geometry, own, first, origin)) is not None:
            if not resample:
                raise UserError(difference)
            voxels, own = _on_grid(voxels, own, geometry, origin), geometry
            resampled.append(f"{name} to the grid of {next(iter(given))}")
        volume = own.to_network(voxels)
        inside = volume > 0
        brain = inside if brain is None else brain | inside
        maxima[name] = positive_maximum(volume, origin)
        images[name] = normalise(volume, maxima[name])
        origins[name] = origin
        if doubt := unstripped(inside, own):
            not_stripped.append(f"{name} ({origin}) looks as if it was not skull-stripped: {doubt}")
    if brain is None:
        raise UserError("no source sequence was given")
    notes = (tuple(resampled), tuple(not_stripped), tuple(doubts))
    return Sources(images, maxima, origins, brain, geometry, template, *notes)


def told_synthetic(
    given: Mapping[str, Image], allowed: bool, hint: str = WAY_OUT
) -> tuple[str, ...]:
    """A sentence on each source that is an image of ours; UserError unless they are `allowed`, with
    the `hint` what to do."""
    found = {name: source for name, source in given.items() if _is_of_ours(source)}
    if found and not allowed:
        name, source = next(iter(found.items()))
        origin = source if isinstance(source, str | Path) else f"the {name} image"
        raise UserError(f"{origin} is a synthetic image of this software, not a scan{hint}")
    return tuple(f"source {name} is a synthetic image itself" for name in found)


def _is_of_ours(source: Image) -> bool:
    if isinstance(source, str | Path):
        return is_synthetic(Path(source))
    return isinstance(source, nib.Nifti1Image) and is_marked(source.header)


def open_image(source: Image, name: str) -> tuple[nib.Nifti1Image, str]:
    """NIfTI image of a file or nibabel image, and what messages call it."""
    if isinstance(source, str | Path):
        return read_image(Path(source)), str(source)
    if not isinstance(source, SpatialImage):
        kind = type(source).__name__
        raise UserError(f"{name} must be a file or a nibabel image, not {kind}")
    origin = str(source.get_filename() or f"the {name} image")
    if source.affine is None:
        raise UserError(f"{origin} has no affine, so that its orientation is unknown")
    if isinstance(source, nib.Nifti1Image):  # a NIfTI-2 image is one too
        return source, origin
    return nib.Nifti1Image.from_image(source), origin


def grid_difference(first: Geometry, other: Geometry, name: str, other_name: str) -> str | None:
    """What tells two grids apart, in a sentence, or None where they are one in any voxel order."""
    try:
        check_same_grid(first, other, name, other_name)
    except UserError as error:
        return (
            f"{error} ({name}: {_describe(first)}; {other_name}: {_describe(other)}); resampling "
            "(--resample) brings sources to the first one's grid"
        )
    return None


def unstripped(inside: np.ndarray, geometry: Geometry) -> str | None:
    """Why a volume that is above 0 where `inside` (Z, Y, X) says can't be a brain alone, or None.

    A head, or air with noise in it, takes more litres than any brain, and noise alone fills its
    bounding box.
    """
    millilitre = abs(np.linalg.det(geometry.affine[:3, :3])) / 1000
    litres = float(inside.sum()) * millilitre / 1000
    if litres > LARGEST_BRAIN_LITRES:
        return f"{litres:.1f} litres are above 0, and a brain has at most {LARGEST_BRAIN_LITRES}"
    share = float(bounding_box(inside).of(inside).mean())
    if share > FULLEST_BOX:
        return f"what is above 0 fills {share:.0%} of its bounding box, a brain at most 85%"
    return None


def _on_grid(voxels: np.ndarray, own: Geometry, wanted: Geometry, origin: str) -> np.ndarray:
    if own.doubt == UNKNOWN_ORIENTATION:
        raise UserError(f"{origin} {own.doubt}, and can't be resampled to another grid")
    moving = nib.Nifti1Image(voxels, own.affine)
    try:
        moved = resample_from_to(moving, (wanted.shape, wanted.affine), order=1)
    except Exception as error:
        raise UserError(f"{origin} can't be resampled: {error}") from None
    return np.asarray(moved.dataobj)


def _describe(geometry: Geometry) -> str:
    lps = geometry.lps()
    shape = " × ".join(map(str, lps.shape))
    corner = ", ".join(f"{value:.4g}" for value in lps.affine[:3, 3])
    sizes = " × ".join(f"{size:.4g}" for size in geometry.spacing[::-1])
    return f"{shape} voxels of {sizes} mm from ({corner})"
