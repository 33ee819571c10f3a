"""Made-up tables and histories of evaluations: nothing is mixed up, nothing stale is kept."""

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, fields
from math import nan
from pathlib import Path
from typing import Any

import pytest
from conftest import SEQUENCES, blob, save_nifti
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.data.synthetic import is_marked_file
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.protocol import EvaluationProtocol, evaluate
from tsf_seq2seq.evaluation.record import Entry, Record, read_entries
from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.evaluation.statistics import Comparison
from tsf_seq2seq.evaluation.tumour import RegionScore
from tsf_seq2seq.explain.attention_gain import AttentionGain
from tsf_seq2seq.explain.error_estimation import CalibrationRow, ErrorRow
from tsf_seq2seq.explain.error_summary import TaskSummary
from tsf_seq2seq.explain.faithfulness import Agreement, Faithfulness
from tsf_seq2seq.explain.source_values import SourceValue
from tsf_seq2seq.explain.tsem import Finding
from tsf_seq2seq.synthesis.synthesizers import Outputs
from tsf_seq2seq.synthesis.windows import SubjectWindow
from tsf_seq2seq.tables import read_rows, rows_text, write_rows
from tsf_seq2seq.tasks import Task, missing_target_tasks

pytestmark = pytest.mark.property
KINDS = (
    *(Score, RegionScore, Comparison, ErrorRow, CalibrationRow, TaskSummary, Faithfulness),
    *(Agreement, AttentionGain, SourceValue, Finding),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
TEXTS |= st.sampled_from([",", '"', "\r", "\n", "\r\n", '"a', "a\tb", " ", "\ufeff", "nan"])
VALUES = {str: TEXTS, int: st.integers(-(10**12), 10**12), float: st.floats()}


def cells() -> st.SearchStrategy[tuple[int, list[list[Any]]]]:
    """The number of a kind of row, and rows of it that differ in their labels."""

    def rows(number: int) -> st.SearchStrategy[tuple[int, list[list[Any]]]]:
        kind = KINDS[number]
        row = st.tuples(*(VALUES[column.type] for column in fields(kind))).map(list)
        many = st.lists(row, max_size=4, unique_by=lambda own: tuple(map(str, own[: kind.LABELS])))
        return st.tuples(st.just(number), many)

    return st.integers(0, len(KINDS) - 1).flatmap(rows)


def bits(rows: list[Any]) -> list[list[Any]]:
    """Rows, with floats as the bits that they are of; one nan is as good as another."""
    return [
        [
            struct.pack("<d", nan if value != value else value)
            if isinstance(value, float)
            else value
            for value in astuple(row)
        ]
        for row in rows
    ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@given(cells())
@example((10, [["a\rb", "\r\n", "\n", 1.0, 2.0, 3.0, -0.0]]))
@example((0, [["\ufeff", "t1", "t2", "a", 5e-324, 1.7e308, float("inf"), nan]]))
def test_what_is_written_is_read(folder, drawn):
    number, rows = drawn
    kind, path = KINDS[number], folder / "rows.csv"
    wanted = [kind(*row) for row in rows]
    write_rows(path, kind, wanted)
    assert bits(read_rows(path, kind)) == bits(wanted)


ROWS = [
    ErrorRow(name, sources, "flair", "tsem", "brain", 9, 25.5, 0.1, 0.2, rho, 0.3, 0.5, nan)
    for name, rho in (("a", 0.2), ('b, "c"', 0.4))
    for sources in ("t1", "t1+t2")
]
TEXT = rows_text(ErrorRow, ROWS).encode()


def mutated(kind: str, place: int, value: int) -> bytes:
    """TEXT, cut, flipped, with a line twice or gone, or two columns of its heading swapped."""
    at, lines = place % len(TEXT), TEXT.splitlines(keepends=True)
    line = place % len(lines)
    if kind == "cut":
        return TEXT[:at]
    if kind == "flip":
        return TEXT[:at] + bytes([TEXT[at] ^ (value % 255 + 1)]) + TEXT[at + 1 :]
    if kind == "twice":
        return b"".join([*lines[:line], lines[line], *lines[line:]])
    if kind == "insert":
        return TEXT[:at] + bytes([value % 256]) + TEXT[at:]
    columns = lines[0].strip().split(b",")
    a, b = place % len(columns), value % len(columns)
    columns[a], columns[b] = columns[b], columns[a]
    return b"".join([b",".join(columns) + b"\n", *lines[1:]])


@given(
    st.sampled_from(["cut", "flip", "twice", "insert", "swapped"]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_damaged_tables(folder, kind, place, value):
    """Rows of the kind, each with labels of its own, or one sentence; lines never change owner."""
    path, content = folder / "damaged.csv", mutated(kind, place, value)
    path.write_bytes(content)
    try:
        found, told = read_rows(path, ErrorRow), ""
    except UserError as error:
        found, told = [], str(error)
    if told:
        assert told.startswith(f"{path} is not a table of ErrorRow rows: line ")
        return
    assert kind != "twice"
    keys = [astuple(row)[: ErrorRow.LABELS] for row in found]
    assert len(set(keys)) == len(keys)
    if kind == "cut":  # between two lines, where no table tells that more were to come
        assert bits(found) == bits(ROWS[: len(found)])
        assert content.endswith(b"\n")
    else:
        assert len(found) == len(ROWS)


# --- the record


@given(st.integers(0, 10**6), st.integers(0, 7), st.booleans())
def test_damaged_records(folder, place, bit, cut):
    """Entries are those that were written, or none: never others."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    record = Record(folder / "run" / "x.json", {}, folder / "run" / "x.csv")
    entries = {
        f"subject {n}": Entry({"t1": str(n)}, [[n, nan]], {"predict/a": "b"}) for n in range(3)
    }
    for name, entry in entries.items():
        record.begin(name, ["predict/a"])
        record.finish(name, entry)
    content = bytearray(record.path.read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    record.path.write_bytes(bytes(content))
    for name, entry in read_entries(folder / "run" / "x.json").items():
        if entry.results is not None:
            assert repr(entry) == repr(entries[name])


# --- histories of an evaluation

SETTINGS = """
data:
  root: {root}
  test: {root}/test.csv
  slices: 4
  crop: [8, 8]
network:
  name: seq2seq
"""
SUBJECTS = ("P1", "P2", "p-3")
MASKS = (14, 10, 1)
SHAPE = (8, 8, 4)


class Stop(Exception):
    """A process that was killed."""


class Doubling:
    """The sources' mean, changed a little: a method without network."""

    names = ("doubling",)

    def predict(self, loaded: SubjectWindow, tasks: list[Task]) -> Outputs:
        return {
            ("doubling", task): 0.9 * loaded.centres[list(task.sources)].mean(axis=0)
            for task in tasks
        }


class History(RuleBasedStateMachine):
    """Whatever happened between runs and in them, a run's results are those of a new folder."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.seed = 0
        self.masks = dict.fromkeys(SUBJECTS[:2], MASKS[0])
        self.limit, self.with_files = len(SUBJECTS), True
        (self.place / "settings.yaml").write_text(SETTINGS.format(root=self.place / "data"))
        self.config: Config = load_config(self.place / "settings.yaml")
        for name in SUBJECTS:
            for sequence in SEQUENCES:
                self.scan(name, sequence)

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def scan(self, name: str, sequence: str) -> None:
        self.seed += 1
        voxels = blob(self.seed, SHAPE) + 50
        save_nifti(self.place / "data" / name / f"{name}_{sequence}.nii.gz", voxels)

    @rule(name=st.sampled_from(SUBJECTS), sequence=st.sampled_from(SEQUENCES))
    def another_scan(self, name: str, sequence: str) -> None:
        self.scan(name, sequence)

    @rule(name=st.sampled_from(SUBJECTS), mask=st.sampled_from(MASKS))
    def another_mask(self, name: str, mask: int) -> None:
        self.masks[name] = mask

    @precondition(lambda self: len(self.masks) > 1)
    @rule(number=st.integers(0, 2))
    def one_less(self, number: int) -> None:
        del self.masks[list(self.masks)[number % len(self.masks)]]

    @rule()
    def turned_around(self) -> None:
        self.masks = dict(reversed(self.masks.items()))

    @rule(number=st.integers(0, 20), text=st.sampled_from([None, b"", b"other"]))
    def a_prediction_changes(self, number: int, text: bytes | None) -> None:
        found = sorted((self.place / "out").glob("predict/*"))
        if found and text is None:
            found[number % len(found)].unlink()
        elif found:
            found[number % len(found)].write_bytes(text or b"")

    @rule(place=st.integers(0, 10**6), file=st.sampled_from(["metrics.csv", "evaluation.record"]))
    def a_file_is_cut(self, place: int, file: str) -> None:
        path = self.place / "out" / file
        if path.exists():
            content = path.read_bytes()
            path.write_bytes(content[: place % (len(content) + 1)])

    @rule(writes=st.integers(1, 12), limit=st.integers(1, 3), with_files=st.booleans())
    def a_run_is_killed(self, writes: int, limit: int, with_files: bool) -> None:
        self.limit, self.with_files = limit, with_files
        try:
            self.run("out", writes)
        except Stop:
            return
        self.compare()

    @rule(limit=st.integers(1, 3), with_files=st.booleans())
    def a_run(self, limit: int, with_files: bool) -> None:
        self.limit, self.with_files = limit, with_files
        self.run("out")
        self.compare()

    def run(self, folder: str, writes: int = 0) -> None:
        """Evaluate; the process is killed in a write if `writes` says in which."""
        calls = []

        def sync(*_: object) -> None:
            calls.append(None)
            if len(calls) == writes:
                raise Stop

        config = self.config
        rows = "".join(f"{name},{mask}\n" for name, mask in self.masks.items())
        config.data.test.write_text(rows)
        subjects = find_subjects(config.data, config.data.test)[: self.limit]
        protocol = EvaluationProtocol(
            missing_target_tasks, [Doubling()], None, {"methods": ["doubling"]}, self.with_files
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            patch.setattr("tsf_seq2seq.evaluation.protocol.plot_examples", lambda *_: None)
            patch.setattr("tsf_seq2seq.evaluation.protocol.tqdm", Silent)
            evaluate(config, subjects, protocol, self.place / folder)

    def compare(self) -> None:
        shutil.rmtree(self.place / "clean", ignore_errors=True)
        self.run("clean")
        out, clean = self.place / "out", self.place / "clean"
        assert (out / "metrics.csv").read_bytes() == (clean / "metrics.csv").read_bytes()
        asked = list(self.masks)[: self.limit]
        wanted = {path.name: path.read_bytes() for path in clean.glob("predict/*")}
        found = {path.name: path.read_bytes() for path in out.glob("predict/*")}
        marked = {path.name for path in out.glob("predict/*") if is_marked_file(path)}
        found = {n: own for n, own in found.items() if n.split("_")[0] in asked and n in marked}
        if self.with_files:
            assert found == wanted


class Silent:
    """No progress bar."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, _: int) -> None: ...


TestHistory = History.TestCase
TestHistory.settings = settings(stateful_step_count=12)


def test_a_lost_record_leaves_no_prediction_of_former_tasks():
    """Found by the machine above."""
    history = History()
    history.a_run(limit=1, with_files=True)
    history.a_file_is_cut(place=0, file="evaluation.record")
    history.another_mask(name="P1", mask=10)
    history.a_run(limit=1, with_files=True)
    history.teardown()
