"""From parsed arguments to settings, devices and networks."""

import argparse
import dataclasses
from pathlib import Path

import torch

from tsf_seq2seq.checkpoints.checkpoint import load_seq2seq, load_weights, read_checkpoint
from tsf_seq2seq.config import Config, DataConfig, config_from_mapping, load_config
from tsf_seq2seq.config_layers import override
from tsf_seq2seq.distributed import local_rank
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.build import build_network


def experiment(arguments: argparse.Namespace, network: str | None = None) -> Config:
    """Settings of -c, else those that our checkpoint (-l) carries; --set on top.

    `network`: the one that is meant where they name none. With -r, its root takes theirs' place.
    """
    if arguments.config is not None:
        config = load_config(arguments.config, arguments.set, network)
    else:
        values = override(read_checkpoint(arguments.load)["config"], arguments.set)
        config = config_from_mapping(values, str(arguments.load))
    root = getattr(arguments, "root", None) or config.data.root
    return dataclasses.replace(config, data=dataclasses.replace(config.data, root=root))


def data_config(arguments: argparse.Namespace) -> DataConfig:
    """The data section of -c with -r's root; without -c, BraTS's with split CSVs in the root."""
    if arguments.config is not None:
        return experiment(arguments).data
    root = arguments.root or DataConfig().root
    train, valid, test = (root / f"{part}.csv" for part in ("train", "valid", "test"))
    return DataConfig(root=root, train=train, valid=valid, test=test)


def load_network(arguments: argparse.Namespace, config: Config) -> SynthesisNetwork:
    """The network of -l (and -m), in evaluation mode on the device."""
    device = find_device(arguments.device)
    network = build_network(config)
    load_weights(network, arguments.load, arguments.seq2seq, list(config.data.sequences))
    return network.to(device).eval()


def load_stage1(path: Path, config: Config, device_name: str) -> SynthesisNetwork:
    """The stage 1 network of `config` with the weights of `path`, in evaluation mode."""
    device = find_device(device_name)
    return load_seq2seq(path, config).to(device).eval()


def find_device(name: str) -> torch.device:
    """The device `name`, such as cpu, cuda:0 or mps; UserError where this machine lacks it.

    Processes that torchrun started take the CUDA device of their number, whatever `name` says.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"-d {name} is no device; use cpu, cuda:0 or mps") from None
    number = local_rank()
    if device.type == "cuda" and number is not None:
        name, device = f"cuda:{number}", torch.device("cuda", number)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"-d {name}: this machine offers PyTorch {torch.cuda.device_count()} CUDA devices; "
            "-d cpu works everywhere"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"-d {name}: this machine offers PyTorch no MPS device")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"-d {name} is not supported; use cpu, cuda:0 or mps")
    return device
