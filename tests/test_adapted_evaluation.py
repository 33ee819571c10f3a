"""evaluate.py --like: networks adapted to a test subject's site, beside what else that gives."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import (
    TINY_SEQ2SEQ,
    Outcome,
    blob,
    save_nifti,
    sequence_file,
)
from test_evaluation_record import again

from tsf_seq2seq.checkpoints.checkpoint import load_model_and_config
from tsf_seq2seq.cli.evaluate import evaluate_networks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import first_of
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.scores import Score, read_scores
from tsf_seq2seq.models.base import FULL
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.adapted import AdaptedSynthesizer, references_by_site
from tsf_seq2seq.synthesis.contrast_map import ContrastMap
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task

NAMES = [f"Tiny_0000{number}" for number in range(7)]
LINEAR = ContrastMap((0.1, 0.2, 0.0, 0.5, *(0.0,) * 6), (0.0,) * 100, True, 1.0)
MAPS = Adaptation((), {"t1+t2:t1ce": LINEAR, "t1+t2:flair": LINEAR}, {"flair": 900.0})


@pytest.fixture
def run(script, tmp_path, only_scores):
    """run(checkpoints, options…) of evaluate.py into `out`, without LPIPS and pictures."""

    def run(files: Sequence[Path], *options: object, output: str = "out") -> Outcome:
        arguments = ["-l", *files, "-o", tmp_path / output, "--no-predictions", *options]
        return script(evaluate_networks, *arguments)

    return run


def scores_in(folder: Path) -> dict[tuple[str, str, str], Score]:
    """(subject, target, method) → score, in the order of metrics.csv."""
    return {(s.name, s.target, s.method): s for s in read_scores(folder / "metrics.csv")}


def references_of(path: Path, number: int, seed: int = 0) -> dict[str, list[str]]:
    """Names of the references that are drawn for each test subject."""
    _, config = load_model_and_config(path)
    subjects = find_subjects(config.data, config.data.test)
    found = references_by_site(subjects, subjects, number, 4, seed)
    return {name: [one.name for one in own] for name, own in found.items()}


def test_each_count_is_a_method(save_network, run, tmp_path):
    """Two targets for each subject, but one for the one that lacks t1ce; PSNR as by hand."""
    path = save_network("net", prior=MAPS)
    outcome = run([path], "--like", 2, 0, 1, 2, "--like-baselines")
    assert outcome.code == 0, outcome.err
    methods = ["net", "net + 0", "net + 1", "net + 2", "net, background set"]
    rivals = ("net, gain and offset + {}", "quadratic_regression + {}")
    methods += [rival.format(n) for n in (1, 2) for rival in rivals]
    scores = scores_in(tmp_path / "out")
    tasks = [(name, target) for name in NAMES for target in ("t1ce", "flair")]
    tasks.remove(("Tiny_00006", "t1ce"))
    assert set(scores) == {(*task, method) for task in tasks for method in methods}

    network, config = load_model_and_config(path)
    subjects = find_subjects(config.data, config.data.test)
    drawn = references_by_site(subjects, subjects, 2, 4, 0)
    plain = NetworkSynthesizer("net", network, [FULL], 4)
    counts = [0, 1, 2]
    one = AdaptedSynthesizer(plain, config, counts, lambda s: drawn[s.name], MAPS, True)
    window, task = load_window(config, subjects[4]), Task((0, 2), 3)
    outputs = one.predict(window, [task])
    values = [psnr(window.centres[3], outputs[method, task]) for method in methods]
    assert len({round(value, 3) for value in values}) == len(methods)
    found = [scores["Tiny_00004", "flair", method].psnr for method in methods]
    assert found == pytest.approx(values, abs=1e-4)


def test_references_come_from_the_whole_split(save_network, run, tmp_path, two_sites):
    """Whoever is evaluated, and in whatever order; fewer references are the first of more."""
    path, split = save_network("net"), two_sites / "test.csv"
    assert run([path], "--like", 1, 2).code == 0
    whole = scores_in(tmp_path / "out")
    header, *rows = split.read_text().splitlines()
    split.write_text("\n".join([header, *rows[::-1]]))
    for folder, options in (("turned", [1, 2]), ("one", [1, "--max-subjects", 1])):
        assert run([path], "--like", *options, output=folder).code == 0
    turned, one = scores_in(tmp_path / "turned"), scores_in(tmp_path / "one")
    assert turned.keys() == whole.keys()
    assert list(one) == [("Tiny_00006", "flair", "net"), ("Tiny_00006", "flair", "net + 1")]
    for found in (turned, one):
        assert all(repr(score) == repr(whole[key]) for key, score in found.items())


def test_a_rerun_does_nothing(save_network, run, tmp_path, monkeypatch):
    path = save_network("net")
    assert run([path], "--like", 1).code == 0
    before = (tmp_path / "out" / "metrics.csv").read_bytes()
    monkeypatch.setattr(NetworkSynthesizer, "predict", None)  # nothing may be synthesized
    outcome = run([path], "--like", 1)
    assert outcome.code == 0, outcome.err
    assert "done again" not in outcome.out
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == before


def test_a_changed_reference_makes_whom_it_serves_be_done_again(
    save_network, run, tmp_path, two_sites
):
    """Of the incomplete subject, which serves nobody, itself alone."""
    path = save_network("net")
    drawn = references_of(path, 1)
    served = [name for name in NAMES if drawn[name] == ["Tiny_00004"]]
    assert served
    assert run([path], "--like", 1).code == 0
    before = scores_in(tmp_path / "out")
    save_nifti(sequence_file(two_sites, 4, "flair"), blob(99))
    reasons = {"Tiny_00004": "changed: flair"}
    reasons |= dict.fromkeys(served, "changed: reference Tiny_00004")
    told = again(*(f"{name} ({reasons[name]})" for name in NAMES if name in reasons))
    assert run([path], "--like", 1).out.splitlines()[0] == told
    after = scores_in(tmp_path / "out")
    for key, score in after.items():
        name, target, method = key
        is_new = name == "Tiny_00004" and target == "flair"
        is_new |= name in served and target == "flair" and method == "net + 1"
        assert (score.psnr != before[key].psnr) == is_new, key
    save_nifti(sequence_file(two_sites, 6, "t2"), blob(98))
    told = again("Tiny_00006 (changed: t2)")
    assert run([path], "--like", 1).out.splitlines()[0] == told
    assert run([path], "--like", 1, output="clean").code == 0
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("out", "clean")]
    assert metrics[0] == metrics[1]


def test_other_references_by_another_seed(save_network, run):
    path = save_network("net")
    first, second = (references_of(path, 1, seed) for seed in (0, 1))
    other = [name for name in NAMES if first[name] != second[name]]
    assert 0 < len(other) < len(NAMES)
    assert run([path], "--like", 1).code == 0
    reasons = [
        f"{name} (changed: reference {first[name][0]}, reference {second[name][0]})"
        for name in other
    ]
    told = run([path], "--like", 1, "--seed", 1).out.splitlines()[0]
    assert told == again(first_of(reasons)).replace("1 subject is", f"{len(other)} subjects are")


def test_networks_beside_each_other(save_network, run, tmp_path):
    """What needs no network stands there once; a Seq2Seq's average is adapted."""
    files = [save_network("fused"), save_network("single", TINY_SEQ2SEQ)]
    outcome = run(files, "--like", 1, "--like-baselines")
    assert outcome.code == 0, outcome.err
    assert {method for _, _, method in scores_in(tmp_path / "out")} == {
        *("fused", "fused + 1", "fused, background set", "fused, gain and offset + 1"),
        "quadratic_regression + 1",
        *("single_average", "single_average + 1", "single_average, background set"),
        "single_average, gain and offset + 1",
    }


# --- an adapted checkpoint


def test_an_adapted_checkpoint_is_scored_with_its_maps(save_network, run, tmp_path):
    plain, mapped = save_network("plain"), save_network("mapped", adaptation=MAPS)
    content = torch.load(plain, weights_only=True)["weights"]
    for key, value in torch.load(mapped, weights_only=True)["weights"].items():
        assert torch.equal(content[key], value)
    assert run([plain, mapped]).code == 0
    scores = scores_in(tmp_path / "out")
    assert {method for _, _, method in scores} == {"plain", "mapped"}
    network, config = load_model_and_config(plain)
    subject = find_subjects(config.data, config.data.test)[0]
    window, task = load_window(config, subject), Task((0, 2), 3)
    output = NetworkSynthesizer("net", network, [FULL], 4).predict(window, [task])["net", task]
    first, second = window.centres[[0, 2]]
    wanted = (0.1 + 0.2 * first + 0.5 * output).clip(-1, 1)
    wanted[(first <= -1) & (second <= -1)] = -1
    for method, image in (("plain", output), ("mapped", wanted)):
        found = scores[subject.name, "flair", method].psnr
        assert found == pytest.approx(psnr(window.centres[3], image), abs=1e-4)


def test_its_ablation_is_the_network_without_map(save_network, run, tmp_path):
    files = [save_network("plain"), save_network("mapped", adaptation=MAPS)]
    assert run(files, "--ablations").code == 0
    scores = scores_in(tmp_path / "out")
    methods = ["plain", "plain_without_attention"]
    methods += ["mapped", "mapped_without_attention", "mapped_without_map"]
    assert {method for _, _, method in scores} == set(methods)
    for name, target, method in scores:
        if method == "plain":
            psnrs = [scores[name, target, m].psnr for m in methods]
            assert psnrs[0] == psnrs[4] != psnrs[2]
            assert psnrs[1] == psnrs[3]


# --- mistakes


def test_too_few_references(save_network, run, two_sites):
    path = save_network("net")
    assert run([path], "--like", 1, 3).error == (
        "subject Tiny_00000: its site a has 2 other subjects with all sequences, but 3 are asked "
        "for"
    )
    (two_sites / "test.csv").write_text("name,mask,site\nTiny_00003,10,b\nTiny_00004,10,\n")
    assert run([path], "--like", 1).error == (
        "subject Tiny_00003: its site b has 0 other subjects with all sequences, but 1 are asked "
        "for"
    )
    (two_sites / "test.csv").write_text("name,mask\nTiny_00003,10\nTiny_00004,10\n")
    assert run([path], "--like", 2).error == (
        "subject Tiny_00003 has no site: adaptation to others of its site needs the split file's "
        "third column"
    )


def test_zero_references_need_the_checkpoints_own_map(save_network, run, tmp_path):
    path = save_network("net")
    assert run([path], "--like", 0).error == (
        f"{path} carries no map of validation subjects, which --like 0 asks for: training writes "
        "one into best.pth"
    )
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_what_is_adapted_already(save_network, run):
    path = save_network("mapped", adaptation=MAPS)
    assert run([save_network("net"), path], "--like", 1).error == (
        f"{path} is adapted already: --like takes one that is not"
    )


def test_doubled_names_of_adapted_networks(save_network, run):
    files = [save_network("net"), save_network("other")]
    assert run(files, "--names", "net", "net + 1", "--like", 1).error == (
        "two methods would be called net + 1: name the checkpoints by --names"
    )
