"""Arguments that scripts share, each declared once."""

import argparse
from pathlib import Path


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--device", default="cpu", help="cpu, cuda:0 or mps; each process of torchrun its own"
    )


def add_config_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "-c", "--config", type=Path, required=required, metavar="YAML", help="experiment settings"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as train.lr=2e-4; may be repeated",
    )


def add_tsf_arguments(parser: argparse.ArgumentParser) -> None:
    """-d, -c, --set, -l and -m of a script that uses a stage 2 network."""
    add_device_argument(parser)
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "-l", "--load", type=Path, required=True, metavar="PTH", help="stage 2 weights"
    )
    parser.add_argument(
        "-m",
        "--seq2seq",
        type=Path,
        metavar="PTH",
        help="Seq2Seq weights: those that belong to the authors' TSF weights, or stage 1's",
    )


def positive_number(text: str) -> int:
    """An argparse type: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


positive_number.__name__ = "whole number from 1"  # argparse's message names it
