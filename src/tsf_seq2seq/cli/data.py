"""The scripts that check, split and store a data set."""

import argparse
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from tsf_seq2seq.cli.arguments import SETTINGS, script_parser
from tsf_seq2seq.cli.loading import data_config
from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.check import (
    check_subjects,
    subjects_of_folders,
    subjects_of_splits,
    summarise,
    summary_text,
)
from tsf_seq2seq.data.prepare import KEPT, STORED, fill_store, verify
from tsf_seq2seq.data.split import BRATS_PATIENT, write_split
from tsf_seq2seq.data.store import VolumeStore
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.files.writing import check_place, write_text

DEFECT = "with defects"
SUBJECTS = (*SETTINGS, "root", "split", "folders", "processes")


def check_dataset(description: str | None) -> None:
    """List the subjects that can't be used, and why; exit code 1 where there are some."""
    arguments = script_parser(
        description, [], [*SUBJECTS, "output"], output="JSON file for all of it"
    ).parse_args()
    data = data_config(arguments)
    if arguments.output:
        check_place(arguments.output)
    masks, places = _subjects(arguments, data)
    print(f"{len(masks)} subjects of {', '.join(map(str, places))}")
    reports = []
    checked = check_subjects(data, masks, arguments.processes)
    for report in tqdm(checked, total=len(masks), unit="subject", desc="checking"):
        for defect in report.defects:
            tqdm.write(printable(f"{report.name}: {defect}"))
        reports.append(report)
    summary = summarise(reports)
    print(summary_text(summary))
    if arguments.output:
        subjects = [dataclasses.asdict(report) for report in reports]
        content = {"root": str(data.root), "summary": summary, "subjects": subjects}
        write_text(arguments.output, json.dumps(content, indent=1) + "\n")
    if summary["subjects_with_defects"]:
        sys.exit(1)


def prepare_store(description: str | None) -> None:
    """Make a store, bring it up to date, or verify it; exit code 1 where subjects have defects."""
    meaning = "folder of the store (else data.store)"
    parser = script_parser(description, [], [*SUBJECTS, "output"], output=meaning)
    parser.add_argument(
        "--verify", action="store_true", help="only check files, checksums and maxima"
    )
    arguments = parser.parse_args()
    data = data_config(arguments)
    path = arguments.output or data.store
    if path is None:
        raise UserError("-o or data.store must name the folder of the store")
    if arguments.verify:
        store = VolumeStore(path)
        outcomes, total, title = verify(store), len(store.names), "verifying"
    else:
        masks, _ = _subjects(arguments, data)
        outcomes = fill_store(data, masks, path, arguments.processes)
        total, title = len(masks), "preparing"
    counts = Counter({KEPT: 0, STORED: 0, DEFECT: 0})
    for name, outcome in tqdm(outcomes, total=total, unit="subject", desc=title):
        if outcome not in (KEPT, STORED):
            tqdm.write(printable(f"{name}: {outcome}"))
            outcome = DEFECT
        counts[outcome] += 1
    print(f"{path}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    if counts[DEFECT]:
        sys.exit(1)


def make_split(description: str | None) -> None:
    """Write train.csv, valid.csv and test.csv."""
    names = (*SETTINGS, "root", "seed", "output")
    parser = script_parser(description, [], names, output="folder for the CSVs (else the root)")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=(830, 93, 328),
        metavar=("TRAIN", "VALID", "TEST"),
        help="proportions; the default is the paper's 830 93 328; with --test-sites the first two "
        "count",
    )
    parser.add_argument(
        "--patient",
        default=BRATS_PATIENT,
        metavar="REGEX",
        help="its first group is the patient in a subject's name, whose time points stay together, "
        r"such as '(.*)_visit\d+' (default: that of BraTS 2023)",
    )
    parser.add_argument(
        "--site",
        metavar="REGEX",
        help="its first group is the site (scanner) in a subject's name, which becomes the third "
        r"column, such as '(site\d+)_.*'",
    )
    parser.add_argument(
        "--test-sites",
        nargs="+",
        default=(),
        metavar="SITE",
        help="test on all subjects of these sites and on no others",
    )
    arguments = parser.parse_args()
    data = data_config(arguments)
    counts = write_split(
        data.root,
        data.sequences,
        arguments.output or data.root,
        arguments.shares,
        arguments.seed,
        arguments.patient,
        arguments.site,
        arguments.test_sites,
    )
    for path, count in counts.items():
        print(f"{path}: {count} subjects")


def _subjects(arguments: argparse.Namespace, data: DataConfig) -> tuple[dict[str, int], list[Path]]:
    """Name → mask of the subjects of --split, the split CSVs or the root; where they were found."""
    splits = arguments.split
    if splits is None and not arguments.folders:
        splits = [path for path in (data.train, data.valid, data.test) if path.exists()]
    if splits:
        return subjects_of_splits(data, splits), splits
    return subjects_of_folders(data), [data.root]
