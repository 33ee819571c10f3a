"""The scripts that say how far to trust results: faithfulness, errors, tumours, paired tests."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tsf_seq2seq.checkpoints.checkpoint import checkpoint_extras
from tsf_seq2seq.cli.arguments import (
    OF_NETWORK,
    SETTINGS,
    contributions_file,
    fusion_weights_file,
    script_parser,
)
from tsf_seq2seq.cli.loading import experiment, load_network
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.record import Entry, Record, identity_of
from tsf_seq2seq.evaluation.scores import check_known, read_scores
from tsf_seq2seq.evaluation.statistics import Comparison, compare, comparison_table
from tsf_seq2seq.evaluation.tumour import RegionScore, region_means, region_table, score_regions
from tsf_seq2seq.explain.attention_gain import AttentionGain, attention_gain_table, attention_gains
from tsf_seq2seq.explain.contributions import read_contributions
from tsf_seq2seq.explain.error_estimation import (
    Measured,
    allowed_tasks,
    inputs_of,
    measure_errors,
)
from tsf_seq2seq.explain.error_summary import SUMMARY_FILES, write_summary
from tsf_seq2seq.explain.faithfulness import (
    Agreement,
    Faithfulness,
    agreements,
    faithfulness,
    faithfulness_markdown,
)
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.explain.share_agreement import (
    ShareAgreement,
    share_agreement_table,
    share_agreements,
)
from tsf_seq2seq.explain.source_values import SourceValue, source_values
from tsf_seq2seq.explain.tsem import parse_task
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.tables import rows_text
from tsf_seq2seq.tasks import Task, all_tasks

MEASURES = 3  # version of what is kept of a subject's error estimates


def compare_methods(description: str | None) -> None:
    """Paired tests of one method against all others."""
    parser = script_parser(
        description, ["metrics"], ["output"], output="folder (else that of metrics.csv)"
    )
    parser.add_argument("--method", help="compared with all others (default: the first)")
    arguments = parser.parse_args()
    output = arguments.output or arguments.metrics.parent
    with claimed(output):
        comparisons = compare(read_scores(arguments.metrics), arguments.method)
        text = comparison_table(comparisons).markdown()
        text = f"# Paired comparisons over subjects\n\n{text}\n"
        rows = rows_text(Comparison, comparisons)
        write_texts(output, {"comparisons.csv": rows, "comparisons.md": text})
        print(text)
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
    output = arguments.output or arguments.evaluation
    with claimed(output):
        config = experiment(arguments)
        subjects = find_subjects(config.data, config.data.test)
        rows = score_regions(config, subjects, arguments.evaluation)
        table = region_table(region_means(rows)).markdown()
        text = f"# Tumour and healthy tissue\n\n{table}\n"
        write_texts(output, {"tumour.csv": rows_text(RegionScore, rows), "tumour.md": text})
        print(text)
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
    parser.add_argument(
        "--contributions",
        type=contributions_file,
        metavar="CSV",
        help="contributions.csv or its folder: how they order the sources, beside ω",
    )
    parser.add_argument("--method", help="of the metrics, the one examined (default: the first)")
    arguments = parser.parse_args()
    output = arguments.output
    with claimed(output):
        scores, omega = read_scores(arguments.metrics), read_fusion_csv(arguments.fusion_weights)
        sequences = next(iter(omega.values()), {})
        check_known(arguments.metrics, scores, sequences)
        values = source_values(scores, list(sequences), arguments.method)
        rows = faithfulness(values, omega)
        found, gains = agreements(rows), attention_gains(scores, arguments.method)
        text = f"# Fusion weights and what sources bring\n\n{faithfulness_markdown(rows, found)}\n"
        text += f"\n## What f_A brings\n\n{attention_gain_table(gains).markdown()}\n"
        tables = {
            "shapley.csv": rows_text(SourceValue, values),
            "faithfulness.csv": rows_text(Faithfulness, rows),
            "agreement.csv": rows_text(Agreement, found),
            "attention_gain.csv": rows_text(AttentionGain, gains),
        }
        if arguments.contributions is not None:
            orders = share_agreements(values, omega, read_contributions(arguments.contributions))
            tables["share_agreement.csv"] = rows_text(ShareAgreement, orders)
            text += f"\n## Contributions\n\n{share_agreement_table(orders).markdown()}\n"
        write_texts(output, tables | {"faithfulness.md": text})
        print(text)
        print(
            f"shapley.csv, faithfulness.csv and .md, agreement and attention gain are in {output}"
        )


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
    with claimed(arguments.output):
        config = experiment(arguments)
        tasks = _chosen_tasks(arguments, list(config.data.sequences))
        measured = _measured(arguments, config, tasks)
        print(write_summary(arguments.output, measured))
        print(f"error_estimation.md, .csv, curves and calibration are in {arguments.output}")


def _measured(arguments: argparse.Namespace, config: Config, tasks: Sequence[Task]) -> Measured:
    """What was measured of every subject asked for, in this run or, still true, in earlier ones."""
    output, data = arguments.output, config.data
    network = load_network(arguments, config)
    error_map = checkpoint_extras(arguments.load, network).error_map
    found = find_subjects(data, data.test)[: arguments.max_subjects]
    subjects = {subject.name: subject for subject in found if allowed_tasks(subject, tasks)}
    if not subjects:
        raise UserError(f"no subject of {data.test} has the sequences of these tasks")
    weights = [path for path in (arguments.load, arguments.seq2seq) if path]
    chosen = ["{}:{}".format(*task.label(list(data.sequences))) for task in tasks]
    identity = identity_of(
        config, weights, tasks=chosen, segmentation=list(data.segmentation), measures=MEASURES
    )
    results = [output / name for name in SUMMARY_FILES]
    record = Record(output / "error_estimation.json", identity, results[0])
    inputs = {name: partial(inputs_of, own, tasks, config) for name, own in subjects.items()}
    waiting = record.outdated(inputs, with_files=False)
    if any(waiting.values()):
        for path in results:
            path.unlink(missing_ok=True)
    for name in tqdm(waiting, unit="subject", desc="measuring"):
        made_from = inputs[name]()  # before the files are read, in case they change
        subject = subjects[name]
        own = measure_errors(network, config, subject, tasks, arguments.batch_size, error_map)
        record.finish(name, Entry(made_from, own.to_json()))
    record.compact(subjects)
    measured = Measured()
    for values in record.results(subjects):
        measured.add_json(values)
    return measured


def _chosen_tasks(arguments: argparse.Namespace, names: list[str]) -> list[Task]:
    """Tasks in the sequences' order; UserError where a name is none of theirs."""
    if unknown := [name for name in arguments.targets if name not in names]:
        raise UserError(f"--targets {unknown[0]} is none of the sequences {', '.join(names)}")
    tasks = [parse_task(text, names) for text in arguments.tasks] or all_tasks(len(names))
    tasks = [t for t in tasks if not arguments.targets or names[t.target] in arguments.targets]
    if not tasks:
        raise UserError("none of the --tasks has one of the --targets")
    return list(dict.fromkeys(tasks))
