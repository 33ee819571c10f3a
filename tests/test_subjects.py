"""Subjects: split CSVs, files by pattern, checked and normalised volumes, and splits."""

import dataclasses
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from conftest import LPS_AFFINE, REFERENCE, SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.config import BRATS_SEQUENCES, DataConfig
from tsf_seq2seq.data.loading import Subject, SubjectCache, load_subject
from tsf_seq2seq.data.names import subject_names
from tsf_seq2seq.data.slices import (
    Window,
    central,
    central_window,
    intensity_maximum,
    normalise,
    pad_to,
    random_crop,
    stacks,
)
from tsf_seq2seq.data.split import PARTS, draw_masks, write_split
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.data.subjects import find_files, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import mask_to_sequences, sequences_to_mask


@pytest.fixture
def csv(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "split.csv"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def subject(tiny_dataset) -> Subject:
    files = {i: sequence_file(tiny_dataset, 0, name) for i, name in enumerate(SEQUENCES)}
    return Subject("Tiny_00000", (0, 1, 2, 3), files)


# --- the authors' loader


def test_reference_loader():
    wanted = np.load(REFERENCE / "loader" / "expected.npz")
    data = DataConfig(root=REFERENCE / "loader" / "images")
    (subject,) = find_subjects(data, REFERENCE / "loader" / "test.csv")
    assert subject.available == tuple(wanted["flags"]) == (0, 2, 3)
    assert subject.missing_targets == (1,)
    volumes = load_subject(subject, 128, 4)
    assert volumes.box.z == slice(6, 134)
    assert volumes.images.dtype == np.float32
    np.testing.assert_allclose(volumes.maxima, 2 * wanted["percentile_99"], rtol=1e-12)
    np.testing.assert_allclose(volumes.images, wanted["normalised"], rtol=0, atol=1e-6)
    t1 = stacks(volumes.images[0], 3)  # (N, C, H, W) instead of their (N, 1, C, H, W)
    assert (len(t1), 1, *t1.shape[1:]) == tuple(wanted["t1_stacks_shape"])
    np.testing.assert_allclose(t1[40], wanted["t1_stack_40"][0], rtol=0, atol=1e-6)


# --- files by pattern


@pytest.mark.parametrize(
    "names", [("_t1", "_t1ce", "_t2", "_flair"), ("-t1n", "-t1c", "-t2w", "-t2f")]
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_both_kinds_of_brats_names_are_found(tmp_path, names, suffix):
    paths = {i: tmp_path / "A" / f"A{name}{suffix}" for i, name in enumerate(names)}
    paths[0].parent.mkdir()
    for path in paths.values():
        path.write_text("")
    (tmp_path / "A" / f"A-seg{suffix}").write_text("")
    assert find_files(tmp_path, "A", BRATS_SEQUENCES) == paths


def test_own_patterns_with_wildcards(tmp_path):
    for name in ("study[1]/x_ADC_07.nii.gz", "study[1]/x_DWI_b800.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    patterns = {"adc": ["{name}/*_ADC_??.nii.gz"], "dwi": ["none.nii", "{name}/*DWI*.nii"]}
    found = find_files(tmp_path, "study[1]", patterns)
    assert {i: path.name for i, path in found.items()} == {
        0: "x_ADC_07.nii.gz",
        1: "x_DWI_b800.nii",
    }


def test_several_matches_are_an_error(tmp_path):
    for name in ("a_1.nii.gz", "a_2.nii.gz"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"subject a: pattern \{name\}_\*\.nii\.gz matches several"):
        find_files(tmp_path, "a", {"t1": ["{name}_*.nii.gz"]})


def test_mask_that_names_a_missing_file(tiny_dataset):
    sequence_file(tiny_dataset, 3, "t2").unlink()
    data = DataConfig(root=tiny_dataset)
    with pytest.raises(UserError, match="subject Tiny_00003: t2 is named by its mask 10 but has"):
        find_subjects(data, tiny_dataset / "test.csv")  # 10 = 1010 = t1 and t2
    (tiny_dataset / "test.csv").write_text("Tiny_00003,9")
    (subject,) = find_subjects(data, tiny_dataset / "test.csv")
    assert (subject.available, subject.on_disk) == ((0, 3), (0, 1, 3))
    assert subject.missing_targets == (1,)


def test_subjects_know_their_site(tiny_dataset, csv):
    path = csv("name,mask,site\nTiny_00000,8,Utrecht\nTiny_00001,9")
    subjects = find_subjects(DataConfig(root=tiny_dataset), path)
    assert [subject.site for subject in subjects] == ["Utrecht", None]


def test_root_must_be_a_folder(tmp_path, csv):
    with pytest.raises(UserError, match=r"data\.root .*none is not a folder"):
        find_subjects(DataConfig(root=tmp_path / "none"), csv("a,1"))


# --- split CSVs


def test_bits_of_a_mask():
    assert mask_to_sequences(11, 4) == (0, 2, 3)  # t1, t2, flair
    assert mask_to_sequences(8, 4) == (0,)  # t1
    assert mask_to_sequences(1, 4) == (3,)  # flair
    assert all(sequences_to_mask(mask_to_sequences(mask, 5), 5) == mask for mask in range(32))


@pytest.mark.parametrize(
    "text",
    [
        "a,11\nb,8\n",
        "name,mask\na,11\nb,8\n",
        "Name, Mask\r\na, 11\r\n\r\nb,8\r\n",
        "\ufeffname,mask\na,11\nb,8",
        "name,mask,site\na,11\nb,8,\n",
    ],
)
def test_split_csv(csv, text):
    assert read_split(csv(text), 4) == [("a", 11, None), ("b", 8, None)]


@pytest.mark.parametrize("header", ["", "name,mask\n", "name,mask,site\n", "Name, Mask, Site \r\n"])
def test_sites_of_a_split_csv(csv, header):
    rows = read_split(csv(f'{header}a,11, Utrecht 3 T \nb,8\nc,1,\nd,2, \ne,4,"x, y"'), 4)
    assert [row.site for row in rows] == ["Utrecht 3 T", None, None, None, "x, y"]
    assert rows[0] == ("a", 11, "Utrecht 3 T")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "names no subject"),
        ("name,mask\n", "names no subject"),
        ("a,11\nb,3\na,4\n", "names subject a twice"),
        ("a,0", "row 'a,0' must be name,mask with a mask from 1 to 15"),
        ("a,16", "row 'a,16'"),
        ("a,-1", "row 'a,-1'"),
        ("a,1.0", "row 'a,1.0'"),
        ("a,²", "row 'a,²'"),
        ("a,", "row 'a,'"),
        ("a", "row 'a'"),
        (",3", "row ',3'"),
        ("a,3\nname,mask", "row 'name,mask'"),
        (
            "a,3,x,y",
            ", line 1: row 'a,3,x,y' must be name,mask or name,mask,site, but has 4 columns",
        ),
        (
            "a,3\n\nb,3,,",
            ", line 3: row 'b,3,,' must be name,mask or name,mask,site, but has 4 col",
        ),
        ("name,mask,age\na,3,41", ", line 1: header 'name,mask,age' must be name,mask or name,ma"),
        ("name,mask,site,age\na,3", ", line 1: header 'name,mask,site,age' must be name,mask or"),
        ("a,3\nb,3,x\x1b[2J", ", line 2: site 'x\x1b[2J' can't hold control characters"),
        ('a,3,"x\ny"', ", line 2: site 'x\ny' can't hold control characters"),
    ],
)
def test_bad_split_csv(csv, text, part):
    path = csv(text)
    with pytest.raises(UserError) as error:
        read_split(path, 4)
    assert str(error.value).startswith(f"split CSV {path}")
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("/a", "must be a folder or folders"),
        ("a/", "must be a folder or folders"),
        ("a//b", "must be a folder or folders"),
        ("../a", "must be a folder or folders"),
        ("a/./b", "must be a folder or folders"),
        ("P*", "can't hold the wildcards * and ?"),
        ("P1?", "can't hold the wildcards * and ?"),
        ("a\x1b[2J", "can't hold control characters"),
        ('"a\nb"', "can't hold control characters"),
        ("a\u2028b", "can't hold control characters"),
        ("a\xa0", "can't begin or end with a space"),
    ],
)
def test_names_that_are_no_folders(csv, name, rule):
    path = csv(f"name,mask\nb,3\n\n{name},3\n")
    line = 5 if "\n" in name else 4
    with pytest.raises(UserError) as error:
        read_split(path, 4)
    plain = name.strip('"')
    assert str(error.value).startswith(
        f"split CSV {path}, line {line}: '{plain}' can't be a subject's name, which {rule}"
    )


def test_split_csv_tells_the_line(csv):
    path = csv("name,mask\na,3\n\nb,16\n")
    with pytest.raises(UserError) as error:
        read_split(path, 4)
    assert str(error.value).startswith(f"split CSV {path}, line 4: row 'b,16' must be name,mask")
    path = csv("a,11\nb,3\na,4\n")
    with pytest.raises(UserError, match="names subject a twice, again in line 3"):
        read_split(path, 4)
    path = csv(f"a,{'1' * 5000}")  # more digits than Python reads
    with pytest.raises(UserError, match=r"must be name,mask with a mask from 1 to 15"):
        read_split(path, 4)


def test_names_with_spaces_and_brackets(csv):
    assert read_split(csv(" study [1] ,3\nÄ/b c,4"), 4) == [
        ("study [1]", 3, None),
        ("Ä/b c", 4, None),
    ]


def test_missing_and_binary_split_csv(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        read_split(tmp_path / "none.csv", 4)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="can't be read"):
        read_split(tmp_path / "binary.csv", 4)


# --- loading


def test_volumes_of_a_subject(subject):
    volumes = load_subject(subject, 128, 4)
    assert volumes.images.shape == (4, 12, 20, 24)  # all slices: fewer than configured
    assert volumes.box.z == slice(0, 12)
    voxels = blob(2).astype(float)  # t2, in LPS order already
    maximum = 2 * np.percentile(voxels, 99)
    assert volumes.maxima[2] == maximum
    wanted = np.clip(voxels, 0, maximum).transpose(2, 1, 0) / maximum * 2 - 1
    np.testing.assert_allclose(volumes.images[2], wanted, atol=1e-6)
    some = load_subject(subject, 4, 4, [1])
    np.testing.assert_array_equal(some.images[1], volumes.images[1, 4:8])
    assert (some.images[[0, 2, 3]] == -1).all()
    assert some.box.z == slice(4, 8)


def test_normalisation_by_hand():
    volume = np.array([[[-5.0, 0, 25, 50, 100, 1000]]])
    np.testing.assert_array_equal(normalise(volume, 100.0), [[[-1, -1, -0.5, 0, 1, 1]]])
    assert normalise(volume, 100.0).dtype == np.float32
    assert intensity_maximum(np.arange(101.0)) == 2 * 99


@pytest.mark.parametrize("order", ["shape", "affine"])
def test_grids_that_differ(subject, order):
    path = subject.files[2]
    if order == "shape":
        save_nifti(path, blob(2, (24, 20, 11)))
        wanted = r"_t2\.nii\.gz has shape \(24, 20, 11\), but \S*_t1\.nii\.gz \(24, 20, 12\)"
    else:
        affine = LPS_AFFINE.copy()
        affine[2, 3] = 2
        save_nifti(path, blob(2), affine)
        wanted = r"affines of \S*_t2\.nii\.gz and \S*_t1\.nii\.gz place .* 2 mm apart"
    with pytest.raises(UserError, match=f"subject Tiny_00000: .*{wanted}"):
        load_subject(subject, 12, 4)


def test_rounding_of_affines_is_forgiven(subject):
    affine = LPS_AFFINE.copy()
    affine[0, 3] = 0.05
    save_nifti(subject.files[2], blob(2), affine)
    load_subject(subject, 12, 4)


def test_other_voxel_order_of_the_same_grid(subject):
    expected = load_subject(subject, 12, 4).images
    flipped = LPS_AFFINE.copy()
    flipped[0] = (1, 0, 0, -23)  # x runs to the right instead of the left
    save_nifti(subject.files[2], blob(2)[::-1], flipped)
    np.testing.assert_array_equal(load_subject(subject, 12, 4).images, expected)


def test_a_volume_that_is_all_but_empty(subject):
    voxels = np.zeros((24, 20, 12), np.int16)
    voxels[0, 0, :10] = 500  # 10 of 5760 voxels: the 99th percentile is 0
    save_nifti(subject.files[1], voxels)
    with pytest.raises(
        UserError, match=r"subject Tiny_00000: .*t1ce\.nii\.gz is all but empty.*is 0,"
    ):
        load_subject(subject, 12, 4)


def test_negative_values_are_background(subject):
    voxels = blob(1)
    voxels[voxels == 0] = -300
    save_nifti(subject.files[1], voxels)
    images = load_subject(subject, 12, 4).images[1]
    assert images.min() == -1
    assert (images == -1).sum() == (voxels < 0).sum()


def test_damage_names_the_subject(subject):
    subject.files[3].write_bytes(subject.files[3].read_bytes()[:-20])
    with pytest.raises(UserError, match=r"subject Tiny_00000: .*flair\.nii\.gz is damaged"):
        load_subject(subject, 12, 4)


def test_cache_keeps_what_fits(tiny_dataset, subject):
    data = DataConfig(root=tiny_dataset)
    subjects = [*find_subjects(data, tiny_dataset / "train.csv"), subject]
    others = find_subjects(data, tiny_dataset / "valid.csv")
    size = 4 * 12 * 20 * 24 * 4  # bytes of one subject
    cache = SubjectCache(12, 4, 2.5 * size / 1e9)
    first = cache.load(subjects[0])
    cache.load(subjects[1])
    assert cache.load(subjects[0]) is first
    cache.load(others[0])  # drops subject 1, the one that was used longest ago
    assert list(cache.kept) == ["Tiny_00000", "Tiny_00002"]
    assert cache.size == 2 * size
    assert cache.load(subjects[0]) is first
    nothing = SubjectCache(12, 4, 0.0)
    again = nothing.load(subjects[0])
    assert again is not first
    np.testing.assert_array_equal(again.images, first.images)
    assert (len(nothing.kept), nothing.size) == (0, 0)


# --- windows, stacks, crops


def test_central_by_hand():
    assert central(155, 128) == slice(13, 141)  # 27 left: 13 before, 14 behind
    assert central(240, 192) == slice(24, 216)
    assert central(128, 128) == slice(0, 128)
    assert central(5, 4) == slice(0, 4)
    assert central(12, 128) == slice(0, 12)
    window = central_window((155, 240, 100), 128, (192, 192))
    assert window == Window(slice(13, 141), slice(24, 216), slice(0, 100))


def test_window_puts_back_what_it_took():
    volume = np.arange(60.0).reshape(3, 4, 5)
    window = Window(slice(1, 2), slice(0, 2), slice(3, 5))
    box = window.of(volume)
    np.testing.assert_array_equal(box, [[[23, 24], [28, 29]]])
    whole = window.into(box, volume.shape)
    assert (whole != -1).sum() == 4
    np.testing.assert_array_equal(window.of(whole), box)


def test_stacks_are_neighbours():
    volumes = np.arange(2 * 5).reshape(2, 5, 1, 1) * np.ones((1, 1, 2, 3), int)
    result = stacks(volumes, 3)
    assert result.shape == (2, 3, 3, 2, 3)
    assert result[1, 2, :, 0, 0].tolist() == [7, 8, 9]


def test_padding_is_even_background():
    volumes = np.zeros((1, 2, 3, 4))
    padded = pad_to(volumes, (6, 4))
    assert padded.shape == (1, 2, 6, 4)
    assert padded[0, 0, :, 0].tolist() == [-1, 0, 0, 0, -1, -1]
    assert pad_to(volumes, (3, 2)) is volumes


def test_random_crop_reaches_every_position():
    volumes = np.arange(4 * 5 * 6).reshape(1, 4, 5, 6)
    rng = np.random.default_rng(0)
    corners = Counter(int(random_crop(volumes, 3, (4, 4), rng)[0, 0, 0, 0]) for _ in range(600))
    wanted = {30 * z + 6 * y + x for z in range(2) for y in range(2) for x in range(3)}
    assert set(corners) == wanted
    assert min(corners.values()) > 600 / 12 / 2


# --- seeded splits


@pytest.fixture
def many(tmp_path) -> Path:
    """84 patients with all sequences, 14 of them with a second time point."""
    root = tmp_path / "many"
    names = [f"BraTS-GLI-{i:05}-000" for i in range(84)]
    names += [f"BraTS-GLI-{i:05}-001" for i in range(0, 84, 6)]
    for name in names:
        (root / name).mkdir(parents=True)
        for sequence in ("t1n", "t1c", "t2w", "t2f"):
            (root / name / f"{name}-{sequence}.nii.gz").touch()
    (root / "empty").mkdir()
    return root


def split_of(
    root: Path, output: Path, seed: int = 0, shares=(4, 1, 2)
) -> dict[str, dict[str, int]]:
    write_split(root, BRATS_SEQUENCES, output, shares, seed)
    rows = {part: read_split(output / f"{part}.csv", 4) for part in PARTS}
    return {part: {row.name: row.mask for row in rows[part]} for part in PARTS}


def test_split_parts(many, tmp_path):
    parts = split_of(many, tmp_path / "out")
    names = [name for part in parts.values() for name in part]
    assert len(names) == len(set(names)) == 98
    assert "empty" not in names
    patients = {part: {name[:15] for name in rows} for part, rows in parts.items()}
    assert {part: len(found) for part, found in patients.items()} == {
        "train": 48,
        "valid": 12,
        "test": 24,
    }
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 84


def test_masks_are_balanced(many, tmp_path):
    for rows in split_of(many, tmp_path / "out").values():
        counts = Counter(rows.values())
        assert set(counts) <= set(range(1, 15))
        low, high = len(rows) // 14, -(-len(rows) // 14)
        assert all(low <= counts[mask] <= high for mask in range(1, 15))


def test_split_depends_on_the_seed_alone(many, tmp_path):
    first = split_of(many, tmp_path / "a")
    assert split_of(many, tmp_path / "b") == first
    assert split_of(many, tmp_path / "c", seed=1) != first


def test_masks_name_files_that_are_there(many, tmp_path):
    for name in sorted(path.name for path in many.iterdir() if path.name != "empty")[::2]:
        (many / name / f"{name}-t1n.nii.gz").unlink()
    data = dataclasses.replace(DataConfig(), root=many)
    split_of(many, tmp_path / "out")
    subjects = find_subjects(data, tmp_path / "out" / "train.csv")  # refuses masks without files
    assert all(subject.available for subject in subjects)
    assert all(subject.missing_targets for subject in subjects)  # one is left to be synthesized


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_masks_of_other_numbers_of_sequences(count):
    patterns = 2**count - 2
    complete = {f"p{i:03}": tuple(range(count)) for i in range(2 * patterns)}
    rows = draw_masks(list(complete), complete, count, np.random.default_rng(0))
    assert Counter(mask for _, mask in rows) == dict.fromkeys(range(1, patterns + 1), 2)
    pairs = {f"p{i:03}": (0, count - 1) for i in range(patterns)}
    rows = draw_masks(list(pairs), pairs, count, np.random.default_rng(0))
    assert {mask for _, mask in rows} == {1, 2 ** (count - 1)}  # one of the two, never both


def test_patients_of_other_names(tmp_path):
    visits = [f"ms{patient:02}_visit{time}" for patient in range(20) for time in (1, 2, 3)]
    for name in visits:
        for sequence in ("t1", "pd"):
            save_nifti(tmp_path / name / f"{sequence}.nii", np.zeros((1, 1, 1)))
    patterns = {"t1": ("{name}/t1.nii",), "pd": ("{name}/pd.nii",)}
    write_split(tmp_path, patterns, tmp_path, (10, 5, 5), 0, r"(ms\d+)_visit\d")
    splits = [read_split(tmp_path / f"{part}.csv", 2) for part in PARTS]
    parts = [{row.name[:4] for row in split} for split in splits]
    assert [len(part) for part in parts] == [10, 5, 5]
    assert len(set.union(*parts)) == 20
    with pytest.raises(UserError, match=r"'\(ms' is no regular expression: missing \)"):
        write_split(tmp_path, patterns, tmp_path, (1, 1, 1), 0, "(ms")
    with pytest.raises(UserError, match=r"'ms\.\*' has no group"):
        write_split(tmp_path, patterns, tmp_path, (1, 1, 1), 0, "ms.*")


def test_visits_in_a_patients_folder_stay_together(tmp_path):
    visits = [f"ms{patient:02}/visit{time}" for patient in range(12) for time in (1, 2)]
    for name in (*visits, "ms20", "ms20/raw", "derivatives/other"):  # ms20 is a scan itself
        for sequence in ("t1", "pd"):
            save_nifti(tmp_path / name / f"{sequence}.nii.gz", np.zeros((1, 1, 1)))
    patterns = {"t1": ("{name}/t1.nii.gz",), "pd": ("{name}/[a-z]d.nii.gz",)}
    write_split(tmp_path, patterns, tmp_path, (6, 3, 4), 0)
    splits = [read_split(tmp_path / f"{part}.csv", 2) for part in PARTS]
    names = [[row.name for row in split] for split in splits]
    assert sorted(chain.from_iterable(names)) == [*visits, "ms20"]
    patients = [{name[:4] for name in part} for part in names]
    assert [len(part) for part in patients] == [6, 3, 4]
    assert len(set.union(*patients)) == 13

    # --- sites are no patients
    for name in ("a/s1", "a/s2", "a/s3"):
        for sequence in ("t1", "pd"):
            save_nifti(tmp_path / "sites" / name / f"{sequence}.nii.gz", np.zeros((1, 1, 1)))
    with pytest.raises(UserError, match=r"holds 1 patients, too .*\? --patient '\(\.\*\)' takes"):
        write_split(tmp_path / "sites", patterns, tmp_path, (1, 1, 1), 0)
    counts = write_split(tmp_path / "sites", patterns, tmp_path, (1, 1, 1), 0, "(.*)")
    assert list(counts.values()) == [1, 1, 1]


@pytest.mark.parametrize(
    ("pattern", "file", "name"),
    [
        ("{name}/t1.nii.gz", "a/t1.nii", "a"),
        ("{name}/{name}_t1.nii.gz", "a/a_t1.nii.gz", "a"),
        ("{name}/{name}_t1.nii.gz", "a/b_t1.nii.gz", None),
        ("{name}/*T1?.nii.gz", "a/3D_T1w.nii.gz", "a"),
        ("{name}/anat/[!x]*.nii.gz", "a/b/anat/y.nii.gz", "a/b"),
        ("{name}/anat/[!x]*.nii.gz", "a/b/anat/xy.nii.gz", None),
        ("{name}_t1.nii.gz", "a.1_t1.nii.gz", "a.1"),
        ("images/{name}_0000.nii.gz", "images/case_1_0000.nii.gz", "case_1"),
        ("{name}/t1.nii.gz", ".a/t1.nii.gz", None),
        ("t1.nii.gz", "t1.nii.gz", None),
    ],
)
def test_names_of_subjects(pattern, file, name, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert subject_names(tmp_path, {"t1": (pattern,)}) == ([] if name is None else [name])
    if name is not None:
        assert find_files(tmp_path, name, {"t1": (pattern,)}) == {0: tmp_path / file}


def test_split_refuses(many, tmp_path):
    with pytest.raises(UserError, match="shares must be three numbers"):
        split_of(many, tmp_path, shares=(1, -1, 1))
    with pytest.raises(UserError, match="has no subject with two sequences"):
        split_of(many / "empty", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        split_of(many / "none", tmp_path)


def test_every_part_with_a_share_gets_a_patient(many, tmp_path):
    counts = write_split(many, BRATS_SEQUENCES, tmp_path / "out", (1000, 1, 0), 0)
    train, valid, test = (counts[tmp_path / "out" / f"{part}.csv"] for part in PARTS)
    assert train + valid == 98
    assert 1 <= valid <= 2
    assert test == 0
