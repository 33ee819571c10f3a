"""The arguments that scripts share, and the processes that --processes asks for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tsf_seq2seq.cli.arguments import ARGUMENTS, metrics_file, positive_number, script_parser
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.processes import map_in_processes


def test_metrics_are_a_file_or_its_folder(tmp_path):
    assert metrics_file(str(tmp_path)) == tmp_path / "metrics.csv"
    assert metrics_file(tmp_path / "other.csv") == tmp_path / "other.csv"


def test_whole_numbers_from_1():
    assert positive_number("12") == 12
    for text in ("0", "-1", "1.5", "many", "", " 3", "1_000", "٣", "+3"):
        with pytest.raises(ValueError):  # noqa: PT011  (argparse says what is wrong)
            positive_number(text)


def test_numbers_that_are_too_large(capsys):
    parser = script_parser("what", [], ["seed", "processes"])
    assert parser.parse_args(["--seed", "4294967295"]).seed == 2**32 - 1
    for flag in ("--seed", "--processes"):
        with pytest.raises(SystemExit):
            parser.parse_args([flag, "4294967296"])
        assert f"argument {flag}: must be at most 4294967295\n" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            parser.parse_args([flag, "9" * 5000])


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


def die_on_3(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return number


def test_a_process_that_the_system_ends_is_told():
    results = map_in_processes(2, die_on_3, range(9))
    with pytest.raises(UserError, match=r"one of 2 processes was ended .* memory"):
        list(results)


def test_no_more_processes_than_jobs():
    assert list(map_in_processes(100_000, abs, [-1, -2])) == [1, 2]
    assert list(map_in_processes(2, abs, [])) == []


INTERRUPTED = """
import sys, time
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.processes import map_in_processes

def work():
    for number in map_in_processes(3, time.sleep, [0.01] * 3 + [60] * 9):
        print("working", flush=True)

if __name__ == "__main__":
    run_script(work)
"""


@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_is_one_line_whatever_the_processes_do(tmp_path, early):
    """Also while they start: a terminal sends it to all of them."""
    script = tmp_path / "work.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if early:
        while len(children_of(process.pid)) < 3:
            time.sleep(0.01)
    else:
        assert process.stdout.readline() == "working\n"
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "interrupted\n")


def children_of(pid: int) -> list[str]:
    """Processes that one started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
