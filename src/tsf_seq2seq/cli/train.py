"""The training scripts."""

import argparse
import dataclasses

from tsf_seq2seq.checkpoints.checkpoint import load_seq2seq_weights, load_weights
from tsf_seq2seq.cli.arguments import script_parser
from tsf_seq2seq.cli.loading import find_device
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.distributed import joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.build import build_network
from tsf_seq2seq.training.loop import train


def train_seq2seq(description: str) -> None:
    """The stage 1 training script."""
    train_network(description, "seq2seq")


def train_tsf_seq2seq(description: str) -> None:
    """The stage 2 training script, on top of stage 1's weights."""
    train_network(description, "tsf_seq2seq")


def train_network(description: str, network_name: str | None = None) -> None:
    """The training script of every network: the YAML says which, unless it is named here."""
    arguments = _training_parser(description).parse_args()
    overrides = list(arguments.set)
    if arguments.seed is not None:
        overrides.append(f"train.seed={arguments.seed}")
    config = load_config(arguments.config, overrides, network_name)
    if arguments.output is not None:
        run = dataclasses.replace(config.train, output=arguments.output)
        config = dataclasses.replace(config, train=run)
    if network_name not in (None, config.network.name):
        raise UserError(
            f"{arguments.config} describes network {config.network.name}, but this script trains "
            f"{network_name}; src/train/train.py trains any"
        )
    device = find_device(arguments.device)
    network = build_network(config)
    _load_first_weights(network, arguments, config)
    with joined_processes(device) as processes:
        train(config, network, device, arguments.resume, processes)


def _load_first_weights(
    network: SynthesisNetwork, arguments: argparse.Namespace, config: Config
) -> None:
    """What the training starts from: -l's weights, or -m's in the part that the network builds on.

    Raises UserError where it builds on a part without weights.
    """
    names, title = list(config.data.sequences), f"network {config.network.name}"
    if arguments.load is not None:
        load_weights(network, arguments.load, arguments.seq2seq, names)
    elif network.builds_on is None:
        if arguments.seq2seq is not None:
            raise UserError(f"{title} builds on no other network: leave -m {arguments.seq2seq} out")
    elif arguments.seq2seq is not None:
        load_seq2seq_weights(getattr(network, network.builds_on), arguments.seq2seq, names)
    elif not (arguments.resume and (config.train.output / "last.pth").exists()):
        raise UserError(f"{title} builds on stage 1's Seq2Seq: give its weights with -m")


def _training_parser(description: str) -> argparse.ArgumentParser:
    parser = script_parser(
        description,
        ["config"],
        ["device", "set", "load", "seq2seq", "output"],
        load="weights to start from, ours or the authors'",
        seq2seq="stage 1 weights to build on, ours or the authors'",
        output="folder of the run (else train.output)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last.pth")
    parser.add_argument("--seed", type=int, metavar="N", help="of the run (else train.seed)")
    return parser
