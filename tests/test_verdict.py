"""Verdicts: statistics of sources by hand, what lies outside of calibration, who is told of it."""

import json

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti, sequence_file
from scipy.ndimage import gaussian_filter, zoom

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import open_model, read_checkpoint
from tsf_seq2seq.checkpoints.portable import save_portable
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_error_map
from tsf_seq2seq.imputation.sources import load_sources
from tsf_seq2seq.synthesis.source_statistics import (
    BORDER_SHARE,
    gradient_magnitude,
    source_statistics,
)
from tsf_seq2seq.synthesis.verdict import (
    FEWEST,
    disagreement,
    disagreement_name,
    expected_error_name,
    fewer_sources,
    judge,
    log_rms,
)
from tsf_seq2seq.tasks import Task

SPACING = (2.0, 1.0, 1.0)


def brain_image(seed: int = 0) -> np.ndarray:
    """A textured ball (Z, Y, X) in [-1, 1] with background around it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 32, 32)), indexing="ij")
    smooth = gaussian_filter(rng.normal(size=z.shape), 0.7)
    inside = z**2 + y**2 + x**2 < 0.8
    return np.where(inside, 0.1 + smooth / np.abs(smooth).max() / 2, -1).astype(np.float32)


def statistics(**images: np.ndarray) -> dict[str, float]:
    return source_statistics(images, SPACING)


# --- of sources


def test_levels_and_size_by_hand():
    image = np.full((4, 5, 5), -1, np.float32)
    image[1:3, 1:4, 1:4] = np.linspace(-0.5, 0.5, 18).reshape(2, 3, 3)
    found = statistics(t1=image)
    assert found["t1: dark"] == pytest.approx(-0.4)
    assert found["t1: middle"] == pytest.approx(0)
    assert found["t1: bright"] == pytest.approx(0.4)
    assert np.exp(found["t1: size"]) == pytest.approx(18 * 2 / 1000)
    assert len(found) == 6


def test_grain_by_hand():
    """Of a ramp there is none; of a parabola second differences are the same everywhere."""
    ramp = np.broadcast_to(np.linspace(-0.9, 0.9, 8, dtype=np.float32), (4, 8, 8))
    quadratic = np.float32(0.01) * np.arange(8, dtype=np.float32) ** 2
    found = statistics(t1=ramp, t2=np.broadcast_to(quadratic, (4, 8, 8)))
    assert found["t1: grain"] < -5
    first = quadratic[2:] - quadratic[1:-1]
    wanted = np.log(np.sqrt(6 * 0.02**2 / (first**2).sum()))
    assert found["t2: grain"] == pytest.approx(wanted, abs=1e-2)


def test_pairs_by_hand():
    one = brain_image()
    moved = np.roll(one, 3, axis=2)
    found = statistics(t1=one, t2=-one.clip(-0.99) * (one > -1) - (one <= -1), flair=moved)
    assert found["t1, t2: apart"] == pytest.approx(np.log(BORDER_SHARE))
    assert found["t1, t2: intensities"] == pytest.approx(-1)
    brains = one > -1, moved > -1
    both = (brains[0] & brains[1]).sum()
    dice = 2 * both / (brains[0].sum() + brains[1].sum())
    assert found["t1, flair: apart"] == pytest.approx(np.log(1 - dice + BORDER_SHARE))
    assert found["t1, flair: edges"] < 0.9 * found["t1, t2: edges"]


def test_gradient_in_mm():
    ramp = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 3, 1), np.float32)
    np.testing.assert_allclose(gradient_magnitude(ramp, SPACING), 0.5)
    np.testing.assert_allclose(gradient_magnitude(ramp), 1)


def test_what_changes_by_damage():
    """Blur lowers the grain, noise raises it; background around the brain changes nothing."""
    image = brain_image()
    brain, usual = image > -1, statistics(t1=image)
    half = zoom(zoom(image, 0.5, order=1), 2, order=1)
    noisy = image + np.random.default_rng(1).normal(0, 0.05, image.shape)
    blurred = statistics(t1=np.where(brain, half, -1))
    assert blurred["t1: grain"] < usual["t1: grain"] - 0.1
    grainy = statistics(t1=np.where(brain, noisy, -1).astype(np.float32))
    assert grainy["t1: grain"] > usual["t1: grain"] + 0.1
    padded = statistics(t1=np.pad(image, 3, constant_values=-1))
    assert padded == usual


# --- of a task


def test_disagreement_by_hand():
    task, brain = Task((0, 2, 3), 1), np.array([[[True, False]]])
    assert fewer_sources(task) == [Task(own, 1) for own in ((2, 3), (0, 3), (0, 2))]
    assert fewer_sources(Task((0,), 1)) == []
    outputs = {task: np.array([[[1.0, 5.0]]]), Task((2, 3), 1): np.array([[[4.0, 0.0]]])}
    assert disagreement(task, outputs, brain) == pytest.approx(np.log(3))
    outputs[Task((0, 3), 1)] = np.array([[[0.0, 9.0]]])
    assert disagreement(task, outputs, brain) == pytest.approx(np.log(np.sqrt(5)))
    assert disagreement(Task((0,), 1), {}, brain) is None


def test_names():
    assert expected_error_name(Task((2, 0), 3), SEQUENCES) == "flair from t1+t2: expected error"
    assert disagreement_name(Task((2, 0), 3), SEQUENCES) == "flair from t1+t2: disagreement"
    assert log_rms(np.array([3.0, -3.0])) == pytest.approx(np.log(3))
    assert np.isfinite(log_rms(np.zeros(3)))


# --- verdicts


def calibration(n: int, seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [dict(zip("abc", map(float, row), strict=True)) for row in rng.normal(size=(n, 3))]


def test_reasons():
    known = calibration(30)
    assert not judge({"a": 0.0, "b": 0.1, "c": -0.2}, known).outside
    found = judge({"a": 0.0, "b": 9.0, "c": -0.2}, known)
    assert found.outside
    assert found.share == pytest.approx(1 / 31)
    (reason,) = found.reasons
    seen = [own["b"] for own in known]
    assert (reason.name, reason.value, reason.seen) == ("b", 9.0, (min(seen), max(seen)))
    wanted = (9 - np.mean(seen)) / np.std(seen, ddof=1) / np.sqrt(31 / 30)
    assert reason.deviation == pytest.approx(wanted)
    assert str(reason) == f"b 9.00, in calibration {min(seen):.2f} to {max(seen):.2f}"


def test_several_reasons_the_furthest_first():
    found = judge({"a": 20.0, "b": 9.0, "c": -40.0}, calibration(30))
    assert [reason.name for reason in found.reasons] == ["c", "a", "b"]


def test_too_few_subjects():
    """Those without a number that is wanted don't count."""
    known = calibration(FEWEST)
    assert judge({"a": 0.0}, known) is not None
    assert judge({"a": 0.0}, known[1:]) is None
    del known[0]["b"]
    assert judge({"a": 0.0}, known).subjects == FEWEST
    assert judge({"a": 0.0, "b": 0.0}, known) is None


@pytest.mark.parametrize(("n", "share"), [(19, 0.05), (FEWEST, 0.1), (60, 3 / 61)])
def test_false_alarms_of_simulated_subjects(n, share):
    """Of 2000 subjects of the same kind, each beside a calibration of its own; with few subjects
    these are seen from fewer others than it is, so that there are less."""
    alarms = 0
    for seed in range(2000):
        *known, own = calibration(n + 1, seed)
        alarms += judge(own, known).outside
    deviation = np.sqrt(share * (1 - share) / 2000)
    assert share / 2 < alarms / 2000 < share + 3 * deviation


# --- imputation


@pytest.fixture
def judged(script, tiny_dataset, checkpoint, tmp_path):
    """A checkpoint whose error map nine subjects calibrated."""
    for number in range(4, 14):
        for index, sequence in enumerate(SEQUENCES):
            save_nifti(sequence_file(tiny_dataset, number, sequence), blob(10 * number + index))
    names = [sequence_file(tiny_dataset, i, "t1").parent.name for i in range(4, 14)]
    (tiny_dataset / "fit.csv").write_text(f"{names[0]},8\n")
    (tiny_dataset / "calibrate.csv").write_text("".join(f"{name},8\n" for name in names[1:]))
    splits = ("--fit", tiny_dataset / "fit.csv", "--calibrate", tiny_dataset / "calibrate.csv")
    path = tmp_path / "judged.pth"
    assert script(train_error_map, "-l", checkpoint, "-o", path, "--steps", 3, *splits).code == 0
    return path


def test_told_beside_an_image(script, judged, tiny_dataset, tmp_path):
    """T2 upside down: a subject that is like no other, and why."""
    sequence_file(tiny_dataset, 0, "flair").unlink()
    t2 = blob(2)
    save_nifti(sequence_file(tiny_dataset, 0, "t2"), np.where(t2 > 0, t2.max() * 1.05 - t2, 0))
    out = tmp_path / "out"
    outcome = script(
        impute_sequences, tiny_dataset / "Tiny_00000", "-l", judged, "-o", out, "--batch-size", 3
    )
    assert outcome.code == 0, outcome.err
    assert "warning: don't trust flair: " in outcome.out
    told = json.loads((out / "Tiny_00000_flair_synth.json").read_text())
    verdict = told["ErrorMap"]["Verdict"]
    assert not verdict["Trust"]
    assert verdict["ShareFurtherOut"] == pytest.approx(0.1)
    assert "t2" in verdict["Reasons"][0]["Statistic"]
    assert any(text.startswith("don't trust flair") for text in told["Warnings"])


def test_statistics_of_all_tasks_are_kept(judged, tmp_path):
    """In either format: 6 of each sequence, 3 of each pair, 2 of each task but of those of one
    source, which have no disagreement."""
    known = open_model(judged).error_map.calibration.statistics
    assert len(known) == 9
    assert {len(own) for own in known} == {4 * 6 + 6 * 3 + 28 + 16}
    save_portable(tmp_path / "judged.safetensors", read_checkpoint(judged))
    assert open_model(tmp_path / "judged.safetensors").error_map.calibration.statistics == known


def test_imputation_measures_what_calibration_did(judged, tiny_dataset):
    model = open_model(judged)
    known = model.error_map.calibration.statistics[0]
    files = {name: sequence_file(tiny_dataset, 5, name) for name in SEQUENCES[:3]}
    found = impute(files, model, "flair")
    assert found.error_map.verdict.subjects == 9
    images = load_sources(files).images
    for name, value in source_statistics(images, (1, 1, 1)).items():
        assert value == pytest.approx(known[name], abs=1e-6)
