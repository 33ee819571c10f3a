"""The arguments that scripts share, and the processes that --processes asks for."""

import time
from pathlib import Path

import pytest

from tsf_seq2seq.cli.arguments import ARGUMENTS, metrics_file, positive_number, script_parser
from tsf_seq2seq.processes import map_in_processes


def test_metrics_are_a_file_or_its_folder(tmp_path):
    assert metrics_file(str(tmp_path)) == tmp_path / "metrics.csv"
    assert metrics_file(tmp_path / "other.csv") == tmp_path / "other.csv"


def test_whole_numbers_from_1():
    assert positive_number("12") == 12
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(ValueError):  # noqa: PT011  (argparse says what is wrong)
            positive_number(text)


def test_a_script_picks_its_arguments(capsys):
    parser = script_parser("what", ["metrics", "output"], ["device", "seed"], output="a new folder")
    parsed = parser.parse_args(["x.csv", "-o", "out", "--seed", "3"])
    assert vars(parsed) == {
        **{"metrics": Path("x.csv"), "output": Path("out")},
        **{"device": "cpu", "seed": 3},
    }
    assert "a new folder" in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["x.csv"])
    assert "the following arguments are required: -o/--output" in capsys.readouterr().err


def test_a_flag_means_one_thing():
    """But for -m, an old name of -l where a script looks at stage 1 weights."""
    destinations: dict[str, set[str]] = {}
    for name in ARGUMENTS:
        for action in script_parser("", [], [name])._actions:
            for flag in action.option_strings:
                destinations.setdefault(flag, set()).add(action.dest)
    assert {flag for flag, places in destinations.items() if len(places) > 1} == {"-m"}


def leave_a_mark(number: int, folder: Path) -> int:
    (folder / str(number)).touch()
    time.sleep(0.05)
    return number


def test_results_come_in_order_and_the_rest_is_given_up(tmp_path):
    results = map_in_processes(2, leave_a_mark, range(40), [tmp_path] * 40)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert 3 <= len(list(tmp_path.iterdir())) < 20
