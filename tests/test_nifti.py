"""NIfTI files: any voxel order comes to LPS and back, and damage never passes unseen."""

import gzip
import itertools
import os
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, blob, save_nifti

from tsf_seq2seq.data.nifti import (
    UNKNOWN_ORIENTATION,
    Geometry,
    read_volume,
    write_volume,
)
from tsf_seq2seq.errors import UserError

SHAPE = (2, 3, 4)  # x, y, z in LPS order
VOLUME = np.arange(24.0).reshape(SHAPE)
ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def stored(order, flips) -> tuple[np.ndarray, np.ndarray]:
    """VOLUME, which is LPS with LPS_AFFINE, and its affine with axes permuted, then flipped."""
    volume = VOLUME.transpose(order)
    affine = LPS_AFFINE[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (volume.shape[axis] - 1)
            affine[:3, axis] *= -1
            volume = np.flip(volume, axis)
    return volume, affine


def test_there_are_48_orientations():
    codes = {"".join(nib.aff2axcodes(stored(*way)[1])) for way in ORIENTATIONS}
    assert len(codes) == 48


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation(order, flips):
    volume, affine = stored(order, flips)
    geometry = Geometry(volume.shape, affine)
    network = geometry.to_network(volume)
    np.testing.assert_array_equal(network, VOLUME.transpose(2, 1, 0))
    np.testing.assert_array_equal(geometry.to_file(network), volume)
    lps = geometry.lps()
    assert lps.shape == SHAPE
    np.testing.assert_array_equal(lps.affine, LPS_AFFINE)


def test_distance_is_the_largest_between_corners():
    geometry = Geometry((11, 5, 5), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = (3, 4, 0)
    assert geometry.distance_mm(Geometry((11, 5, 5), shifted)) == pytest.approx(5)
    wider = np.diag([1.02, 1, 1, 1])
    assert geometry.distance_mm(Geometry((11, 5, 5), wider)) == pytest.approx(0.2)


@pytest.fixture
def file(tmp_path):
    """A healthy gzipped NIfTI."""
    return save_nifti(tmp_path / "volume.nii.gz", blob(0))


def test_reads_voxels_and_grid(file):
    voxels, geometry = read_volume(file)
    assert voxels.dtype == np.float64
    np.testing.assert_array_equal(voxels, blob(0))
    assert geometry.shape == (24, 20, 12)
    np.testing.assert_array_equal(geometry.affine, LPS_AFFINE)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_gzip(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"volume\.nii\.gz is damaged: its gzip stream"):
        read_volume(file)


def test_flipped_bits_are_never_silent(file):
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    positions = [*range(0, 12), *rng.integers(12, len(content) - 8, 40), *range(-8, 0)]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            voxels, geometry = read_volume(file)
        except UserError:
            refused += 1
        else:  # bits of no weight, as those of gzip's time stamp
            np.testing.assert_array_equal(voxels, blob(0))
            np.testing.assert_array_equal(geometry.affine, LPS_AFFINE)
    assert refused >= 48


def test_wrong_checksum(file):
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="CRC"):
        read_volume(file)


def test_header_promises_more_voxels(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    path = tmp_path / "short.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()[:-10]))
    with pytest.raises(UserError, match="promises 480 bytes, it has 470"):  # 352 + 2 · 64
        read_volume(path)


def test_gigantic_promises_are_refused_before_memory_is_taken(tmp_path):
    """30000³ voxels of 2 bytes would be 54 TB."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()  # dim[1:4]
    path = tmp_path / "vast.nii"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"promises 2\.7e\+13 voxels in 5\.4e\+13 bytes"):
        read_volume(path)


def test_what_follows_the_voxels_takes_no_memory(tmp_path):
    """200 MB of zeros, well packed, behind a small volume."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes() + bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    voxels, _ = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (voxels == 1).all()
    assert peak < 20_000_000


def test_axes_that_cannot_be_told_apart(tmp_path):
    """The determinant is 1e-6, but x and y point the same way, up to 1e-9."""
    affine = np.array([[1e3, 1e3, 0, 0], [0, 1e-9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = save_nifti(tmp_path / "flat.nii.gz", np.ones((4, 4, 4), np.int16), affine)
    with pytest.raises(UserError, match="singular affine"):
        read_volume(path)


@pytest.mark.parametrize("content", [b"", b"not a NIfTI file", gzip.compress(b"x" * 1000, mtime=0)])
def test_not_a_nifti(tmp_path, content):
    path = tmp_path / "notes.nii.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a NIfTI file"):
        read_volume(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_volume(tmp_path / "none.nii.gz")
    with pytest.raises(UserError, match="can't be read"):
        read_volume(tmp_path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2), (4, 5, 6, 1, 3)])
def test_other_than_three_dimensions(tmp_path, shape):
    path = save_nifti(tmp_path / "series.nii.gz", np.ones(shape, np.float32))
    with pytest.raises(UserError, match="must be a 3-d volume, not one of shape"):
        read_volume(path)


def test_trailing_single_dimensions_are_fine(tmp_path):
    path = save_nifti(tmp_path / "series.nii.gz", VOLUME.reshape(*SHAPE, 1, 1))
    voxels, geometry = read_volume(path)
    np.testing.assert_array_equal(voxels, VOLUME)
    assert geometry.shape == SHAPE


def test_nan_and_infinity_are_counted(tmp_path):
    voxels = VOLUME.astype(np.float32)
    voxels[0, 0, :2] = np.nan
    voxels[1, 1, 1] = np.inf
    path = save_nifti(tmp_path / "holes.nii.gz", voxels)
    with pytest.raises(UserError, match="holds 3 NaN or infinite voxels"):
        read_volume(path)


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_complex_voxels_are_refused(tmp_path):
    path = save_nifti(tmp_path / "complex.nii.gz", (VOLUME + 2j).astype(np.complex64))
    with pytest.raises(UserError, match="complex"):
        read_volume(path)


@pytest.mark.parametrize("broken", [np.diag([1.0, 1, 0, 1]), np.diag([np.nan, 1, 1, 1])])
def test_singular_affine(tmp_path, broken):
    image = nib.Nifti1Image(VOLUME, None)
    image.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = broken[row]
    path = tmp_path / "flat.nii"
    path.write_bytes(image.to_bytes())
    with pytest.raises(UserError, match="singular affine"):
        read_volume(path)


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(VOLUME.astype(np.int16), LPS_AFFINE)
    image.header.set_slope_inter(2.5, -1)
    content = bytearray(image.to_bytes())
    # nibabel writes images held in memory with slope 1, so the header's bytes are set by hand
    content[112:120] = np.array([2.5, -1], "<f4").tobytes()
    path = tmp_path / "scaled.nii"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path)[0], 2.5 * VOLUME - 1)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["plain.nii", "packed.nii.gz"])
def test_both_versions_plain_and_packed(tmp_path, image_class, name):
    nib.save(image_class(VOLUME, LPS_AFFINE), tmp_path / name)
    voxels, geometry = read_volume(tmp_path / name)
    np.testing.assert_array_equal(voxels, VOLUME)
    np.testing.assert_array_equal(geometry.affine, LPS_AFFINE)


def test_written_volumes(tmp_path):
    volume, affine = stored((2, 0, 1), (True, False, True))
    geometry = Geometry(volume.shape, affine)
    path = tmp_path / "new" / "out.nii.gz"
    write_volume(path, geometry.to_network(volume), geometry)
    image = nib.load(path)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(), volume)
    np.testing.assert_array_equal(image.get_sform(), affine)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-6)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert [entry.name for entry in path.parent.iterdir()] == ["out.nii.gz"]
    voxels, read = read_volume(path)
    np.testing.assert_array_equal(read.to_network(voxels), VOLUME.transpose(2, 1, 0))


def test_writing_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out\.nii\.gz could not be written"):
        write_volume(tmp_path / "file" / "out.nii.gz", VOLUME.T, Geometry(SHAPE, LPS_AFFINE))


# --- what a header leaves unsaid, or says twice


def patched(path, voxels=VOLUME, affine=LPS_AFFINE, **fields):
    """A file with bytes of its NIfTI-1 header set by hand; nibabel would put them in order."""
    places = {
        "pixdim": (76, "<4f"),
        "scale": (112, "<2f"),
        "codes": (252, "<2h"),  # qform, sform
        "quaternion": (256, "<6f"),
    }
    content = bytearray(nib.Nifti1Image(voxels, affine).to_bytes())
    for name, values in fields.items():
        place, layout = places[name]
        content[place : place + struct.calcsize(layout)] = struct.pack(layout, *values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["plain.nii", "packed.nii.gz"])
@pytest.mark.parametrize("codes", [(0, 0), (-3, 99)])  # odd codes count for 0
def test_an_unknown_orientation_is_in_doubt(tmp_path, name, codes):
    path = patched(tmp_path / name, codes=codes)
    assert read_volume(path)[1].doubt == UNKNOWN_ORIENTATION


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (4, 2)])
def test_a_known_orientation_is_not(tmp_path, codes):
    path = tmp_path / "known.nii.gz"
    write_volume(path, VOLUME.T, Geometry(SHAPE, LPS_AFFINE))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = struct.pack("<2h", *codes)
    path.write_bytes(gzip.compress(content))
    assert read_volume(path)[1].doubt is None
    np.testing.assert_array_equal(read_volume(path)[1].affine, LPS_AFFINE)


def test_a_sform_and_a_qform_that_disagree_are_in_doubt(tmp_path):
    """The qform says the same axes (a half turn about z), 3 and 4 mm beside the sform."""
    path = patched(
        *(tmp_path / "two.nii", np.ones((24, 20, 12), np.int16)),
        codes=(1, 1),
        quaternion=(0, 0, 1, 3, 4, 0),
    )
    geometry = read_volume(path)[1]
    assert "place the same voxel up to 5 mm apart: its sform counts" in geometry.doubt
    np.testing.assert_array_equal(geometry.affine, LPS_AFFINE)
    near = patched(tmp_path / "near.nii", codes=(1, 1), quaternion=(0, 0, 1, 0.06, 0, 0))
    assert read_volume(near)[1].doubt is None


def test_a_qform_that_no_rotation_has_is_in_doubt(tmp_path):
    path = patched(tmp_path / "odd.nii", codes=(1, 1), quaternion=(1, 1, 1, 0, 0, 0))
    assert "has a qform that can't be read" in read_volume(path)[1].doubt


def test_a_rounded_quaternion_is_not_in_doubt(tmp_path):
    """Near a half turn, float32 leaves the angle open to 7e-4: 0.2 mm in a head."""
    turn = nib.eulerangles.euler2mat(z=np.pi - 2e-4)
    affine = nib.affines.from_matvec(turn, (3, 4, 5))
    path = tmp_path / "turned.nii.gz"
    write_volume(path, np.ones((155, 240, 240), np.float32), Geometry((240, 240, 155), affine))
    assert read_volume(path)[1].doubt is None


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ((np.nan, 0), "scl_slope of nan and a scl_inter of 0"),
        ((np.inf, 0), "scl_slope of inf"),
        ((-np.inf, 3), "scl_slope of -inf and a scl_inter of 3"),
        ((2, np.nan), "scl_slope of 2 and a scl_inter of nan"),
        ((2, np.inf), "scl_inter of inf"),
    ],
)
def test_scale_factors_that_are_not_finite(tmp_path, scale, said):
    path = patched(tmp_path / "scaled.nii", VOLUME.astype(np.int16), scale=scale)
    with pytest.raises(UserError, match=said):
        read_volume(path)


@pytest.mark.parametrize("intercept", [7, np.nan])
def test_a_slope_of_0_is_no_scaling(tmp_path, intercept):
    path = patched(tmp_path / "scaled.nii", VOLUME.astype(np.int16), scale=(0, intercept))
    np.testing.assert_array_equal(read_volume(path)[0], VOLUME)


@pytest.mark.parametrize(
    "pixdim", [(1, 0, 1, 1), (1, 1, -1, 1), (1, 1, 1, np.nan), (1, np.inf, 1, 1), (5, 1, 1, 1)]
)
def test_voxel_sizes_count_where_the_qform_does(tmp_path, pixdim):
    alone = patched(tmp_path / "qform.nii", codes=(1, 0), pixdim=pixdim)
    with pytest.raises(
        UserError, match=r"qform\.nii has a pixdim of .*: the first must be 1 or -1"
    ):
        read_volume(alone)
    beside = patched(tmp_path / "sform.nii", codes=(0, 1), pixdim=pixdim)
    np.testing.assert_array_equal(read_volume(beside)[1].affine, LPS_AFFINE)


# --- what is no file


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "t1.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to("t1.nii.gz")
    for name in ("t1.nii.gz", "link.nii.gz"):
        with pytest.raises(UserError, match=rf"{name} can't be read: .*FIFO"):
            read_volume(tmp_path / name)
    with pytest.raises(UserError, match=r"null can't be read: .*device"):
        read_volume(tmp_path / "/dev/null")
