"""TSEM as error estimate: rankings, sparsification and calibration by hand; rivals; the script."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti, sequence_file
from scipy.stats import rankdata, spearmanr

from tsf_seq2seq.checkpoints.checkpoint import load_model
from tsf_seq2seq.cli.trust import check_error_estimates
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.regions import brain_mask, error_regions
from tsf_seq2seq.evaluation.statistics import over_subjects
from tsf_seq2seq.explain import shading
from tsf_seq2seq.explain.error_estimation import (
    ErrorRow,
    gradient_magnitude,
    synthesized,
)
from tsf_seq2seq.explain.ranking import (
    CLASSES,
    REMOVED,
    Ranking,
    area_between,
    calibration,
    classes,
    joint_counts,
    pooled_spearman,
    sparsification_curve,
    spearman,
)
from tsf_seq2seq.explain.shading import unshaded_error
from tsf_seq2seq.explain.tsem import window_maps
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, source_sets


def ause(estimate: np.ndarray, error: np.ndarray) -> float:
    oracle = sparsification_curve(Ranking.of(error), error)
    return area_between(sparsification_curve(Ranking.of(estimate), error), oracle)


# --- rankings


def test_ranks_and_ties():
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    ranking = Ranking.of(values)
    np.testing.assert_array_equal(ranking.ranks(), [4, 1, 4, 2, 4])
    np.testing.assert_allclose(ranking.expected(np.array([9.0, 5, 0, 7, 3])), [5, 7, 4, 4, 4])


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 30, (2, 500)).astype(np.float32)
    np.testing.assert_array_equal(Ranking.of(a).ranks(), rankdata(a))
    assert spearman(Ranking.of(a), Ranking.of(b)) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(Ranking.of(a), Ranking.of(-a)) == pytest.approx(-1)
    assert np.isnan(spearman(Ranking.of(a), Ranking.of(np.ones(500))))


def test_sparsification_by_hand():
    """Errors 1 to 20, one voxel removed at each step: the largest first, the means of 1 … k."""
    error = np.arange(1.0, 21)
    np.testing.assert_allclose(
        sparsification_curve(Ranking.of(error), error), (np.arange(20, 0, -1) + 1) / 2
    )
    # the smallest first: the means of 20 − k + 1 … 20
    np.testing.assert_allclose(
        sparsification_curve(Ranking.of(-error), error), (41 - np.arange(20, 0, -1)) / 2
    )


def test_ause():
    """0 for a perfect order; a constant estimate is the random order, whatever the voxels' order.

    With errors 1 to 20 the oracle falls from 10.5 to 1 in a line, the random order stays at 10.5,
    the reverse one rises to 20: areas 0.95 · 9.5 / 2 and twice that, over the mean 10.5.
    """
    error = np.arange(1.0, 21)
    assert ause(error, error) == 0
    assert ause(error**3, error) == 0
    random = 0.95 * 9.5 / 2 / 10.5
    for order in (error, error[::-1], np.random.default_rng(0).permutation(error)):
        assert ause(np.ones(20), order) == pytest.approx(random)
    assert ause(-error, error) == pytest.approx(2 * random)
    assert np.isnan(ause(error, np.zeros(20)))


def test_partial_ties_are_expected_values():
    """Two tied groups: the mean over many random orders of the tied voxels."""
    rng = np.random.default_rng(0)
    error = rng.exponential(size=40)
    estimate = np.repeat([0.0, 1.0], 20)
    drawn = [
        sparsification_curve(Ranking.of(estimate + rng.uniform(0, 0.5, 40)), error)
        for _ in range(4000)
    ]
    np.testing.assert_allclose(
        sparsification_curve(Ranking.of(estimate), error), np.mean(drawn, axis=0), rtol=0.02
    )


def test_calibration():
    estimate = np.arange(20.0)[::-1]
    parts = calibration(Ranking.of(estimate), estimate, 2 * estimate)
    assert parts == [(2, 2 * n + 0.5, 4 * n + 1) for n in range(10)]
    three = np.array([1.0, 1.0, 2.0])
    assert calibration(Ranking.of(three), three, np.array([0.0, 4, 9])) == [
        (1, 1, 2),
        (1, 1, 2),
        (1, 2, 9),
    ]


def test_pooled_spearman():
    """Of two subjects' counts: scipy's on the classes of all their voxels."""
    rng = np.random.default_rng(0)
    a = rng.exponential(0.1, (2, 300)).astype(np.float32)
    b = (a * rng.uniform(0, 2, (2, 300))).astype(np.float32)
    counts = sum(joint_counts(classes(x), classes(y)) for x, y in zip(a, b, strict=True))
    assert counts.shape == (CLASSES, CLASSES)
    assert counts.sum() == 600
    wanted = spearmanr(classes(a.ravel()), classes(b.ravel())).statistic
    assert pooled_spearman(counts) == pytest.approx(wanted)
    assert pooled_spearman(counts) == pytest.approx(spearmanr(a.ravel(), b.ravel())[0], abs=0.01)
    np.testing.assert_array_equal(
        classes(np.float32([0, 5e-5, 1e-4, 1.9, 2, 3])), [0, 0, 1, 62, 63, 63]
    )
    assert np.isnan(pooled_spearman(np.eye(CLASSES, dtype=int)[:1].repeat(CLASSES, 0)))


# --- regions and estimates


def test_regions():
    """A tumour of one voxel: its rim is the cube of 7³ around it without itself."""
    labels = np.zeros((9, 11, 13), int)
    labels[4, 5, 6] = 2
    brain = np.ones(labels.shape, bool)
    regions = error_regions(brain, labels)
    assert {name: int(mask.sum()) for name, mask in regions.items()} == {
        "brain": 1287,
        "tumour": 1,
        "rim": 342,
        "healthy": 1286,
    }
    brain[:, :, 7:] = False
    assert error_regions(brain, labels)["rim"].sum() == 7 * 7 * 4 - 1
    assert list(error_regions(brain, None)) == ["brain"]
    assert list(error_regions(brain, np.zeros_like(labels))) == ["brain", "healthy"]
    images = np.full((2, 1, 1, 3), -1.0)
    images[0, 0, 0, 1] = images[1, 0, 0, 2] = -0.9
    np.testing.assert_array_equal(brain_mask(images), [[[False, True, True]]])


def test_gradient():
    """By hand of x + 2y + 2z: √(1 + 4 + 4)."""
    z, y, x = np.mgrid[:4, :5, :6].astype(float)
    np.testing.assert_allclose(gradient_magnitude(x + 2 * y + 2 * z), 3)
    np.testing.assert_allclose(gradient_magnitude((x + 2 * y)[:1]), 5**0.5)


def test_estimates(stage_2):
    network = load_model(stage_2)
    window = np.random.default_rng(0).uniform(-1, 1, (4, 5, 16, 16)).astype(np.float32)
    task, single = Task((0, 2, 3), 1), Task((2,), 1)
    assert [own.sources for own in source_sets(task)] == [
        *((0,), (2,), (3,), (0, 2), (0, 3), (2, 3), (0, 2, 3))
    ]
    found = {own.task: own for own in synthesized(network, window, [task, single], 8)}
    maps = window_maps(network, window, source_sets(task), 8)
    for own in (task, single):
        np.testing.assert_array_equal(found[own].synthesis, maps.syntheses[own])
        np.testing.assert_array_equal(found[own].estimates["tsem"], maps.tsem[own])
    outputs = np.stack([*maps.syntheses.values()])
    assert outputs.shape == (7, 3, 16, 16)
    np.testing.assert_allclose(
        found[task].estimates["disagreement"], outputs.std(axis=0), rtol=1e-4, atol=1e-6
    )
    assert "disagreement" not in found[single].estimates


def test_errors_beyond_shading(monkeypatch):
    """A target that is the synthesis under a gain and an offset that vary with place as cubic
    polynomials, and noise: of the error the noise is left, however many voxels come at a time."""
    rng = np.random.default_rng(0)
    synthesis, noise = rng.uniform(-1, 1, (2, 12, 14, 16))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in synthesis.shape), indexing="ij")
    noise *= 0.01
    target = synthesis * (1 + 0.3 * x - 0.2 * y * z) + 0.1 - 0.2 * z**3 + noise
    brain = x**2 + y**2 + z**2 < 1.5
    left = unshaded_error(target, synthesis, brain)
    assert np.abs(target - synthesis)[brain].mean() > 0.1
    assert left.mean() == pytest.approx(np.abs(noise)[brain].mean(), rel=0.05)
    assert spearman(Ranking.of(left), Ranking.of(np.abs(noise)[brain])) > 0.95
    monkeypatch.setattr(shading, "TOGETHER", 100)
    np.testing.assert_array_equal(unshaded_error(target, synthesis, brain), left)
    monkeypatch.setattr(shading, "FITTED", 500)  # a fit of fewer voxels is nearly the same
    np.testing.assert_allclose(unshaded_error(target, synthesis, brain), left, atol=0.02)


def test_a_subjects_tasks_are_averaged_first():
    def row(name: str, value: float) -> ErrorRow:
        return ErrorRow(name, "t1", "t2", "tsem", "brain", 9, 20, 0.1, 0.1, value, 0, 1, 0)

    rows = [row("a", 0.1), row("a", 0.3), row("b", 0.6), row("b", float("nan"))]
    assert over_subjects(rows, lambda row: row.spearman).mean == pytest.approx(0.4)


# --- the script


@pytest.fixture
def run(script):
    return partial(script, check_error_estimates)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_script(run, stage_2, tiny_config, tiny_dataset, tmp_path):
    labels = np.zeros((24, 20, 12), np.int16)
    labels[10:14, 8:12, 4:6] = 4
    save_nifti(sequence_file(tiny_dataset, 3, "seg"), labels)
    output = tmp_path / "out"
    outcome = run("-l", stage_2, "-o", output, "--targets", "flair", "t1ce", "--max-subjects", 1)
    assert outcome.code == 0, outcome.err
    rows = rows_of(output / "error_estimation.csv")
    regions = ["brain", "tumour", "rim", "healthy"]
    assert len(rows) == 2 * (3 * 2 + 4 * 3) * len(regions)  # one source has no disagreement
    config = load_config(tiny_config)
    loaded = load_window(config, find_subjects(config.data, config.data.test)[0])
    task = Task((0, 2), 3)
    network = load_model(stage_2)
    maps = window_maps(network, loaded.images, [task], 8)
    synthesis, tsem = maps.syntheses[task], maps.tsem[task]
    wanted, brain = loaded.centres[3], (loaded.centres > -1).any(axis=0)
    error = np.abs(synthesis - wanted)[brain]
    mine = [
        r for r in rows if (r["sources"], r["target"], r["estimator"]) == ("t1+t2", "flair", "tsem")
    ]
    assert [r["region"] for r in mine] == regions
    numbers = {key: float(value) for key, value in mine[0].items() if value[0] in "-0123456789"}
    assert numbers["voxels"] == brain.sum()
    assert numbers["psnr"] == pytest.approx(psnr(wanted, synthesis))
    assert numbers["mean_estimate"] == pytest.approx(tsem[brain].mean(), rel=1e-4)
    assert numbers["mean_error"] == pytest.approx(error.mean(), rel=1e-5)
    assert numbers["spearman"] == pytest.approx(spearmanr(tsem[brain], error).statistic, abs=1e-4)
    assert numbers["ause"] == pytest.approx(ause(tsem[brain], error), abs=1e-4)
    blocks = (np.arange(16)[:, None] // 10 * 2 + np.arange(16) // 10) * np.ones((10, 1, 1))
    blocks = blocks[brain]  # of 1 cm³: the window is 10 × 16 × 16 mm³
    large = [n for n in range(4) if (blocks == n).sum() >= 500]
    assert len(large) == 3
    unshaded = unshaded_error(wanted, synthesis, brain)
    for name, values in {"": error, "_unshaded": unshaded}.items():
        means = [[own[blocks == n].mean() for n in large] for own in (tsem[brain], values)]
        agreed = spearmanr(*means).statistic
        assert numbers[f"spearman_blocks{name}"] == pytest.approx(agreed, abs=1e-6)
    assert numbers["ause_relative"] == pytest.approx(numbers["ause"] / numbers["ause_random"])
    assert [int(r["voxels"]) for r in mine[1:]] == [
        int(mask.sum()) for name, mask in error_regions(brain, in_window(labels)).items()
    ][1:]
    check_curves_and_counts(output, numbers)
    assert "| 3      | disagreement of source sets | 1        |" in outcome.out


def of_tsem(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of TSEM on t1+t2 → flair."""
    key = ("t1+t2", "flair", "tsem")
    return [row for row in rows if (row["sources"], row["target"], row["estimator"]) == key]


def in_window(labels: np.ndarray) -> np.ndarray:
    """Labels (x, y, z) on the centre slices of the tiny window, (z, y, x)."""
    return labels.transpose(2, 1, 0)[1:11, 2:18, 4:20]


def check_curves_and_counts(output: Path, numbers: dict[str, float]) -> None:
    """AUSE and the pooled correlation can be recomputed from what is on disk."""
    key = ("t1+t2", "flair")
    curves = {
        r["order"]: np.array([float(r[f"removed_{share:.2f}"]) for share in REMOVED])
        for r in rows_of(output / "sparsification.csv")
        if (r["sources"], r["target"]) == key
    }
    assert set(curves) == {"oracle", "tsem", "gradient", "disagreement"}
    assert area_between(curves["tsem"], curves["oracle"]) == pytest.approx(numbers["ause"])
    tasks = json.loads((output / "sparsification.json").read_text())["tasks"]
    (task,) = [own for own in tasks if (own["sources"], own["target"]) == key]
    np.testing.assert_allclose(
        task["curves"]["tsem"], curves["tsem"] / numbers["mean_error"], rtol=1e-5
    )
    counts = np.zeros((CLASSES, CLASSES), int)
    for r in of_tsem(rows_of(output / "pooled_counts.csv")):
        counts[int(r["estimate_class"]), int(r["error_class"])] += int(r["voxels"])
    assert counts.sum() == numbers["voxels"]
    (summary,) = of_tsem(rows_of(output / "error_estimation_tasks.csv"))
    assert float(summary["spearman_pooled"]) == pytest.approx(pooled_spearman(counts))
    assert float(summary["spearman"]) == numbers["spearman"]
    parts = of_tsem(rows_of(output / "calibration.csv"))
    assert [int(r["part"]) for r in parts] == list(range(1, 11))
    assert sum(int(r["voxels"]) for r in parts) == numbers["voxels"]


def test_an_interrupted_run_goes_on(run, stage_2, tiny_config, tmp_path):
    names = [f"Tiny_0000{number}" for number in range(3)]
    (tmp_path / "three.csv").write_text("".join(f"{name},15\n" for name in names))
    options = ["-l", stage_2, "--tasks", "t1:t2", "t1+flair:t2", "t2:flair"]
    options += ["--set", f"data.test={tmp_path / 'three.csv'}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = run(*options, "-o", whole)
    assert run(*options, "-o", parts, "--max-subjects", 1).code == 0
    assert run(*options, "-o", parts, "--max-subjects", 2).code == 0
    assert run(*options, "-o", parts).out.splitlines()[:-1] == wanted.out.splitlines()[:-1]
    files = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in parts.iterdir()) == files
    for file in files:
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file

    # --- tables that lost a line are made anew
    for name in ("error_estimation.csv", "pooled_counts.csv", "sparsification.csv"):
        (parts / name).write_text("".join((parts / name).read_text().splitlines(True)[:-1]))
    assert run(*options, "-o", parts).code == 0
    for file in files:
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file

    # --- not with other tasks
    other = run(*options[:-2], "--targets", "t2", "-o", parts)
    assert other.error.startswith(f"{parts} holds the results of another run")
    assert f"{parts / 'error_estimation.json'} differs in tasks, data)" in other.error


@pytest.mark.parametrize("what", ["t1", "label map"])
def test_a_subject_that_changed_is_measured_again(run, stage_2, tiny_dataset, tmp_path, what):
    """And no row of its former files counts: tables are those of a run that saw only the new."""
    names = [f"Tiny_0000{number}" for number in range(3)]
    (tiny_dataset / "test.csv").write_text("".join(f"{name},15\n" for name in names))
    options = ["-l", stage_2, "--tasks", "t1:t2", "t1+flair:t2"]
    assert run(*options, "-o", tmp_path / "changed").code == 0
    labels = np.zeros((24, 20, 12), np.int16)
    labels[10:14, 6:12, 4:7] = 2
    new = {"t1": (blob(99), "t1"), "label map": (labels, "seg")}[what]
    save_nifti(sequence_file(tiny_dataset, 1, new[1]), new[0])
    outcome = run(*options, "-o", tmp_path / "changed")
    assert outcome.out.startswith(
        f"1 subject is done again, to be true to what lies there: {names[1]} (changed: {what})\n"
    )
    wanted = run(*options, "-o", tmp_path / "clean")
    assert outcome.out.splitlines()[1:-1] == wanted.out.splitlines()[:-1]
    for path in (tmp_path / "clean").iterdir():
        assert (tmp_path / "changed" / path.name).read_bytes() == path.read_bytes(), path.name


def test_subjects_that_are_not_asked_for_count_in_no_table(run, stage_2, tiny_dataset, tmp_path):
    names = [f"Tiny_0000{number}" for number in range(3)]
    (tiny_dataset / "test.csv").write_text("".join(f"{name},15\n" for name in names))
    options = ["-l", stage_2, "--tasks", "t1:t2"]
    assert run(*options, "-o", tmp_path / "out").code == 0
    outcome = run(*options, "-o", tmp_path / "out", "--max-subjects", 1)
    record = tmp_path / "out" / "error_estimation.record"
    assert outcome.out.startswith(
        f"2 subjects are not asked for now, and kept in {record}: {names[1]}, {names[2]}\n"
    )
    assert run(*options, "-o", tmp_path / "one", "--max-subjects", 1).code == 0
    for path in (tmp_path / "one").iterdir():
        if path.suffix != ".record":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_chosen_tasks(run, stage_2, tmp_path):
    tasks = ["--tasks", "t1:flair", "t1+t2:flair", "t1:t2"]
    outcome = run("-l", stage_2, "-o", tmp_path, *tasks, "--targets", "flair")
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "error_estimation_tasks.csv")
    assert [(r["sources"], r["estimator"]) for r in rows] == [
        *(("t1", "tsem"), ("t1", "gradient")),
        *(("t1+t2", "tsem"), ("t1+t2", "gradient"), ("t1+t2", "disagreement")),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "pd"], "--targets pd is none of the sequences t1, t1ce, t2, flair"),
        (["--tasks", "t1:pd"], "task 't1:pd' must be sources and target"),
        (
            ["--tasks", "t1:t2", "--targets", "flair"],
            "none of the --tasks has one of the --targets",
        ),
    ],
)
def test_mistakes(run, stage_2, tmp_path, arguments, message):
    assert message in run("-l", stage_2, "-o", tmp_path / "out", *arguments).error
    assert not (tmp_path / "out").exists()


def test_no_subject_with_the_sequences(run, stage_2, tiny_dataset, tmp_path):
    sequence_file(tiny_dataset, 3, SEQUENCES[3]).unlink()
    error = run("-l", stage_2, "-o", tmp_path / "out", "--targets", "flair").error
    assert error.endswith("test.csv has the sequences of these tasks")
