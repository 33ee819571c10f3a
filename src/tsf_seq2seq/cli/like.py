"""What evaluate.py --like does: networks adapted to each test subject by others of its site."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.cli.arguments import add_arguments, whole_number
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.adaptation_curve import (
    GAINS,
    adaptation_curve,
    adaptation_tables,
    write_adaptation_rows,
)
from tsf_seq2seq.evaluation.adaptation_figure import plot_adaptation
from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.synthesis.adapted import (
    AdaptedSynthesizer,
    MappedSynthesizer,
    references_by_site,
)
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer, Synthesizer
from tsf_seq2seq.tables import Table


def add_like_arguments(parser: argparse.ArgumentParser) -> None:
    """--like, --like-baselines and --seed."""
    parser.add_argument(
        "--like",
        nargs="+",
        type=whole_number,
        default=[],
        metavar="N",
        help="adapt the networks to each test subject by N other complete test subjects of its "
        "site, such as 1 2 4; with 0, by the checkpoint's own map of validation subjects",
    )
    parser.add_argument(
        "--like-baselines",
        action="store_true",
        help="what else the same references give: gain and offset, the quadratic regression",
    )
    add_arguments(parser, ["seed"], meanings={"seed": "of the references that are drawn"})


def drawn_references(
    arguments: argparse.Namespace, config: Config, subjects: Sequence[Subject]
) -> dict[str, list[Subject]]:
    """Whom each subject's networks are adapted by, as many as --like asks for at most."""
    number = max(arguments.like, default=0)
    if not number:
        return {}
    pool = find_subjects(config.data, config.data.test)
    return references_by_site(pool, subjects, number, len(config.data.sequences), arguments.seed)


def with_maps(
    arguments: argparse.Namespace,
    config: Config,
    model: Model,
    plain: NetworkSynthesizer,
    references: Mapping[str, Sequence[Subject]],
    first: bool,
) -> Synthesizer:
    """The network as its checkpoint's maps make it, or adapted as --like says; the `first` gives
    what needs no network, too."""
    names = list(config.data.sequences)
    if model.adaptation is not None:
        if arguments.like:
            raise UserError(f"{model.path} is adapted already: --like takes one that is not")
        return MappedSynthesizer(plain, model.adaptation, names, arguments.ablations)
    if not arguments.like:
        return plain
    if 0 in arguments.like and model.prior is None:
        raise UserError(
            f"{model.path} carries no map of validation subjects, which --like 0 asks for: "
            "training writes one into best.pth"
        )
    return AdaptedSynthesizer(
        plain,
        config,
        sorted(set(arguments.like)),
        lambda subject: references.get(subject.name, ()),
        model.prior,
        arguments.like_baselines,
        regression=first,
    )


def report_of_adapted(scores: list[Score], output: Path) -> dict[str, Table]:
    """Tables of adapted networks, whose gains are printed; adaptation.csv, .pdf and .png."""
    curve = adaptation_curve(scores)
    if curve is None:
        return {}
    tables = adaptation_tables(curve)
    write_adaptation_rows(output / "adaptation.csv", curve)
    plot_adaptation(curve, output / "adaptation")
    print(f"\n{tables[GAINS].markdown()}")
    return tables
