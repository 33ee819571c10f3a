"""The scripts that explain a network: fusion weights, TSEM, contributions, differentiation."""

import argparse

from tsf_seq2seq.cli.arguments import (
    OF_NETWORK,
    SETTINGS,
    metrics_file,
    positive_number,
    script_parser,
)
from tsf_seq2seq.cli.loading import experiment, load_network, load_stage1
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import check_known, read_scores
from tsf_seq2seq.explain.contribution import contribution_of, contribution_table, write_contribution
from tsf_seq2seq.explain.contribution_maps import check_explicable
from tsf_seq2seq.explain.contributions import CSV, contribution_share_table, write_contributions
from tsf_seq2seq.explain.differentiation import complete_subjects, write_differentiation
from tsf_seq2seq.explain.fusion_figure import plot_fusion_weights
from tsf_seq2seq.explain.fusion_weights import (
    fusion_table,
    fusion_tasks,
    fusion_weight_table,
    omegas,
    scale_weight_table,
)
from tsf_seq2seq.explain.regression_shares import regression_share_table
from tsf_seq2seq.explain.seq2seq_figures import plot_contribution
from tsf_seq2seq.explain.tsem import (
    Case,
    finding_table,
    parse_task,
    possible_cases,
    scored_cases,
    write_tsem,
)
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.synthesis.synthesizers import MEAN_IMAGE, fit_baselines
from tsf_seq2seq.tasks import Task


def explain_fusion_weights(description: str | None) -> None:
    """Fusion weights of every task: table and figure."""
    parser = script_parser(description, ["load", "output"], OF_NETWORK)
    parser.add_argument(
        "--with-reconstructions", action="store_true", help="targets among the sources too"
    )
    arguments = parser.parse_args()
    with claimed(arguments.output):
        config = experiment(arguments)
        network, names = load_network(arguments, config), list(config.data.sequences)
        tasks = fusion_tasks(len(names), arguments.with_reconstructions)
        table = fusion_table(network, tasks)
        shown = fusion_weight_table(omegas(table, names), names)
        print(shown.markdown())
        shown.write_csv(arguments.output / "fusion_weights.csv")
        plot_fusion_weights(table, names, arguments.output / "fusion_weights")
        print(f"fusion_weights.csv, .pdf and .png are in {arguments.output}")
        if (by_scale := scale_weight_table(network, tasks, names)) is not None:
            by_scale.write_csv(arguments.output / "fusion_weights_by_scale.csv")
            print(f"ω of every scale: {arguments.output / 'fusion_weights_by_scale.csv'}")
        if network.regression_head is not None:
            shares = regression_share_table(network.regression_head, tasks, names)
            print(shares.markdown())
            shares.write_csv(arguments.output / "regression_shares.csv")


def map_tsem(description: str | None) -> None:
    """TSEM of test subjects: maps, table and figure."""
    optional = (*OF_NETWORK, "subjects", "max_subjects", "batch_size")
    parser = script_parser(description, ["load", "output"], optional)
    _add_tasks(parser, "the sequences of each subject's mask, to each missing one")
    parser.add_argument(
        "--metrics",
        type=metrics_file,
        metavar="CSV",
        help="an evaluation's metrics.csv or folder: only its best, median and worst case by PSNR",
    )
    parser.add_argument(
        "--cases",
        type=positive_number,
        metavar="N",
        help="rows of the figure (default: 6); with --metrics, from best to worst (default: 3)",
    )
    arguments = parser.parse_args()
    with claimed(arguments.output):
        config = experiment(arguments)
        cases = _chosen_cases(arguments, config)
        network = load_network(arguments, config)
        shown = arguments.cases or (3 if arguments.metrics else 6)
        findings = write_tsem(network, config, cases, arguments.batch_size, arguments.output, shown)
        print(finding_table(findings).markdown())
        print(f"maps (NIfTI), tsem.csv, tsem.pdf and tsem.png are in {arguments.output}")


def explain_contribution(description: str | None) -> None:
    """Contribution, totipotency and imaging differentiation: tables and figure."""
    parser = script_parser(
        description, ["metrics"], ["output"], output="folder (else that of metrics.csv)"
    )
    parser.add_argument(
        "--sequences", nargs="+", default=(), metavar="NAME", help="which ones, in this order"
    )
    arguments = parser.parse_args()
    output = arguments.output or arguments.metrics.parent
    with claimed(output):
        contribution = contribution_of(read_scores(arguments.metrics), arguments.sequences)
        write_contribution(output, contribution)
        plot_contribution(contribution, output / "contribution")
        print(contribution_table(contribution).markdown())
        print(f"contribution.csv, .json, .pdf and .png are in {output}")


def map_contributions(description: str | None) -> None:
    """Contributions of each source to test subjects' syntheses: table and figure."""
    optional = (*OF_NETWORK, "subjects", "max_subjects", "batch_size")
    parser = script_parser(description, ["load", "output"], optional)
    _add_tasks(parser, "every sequence from all others")
    parser.add_argument(
        "--cases", type=positive_number, default=4, metavar="N", help="rows of the figure"
    )
    arguments = parser.parse_args()
    with claimed(arguments.output):
        config = experiment(arguments)
        names = list(config.data.sequences)
        others = [
            tuple(i for i in range(len(names)) if i != target) for target in range(len(names))
        ]
        usual = [Task(sources, target) for target, sources in enumerate(others)]
        tasks = [parse_task(text, names) for text in arguments.task] or usual
        network = load_network(arguments, config)
        check_explicable(network, tasks)
        cases = possible_cases(_chosen_subjects(arguments, config), tasks)
        if not cases:
            raise UserError(f"no subject of {config.data.test} has the sequences of these tasks")
        (mean_image,) = fit_baselines(config, [MEAN_IMAGE], {case.task for case in cases})
        size, output = arguments.batch_size, arguments.output
        rows = write_contributions(
            network, config, cases, mean_image, size, output, arguments.cases
        )
        print(contribution_share_table(rows, names).markdown())
        print(f"{CSV}, contributions.pdf and .png are in {output}")


def map_differentiation(description: str | None) -> None:
    """Imaging-differentiation maps of the test subjects that have all sequences."""
    optional = ("device", *SETTINGS, "subjects", "max_subjects", "batch_size")
    arguments = script_parser(description, ["load_seq2seq", "output"], optional).parse_args()
    with claimed(arguments.output):
        config = experiment(arguments)
        network = load_stage1(arguments.load, config, arguments.device)
        found = find_subjects(config.data, config.data.test)
        complete = complete_subjects(found, len(config.data.sequences), arguments.subjects)
        if left_out := len(arguments.subjects or found) - len(complete):
            print(f"{left_out} subjects without all sequences on disk are left out")
        subjects = complete[: arguments.max_subjects]
        write_differentiation(network, config, subjects, arguments.batch_size, arguments.output)
        print(f"maps (NIfTI) and figures of {len(subjects)} subjects are in {arguments.output}")


def _chosen_subjects(arguments: argparse.Namespace, config: Config) -> list[Subject]:
    """Test subjects, as --subjects and --max-subjects choose them."""
    subjects = find_subjects(config.data, config.data.test)
    if arguments.subjects:
        if unknown := set(arguments.subjects) - {subject.name for subject in subjects}:
            raise UserError(f"{config.data.test} names no subject {min(unknown)}")
        subjects = [subject for subject in subjects if subject.name in arguments.subjects]
    return subjects[: arguments.max_subjects]


def _chosen_cases(arguments: argparse.Namespace, config: Config) -> list[Case]:
    names = list(config.data.sequences)
    tasks = [parse_task(text, names) for text in arguments.task]
    subjects = _chosen_subjects(arguments, config)
    if arguments.metrics:
        scores = read_scores(arguments.metrics)
        check_known(arguments.metrics, scores, names)
        cases = scored_cases(scores, subjects, tasks, names, arguments.cases or 3)
    else:
        cases = possible_cases(subjects, tasks)
    if not cases:
        raise UserError(f"no subject of {config.data.test} gives a case with these options")
    return cases


def _add_tasks(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="SOURCES:TARGET",
        help="such as t1+t2:flair, for every subject that has them; may be repeated (default: "
        f"{default})",
    )
