"""What the evaluation scripts' --finish does: methods finished, beside the plain ones."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import checkpoint_prior
from tsf_seq2seq.config import Config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.finish import Finish, chosen_steps, image_finish, network_finish
from tsf_seq2seq.synthesis.synthesizers import Synthesizer, fit_baselines
from tsf_seq2seq.tasks import Task


def finish_of(
    arguments: argparse.Namespace,
    config: Config,
    path: Path,
    prior: Adaptation | None,
    replaced: bool,
) -> Finish | None:
    """The finish of a checkpoint's network, whose `prior` other maps may have `replaced`.

    By --finish, else by the experiment's settings; None without a step.
    """
    sequences = list(config.data.sequences)
    return network_finish(arguments.finish, config.evaluation, prior, sequences, path, replaced)


def finish_of_file(
    arguments: argparse.Namespace, config: Config, path: Path, network: str, replaced: bool = False
) -> Finish | None:
    """The same of the network of that name in a weights file, ours or the authors'."""
    wanted = "map" in chosen_steps(arguments.finish, config.evaluation) and not replaced
    prior = checkpoint_prior(path, network) if wanted else None
    return finish_of(arguments, config, path, prior, replaced)


def fitted(
    arguments: argparse.Namespace, config: Config, names: Sequence[str], tasks: Iterable[Task]
) -> list[Synthesizer]:
    """The baselines among `names`, also finished by what of the steps needs no network."""
    finish = image_finish(chosen_steps(arguments.finish, config.evaluation))
    return fit_baselines(config, names, tasks, finish)


def finished_methods(synthesizers: Iterable[Synthesizer]) -> dict[str, list[str]]:
    """Method → the steps that were done to it, of those that were finished."""
    return {name: [*steps] for one in synthesizers for name, steps in one.finished.items()}


def check_finished(arguments: argparse.Namespace, synthesizers: Sequence[Synthesizer]) -> None:
    """UserError where --finish asks for steps that none of the methods can have."""
    if arguments.finish and not finished_methods(synthesizers):
        names = [name for one in synthesizers for name in one.names]
        raise UserError(
            f"--finish {' '.join(arguments.finish)}: there is nothing to finish so among the "
            f"methods {', '.join(names)}"
        )
