"""Adapted methods by number of references: names told apart, numbers by hand, figure, script."""

import csv
import runpy
from math import isnan, nan
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, TINY_TSF, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.adaptation_curve import (
    AdaptationCurve,
    AdaptationRow,
    adaptation_curve,
    adaptation_tables,
    write_adaptation_rows,
)
from tsf_seq2seq.evaluation.adaptation_figure import adaptation_figure, plot_adaptation
from tsf_seq2seq.evaluation.scores import ADAPTATION_FILES, METRICS, Score
from tsf_seq2seq.models import build_network
from tsf_seq2seq.synthesis.adapted import AdaptedSynthesizer
from tsf_seq2seq.synthesis.adapted_names import adapted_methods
from tsf_seq2seq.tables import read_rows

SUBJECTS = "abcdef"
SCRIPT = REPOSITORY / "src" / "evaluate" / "evaluate.py"


def score(name: str, sources: str, method: str, psnr: float, lpips: float = nan) -> Score:
    return Score(name, sources, "flair", method, psnr, 0.5, lpips, nan)


def made_up(lpips: float = 9.0) -> list[Score]:
    """Subject i = 1 … 6 of two single-source tasks: 20 and 22 dB as trained and with + 0, with + 1
    better by i − 0.5 and i + 0.5 dB, and by i in LPIPS; of two sources one task, with + 1 worse by
    1 dB."""
    scores = []
    for i, name in enumerate(SUBJECTS, start=1):
        for sources, psnr, less in (("t1", 20.0, 0.5), ("t2", 22.0, -0.5)):
            scores += [score(name, sources, m, psnr, lpips) for m in ("tsf", "tsf + 0")]
            scores.append(score(name, sources, "tsf + 1", psnr + i - less, lpips - i))
        scores += [score(name, "t1+t2", m, 30.0, lpips) for m in ("tsf", "tsf + 0")]
        scores.append(score(name, "t1+t2", "tsf + 1", 29.0, lpips))
    return scores


def curve_of(scores: list[Score]) -> AdaptationCurve:
    curve = adaptation_curve(scores)
    assert curve is not None
    return curve


def told_apart(*methods: str) -> list[tuple[str, str, str]]:
    """(name, plain, family and number) of the adapted ones."""
    found = adapted_methods(methods)
    return [(one.name, one.plain, f"{one.family}: {one.adapted_by}") for one in found]


def test_names_of_adapted_methods():
    methods = ["mean_image", "tsf", "tsf + 0", "tsf + 10", "tsf + 2", "tsf, background set"]
    rivals = ["quadratic_regression + 2", "tsf, gain and offset + 2", "quadratic_regression"]
    assert told_apart(*methods, *rivals) == [
        ("tsf", "tsf", "tsf: as trained"),
        ("tsf, background set", "tsf", "tsf, background set: as trained"),
        ("tsf + 0", "tsf", "tsf: 0"),
        ("tsf + 2", "tsf", "tsf: 2"),
        ("tsf + 10", "tsf", "tsf: 10"),
        ("tsf, gain and offset + 2", "tsf", "tsf, gain and offset: 2"),
        ("quadratic_regression + 2", "tsf", "quadratic_regression: 2"),
    ]


def test_names_that_only_look_adapted():
    """A checkpoint may be called `my + 3`, and be adapted itself."""
    assert told_apart("my + 3", "tsf") == []
    assert told_apart("tsf", "tsf + 01", "tsf + x", "tsf + -1", "tsf +1", " + 1") == []
    assert told_apart("tsf", "tsf, background set", "quadratic_regression + 1") == []
    assert told_apart("quadratic_regression", "quadratic_regression + 1") == []
    assert told_apart("tsf", f"tsf + {'9' * 5000}") == []
    own = [("my + 3", "my + 3", "my + 3: as trained"), ("my + 3 + 1", "my + 3", "my + 3: 1")]
    assert told_apart("my + 3", "my + 3 + 1") == own
    assert told_apart("my", "my + 3", "my + 3 + 1") == own
    both = told_apart("my", "my + 1", "my + 3", "my + 3 + 1")
    assert both == [("my", "my", "my: as trained"), ("my + 1", "my", "my: 1"), *own]


def test_every_name_that_a_synthesizer_gives_is_told():
    plain = SimpleNamespace(names=["tsf", "tsf_without_attention"], main="tsf")
    synthesizer = AdaptedSynthesizer(plain, None, [0, 1, 4], lambda _: (), beside=True)
    told = {one.name for one in adapted_methods(synthesizer.names)}
    assert told == set(synthesizer.names) - {"tsf_without_attention"}
    assert len(told) == 2 + 3 + 2 * 2


def test_rows_by_hand(tmp_path):
    """Gains 1 to 6: mean 3.5, all of one sign, so p = 2 / 2⁶. Holm's over four tests of PSNR: of p
    1/32, 1/32, 1, 1 the first two become 1/8. Of LPIPS over four, too: 1/32 of one alone."""
    write_adaptation_rows(tmp_path / "adaptation.csv", curve_of(made_up()))
    rows = read_rows(tmp_path / "adaptation.csv", AdaptationRow)
    assert [(r.family, r.references, r.inputs, r.metric) for r in rows] == [
        ("tsf", references, inputs, metric)
        for inputs in (1, 2)
        for references in ("as trained", "0", "1")
        for metric in ("psnr", "ssim", "lpips")
    ]
    of = {(r.references, r.inputs, r.metric): r for r in rows}
    plain, same = of["as trained", 1, "psnr"], of["0", 1, "psnr"]
    assert (plain.subjects, plain.mean, plain.low, plain.high) == (6, 21, 21, 21)
    assert all(isnan(v) for v in (plain.gain, plain.gain_low, plain.wins, plain.p, plain.p_holm))
    assert (same.gain, same.gain_low, same.gain_high, same.wins) == (0, 0, 0, 0)
    assert (same.p, same.p_holm) == (1, 1)
    better = of["1", 1, "psnr"]
    assert (better.mean, better.gain, better.wins) == (24.5, 3.5, 1)
    assert 1 <= better.gain_low < 3.5 < better.gain_high <= 6
    assert better.low == pytest.approx(21 + better.gain_low)
    assert (better.p, better.p_holm) == (pytest.approx(1 / 32), pytest.approx(4 / 32))
    worse = of["1", 2, "psnr"]
    assert (worse.mean, worse.gain, worse.wins) == (29, -1, 0)
    assert worse.p_holm == pytest.approx(4 / 32)
    distance = of["1", 1, "lpips"]  # lower is better
    assert (distance.mean, distance.gain, distance.wins) == (5.5, 3.5, 1)
    assert distance.p_holm == pytest.approx(4 / 32)


def test_tables_by_hand():
    tables = adaptation_tables(curve_of(made_up()))
    assert list(tables) == ["By number of references", "Gains by adaptation", "Gain by task"]
    means = tables["By number of references"].cells()
    assert means[0] == ["1", "tsf", "as trained", "6", "12", *means[0][5:]]
    assert means[0][5].split()[0] == "21.00"
    gains = tables["Gains by adaptation"]
    assert gains.headings[:5] == ["metric", "inputs", "method", "references", "subjects"]
    row = gains.cells()[1]
    assert row[:5] == ["PSNR (dB)", "1", "tsf", "1", "6"]
    assert row[5].startswith("+3.50 [+")
    assert row[6:] == ["100%", "+1.00", "0.031", "0.12"]
    assert "positive where adaptation is better" in gains.caption
    by_task = tables["Gain by task"]
    assert by_task.headings == ["sources", "target", "subjects", "+ 0", "+ 1"]
    assert by_task.cells() == [
        ["t1", "flair", "6", "+0.00", "+3.00"],
        ["t2", "flair", "6", "+0.00", "+4.00"],
        ["t1+t2", "flair", "6", "+0.00", "-1.00"],
    ]


def test_what_the_network_cannot_do_is_left_out():
    """A map of sources alone has no output to be compared with."""
    scores = [s for s in made_up() if (s.sources, s.method) != ("t1+t2", "tsf")]
    curve = curve_of(scores)
    assert {row.key[0] for row in curve.means} == {1}
    assert all(gain.inputs == 1 for gain in curve.gains)
    others = [s for s in scores if s.method != "tsf"]
    assert adaptation_curve(others) is None
    apart = [score("a", "t1", "tsf", 20.0), score("a", "t2", "tsf + 1", 20.0)]
    assert adaptation_curve(apart) is None


def test_lines_of_a_network_and_its_rivals():
    rivals = [
        score(name, "t1", method, 10.0 + i)
        for i, name in enumerate(SUBJECTS)
        for method in ("quadratic_regression + 1", "tsf, gain and offset + 1")
    ]
    curve = curve_of([*made_up(), *rivals])
    assert curve.networks == ["tsf"]
    assert curve.stops("tsf") == ["as trained", "0", "1"]
    lines = curve.lines("tsf", METRICS["psnr"])
    assert [(line.family, line.inputs, line.places) for line in lines] == [
        ("tsf", 1, [0, 1, 2]),
        ("tsf", 2, [0, 1, 2]),
        ("tsf, gain and offset", 1, [2]),
        ("quadratic_regression", 1, [2]),
    ]
    assert [point.mean for point in lines[0].estimates] == [21, 21, 24.5]
    assert lines[2].estimates[0].mean == 12.5


@pytest.mark.parametrize(("lpips", "panels"), [(9.0, 3), (nan, 2)])
def test_figure(tmp_path, lpips, panels):
    """A panel a metric; LPIPS's only where it was measured."""
    curve = curve_of(made_up(lpips))
    figure = adaptation_figure(curve)
    titles = [
        "PSNR (dB), higher is better",
        "SSIM, higher is better",
        "LPIPS (sum), lower is better",
    ]
    assert [axes.get_title() for axes in figure.axes] == titles[:panels]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["as\ntrained", "0", "1"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1 input", "2 inputs"]
    drawn = sorted(tuple(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 3)
    assert (21, 21, 24.5) in drawn
    assert (30, 30, 29) in drawn
    plot_adaptation(curve, tmp_path / "adaptation")
    assert {path.name for path in tmp_path.iterdir()} == {"adaptation.pdf", "adaptation.png"}


def test_two_networks():
    scores = made_up()
    scores += [
        Score(
            s.name, s.sources, s.target, s.method.replace("tsf", "unet"), s.psnr - 1, 0.5, nan, nan
        )
        for s in scores
    ]
    curve = curve_of(scores)
    assert curve.networks == ["tsf", "unet"]
    assert list(adaptation_tables(curve))[2:] == ["Gain by task: tsf", "Gain by task: unet"]
    assert len(adaptation_figure(curve).axes) == 6
    assert {(gain.method, gain.other) for gain in curve.gains} == {
        (f"{name} + {n}", name) for name in ("tsf", "unet") for n in (0, 1)
    }


# --- the script


@pytest.fixture
def run(script, tmp_path, tiny_dataset):
    """run(options…) of evaluate.py on two subjects of one site, into `out`."""
    config_path = tmp_path / "tiny.yaml"
    config_path.write_text(tiny_yaml(TINY_TSF, tiny_dataset, tmp_path / "run"))
    (tiny_dataset / "test.csv").write_text("name,mask,site\nTiny_00002,10,x\nTiny_00003,10,x\n")
    config = load_config(config_path)
    save_checkpoint(tmp_path / "tsf" / "best.pth", build_network(config), config)

    def run(*options: object):
        return script(
            lambda _: runpy.run_path(str(SCRIPT), run_name="__main__"),
            *("-l", tmp_path / "tsf" / "best.pth", "-o", tmp_path / "out", "--no-predictions"),
            *options,
        )

    return run


def test_script(run, tmp_path):
    outcome = run("--like", 1, "--like-baselines")
    assert outcome.code == 0, outcome.err
    assert "Gains over tsf as trained" in outcome.out
    with open(tmp_path / "out" / "adaptation.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "psnr"]
    assert [(row["family"], row["references"], row["subjects"]) for row in rows] == [
        ("tsf", "as trained", "2"),
        ("tsf, background set", "as trained", "2"),
        ("tsf", "1", "2"),
        ("tsf, gain and offset", "1", "2"),
        ("quadratic_regression", "1", "2"),
    ]
    text = (tmp_path / "out" / "table.md").read_text()
    for title in ("By number of references", "Gains by adaptation", "Gain by task"):
        assert f"\n## {title}\n" in text


def test_script_without_adaptation(run, tmp_path):
    assert run().code == 0
    assert not {path.name for path in (tmp_path / "out").iterdir()} & set(ADAPTATION_FILES)
    assert "as trained" not in (tmp_path / "out" / "table.md").read_text()


def test_what_was_made_of_former_scores_goes(run, tmp_path, tiny_dataset, monkeypatch):
    """Before a subject that has changed is evaluated again; other files stay."""
    assert run("--like", 1).code == 0
    files = [tmp_path / "out" / name for name in ADAPTATION_FILES]
    assert all(path.is_file() for path in files)
    (tiny_dataset / "test.csv").write_text("name,mask,site\nTiny_00002,10,x\nTiny_00003,11,x\n")

    def fails(*_: object) -> None:
        raise UserError("the power went")

    monkeypatch.setattr("tsf_seq2seq.evaluation.protocol._evaluate_subject", fails)
    assert run("--like", 1).error == "the power went"
    assert not any(Path(path).exists() for path in files)
