"""Imputation: on the source's grid whatever its orientation, in its intensities, from Python."""

import gzip
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, SEQUENCES, blob
from scipy import ndimage
from test_real_scans import SCANS
from test_real_scans import SEQUENCES as SCAN_NAMES

import tsf_seq2seq
from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import Model, open_model, save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.nifti import Geometry, compressed
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.data.subjects import find_files
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation import impute_targets
from tsf_seq2seq.imputation import slices as synthesis
from tsf_seq2seq.imputation.field_of_view import FieldOfView, field_of_view, resize, scaled_plane
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.output import sidecar
from tsf_seq2seq.imputation.sources import unstripped
from tsf_seq2seq.models import TSFSeq2Seq, build_network

SHAPE = (24, 20, 12)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, 0.1, -0.15) @ np.diag([-0.9, -1.05, 1.3]), (10, -20, 30)
)
ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.fixture
def model(tiny_config: Path, tmp_path: Path) -> Model:
    """A tiny stage 2 network, from its file."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    return open_model(tmp_path / "tsf.pth")


@pytest.fixture
def stage_1(tiny_stage1: Path, tmp_path: Path) -> Model:
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "seq2seq.pth", build_network(config), config)
    return open_model(tmp_path / "seq2seq.pth")


@pytest.fixture
def identity(monkeypatch) -> None:
    """The network gives back its input: each stack's first source, with and without f_A."""

    def synthesize(_, images, tasks, variants):
        return (
            (variant, task, images[:, task.sources[0]]) for task in tasks for variant in variants
        )

    monkeypatch.setattr(TSFSeq2Seq, "synthesize", synthesize)


def with_statistics(model: Model, maxima: dict[str, float], spacing=(1.0, 1.0)) -> Model:
    statistics = TrainingStatistics(maxima, spacing)
    return replace(model, statistics=statistics)


def image(voxels: np.ndarray, affine: np.ndarray = LPS_AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(voxels, affine)


def blobs(*names: str, affine: np.ndarray = LPS_AFFINE) -> dict[str, nib.Nifti1Image]:
    return {name: image(blob(SEQUENCES.index(name)), affine) for name in names}


def turned(source: nib.Nifti1Image, order, flips) -> nib.Nifti1Image:
    """The same image in world space, its voxel axes permuted, then flipped."""
    ornt = np.array([(order.index(axis), 1) for axis in range(3)], float)
    ornt[:, 1] = [-1 if flips[order.index(axis)] else 1 for axis in range(3)]
    return source.as_reoriented(ornt)


# --- geometry


def test_every_orientation_gives_the_same_image_in_world_space(model):
    """All 48, of an oblique grid; each result turned back equals the first, bit for bit."""
    given = blobs("t1", "t2", affine=OBLIQUE)
    wanted = impute(given, model, "flair")
    assert np.abs(wanted.image.get_fdata()).max() > 1
    codes = set()
    for order, flips in ORIENTATIONS:
        sources = {name: turned(source, order, flips) for name, source in given.items()}
        found = impute(sources, model, "flair")
        codes.add(nib.aff2axcodes(found.image.affine))
        assert found.image.shape == sources["t1"].shape
        np.testing.assert_array_equal(found.image.affine, sources["t1"].affine)
        for one, other in ((found.image, wanted.image), (found.tsem, wanted.tsem)):
            back = turned_back(one, order, flips)
            np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-12)
            np.testing.assert_array_equal(back.get_fdata(), other.get_fdata())
    assert len(codes) == 48


def turned_back(found: nib.Nifti1Image, order, flips) -> nib.Nifti1Image:
    voxels, affine = np.asanyarray(found.dataobj), found.affine
    for axis, flip in enumerate(flips):
        if flip:
            voxels, affine = np.flip(voxels, axis), affine.copy()
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
    inverse = np.argsort(order)
    return image(voxels.transpose(inverse), affine[:, [*inverse, 3]])


def test_sources_may_lie_in_different_voxel_orders(model):
    given = blobs("t1", "t2", affine=OBLIQUE)
    wanted = impute(given, model, "flair")
    given["t2"] = turned(given["t2"], (2, 0, 1), (True, False, True))
    found = impute(given, model, "flair")
    np.testing.assert_array_equal(found.image.get_fdata(), wanted.image.get_fdata())


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (4, 3), (0, 0)])
def test_header_is_the_sources(model, tmp_path, qform, sform):
    source = image(blob(0), OBLIQUE)
    source.set_qform(OBLIQUE if qform else None, qform)
    source.set_sform(OBLIQUE if sform else None, sform)
    source.header["descrip"] = b"name of a patient"
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a patient"))
    nib.save(source, tmp_path / "t1.nii.gz")
    source = nib.load(tmp_path / "t1.nii.gz")
    found = nib.Nifti1Image.from_bytes(
        impute({"t1": tmp_path / "t1.nii.gz"}, model, "t2").image.to_bytes()
    )
    assert found.get_data_dtype() == np.float32
    for key in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(found.header[key], source.header[key], key)
    assert found.header["xyzt_units"] == source.header["xyzt_units"]
    np.testing.assert_array_equal(found.affine, source.affine)
    assert found.header["descrip"].item() == b"t2, synthetic image, research use"
    (words,) = found.header.extensions  # ours, and nothing of the source's
    assert words.get_code() == 6
    assert json.loads(words.get_content()) == {
        "Description": "synthetic image, research use",
        "Content": "t2",
        "Software": "TSF-Seq2Seq",
        "SoftwareVersion": tsf_seq2seq.__version__,
    }


def test_nifti_2_and_trailing_dimensions_stay(model):
    source = nib.Nifti2Image(blob(0)[..., None], OBLIQUE)
    found = impute({"t1": source}, model, "t2").image
    assert type(found) is nib.Nifti2Image
    assert found.shape == (*SHAPE, 1)


def same_grid(found: nib.Nifti1Image, source: nib.Nifti1Image) -> None:
    assert found.shape == source.shape
    np.testing.assert_array_equal(found.affine, source.affine)
    for key in ("qform_code", "sform_code", "pixdim", "srow_x", "quatern_c", "xyzt_units"):
        np.testing.assert_array_equal(found.header[key], source.header[key], key)
    assert np.isfinite(found.get_fdata()).all()


@pytest.mark.skipif(not SCANS.is_dir(), reason="real scans are not part of the repository")
@pytest.mark.parametrize(
    "name",
    [
        *("brats/BraTS-GLI-00000-000", "brats/BraTS-GLI-00001-000", "tcga/TCGA-DU-7294"),
        *("metastasis/AURORA_example", "ms/patient07", "ms/patient19", "ms/patient26"),
    ],
)
def test_real_scans_keep_their_grid(model, name):
    """Every sequence from the other three: on a slab of six slices; one on the whole volume."""
    files = find_files(SCANS, name, SCAN_NAMES)
    scans = {SEQUENCES[i]: nib.load(files[i]) for i in range(4)}
    slabs = {key: scan.slicer[:, :, 70:76] for key, scan in scans.items()}
    for target in SEQUENCES:
        found = impute({k: v for k, v in slabs.items() if k != target}, model, target)
        same_grid(found.image, slabs["t1ce" if target == "t1" else "t1"])
        assert found.tsem is not None
        same_grid(found.tsem, found.image)
        assert found.warnings == ()
    if name.endswith(("00000-000", "example", "26")):  # LPS, RAS, LAS
        found = impute({"t1": files[0]}, model, "flair")
        same_grid(found.image, scans["t1"])
        inside = scans["t1"].get_fdata() > 0
        assert (found.image.get_fdata()[~inside] == 0).all()
        assert found.warnings == ()


# --- intensities


def test_a_network_that_gives_its_input_gives_the_image_back(model, identity):
    """Inside the clip 0 … m: every slice, those at the ends too."""
    voxels = blob(0).astype(np.float32) - 20  # a little below 0, a little above m
    voxels[:, :, 0] = voxels[:, :, -1] = voxels[:, :, 5]
    voxels[12, 10, 6] = 5000
    maximum = 2 * np.percentile(voxels, 99)
    assert maximum < 5000
    for affine in (LPS_AFFINE, OBLIQUE, np.eye(4)):
        found = impute({"t1": image(voxels, affine)}, model, "t2")
        np.testing.assert_allclose(
            found.image.get_fdata(), voxels.clip(0, maximum), atol=1e-6 * maximum
        )
        assert found.intensity_maximum == pytest.approx(maximum)
        assert found.tsem.get_fdata().max() == 0
        assert found.mean_tsem == 0


def test_training_statistics_give_the_scale(model, identity):
    source = image(blob(0))
    own = 2 * np.percentile(blob(0), 99)
    found = impute({"t1": source}, with_statistics(model, {"t2": 3 * own}), "t2")
    assert found.intensity_maximum == 3 * own
    assert found.intensity_scale == "median of t2 in the training data"
    np.testing.assert_allclose(found.image.get_fdata(), 3 * blob(0), rtol=1e-5, atol=1e-3)


def test_without_statistics_the_sources_give_the_scale(model):
    given = blobs("t1", "t1ce", "flair")
    own = [2 * np.percentile(blob(i), 99) for i in (0, 1, 3)]
    for one in (model, with_statistics(model, {"t1": 5.0})):
        found = impute(given, one, "t2")
        assert found.intensity_maximum == pytest.approx(sorted(own)[1])
        assert "the checkpoint has no statistics of t2" in found.intensity_scale


def test_background_is_zero(model):
    """Outside every source; a voxel that one source has is brain."""
    first, second = blob(0), blob(1)
    first[:12], second[:, :10] = 0, 0
    found = impute({"t1": image(first), "t2": image(second)}, model, "flair")
    outside = (first <= 0) & (second <= 0)
    assert outside.any()
    for part in (found.image, found.tsem):
        assert (part.get_fdata()[outside] == 0).all()
        assert (part.get_fdata()[~outside] > 0).mean() > 0.9


def test_what_the_network_sees(model, monkeypatch):
    """TSEM, image and weights are the network's own for the window of training size."""
    seen = []
    real = synthesis.synthesize_slices

    def record(network, window, *arguments):
        seen.append(window)
        return real(network, window, *arguments)

    monkeypatch.setattr(synthesis, "synthesize_slices", record)
    voxels = np.zeros((40, 30, 12), np.int16)
    voxels[20:30, 3:21, 2:9] = 100  # LPS: x 20 … 29 of 40, y 3 … 20 of 30, z 2 … 8
    voxels[20:30, 3:21, 2:9] += np.arange(7, dtype=np.int16)
    given = {"t1": image(voxels), "flair": image(voxels)}
    found = impute(given, model, "t2")
    (window,) = seen
    # x: 16 (the crop) about 25, from 17; y: 18 about 12, from 3; z: 7 slices, the neighbours
    assert window.shape == (4, 9, 18, 16)
    maximum = 2 * np.percentile(voxels, 99)
    wanted = voxels.transpose(2, 1, 0)[1:10, 3:21, 17:33] / maximum * 2 - 1
    np.testing.assert_allclose(window[0], wanted, atol=1e-6)
    assert (window[1:3] == -1).all()
    stack = torch.from_numpy(window[None, :, 3:6].copy())
    available = [True, False, False, True]
    with torch.inference_mode():
        output = model.network(stack, available, 2)[0, 1].numpy()
        tsem = model.network.enhanced_map(stack, available, 2)[0].numpy()
        weights = model.network.fusion_weights(available, 2)
    place = (slice(20, 30), slice(3, 21), 5)  # z of the stack's centre: 1 + 4
    got = found.image.get_fdata()[place].T
    np.testing.assert_allclose(got, (output[:, 3:13] + 1) / 2 * maximum, rtol=1e-4)
    np.testing.assert_allclose(found.tsem.get_fdata()[place].T, tsem[:, 3:13], atol=1e-6)
    assert found.fusion_weights == {"t1": weights[0], "flair": weights[3]}
    inside = found.tsem.get_fdata()[voxels > 0]
    assert found.mean_tsem == pytest.approx(inside.mean(), rel=1e-4)


def test_end_slices_are_repeated(model, monkeypatch):
    seen = []

    def record(network, window, tasks, *_):
        seen.append(window)
        return {task: synthesis.Slices(window[0, 1:-1], None) for task in tasks}

    monkeypatch.setattr(synthesis, "synthesize_slices", record)
    impute({"t1": image(np.maximum(blob(0), 1))}, model, "t2")
    assert seen[0].shape[1] == 14
    for end in (0, -1):
        np.testing.assert_array_equal(seen[0][0, end], seen[0][0, 1 if end == 0 else -2])


def test_mixed_precision_is_near(model):
    given = blobs("t1", "t2")
    exact, mixed = (
        impute(given, model, "flair", precision=name).image.get_fdata() for name in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - mixed).max() < 0.1 * exact.max()
    with pytest.raises(UserError, match="fp32 or bf16, not fp8"):
        impute(given, model, "flair", precision="fp8")


def test_targets_share_the_encodings(model, monkeypatch):
    given, calls = blobs("t1", "t2"), []
    apart = {target: impute(given, model, target) for target in ("t1ce", "flair")}
    real = type(model.network.seq2seq).encode
    monkeypatch.setattr(
        type(model.network.seq2seq), "encode", lambda *a: calls.append(1) or real(*a)
    )
    together = impute_targets(given, model, ["t1ce", "flair"], ImputeOptions(batch_size=12))
    assert len(calls) == 2  # one batch of each source
    for target, found in together.items():
        one, other = (x.image.get_fdata() for x in (found, apart[target]))
        np.testing.assert_allclose(one, other, atol=1e-4 * other.max())


# --- voxel size


def test_other_voxel_sizes_are_resampled_and_said(model, identity):
    """A smooth image of 2 mm, brought to 1 mm and back, is nearly itself."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 20, 24)), indexing="ij")
    voxels = (1000 * np.clip(1 - x**2 - y**2 - 0.5 * z**2, 0, None)).T
    affine = np.diag([-2.0, -2.0, 1.0, 1.0])
    found = impute({"t1": image(voxels, affine)}, with_statistics(model, {}), "t2")
    assert found.resampling == (
        "axial slices from 2 × 2 mm to the training data's 1 × 1 mm and back",
    )
    assert found.image.shape == (24, 20, 12)
    difference = np.abs(found.image.get_fdata() - voxels)
    assert difference.max() < 30
    assert difference.mean() < 3
    found = impute({"t1": image(voxels, np.diag([-1.08, -0.92, 3, 1]))}, model, "t2")
    assert found.resampling == ()


def test_scaled_plane():
    assert scaled_plane((20, 30), (1.0, 1.1), (1, 1)) == (20, 30)
    assert scaled_plane((20, 30), (1.0, 1.2), (1, 1)) == (20, 36)
    assert scaled_plane((20, 30), (0.5, 0.5), (1, 1)) == (10, 15)
    with pytest.raises(UserError, match=r"9 × 1 mm .* training data's 1 × 1 mm by more than"):
        scaled_plane((20, 30), (9, 1), (1, 1))


def test_resize_keeps_constants_range_and_place():
    """Pixel edges stay where they are: a step in the middle stays in the middle."""
    np.testing.assert_allclose(resize(np.full((2, 6, 8), 0.5, np.float32), (9, 4)), 0.5, atol=1e-6)
    step = np.repeat(np.array([-1.0, 1.0], np.float32), 8)[None, None].repeat(4, axis=1)
    wide = resize(step, (4, 32))
    np.testing.assert_allclose(wide, -wide[..., ::-1], atol=1e-5)
    assert wide.min() == -1
    assert wide.max() == 1


def test_window_is_centred_and_large_enough():
    view = field_of_view([(3, 21), (20, 30)], (30, 40), (30, 40), (16, 16), 4)
    assert view == FieldOfView((30, 40), (30, 40), (2, 17), (20, 16))
    doubled = field_of_view([(3, 21), (20, 30)], (30, 40), (60, 80), (16, 16), 4)
    assert (doubled.start, doubled.size) == ((6, 40), (36, 20))


def test_vast_windows_are_refused():
    with pytest.raises(UserError, match="window of 16 × 1028 pixels"):
        field_of_view([(0, 4), (0, 1025)], (4, 2000), (4, 2000), (16, 16), 4)


def test_window_may_leave_the_grid():
    view = FieldOfView((4, 4), (4, 4), (-2, 3), (8, 4))
    slices = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16
    window = view.to_network(slices)
    np.testing.assert_array_equal(window[0, 2:6, 0], slices[0, :, 3])
    assert (window[0, :2] == -1).all()
    assert (window[0, :, 1:] == -1).all()
    back = view.to_grid(window, 0)
    np.testing.assert_array_equal(back[..., 3], slices[..., 3])
    assert (back[..., :3] == 0).all()


# --- other grids


def test_other_grids_are_refused_with_both_or_resampled(model):
    given = blobs("t1", "t2")
    shifted = LPS_AFFINE.copy()
    shifted[2, 3] = 2.0
    given["t2"] = image(blob(2), shifted)
    with pytest.raises(UserError) as raised:
        impute(given, model, "flair")
    message = str(raised.value)
    assert "the t1 image: 24 × 20 × 12 voxels of 1 × 1 × 1 mm from (0, 0, 0)" in message
    assert "the t2 image: 24 × 20 × 12 voxels of 1 × 1 × 1 mm from (0, 0, 2)" in message
    found = impute(given, model, "flair", resample=True)
    assert found.resampling == ("t2 to the grid of t1",)
    moved = np.zeros_like(blob(2))
    moved[:, :, 2:] = blob(2)[:, :, :-2]  # 2 mm are two slices
    wanted = impute({"t1": given["t1"], "t2": image(moved)}, model, "flair")
    np.testing.assert_allclose(found.image.get_fdata(), wanted.image.get_fdata(), atol=0.1)


def test_first_source_gives_the_grid(model):
    small = image(blob(2, (20, 16, 10)), np.diag([-1.2, -1.2, 1.2, 1]))
    given = blobs("t1") | {"t2": small}
    found = impute(given, model, "flair", ["t2", "t1"], resample=True)
    assert list(found.sources) == ["t2", "t1"]
    same_grid(found.image, small)


# --- skull


def head(brain: np.ndarray, air: float) -> np.ndarray:
    """A brain of 2 mm voxels with 14 mm of dark skull, 10 mm of scalp, and noise of size `air`."""
    distance = ndimage.distance_transform_edt(brain <= 0)
    noise = np.abs(np.random.default_rng(0).normal(0, air, brain.shape))
    around = np.where(distance <= 7, 0.02, 0.9) * np.percentile(brain[brain > 0], 90)
    return np.where(brain > 0, brain, np.where(distance <= 12, around, noise))


def ellipsoid(radii: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(n) - n / 2 for n in shape], indexing="ij")
    return sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True)) < 1


def test_skull_test_by_hand():
    """Litres: 4/3 π 0.7 · 0.85 · 0.6 = 1.50 litres of brain; with 10 mm more of each, 2.0."""
    geometry = Geometry((200, 200, 160), LPS_AFFINE)
    brain = ellipsoid((70, 85, 60), (200, 200, 160)).T
    assert unstripped(brain, geometry) is None
    assert "2.6 litres are above 0" in unstripped(
        ellipsoid((85, 98, 75), (200, 200, 160)).T, geometry
    )
    full = np.ones((10, 100, 100), bool)
    assert "fills 100% of its bounding box" in unstripped(full, geometry)
    assert unstripped(full, Geometry((100, 100, 10), np.diag([10, 10, 10, 1.0]))).startswith("100")


@pytest.mark.skipif(not SCANS.is_dir(), reason="real scans are not part of the repository")
@pytest.mark.parametrize("air", [0, 5])
@pytest.mark.parametrize("name", ["brats/BraTS-GLI-00000-000", "ms/patient26"])
def test_heads_are_recognised(name, air):
    scan = nib.load(find_files(SCANS, name, SCAN_NAMES)[0]).slicer[::2, ::2, ::2]
    geometry = Geometry(scan.shape, scan.affine)
    voxels = scan.get_fdata()
    assert unstripped(geometry.to_network(voxels) > 0, geometry) is None
    found = unstripped(geometry.to_network(head(voxels, air)) > 0, geometry)
    assert found is not None
    assert "litres" in found


def test_doubts_are_told(model):
    noise = np.random.default_rng(0).integers(1, 50, SHAPE).astype(np.int16)
    found = impute({"t1": image(blob(0) + noise), "t2": image(blob(1))}, model, "flair")
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("t1 (the t1 image) looks as if it was not skull-stripped")
    assert not found.skull_stripped
    assert sidecar(found)["SkullStripped"] is False
    assert sidecar(found)["Warnings"] == list(found.warnings)


# --- models and mistakes


def test_stage_1_takes_one_source(stage_1):
    given = blobs("t1", "t2")
    found = impute(given, stage_1, "flair")
    assert list(found.sources) == ["t1"]
    assert found.warnings == ("a seq2seq checkpoint takes one source: t1 was used, of t1, t2",)
    assert found.skull_stripped
    assert (found.tsem, found.fusion_weights, found.mean_tsem) == (None, None, None)
    chosen = impute(given, stage_1, "flair", ["t2"])
    assert chosen.warnings == ()
    assert np.abs(chosen.image.get_fdata() - found.image.get_fdata()).max() > 1
    with pytest.raises(UserError, match=r"takes one source, not 2 \(t1, t2\)"):
        impute(given, stage_1, "flair", ["t1", "t2"])


def test_target_among_the_images_is_not_read(model):
    given = blobs("t1", "t2", "flair")
    found = impute(given, model, "flair")
    assert list(found.sources) == ["t1", "t2"]
    del given["flair"]
    wanted = impute(given, model, "flair")
    np.testing.assert_array_equal(found.image.get_fdata(), wanted.image.get_fdata())


@pytest.mark.parametrize(
    ("given", "target", "sources", "message"),
    [
        (("t1",), "pd", None, r"target pd is unknown to .*tsf\.pth, which knows t1, t1ce, t2, fl"),
        (("t1",), "t2", ["pd"], "source pd is unknown"),
        (("t1",), "t2", ["flair"], "source flair has no image; there are t1"),
        (("t2",), "t2", None, "there is no source to make t2 from"),
        ((), "t2", None, "there is no source to make t2 from"),
    ],
)
def test_unusable_requests(model, given, target, sources, message):
    with pytest.raises(UserError, match=message):
        impute(blobs(*given), model, target, sources)


def test_other_things_than_images(model):
    with pytest.raises(UserError, match="t1 must be a file or a nibabel image, not ndarray"):
        impute({"t1": blob(0)}, model, "t2")
    with pytest.raises(UserError, match="the t1 image has no affine"):
        impute({"t1": nib.Nifti1Image(blob(0), None)}, model, "t2")
    other = nib.MGHImage(blob(0).astype(np.float32), LPS_AFFINE)
    wanted = impute(blobs("t1"), model, "t2").image.get_fdata()
    np.testing.assert_array_equal(impute({"t1": other}, model, "t2").image.get_fdata(), wanted)


def test_unusable_weights_are_told(model):
    with torch.no_grad():
        next(model.network.seq2seq.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="not finite: its weights are unusable"):
        impute(blobs("t1"), model, "t2")


def test_import_is_light():
    """`import tsf_seq2seq` brings neither PyTorch nor NumPy."""
    code = "import sys, tsf_seq2seq; assert not {'torch', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ImportError):
        from tsf_seq2seq import imputed  # noqa: F401


# --- damaged files


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, the end cut off, or fields of the header (348 bytes) drawn at random."""
    kind, changed = rng.integers(4), bytearray(content)
    if kind == 0:
        for place in rng.integers(0, len(content), rng.integers(1, 9)):
            changed[place] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del changed[int(rng.integers(0, len(content))) :]
    else:
        for _ in range(rng.integers(1, 4)):
            start, size = int(rng.integers(0, 340)), int(rng.choice([1, 2, 4, 8]))
            changed[start : start + size] = rng.bytes(size)
    return bytes(changed)


def test_500_damaged_inputs(model, tmp_path):
    """Each gives an image of the size that its header tells, or a sentence; never anything else."""
    rng = np.random.default_rng(0)
    path, shape = tmp_path / "t1.nii.gz", (9, 8, 5)
    model = with_statistics(model, {})
    outcomes = {"image": 0, "sentence": 0}
    for number in range(500):
        source = image(blob(number, shape), OBLIQUE)
        if number % 2:
            source.set_sform(None, 0)
        if number % 3:  # as a damaged file would have been packed: the checksum is right
            path.write_bytes(compressed_bytes(damage(source.to_bytes(), rng)))
        else:
            path.write_bytes(damage(compressed(source), rng))
        try:
            found = impute({"t1": path}, model, "t2")
        except UserError:
            outcomes["sentence"] += 1
            continue
        outcomes["image"] += 1
        stored = nib.load(path)
        assert found.image.shape == stored.shape
        np.testing.assert_array_equal(found.image.affine, stored.affine)
        voxels = nib.Nifti1Image.from_bytes(found.image.to_bytes()).get_fdata()
        assert voxels.shape == stored.shape
        assert np.isfinite(voxels).all()
    assert min(outcomes.values()) > 100, outcomes


def compressed_bytes(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1)
