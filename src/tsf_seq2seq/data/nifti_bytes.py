"""The bytes of NIfTI files: unpacked, checked against their header, before nibabel sees them."""

import gzip
import io
import logging
import math
import os
import zlib
from pathlib import Path

import nibabel as nib

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import GZIP_MAGIC
from tsf_seq2seq.files.reading import regular

# nibabel reports what is wrong with a header on standard error; our own sentence does instead.
logging.getLogger("nibabel").setLevel(logging.CRITICAL)
HEADER_BYTES = 540  # of NIfTI-2, the longer one
LARGEST_VOXELS = 2**29  # a volume of 813³; a damaged header may promise far more than memory holds


def read_content(path: Path) -> bytes:
    """A file's bytes, unpacked, as many as its header promises; gzip streams are read to their end.

    Raises UserError where the file is missing, damaged, or promises more than LARGEST_VOXELS before
    it reads any, and for header values that nibabel would pass over.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            packed = file.peek(2)[:2] == GZIP_MAGIC
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packed else file
            content = bytearray(stream.read(HEADER_BYTES))
            expected = _promised_bytes(bytes(content), path)
            while len(content) < expected:
                part = stream.read(min(1 << 22, expected - len(content)))
                if not part:
                    break
                content += part
            while packed and stream.read(1 << 20):  # to the checksum at the end
                pass
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is damaged: its gzip stream does not check out ({error})"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UserError(f"{path} can't be read: {error}") from None
    if len(content) < expected:
        raise UserError(
            f"{path} is truncated: its header promises {expected} bytes, it has {len(content)}"
        )
    return bytes(content)


def read_head(path: Path) -> bytes:
    """A file's first bytes, unpacked, which hold its header; OSError or zlib.error where damaged.

    As few system calls as can be: of a data set's every file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        head = os.read(handle, 4 * HEADER_BYTES)
    finally:
        os.close(handle)
    if head[:2] == GZIP_MAGIC:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEADER_BYTES)
    return head[:HEADER_BYTES]


def image_class(content: bytes, path: Path) -> type[nib.Nifti1Image]:
    """The class of the NIfTI version; UserError where it is none."""
    if content[344:347] == b"n+1":
        return nib.Nifti1Image
    if content[4:7] == b"n+2":
        return nib.Nifti2Image
    raise UserError(f"{path} is not a NIfTI file")


def tells(header: nib.Nifti1Header, code: str) -> bool:
    """Whether a header's sform or qform (by its code) counts; nibabel takes odd codes for 0."""
    return int(header[code]) in nib.nifti1.xform_codes.value_set() - {0}


def damaged_header(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} has a damaged NIfTI header ({error})")


def _promised_bytes(head: bytes, path: Path) -> int:
    """Length of the file that a header describes; UserError where no memory would hold it."""
    header_class = image_class(head, path).header_class
    try:
        header = header_class(head[: header_class.sizeof_hdr], check=False)
        voxels = math.prod(header.get_data_shape())
        expected = header.get_data_offset() + voxels * header.get_data_dtype().itemsize
    except Exception as error:
        raise damaged_header(path, error) from None
    if voxels > LARGEST_VOXELS or expected > 16 * LARGEST_VOXELS:
        raise UserError(
            f"{path} promises {voxels:.3g} voxels in {expected:.3g} bytes, more than the "
            f"{LARGEST_VOXELS:.3g} voxels that are read"
        )
    _check_scaling(header, path)
    _check_voxel_size(header, path)
    return expected


def _check_scaling(header: nib.Nifti1Header, path: Path) -> None:
    """UserError for factors that aren't finite, which nibabel leaves out; a slope of 0 is none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope and not math.isfinite(slope + intercept):
        raise UserError(
            f"{path} has a scl_slope of {slope:g} and a scl_inter of {intercept:g}, but its "
            "intensities are unknown unless both are finite"
        )


def _check_voxel_size(header: nib.Nifti1Header, path: Path) -> None:
    """UserError where pixdim alone says how large voxels are, and doesn't: nibabel says 1 mm."""
    sign, *sizes = (float(value) for value in header["pixdim"][:4])
    alone = not tells(header, "sform_code") and tells(header, "qform_code")
    if alone and not (sign in (-1, 0, 1) and all(0 < size < math.inf for size in sizes)):
        raise UserError(
            f"{path} has a pixdim of {', '.join(f'{v:g}' for v in (sign, *sizes))}: the first must "
            "be 1 or -1, and the others, which are voxel sizes, above 0"
        )
