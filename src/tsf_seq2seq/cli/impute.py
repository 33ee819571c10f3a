"""The command tsf-impute: missing sequences of a subject or a data set."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import Model, open_model
from tsf_seq2seq.cli.arguments import add_arguments
from tsf_seq2seq.cli.loading import find_device
from tsf_seq2seq.config import BRATS_SEQUENCES
from tsf_seq2seq.data.discovery import FoundSubject, discover
from tsf_seq2seq.data.namings import Naming, recognise, stem
from tsf_seq2seq.data.scan_files import scan_defect
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.imputation.batch import Request, impute_subjects
from tsf_seq2seq.imputation.options import PRECISIONS, ImputeOptions
from tsf_seq2seq.imputation.output import Output
from tsf_seq2seq.imputation.slices import BATCH_SIZE

DESCRIPTION = """Synthesize missing brain MRI sequences as NIfTI files on the subject's own grid.
Sequences must be co-registered and skull-stripped. Research use only. Exit code 0: all done; 1:
some subjects could not be imputed; 2: nothing could be done."""
LAYOUTS = (
    ("--bids", "bids", "BIDS derivatives"),
    ("--keep-names", "names", "each target under the name that the data set would have given it"),
)
TAKEN = (
    "help load device output target sources synthetic-sources precision resample batch-size bids "
    "keep-names like finish contributions labels interval"
)


def main() -> None:
    """What tsf-impute does."""
    impute_sequences(DESCRIPTION)


def impute_sequences(description: str) -> None:
    """Parse arguments, with one option per sequence of the checkpoint; find subjects; impute."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_arguments(first, ["load", "device", "output"])
    known, _ = first.parse_known_args()
    with claimed(known.output) if known.output else nullcontext():
        _impute_sequences(description, known)


def _impute_sequences(description: str, known: argparse.Namespace) -> None:
    """The same, where the arguments that say so name the weights, and the folder is claimed."""
    model = open_model(known.load, find_device(known.device)) if known.load else None
    parser = _parser(description, model.sequences if model else tuple(BRATS_SEQUENCES))
    arguments = parser.parse_args()
    assert model is not None  # -l is required
    subjects = _subjects(arguments, model)
    if arguments.labels is not None and (not arguments.contributions or len(subjects) > 1):
        raise UserError("--labels is for the --contributions of one subject")
    options = ImputeOptions(
        sources=_names_of(arguments.sources),
        precision=arguments.precision,
        resample=arguments.resample,
        batch_size=arguments.batch_size,
        synthetic_sources=arguments.synthetic_sources,
        finish=arguments.finish,
        contributions=arguments.contributions,
        labels=arguments.labels,
        interval=arguments.interval,
    )
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    request = Request(arguments.target, options, arguments.like, command)
    output = Output(arguments.output, arguments.layout)
    failures = impute_subjects(subjects, model, request, output)
    if failures:
        print(f"{len(failures)} of {len(subjects)} subjects failed:", file=sys.stderr)
        for name, reason in failures.items():
            print(printable(f"  {name}: {reason}"), file=sys.stderr)
        sys.exit(1)


def _parser(description: str, sequences: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tsf-impute", description=description, allow_abbrev=False)
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="SUBJECT_FOLDER", help="of a subject or a data set"
    )
    add_arguments(
        parser, ["load", "output"], required=True, meanings={"load": "a checkpoint of ours"}
    )
    add_arguments(parser, ["device", "batch_size", "finish"])
    parser.set_defaults(batch_size=BATCH_SIZE)
    parser.add_argument(
        "--target", nargs="+", default=[], metavar="SEQUENCE", help="default: all that are missing"
    )
    parser.add_argument(
        "--sources", metavar="SEQUENCE,…", help="default: all that exist; the first gives the grid"
    )
    parser.add_argument(
        "--synthetic-sources",
        action="store_true",
        help="take images that this software made as sources, too",
    )
    parser.add_argument(
        "--like",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="complete subjects of the same scanner, to whose contrast the synthesis is adapted: "
        "folders, files, or names of subjects in the folders",
    )
    parser.add_argument(
        "--contributions",
        action="store_true",
        help="also an image for each source of what it adds; they add up to the synthesis",
    )
    parser.add_argument(
        "--interval",
        action="store_true",
        help="also images of the bounds that hold all but 10 %% of the brain, of a checkpoint with "
        "an error map",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="NIFTI",
        help="with --contributions, of one subject: a label map, to tell shares in the lesion too",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument(
        "--resample", action="store_true", help="bring sources on other grids to the first one's"
    )
    layout = parser.add_mutually_exclusive_group()
    layout.set_defaults(layout="plain")
    for option, value, meaning in LAYOUTS:
        layout.add_argument(
            option, action="store_const", const=value, dest="layout", help=f"write {meaning}"
        )
    files = parser.add_argument_group("one subject, by its files")
    for name in sequences:
        files.add_argument(_option(name), type=Path, dest=f"file:{name}", metavar="NIFTI")
    return parser


def _option(sequence: str) -> str:
    """--t1 for t1; a name that another option has gets a prefix."""
    return f"--sequence-{sequence}" if sequence in TAKEN.split() else f"--{sequence}"


def _names_of(sources: str | None) -> list[str] | None:
    """The sequences that --sources lists, if it was given."""
    if sources is None:
        return None
    names = [name.strip() for name in sources.split(",")]
    if not all(names):
        raise UserError(f"--sources '{sources}' names an empty sequence: list them as in t1,t2")
    return names


def _subjects(arguments: argparse.Namespace, model: Model) -> list[FoundSubject]:
    """Those of the folders, or the one that the files make."""
    given = {name: getattr(arguments, f"file:{name}") for name in model.sequences}
    files: dict[str, Path] = {name: path for name, path in given.items() if path is not None}
    if bool(files) == bool(arguments.folders):
        options = " ".join(f"{_option(name)} FILE" for name in model.sequences)
        raise UserError(f"give either SUBJECT_FOLDER or files, such as {options}")
    if not files:
        return discover(arguments.folders, model.config.data, arguments.synthetic_sources)
    for path in files.values():
        if defect := scan_defect(path):
            raise UserError(f"{path} {defect}")
    first = next(iter(files.values()))
    name, naming = recognise(first, model.config.data) or (stem(first), Naming("files", {}, {}))
    return [FoundSubject(name, naming, files)]
