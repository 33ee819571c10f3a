"""From parsed arguments to settings, devices and networks."""

import argparse
import dataclasses
from pathlib import Path

import torch

from tsf_seq2seq.checkpoints.checkpoint import (
    Model,
    check_sequences,
    load_seq2seq,
    load_weights,
    open_model,
    read_checkpoint,
)
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


def open_compared(arguments: argparse.Namespace) -> tuple[dict[str, Model], Config]:
    """The checkpoints of -l by their --names (else their folders'), on the device, and the
    experiment: the first one's, with -c and --set.

    UserError where names and checkpoints don't match, or these know other sequences or see stacks
    of another height than the experiment has.
    """
    models = [open_model(path, find_device(arguments.device)) for path in arguments.load]
    names = arguments.names or [path.resolve().parent.name for path in arguments.load]
    if len(names) != len(models):
        raise UserError(f"--names gives {len(names)} names for {len(models)} checkpoints")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two methods would be called {name}: name the checkpoints by --names")
    config = models[0].config
    if arguments.config is not None or arguments.set:
        config = experiment(argparse.Namespace(**vars(arguments) | {"load": arguments.load[0]}))
    for model in models:
        check_sequences(model.path, model.config, list(config.data.sequences))
        if model.network.slices != config.data.stack:
            raise UserError(
                f"{model.path} sees stacks of {model.network.slices} slices, but here data.stack "
                f"is {config.data.stack}: only networks of one height are compared"
            )
    return dict(zip(names, models, strict=True)), config


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
