"""adapt.py: a checkpoint with the maps of all tasks, which does what --like does."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LPS_AFFINE, SEQUENCES, Outcome, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import open_model, read_checkpoint, save_checkpoint
from tsf_seq2seq.cli.adapt import adapt
from tsf_seq2seq.cli.convert import export_model
from tsf_seq2seq.cli.evaluate import evaluate_networks, evaluate_tsf_seq2seq
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.explain.map_shares import share_table
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation import impute
from tsf_seq2seq.imputation.references import References
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of
from tsf_seq2seq.synthesis.likeness import Histogram
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, all_tasks

NAMES = [f"Tiny_0000{number}" for number in range(4)]
LABELS = [":".join(task.label(SEQUENCES)) for task in all_tasks(4)]


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    return tmp_path / "new" / "adapted.pth"


@pytest.fixture
def run(script, checkpoint, adapted, tiny_dataset, monkeypatch):
    """run(references…, options…) of adapt.py; a reference may be a subject's number."""
    monkeypatch.setattr("tsf_seq2seq.cli.adapt.plot_shares", lambda *_: None)

    def run(*like: object, load: Path = checkpoint, output: Path = adapted) -> Outcome:
        given = [tiny_dataset / NAMES[one] if isinstance(one, int) else one for one in like]
        return script(adapt, "-l", load, "-o", output, "--like", *given)

    return run


@pytest.fixture
def files(tiny_dataset: Path) -> Callable[..., dict[str, Path]]:
    """files(number, sequences…) of a subject."""
    return lambda number, *names: {
        name: sequence_file(tiny_dataset, number, name) for name in names or SEQUENCES
    }


# --- what it writes


def test_the_checkpoint_with_its_maps(run, checkpoint, adapted, files):
    """Weights, settings and statistics stay; whom the maps are from is told."""
    outcome = run(2, 1)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == "references: Tiny_00001, Tiny_00002"
    before, after = read_checkpoint(checkpoint), read_checkpoint(adapted)
    assert after.keys() == {*before, "adaptation"}
    assert all(torch.equal(before["weights"][key], w) for key, w in after["weights"].items())
    assert after["config"] == before["config"]
    assert after["statistics"] == before["statistics"]
    found = open_model(adapted).adaptation
    assert list(found.maps) == LABELS
    assert [reference.name for reference in found.references] == NAMES[1:3]
    for number, reference in zip((1, 2), found.references, strict=True):
        contents = {name: fingerprint(path) for name, path in files(number).items()}
        assert reference.fingerprints == contents
    for index, name in enumerate(SEQUENCES):
        maxima = [2 * np.percentile(blob(10 * number + index), 99) for number in (1, 2)]
        assert found.maxima[name] == pytest.approx(np.mean(maxima))
    for number, shape in zip((1, 2), found.histograms, strict=True):
        assert (shape.name, list(shape.quantiles)) == (NAMES[number], list(SEQUENCES))
        voxels = blob(10 * number).astype(float)
        voxels = (voxels / np.percentile(voxels, 99) - 1).clip(-1, 1)
        levels = np.quantile(voxels[voxels > -1], np.arange(1, 20) / 20)
        np.testing.assert_allclose(shape.quantiles["t1"], levels, atol=1e-5)


def test_it_does_what_the_references_do(run, checkpoint, adapted, files, tiny_dataset):
    """Voxel for voxel, with the same intensities, of one source and of several."""
    assert run(1, 2).code == 0
    like = [tiny_dataset / name for name in NAMES[1:3]]
    for sources, target in (("t2", "t1"), ("t1 flair", "t1ce"), ("t1 t1ce t2", "flair")):
        given = files(0, *sources.split())
        found, wanted = impute(given, adapted, target), impute(given, checkpoint, target, like=like)
        assert np.abs(wanted.image.get_fdata()).max() > 10
        np.testing.assert_array_equal(found.image.get_fdata(), wanted.image.get_fdata())
        np.testing.assert_array_equal(found.tsem.get_fdata(), wanted.tsem.get_fdata())
        assert found.intensity_maximum == wanted.intensity_maximum
        assert found.intensity_scale == f"median of {target} in the references"
        assert found.adapted.fitted == wanted.adapted.fitted
        assert found.adapted.references == wanted.adapted.references
        assert found.warnings == wanted.warnings


def test_references_without_some_sequences(run, adapted, checkpoint, files, tiny_dataset):
    """Each serves for the tasks that it has all sequences of; without flair in any there is none,
    and what is made then is the network's own, as is said."""
    for number, name in ((1, "flair"), (2, "flair"), (2, "t1ce")):
        sequence_file(tiny_dataset, number, name).unlink()
    assert run(1, 2).code == 0
    found = open_model(adapted).adaptation
    assert set(found.maps) == {label for label in LABELS if "flair" not in label}
    given, like = files(0, "t1", "t2"), [tiny_dataset / NAMES[1]]
    one = impute(given, adapted, "t1ce")
    wanted = impute(given, checkpoint, "t1ce", like=like)
    np.testing.assert_array_equal(one.image.get_fdata(), wanted.image.get_fdata())
    plain, own = impute(given, checkpoint, "flair"), impute(given, adapted, "flair")
    np.testing.assert_array_equal(own.image.get_fdata(), plain.image.get_fdata())
    assert own.adapted is None
    assert own.warnings == ("the checkpoint has no contrast map for flair from these sources",)


def test_a_seq2seq_has_maps_of_single_sources(run, adapted, tiny_stage1, tmp_path):
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "one.pth", build_network(config), config)
    assert run(1, load=tmp_path / "one.pth").code == 0
    assert list(open_model(adapted).adaptation.maps) == LABELS[:12]


def test_the_prior_goes_with_it_and_counts(run, checkpoint, adapted, tmp_path, files):
    model, other = open_model(checkpoint), tmp_path / "with prior.pth"
    known = References(model, {"v": files(3)}).adaptation(["t1", "t2"], "flair")[0]
    prior = Adaptation(known.references, known.maps, known.maxima, ())
    save_checkpoint(other, model.network, model.config, prior=prior)
    assert run(1, load=other).code == 0
    found = open_model(adapted)
    assert found.prior == open_model(other).prior
    maps = References(open_model(other), {NAMES[1]: files(1)}).adaptation(["t1", "t2"], "flair")
    assert found.adaptation.maps["t1+t2:flair"] == maps[0].maps["t1+t2:flair"]
    without = References(model, {NAMES[1]: files(1)}).adaptation(["t1", "t2"], "flair")
    assert found.adaptation.maps["t1+t2:flair"] != without[0].maps["t1+t2:flair"]


def test_evaluations_score_it_with_its_maps(
    run, script, checkpoint, adapted, tmp_path, monkeypatch, files
):
    monkeypatch.setattr("tsf_seq2seq.cli.evaluate.find_weights", lambda *_: None)
    monkeypatch.setattr("tsf_seq2seq.evaluation.protocol.plot_examples", lambda *_: None)
    assert run(*(path for n in (1, 2) for path in files(n, "t1", "t2", "flair").values())).code == 0
    arguments = ["-l", checkpoint, adapted, "--names", "plain", "adapted", "--no-predictions"]
    outcome = script(evaluate_networks, *arguments, "-o", tmp_path / "scores")
    assert outcome.code == 0, outcome.err
    scores = {(s.method, s.target): s for s in read_scores(tmp_path / "scores" / "metrics.csv")}
    model, task = open_model(adapted), Task((0, 2), 3)
    (subject,) = find_subjects(model.config.data, model.config.data.test)
    window = load_window(model.config, subject)
    output = NetworkSynthesizer("net", model.network, [FULL], 4).predict(window, [task])[
        "net", task
    ]
    sources = window.centres[[0, 2]]
    image = model.adaptation.maps["t1+t2:flair"](sources, output, brain_of(sources))
    for method, wanted in (("plain", output), ("adapted", image)):
        found = scores[method, "flair"].psnr
        assert found == pytest.approx(psnr(window.centres[3], wanted), abs=1e-4)
    assert scores["plain", "flair"].psnr + 1 < scores["adapted", "flair"].psnr

    papers = ["--methods", "tsf_without_attention", "tsf", "-o", tmp_path / "paper"]
    outcome = script(evaluate_tsf_seq2seq, "-l", adapted, "--no-predictions", *papers)
    assert outcome.code == 0, outcome.err
    rows = read_scores(tmp_path / "paper" / "metrics.csv")
    (mapped,) = (s.psnr for s in rows if (s.method, s.target) == ("tsf", "flair"))
    assert mapped == scores["adapted", "flair"].psnr
    plain = NetworkSynthesizer("net", model.network, [WITHOUT_ATTENTION], 4)
    (without,) = plain.predict(window, [task]).values()
    (own,) = (s.psnr for s in rows if (s.method, s.target) == ("tsf_without_attention", "flair"))
    assert own == pytest.approx(psnr(window.centres[3], without), abs=1e-4)


def test_a_portable_model_keeps_the_maps(run, script, adapted, tmp_path, files):
    assert run(*files(1, "t1", "t2", "flair").values()).code == 0
    path = tmp_path / "adapted.safetensors"
    assert script(export_model, "-l", adapted, "-o", path).code == 0
    assert open_model(path).adaptation == open_model(adapted).adaptation
    given = files(0, "t1", "t2")
    found, wanted = (impute(given, weights, "flair").image for weights in (path, adapted))
    np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())


# --- its table and figure


def test_shares_sum_to_one(run, adapted):
    """A row for each map, as its table in the output; empty cells for what a task doesn't use."""
    outcome = run(1, 2)
    with open(adapted.with_suffix(".csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['sources']}:{row['target']}" for row in rows] == LABELS
    maps = open_model(adapted).adaptation.maps
    for row, label in zip(rows, LABELS, strict=True):
        shares = {name: row[name] for name in (*SEQUENCES, "network")}
        used = {name for name, share in shares.items() if share}
        assert used == {*label.split(":")[0].split("+"), "network"}
        assert sum(float(shares[name]) for name in used) == pytest.approx(1)
        assert float(row["gain (dB)"]) == pytest.approx(maps[label].gain_db)
    assert share_table(open_model(adapted).adaptation, SEQUENCES).markdown() in outcome.out


def test_the_table_of_maps_by_hand():
    """t1 → t2 all of the source; t1+t2 → flair half and half of t2 and the network, and a prior
    that counts infinitely; a constant output has no shares."""
    identity = tuple(np.eye(6).ravel())
    source = ContrastMap((0.0, 0.5, 0.0, 0.0, 0.0, 0.0), identity, True, 1.0, 0.3, 1.25)
    flat = ContrastMap((0.5, *(0.0,) * 5), identity, True, 1.0)
    larger = tuple(np.eye(10).ravel())
    mixed = ContrastMap((0.0, 0.0, 0.5, 0.5, *(0.0,) * 6), larger, True, 1.0, None)
    maps = {"t1:t2": source, "t1:flair": flat, "t1+t2:flair": mixed}
    table = share_table(Adaptation((), maps, {}), SEQUENCES)
    assert table.headings[4:] == [*SEQUENCES, "network"]
    assert table.rows == [
        ["t1", "t2", "0.3", 1.25, 1.0, None, None, None, 0.0],
        ["t1", "flair", "0", None, 0.0, None, None, None, 0.0],
        ["t1+t2", "flair", "∞", None, 0.0, None, 0.5, None, 0.5],
    ]


def test_the_figure(script, checkpoint, tiny_dataset, tmp_path):
    """Beside the checkpoint, under its name, dots and all."""
    path = tmp_path / "at 1.5 T.pth"
    outcome = script(adapt, "-l", checkpoint, "-o", path, "--like", tiny_dataset / NAMES[1])
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == (
        f"{path} is adapted; {tmp_path / 'at 1.5 T.png'} shows what its maps make of what"
    )
    made = {p.name for p in tmp_path.iterdir() if p.name.startswith("at 1.5 T")}
    assert made == {f"at 1.5 T{suffix}" for suffix in (".pth", ".csv", ".png", ".pdf")}
    assert (tmp_path / "at 1.5 T.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "at 1.5 T.pdf").read_bytes().startswith(b"%PDF")


# --- mistakes and warnings


def test_references_that_differ_among_each_other(run, checkpoint, tmp_path, files):
    """More than what training subjects of one site do, here next to nothing."""
    model = open_model(checkpoint)
    shapes = tuple(Histogram(f"h{i}", {"t1": (i / 1000,) * 19}, "s") for i in range(2))
    maps = {"t1:t2": ContrastMap((0.0,) * 6, (0.0,) * 36, True, 1.0)}
    prior = Adaptation((), maps, {"t2": 1.0}, shapes)
    other = tmp_path / "with prior.pth"
    save_checkpoint(other, model.network, model.config, prior=prior)
    like = [path for number in (1, 2) for path in files(number, "t1", "t2").values()]
    outcome = run(*like, load=other)
    told = [line for line in outcome.out.splitlines() if line.startswith("warning")]
    assert len(told) == 1
    start = "warning: reference Tiny_00002: t1 differs from that of reference Tiny_00001 by 0."
    assert told[0].startswith(start)
    assert "more than the usual 0.001 (90 % of the pairs of one site in training):" in told[0]
    assert "warning" not in run(*like).out  # nothing says what is usual


def test_mistakes(run, adapted, tiny_dataset, tmp_path):
    assert run(1, output=tmp_path / "x.safetensors").error == (
        "-o must end in .pth, not x.safetensors"
    )
    assert run(tmp_path / "none").error == f"reference {tmp_path / 'none'} is no folder or file"
    only = sequence_file(tiny_dataset, 1, "t1")
    assert run(only).error == "no reference has the sequences of a task: Tiny_00001: t1"
    shifted = LPS_AFFINE.copy()
    shifted[2, 3] = 2.0
    save_nifti(sequence_file(tiny_dataset, 2, "t2"), blob(22), shifted)
    start = f"reference Tiny_00002: the affines of {sequence_file(tiny_dataset, 2, 't2')} and "
    assert run(1, 2).error.startswith(start)
    assert not adapted.exists()
    assert run(2, "--resample").code == 0
    assert run(1, load=adapted, output=tmp_path / "twice.pth").error == (
        f"{adapted} is adapted already, to Tiny_00002: give the checkpoint that it was made from"
    )
    assert not (tmp_path / "twice.pth").exists()
