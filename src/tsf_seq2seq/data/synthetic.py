"""Synthetic images: marked as such in the file itself, and told from scans by that."""

import json
import os
import zlib
from pathlib import Path

from nibabel.nifti1 import Nifti1Extension, Nifti1Header

from tsf_seq2seq import __version__
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import GZIP_MAGIC

SOFTWARE = "TSF-Seq2Seq"
RESEARCH_USE = "synthetic image, research use"
RECORD_KEY = "CheckpointSHA256"  # in every sidecar of ours, and nobody else's
COMMENT = 6  # the registered kind of extension
DESCRIPTION_LENGTH = 79  # of NIfTI's descrip
HEAD_BYTES = 640  # hold NIfTI-2's header of 540 bytes, and the words of the mark behind it
SIDECAR_BYTES = 1 << 16
NIFTI_1, NIFTI_2 = (b"n+1", b"ni1"), b"n+2"  # the signs of a header's two versions
GZIP_WINDOW = 31  # for zlib: a stream with gzip's header


def mark(header: Nifti1Header, content: str) -> None:
    """Say in a NIfTI header that an image is synthetic, and of what.

    In `descrip`, which many tools overwrite, and in an extension of the registered kind "comment".
    """
    ending = f", {RESEARCH_USE}"
    title = content[: DESCRIPTION_LENGTH - len(ending)] + ending
    header["descrip"] = title.encode("ascii", "replace")
    words = {"Description": RESEARCH_USE, "Content": content}
    words |= {"Software": SOFTWARE, "SoftwareVersion": __version__}
    header.extensions.append(Nifti1Extension(COMMENT, json.dumps(words).encode()))


def is_marked(header: Nifti1Header) -> bool:
    """Whether a header bears our mark."""
    comments = (str(e.get_content()) for e in header.extensions if e.get_code() == COMMENT)
    return any(RESEARCH_USE in text for text in (str(header["descrip"]), *comments))


def is_marked_file(path: Path) -> bool:
    """Whether a NIfTI file, packed or not, bears our mark; False for what can't be read."""
    return RESEARCH_USE.encode() in _head(path)


def may_be_replaced(image: Path, sidecar: Path) -> bool:
    """Whether a place holds an image of ours, or the ruins of one, as a sidecar tells.

    Not a sound image without our mark: a scan may have come into the place of ours.
    """
    head = _head(image)
    is_nifti = head[344:347] in NIFTI_1 or head[4:7] == NIFTI_2
    return RESEARCH_USE.encode() in head or (
        image.is_file() and is_record(sidecar) and not is_nifti
    )


def is_synthetic(path: Path) -> bool:
    """Whether a file is no scan but an image of ours: it bears our mark, or its sidecar says so."""
    return is_marked_file(path) or is_record(_sidecar(str(path)))


def is_record(path: Path | str) -> bool:
    """Whether a file is a sidecar of ours."""
    return RECORD_KEY.encode() in _first_bytes(str(path), SIDECAR_BYTES)


def refuse_synthetic(path: Path) -> None:
    """UserError for an image of ours where a scan is needed."""
    if is_synthetic(path):
        raise UserError(f"{path} is a synthetic image of this software, not a scan")


def sidecar_path(image: Path) -> Path:
    """The JSON file that belongs to a NIfTI file."""
    return Path(_sidecar(str(image)))


def _sidecar(image: str) -> str:
    return f"{image.removesuffix('.gz').removesuffix('.nii')}.json"


def _head(path: Path) -> bytes:
    """The first bytes of what a file holds, unpacked; none where it can't be read."""
    head = _first_bytes(str(path), HEAD_BYTES)
    if not head.startswith(GZIP_MAGIC):
        return head
    try:
        return zlib.decompressobj(GZIP_WINDOW).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _first_bytes(path: str, count: int) -> bytes:
    """A file's first bytes, none where it can't be read; never waits for a pipe's writer."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):  # ValueError: a name with a null character
        return b""
    try:
        return os.read(handle, count)
    except OSError:
        return b""
    finally:
        os.close(handle)
