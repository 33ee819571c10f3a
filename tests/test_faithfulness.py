"""Shapley values of a made-up table by hand, ω beside them, what f_A brings, the script."""

import csv
from functools import partial
from itertools import combinations
from math import nan
from pathlib import Path

import numpy as np
import pytest

from tsf_seq2seq.cli.trust import check_faithfulness
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, write_scores
from tsf_seq2seq.explain.attention_gain import attention_gains
from tsf_seq2seq.explain.contributions import SourceShare
from tsf_seq2seq.explain.faithfulness import agreements, faithfulness
from tsf_seq2seq.explain.fusion_weights import (
    fusion_tasks,
    fusion_weight_table,
    omegas,
    read_fusion_csv,
)
from tsf_seq2seq.explain.shapley import coalitions, leave_one_out, shapley_values
from tsf_seq2seq.explain.share_agreement import ShareAgreement, share_agreements
from tsf_seq2seq.explain.source_values import SourceValue, source_values
from tsf_seq2seq.tables import write_rows
from tsf_seq2seq.tasks import Task

NAMES = ("t1", "t2", "flair")


def game(**values: float):
    """Coalitions of one-letter players; `empty` is nobody's."""
    return {
        frozenset(() if players == "empty" else players): np.array([value])
        for players, value in values.items()
    }


def score(
    sources: str, target: str, psnr: float, method: str = "tsf", name: str = "a", lpips: float = nan
) -> Score:
    return Score(name, sources, target, method, psnr, psnr / 100, lpips, nan)


# --- Shapley values


def test_shapley_by_hand():
    """φ_a over the orders ab and ba: (v(a) − v(∅) + v(ab) − v(b)) / 2."""
    values = shapley_values(game(empty=20, a=24, b=21, ab=26))
    assert values["a"] == pytest.approx((4 + 5) / 2)
    assert values["b"] == pytest.approx((1 + 2) / 2)


def test_three_players_by_hand():
    """The glove game: a left glove (a) is worth 1 with one of two right ones (b, c)."""
    own = game(empty=0, a=0, b=0, c=0, ab=1, ac=1, bc=0, abc=1)
    values = shapley_values(own)
    assert values["a"] == pytest.approx(2 / 3)
    assert values["b"] == values["c"] == pytest.approx(1 / 6)
    assert {player: lost[0] for player, lost in leave_one_out(own).items()} == {
        "a": 1,
        "b": 0,
        "c": 0,
    }


@pytest.mark.parametrize("players", range(1, 8))
def test_efficiency(players):
    """Shapley values add up to v(all) − v(empty), for S = 2 to 8 sequences."""
    rng = np.random.default_rng(players)
    everyone = frozenset("abcdefg"[:players])
    sets = coalitions(everyone)
    assert len(sets) == 2**players
    own = {members: rng.normal(size=3) for members in sets}
    total = sum(shapley_values(own).values())
    np.testing.assert_allclose(total, own[everyone] - own[frozenset()], atol=1e-12)


def test_one_player():
    assert shapley_values(game(empty=20, a=23))["a"] == 3


# --- from a table of scores


def complete_scores(name: str = "a", shift: float = 0.0) -> list[Score]:
    """t1 is worth 4, t2 2, flair 1 to any other; alone or with others; the mean image has 20."""
    worth = {"t1": 4.0, "t2": 2.0, "flair": 1.0}
    scores = []
    for target in NAMES:
        others = [own for own in NAMES if own != target]
        for size in (1, 2):
            for sources in combinations(others, size):
                value = 20 + sum(worth[own] for own in sources) + shift
                label = "+".join(sources)
                lpips = 50 - value
                scores += [
                    score(label, target, value, name=name, lpips=lpips),
                    score(label, target, value - 1, "tsf_without_attention", name, lpips + 2),
                    score(label, target, 20 + shift, "mean_image", name, 30 - shift),
                ]
    return scores


def test_source_values():
    """In an additive table a source's Shapley value, and what is lost without it, is its worth."""
    values = source_values(complete_scores(), NAMES)
    assert len(values) == 3 * 3 * 2  # metrics, targets, sources
    found = {(v.metric, v.target, v.source): v for v in values}
    one = found["psnr", "flair", "t1"]
    assert one.shapley == pytest.approx(4)
    assert one.leave_one_out == pytest.approx(4)
    assert (one.alone, one.all_sources, one.no_source) == (24, 26, 20)
    assert found["lpips", "flair", "t1"].shapley == pytest.approx(4)  # a lower LPIPS is better
    assert found["lpips", "flair", "t1"].alone == 26
    assert found["ssim", "t1", "flair"].shapley == pytest.approx(0.01)


def test_incomplete_subjects_are_left_out():
    scores = complete_scores() + complete_scores("b")[3:]
    names = {v.name for v in source_values(scores, NAMES) if v.target == "t1"}
    assert names == {"a"}
    without = [own for own in scores if own.method != "mean_image"]
    with pytest.raises(UserError, match="no subject has scores of tsf from all source sets"):
        source_values(without, NAMES)


def weights_of(t1: float = 0.7) -> dict[tuple[str, str], dict[str, float]]:
    return {
        ("t2+flair", "t1"): {"t1": 0, "t2": 0.2, "flair": 0.8},
        ("t1+flair", "t2"): {"t1": t1, "t2": 0, "flair": 1 - t1},
        ("t1+t2", "flair"): {"t1": 0.9, "t2": 0.1, "flair": 0},
        ("t1", "flair"): {"t1": 1, "t2": 0, "flair": 0},
    }


def test_faithfulness():
    scores = complete_scores() + complete_scores("b", 1.0)
    rows = faithfulness(source_values(scores, NAMES), weights_of())
    row = next(r for r in rows if (r.metric, r.target, r.source) == ("psnr", "flair", "t1"))
    assert (row.subjects, row.omega) == (2, 0.9)
    assert row.share == pytest.approx(4 / 6)
    assert row.shapley == row.shapley_low == row.shapley_high == pytest.approx(4)
    assert row.alone == pytest.approx(24.5)
    assert (row.alone_low, row.alone_high) == (24, 25)  # both draws of one subject are common
    found = {(a.metric, a.target): a for a in agreements(rows)}
    t1, t2, flair = found["psnr", "t1"], found["psnr", "t2"], found["lpips", "flair"]
    assert (t1.shapley, t1.same_first) == (pytest.approx(-1), 0)
    assert (t2.shapley, t2.same_first) == (pytest.approx(1), 1)
    assert (flair.shapley, flair.alone) == (pytest.approx(1), pytest.approx(1))
    everything = found["psnr", "all"]
    assert (everything.pairs, everything.same_first) == (6, pytest.approx(2 / 3))
    assert everything.alone == pytest.approx(1 / 3)
    # ω   0.2 0.8 | 0.7 0.3 | 0.9 0.1 → ranks 2 5 | 4 3 | 6 1
    # φ's 2/3 1/3 | 4/5 1/5 | 2/3 1/3 → ranks 4.5 2.5 | 6 1 | 4.5 2.5
    omega, share = [2, 5, 4, 3, 6, 1], [4.5, 2.5, 6, 1, 4.5, 2.5]
    assert everything.shapley == pytest.approx(np.corrcoef(omega, share)[0, 1])


def test_missing_weights():
    weights = weights_of()
    del weights["t1+flair", "t2"]
    with pytest.raises(UserError, match=r"the fusion weights have no task t1\+flair → t2"):
        faithfulness(source_values(complete_scores(), NAMES), weights)


def test_attention_gain():
    gains = attention_gains(complete_scores() + complete_scores("b", 1.0))
    found = {(g.metric, g.sources, g.target): g for g in gains}
    one = found["psnr", "t1+t2", "flair"]
    assert (one.subjects, one.gain, one.low, one.high, one.wins) == (2, 1, 1, 1, 1)
    assert one.of_total == pytest.approx(1 / 6)
    assert found["lpips", "t1+t2", "flair"].gain == 2
    only = [own for own in complete_scores() if own.method != "mean_image"]
    assert np.isnan(attention_gains(only)[0].of_total)


# --- the script


def write_inputs(folder: Path) -> tuple[Path, Path]:
    write_scores(folder / "metrics.csv", complete_scores())
    table = {}
    for task in fusion_tasks(3):
        weights = np.zeros(3)
        weights[list(task.sources)] = 1 / len(task.sources)
        table[task] = weights
    table[Task((0, 1), 2)] = np.array([0.75, 0.25, 0])
    shown = fusion_weight_table(omegas(table, NAMES), NAMES)
    shown.write_csv(folder / "fusion_weights.csv")
    return folder / "metrics.csv", folder / "fusion_weights.csv"


@pytest.fixture
def run(script):
    return partial(script, check_faithfulness)


def test_script(run, tmp_path):
    metrics, weights = write_inputs(tmp_path)
    assert list(read_fusion_csv(weights)["t1+t2", "flair"].items()) == [
        ("t1", 0.75),
        ("t2", 0.25),
        ("flair", 0),
    ]
    outcome = run(metrics, "--fusion-weights", tmp_path, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with open(tmp_path / "out" / "shapley.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert (rows[0]["target"], rows[0]["source"], float(rows[0]["shapley"])) == ("t1", "t2", 2)
    with open(tmp_path / "out" / "faithfulness.csv", newline="") as file:
        omega = {(r["target"], r["source"]): float(r["omega"]) for r in csv.DictReader(file)}
    assert omega["flair", "t1"] == 0.75
    assert "What each source brings to flair" in outcome.out
    assert "| t1     | PSNR (dB)   | 0.750 | 0.667" in outcome.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("shapley.csv", "faithfulness.csv", "faithfulness.md"),
        *("agreement.csv", "attention_gain.csv"),
    }


def value(name: str, source: str, shapley: float) -> SourceValue:
    return SourceValue(name, "flair", source, "psnr", shapley, 0, 0, 0, 0)


def share(name: str, source: str, amount: float, region: str = "brain") -> SourceShare:
    return SourceShare(name, "t1+t1ce+t2", "flair", source, region, 0, amount, amount)


def test_orders_of_sources_by_hand():
    """What sources bring: a 3, 2, 1, b 1, 2, 3. ω says 3, 2, 1 of both, contributions 2, 3, 1 of a
    and 1, 2, 3 of b: rank correlations ½ and 1."""
    sources = ("t1", "t1ce", "t2")
    brought, shown = {"a": (3, 2, 1), "b": (1, 2, 3)}, {"a": (2, 3, 1), "b": (1, 2, 3)}
    values = [
        value(name, *own) for name in "ab" for own in zip(sources, brought[name], strict=True)
    ]
    rows = [share(name, *own) for name in "ab" for own in zip(sources, shown[name], strict=True)]
    rows += [share("a", "t1", 9, "lesion"), share("c", "t1", 1)]
    omega = {("t1+t1ce+t2", "flair"): dict(zip(sources, (0.5, 0.3, 0.2), strict=True))}
    wanted = ("psnr", 2, 0.0, 0.5, 0.75, 0.5)
    assert share_agreements(values, omega, rows) == [
        ShareAgreement("flair", *wanted),
        ShareAgreement("all", *wanted),
    ]
    with pytest.raises(UserError, match="no subject has both"):
        share_agreements(values, omega, rows[-1:])


def test_script_with_contributions(run, tmp_path):
    metrics, _ = write_inputs(tmp_path)
    rows = [
        SourceShare("a", "t1+t2", "flair", source, "brain", 0, amount, amount)
        for source, amount in {"t1": 0.4, "t2": 0.6}.items()
    ]
    write_rows(tmp_path / "contributions.csv", SourceShare, rows)
    options = ("--fusion-weights", tmp_path, "--contributions", tmp_path)
    outcome = run(metrics, *options, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with open(tmp_path / "out" / "share_agreement.csv", newline="") as file:
        (first, *_) = csv.DictReader(file)
    assert first["target"] == "flair"
    assert [float(first[key]) for key in ("omega", "contributions")] == pytest.approx([1, -1])
    assert "## Contributions" in (tmp_path / "out" / "faithfulness.md").read_text()


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "sources,target,t1\nt1,t2,much\n"])
def test_no_fusion_table(run, tmp_path, content):
    metrics, weights = write_inputs(tmp_path)
    weights.write_text(content)
    error = run(metrics, "--fusion-weights", weights, "-o", tmp_path / "out").error
    assert f"{weights} is not a fusion_weights.csv" in error
    weights.unlink()
    error = run(metrics, "--fusion-weights", weights, "-o", tmp_path / "out").error
    assert error == f"{weights} does not exist"
