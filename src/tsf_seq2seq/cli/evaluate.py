"""The evaluation scripts."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tsf_seq2seq.checkpoints.backbones import find_weights
from tsf_seq2seq.cli.arguments import (
    add_config_arguments,
    add_device_argument,
    add_tsf_arguments,
    experiment,
    find_device,
    load_seq2seq,
    load_tsf,
    positive_number,
)
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.fingerprint import identity_of
from tsf_seq2seq.evaluation.metrics import LPIPS
from tsf_seq2seq.evaluation.protocol import Protocol, TasksOf, complete_tasks, evaluate
from tsf_seq2seq.evaluation.scores import (
    Score,
    Summaries,
    by_inputs,
    by_task,
    methods_of,
    score_table,
    write_tables,
)
from tsf_seq2seq.evaluation.statistics import (
    compare,
    comparison_table,
    method_means,
    method_table,
)
from tsf_seq2seq.synthesis.synthesizers import (
    BASELINES,
    TSF_METHODS,
    Methods,
    Seq2SeqAverage,
    fit_baselines,
    seq2seq_method,
    tsf_methods,
)
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.objectives import missing_target_tasks

AVERAGE = "seq2seq_average"


def evaluate_seq2seq(description: str) -> None:
    """The stage 1 evaluation script: every source alone to every sequence on disk."""
    parser = argparse.ArgumentParser(description=description)
    add_device_argument(parser)
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "-m", "-l", "--load", type=Path, required=True, metavar="PTH", help="stage 1 weights"
    )
    _add_evaluation_arguments(parser)
    parser.add_argument(
        "--all-tasks", action="store_true", help="from every sequence on disk, whatever the mask"
    )
    arguments = parser.parse_args()
    config = experiment(arguments)
    network = load_seq2seq(arguments.load, config, arguments.device)

    def tasks_of(subject: Subject) -> list[Task]:
        sources = subject.on_disk if arguments.all_tasks else subject.available
        return [Task((i,), j) for i in sources for j in subject.on_disk]

    method = seq2seq_method(network, config.seq2seq.slices, arguments.batch_size)

    def report(scores: list[Score]) -> None:
        rows = by_task(scores)
        headings = ("source", "target", "method")
        write_tables(arguments.output, "Single-source synthesis", {"Per pair": (headings, rows)})
        print(score_table(headings, rows).markdown())

    subjects = _subjects(arguments, config)
    _run(arguments, config, [method], subjects, tasks_of, [arguments.load], report)


def evaluate_tsf_seq2seq(description: str) -> None:
    """The stage 2 evaluation script: the paper's protocol (Table 1), or all tasks."""
    parser = argparse.ArgumentParser(description=description)
    add_tsf_arguments(parser)
    _add_evaluation_arguments(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=(*TSF_METHODS, AVERAGE, *BASELINES),
        default=["tsf"],
        help="what to score; predictions are saved of the first",
    )
    parser.add_argument(
        "--stage1",
        type=Path,
        metavar="PTH",
        help=f"stage 1 weights for {AVERAGE} (else -m's)",
    )
    parser.add_argument(
        "--all-tasks", action="store_true", help="every source set and missing target per subject"
    )
    arguments = parser.parse_args()
    config = experiment(arguments)

    def tasks_of(subject: Subject) -> list[Task]:
        if arguments.all_tasks:
            return complete_tasks(subject, len(config.data.sequences))
        return missing_target_tasks(subject)

    subjects = _subjects(arguments, config)
    tasks = dict.fromkeys(task for subject in subjects for task in tasks_of(subject))
    methods, files = _chosen_methods(arguments, config, tasks)

    def report(scores: list[Score]) -> None:
        table_1: Summaries = (("inputs", "method"), by_inputs(scores))
        tables = {"By number of inputs": table_1}
        if arguments.all_tasks:
            tables["By task"] = (("sources", "target", "method"), by_task(scores))
        further = {"By subjects": method_table(method_means(scores))}
        print(score_table(*table_1).markdown())
        if len(methods_of(scores)) > 1:
            further["Paired differences"] = comparison_table(compare(scores))
            print(f"\n{further['Paired differences'].markdown()}")
        title = "Synthesis of missing sequences"
        write_tables(arguments.output, title, tables, further)

    _run(arguments, config, methods, subjects, tasks_of, files, report)


def _subjects(arguments: argparse.Namespace, config: Config) -> list[Subject]:
    return find_subjects(config.data, config.data.test)[: arguments.max_subjects]


def _chosen_methods(
    arguments: argparse.Namespace, config: Config, tasks: Iterable[Task]
) -> tuple[list[Methods], list[Path]]:
    """The methods asked for, that of the first name first, and the weights files they use."""
    names, height = list(dict.fromkeys(arguments.methods)), config.seq2seq.slices
    methods: list[Methods] = []
    files = [path for path in (arguments.load, arguments.seq2seq) if path]
    network = load_tsf(arguments, config)
    of_tsf = [name for name in names if name in TSF_METHODS]
    if of_tsf:
        methods.append(tsf_methods(network, of_tsf, height, arguments.batch_size))
    if AVERAGE in names:
        stage1 = arguments.stage1 or arguments.seq2seq
        if stage1 is None:
            raise UserError(f"{AVERAGE} needs stage 1's weights: give them with --stage1 or -m")
        average = load_seq2seq(stage1, config, arguments.device)
        methods.append(Seq2SeqAverage(average, height, arguments.batch_size))
        files.append(stage1)
    methods += fit_baselines(config, names, tasks)
    return sorted(methods, key=lambda method: names.index(method.names[0])), files


def _add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--max-subjects", type=positive_number, metavar="N", help="only the first N"
    )
    parser.add_argument(
        "--max-slices", type=positive_number, metavar="N", help="only the central N"
    )
    parser.add_argument("--batch-size", type=positive_number, default=8, help="stacks at once")
    parser.add_argument("--no-predictions", action="store_true", help="write no NIfTI files")
    parser.add_argument("--lpips-weights", type=Path, metavar="PTH", help="AlexNet for LPIPS")


def _run(
    arguments: argparse.Namespace,
    config: Config,
    methods: Sequence[Methods],
    subjects: Sequence[Subject],
    tasks_of: TasksOf,
    files: Sequence[Path],
    report: Callable[[list[Score]], None],
) -> None:
    """Evaluate, on as many processes as torchrun started; the main one reports."""
    device, lpips = find_device(arguments.device), None
    if arguments.lpips_weights or find_weights("alexnet"):
        lpips = LPIPS(device, arguments.lpips_weights)
    identity = identity_of(
        config.data,
        files,
        methods=[name for method in methods for name in method.names],
        all_tasks=arguments.all_tasks,
        max_slices=arguments.max_slices,
        lpips=lpips is not None,
    )
    protocol = Protocol(
        tasks_of, methods, lpips, identity, not arguments.no_predictions, arguments.max_slices
    )
    with joined_processes(device) as processes:
        scores = evaluate(config, subjects, protocol, arguments.output, processes)
        if not processes.main:
            return
        if lpips is None:
            print("LPIPS is left out: AlexNet's weights were not found (make weights brings them)")
        report(scores)
        print(f"metrics.csv, tables, examples and predictions are in {arguments.output}")
