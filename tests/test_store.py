"""A store gives, bit for bit, what reading the NIfTI files gives; and it notices damage."""

import json
import os
from functools import partial
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, SEQUENCES, blob, save_nifti, sequence_file

from tsf_seq2seq.cli.data import prepare_store
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data import loading
from tsf_seq2seq.data import prepare as prepare_module
from tsf_seq2seq.data.check import subjects_of_folders
from tsf_seq2seq.data.loading import load_subject
from tsf_seq2seq.data.prepare import KEPT, STORED, fill_store, narrow, positive_box
from tsf_seq2seq.data.sampling import CropStream, Position
from tsf_seq2seq.data.slices import pad_to, random_crop
from tsf_seq2seq.data.store import StoredImages, VolumeStore
from tsf_seq2seq.data.subjects import find_files, find_subject, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.training import loop as training
from tsf_seq2seq.training.objectives import TSFObjective

NAME = "Tiny_00000"
ALL = {f"Tiny_0000{i}": 15 for i in range(4)}


@pytest.fixture
def data(tiny_dataset: Path) -> DataConfig:
    return DataConfig(root=tiny_dataset)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def run(script):
    return partial(script, prepare_store)


def fill(data: DataConfig, path: Path, masks: dict[str, int] | None = None) -> VolumeStore:
    """A store of the subjects, all of which must be good."""
    outcomes = dict(fill_store(data, masks or {NAME: 0}, path))
    assert set(outcomes.values()) <= {KEPT, STORED}, outcomes
    return VolumeStore(path, data.root)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_subject_in_a_folder_within_a_folder(tmp_path, path):
    root, name = tmp_path / "visits", "patient1/visit2"
    files = [root / name / f"{sequence}.nii.gz" for sequence in SEQUENCES]
    for number, file in enumerate(files):
        save_nifti(file, blob(number))
    patterns = {sequence: (f"{{name}}/{sequence}.nii.gz",) for sequence in SEQUENCES}
    data = DataConfig(root=root, sequences=patterns)
    masks = subjects_of_folders(data)
    assert masks == {name: 0}
    stored = load_subject(fill(data, path, masks).subject(name), 128, 4)
    wanted = load_subject(find_subject(data, name, 15), 128, 4)
    np.testing.assert_array_equal(stored.images, wanted.images)


# --- equality with NIfTI

RAS = np.diag([1.0, 1.0, 1.0, 1.0])
LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
PERMUTED = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


class Volumes:
    """Kinds of subject: each writes files of subject 0 and says the voxel type stored."""

    def __init__(self, root: Path) -> None:
        self.files = [sequence_file(root, 0, sequence) for sequence in SEQUENCES]

    def as_they_are(self) -> str:
        return "int16"

    def float32(self) -> str:
        for i, file in enumerate(self.files):
            save_nifti(file, blob(i).astype(np.float32) / 7)
        return "float32"

    def float32_beside_int16(self) -> str:
        save_nifti(self.files[1], blob(1).astype(np.float32) / 7)
        return "float32"

    def float64(self) -> str:
        save_nifti(self.files[2], blob(2) / 7)
        return "float64"

    def scaled(self) -> str:
        image = nib.Nifti1Image(blob(3), LPS_AFFINE)
        image.header.set_slope_inter(0.1, -3)
        nib.save(image, self.files[3])
        assert nib.load(self.files[3]).dataobj.slope != 1
        return "float64"

    def negative_values(self) -> str:
        for i, file in enumerate(self.files):
            save_nifti(file, np.where(blob(i) == 0, -300, blob(i)).astype(np.int16))
        return "int16"

    def whole_grid_above_0(self) -> str:
        save_nifti(self.files[0], blob(0) + np.int16(1))
        return "int16"

    def ras(self) -> str:
        for i, file in enumerate(self.files):
            save_nifti(file, blob(i), RAS)
        return "int16"

    def las(self) -> str:
        for i, file in enumerate(self.files):
            save_nifti(file, blob(i), LAS)
        return "int16"

    def permuted_axes(self) -> str:
        for i, file in enumerate(self.files):
            save_nifti(file, blob(i), PERMUTED)
        return "int16"

    def differing_orders(self) -> str:
        """t1ce in RAS order and t2's affine off by 0.05 mm, on one grid with the others."""
        t1ce = nib.load(self.files[1])
        nib.save(t1ce.as_reoriented([[0, -1], [1, -1], [2, 1]]), self.files[1])
        assert nib.aff2axcodes(nib.load(self.files[1]).affine) == ("R", "A", "S")
        moved = LPS_AFFINE.copy()
        moved[0, 3] = 0.05
        save_nifti(self.files[2], blob(2), moved)
        return "int16"

    def missing_sequences(self) -> str:
        self.files[0].unlink()
        self.files[2].unlink()
        return "int16"


@pytest.mark.parametrize("kind", [name for name in vars(Volumes) if not name.startswith("_")])
def test_equal_to_nifti(data, path, tiny_config, kind):
    dtype = getattr(Volumes(data.root), kind)()
    wanted_subject = find_subject(data, NAME, 0)
    store = fill(data, path)
    assert store.entry(NAME).dtype == dtype
    subject = store.subject(NAME)
    assert subject.files == wanted_subject.files
    for slices in (128, 5):
        whole = load_subject(wanted_subject, slices, 4)
        check_volumes(load_subject(subject, slices, 4), whole)
        check_crops(store, whole.images, slices)
    for wanted in ([index] for index in subject.on_disk):
        check_volumes(
            load_subject(subject, 5, 4, wanted), load_subject(wanted_subject, 5, 4, wanted)
        )
    for crop in ("[16, 16]", "[99, 8]"):  # both in the box, and one axis whole
        config = load_config(tiny_config, [f"data.crop={crop}"])
        for arguments in ((), (None, 3), (subject.on_disk[1:], 2)):
            a, b = (load_window(config, s, *arguments).volumes for s in (subject, wanted_subject))
            check_volumes(a, b)


def check_volumes(volumes: loading.Volumes, wanted: loading.Volumes) -> None:
    assert volumes.images.dtype == wanted.images.dtype == np.float32
    np.testing.assert_array_equal(volumes.images, wanted.images)
    np.testing.assert_array_equal(volumes.maxima, wanted.maxima)
    np.testing.assert_array_equal(volumes.geometry.affine, wanted.geometry.affine)
    assert (volumes.box, volumes.geometry.shape) == (wanted.box, wanted.geometry.shape)


def check_crops(store: VolumeStore, images: np.ndarray, slices: int) -> None:
    """Random crops, mirrored or not, of grids larger and smaller than the crop, are equal."""
    for crop in ((8, 12), (20, 24), (28, 13), (31, 33)):
        for flipped in (False, True):
            wanted = pad_to(images[..., ::-1] if flipped else images, crop)
            stored = StoredImages(store.open(NAME), slices, crop, flipped)
            assert stored.shape == wanted.shape
            first, second = np.random.default_rng(0), np.random.default_rng(0)
            for _ in range(10):
                part = random_crop(stored, 3, crop, first)
                assert part.dtype == np.float32
                np.testing.assert_array_equal(part, random_crop(wanted, 3, crop, second))


def test_crop_outside_the_box_is_background(data, path):
    volume = fill(data, path).open(NAME)
    assert (volume.crop((-9, -9, -9), (3, 4, 5)) == -1).all()
    assert volume.crop((0, 0, 0), (3, 4, 5)).shape == (4, 3, 4, 5)


def test_box_by_hand():
    first, second = np.zeros((2, 6, 5, 7))
    first[2, 1, 3] = 1
    second[4, 1, 5] = 0.1
    second[5, 4, 6] = -1  # becomes background
    assert positive_box([first, second]).tolist() == [[2, 5], [1, 2], [3, 6]]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(-300, "int16"), (32768, "float32"), (0.5, "float32"), (0.1, "float64"), (1e300, "float64")],
)
def test_narrowest_exact_type(value, dtype):
    volume = np.array([[[0.0, value]]])
    narrowed = narrow(volume)
    assert narrowed.dtype == dtype
    np.testing.assert_array_equal(narrowed.astype(np.float64), volume)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("crop", ["[16, 16]", "[28, 17]"])
def test_the_crop_stream_is_the_same(tiny_config, data, path, crop, workers):
    fill(data, path, ALL)
    streams = []
    for overrides in (["data.workers=0"], [f"data.store={path}", f"data.workers={workers}"]):
        config = load_config(tiny_config, [f"data.crop={crop}", *overrides])
        found = find_subjects(config.data, config.data.train)
        stream = CropStream(found, config, TSFObjective.task_at, Position())
        streams.append(list(islice(stream, 16)))
    for (wanted, place), (crop_read, other_place) in zip(*streams, strict=True):
        assert (wanted.task, wanted.coin) == (crop_read.task, crop_read.coin)
        assert (wanted.names, place) == (crop_read.names, other_place)
        np.testing.assert_array_equal(crop_read.images, wanted.images)


# --- training from a store


@pytest.fixture
def train(tiny_config, data, path, monkeypatch):
    """Train stage 2 on the store, made of all subjects first; the run's config."""
    monkeypatch.setattr("tsf_seq2seq.training.log.plot_curves", lambda *_: None)
    fill(data, path, ALL)

    def run(*overrides: str, stored: bool = True) -> str:
        overrides = (*overrides, f"data.store={path}") if stored else overrides
        config = load_config(tiny_config, overrides)
        training.train(config, build_network(config), torch.device("cpu"))
        log = (config.train.output / "log.csv").read_text().splitlines()
        return "\n".join(line.rsplit(",", 1)[0] for line in log)  # without seconds

    return run


def test_training_is_the_same_without_the_originals(train, data, tmp_path):
    wanted = train(f"train.output={tmp_path / 'nifti'}", stored=False)
    for name in ALL:
        for file in find_files(data.root, name, data.sequences).values():
            file.unlink()
    assert train(f"train.output={tmp_path / 'stored'}") == wanted


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_training_names_a_damaged_subject(train, path, damage):
    file = path / "Tiny_00001.b2nd"
    if damage == "flipped":
        flip_a_byte(file)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    wanted = "does not exist" if damage == "gone" else "is damaged: its checksum is"
    with pytest.raises(UserError, match=rf"subject Tiny_00001: .*Tiny_00001\.b2nd {wanted}"):
        train()


def test_training_names_a_changed_subject(train, data):
    file = sequence_file(data.root, 1, "t2")
    os.utime(file, (1e9, 1e9))
    with pytest.raises(UserError, match=r"subject Tiny_00001: its files in .* have changed"):
        train()


def test_training_refuses_what_the_store_lacks(train, tiny_config, data):
    (data.root / "train.csv").write_text("Tiny_00009,15\n")
    with pytest.raises(UserError, match="subject Tiny_00009 is not in the store"):
        train()
    with pytest.raises(UserError, match=r"the store .* holds the sequences t1, t1ce, t2, flair, "):
        train("data.sequences={a: x.nii, b: y.nii}")


def test_a_mask_that_names_a_sequence_that_is_not_stored(data, path):
    sequence_file(data.root, 0, "t2").unlink()
    store = fill(data, path)
    assert store.subject(NAME, 9).available == (0, 3)
    assert (store.subject(NAME, 9, "Utrecht").site, store.subject(NAME, 9).site) == (
        "Utrecht",
        None,
    )
    assert store.subject(NAME).on_disk == (0, 1, 3)
    with pytest.raises(UserError, match="subject Tiny_00000: t2 is named by its mask 2 but not in"):
        store.subject(NAME, 2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "is no store: .* does not exist"),
        ("{", "can't be read"),
        ("[]", "has version None"),
        ('{"version": 99}', "has version 99, but this software reads 1"),
        ('{"version": 1}', "key 'sequences' is missing"),
    ],
)
def test_bad_index(path, text, part):
    path.mkdir()
    if text is not None:
        (path / "index.json").write_text(text)
    with pytest.raises(UserError, match=part):
        VolumeStore(path)


# --- prepare_brats.py


def stored_at(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in path.glob("*.b2nd")}


def test_script(run, tiny_config, data, path):
    outcome = run("-c", tiny_config, "-o", path)
    assert (outcome.code, outcome.err) == (0, [])
    assert outcome.out == f"{path}: 0 kept, 4 stored, 0 with defects\n"
    files = stored_at(path)
    assert set(files) == {f"{name}.b2nd" for name in ALL}
    again = run("-c", tiny_config, "--set", f"data.store={path}", "--folders")
    assert again.out == f"{path}: 4 kept, 0 stored, 0 with defects\n"
    assert stored_at(path) == files
    verified = run("-o", path, "--verify")
    assert (verified.code, verified.out) == (0, again.out)


def test_processes_make_the_same_store(data, path, tmp_path):
    fill(data, path, ALL)
    other = tmp_path / "other"
    assert dict(fill_store(data, ALL, other, processes=2)) == dict.fromkeys(ALL, STORED)
    first, second = (json.loads((place / "index.json").read_text()) for place in (path, other))
    assert first == second


def test_verify_finds_a_flipped_byte(run, data, path):
    fill(data, path, ALL)
    flip_a_byte(path / "Tiny_00002.b2nd")
    outcome = run("-o", path, "--verify")
    assert outcome.code == 1
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("Tiny_")]
    assert line.startswith(f"Tiny_00002: {path / 'Tiny_00002.b2nd'} is damaged: its checksum is")
    assert outcome.out.endswith(f"{path}: 3 kept, 0 stored, 1 with defects\n")
    assert dict(fill_store(data, ALL, path)) == {**dict.fromkeys(ALL, KEPT), "Tiny_00002": STORED}
    assert run("-o", path, "--verify").code == 0


@pytest.mark.parametrize("change", ["content", "time", "new sequence", "lost sequence"])
def test_changed_subjects_are_stored_anew(data, path, change):
    file = sequence_file(data.root, 1, "t2")
    if change == "new sequence":
        content = file.read_bytes()
        file.unlink()
        fill(data, path, dict.fromkeys(ALL, 0))
        file.write_bytes(content)
    else:
        fill(data, path, ALL)
    if change == "content":
        save_nifti(file, blob(99) // 2)
    elif change == "time":
        os.utime(file, (1e9, 1e9))
    elif change == "lost sequence":
        file.unlink()
    outcomes = dict(fill_store(data, dict.fromkeys(ALL, 0), path))
    assert outcomes == {**dict.fromkeys(ALL, KEPT), "Tiny_00001": STORED}
    wanted = load_subject(find_subject(data, "Tiny_00001", 0), 12, 4).images
    images = load_subject(VolumeStore(path).subject("Tiny_00001"), 12, 4).images
    np.testing.assert_array_equal(images, wanted)


def test_an_interrupted_preparation_goes_on(data, path, monkeypatch):
    store_subject = prepare_module.store_subject

    def interrupted(data, subject, path):
        if subject.name == "Tiny_00002":
            raise KeyboardInterrupt
        return store_subject(data, subject, path)

    monkeypatch.setattr(prepare_module, "store_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(fill_store(data, ALL, path))
    assert VolumeStore(path).names == ["Tiny_00000", "Tiny_00001"]
    monkeypatch.setattr(prepare_module, "store_subject", store_subject)
    assert list(fill_store(data, ALL, path)) == [
        *(("Tiny_00000", KEPT), ("Tiny_00001", KEPT)),
        *(("Tiny_00002", STORED), ("Tiny_00003", STORED)),
    ]
    assert sorted(file.name for file in path.iterdir())[-1] == "index.json"  # nothing temporary


def test_defects_are_listed_and_the_rest_is_stored(run, tiny_config, data, path):
    file = sequence_file(data.root, 1, "t2")
    file.write_bytes(file.read_bytes()[:-20])
    outcome = run("-c", tiny_config, "-o", path)
    assert outcome.code == 1
    assert f"Tiny_00001: {file} is damaged: its gzip stream does not check out" in outcome.out
    assert outcome.out.endswith(f"{path}: 0 kept, 3 stored, 1 with defects\n")


def test_script_refuses(run, data, path, tmp_path):
    assert run().error == "-o or data.store must name the folder of the store"
    assert "is no store" in run("-o", tmp_path / "none", "--verify").error
    none = run("-o", path, "--processes", 0)
    message = "argument --processes: invalid whole number from 1 value: '0'"
    assert (none.code, none.err[-1].endswith(message)) == (2, True)
    fill(data, path)
    config = tmp_path / "other.yaml"
    config.write_text(
        f"data: {{root: {data.root}, sequences: {{a: '{{name}}/x.nii', b: '{{name}}/y.nii'}}}}"
    )
    assert "holds the sequences t1, " in run("-c", config, "-o", path, "--folders").error
