"""The training scripts."""

import argparse
import dataclasses
from pathlib import Path

import torch

from tsf_seq2seq.checkpoints.checkpoint import load_seq2seq_weights, load_tsf_weights
from tsf_seq2seq.cli.arguments import add_config_arguments, add_device_argument
from tsf_seq2seq.cli.loading import find_device
from tsf_seq2seq.config import Config, FusionConfig, load_config
from tsf_seq2seq.distributed import joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.build import Network, build_network
from tsf_seq2seq.training.loop import train
from tsf_seq2seq.training.objectives import SEQ2SEQ, TSF, freeze_encoder


def train_seq2seq(description: str) -> None:
    """The stage 1 training script: parse arguments, train."""
    arguments = _training_parser(description).parse_args()
    config = _training_config(arguments)
    if config.fusion is not None:
        config = dataclasses.replace(config, fusion=None)
    device = find_device(arguments.device)
    network = new_network(config)
    assert isinstance(network, Seq2Seq)
    if arguments.load is not None:
        load_seq2seq_weights(network, arguments.load, list(config.data.sequences))
    with joined_processes(device) as processes:
        train(config, network, SEQ2SEQ, device, arguments.resume, processes)


def train_tsf_seq2seq(description: str) -> None:
    """The stage 2 training script: parse arguments, train on top of stage 1's weights."""
    parser = _training_parser(description)
    parser.add_argument(
        "-m", "--seq2seq", type=Path, metavar="PTH", help="stage 1 weights, ours or the authors'"
    )
    arguments = parser.parse_args()
    config = _training_config(arguments)
    if config.fusion is None:
        config = dataclasses.replace(config, fusion=FusionConfig())
    device = find_device(arguments.device)
    network = new_network(config)
    assert isinstance(network, TSFSeq2Seq)
    names = list(config.data.sequences)
    if arguments.load is not None:
        load_tsf_weights(network, arguments.load, arguments.seq2seq, names)
    elif arguments.seq2seq is not None:
        load_seq2seq_weights(network.seq2seq, arguments.seq2seq, names)
    elif not (arguments.resume and (config.train.output / "last.pth").exists()):
        raise UserError("stage 2 needs stage 1's weights: give them with -m")
    freeze_encoder(network)
    with joined_processes(device) as processes:
        train(config, network, TSF, device, arguments.resume, processes)


def new_network(config: Config) -> Network:
    """The experiment's network with its seeded initial weights."""
    torch.manual_seed(config.train.seed)
    network = build_network(config)
    if config.train.output_start == "background":
        seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
        seq2seq.decoder.start_at_background()
    return network


def _training_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add_device_argument(parser)
    add_config_arguments(parser, required=True)
    parser.add_argument(
        "-l", "--load", type=Path, metavar="PTH", help="weights to start from, ours or the authors'"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the run (train.output)")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last.pth")
    parser.add_argument("--seed", type=int, help="seed of the run (train.seed)")
    return parser


def _training_config(arguments: argparse.Namespace) -> Config:
    overrides = list(arguments.set)
    if arguments.seed is not None:
        overrides.append(f"train.seed={arguments.seed}")
    config = load_config(arguments.config, overrides)
    if arguments.output is None:
        return config
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, output=arguments.output)
    )
