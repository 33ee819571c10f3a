"""Files whole or not there, together or not at all; one run a folder; contents told apart."""

import gzip
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.files.folder import LOCK, claimed
from tsf_seq2seq.files.writing import (
    JOURNAL,
    remove_leftovers,
    roll_back,
    staged,
    write_atomically,
    write_text,
    write_together,
)


def content(folder: Path) -> dict[str, str]:
    """Every file's text, by its path; hidden ones, too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def text(words: str):
    return lambda path: path.write_text(words)


def failing(path: Path) -> None:
    path.write_text("half")
    raise OSError("no space left on device")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds the earlier results a and below/b."""
    write_text(tmp_path / "a", "old a")
    write_text(tmp_path / "below" / "b", "old b")
    return tmp_path


# --- several files together


def test_files_change_together(folder):
    writes = {folder / "a": text("new a"), folder / "c": text("new c")}
    write_together(folder, writes, removed=(folder / "below" / "b",))
    assert content(folder) == {"a": "new a", "c": "new c"}


def test_no_file_changes_where_one_cannot_be_written(folder):
    before = content(folder)
    with pytest.raises(UserError, match="no space left"):
        write_together(folder, {folder / "a": text("new a"), folder / "c": failing})
    assert content(folder) == before


def test_no_file_changes_where_one_cannot_be_replaced(folder, monkeypatch):
    before, rename = content(folder), Path.rename
    for fails in range(1, 5):  # two old files away, two new ones into their places
        calls = []

        def sometimes(self, target, fails=fails, calls=calls):
            calls.append(target)
            if len(calls) == fails:
                raise OSError("refused")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", sometimes)
        writes = {folder / "a": text("new a"), folder / "below" / "b": text("new b")}
        with pytest.raises(UserError, match="refused"):
            write_together(folder, writes)
        assert len(calls) == fails
        assert content(folder) == before


def test_staged_files_change_together_or_not_at_all(folder):
    before = content(folder)

    def fail() -> None:
        with staged(folder) as staging:
            write_text(staging / "a", "new a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(folder) == before
    (folder / ".staging").mkdir()
    write_text(folder / ".staging" / "of a killed run", "")
    with staged(folder) as staging:
        write_text(staging / "a", "new a")
        write_text(staging / "new" / "c", "new c")
        assert content(folder).items() > before.items()
    assert content(folder) == before | {"a": "new a", "new/c": "new c"}
    (folder / ".staging").mkdir()
    with claimed(folder):
        assert not (folder / ".staging").exists()


def killed_while_replacing(folder: Path, at: int) -> None:
    rename, calls = Path.rename, []

    def deadly(self, target):
        calls.append(target)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.rename = deadly  # type: ignore[method-assign]
    writes = {folder / "a": text("new a"), folder / "c": text("new c")}
    write_together(folder, writes, removed=(folder / "below" / "b",))


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_the_next_run_brings_back_what_a_killed_one_had_begun_to_replace(folder, at):
    before = content(folder)
    process = multiprocessing.get_context("fork").Process(
        target=killed_while_replacing, args=(folder, at)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert content(folder) != before
    with claimed(folder):
        pass
    assert content(folder) == before


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "below/../../outside"])
def test_a_journal_reaches_nothing_outside_its_folder(tmp_path, name):
    folder = tmp_path / "folder"
    write_text(tmp_path / "outside", "precious")
    write_text(folder / JOURNAL, json.dumps({name: None}))
    with pytest.raises(UserError, match="outside"):
        roll_back(folder)
    assert (tmp_path / "outside").read_text() == "precious"


@pytest.mark.parametrize("damage", ["{", "[1]", '{"a": 3}', "\0"])
def test_a_damaged_journal_is_told(folder, damage):
    (folder / JOURNAL).write_text(damage)
    with pytest.raises(UserError, match=re.escape(str(folder / JOURNAL))):
        roll_back(folder)


# --- what killed runs left


def test_leftovers_are_removed_but_those_of_living_writers_and_other_files_stay(folder):
    orphan = folder / "below" / ".image.abcd1234.unfinished.gz"
    others = [folder / ".hidden.unfinished", folder / "x.abcd1234.unfinished.gz"]
    for path in (orphan, *others):
        path.write_text("")

    def write(temporary: Path) -> None:
        remove_leftovers(folder)
        assert temporary.exists()
        temporary.write_text("whole")

    write_atomically(folder / "image.nii.gz", write)
    assert (folder / "image.nii.gz").read_text() == "whole"
    assert not orphan.exists()
    assert all(path.exists() for path in others)


# --- one run a folder

HOLDER = """
import sys, time
from pathlib import Path
from tsf_seq2seq.files.folder import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed tmp_path."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_whose_the_folder_is_and_since_when(holder, tmp_path):
    with pytest.raises(UserError) as error, claimed(tmp_path):
        pass
    said = str(error.value)
    assert said.startswith(f"{tmp_path} is in use: process {holder.pid} on ")
    assert time.strftime("since %Y-%m-%d") in said
    assert str(tmp_path) in said.partition("(")[2]  # its command
    assert (tmp_path / LOCK).exists()


def test_a_killed_run_gives_its_folder_back(holder, tmp_path):
    holder.kill()
    holder.wait()
    with claimed(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_claimed_in_vain_is_gone_again(tmp_path):
    with pytest.raises(UserError), claimed(tmp_path / "new" / "folder"):
        raise UserError("bad input")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_told(tmp_path):
    write_text(tmp_path / "file", "")
    with (
        pytest.raises(UserError, match="is a file, but must be a folder"),
        claimed(tmp_path / "file"),
    ):
        pass
    with pytest.raises(UserError, match="can't be made"), claimed(tmp_path / "file" / "below"):
        pass


# --- contents and names


def test_fingerprints_tell_contents_apart_and_not_names_or_times(tmp_path):
    first, copy, other = (tmp_path / f"{name}.nii.gz" for name in ("first", "copy", "other"))
    first.write_bytes(gzip.compress(b"voxels" * 100, mtime=0))
    copy.write_bytes(first.read_bytes())
    os.utime(copy, (1, 1))
    other.write_bytes(gzip.compress(b"vexels" * 100, mtime=0))
    assert first.stat().st_size == other.stat().st_size
    assert fingerprint(first) == fingerprint(copy) != fingerprint(other)
    for path in (first, other):
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert fingerprint(first) != fingerprint(other)
    with pytest.raises(UserError, match=r"none can't be read"):
        fingerprint(tmp_path / "none")


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("a\x1b[2Jb\x07 \u202e\udcff\nΩ ü") == r"a\x1b[2Jb\x07 \u202e\udcff Ω ü"
