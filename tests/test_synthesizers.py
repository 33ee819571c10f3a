"""Synthesizers: networks, their ablations, baselines, and the paired comparison of methods."""

import json

import numpy as np
import pytest
import torch
from conftest import Outcome, made_window

from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.evaluation.scores import Score, read_scores
from tsf_seq2seq.evaluation.statistics import compare
from tsf_seq2seq.models.base import AVERAGE, FULL, WITHOUT_ATTENTION, variant_for
from tsf_seq2seq.synthesis.synthesizers import BASELINES, NetworkSynthesizer
from tsf_seq2seq.synthesis.windows import SubjectWindow
from tsf_seq2seq.tasks import Task


@pytest.fixture
def window(expected) -> SubjectWindow:
    """Six slices of four sequences, (S, Z, Y, X), from the reference's images."""
    images = expected["images"][:, :, 0]  # (S, B, C, H, W)
    return made_window(np.concatenate([images[:, 0], images[:, 1]], axis=1))


def test_average_is_the_mean_of_single_source_outputs(reference_model, expected, window):
    method = NetworkSynthesizer("seq2seq", reference_model.seq2seq, [AVERAGE], batch_size=3)
    assert method.names == ["seq2seq_average"]
    task = Task((0, 2, 3), 1)
    ((key, output),) = method.predict(window, [task]).items()
    assert key == ("seq2seq_average", task)
    # stack 0 is sample 0 of the reference, stack 3 its sample 1
    wanted = expected["seq2seq_out"][[0, 2, 3], 1][:, :, 0, 1].mean(axis=0)  # (B, H, W)
    np.testing.assert_allclose(output[[0, 3]], wanted, atol=5e-5)


def test_average_of_one_source_is_plain_seq2seq(reference_model, window):
    task = Task((3,), 0)
    method = NetworkSynthesizer("seq2seq", reference_model.seq2seq, [AVERAGE, FULL], 4)
    outputs = method.predict(window, [task])
    np.testing.assert_array_equal(outputs["seq2seq_average", task], outputs["seq2seq", task])


def test_tasks_that_a_variant_cannot_do_are_left_out(reference_model, window):
    one, two = Task((3,), 0), Task((1, 3), 0)
    method = NetworkSynthesizer("seq2seq", reference_model.seq2seq, [FULL, AVERAGE], 4)
    outputs = method.predict(window, [one, two])
    assert set(outputs) == {("seq2seq", one), ("seq2seq_average", one), ("seq2seq_average", two)}
    plain = NetworkSynthesizer("seq2seq", reference_model.seq2seq, [FULL], 4)
    assert plain.predict(window, [two]) == {}


def test_the_variant_for_tasks(reference_model):
    one, two = Task((3,), 0), Task((1, 3), 0)
    assert variant_for(reference_model.seq2seq, [one]) == FULL
    assert variant_for(reference_model.seq2seq, [one, two]) == AVERAGE
    assert variant_for(reference_model, [one, two]) == FULL


def test_ablation_differs_from_the_network_by_the_enhanced_map(reference_model, window):
    task = Task((0, 1), 2)
    method = NetworkSynthesizer("tsf", reference_model, [FULL, WITHOUT_ATTENTION], 2)
    outputs = method.predict(window, [task])
    difference = np.abs(outputs["tsf", task] - outputs["tsf_without_attention", task])
    images = torch.from_numpy(np.ascontiguousarray(stacks(window.images, 3).swapaxes(0, 1)))
    with torch.no_grad():
        wanted = reference_model.enhanced_map(images, [True, True, False, False], 2)
    np.testing.assert_allclose(difference, wanted.numpy(), atol=5e-5)


def score(method: str, name: str, sources: str, psnr: float, ssim: float) -> Score:
    return Score(name, sources, "t2", method, psnr, ssim, 1.0, 0.1)


def test_paired_differences_by_hand():
    scores = [
        score("tsf", "a", "t1+flair", 30.0, 0.9),
        score("tsf", "b", "t1+flair", 28.0, 0.8),
        score("other", "a", "t1+flair", 29.0, 0.95),
        score("other", "b", "t1+flair", 25.0, 0.7),
        score("other", "c", "t1+flair", 99.0, 1.0),  # not paired
        score("tsf", "a", "t1", 20.0, 0.5),
        score("other", "a", "t1", 21.0, 0.4),
    ]
    rows = {(row.metric, row.inputs, row.other): row for row in compare(scores)}
    assert [key[1:] for key in rows] == [(1, "other"), (2, "other")] * 3
    two, ssim = rows["psnr", 2, "other"], rows["ssim", 2, "other"]
    assert (two.method, two.subjects, two.difference, two.wins) == ("tsf", 2, 2.0, 1.0)
    assert ssim.difference == pytest.approx(0.025)
    assert ssim.wins == 0.5
    assert rows["psnr", 1, "other"].difference == -1.0


def test_table_1_of_a_checkpoint(script, stage_2, tmp_path):
    names = ["tsf", "tsf_without_attention", "seq2seq_average", *BASELINES]
    arguments = ["-l", stage_2, "-m", stage_2, "-o", tmp_path / "out", "--no-predictions"]
    outcome: Outcome = script(evaluate_tsf_seq2seq, *arguments, "--methods", *names)
    assert outcome.code == 0
    scores = read_scores(tmp_path / "out" / "metrics.csv")
    assert [s.method for s in scores] == [name for name in names for _ in range(2)]
    table = json.loads((tmp_path / "out" / "table.json").read_text())["By number of inputs"]
    assert [row["method"] for row in table] == names
    assert table[0]["psnr"]["mean"] == pytest.approx(np.mean([s.psnr for s in scores[:2]]))
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"{table[0]['psnr']['mean']:.2f} ± " in text
    assert "tsf against" in text  # paired differences


def test_average_without_stage_1_weights_is_an_error(script, stage_2, tmp_path):
    arguments = ["-l", stage_2, "-o", tmp_path / "out", "--methods", "seq2seq_average"]
    assert "--stage1" in script(evaluate_tsf_seq2seq, *arguments).error
    assert not (tmp_path / "out").exists()


def test_max_slices_takes_the_central_ones(script, stage_2, tmp_path):
    for folder, options in (("whole", []), ("quick", ["--max-slices", 8])):
        script(evaluate_tsf_seq2seq, "-l", stage_2, "-o", tmp_path / folder, *options)
    whole, quick = (read_scores(tmp_path / f / "metrics.csv") for f in ("whole", "quick"))
    assert [s.target for s in whole] == [s.target for s in quick]
    assert all(a.psnr != b.psnr for a, b in zip(whole, quick, strict=True))
