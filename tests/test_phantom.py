"""The phantom data set: its signal equations, its contrasts and its files."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tsf_seq2seq.cli.phantom import make_phantom_dataset
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.phantom.anatomy import Anatomy, simulate_anatomy
from tsf_seq2seq.phantom.equations import (
    double_inversion_recovery,
    double_nulling_times,
    gradient_echo,
    inversion_recovery,
    nulling_time,
    rician,
    shortened_t1,
    shortened_t2,
    spin_echo,
)
from tsf_seq2seq.phantom.fields import make_grid, random_field
from tsf_seq2seq.phantom.subject import (
    PhantomSubject,
    brats_affine,
    simulate_subject,
    write_phantom_dataset,
)

ROOT = Path(__file__).parents[1]
SEQUENCES = ("t1", "t1ce", "t2", "flair")
ALL_EIGHT = (*SEQUENCES, "pd", "t1ir", "dir", "t2star")
SEED = 0
GRID = make_grid((120, 120, 78), 2.0)


@pytest.fixture(scope="module")
def subject() -> PhantomSubject:
    return simulate_subject(SEED, 0, spacing=2)


@pytest.fixture(scope="module")
def eight() -> PhantomSubject:
    """The same subject with every sequence that there is."""
    return simulate_subject(SEED, 0, spacing=2, sequences=ALL_EIGHT)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """The same subject's tissue fractions: its anatomy is drawn first from its generator."""
    return simulate_anatomy(np.random.default_rng([SEED, 0]), GRID)


@pytest.fixture(scope="module")
def medians(eight: PhantomSubject, anatomy: Anatomy) -> dict[str, dict[str, float]]:
    """Median grey level of each sequence in voxels that hold (nearly) one tissue only."""
    return {
        sequence: {
            tissue: float(np.median(volume[GRID.crop][anatomy.mask][fraction > 0.9]))
            for tissue, fraction in anatomy.fractions.items()
        }
        for sequence, volume in eight.volumes.items()
    }


def test_spin_echo_by_hand() -> None:
    # TR = T1·ln 2 leaves a half, TE = T2·ln 4 a quarter: 0.8 / 8.
    signal = spin_echo(0.8, 1000.0, 80.0, tr=1000 * math.log(2), te=80 * math.log(4))
    assert signal == pytest.approx(0.1)


def test_inversion_recovery_by_hand() -> None:
    # TI = T1·ln 4 and TR = T1·ln 10: 1 − 2/4 + 1/10 = 0.6; TE = T2·ln 2 halves it.
    tr, ti, te = 1000 * math.log(10), 1000 * math.log(4), 100 * math.log(2)
    assert inversion_recovery(1.0, 1000.0, 100.0, tr, te, ti) == pytest.approx(0.3)


def test_inversion_recovery_is_negative_before_the_null() -> None:
    # TI = 0 and TR → ∞: −1.
    assert inversion_recovery(1.0, 1000.0, 1e12, tr=1e9, te=0.0, ti=0.0) == pytest.approx(-1)


def test_nulling_time_nulls() -> None:
    assert nulling_time(1000.0, 1e9) == pytest.approx(1000 * math.log(2))
    null = nulling_time(4300.0, 9000.0)
    assert inversion_recovery(1.0, 4300.0, 1800.0, 9000.0, 100.0, null) == pytest.approx(0)


def test_gadolinium_shortens_t1_by_hand() -> None:
    # 1/1000 + 0.004·0.75 = 4/1000.
    assert shortened_t1(1000.0, 0.75, relaxivity=0.004) == pytest.approx(250)
    assert shortened_t1(1000.0, 0.0, relaxivity=0.004) == pytest.approx(1000)


def test_double_inversion_by_hand() -> None:
    # exp(−TI₂/T1) = 1/2, exp(−(TI₁ + TI₂)/T1) = 1/8, exp(−TR/T1) = 1/16, TE = T2·ln 4:
    # 1 − 1 + 1/4 − 1/16 = 3/16, a quarter of it.
    ln2 = 1000 * math.log(2)
    signal = double_inversion_recovery(1.0, 1000.0, 50.0, 4 * ln2, 50 * math.log(4), 2 * ln2, ln2)
    assert signal == pytest.approx(3 / 64)


def test_double_nulling_times_null_both() -> None:
    ti, second_ti = double_nulling_times(832.0, 4300.0, 9000.0)
    assert 0 < second_ti < ti < 9000 - second_ti
    for t1 in (832.0, 4300.0):
        signal = double_inversion_recovery(1.0, t1, 1e12, 9000.0, 0.0, ti, second_ti)
        assert signal == pytest.approx(0, abs=1e-9)


def test_gradient_echo_by_hand() -> None:
    # E = 1/2: sin 90° · (1 − 1/2) / (1 − 0); sin 60° · (1/2) / (1 − 1/4); TE = T2*·ln 2 halves.
    times = (1000.0, 40.0, 1000 * math.log(2), 40 * math.log(2))
    assert gradient_echo(1.0, *times, 90.0) == pytest.approx(1 / 4)
    assert gradient_echo(1.0, *times, 60.0) == pytest.approx(math.sqrt(3) / 2 / 3)


def test_an_uneven_field_shortens_t2_by_hand() -> None:
    # 1/100 + 0.015 = 1/40.
    assert shortened_t2(100.0, 0.015) == pytest.approx(40)


def test_rician_noise_by_hand() -> None:
    signal, real, imaginary = (np.array([v], np.float32) for v in (10.0, 2.0, 5.0))
    assert rician(signal, real, imaginary)[0] == pytest.approx(13)


def test_random_field_is_standard_and_independent_of_the_spacing() -> None:
    fine = random_field(np.random.default_rng(5), make_grid((240, 240, 155), 1.0), 8.0)
    coarse = random_field(np.random.default_rng(5), GRID, 8.0)
    assert coarse.mean() == pytest.approx(0, abs=0.1)
    assert coarse.std() == pytest.approx(1, abs=0.1)
    # A 2 mm voxel's centre is the corner that eight 1 mm voxels share.
    pairs = fine[:, :, :154].reshape(80, 2, 100, 2, 77, 2).mean(axis=(1, 3, 5))
    assert np.abs(pairs - coarse[:, :, :77]).max() < 0.2


def test_fractions_sum_to_one(anatomy: Anatomy) -> None:
    total = sum(anatomy.fractions.values())
    assert np.allclose(total, 1, atol=1e-5)
    assert min(f.min() for f in anatomy.fractions.values()) > -1e-6


def test_normal_tissue_is_ordered_as_a_radiologist_expects(
    medians: dict[str, dict[str, float]],
) -> None:
    t1, t2, flair = medians["t1"], medians["t2"], medians["flair"]
    assert t1["csf"] < t1["gm"] < t1["wm"]
    assert t2["wm"] < t2["gm"] < t2["csf"]
    assert flair["csf"] < 0.5 * flair["wm"]
    assert flair["wm"] < flair["gm"]


def test_further_sequences_are_ordered_as_a_radiologist_expects(
    medians: dict[str, dict[str, float]],
) -> None:
    pd, t1ir, dir_, t2star = (medians[name] for name in ("pd", "t1ir", "dir", "t2star"))
    assert pd["wm"] < pd["gm"]
    assert pd["gm"] / pd["wm"] < medians["t2"]["gm"] / medians["t2"]["wm"]
    assert t1ir["csf"] < 0.5 * t1ir["gm"]
    assert t1ir["wm"] / t1ir["gm"] > medians["t1"]["wm"] / medians["t1"]["gm"]
    assert max(dir_["wm"], dir_["csf"]) < 0.5 * dir_["gm"]
    assert dir_["oedema"] > 2 * dir_["wm"]
    assert t2star["wm"] < t2star["gm"]
    assert t2star["vessel"] < t2star["gm"]


def test_tumour_is_ordered_as_a_radiologist_expects(medians: dict[str, dict[str, float]]) -> None:
    for sequence in ("t2", "flair"):
        assert medians[sequence]["oedema"] > 1.2 * medians[sequence]["wm"]
    assert medians["t1"]["rim"] < medians["t1"]["wm"]
    assert medians["t1ce"]["rim"] > 1.2 * medians["t1ce"]["wm"]
    assert medians["t1ce"]["rim"] > 1.2 * medians["t1ce"]["necrosis"]
    assert medians["t1"]["necrosis"] < medians["t1"]["wm"]


def test_labels_agree_with_the_images(subject: PhantomSubject) -> None:
    assert set(np.unique(subject.segmentation)) == {0, 1, 2, 4}
    label, t1ce = subject.segmentation, subject.volumes["t1ce"]
    healthy = (label == 0) & (t1ce > 0)
    assert np.median(t1ce[label == 4]) > 1.2 * np.median(t1ce[healthy])
    flair = subject.volumes["flair"]
    assert np.median(flair[label == 2]) > 1.2 * np.median(flair[healthy])


def test_left_and_right_differ(subject: PhantomSubject) -> None:
    brain = subject.volumes["t1"] > 0
    mirrored = brain[::-1]  # the brain's centre lies in the middle of the first axis
    overlap = 2 * (brain & mirrored).sum() / (2 * brain.sum())
    assert 0.85 < overlap < 0.99
    both = brain & mirrored
    clean = subject.noise_free["t1"].astype(float)
    assert np.corrcoef(clean[both], clean[::-1][both])[0, 1] < 0.9


def test_geometry_and_types(subject: PhantomSubject) -> None:
    for volume in (*subject.volumes.values(), *subject.noise_free.values(), subject.segmentation):
        assert volume.shape == (120, 120, 78)
        assert volume.dtype == np.int16
    assert tuple(subject.volumes) == SEQUENCES
    assert nib.aff2axcodes(subject.affine) == ("L", "P", "S")
    # BraTS 2021 at 1 mm; at 2 mm the first voxel's centre is between its eight 1 mm voxels'.
    assert np.array_equal(brats_affine(1)[:3, 3], [0, 239, 0])
    assert np.array_equal(brats_affine(2) @ [0, 0, 0, 1], brats_affine(1) @ [0.5, 0.5, 0.5, 1])


def test_brain_lies_where_brats_has_it(subject: PhantomSubject) -> None:
    where = np.argwhere(subject.volumes["t1"] > 0)
    low, high = where.min(axis=0) * 2, where.max(axis=0) * 2 + 1
    assert np.all(high - low > [115, 150, 120])
    assert np.all(high - low < [160, 192, 156])
    inside = (subject.volumes["t1"] > 0)[12:108, 12:108, 7:71]
    assert inside.sum() > 0.95 * len(where)


def test_background_is_zero_and_brain_is_not(subject: PhantomSubject) -> None:
    brain = subject.volumes["t1"] > 0
    assert ndimage.label(brain)[1] == 1
    for volume in (*subject.volumes.values(), *subject.noise_free.values()):
        assert np.array_equal(volume > 0, brain)
        assert volume.min() == 0
    assert not subject.segmentation[~brain].any()


def test_noise_is_all_that_the_noise_free_volumes_lack(subject: PhantomSubject) -> None:
    for name, noisy in subject.volumes.items():
        clean = subject.noise_free[name].astype(float)
        bright = clean > np.median(clean[clean > 0])
        noise = (noisy - clean)[bright] / np.median(clean[clean > 0])
        assert abs(noise.mean()) < 0.005
        assert 0.01 < noise.std() < 0.06


def test_a_sequence_is_the_same_whatever_the_set(
    subject: PhantomSubject, eight: PhantomSubject
) -> None:
    few = simulate_subject(SEED, 0, spacing=2, sequences=("t2star", "flair", "t1"))
    assert list(few.volumes) == list(few.noise_free) == ["t2star", "flair", "t1"]
    assert tuple(eight.volumes) == ALL_EIGHT
    assert np.array_equal(few.segmentation, subject.segmentation)
    for one, other in ((few, eight), (subject, eight)):
        for name in one.volumes:
            assert np.array_equal(one.volumes[name], other.volumes[name])
            assert np.array_equal(one.noise_free[name], other.noise_free[name])
    brain = eight.volumes["t1"] > 0
    assert all(np.array_equal(volume > 0, brain) for volume in eight.volumes.values())


def test_same_seed_same_arrays_other_index_other_arrays(subject: PhantomSubject) -> None:
    again = simulate_subject(SEED, 0, spacing=2)
    other = simulate_subject(SEED, 1, spacing=2)
    for name in SEQUENCES:
        assert np.array_equal(subject.volumes[name], again.volumes[name])
        assert np.array_equal(subject.noise_free[name], again.noise_free[name])
        assert not np.array_equal(subject.volumes[name], other.volumes[name])
    assert np.array_equal(subject.segmentation, again.segmentation)
    assert not np.array_equal(subject.segmentation, other.segmentation)


def _digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.nii.gz"))
    }


def test_script_writes_brats_layout_with_the_same_bytes_however_made(tmp_path: Path) -> None:
    names = write_phantom_dataset(tmp_path / "one", 2, seed=3, spacing=2, noise_free=True)
    script = [sys.executable, str(ROOT / "src/data/make_phantom_dataset.py"), "-o"]
    options = ["-n", "2", "--seed", "3", "--spacing", "2", "--noise-free", "--processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*script, str(tmp_path / "two"), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert names == ["Phantom_00000", "Phantom_00001"]
    assert done.stdout.splitlines()[-1].startswith("Wrote 2 subjects (Phantom_00000 to")
    expected = {
        f"{name}/{name}_{kind}.nii.gz"
        for name in names
        for kind in ("seg", *SEQUENCES, *(f"{s}_noisefree" for s in SEQUENCES))
    }
    assert set(_digests(tmp_path / "one")) == expected
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")


def test_one_subject_alone_is_the_same_as_among_others(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path, 1, seed=SEED, spacing=2, first=1)
    image = nib.load(tmp_path / "Phantom_00001" / "Phantom_00001_t2.nii.gz")
    expected = simulate_subject(SEED, 1, spacing=2)
    assert np.array_equal(np.asarray(image.dataobj), expected.volumes["t2"])
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(image.affine, expected.affine)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"isn't an empty folder"):
        write_phantom_dataset(tmp_path, 1, spacing=2)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_run_goes_on_and_one_of_other_settings_is_refused(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path, 1, seed=SEED, spacing=2, sequences=["t1", "t2"])
    files = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(files) == 3
    whole = {path: path.read_bytes() for path in files}
    files[0].unlink()
    write_phantom_dataset(tmp_path, 1, seed=SEED, spacing=2, sequences=["t1", "t2"])
    assert {path: path.read_bytes() for path in files} == whole
    with pytest.raises(UserError, match=r"holds phantoms of other settings"):
        write_phantom_dataset(tmp_path, 1, seed=SEED + 1, spacing=2, sequences=["t1", "t2"])
    assert {path: path.read_bytes() for path in files} == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": 1, "spacing": 3}, "spacing must be 1 or 2 mm, got 3"),
        ({"subjects": 1, "sequences": ("t1", "t7")}, r"sequences must be some of t1, .* got t1 t7"),
        ({"subjects": 1, "sequences": ("t1", "t1")}, r"each once, got t1 t1"),
        ({"subjects": 1, "seed": -1}, "seed and subject index must be 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_phantom_dataset(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "number", "lowest"),
    [("--number", 0, 1), ("--processes", 0, 1), ("--sites", 0, 1), ("--seed", -1, 0)],
)
def test_bad_numbers_are_named(script, tmp_path: Path, option: str, number: int, lowest: int):
    outcome = script(make_phantom_dataset, "-o", tmp_path / "new", option, number)
    assert outcome.code == 2
    message = f"{option}: invalid whole number from {lowest} value: '{number}'"
    assert outcome.err[-1].endswith(message)
    assert not (tmp_path / "new").exists()
