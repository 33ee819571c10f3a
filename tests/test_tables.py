"""Tables that are damaged: told by file and line, whatever is wrong with them."""

import os
from collections.abc import Callable
from math import nan
from pathlib import Path

import pytest
from conftest import SEQUENCES

from tsf_seq2seq.cli.explain import explain_contribution, map_tsem
from tsf_seq2seq.cli.trust import check_faithfulness, compare_methods
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, read_scores, write_scores
from tsf_seq2seq.explain.faithfulness import Faithfulness
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.tables import Table, read_rows, write_rows

HEADING = "name,sources,target,method,psnr,ssim,lpips,lpips_per_slice"
SCORES = [
    Score(name, "t1+t2", "flair", method, 24.5, 0.75, nan, nan)
    for name in ("a", "b")
    for method in ("tsf", "mean_image")
]
FUSION = "sources,target,t1,t2,flair\nt1,t2,1,,\nt1+flair,t2,0.25,,0.75\n"


@pytest.fixture
def path(tmp_path) -> Path:
    write_scores(tmp_path / "metrics.csv", SCORES)
    return tmp_path / "metrics.csv"


def edited(path: Path, edit: Callable[[str], str]) -> Path:
    path.write_text(edit(path.read_text()))
    return path


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (
            lambda t: t + t.splitlines()[2] + "\n",
            "line 6: it is of the same name, sources, target, method as line 3",
        ),
        (
            lambda t: t.replace("b,t1+t2,flair,tsf,24.5,0.75,nan,nan", "b,t1+t2,flair,tsf"),
            "line 4: it has 4 cells, but there are 8 columns",
        ),
        (
            lambda t: t.replace("nan\nb,t1+t2,flair,tsf", "nan,1\nb,t1+t2,flair,tsf"),
            "line 3: it has 9 cells, but there are 8 columns",
        ),
        (lambda t: t[:-5], "line 5: it has no end: the file was cut short"),
        (lambda t: t.replace("ssim,", ""), "line 1: there is no column ssim"),
        (lambda t: t.replace("ssim,", "ssim,ssim,"), "line 1: column 'ssim' stands twice"),
        (lambda t: t.replace("ssim,", "ssim,extra,"), "line 1: column 'extra' is not known"),
        (
            lambda t: t.replace("24.5", "24,5", 1).replace("nan,nan", "nan", 1),
            "line 2: its ssim is 5, outside -1 to 1",
        ),
        (lambda t: t.replace("0.75", "high", 1), "line 2: ssim 'high' is no number"),
        (lambda t: t.replace("0.75", "", 1), "line 2: ssim '' is no number"),
        (lambda t: t.replace("0.75", "0_75", 1), "line 2: ssim '0_75' is no number"),
        (lambda t: t.replace("24.5", "nan", 1), "line 2: its psnr is nan"),
        (
            lambda t: t.replace("t1+t2", "t1+t1", 1),
            "line 2: its sources must be names joined by +, not 't1+t1'",
        ),
        (lambda t: t.replace("a,", ",", 1), "line 2: its name is empty"),
        (lambda t: t.replace("a,t1", "\0,t1", 1), "line 2: it holds a null character"),
        (lambda t: t.replace("a,t1", '"a,t1', 1), "line 5: unexpected end of data"),
        (
            lambda t: t.replace("b,t1", "b" * 200_000 + ",t1", 1),
            "line 4: field larger than field limit (131072)",
        ),
        (lambda t: "", "line 1: there is no column name"),
    ],
)
def test_damaged_metrics(path, edit, what):
    with pytest.raises(UserError) as error:
        read_scores(edited(path, edit))
    start = f"{path} is not a metrics.csv of this software: "
    assert str(error.value).startswith(start + what)


def test_metrics_that_are_not_text(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\xff" + lines[3], lines[4]]))
    with pytest.raises(UserError, match="line 4: it is no UTF-8 text"):
        read_scores(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "metrics.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match="does not exist" if kind == "missing" else "is no file"):
        read_scores(path)


def test_a_subject_with_a_row_missing(path, script):
    """Paired comparisons would leave it out without a word."""
    edited(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    error = script(compare_methods, path).error
    assert error == (
        f"{path} is not whole: it has no row of subject b, t1+t2 → flair, by mean_image, which "
        "scored it for other subjects"
    )
    assert not (path.parent / "comparisons.csv").exists()


def test_more_sequences_than_there_can_be(tmp_path):
    rows = [Score("a", f"s{i}", "t1", "tsf", 20.0, 0.5, nan, nan) for i in range(40)]
    write_scores(tmp_path / "metrics.csv", rows)
    with pytest.raises(UserError, match="names 41 sequences, but 8 are the most"):
        read_scores(tmp_path / "metrics.csv")


def test_no_scores(tmp_path, script):
    write_scores(tmp_path / "metrics.csv", [])
    assert (
        script(explain_contribution, tmp_path).error
        == f"{tmp_path / 'metrics.csv'} holds no scores"
    )


def test_spreadsheets_marks_and_line_ends_are_read(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [repr(score) for score in read_scores(path)] == [repr(score) for score in SCORES]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (
            lambda t: t.replace("t1+flair,t2", "t1,t2"),
            "line 3: it is of the same sources, target as line 2",
        ),
        (lambda t: t.replace("t1+flair", "t1+pd"), "line 3: there is no column of sequence 'pd'"),
        (
            lambda t: t.replace("flair,t2,0", "flair,pd,0"),
            "line 3: there is no column of sequence 'pd'",
        ),
        (lambda t: t.replace("0.75", ""), "line 3: weights must stand where the sources are"),
        (
            lambda t: t.replace("0.25,,", "0.25,0,"),
            "line 3: weights must stand where the sources are",
        ),
        (lambda t: t.replace("0.25", "nan"), "line 3: a weight is not from 0 to 1"),
        (lambda t: t.replace("0.25", "x"), "line 3: 'x' is no number"),
        (lambda t: t.replace(",t2,flair\n", ",t2,t2\n"), "line 1: column 't2' stands twice"),
    ],
)
def test_damaged_fusion_weights(tmp_path, edit, what):
    path = tmp_path / "fusion_weights.csv"
    path.write_text(FUSION)
    assert read_fusion_csv(path)["t1+flair", "t2"] == {"t1": 0.25, "t2": 0, "flair": 0.75}
    with pytest.raises(UserError) as error:
        read_fusion_csv(edited(path, edit))
    assert str(error.value).startswith(f"{path} is not a fusion_weights.csv: {what}")


def test_rows_of_other_tables(tmp_path):
    ends = [0.5] * 9
    row = Faithfulness("t1", "t2", "psnr", 6, 0.25, 0.6, *ends)
    write_rows(tmp_path / "rows.csv", Faithfulness, [row])
    assert read_rows(tmp_path / "rows.csv", Faithfulness) == [row]
    with pytest.raises(UserError, match=r"line 2: subjects '6\.0' is no whole number"):
        read_rows(
            edited(tmp_path / "rows.csv", lambda text: text.replace(",6,", ",6.0,")), Faithfulness
        )


def test_sequences_that_the_settings_do_not_know(script, tiny_config, path, tmp_path):
    write_scores(path, [Score("Tiny_00003", "t1", "pd", "tsf", 20.0, 0.5, nan, nan)])
    told = f"{path}: subject Tiny_00003 has scores of sequence pd, which is none of "
    arguments = ("-c", tiny_config, "-l", tmp_path / "no.pth", "-o", tmp_path / "tsem")
    assert script(map_tsem, *arguments, "--metrics", path).error == told + ", ".join(SEQUENCES)
    (tmp_path / "fusion_weights.csv").write_text(FUSION)
    arguments = (path, "--fusion-weights", tmp_path, "-o", tmp_path / "trust")
    assert script(check_faithfulness, *arguments).error == told + "t1, t2, flair"


def test_markdown_of_odd_names_stays_on_its_line():
    table = Table("A\x1b[31m caption", ["name"], [["one\ntwo\x07"]])
    assert table.markdown().splitlines() == [
        "A\\x1b[31m caption",
        "",
        "| name        |",
        "|-------------|",
        "| one two\\x07 |",
    ]
