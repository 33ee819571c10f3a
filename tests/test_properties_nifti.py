"""Any bytes in a NIfTI file's place give what nibabel gives, or a UserError; and nothing else."""

import gzip
import struct
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsf_seq2seq.data.nifti import Geometry, read_volume, write_volume
from tsf_seq2seq.errors import UserError

pytestmark = pytest.mark.property

TYPES = ("u1", "i1", "<i2", ">i2", "<u4", "<f4", ">f4", "<f8", "<i8", "<c8", "rgb")
ODD_FLOATS = (0.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
PATCHES = st.lists(
    st.tuples(
        st.integers(0, 420),
        st.binary(min_size=1, max_size=4)
        | st.sampled_from([struct.pack("<f", value) for value in ODD_FLOATS])
        | st.sampled_from([struct.pack("<h", value) for value in (-32768, -1, 0, 1, 32767)]),
    ),
    max_size=4,
)


def file_content(kind: str, codes: tuple[int, int], version: int) -> bytes:
    """A NIfTI file of 3 × 2 × 2 voxels."""
    voxels: np.ndarray = np.arange(1, 13).reshape(3, 2, 2)
    if kind == "rgb":
        voxels = np.repeat(voxels.astype("u1"), 3).view("u1,u1,u1").reshape(3, 2, 2)
        voxels = voxels.view([("R", "u1"), ("G", "u1"), ("B", "u1")])
    else:
        voxels = voxels.astype(kind)
    image_class = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = image_class.header_class(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(voxels.dtype)
    image = image_class(voxels, np.diag([-1.0, -2.0, 3.0, 1.0]), header)
    image.set_qform(image.affine, codes[0])
    image.set_sform(image.affine, codes[1])
    return image.to_bytes()


def check(path) -> None:
    """read_volume gives exactly what nibabel gives, or a UserError that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # users see them on their terminal
        try:
            voxels, geometry = read_volume(path)
        except UserError as error:
            said = str(error)
        else:
            said = None
    if said is not None:
        assert str(path) in said
        return
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    image_class = nib.Nifti1Image if content[344:347] == b"n+1" else nib.Nifti2Image
    image = image_class.from_bytes(content)
    wanted = image.get_fdata(dtype=np.float64)
    np.testing.assert_array_equal(voxels, wanted.reshape(wanted.shape[:3]))
    np.testing.assert_array_equal(geometry.affine, image.affine)
    assert voxels.dtype == np.float64
    assert geometry.to_network(voxels).shape == geometry.grid


@given(
    kind=st.sampled_from(TYPES),
    codes=st.sampled_from([(0, 0), (1, 0), (0, 1), (1, 1)]),
    version=st.sampled_from([1, 2]),
    patches=PATCHES,
    cut=st.none() | st.integers(0, 600),
)
@example(kind="u1", codes=(1, 1), version=2, patches=[(127, b"`")], cut=None)
def test_any_header(tmp_path_factory, kind, codes, version, patches, cut):
    content = bytearray(file_content(kind, codes, version))
    for place, patch in patches:
        content[place : place + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "header.nii"
    path.write_bytes(content[:cut])
    check(path)


@given(
    patches=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 400),
    inner=PATCHES,
)
def test_any_damage_of_a_packed_file(tmp_path_factory, patches, cut, inner):
    content = bytearray(file_content("<i2", (0, 1), 1))
    for place, patch in inner:
        content[place : place + len(patch)] = patch
    packed = bytearray(gzip.compress(content, mtime=0))
    for place, value in patches:
        packed[place % len(packed)] = value
    path = tmp_path_factory.getbasetemp() / "packed.nii.gz"
    path.write_bytes(packed[:cut])
    try:
        whole = gzip.decompress(path.read_bytes())
    except Exception:  # nibabel doesn't look at the checksum: ours must
        with pytest.raises(UserError, match=r"packed\.nii\.gz"):
            read_volume(path)
        return
    plain = tmp_path_factory.getbasetemp() / "unpacked.nii"
    plain.write_bytes(whole)
    check(plain)
    check(path)


@given(content=st.binary(max_size=700))
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.nii"
    path.write_bytes(content)
    check(path)


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    sizes=st.tuples(*[st.floats(0.1, 9)] * 3),
    angles=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    offset=st.tuples(*[st.floats(-300, 300)] * 3),
    seed=st.integers(0, 1000),
)
def test_what_is_written_is_read(
    tmp_path_factory, shape, order, flips, sizes, angles, offset, seed
):
    """Any of the 48 orientations, upright or oblique; the sform holds float32."""
    turn = np.eye(3)[list(order)] * np.where(flips, -1, 1)
    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(*angles) @ turn @ np.diag(sizes), offset
    )
    geometry = Geometry(shape, affine.astype(np.float32).astype(np.float64))
    volume = np.random.default_rng(seed).normal(size=geometry.grid).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "written.nii.gz"
    write_volume(path, volume, geometry)
    voxels, read = read_volume(path)
    np.testing.assert_array_equal(read.affine, geometry.affine)
    assert (read.shape, read.grid) == (shape, geometry.grid)
    np.testing.assert_array_equal(read.to_network(voxels), volume)
    np.testing.assert_array_equal(read.to_file(volume), voxels)
    assert read.doubt is None
