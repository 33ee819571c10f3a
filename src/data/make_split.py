"""Split a data set into train, valid and test CSVs (name,mask), seeded, patients kept together."""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_config_arguments
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.split import BRATS_PATIENT, write_split
from tsf_seq2seq.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else data.root)")
    add_config_arguments(parser, required=False)
    parser.add_argument("-o", "--output", type=Path, help="folder for the CSVs (else the root)")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=(830, 93, 328),
        metavar=("TRAIN", "VALID", "TEST"),
        help="proportions; the default is the paper's 830 93 328",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patient",
        default=BRATS_PATIENT,
        metavar="REGEX",
        help="its first group is the patient in a subject's name, whose time points stay together, "
        r"such as '(.*)_visit\d+' (default: that of BraTS 2023)",
    )
    arguments = parser.parse_args()
    data = load_config(arguments.config, arguments.set).data if arguments.config else DataConfig()
    root = arguments.root or data.root
    counts = write_split(
        root,
        data.sequences,
        arguments.output or root,
        arguments.shares,
        arguments.seed,
        arguments.patient,
    )
    for path, count in counts.items():
        print(f"{path}: {count} subjects")


if __name__ == "__main__":
    run_script(main)
