"""Check every subject of a data set: list those that can't be used, and why, and sum up the rest.

Exit code 0: all good; 1: some subjects have defects; 2: the check could not be run.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_config_arguments
from tsf_seq2seq.cli.loading import data_config
from tsf_seq2seq.data.check import (
    check_subjects,
    progress,
    subjects_of_folders,
    subjects_of_splits,
    summarise,
    summary_text,
)
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files import write_text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser, required=False)
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else data.root)")
    parser.add_argument(
        "--split",
        type=Path,
        nargs="+",
        metavar="CSV",
        help="the subjects of these (else of data.train, valid and test, where those exist)",
    )
    parser.add_argument("--folders", action="store_true", help="all subjects of the root instead")
    parser.add_argument("--processes", type=int, default=1, help="subjects at once (default: 1)")
    parser.add_argument("-o", "--output", type=Path, metavar="JSON", help="write all of it there")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.processes < 1:
        raise UserError(f"--processes must be at least 1, not {arguments.processes}")
    data = data_config(arguments)
    splits = arguments.split
    if splits is None and not arguments.folders:
        splits = [path for path in (data.train, data.valid, data.test) if path.exists()]
    masks = subjects_of_splits(data, splits) if splits else subjects_of_folders(data)
    print(f"{len(masks)} subjects of {', '.join(map(str, splits or [data.root]))}")
    reports = progress(check_subjects(data, masks, arguments.processes), len(masks))
    summary = summarise(reports)
    print(summary_text(summary))
    if arguments.output:
        subjects = [dataclasses.asdict(report) for report in reports]
        content = {"root": str(data.root), "summary": summary, "subjects": subjects}
        write_text(arguments.output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if summary["subjects_with_defects"]:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
