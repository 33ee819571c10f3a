"""Does TSEM show where the synthesis errs? Against the true error, beside rival estimates.

An interrupted run goes on where it stopped.
"""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_tsf_arguments, positive_number
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.evaluation.fingerprint import goes_on, identity_of
from tsf_seq2seq.explain.error_estimation import Measured, measure_errors
from tsf_seq2seq.explain.error_summary import ROWS, read_measured, write_measured, write_summary
from tsf_seq2seq.explain.tsem import parse_task
from tsf_seq2seq.tasks import Task, all_tasks


def main() -> None:
    arguments = parse_arguments()
    config = experiment(arguments)
    tasks = choose_tasks(arguments, list(config.data.sequences))
    network = load_network(arguments, config)
    subjects = find_subjects(config.data, config.data.test)[: arguments.max_subjects]
    output, names = arguments.output, list(config.data.sequences)
    weights = [path for path in (arguments.load, arguments.seq2seq) if path]
    chosen = ["{}:{}".format(*task.label(names)) for task in tasks]
    identity = identity_of(config.data, weights, tasks=chosen)
    known = goes_on(output / ROWS, output / "error_estimation.json", identity)
    measured = read_measured(output) if known else Measured()
    run = measure_errors(network, config, subjects, tasks, arguments.batch_size, measured)
    for measured in run:
        write_measured(output, measured)
    if not measured.rows:
        raise UserError(f"no subject of {config.data.test} has the sequences of these tasks")
    print(write_summary(output, measured))
    print(f"error_estimation.md, .csv, curves and calibration are in {output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_tsf_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--max-subjects", type=positive_number, metavar="N", help="only the first N"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="SOURCES:TARGET",
        help="such as t1+t2:flair (default: every source set to every target outside it)",
    )
    parser.add_argument(
        "--targets", nargs="+", default=[], metavar="NAME", help="only tasks of these targets"
    )
    parser.add_argument("--batch-size", type=positive_number, default=8, help="stacks at once")
    return parser.parse_args()


def choose_tasks(arguments: argparse.Namespace, names: list[str]) -> list[Task]:
    """Tasks in the sequences' order; UserError where a name is none of theirs."""
    if unknown := [name for name in arguments.targets if name not in names]:
        raise UserError(f"--targets {unknown[0]} is none of the sequences {', '.join(names)}")
    tasks = [parse_task(text, names) for text in arguments.tasks] or all_tasks(len(names))
    tasks = [t for t in tasks if not arguments.targets or names[t.target] in arguments.targets]
    if not tasks:
        raise UserError("none of the --tasks has one of the --targets")
    return list(dict.fromkeys(tasks))


if __name__ == "__main__":
    run_script(main)
