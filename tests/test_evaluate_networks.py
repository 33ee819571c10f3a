"""Checkpoints of any networks beside each other: names, ablations, numbers, and mistakes."""

import runpy
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_SEQ2SEQ, TINY_TSF, TINY_UNET, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.config import load_config
from tsf_seq2seq.evaluation.scores import Score, read_scores
from tsf_seq2seq.models import Seq2Seq, build_network
from tsf_seq2seq.models.base import FULL

SCRIPT = REPOSITORY / "src" / "evaluate" / "evaluate.py"
NETWORKS = {"fused": TINY_TSF, "single": TINY_SEQ2SEQ, "zero_filled": TINY_UNET}


@pytest.fixture
def save(tmp_path, tiny_dataset):
    """save(folder, network's settings, overrides…): an untrained network in its folder."""

    def save(folder: str, network: str, *overrides: str) -> Path:
        config_path, path = tmp_path / f"{folder}.yaml", tmp_path / "runs" / folder / "best.pth"
        config_path.write_text(tiny_yaml(network, tiny_dataset, path.parent))
        config = load_config(config_path, overrides)
        save_checkpoint(path, build_network(config), config)
        return path

    return save


@pytest.fixture
def weights(save) -> dict[str, Path]:
    return {folder: save(folder, network) for folder, network in NETWORKS.items()}


@pytest.fixture
def run(script, tmp_path):
    """run(checkpoints, options…) of src/evaluate/evaluate.py into `out`."""

    def run(files, *options: object, output: str = "out"):
        return script(
            lambda _: runpy.run_path(str(SCRIPT), run_name="__main__"),
            *("-l", *files, "-o", tmp_path / output, *options),
        )

    return run


def scores_in(folder: Path) -> dict[tuple[str, str, str], Score]:
    """(method, sources, target) → score of the one test subject, in the order of metrics.csv."""
    scores = {(s.method, s.sources, s.target): s for s in read_scores(folder / "metrics.csv")}
    assert {score.name for score in scores.values()} == {"Tiny_00003"}
    return scores


def methods_in(folder: Path) -> list[str]:
    return list(dict.fromkeys(method for method, _, _ in scores_in(folder)))


def test_three_networks_and_a_baseline(weights, run, tmp_path):
    """Mask 10 = t1 and t2 to t1ce and flair: a Seq2Seq needs its average for two sources."""
    outcome = run(weights.values(), "--baselines", "linear_regression")
    assert outcome.code == 0, outcome.err
    methods = ["fused", "single_average", "zero_filled", "linear_regression"]
    assert list(scores_in(tmp_path / "out")) == [
        (method, "t1+t2", target) for method in methods for target in ("t1ce", "flair")
    ]
    assert all(f"| {method} " in outcome.out for method in methods)
    names = {path.name for path in (tmp_path / "out" / "predict").iterdir()}
    assert names == {f"Tiny_00003_{target}_from_t1+t2.nii.gz" for target in ("t1ce", "flair")}


def test_names_are_given(weights, run, tmp_path):
    files = [weights["zero_filled"], weights["single"]]
    assert run(files, "--names", "unet", "seq2seq", "--max-slices", 8).code == 0
    assert methods_in(tmp_path / "out") == ["unet", "seq2seq_average"]


def test_single_sources_need_no_average(weights, run, tmp_path, tiny_dataset):
    (tiny_dataset / "test.csv").write_text("Tiny_00003,8\n")
    assert run([weights["single"]]).code == 0
    assert methods_in(tmp_path / "out") == ["single"]


def test_ablations(weights, run, tmp_path):
    """What a network leaves out; the average's single outputs are no ablation of it."""
    assert run(weights.values(), "--ablations", "--all-tasks").code == 0
    methods = [method for method, _, _ in scores_in(tmp_path / "out")]
    assert {method: methods.count(method) for method in dict.fromkeys(methods)} == dict.fromkeys(
        ["fused", "fused_without_attention", "single_average", "zero_filled"], 28
    )


def test_the_papers_scripts_give_the_same_rows(weights, run, script, tmp_path):
    options = ["--all-tasks", "--no-predictions"]
    baselines = ["linear_regression", "mean_image"]
    names = ["--names", "tsf", "seq2seq", "--ablations", "--baselines", *baselines]
    assert run([weights["fused"], weights["single"]], *names, *options).code == 0
    found = scores_in(tmp_path / "out")

    methods = ["tsf", "tsf_without_attention", "seq2seq_average", *baselines]
    outcome = script(
        *(evaluate_tsf_seq2seq, "-l", weights["fused"], "-m", weights["single"]),
        *("-o", tmp_path / "stage2", "--methods", *methods, *options),
    )
    assert outcome.code == 0, outcome.err
    wanted = scores_in(tmp_path / "stage2")
    assert set(found) == set(wanted)
    assert len(found) == 5 * 28
    for key, score in found.items():
        assert repr(score) == repr(wanted[key])  # nan too, where LPIPS's weights are not at hand
    outcome = script(evaluate_seq2seq, "-l", weights["single"], "-o", tmp_path / "stage1", *options)
    assert outcome.code == 0, outcome.err
    for (_, source, target), score in scores_in(tmp_path / "stage1").items():
        if source != target:
            assert score.psnr == found["seq2seq_average", source, target].psnr


def test_tasks_that_a_network_cannot_do(weights, run, tmp_path, monkeypatch):
    """Without its average, a Seq2Seq can do nothing with two sources: it has no rows."""
    monkeypatch.setattr(Seq2Seq, "variants", (FULL,))
    outcome = run([weights["single"], weights["fused"]])
    assert outcome.code == 0, outcome.err
    assert methods_in(tmp_path / "out") == ["fused"]
    assert not (tmp_path / "out" / "examples.png").exists()


def test_settings_of_another_data_set(weights, run, tmp_path, tiny_config, tiny_dataset):
    """-c says what is evaluated on; networks stay those of their checkpoints."""
    (tiny_dataset / "other.csv").write_text("Tiny_00002,8\n")
    options = ["-c", tiny_config, "--set", f"data.test={tiny_dataset / 'other.csv'}"]
    assert run([weights["zero_filled"]], *options).code == 0
    assert {score.name for score in read_scores(tmp_path / "out" / "metrics.csv")} == {"Tiny_00002"}


def test_an_interrupted_comparison_goes_on(weights, run, tmp_path, tiny_dataset):
    (tiny_dataset / "test.csv").write_text("Tiny_00002,8\nTiny_00003,10\n")
    options = ["--names", "a", "b", "--no-predictions"]
    files = [weights["fused"], weights["zero_filled"]]
    assert run(files, *options, output="whole").code == 0
    assert run(files, *options, "--max-subjects", 1).code == 0
    assert run(files, *options).code == 0
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("whole", "out")]
    assert metrics[0] == metrics[1]
    other = run(files, "--names", "b", "a", "--no-predictions")
    assert other.error.startswith(f"{tmp_path / 'out'} holds the results of another run")


# --- mistakes, told before anything is synthesized


def test_doubled_names(weights, run, tmp_path):
    twice = [weights["fused"], weights["fused"]]
    mistakes = {
        "fused": (twice, []),
        "x": (twice, ["--names", "x", "x"]),
        "mean_image": ([weights["fused"]], ["--names", "mean_image"]),
        "x_without_attention": (twice, ["--names", "x", "x_without_attention", "--ablations"]),
    }
    for name, (files, options) in mistakes.items():
        assert run(files, *options).error == (
            f"two methods would be called {name}: name the checkpoints by --names"
        )
    assert run(twice, "--names", "x").error == "--names gives 1 names for 2 checkpoints"
    assert not (tmp_path / "out").exists()


def test_other_sequences(weights, save, run):
    other = save("others", TINY_UNET, "data.sequences={a: a.nii, b: b.nii}")
    assert run([weights["fused"], other]).error == (
        f"{other} knows the sequences a, b, but the settings name t1, t1ce, t2, flair "
        "(data.sequences)"
    )


def test_another_height_of_stacks(weights, save, run):
    other = save("thick", TINY_UNET, "data.stack=1")
    assert run([weights["fused"], other]).error == (
        f"{other} sees stacks of 1 slices, but here data.stack is 3: only networks of one height "
        "are compared"
    )


def test_a_checkpoint_that_is_none(weights, run, tmp_path):
    missing = tmp_path / "nothing.pth"
    assert run([weights["fused"], missing]).error == f"weights file {missing} does not exist"
