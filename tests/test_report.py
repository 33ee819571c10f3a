"""The report's page: its numbers against the files they come from, names, missing pieces."""

import csv
import json
import os
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from statistics import mean

import pytest
import torch
from conftest import SEQUENCES
from report_page import (
    METHODS,
    Page,
    evaluation,
    halved,
    made_up_scores,
    tiny_experiment,
    training_run,
)

from tsf_seq2seq.checkpoints.checkpoint import Extras, checkpoint_extras, save_checkpoint
from tsf_seq2seq.cli.report import make_report
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.downstream import SegmentationScore
from tsf_seq2seq.evaluation.scores import Score, read_scores
from tsf_seq2seq.evaluation.segmentation import REGIONS
from tsf_seq2seq.evaluation.tumour import RegionScore
from tsf_seq2seq.explain.contributions import SourceShare
from tsf_seq2seq.explain.error_estimation import CalibrationRow, ErrorMapRow, ErrorRow
from tsf_seq2seq.explain.faithfulness import Faithfulness
from tsf_seq2seq.explain.fusion_weights import fusion_tasks, fusion_weight_table, omegas
from tsf_seq2seq.explain.share_agreement import ShareAgreement
from tsf_seq2seq.models.error_estimator import ErrorEstimatorConfig
from tsf_seq2seq.report.cases import rank_cases
from tsf_seq2seq.report.inputs import Inputs, sequences_of
from tsf_seq2seq.report.page import script_json
from tsf_seq2seq.report.quality import task_matrix
from tsf_seq2seq.report.report import write_report
from tsf_seq2seq.report.training_curves import POINTS, curve
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.error_map import ErrorMap
from tsf_seq2seq.tables import write_rows

SUBJECTS = [f"Tiny_{number:05d}" for number in range(7)]
SUMMARY = "Methods. Means over subjects, whose tasks are averaged first. 95 % intervals"
MATRIX = "Tasks: rows are source sets, columns targets"


def report(tmp_path: Path, **inputs: Path) -> Page:
    """The page of a report without network."""
    command = ["make_report.py", "-o", "report"]
    return Page(write_report(Inputs(**inputs), None, tmp_path / "report", command, "A report"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_summary_is_that_of_the_csv(tmp_path):
    """Of the CSV beside the page, computed anew."""
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", made_up_scores(SUBJECTS)))
    rows = rows_of(tmp_path / "report" / "data" / "metrics.csv")
    heading, *table = page.table(SUMMARY)
    assert heading[4:] == ["PSNR (dB)", "SSIM", "LPIPS (sum)"]
    assert [row[:2] for row in table] == [[n, m] for n in "123" for m in METHODS]
    for inputs, method, subjects, pairs, *cells in table:
        own = [r for r in rows if r["method"] == method]
        own = [r for r in own if r["sources"].count("+") + 1 == int(inputs)]
        assert (subjects, pairs) == ("7", str(len(own)))
        for cell, metric, digits in zip(cells, ("psnr", "ssim", "lpips"), (2, 3, 2), strict=True):
            number, low, high = map(float, cell.translate(str.maketrans("[],", "   ")).split())
            wanted = mean(float(r[metric]) for r in own)
            assert number == pytest.approx(wanted, abs=0.51 * 10**-digits)
            assert low < number < high


def test_task_matrix_is_that_of_the_csv(tmp_path):
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", made_up_scores(SUBJECTS)))
    heading, *table = page.tables[MATRIX]
    assert heading == ["sources", *(f"→ {name}" for name in SEQUENCES)]
    rows = rows_of(tmp_path / "report" / "data" / "metrics.csv")
    shown = 0
    for sources, *cells in table:
        for target, cell in zip(SEQUENCES, cells, strict=True):
            key = [sources.replace(" ", ""), target, "tsf"]
            own = [float(r["psnr"]) for r in rows if [*r.values()][1:4] == key]
            assert bool(cell) == bool(own)
            if own:
                assert float(cell) == pytest.approx(mean(own), abs=0.0051)
                shown += 1
    assert shown == 28


@pytest.mark.filterwarnings("ignore:invalid value")  # the deviation of an infinite PSNR
def test_task_matrix_by_hand():
    scores = [
        Score("a", "t1", "t2", "tsf", 20.0, 0.5, 3.0, 1.0),
        Score("b", "t1", "t2", "tsf", 30.0, 0.7, 5.0, 1.0),
        Score("a", "t2", "t1", "tsf", float("inf"), 1.0, 0.0, 0.0),
    ]
    content = task_matrix(scores, ["t1", "t2"])
    assert content["rows"] == ["t1", "t2"]
    psnr = content["cells"]["tsf"]["psnr"]
    assert psnr == [[None, [25.0, 5.0, 2]], [None, None]]
    assert content["cells"]["tsf"]["lpips"][1] == [[0.0, 0.0, 1], None]
    assert [metric["sign"] for metric in content["metrics"]] == [1, 1, -1]


def test_page_does_not_grow_with_subjects(tmp_path):
    """It shows means: no element, and no point of a chart, per subject."""
    sizes = []
    for count in (7, 40):
        place = tmp_path / str(count)
        scores = made_up_scores([f"subject {number}" for number in range(count)])
        page = report(place, evaluation=evaluation(place / "e", scores))
        charts = [s for s in page.scripts if isinstance(s, dict) and "data" in s]
        points = sum(len(trace["y"]) for chart in charts for trace in chart["data"])
        sizes.append((len(page.attributes), points))
    assert sizes[0] == sizes[1]
    assert sizes[0][1] == 3 * len(METHODS) * 3  # metrics, methods, numbers of inputs


@pytest.mark.parametrize("sequences", [("t1", "t2", "flair"), ("t1", "t1ce", "t2", "flair", "pd")])
def test_other_numbers_of_sequences(tmp_path, sequences):
    scores = made_up_scores(SUBJECTS[:3], sequences)
    assert sequences_of(scores) == list(sequences)
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    n = len(sequences)
    cells = [cell for row in page.tables[MATRIX][1:] for cell in row[1:]]
    assert sum(cell != "" for cell in cells) == n * (2 ** (n - 1) - 1)
    assert len(page.table(SUMMARY)) == 1 + (n - 1) * len(METHODS)


def test_without_lpips(tmp_path):
    scores = made_up_scores(SUBJECTS[:2], lpips=False)
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert page.table(SUMMARY)[0][4:] == ["PSNR (dB)", "SSIM"]
    assert "LPIPS was not computed" in page.text
    assert "nan" not in page.text.lower()


def test_names_are_escaped(tmp_path):
    """In HTML, and in the JSON that stands in it: no name starts an element."""
    evil = "</script><img src=x onerror=alert(1)>&\"'"
    scores = made_up_scores(["a", "b"], ("t1", "t2", evil), ("tsf", evil))
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert "x" not in page.values("img", "src")
    assert all("onerror" not in own for _, own in page.attributes)
    assert f"→ {evil}" in page.tables[MATRIX][0]
    assert evil in page.table(SUMMARY)[2]
    matrices = [s for s in page.scripts if isinstance(s, dict) and "methods" in s]
    assert matrices[0]["methods"] == ["tsf", evil]
    assert script_json(["</script>"]) == '["\\u003c/script\\u003e"]'


def test_links_lead_to_files_of_the_folder(tmp_path):
    page = report(
        tmp_path,
        evaluation=evaluation(tmp_path / "e", made_up_scores(SUBJECTS[:2])),
        stage1=training_run(tmp_path / "stage1"),
    )
    links = [link for link in page.values("a", "href") if not link.startswith("#")]
    links += page.values("script", "src") + page.values("img", "src")
    assert {"data/metrics.csv", "data/summary.csv", "data/stage1_log.csv"} <= set(links)
    for link in links:
        assert (tmp_path / "report" / link).is_file(), link
    identifiers = [own["id"] for _, own in page.attributes if own.get("id")]
    assert len(identifiers) == len(set(identifiers))
    anchors = [link[1:] for link in page.values("a", "href") if link.startswith("#")]
    assert set(anchors) <= set(identifiers)


def test_every_picture_has_words_and_every_chart_too(tmp_path):
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", made_up_scores(SUBJECTS[:2])))
    assert all(own.get("alt") for tag, own in page.attributes if tag == "img")
    charts = [own for tag, own in page.attributes if own.get("class") == "plot"]
    assert len(charts) == 3
    assert all(own["role"] == "img" and own["aria-label"] for own in charts)


def test_missing_steps_name_their_commands(tmp_path):
    """Each in a line; no table stands for them."""
    page = report(tmp_path, stage2=training_run(tmp_path / "stage2"))
    for name in ("evaluate_brats_tsf", "fusion_weights", "faithfulness", "error_estimation"):
        assert f"{name}" in page.text
    assert "evaluate_tumour.py" in page.text
    assert not page.tables
    losses = [s for s in page.scripts if isinstance(s, dict) and "data" in s]
    assert losses[0]["data"][0]["y"] == [1, 1 / 2, pytest.approx(1 / 3)]
    assert losses[1]["data"][0]["y"] == [24.5]


def test_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="nothing to report"):
        write_report(Inputs(), None, tmp_path / "report", ["x"], "title")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="hold no results"):
        write_report(Inputs(trust=tmp_path / "empty"), None, tmp_path / "report", ["x"], "title")
    with pytest.raises(UserError, match=r"empty holds no metrics\.csv"):
        write_report(Inputs(evaluation=tmp_path / "empty"), None, tmp_path / "r", ["x"], "title")


def test_one_method_alone_needs_no_tests(tmp_path):
    scores = made_up_scores(SUBJECTS[:2], methods=("tsf",))
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert "only tsf was scored" in page.text
    assert not any(caption.startswith("Paired differences") for caption in page.tables)


def test_damaged_tables_are_named(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "faithfulness.csv").write_text("target,source\nt1,t2\n")
    with pytest.raises(UserError, match=r"faithfulness\.csv is not a table of Faithfulness rows"):
        report(tmp_path, trust=tmp_path / "trust")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{}",
        "[1]",
        '{"removed": 3, "tasks": []}',
        '{"removed": [0, 0.5], "tasks": [{"curves": 3}]}',
        '{"removed": [0, 0.5], "tasks": [{"curves": {"tsem": [1]}}]}',
        '{"removed": [0, 0.5], "tasks": [{"curves": {"tsem": ["a", "b"]}}]}',
        '{"removed": [0], "tasks": [{"curves": {"tsem": [1]}}, {"curves": {"oracle": [1]}}]}',
        "\xff",
    ],
)
def test_curves_that_are_none(tmp_path, text):
    trust = tmp_path / "trust"
    write_rows(trust / "error_estimation.csv", ErrorRow, error_rows())
    (trust / "sparsification.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"sparsification\.json (holds no|can't be read)"):
        report(tmp_path, trust=trust)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000, "can't be read: it is nested too deeply"),
        ("[1]", "the file must hold a dict"),
        ('{"weights": [1]}', "weights must hold a dict"),
        ('{"data": 3}', "data must hold a dict"),
        ('{"methods": 3}', "methods must hold a list"),
        ('{"finish": 3}', "finish must hold a dict"),
    ],
)
def test_an_identity_that_is_none(tmp_path, text, what):
    folder = evaluation(tmp_path / "e", made_up_scores(SUBJECTS[:2], methods=("tsf",)))
    (folder / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=what):
        report(tmp_path, evaluation=folder)


def test_numbers_that_json_does_not_know(tmp_path):
    trust = tmp_path / "trust"
    write_rows(trust / "error_estimation.csv", ErrorRow, error_rows())
    tasks = [{"curves": {"oracle": [1, nan], "tsem": [1, inf]}}]
    content = json.dumps({"removed": [0, nan], "tasks": tasks})
    (trust / "sparsification.json").write_text(content)
    parts = [CalibrationRow("a", "t1+t2", "flair", "tsem", 1, 9, nan, inf)]
    write_rows(trust / "calibration.csv", CalibrationRow, parts)
    page = report(tmp_path, trust=trust)
    lines = next(s for s in page.scripts if isinstance(s, dict) and len(s["data"]) == 3)
    assert lines["data"][1]["x"] == [0, None]
    assert lines["data"][1]["y"] == [1, None]


def test_a_metric_that_is_none(tmp_path):
    row = Faithfulness("t1", "t2", "beauty", 6, 0.25, 0.6, *[0.5] * 9)
    write_rows(tmp_path / "trust" / "faithfulness.csv", Faithfulness, [row])
    with pytest.raises(UserError, match=r"faithfulness\.csv .*line 2: metric 'beauty' is none of"):
        report(tmp_path, trust=tmp_path / "trust")


def test_control_characters_in_names(tmp_path):
    """They stay text of the page, and of the terminal."""
    names = ["a\x1b[2J", "b\u202e"]
    scores = made_up_scores(names, ("t1", "t2\x07"), ("tsf", "other\x1b"))
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert "→ t2\x07" in page.tables[MATRIX][0]


def test_a_disk_that_is_full_leaves_the_old_page(tmp_path, monkeypatch):
    """Whichever write fails: the page is the last one."""
    run, sync = training_run(tmp_path / "stage1"), os.fsync
    report(tmp_path, stage1=run)
    page = tmp_path / "report" / "index.html"
    before = page.read_bytes().replace(b"A report", b"The old one")
    page.write_bytes(before)
    for fails in range(1, 100):
        calls = []

        def full(handle, fails=fails, calls=calls):
            calls.append(handle)
            if len(calls) == fails:
                raise OSError(28, "No space left on device")
            return sync(handle)

        monkeypatch.setattr(os, "fsync", full)
        try:
            report(tmp_path, stage1=run)
            break
        except UserError as error:
            told = str(error)
        assert "could not be written" in told
        assert "No space left on device" in told
        assert page.read_bytes() == before
    assert fails > 8
    assert page.read_bytes() != before
    assert not list((tmp_path / "report").glob(".*"))


def test_a_disk_that_is_full_is_no_missing_case(tmp_path, tiny_config, monkeypatch):
    """A page that says so would have no pictures, and end well."""

    def full(*_):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise UserError("cases could not be written") from error

    monkeypatch.setattr("tsf_seq2seq.report.report.write_cases", full)
    experiment = tiny_experiment(tiny_config)
    scores = made_up_scores(["Tiny_00003", "Tiny_00002"])
    inputs = Inputs(evaluation=evaluation(tmp_path / "e", scores))
    with pytest.raises(UserError, match="cases could not be written"):
        write_report(inputs, experiment, tmp_path / "report", ["x"], "title")
    assert not (tmp_path / "report" / "index.html").exists()


def test_adaptation_to_the_scanner(tmp_path):
    """One chart a metric, of which one is chosen; its numbers are those of the CSV."""
    methods = ("tsf", "tsf + 0", "tsf + 2", "tsf, gain and offset + 2", "mean_image")
    scores = made_up_scores(SUBJECTS, methods=methods)
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert "Adaptation to the scanner" in page.text
    assert "0 stands for the checkpoint's own map" in page.text
    assert "Thin lines are rivals" in page.text
    options = [own["value"] for tag, own in page.attributes if tag == "option" and "value" in own]
    assert options[-3:] == ["0", "1", "2"]
    charts = [s for s in page.scripts if isinstance(s, dict) and "data" in s]
    of_methods, own = charts[:3], charts[3:]
    assert [line["name"] for line in of_methods[0]["data"]] == ["tsf", "mean_image"]
    assert [chart["layout"]["yaxis"]["title"]["text"] for chart in own] == [
        "PSNR (dB)",
        "SSIM",
        "LPIPS (sum)",
    ]
    assert own[0]["layout"]["xaxis"]["ticktext"] == ["as trained", "0", "2"]
    rows = rows_of(tmp_path / "report" / "data" / "adaptation.csv")
    for chart, metric in zip(own, ("psnr", "ssim", "lpips"), strict=True):
        for line in chart["data"]:
            inputs, _, rival = line["name"].partition(", ")
            family = f"tsf, {rival}" if rival else "tsf"
            wanted = [
                float(row["mean"])
                for row in rows
                if (row["family"], row["inputs"], row["metric"]) == (family, inputs[0], metric)
            ]
            assert line["y"] == wanted
            assert ("error_y" in line) == (not rival)
    assert [len(line["y"]) for line in own[0]["data"]] == [3, 3, 3, 1, 1, 1]
    gains = page.table("Gains over tsf as trained")
    assert gains[1][:5] == ["PSNR (dB)", "1", "tsf", "0", "7"]
    assert len(gains) == 1 + 3 * 3 * 3
    by_task = page.table("Gain in PSNR (dB) over tsf as trained")
    assert by_task[0] == ["sources", "target", "subjects", "+ 0", "+ 2"]
    assert len(by_task) == 1 + 28


def test_adaptation_of_another_evaluation(tmp_path):
    """The section's numbers are its own; the rest of the page is of --evaluation."""
    own = made_up_scores(SUBJECTS[:2], methods=("unet", "unet + 1"))
    folders = {"evaluation": evaluation(tmp_path / "e", made_up_scores(SUBJECTS))}
    folders["adaptation"] = evaluation(tmp_path / "a", own)
    page = report(tmp_path, **folders)
    assert page.table("Gains over unet as trained")[1][:5] == ["PSNR (dB)", "1", "unet", "1", "2"]
    data = tmp_path / "report" / "data"
    assert read_scores(data / "adaptation_metrics.csv") == own
    assert {row["family"] for row in rows_of(data / "adaptation.csv")} == {"unet"}


def test_no_adaptation_no_section(tmp_path):
    scores = made_up_scores(SUBJECTS[:2], methods=("my + 3", "other"))
    page = report(tmp_path, evaluation=evaluation(tmp_path / "e", scores))
    assert "Adaptation to the scanner" not in page.text
    assert not (tmp_path / "report" / "data" / "adaptation.csv").exists()


def test_cases_of_an_adapted_checkpoint(script, tmp_path, tiny_config):
    """Its maps go with it to the cases, which say so; nothing is said without."""
    experiment = tiny_experiment(tiny_config)
    scores = made_up_scores(["Tiny_00003", "Tiny_00002"], methods=("tsf",))
    evaluation(tmp_path / "e", scores)
    maps = {"t1:flair": halved(2)}
    for name, adaptation in (("adapted", Adaptation((), maps, {"t1": 1.0})), ("plain", None)):
        weights = tmp_path / f"{name}.pth"
        save_checkpoint(weights, experiment.network, experiment.config, adaptation=adaptation)
        options = ("--evaluation", tmp_path / "e", "-l", weights, "-o", tmp_path / name)
        outcome = script(make_report, *options)
        assert outcome.code == 0, outcome.err
        page = Page(tmp_path / name / "index.html")
        assert "Target flair" in page.text
        assert ("before the map" in page.text) == (adaptation is not None)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "authors.pth")
    assert checkpoint_extras(tmp_path / "authors.pth", experiment.network) == Extras()


def test_fusion_weights_beside_shapley_values(tmp_path):
    table = {task: _equal(task.sources) for task in fusion_tasks(3)}
    names = ("t1", "t2", "flair")
    shown = fusion_weight_table(omegas(table, names), names)
    shown.write_csv(tmp_path / "w" / "fusion_weights.csv")
    ends = [0.5, 0.3, 0.7]
    rows = [
        Faithfulness("t1", source, "psnr", 6, omega, share, *ends, *ends, *ends)
        for source, omega, share in (("t2", 0.25, 0.6), ("flair", 0.75, 0.4))
    ]
    write_rows(tmp_path / "trust" / "below" / "faithfulness.csv", Faithfulness, rows)
    shares = [
        SourceShare("a", "t2+flair", "t1", source, "brain", 0, 0.1, share)
        for source, share in (("t2", 0.3), ("flair", 0.7))
    ]
    write_rows(tmp_path / "trust" / "shares" / "contributions.csv", SourceShare, shares)
    orders = [ShareAgreement("t1", "psnr", 6, -1, 0.25, 0.5, 0.75)]
    write_rows(tmp_path / "trust" / "below" / "share_agreement.csv", ShareAgreement, orders)
    page = report(tmp_path, fusion_weights=tmp_path / "w", trust=tmp_path / "trust")
    contributions = page.table("Contributions: each source's share")
    assert contributions[1] == ["t2+flair", "t1", "brain", "–", "0.300", "0.700", "1"]
    agreed = page.table("Do ω and the shares of the contributions order")
    assert agreed[1] == ["t1", "PSNR (dB)", "6", "-1.00", "25%", "+0.50", "75%"]
    weights = page.table("Fusion weights ω, target t1")
    assert weights[0] == ["sources", *names]
    assert ["t2+flair", "–", "0.500", "0.500"] in weights
    brings = page.table("What each source brings to t1")
    assert brings[1][:5] == ["t2", "PSNR (dB)", "0.250", "0.600", "+0.50 [+0.30, +0.70]"]
    shapley = [s for s in page.scripts if isinstance(s, dict) and len(s["data"]) == 2]
    assert [trace["y"] for trace in shapley[-1]["data"]] == [[0.25, 0.75], [0.6, 0.4]]


def _equal(sources: tuple[int, ...]) -> list[float]:
    return [1 / len(sources) if i in sources else 0 for i in range(3)]


def error_rows() -> list[ErrorRow]:
    """Two subjects, one task of two sources: Spearman 0.2 and 0.4, relative AUSE 0.6 and 0.8."""
    return [
        ErrorRow(
            *(name, "t1+t2", "flair", "tsem", "brain", 9, 25, 0.1, 0.2, rho, 0.3, 0.5, ause),
            *(0.7, 0.8),
        )
        for name, rho, ause in (("a", 0.2, 0.6), ("b", 0.4, 0.8))
    ]


def test_error_estimation(tmp_path):
    trust = tmp_path / "trust"
    write_rows(trust / "error_estimation.csv", ErrorRow, error_rows())
    parts = [
        CalibrationRow(name, "t1+t2", "flair", "tsem", part, 9, 0.1 * part, 0.2 * part + more)
        for name, more in (("a", 0), ("b", 0.1))
        for part in (1, 2)
    ]
    write_rows(trust / "calibration.csv", CalibrationRow, parts)
    curves = {"oracle": [1, 0.5], "tsem": [1, 0.9]}
    tasks = [{"sources": "t1+t2", "target": "flair", "curves": curves}]
    maps = [
        ErrorMapRow("a", "t1+t2", "flair", 26, 25, 1.5, 0.92, 0.83),
        ErrorMapRow("a", "t1", "flair", 26, 25, nan, nan, nan),  # calibrated on too few
    ]
    write_rows(trust / "error_map.csv", ErrorMapRow, maps)
    (trust / "sparsification.json").write_text(json.dumps({"removed": [0, 0.5], "tasks": tasks}))
    page = report(tmp_path, trust=trust)
    row = page.table("In the brain, by number of inputs")[1]
    assert row[:4] == ["2", "TSEM", "2", "2"]
    assert [cell.split()[0] for cell in row[4:]] == [
        *("+0.300", "0.300", "0.700", "0.2000", "+0.700", "+0.800")
    ]
    shown = page.table("The error map: the share of the brain within its bands")
    assert shown[1] == ["2", "0.920", "0.830", "–", "–", "1.000", "1.000", "1"]
    assert shown[2] == ["1", "–", "–", "–", "–", "1.000", "–", "1"]
    figures = {str(s["layout"]["xaxis"]["title"]): s["data"] for s in page.scripts if "layout" in s}
    inside, wanted = figures["{'text': 'subject'}"]
    assert (inside["name"], inside["x"], inside["y"]) == ("→ flair", ["a"], [0.92])
    assert wanted["y"] == [0.9]
    _, volumes, _ = figures["{'text': 'expected PSNR (dB)'}"]
    assert (volumes["name"], volumes["x"], volumes["y"]) == ("2 inputs", [26], [25])
    calibration = page.table("Calibration")[1:]
    assert [row[2:] for row in calibration] == [["0.1000", "0.2500"], ["0.2000", "0.4500"]]
    lines = next(s for s in page.scripts if isinstance(s, dict) and len(s["data"]) == 3)
    assert [trace["y"] for trace in lines["data"]] == [[1, 0.5], [1, 0.9], [1, 1]]


def test_tumour_table(tmp_path):
    trust, key = tmp_path / "trust", ("tsf", "whole_tumour", 9)
    rows = [
        RegionScore("a", "t1", "t2", *key, 20, 0.5, 0.1, nan, 0.25, 0.5),
        RegionScore("a", "t2", "t1", *key, 24, 0.7, 0.3, nan, 0.75, 0.5),
        RegionScore("b", "t1", "t2", *key, 26, nan, 0.2, nan, 1, 0.5),
    ]
    write_rows(trust / "tumour.csv", RegionScore, rows)
    row = report(tmp_path, trust=trust).table("Regions")[1]
    assert row[:4] == ["1", "whole tumour", "2", "3"]
    means = ["24.00", "0.600", "0.2000", "–", "0.7500", "0.5000"]
    assert [cell.split()[0] for cell in row[4:]] == means


def test_segmentation_tables(tmp_path):
    """Methods are told from what else may stand in a sequence's place."""
    trust = tmp_path / "trust"
    rows = [
        SegmentationScore(name, "t2", method, region, dice + more, 3)
        for name, more in (("a", 0.0), ("b", 0.1))
        for method, dice in (("real", 0.8), ("left out", 0.2), ("mean_image", 0.3), ("tsf", 0.6))
        for region in REGIONS
    ]
    write_rows(trust / "downstream.csv", SegmentationScore, rows)
    page = report(tmp_path, trust=trust)
    means = {(row[0], row[1]): row for row in page.table("By region")[1:]}
    assert means["tumour core", "tsf"][-2].split()[0] == "0.650"
    against = {row[2]: row[4].split()[0] for row in page.table("Paired differences in Dice")[1:]}
    assert against == {"real": "-0.200", "left out": "+0.400", "mean_image": "+0.300"}


def test_long_curves_become_means_of_blocks():
    log = [{"step": str(n), "loss": str(float(n % 2))} for n in range(1, 2 * POINTS + 1)]
    steps, values = curve([*log, {"step": "9", "loss": ""}], "loss")
    assert len(steps) == POINTS
    assert values == [0.5] * POINTS
    assert steps[:2] == [1.5, 3.5]


def test_cases_are_best_median_and_worst(tiny_config):
    experiment = tiny_experiment(tiny_config)
    subjects = find_subjects(experiment.config.data, experiment.config.data.test)
    scores = made_up_scores([subject.name for subject in subjects])
    ranked = rank_cases(scores, subjects, SEQUENCES)
    assert [item.rank for item in ranked] == ["best", "median", "worst"] * 4
    for target, name in enumerate(SEQUENCES):
        own = [s for s in scores if s.target == name and s.method == "tsf"]
        best, _, worst = (
            next(
                s
                for s in own
                if (s.name, s.sources) == (c.subject.name, c.task.label(SEQUENCES)[0])
            )
            for _, _, c in ranked[3 * target : 3 * target + 3]
        )
        assert best.psnr == max(s.psnr for s in own)
        assert worst.psnr == min(s.psnr for s in own)


def test_subjects_that_are_gone_leave_out_the_cases(tmp_path, tiny_config):
    experiment = tiny_experiment(tiny_config)
    scores = made_up_scores(["Tiny_00003"])
    (tiny_config.parent / "tiny").rename(tmp_path / "elsewhere")
    inputs = Inputs(evaluation=evaluation(tmp_path / "e", scores))
    page = Page(write_report(inputs, experiment, tmp_path / "report", ["x"], "title"))
    assert "Left out: data.root" in page.text
    assert "is not a folder" in page.text
    assert "other weights than" in page.text  # the evaluation's hash is all zeros
    settings = ErrorEstimatorConfig((4,))
    judged = ErrorMap(settings, settings.build(4, 3), network_sha256="0" * 64)
    experiment = replace(experiment, extras=Extras(error_map=judged))
    page = Page(write_report(inputs, experiment, tmp_path / "report", ["x"], "title"))
    assert "other weights than" not in page.text


def test_script(script, tmp_path):
    evaluation(tmp_path / "e", made_up_scores(SUBJECTS[:2]))
    arguments = ("--evaluation", tmp_path / "e", "-o", tmp_path / "report")
    outcome = script(make_report, *arguments)
    assert outcome.code == 0, outcome.err
    assert f"report: {tmp_path / 'report' / 'index.html'}" in outcome.out
    assert "python make_report --evaluation" in (tmp_path / "report" / "index.html").read_text()
    assert "is not a folder" in script(make_report, *arguments, "--tsem", tmp_path / "no").error
    assert "does not exist" in script(make_report, *arguments, "--viewer", tmp_path / "no.js").error
    assert "nothing to report" in script(make_report, "-o", tmp_path / "report").error
    (tmp_path / "file").write_text("")
    error = script(make_report, *arguments[:2], "-o", tmp_path / "file").error
    assert error == f"{tmp_path / 'file'} is a file, but must be a folder for the results"
