"""A store that doesn't fit together, or was left by a killed run, is refused and made anew."""

import dataclasses
import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti, sequence_file
from test_store import ALL, NAME, Volumes, fill

from tsf_seq2seq.cli.data import prepare_store
from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data import prepare as prepare_module
from tsf_seq2seq.data.loading import Subject, load_subject
from tsf_seq2seq.data.prepare import KEPT, STORED, fill_store
from tsf_seq2seq.data.slices import central_window
from tsf_seq2seq.data.store import VolumeStore
from tsf_seq2seq.data.store_index import index_text
from tsf_seq2seq.data.subjects import find_files, find_subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.files.writing import JOURNAL

TINY_1 = "Tiny_00001"


@pytest.fixture
def data(tiny_dataset: Path) -> DataConfig:
    return DataConfig(root=tiny_dataset)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def run(script):
    return partial(script, prepare_store)


def stored_images(path: Path, name: str) -> np.ndarray:
    return load_subject(VolumeStore(path).subject(name), 12, 4).images


# --- an index that does not fit


def rewrite(path: Path, change, seal: bool = True) -> None:
    """Change the index as plain values, and give it the checksum of what it holds then."""
    values = json.loads((path / "index.json").read_text())
    change(values)
    text = index_text(values["sequences"], values["subjects"]) if seal else json.dumps(values)
    (path / "index.json").write_text(text)


def set_at(*keys):
    """A change that puts the last of the arguments in the place that the others name."""

    def change(values) -> None:
        *way, last, value = keys
        for key in way:
            values = values[key]
        values[last] = value

    return change


FIRST = ("subjects", NAME)
SINGULAR = np.diag([1.0, 1, 0, 1]).tolist()


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ((*FIRST, "file", "Tiny_00001.b2nd"), "Tiny_00000 has the file Tiny_00001.b2nd of another"),
        ((*FIRST, "file", "../Tiny_00000.b2nd"), "of another"),
        ((*FIRST, "file", "/etc/passwd"), "of another"),
        ((*FIRST, "dtype", "int8"), "its type must be one of int16, float32, float64, not int8"),
        ((*FIRST, "shape", [24, 20, 0]), "a shape of (24, 20, 0) is none of a volume"),
        ((*FIRST, "shape", [2**40, 2**40, 2]), "is none of a volume"),
        ((*FIRST, "shape", [24, 20, 5]), "does not lie in its grid (5, 20, 24)"),
        ((*FIRST, "box", [[0, 12], [0, 20], [0, 25]]), "does not lie in its grid (12, 20, 24)"),
        ((*FIRST, "box", [[-1, 12], [0, 20], [0, 24]]), "its box ((-1, 12), (0, 20), (0, 24)) do"),
        ((*FIRST, "box", [[3, 3], [0, 20], [0, 24]]), "does not lie in its grid"),
        ((*FIRST, "box", [[0, 12], [0, 20]]), "does not lie in its grid"),
        ((*FIRST, "affine", SINGULAR), "places no voxels"),
        ((*FIRST, "affine", [[1.0]]), "places no voxels"),
        ((*FIRST, "sequences", {}), "must be a mapping of names"),
        ((*FIRST, "sequences", "t2", "maximum", 0), "0 is no maximum of intensities"),
        ((*FIRST, "sequences", "t2", "maximum", -5.5), "-5.5 is no maximum of intensities"),
        ((*FIRST, "sequences", "t2", "maximum", 1e300), "is no maximum of intensities"),
        (
            (*FIRST, "sequences", "t2", "grid", {"shape": [5, 5, 5], "affine": np.eye(4).tolist()}),
            "t2 lies on a grid of another shape",
        ),
        (("sequences", ["t1", "t1ce", "t2"]), "has the sequences t1, t1ce, t2, flair, which"),
        (("sequences", ["t1", "t2", "t1ce", "flair"]), "which are not in order some of t1, t2, "),
        (("subjects", "../x", None), "'subjects.../x' must be a mapping"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(data, path, keys, part):
    fill(data, path, ALL)
    rewrite(path, set_at(*keys))
    with pytest.raises(UserError) as error:
        VolumeStore(path)
    assert str(error.value).startswith(str(path / "index.json"))
    assert part in str(error.value)
    assert str(error.value).endswith("is removed, src/data/prepare_brats.py makes it anew")


def test_a_name_that_leads_out_of_the_store_is_refused(data, path):
    fill(data, path)
    entry = json.loads((path / "index.json").read_text())["subjects"][NAME]
    rewrite(path, set_at("subjects", "../x", entry | {"file": "../x.b2nd"}))
    with pytest.raises(UserError, match=r"subject \.\./x: no file of a store can have such a name"):
        VolumeStore(path)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a/./b", "a//b", ""])
def test_no_subject_is_stored_outside(data, path, name):
    files = find_files(data.root, NAME, data.sequences)
    with pytest.raises(UserError, match="no file of a store can have such a name"):
        prepare_module.store_subject(data, Subject(name, (0,), files), path)


def test_no_subject_is_stored_outside_by_a_link(data, path, tmp_path):
    path.mkdir()
    (path / "patient").symlink_to(tmp_path)
    files = find_files(data.root, NAME, data.sequences)
    with pytest.raises(UserError, match="lies outside the store"):
        prepare_module.store_subject(data, Subject("patient/x", (0,), files), path)


def test_an_index_with_a_changed_digit_is_refused(data, path):
    """A maximum that would be as good as the true one."""
    fill(data, path, ALL)
    rewrite(path, set_at(*FIRST, "sequences", "t2", "maximum", 777.5), seal=False)
    with pytest.raises(UserError, match=r"index\.json is damaged: its checksum is"):
        VolumeStore(path)


def test_an_index_of_a_former_version_has_no_checksum(data, path):
    fill(data, path, ALL)

    def former(values) -> None:
        del values["crc32"]
        for entry in values["subjects"].values():
            del entry["doubt"]

    wanted = stored_images(path, NAME)
    rewrite(path, former, seal=False)
    np.testing.assert_array_equal(stored_images(path, NAME), wanted)
    assert dict(fill_store(data, ALL, path)) == dict.fromkeys(ALL, KEPT)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"version": ' + "9" * 5000 + "}", "\0", '{"version": 1, "subjects": 3}'],
)
def test_an_odd_index_is_refused(path, text):
    path.mkdir()
    (path / "index.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path / "index.json"))):
        VolumeStore(path)


def test_a_fifo_in_a_place_of_the_store_is_refused_at_once(data, path):
    fill(data, path)
    (path / f"{NAME}.b2nd").unlink()
    os.mkfifo(path / f"{NAME}.b2nd")
    with pytest.raises(UserError, match=r"subject Tiny_00000: .*FIFO"):
        VolumeStore(path).open(NAME)
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")
    with pytest.raises(UserError, match=r"index\.json can't be read: .*FIFO"):
        VolumeStore(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ((*FIRST, "box", [[0, 5], [0, 20], [0, 24]]), "of shape (4, 5, 20, 24)"),
        ((*FIRST, "dtype", "float32"), "says float32 of shape (4, "),
    ],
)
def test_an_index_that_says_another_array_is_refused(run, data, path, keys, said):
    """And made anew by the next preparation."""
    fill(data, path, ALL)
    rewrite(path, set_at(*keys))
    store = VolumeStore(path)
    with pytest.raises(UserError) as error:
        store.load(store.subject(NAME), lambda grid: central_window(grid, 12, grid[1:]), [0])
    assert str(error.value).startswith(f"subject Tiny_00000: {path / NAME}.b2nd can't be read (it")
    assert said in str(error.value)
    assert str(error.value).endswith("; src/data/prepare_brats.py makes it anew")
    assert said in run("-o", path, "--verify").out
    assert dict(fill_store(data, ALL, path)) == {**dict.fromkeys(ALL, KEPT), NAME: STORED}
    assert run("-o", path, "--verify").code == 0


def test_verify_measures_the_maxima(run, data, path):
    fill(data, path, ALL)
    true = VolumeStore(path).entry(TINY_1).sequences["t2"].maximum
    rewrite(path, set_at("subjects", TINY_1, "sequences", "t2", "maximum", true + 1))
    outcome = run("-o", path, "--verify")
    assert outcome.code == 1
    said = f"{TINY_1}: index.json says that the maximum of t2 is {true + 1:g}, not {true:g}\n"
    assert said in outcome.out
    assert outcome.out.endswith("3 kept, 0 stored, 1 with defects\n")


@pytest.mark.parametrize("kind", [name for name in vars(Volumes) if not name.startswith("_")])
def test_verify_finds_no_fault_with_sound_subjects(data, path, kind):
    getattr(Volumes(data.root), kind)()
    assert dict(prepare_module.verify(fill(data, path))) == {NAME: KEPT}


def test_patterns_that_lead_to_another_folder(data, path, tmp_path):
    """Absolute ones, too: their files are named whole."""
    other = tmp_path / "elsewhere"
    for number, sequence in enumerate(SEQUENCES):
        save_nifti(other / f"{NAME}_{sequence}.nii.gz", blob(number))
    patterns = {name: (f"{other}/{{name}}_{name}.nii.gz",) for name in SEQUENCES}
    far = dataclasses.replace(data, sequences=patterns)
    store = fill(far, path)
    assert store.subject(NAME).files == find_files(far.root, NAME, far.sequences)
    assert dict(fill_store(far, {NAME: 0}, path)) == {NAME: KEPT}


# --- how it is written


def killed_at(number: int, data: DataConfig, path: Path) -> None:
    """Fill the store, and be killed at the so manyth rename."""
    left = [number]
    for name in ("rename", "replace"):
        own = getattr(Path, name)

        def deadly(self, target, own=own):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(self, target)

        setattr(Path, name, deadly)
    list(fill_store(data, ALL, path))


def test_a_killed_run_leaves_a_store_that_is_whole_or_says_so(data, path):
    """Subject 1 changed, 2 is new: at any rename, entries match their files, or no store opens."""
    fill(data, path, {name: 15 for name in ALL if name != "Tiny_00002"})
    old = stored_images(path, TINY_1)
    shutil.copytree(path, path.with_name("earlier"))
    save_nifti(sequence_file(data.root, 1, "t2"), blob(99))
    new = load_subject(find_subject(data, TINY_1, 15), 12, 4).images
    outcomes = []
    for number in range(1, 20):
        shutil.rmtree(path)
        shutil.copytree(path.with_name("earlier"), path)
        process = multiprocessing.get_context("fork").Process(
            target=killed_at, args=(number, data, path)
        )
        process.start()
        process.join()
        if (path / JOURNAL).exists():
            outcomes.append("told")
            with pytest.raises(UserError, match="was left half changed by a killed run"):
                VolumeStore(path)
        else:
            images = stored_images(path, TINY_1)
            outcomes.append("old" if np.array_equal(images, old) else "new")
            np.testing.assert_array_equal(images, old if outcomes[-1] == "old" else new)
        assert set(dict(fill_store(data, ALL, path)).values()) <= {KEPT, STORED}
        assert dict(prepare_module.verify(VolumeStore(path))) == dict.fromkeys(ALL, KEPT)
        np.testing.assert_array_equal(stored_images(path, TINY_1), new)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert outcomes[0] == "old"
    assert outcomes.count("told") == 5  # two old files away, three new ones into their places
    assert outcomes[-1] == "new"


def test_the_index_is_written_for_many_subjects_together(data, path, monkeypatch):
    written = []
    own = prepare_module.index_text

    def counted(*arguments):
        written.append(len(arguments[1]))
        return own(*arguments)

    monkeypatch.setattr(prepare_module, "index_text", counted)
    monkeypatch.setattr(prepare_module, "WRITE_SECONDS", 1e9)
    fill(data, path, ALL)
    assert written == [4]
    monkeypatch.setattr(prepare_module, "WRITE_FILES", 3)
    fill(data, path.with_name("three"), ALL)
    assert written == [4, 3, 4]
    monkeypatch.setattr(prepare_module, "WRITE_BYTES", 1)
    fill(data, path.with_name("bytes"), ALL)
    assert written == [4, 3, 4, 1, 2, 3, 4]


def test_a_full_disk_ends_the_preparation(run, tiny_config, path, monkeypatch):
    fills = Path.write_bytes

    def full(self, content):
        if ".b2nd" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fills(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in run("-c", tiny_config, "-o", path).error
    assert not path.exists()


def test_names_that_are_one_on_this_disk(path, tmp_path):
    for name in ("P1", "p1"):
        for number, sequence in enumerate(SEQUENCES):
            save_nifti(tmp_path / "data" / name / f"{name}_{sequence}.nii.gz", blob(number))
    data = DataConfig(root=tmp_path / "data")
    masks = {"P1": 15, "p1": 15}
    path.mkdir()
    (path / ".LOCK").touch()  # as a disk that takes .lock and .LOCK for one shows it
    outcomes = dict(fill_store(data, masks, path))
    assert outcomes == {"P1": STORED, "p1": "on this disk its file would be that of P1"}
    (path / ".LOCK").unlink()
    assert dict(fill_store(data, masks, path)) == {"P1": KEPT, "p1": STORED}


def test_any_failure_of_a_library_is_a_subjects_defect(data, path, monkeypatch):
    whole = prepare_module.find_subject

    def broken(data, name, mask):
        if name == TINY_1:
            raise RuntimeError("a library's own trouble")
        return whole(data, name, mask)

    monkeypatch.setattr(prepare_module, "find_subject", broken)
    outcomes = dict(fill_store(data, ALL, path))
    said = "its files can't be used (RuntimeError: a library's own trouble)"
    assert outcomes == {**dict.fromkeys(ALL, STORED), TINY_1: said}


def test_a_store_is_one_runs_at_a_time(run, tiny_config, path):
    with claimed(path):
        error = run("-c", tiny_config, "-o", path).error
    assert error.startswith(f"{path} is in use: process {os.getpid()} on ")
    file = path.with_name("file")
    file.write_text("")
    assert run("-c", tiny_config, "-o", file).error.startswith(f"{file} is a file, but must be a")
