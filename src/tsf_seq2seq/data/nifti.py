"""NIfTI files in and out: checked reading, and the way between a file's voxel order and LPS."""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from tsf_seq2seq.data.nifti_bytes import (
    damaged_header,
    image_class,
    read_content,
    tells,
)
from tsf_seq2seq.data.synthetic import mark, refuse_synthetic
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import filling, write_atomically

NETWORK_ORIENTATION = ("L", "P", "S")  # the voxel order of BraTS files
SAME_GRID_MM = 0.1  # voxels of one subject's sequences may lie this far apart
# So much of a grid's extent may sform and qform differ by: the qform's float32 quaternion can tell
# a direction near 180° (as in LPS) no better than to 7e-4.
FORMS_AGREE = 1e-3
FARTHEST_MM = 1e6  # of a voxel from the origin, or its size
UNKNOWN_ORIENTATION = (
    "does not tell its orientation: sform_code and qform_code are 0, so that left and right are a "
    "guess"
)


@dataclass(frozen=True)
class Geometry:
    """Grid of a NIfTI file: shape (x, y, z) in voxels and affine (4, 4), voxel → mm (RAS+).

    `doubt`: why the affine may not be the patient's, in words that follow the file's name, or None.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    doubt: str | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape in LPS order: z, y, x."""
        return tuple(reversed(self.lps().shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in LPS order: z, y, x, in mm."""
        x, y, z = np.linalg.norm(self.lps().affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    def to_network(self, volume: np.ndarray) -> np.ndarray:
        """(x, y, z) in the file's voxel order → (z, y, x) in LPS order, a view."""
        return apply_orientation(volume, self._to_lps()).transpose(2, 1, 0)

    def to_file(self, volume: np.ndarray) -> np.ndarray:
        """(z, y, x) in LPS order → (x, y, z) in the file's voxel order, a view."""
        to_file = ornt_transform(axcodes2ornt(NETWORK_ORIENTATION), _axes_of(self.affine))
        return apply_orientation(volume.transpose(2, 1, 0), to_file)

    def lps(self) -> "Geometry":
        """The same grid with its voxels in LPS order."""
        to_lps = self._to_lps()
        x, y, z = (self.shape[axis] for axis in np.argsort(to_lps[:, 0]))
        return Geometry((x, y, z), self.affine @ inv_ornt_aff(to_lps, self.shape))

    def distance_mm(self, other: "Geometry") -> float:
        """Largest distance in mm between the corners of two grids of one shape."""
        corners = np.stack(np.meshgrid(*[[0, n - 1] for n in self.shape]), axis=-1).reshape(-1, 3)
        shift = nib.affines.apply_affine(self.affine - other.affine, corners)
        with np.errstate(over="ignore"):  # a damaged header may say anything
            return float(np.linalg.norm(shift, axis=1).max())

    def _to_lps(self) -> np.ndarray:
        return ornt_transform(_axes_of(self.affine), axcodes2ornt(NETWORK_ORIENTATION))


def read_volume(path: Path) -> tuple[np.ndarray, Geometry]:
    """Voxels (x, y, z) as float64, in the file's own order, and the grid.

    Raises UserError where the file is missing, damaged (gzip streams are read to their end, so that
    a wrong checksum is seen), not a 3-d NIfTI, or holds NaN or infinite values.
    """
    return voxels_and_grid(read_image(path), path)


def read_scan(path: Path) -> tuple[np.ndarray, Geometry]:
    """What `read_volume` gives; UserError for an image that this software synthesized, too."""
    refuse_synthetic(path)
    return read_volume(path)


def voxels_and_grid(image: nib.Nifti1Image, origin: Path | str) -> tuple[np.ndarray, Geometry]:
    """Voxels (x, y, z) as float64, and the grid, of an image that `origin` names in messages.

    Raises UserError where it is not 3-d, or has no orientation or no finite intensities.
    """
    shape = image.shape[:3]
    if any(size != 1 for size in image.shape[3:]) or len(shape) != 3:
        raise UserError(f"{origin} must be a 3-d volume, not one of shape {image.shape}")
    if min(shape) < 1:
        raise UserError(f"{origin} holds no voxels: its shape is {image.shape}")
    if not is_orientation(image.affine):
        raise UserError(
            f"{origin} has a singular affine, or one beyond {FARTHEST_MM:g} mm, so that its "
            "orientation is unknown"
        )
    if image.get_data_dtype().kind not in "iuf":
        kind = "complex numbers" if image.get_data_dtype().kind == "c" else "colours"
        raise UserError(f"{origin} holds {kind}, not intensities")
    try:
        voxels = image.get_fdata(dtype=np.float64, caching="unchanged").reshape(shape)
    except Exception as error:
        raise UserError(f"{origin}: its voxels can't be read ({error})") from None
    invalid = int(voxels.size - np.isfinite(voxels).sum())
    if invalid:
        raise UserError(f"{origin} holds {invalid} NaN or infinite voxels")
    return voxels, Geometry(shape, image.affine, orientation_doubt(image.header))


def is_orientation(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) tells the three axes of a volume apart."""
    if not np.abs(affine).max() <= FARTHEST_MM or not abs(np.linalg.det(affine[:3, :3])) >= 1e-6:
        return False
    return bool(np.isfinite(_axes_of(affine)).all())


def orientation_doubt(header: nib.Nifti1Header) -> str | None:
    """Why a header's affine may not be the patient's, or None."""
    told = [tells(header, code) for code in ("sform_code", "qform_code")]
    if not all(told):
        return None if any(told) else UNKNOWN_ORIENTATION
    try:
        qform = header.get_qform()
        if not np.isfinite(qform).all():
            raise ValueError("its values are not finite")
    except Exception as error:
        return f"has a qform that can't be read ({error}): its sform counts"
    grid = Geometry(header.get_data_shape()[:3], header.get_sform())
    distance = grid.distance_mm(Geometry(grid.shape, qform))
    extent = float(np.linalg.norm(nib.affines.voxel_sizes(grid.affine) * grid.shape))
    if distance <= max(SAME_GRID_MM, FORMS_AGREE * extent):
        return None
    return (
        f"has a sform and a qform that place the same voxel up to {distance:.3g} mm apart: its "
        "sform counts"
    )


@lru_cache(maxsize=4096)
def _axes(rotation: bytes) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.frombuffer(rotation).reshape(3, 3)
    return io_orientation(affine)


def _axes_of(affine: np.ndarray) -> np.ndarray:
    """nibabel's `io_orientation`, worked out once for each rotation: subjects share a few."""
    return _axes(np.ascontiguousarray(affine[:3, :3], dtype=np.float64).tobytes())


def read_image(path: Path) -> nib.Nifti1Image:
    """NIfTI-1 or NIfTI-2 image, its bytes read and checked whole.

    Raises UserError as `read_content` does, and for a header that nibabel refuses.
    """
    content = read_content(path)
    try:
        return image_class(content, path).from_bytes(content)
    except Exception as error:
        raise damaged_header(path, error) from None


def write_volume(
    path: Path, volume: np.ndarray, geometry: Geometry, content: str = "volume"
) -> None:
    """Write a synthesized volume (z, y, x) in LPS order as float32 NIfTI on the grid of `geometry`.

    Its header says that it is synthetic, and what `content` it has. All or nothing; raises
    UserError where the disk refuses.
    """
    image = _image(np.ascontiguousarray(geometry.to_file(volume), np.float32), geometry.affine)
    mark(image.header, content)
    _save(path, image)


def write_voxels(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels (x, y, z) of any type as NIfTI, as `write_volume` does, but unmarked."""
    _save(path, _image(voxels, affine))


def _image(voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def _save(path: Path, image: nib.Nifti1Image) -> None:
    write_atomically(path, filling(compressed(image)))


def image_like(
    template: nib.Nifti1Image, volume: np.ndarray, geometry: Geometry, content: str
) -> nib.Nifti1Image:
    """Synthesized volume (z, y, x) in LPS order as float32 image with the template's shape, affine
    and codes, which says that it is synthetic, and what `content` it has.

    Nothing else of the template's header that could tell of the patient is taken over.
    """
    voxels = np.ascontiguousarray(geometry.to_file(volume), dtype=np.float32)
    header = template.header.copy()
    header.extensions.clear()
    for key in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        header[key] = 0
    for key in ("aux_file", "intent_name"):
        header[key] = b""
    mark(header, content)
    header.set_data_dtype(np.float32)
    header.set_data_offset(0)
    return type(template)(voxels.reshape(template.shape), template.affine, header)


def compressed(image: nib.Nifti1Image) -> bytes:
    """What a .nii.gz file of the image holds; the same bytes for the same image."""
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
