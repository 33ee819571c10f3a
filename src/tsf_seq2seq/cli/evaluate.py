"""The evaluation scripts."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tsf_seq2seq.checkpoints.backbones import find_weights
from tsf_seq2seq.checkpoints.checkpoint import (
    checkpoint_adaptation,
)
from tsf_seq2seq.cli.arguments import OF_NETWORK, SETTINGS, script_parser
from tsf_seq2seq.cli.finish import (
    check_finished,
    finish_of,
    finish_of_file,
    finished_methods,
    fitted,
)
from tsf_seq2seq.cli.like import (
    add_like_arguments,
    drawn_references,
    report_of_adapted,
    with_maps,
)
from tsf_seq2seq.cli.loading import (
    experiment,
    find_device,
    load_network,
    load_stage1,
    open_compared,
)
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import LPIPS
from tsf_seq2seq.evaluation.protocol import EvaluationProtocol, TasksOf, complete_tasks, evaluate
from tsf_seq2seq.evaluation.record import digest_of, identity_of
from tsf_seq2seq.evaluation.scores import (
    Score,
    Summaries,
    by_inputs,
    by_task,
    methods_of,
    score_table,
    write_tables,
)
from tsf_seq2seq.evaluation.statistics import compare, comparison_table, method_means, method_table
from tsf_seq2seq.files.fingerprint import sha256
from tsf_seq2seq.models.base import AVERAGE, FULL, WITHOUT_ATTENTION, variant_for
from tsf_seq2seq.synthesis.adapted import MappedSynthesizer
from tsf_seq2seq.synthesis.finish import finish_line, finished_name
from tsf_seq2seq.synthesis.synthesizers import (
    BASELINES,
    NetworkSynthesizer,
    Synthesizer,
)
from tsf_seq2seq.tasks import Task, missing_target_tasks

# What the paper's script calls its methods: name → (network, variant).
PAPER_METHODS = {
    "tsf": ("tsf", FULL),
    "tsf_without_attention": ("tsf", WITHOUT_ATTENTION),
    "seq2seq_average": ("seq2seq", AVERAGE),
}


class _Evaluation(NamedTuple):
    """What a script evaluates; `files`: of weights; `report` tells of the scores; `references`: the
    subjects that networks are adapted by, by the name of whom they serve."""

    config: Config
    synthesizers: Sequence[Synthesizer]
    subjects: Sequence[Subject]
    tasks_of: TasksOf
    files: Sequence[Path]
    report: Callable[[list[Score]], None]
    references: Mapping[str, Sequence[Subject]] = MappingProxyType({})


def evaluate_networks(description: str) -> None:
    """The evaluation script of every network: checkpoints beside each other, and baselines."""
    parser = _evaluation_parser(description, [], ["device", *SETTINGS])
    parser.add_argument(
        *("-l", "--load"), nargs="+", type=Path, required=True, metavar="PTH", help="checkpoints"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="of the checkpoints (else their folders')"
    )
    parser.add_argument(
        "--ablations", action="store_true", help="score the networks' ablations, too"
    )
    parser.add_argument(
        "--baselines", nargs="+", default=[], choices=BASELINES, help="without a network"
    )
    add_like_arguments(parser)
    _run(parser.parse_args(), _compared_networks)


def _compared_networks(arguments: argparse.Namespace) -> _Evaluation:
    models, config = open_compared(arguments)
    subjects = _subjects(arguments, config)
    tasks_of = _missing_sequences(arguments, config)
    tasks = _all_of(subjects, tasks_of)
    references = drawn_references(arguments, config, subjects)
    synthesizers: list[Synthesizer] = []
    for name, model in models.items():
        variants = [variant_for(model.network, tasks)]
        if arguments.ablations:
            variants += [v for v in model.network.variants if v not in (FULL, *variants)]
        replaced = model.adaptation is not None or bool(arguments.like)
        finish = finish_of(arguments, config, model.path, model.prior, replaced)
        plain = NetworkSynthesizer(name, model.network, variants, arguments.batch_size, finish)
        shared = arguments, config, model, plain, references
        synthesizers.append(with_maps(*shared, first=not synthesizers))
    _check_distinct(synthesizers)
    synthesizers += fitted(arguments, config, arguments.baselines, tasks)
    report = _report_of_missing(arguments, synthesizers, adapted=bool(arguments.like))
    return _Evaluation(config, synthesizers, subjects, tasks_of, arguments.load, report, references)


def evaluate_seq2seq(description: str) -> None:
    """The stage 1 evaluation script: every source alone to every sequence on disk."""
    parser = _evaluation_parser(description, ["load_seq2seq"], ["device", *SETTINGS])
    _run(parser.parse_args(), _single_sources)


def _single_sources(arguments: argparse.Namespace) -> _Evaluation:
    config = experiment(arguments)
    network = load_stage1(arguments.load, config, arguments.device)

    def tasks_of(subject: Subject) -> list[Task]:
        sources = subject.on_disk if arguments.all_tasks else subject.available
        return [Task((i,), j) for i in sources for j in subject.on_disk]

    finish = finish_of_file(arguments, config, arguments.load, "seq2seq")
    synthesizer = NetworkSynthesizer("seq2seq", network, [FULL], arguments.batch_size, finish)

    def report(scores: list[Score]) -> None:
        rows = by_task(scores)
        headings, note = ("source", "target", "method"), finish_line(synthesizer.finished)
        tables: dict[str, Summaries] = {"Per pair": (headings, rows)}
        write_tables(arguments.output, "Single-source synthesis", tables, note=note)
        print(score_table(headings, rows).markdown())

    subjects = _subjects(arguments, config)
    return _Evaluation(config, [synthesizer], subjects, tasks_of, [arguments.load], report)


def evaluate_tsf_seq2seq(description: str) -> None:
    """The stage 2 evaluation script: the paper's protocol (Table 1), or all tasks."""
    parser = _evaluation_parser(description, ["load"], OF_NETWORK)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=(*PAPER_METHODS, *BASELINES),
        default=["tsf"],
        help="what to score; predictions are saved of the first",
    )
    parser.add_argument(
        "--stage1",
        type=Path,
        metavar="PTH",
        help="stage 1 weights for seq2seq_average (else -m's)",
    )
    _run(parser.parse_args(), _papers_methods)


def _papers_methods(arguments: argparse.Namespace) -> _Evaluation:
    config = experiment(arguments, "tsf_seq2seq")
    subjects = _subjects(arguments, config)
    tasks_of = _missing_sequences(arguments, config)
    synthesizers, files = _synthesizers(arguments, config, _all_of(subjects, tasks_of))
    report = _report_of_missing(arguments, synthesizers)
    return _Evaluation(config, synthesizers, subjects, tasks_of, files, report)


def _check_distinct(synthesizers: Iterable[Synthesizer]) -> None:
    """UserError where two methods, ablations included, share a name, or take a baseline's."""
    names = [*BASELINES, *map(finished_name, BASELINES)]
    names += [name for one in synthesizers for name in one.names]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two methods would be called {name}: name the checkpoints by --names")


def _missing_sequences(arguments: argparse.Namespace, config: Config) -> TasksOf:
    """A subject's tasks: its missing sequences, or with --all-tasks whatever its files allow."""
    if arguments.all_tasks:
        return lambda subject: complete_tasks(subject, len(config.data.sequences))
    return missing_target_tasks


def _all_of(subjects: Sequence[Subject], tasks_of: TasksOf) -> list[Task]:
    return list(dict.fromkeys(task for subject in subjects for task in tasks_of(subject)))


def _report_of_missing(
    arguments: argparse.Namespace, synthesizers: Sequence[Synthesizer], adapted: bool = False
) -> Callable[[list[Score]], None]:
    """What tells of a synthesis of missing sequences: the paper's Table 1, the first method against
    each other, what `adapted` networks gain, and what finished ones are finished by."""
    first, note = synthesizers[0].names[0], finish_line(finished_methods(synthesizers))

    def report(scores: list[Score]) -> None:
        table_1: Summaries = (("inputs", "method"), by_inputs(scores))
        tables = {"By number of inputs": table_1}
        if arguments.all_tasks:
            tables["By task"] = (("sources", "target", "method"), by_task(scores))
        further = {"By subjects": method_table(method_means(scores))}
        print(score_table(*table_1).markdown())
        if len(methods_of(scores)) > 1:
            further["Paired differences"] = comparison_table(compare(scores, first))
            print(f"\n{further['Paired differences'].markdown()}")
        if adapted:
            further |= report_of_adapted(scores, arguments.output)
        title = "Synthesis of missing sequences"
        write_tables(arguments.output, title, tables, further, note)

    return report


def _subjects(arguments: argparse.Namespace, config: Config) -> list[Subject]:
    return find_subjects(config.data, config.data.test)[: arguments.max_subjects]


def _synthesizers(
    arguments: argparse.Namespace, config: Config, tasks: Iterable[Task]
) -> tuple[list[Synthesizer], list[Path]]:
    """The methods asked for, that of the first name first, and the weights files they use."""
    names = list(dict.fromkeys(arguments.methods))
    files = [path for path in (arguments.load, arguments.seq2seq) if path]
    network = load_network(arguments, config)
    variants: dict[str, list[str]] = {}
    for owner, variant in (PAPER_METHODS[name] for name in names if name in PAPER_METHODS):
        variants.setdefault(owner, []).append(variant)
    synthesizers: list[Synthesizer] = []
    for owner, chosen in variants.items():
        if owner == "seq2seq":
            stage1 = arguments.stage1 or arguments.seq2seq
            if stage1 is None:
                raise UserError(
                    "seq2seq_average needs stage 1's weights: give them with --stage1 or -m"
                )
            files.append(stage1)
            path, own = stage1, load_stage1(stage1, config, arguments.device)
        else:
            path, own = arguments.load, network
        maps = checkpoint_adaptation(arguments.load) if FULL in chosen else None
        kind = "seq2seq" if owner == "seq2seq" else config.network.name
        finish = finish_of_file(arguments, config, path, kind, replaced=maps is not None)
        shared = arguments.batch_size, finish
        if maps is None:
            synthesizers.append(NetworkSynthesizer(owner, own, chosen, *shared))
            continue
        chosen.sort(key=lambda variant: variant != FULL)  # the whole network's output is mapped
        plain = NetworkSynthesizer(owner, own, chosen, *shared)
        synthesizers.append(MappedSynthesizer(plain, maps, list(config.data.sequences)))
    synthesizers += fitted(arguments, config, names, tasks)
    return sorted(synthesizers, key=lambda one: names.index(one.names[0])), files


def _evaluation_parser(
    description: str, required: Sequence[str], optional: Sequence[str]
) -> argparse.ArgumentParser:
    limits = ("max_subjects", "max_slices", "batch_size", "finish")
    parser = script_parser(description, [*required, "output"], [*optional, *limits])
    parser.add_argument(
        "--all-tasks", action="store_true", help="all that a subject's files allow, not its mask"
    )
    parser.add_argument("--no-predictions", action="store_true", help="write no NIfTI files")
    parser.add_argument("--lpips-weights", type=Path, metavar="PTH", help="AlexNet for LPIPS")
    return parser


def _run(
    arguments: argparse.Namespace, prepare: Callable[[argparse.Namespace], _Evaluation]
) -> None:
    """Evaluate, on as many processes as torchrun started; the main one claims and reports."""
    device = find_device(arguments.device)
    with joined_processes(device) as processes, processes.claim(arguments.output):
        chosen, lpips = prepare(arguments), None
        check_finished(arguments, chosen.synthesizers)
        weights = find_weights("alexnet", arguments.lpips_weights)
        if arguments.lpips_weights or weights:
            lpips = LPIPS(device, arguments.lpips_weights)
        identity = _identity(arguments, chosen, weights)
        with_files, limit = not arguments.no_predictions, arguments.max_slices
        protocol = EvaluationProtocol(
            chosen.tasks_of,
            chosen.synthesizers,
            lpips,
            identity,
            with_files,
            limit,
            lambda subject: chosen.references.get(subject.name, ()),
        )
        scores = evaluate(chosen.config, chosen.subjects, protocol, arguments.output, processes)
        if not processes.main:
            return
        if lpips is None:
            print("LPIPS is left out: AlexNet's weights were not found (make weights brings them)")
        chosen.report(scores)
        if note := finish_line(finished_methods(chosen.synthesizers)):
            print(f"\n{note}")
        print(f"metrics.csv, tables, examples and predictions are in {arguments.output}")


def _identity(
    arguments: argparse.Namespace, chosen: _Evaluation, lpips: Path | None
) -> dict[str, Any]:
    """What makes scores comparable; baselines come from the training subjects, too."""
    data, methods = chosen.config.data, [name for one in chosen.synthesizers for name in one.names]
    trained = digest_of(find_subjects(data, data.train)) if {*methods} & {*BASELINES} else None
    finished = finished_methods(chosen.synthesizers)
    return identity_of(
        chosen.config,
        chosen.files,
        methods=methods,
        all_tasks=arguments.all_tasks,
        max_slices=arguments.max_slices,
        lpips=lpips and sha256(lpips),
        training_subjects=trained,
        **({"finish": finished} if finished else {}),  # a plain run's record stays what it was
    )
