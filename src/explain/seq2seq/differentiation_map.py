"""Imaging-differentiation maps of the test subjects: what only the target sequence shows."""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_config_arguments, add_device_argument
from tsf_seq2seq.cli.loading import experiment, load_stage1
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.explain.differentiation import complete_subjects, write_differentiation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_argument(parser)
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "-m", "-l", "--load", type=Path, required=True, metavar="PTH", help="stage 1 weights"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--subjects", nargs="+", metavar="NAME", help="only these test subjects")
    parser.add_argument("--max-subjects", type=int, metavar="N", help="only the first N")
    parser.add_argument("--batch-size", type=int, default=8, help="stacks at once (default: 8)")
    arguments = parser.parse_args()
    if min(arguments.batch_size, arguments.max_subjects or 1) < 1 or arguments.max_subjects == 0:
        raise UserError("--batch-size and --max-subjects must be at least 1")
    config = experiment(arguments)
    network = load_stage1(arguments.load, config, arguments.device)
    found = find_subjects(config.data, config.data.test)
    complete = complete_subjects(found, len(config.data.sequences), arguments.subjects)
    if left_out := len(arguments.subjects or found) - len(complete):
        print(f"{left_out} subjects without all sequences on disk are left out")
    subjects = complete[: arguments.max_subjects]
    write_differentiation(network, config, subjects, arguments.batch_size, arguments.output)
    print(f"maps (NIfTI) and figures of {len(subjects)} subjects are in {arguments.output}")


if __name__ == "__main__":
    run_script(main)
