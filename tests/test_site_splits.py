"""Splits by site: the third column, and sites that are tested on alone."""

from collections import Counter
from pathlib import Path

import pytest

from tsf_seq2seq.cli.data import make_split
from tsf_seq2seq.data.split import PARTS, write_split
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.errors import UserError

PAIR = {"t1": ("{name}/t1.nii",), "pd": ("{name}/pd.nii",)}
OF_SITES = {"root": Path("data"), "patterns": PAIR, "output": Path("out"), "seed": 0}
SITE = r"(\w+)_p\d+"


@pytest.fixture
def four_sites(tmp_path, monkeypatch) -> None:
    """24 subjects of four sites in `data`, named <site>_p<i>."""
    monkeypatch.chdir(tmp_path)
    for site, number in {"a": 7, "b": 8, "c": 3, "d": 6}.items():
        for i in range(number):
            folder = Path("data", f"{site}_p{i}")
            folder.mkdir(parents=True)
            for sequence in ("t1", "pd"):
                (folder / f"{sequence}.nii").touch()


def test_sites_become_the_third_column(four_sites):
    write_split(**OF_SITES, shares=(4, 1, 1))
    without = {part: Path(f"out/{part}.csv").read_text().splitlines() for part in PARTS}
    assert without["train"][0] == "name,mask"
    write_split(**OF_SITES, shares=(4, 1, 1), site=SITE)
    for part, lines in without.items():
        names = [line.split("_")[0] for line in lines[1:]]
        wanted = [f"{lines[0]},site", *map("{},{}".format, lines[1:], names)]
        assert Path(f"out/{part}.csv").read_text().splitlines() == wanted
    rows = read_split(Path("out/train.csv"), 2)
    assert len(rows) == 16
    assert all(row.site == row.name[0] for row in rows)


@pytest.mark.parametrize(
    ("test_sites", "shares", "sizes"),
    [
        (["d"], (5, 1, 0), (15, 3, 6)),
        (["d"], (5, 1, 100), (15, 3, 6)),  # the third share doesn't count
        (["c", "a"], (1, 0, 0), (14, 0, 10)),
        (["b"], (0, 1, 0), (0, 16, 8)),
    ],
)
def test_sites_to_test_on(four_sites, test_sites, shares, sizes):
    counts = write_split(**OF_SITES, shares=shares, site=SITE, test_sites=test_sites)
    assert tuple(counts.values()) == sizes
    train, valid, tested = (read_split(path, 2) if counts[path] else [] for path in counts)
    assert {row.site for row in tested} == set(test_sites)
    others = [*train, *valid]
    assert {row.site for row in others} == {"a", "b", "c", "d"} - set(test_sites)
    assert len({row.name for row in others}) == len(others) == 24 - sizes[2]


def test_masks_of_test_sites_are_balanced(four_sites):
    write_split(**OF_SITES, shares=(5, 1, 0), site=SITE, test_sites=["d"])
    assert Counter(row.mask for row in read_split(Path("out/test.csv"), 2)) == {1: 3, 2: 3}


def test_a_patient_of_two_sites(four_sites):
    """The subjects p<i> of all sites are one patient's."""
    counts = write_split(**OF_SITES, shares=(2, 1, 1), patient=r"\w+_(p\d+)", site=SITE)
    assert sum(counts.values()) == 24
    with pytest.raises(
        UserError, match=r"subjects d_p\d and [abc]_p\d are of one patient, who can"
    ):
        write_split(
            **OF_SITES, shares=(2, 1, 1), patient=r"\w+_(p\d+)", site=SITE, test_sites=["d"]
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_sites": ["a"]}, "--test-sites needs --site, which tells the site of each subject"),
        (
            {"site": SITE, "test_sites": ["a", "e"]},
            "--test-sites e is no site of data, but a, b, c, d are",
        ),
        ({"site": r"([ab])_.*"}, r"subject c_p0: --site '([ab])_.*' finds no site in its name"),
        ({"site": r"(x?)\w_p\d"}, r"subject a_p0: --site '(x?)\w_p\d' finds no site in its name"),
        ({"site": r"\w_p\d"}, r"'\w_p\d' has no group (in parentheses) that names the site"),
        ({"site": "(a"}, "'(a' is no regular expression: missing )"),
        (
            {"site": SITE, "test_sites": ["a", "b", "c", "d"]},
            "data holds 0 patients of other sites, too few for a split",
        ),
        (
            {"site": SITE, "test_sites": ["a"], "shares": (0, 0, 1)},
            "the first two shares must not both be 0 with --test-sites, as in [0, 0, 1]",
        ),
    ],
)
def test_sites_that_make_no_split(four_sites, options, message):
    with pytest.raises(UserError) as error:
        write_split(**(OF_SITES | {"shares": (5, 1, 0)} | options))
    assert str(error.value).startswith(message)
    assert not Path("out").exists()


def test_the_scripts_options(four_sites, script):
    for path in Path("data").glob("*/*.nii"):
        path.rename(
            path.with_name(f"{path.parent.name}-{'t1n' if path.stem == 't1' else 't2w'}.nii")
        )
    options = ("--site", SITE, "--test-sites", "c", "d", "--shares", 2, 1, 0)
    outcome = script(make_split, "-r", "data", "-o", "out", *options)
    assert outcome.code == 0, outcome.err
    assert {row.site for row in read_split(Path("out/test.csv"), 4)} == {"c", "d"}
    assert len(read_split(Path("out/train.csv"), 4)) == 10
