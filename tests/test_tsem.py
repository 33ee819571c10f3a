"""TSEM: against the reference and the network's own, on disk, in numbers, and choice of cases."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, SEQUENCES, blob, save_nifti, sequence_file
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tsf_seq2seq.checkpoints.checkpoint import load_model
from tsf_seq2seq.cli.explain import map_tsem
from tsf_seq2seq.data.loading import Subject, load_subject
from tsf_seq2seq.data.nifti import read_image, read_volume
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.data.statistics import evenly_spaced
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.scores import Score, write_scores
from tsf_seq2seq.explain.tsem import (
    Finding,
    finding_table,
    parse_task,
    possible_cases,
    rank_correlation,
    scored_cases,
    window_maps,
)
from tsf_seq2seq.explain.tsem_figure import Picture, tsem_figure
from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.tasks import Task, mask_to_sequences

SHAPE = (24, 20, 12)
INNER = (slice(1, 11), slice(2, 18), slice(4, 20))  # centre slices of the crop, in (z, y, x)
FILES = {i: Path(f"{name}.nii") for i, name in enumerate(SEQUENCES)}


def subject(name: str, available: tuple[int, ...], on_disk: tuple[int, ...] = (0, 1, 2, 3)):
    return Subject(name, available, {i: FILES[i] for i in on_disk})


def score(name: str, sources: str, target: str, value: float, method: str = "tsf") -> Score:
    return Score(name, sources, target, method, value, 0.9, float("nan"), float("nan"))


# --- the maps


def test_reference_outputs(reference_model, expected):
    """TSEM from the authors' outputs with and without f_A, centre slice, all 60 tasks."""
    window = expected["images"][:, 0, 0]  # (4, 3, 40, 32): one stack of three slices
    tasks = [Task(mask_to_sequences(int(m), 4), int(target)) for m, target in expected["tasks"]]
    maps = window_maps(reference_model, window, tasks, 8)
    refined, plain = (expected[f"tsf_out{end}"][:, 1] for end in ("", "_without_attention"))
    for number, task in enumerate(tasks):
        synthesis, tsem = maps.syntheses[task], maps.tsem[task]
        assert synthesis.shape == tsem.shape == (1, 40, 32)
        np.testing.assert_allclose(synthesis[0], refined[number], rtol=0, atol=5e-5)
        wanted = np.abs(refined[number] - plain[number])
        np.testing.assert_allclose(tsem[0], wanted, rtol=0, atol=5e-5)


def test_rank_correlation():
    """By hand: 1 − 6 Σd² / (n (n² − 1)), d² = 1 + 1 + 0 + 0."""
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, np.array([20.0, 10.0, 30.0, 1e9])) == pytest.approx(0.8)
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, np.ones(4)))
    assert np.isnan(rank_correlation(a[:1], a[:1]))


# --- cases


def test_parse_task():
    assert parse_task("t1+t2:flair", SEQUENCES) == Task((0, 2), 3)
    assert parse_task("flair+t1:t1", SEQUENCES) == Task((0, 3), 0)


@pytest.mark.parametrize("text", ["t1", "t1:", ":t1", "t1+pd:t2", "t1+t1:t2", "t1:t2:t2", ""])
def test_parse_task_refuses(text):
    with pytest.raises(UserError, match="must be sources and target, such as t1"):
        parse_task(text, SEQUENCES)


def test_possible_cases():
    subjects = [subject("a", (0, 2)), subject("b", (3,), (1, 3)), subject("c", (0, 1, 2, 3))]
    found = [(case.subject.name, case.task) for case in possible_cases(subjects)]
    assert found == [("a", Task((0, 2), 1)), ("a", Task((0, 2), 3)), ("b", Task((3,), 1))]
    cases = possible_cases(subjects, [Task((3,), 1), Task((0,), 2)])
    assert [case.subject.name for case in cases] == ["a", "a", "b", "c", "c"]


def test_evenly_spaced():
    assert evenly_spaced(5, 3) == [0, 2, 4]
    assert evenly_spaced(6, 3) == [0, 2, 5]
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(2, 3) == [0, 1]
    assert evenly_spaced(7, 1) == [0]
    assert evenly_spaced(0, 3) == []


def test_best_median_and_worst():
    scores = [
        score("a", "t1", "t2", 25.0),
        score("a", "t1", "flair", 31.0),
        score("b", "t1+t2", "flair", 28.0),
        score("b", "t1+t2", "t1ce", 20.0),
        score("b", "t1+t2", "t1ce", 10.0, "tsf_without_attention"),
        score("a", "t1", "t1ce", float("nan")),
        score("elsewhere", "t1", "t2", 99.0),
        score("c", "t1", "t1ce", 29.0),
    ]
    subjects = [subject("a", (0,)), subject("b", (0, 2)), subject("c", (0,))]

    def chosen(*tasks: Task, count: int = 3, of: list[Subject] = subjects):
        cases = scored_cases(scores, of, tasks, SEQUENCES, count)
        return [(case.subject.name, *case.task.label(SEQUENCES)) for case in cases]

    best, median = ("a", "t1", "flair"), ("b", "t1+t2", "flair")
    worst = ("b", "t1+t2", "t1ce")
    assert chosen() == [best, median, worst]  # of 31, 29, 28, 25, 20
    assert chosen(count=2) == [best, worst]
    assert len(chosen(count=10)) == 5
    assert chosen(Task((0, 2), 3), Task((0, 2), 1)) == [median, worst]
    assert chosen(of=subjects[2:]) == [("c", "t1", "t1ce")]
    assert chosen(Task((0, 1), 2)) == []


# --- figure and table


def test_finding_table():
    found = [
        Finding("a", "t1+t2", "flair", 28.123, 0.01, 0.1, 0.5),
        Finding("b", "t1", "t2", 9.0, 0.0, 0.2, float("nan")),
    ]
    assert finding_table(found).markdown().splitlines()[4:] == [
        "| a       | t1+t2   | flair  | 28.12     | 0.0100 | 0.1000 | 0.500    |",
        "| b       | t1      | t2     | 9.00      | 0.0000 | 0.2000 | –        |",
    ]


def test_figure():
    rng = np.random.default_rng(0)
    target, synthesis, tsem = rng.uniform(-1, 1, (3, 12, 10))
    lesion = np.zeros((12, 10), bool)
    lesion[4:8, 4:8] = True
    rows = [
        Picture("a", target, synthesis, np.abs(tsem), lesion),
        Picture("b", synthesis, target, np.zeros((12, 10)), None),
    ]
    figure = tsem_figure(rows)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels[:4]] == ["target", "synthesis", "|error|", "TSEM"]
    shown = [np.asarray(axes.images[0].get_array()) for axes in panels]
    wanted = [target, synthesis, np.abs(synthesis - target), np.abs(tsem)]
    wanted += [synthesis, target, wanted[2], np.zeros((12, 10))]
    for image, values in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(image, values)
    ranges = [axes.images[0].get_clim() for axes in panels]
    largest = np.percentile([wanted[2], wanted[6]], 99.5)
    assert ranges[2] == ranges[6] == (0, pytest.approx(largest))
    assert ranges[3] == ranges[7]  # one colour bar for all rows
    tsem_figure(rows[1:])  # a TSEM of nothing but 0 has a colour bar too


@pytest.mark.parametrize(
    "sources", ["t1 + t1ce + flair", "t1 + t1ce + t2 + flair + pd + t1_inversion + dir"]
)
def test_labels_fit_beside_the_pictures(sources):
    image = np.zeros((12, 10))
    label = "\n".join(["sub-0123_session-before-therapy", sources, "→ t2star", "27.1 dB"])
    figure = tsem_figure([Picture(label, image, image, image, None)])
    canvas = FigureCanvasAgg(figure)
    (text,) = figure.axes[0].texts
    assert text.get_text().replace("\n", "").replace(" ", "") == label.replace("\n", "").replace(
        " ", ""
    )
    box = text.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0


# --- the script


@pytest.fixture
def run(script):
    return partial(script, map_tsem)


def rows_of(output: Path) -> list[dict[str, str]]:
    with open(output / "tsem.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("turned", [False, True])
def test_script(run, stage_2, tiny_dataset, tmp_path, turned):
    """Subject 3's mask 10 = 1010 gives t1 and t2; t1ce and flair are the missing targets."""
    affine = np.diag([-1.0, 1, 1, 1]) if turned else LPS_AFFINE
    labels = np.zeros(SHAPE, np.int16)
    labels[10:14, 8:12, 4] = 4
    for i, sequence in enumerate(SEQUENCES):
        save_nifti(sequence_file(tiny_dataset, 3, sequence), blob(30 + i), affine)
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), labels, affine)
    outcome = run("-l", stage_2, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    model = load_model(stage_2)
    assert isinstance(model, TSFSeq2Seq)
    files = {i: sequence_file(tiny_dataset, 3, name) for i, name in enumerate(SEQUENCES)}
    whole = load_subject(Subject("Tiny_00003", (0, 2), files), 12, 4).images
    images = whole[..., INNER[1], INNER[2]]
    batch = torch.from_numpy(stacks(images, 3).swapaxes(0, 1).copy())  # (10, 4, 3, 16, 16)
    available = [True, False, True, False]
    brain = (images[[0, 2], 1:11] > -1).any(axis=0)
    for row, target in zip(rows_of(tmp_path / "out"), (1, 3), strict=True):
        with torch.inference_mode():
            wanted = model.enhanced_map(batch, available, target).numpy()
            synthesis = model(batch, available, target)[:, 1].numpy()
        path = tmp_path / "out" / f"Tiny_00003_{SEQUENCES[target]}_from_t1+t2_tsem.nii.gz"
        np.testing.assert_array_equal(read_image(path).affine, affine)
        voxels, geometry = read_volume(path)
        volume = geometry.to_network(voxels)
        np.testing.assert_allclose(volume[INNER], wanted, rtol=0, atol=1e-6)
        assert volume[INNER].max() > 1e-4
        outside = volume.copy()
        outside[INNER] = 0
        assert (outside == 0).all()
        error = np.abs(synthesis - images[target, 1:11])
        assert (row["name"], row["sources"]) == ("Tiny_00003", "t1+t2")
        assert row["target"] == SEQUENCES[target]
        numbers = [float(row[key]) for key in ("psnr", "mean_tsem", "mean_error", "spearman")]
        means = [wanted[brain].mean(), error[brain].mean()]
        rho = rank_correlation(wanted[brain], error[brain])
        expected = [psnr(images[target, 1:11], synthesis), *means, rho]
        np.testing.assert_allclose(numbers, expected, rtol=1e-3, atol=1e-5)
    assert "| Tiny_00003 | t1+t2   | t1ce   |" in outcome.out
    assert (tmp_path / "out" / "tsem.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out" / "tsem.png").read_bytes().startswith(b"\x89PNG")


def test_script_with_tasks_and_metrics(run, stage_2, tmp_path):
    output = tmp_path / "tasks"
    outcome = run(
        "-l", stage_2, "-o", output, "--task", "flair:t1", "--task", "t1:t1", "--cases", 1
    )
    assert outcome.code == 0, outcome.err
    assert [(row["sources"], row["target"]) for row in rows_of(output)] == [
        ("flair", "t1"),
        ("t1", "t1"),
    ]
    scores = [score("Tiny_00003", "t1+t2", "t1ce", 20.0), score("Tiny_00003", "t1", "flair", 30.0)]
    write_scores(tmp_path / "metrics.csv", scores)
    output = tmp_path / "best"
    metrics = ["--metrics", tmp_path / "metrics.csv", "--cases", 1]
    outcome = run("-l", stage_2, "-o", output, *metrics)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in output.iterdir()} == {
        *("Tiny_00003_flair_from_t1_tsem.nii.gz", "tsem.csv", "tsem.pdf", "tsem.png")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subjects", "Nobody"], "names no subject Nobody"),
        (["--task", "t1:pd"], "task 't1:pd' must be sources and target"),
        (["--metrics", "nothing.csv"], "nothing.csv does not exist"),
    ],
)
def test_mistakes(run, stage_2, tmp_path, arguments, message):
    assert message in run("-l", stage_2, "-o", tmp_path / "out", *arguments).error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "number"), [("max-subjects", 0), ("batch-size", -1), ("cases", 0)]
)
def test_numbers_below_one(run, stage_2, tmp_path, option, number):
    outcome = run("-l", stage_2, "-o", tmp_path / "out", f"--{option}", number)
    assert outcome.code == 2
    message = f"argument --{option}: invalid whole number from 1 value: '{number}'"
    assert outcome.err[-1].endswith(message)


def test_no_case(run, stage_2, tiny_dataset, tmp_path):
    (tiny_dataset / "test.csv").write_text("Tiny_00003,15\n")
    error = run("-l", stage_2, "-o", tmp_path / "out").error
    assert error.endswith("test.csv gives a case with these options")
