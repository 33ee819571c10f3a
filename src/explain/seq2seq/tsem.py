"""TSEM of test subjects, where f_A refined the synthesis: NIfTI maps and the paper's Fig. 4."""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_tsf_arguments
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.explain.tsem import (
    Case,
    finding_table,
    parse_task,
    possible_cases,
    scored_cases,
    write_tsem,
)


def main() -> None:
    arguments = parse_arguments()
    config = experiment(arguments)
    cases = choose_cases(arguments, config)
    network = load_network(arguments, config)
    shown = arguments.cases or (3 if arguments.metrics else 6)
    findings = write_tsem(network, config, cases, arguments.batch_size, arguments.output, shown)
    print(finding_table(findings).markdown())
    print(f"maps (NIfTI), tsem.csv, tsem.pdf and tsem.png are in {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_tsf_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--subjects", nargs="+", metavar="NAME", help="only these test subjects")
    parser.add_argument("--max-subjects", type=int, metavar="N", help="only the first N")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="SOURCES:TARGET",
        help="such as t1+t2:flair, for every subject that has them; may be repeated (default: the "
        "sequences of each subject's mask, to each missing one)",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="CSV",
        help="an evaluation's metrics.csv: only its best, median and worst case by PSNR",
    )
    parser.add_argument(
        "--cases",
        type=int,
        metavar="N",
        help="rows of the figure (default: 6); with --metrics, from best to worst (default: 3)",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="stacks at once (default: 8)")
    arguments = parser.parse_args()
    for name in ("max_subjects", "cases", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    return arguments


def choose_cases(arguments: argparse.Namespace, config: Config) -> list[Case]:
    names = list(config.data.sequences)
    tasks = [parse_task(text, names) for text in arguments.task]
    subjects = find_subjects(config.data, config.data.test)
    if arguments.subjects:
        if unknown := set(arguments.subjects) - {subject.name for subject in subjects}:
            raise UserError(f"{config.data.test} names no subject {min(unknown)}")
        subjects = [subject for subject in subjects if subject.name in arguments.subjects]
    subjects = subjects[: arguments.max_subjects]
    if arguments.metrics:
        scores = read_scores(arguments.metrics)
        cases = scored_cases(scores, subjects, tasks, names, arguments.cases or 3)
    else:
        cases = possible_cases(subjects, tasks)
    if not cases:
        raise UserError(f"no subject of {config.data.test} gives a case with these options")
    return cases


if __name__ == "__main__":
    run_script(main)
