"""The scripts that say how far to trust results: faithfulness, errors, tumours, paired tests."""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import OF_NETWORK, SETTINGS, fusion_weights_file, script_parser
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.fingerprint import goes_on, identity_of
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.evaluation.statistics import Comparison, compare, comparison_table
from tsf_seq2seq.evaluation.tumour import RegionScore, region_means, region_table, score_regions
from tsf_seq2seq.explain.attention_gain import AttentionGain, attention_gain_table, attention_gains
from tsf_seq2seq.explain.error_estimation import Measured, measure_errors
from tsf_seq2seq.explain.error_summary import ROWS, read_measured, write_measured, write_summary
from tsf_seq2seq.explain.faithfulness import (
    Agreement,
    Faithfulness,
    agreements,
    faithfulness,
    faithfulness_markdown,
)
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.explain.source_values import SourceValue, source_values
from tsf_seq2seq.explain.tsem import parse_task
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.tables import write_rows
from tsf_seq2seq.tasks import Task, all_tasks


def compare_methods(description: str | None) -> None:
    """Paired tests of one method against all others."""
    parser = script_parser(
        description, ["metrics"], ["output"], output="folder (else that of metrics.csv)"
    )
    parser.add_argument("--method", help="compared with all others (default: the first)")
    arguments = parser.parse_args()
    output = arguments.output or arguments.metrics.parent
    comparisons = compare(read_scores(arguments.metrics), arguments.method)
    write_rows(output / "comparisons.csv", Comparison, comparisons)
    text = comparison_table(comparisons).markdown()
    _tell(output / "comparisons.md", f"# Paired comparisons over subjects\n\n{text}\n")
    print(f"comparisons.csv and comparisons.md are in {output}")


def evaluate_tumour(description: str | None) -> None:
    """Scores of an evaluation's predictions by tissue."""
    optional = (*SETTINGS, "load", "output")
    meanings = {"load": "for its settings, instead of -c", "output": "folder (else EVALUATION)"}
    parser = script_parser(description, [], optional, **meanings)
    parser.add_argument("evaluation", type=Path, help="folder of an evaluation with predictions")
    arguments = parser.parse_args()
    if arguments.config is None and arguments.load is None:
        raise UserError("the data set's settings are needed: give -c or -l")
    config, output = experiment(arguments), arguments.output or arguments.evaluation
    subjects = find_subjects(config.data, config.data.test)
    rows = score_regions(config, subjects, arguments.evaluation)
    write_rows(output / "tumour.csv", RegionScore, rows)
    _tell(
        output / "tumour.md",
        f"# Tumour and healthy tissue\n\n{region_table(region_means(rows)).markdown()}\n",
    )
    if not any(row.region == "whole_tumour" for row in rows):
        print("no subject has a label map: only the brain as a whole is scored")
    print(f"tumour.csv and tumour.md are in {output}")


def check_faithfulness(description: str | None) -> None:
    """ω beside exact Shapley values, and what f_A brings."""
    parser = script_parser(description, ["metrics", "output"])
    parser.add_argument(
        "--fusion-weights",
        type=fusion_weights_file,
        required=True,
        metavar="CSV",
        help="fusion_weights.csv or its folder",
    )
    parser.add_argument("--method", help="of the metrics, the one examined (default: the first)")
    arguments = parser.parse_args()
    scores, omega = read_scores(arguments.metrics), read_fusion_csv(arguments.fusion_weights)
    sequences = next(iter(omega.values()), {})
    values = source_values(scores, list(sequences), arguments.method)
    rows = faithfulness(values, omega)
    found, gains = agreements(rows), attention_gains(scores, arguments.method)
    output = arguments.output
    write_rows(output / "shapley.csv", SourceValue, values)
    write_rows(output / "faithfulness.csv", Faithfulness, rows)
    write_rows(output / "agreement.csv", Agreement, found)
    write_rows(output / "attention_gain.csv", AttentionGain, gains)
    text = f"# Fusion weights and what sources bring\n\n{faithfulness_markdown(rows, found)}\n"
    text += f"\n## What f_A brings\n\n{attention_gain_table(gains).markdown()}\n"
    _tell(output / "faithfulness.md", text)
    print(f"shapley.csv, faithfulness.csv and .md, agreement and attention gain are in {output}")


def check_error_estimates(description: str | None) -> None:
    """TSEM and rival estimates against the true error; goes on where it was interrupted."""
    optional = (*OF_NETWORK, "max_subjects", "batch_size")
    parser = script_parser(description, ["load", "output"], optional)
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
    arguments = parser.parse_args()
    config = experiment(arguments)
    output, names = arguments.output, list(config.data.sequences)
    tasks = _chosen_tasks(arguments, names)
    network = load_network(arguments, config)
    subjects = find_subjects(config.data, config.data.test)[: arguments.max_subjects]
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


def _chosen_tasks(arguments: argparse.Namespace, names: list[str]) -> list[Task]:
    """Tasks in the sequences' order; UserError where a name is none of theirs."""
    if unknown := [name for name in arguments.targets if name not in names]:
        raise UserError(f"--targets {unknown[0]} is none of the sequences {', '.join(names)}")
    tasks = [parse_task(text, names) for text in arguments.tasks] or all_tasks(len(names))
    tasks = [t for t in tasks if not arguments.targets or names[t.target] in arguments.targets]
    if not tasks:
        raise UserError("none of the --tasks has one of the --targets")
    return list(dict.fromkeys(tasks))


def _tell(path: Path, text: str) -> None:
    """Write a page, and print it."""
    write_text(path, text)
    print(text)
