"""The arguments that scripts share, each declared once: a flag means the same wherever it stands.

-l are the weights that a script looks at, -m the Seq2Seq (stage 1) weights that go with them.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tsf_seq2seq.config import FINISH_STEPS

LARGEST_NUMBER = 2**32 - 1  # of which seeds are made, too
Argument = tuple[tuple[str, ...], dict[str, Any]]  # flags, and options of argparse


def _file_or_folder(name: str, path: str | Path) -> Path:
    """A file of that name, given by itself or by the folder that holds it."""
    return Path(path, name) if Path(path).is_dir() else Path(path)


# argparse types
metrics_file = partial(_file_or_folder, "metrics.csv")
fusion_weights_file = partial(_file_or_folder, "fusion_weights.csv")
contributions_file = partial(_file_or_folder, "contributions.csv")


def _whole_number_from(lowest: int) -> Callable[[str], int]:
    """An argparse type, whose name argparse's message gives."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= lowest):
            raise ValueError
        if int(text) > LARGEST_NUMBER:
            raise argparse.ArgumentTypeError(f"must be at most {LARGEST_NUMBER}")
        return int(text)

    parse.__name__ = f"whole number from {lowest}"
    return parse


positive_number, whole_number = _whole_number_from(1), _whole_number_from(0)


def _argument(*flags: str, **options: Any) -> Argument:
    return flags, options


def _path(*flags: str, metavar: str, help: str) -> Argument:
    return _argument(*flags, type=Path, metavar=metavar, help=help)


def _number(flag: str, help: str, default: int | None = None) -> Argument:
    return _argument(flag, type=positive_number, metavar="N", default=default, help=help)


ARGUMENTS = {
    "metrics": _argument(
        "metrics", type=metrics_file, help="metrics.csv of an evaluation, or folder"
    ),
    "device": _argument(
        "-d", "--device", default="cpu", help="cpu, cuda:0 or mps; each process of torchrun its own"
    ),
    "config": _path(
        "-c", "--config", metavar="YAML", help="experiment settings; our checkpoints carry theirs"
    ),
    "set": _argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as train.lr=2e-4; may be repeated",
    ),
    "load": _path("-l", "--load", metavar="PTH", help="weights to look at"),
    "load_seq2seq": _path(
        *("-l", "--load", "-m"), metavar="PTH", help="Seq2Seq (stage 1) weights to look at"
    ),
    "seq2seq": _path(
        "-m", "--seq2seq", metavar="PTH", help="Seq2Seq (stage 1) weights that go with -l's"
    ),
    "output": _path("-o", "--output", metavar="PATH", help="folder for the results"),
    "root": _path("-r", "--root", metavar="FOLDER", help="data set folder (else data.root)"),
    "split": _argument(
        "--split",
        type=Path,
        nargs="+",
        metavar="CSV",
        help="the subjects of these (else of data.train, valid and test, where those exist)",
    ),
    "folders": _argument("--folders", action="store_true", help="all subjects of the root instead"),
    "subjects": _argument("--subjects", nargs="+", metavar="NAME", help="only these test subjects"),
    "max_subjects": _number("--max-subjects", "only the first N subjects"),
    "max_slices": _number("--max-slices", "only the central N slices"),
    "batch_size": _number("--batch-size", "stacks of slices at once (default: %(default)s)", 8),
    "processes": _number("--processes", "subjects at once (default: %(default)s)", 1),
    "finish": _argument(
        "--finish",
        nargs="*",
        choices=FINISH_STEPS,
        metavar="STEP",
        help=f"what is done to outputs in the end, of {', '.join(FINISH_STEPS)}, or nothing (else "
        "what evaluation.finish says)",
    ),
    "seed": _argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="the same seed gives the same files (default: %(default)s)",
    ),
}
SETTINGS = ("config", "set")
OF_NETWORK = ("device", *SETTINGS, "seq2seq")  # what goes with the weights of a stage 2 network


def script_parser(
    description: str | None, required: Iterable[str], optional: Iterable[str] = (), **meanings: str
) -> argparse.ArgumentParser:
    """A script's parser with arguments of ARGUMENTS; `meanings`: what it says of them instead."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser, required, True, meanings)
    add_arguments(parser, optional, False, meanings)
    return parser


def add_arguments(
    parser: argparse.ArgumentParser,
    names: Iterable[str],
    required: bool = False,
    meanings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add arguments of ARGUMENTS to a parser; `meanings`: help in place of the usual one."""
    for name in names:
        flags, options = ARGUMENTS[name]
        options = options | {"help": meanings.get(name, options["help"])}
        if required and flags[0].startswith("-"):  # argparse wants it of options only
            options["required"] = True
        parser.add_argument(*flags, **options)
