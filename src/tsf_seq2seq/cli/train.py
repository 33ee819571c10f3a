"""The training scripts."""

import argparse
import dataclasses
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import (
    load_seq2seq_weights,
    load_weights,
    open_model,
    save_model,
)
from tsf_seq2seq.cli.arguments import add_arguments, positive_number, script_parser
from tsf_seq2seq.cli.loading import experiment, find_device
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.distributed import joined_processes
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import check_place
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.build import build_network
from tsf_seq2seq.models.error_estimator import ErrorEstimatorConfig
from tsf_seq2seq.synthesis.risk_control import fewest_subjects
from tsf_seq2seq.training.error_map_fit import (
    ErrorMapTraining,
    band_table,
    fit_error_map,
    usable_subjects,
)
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


def train_error_map(description: str | None) -> None:
    """Train and calibrate an error map; write the checkpoint with it."""
    parser = script_parser(
        description,
        ["load", "output"],
        ["device", "set", "batch_size"],
        load="a checkpoint of ours, whose network stays as it is",
        output="checkpoint to write, .pth",
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="CSV",
        help="subjects to train on, that the network was not trained on (else data.valid)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="CSV",
        help="further subjects to calibrate on (else those of --fit, by cross-fitting)",
    )
    parser.add_argument("--steps", type=positive_number, default=2400, metavar="N")
    parser.add_argument("--crops", type=positive_number, default=4, metavar="N", help="in a step")
    parser.add_argument(
        "--half-resolution",
        action="store_true",
        help="an estimator of images half as fine: faster, and nearly as good",
    )
    add_arguments(parser, ["seed"])
    arguments = parser.parse_args()
    output: Path = arguments.output
    if output.suffix != ".pth":
        raise UserError(f"-o must end in .pth, not {output.name}")
    check_place(output)
    arguments.config = None
    config, model = experiment(arguments), open_model(arguments.load, find_device(arguments.device))
    fitted = usable_subjects(model.network, config, arguments.fit or config.data.valid)
    calibrated = []
    if arguments.calibrate is not None:
        calibrated = usable_subjects(model.network, config, arguments.calibrate)
        if both := {one.name for one in fitted} & {one.name for one in calibrated}:
            raise UserError(f"{arguments.calibrate} has {min(both)}, which is trained on, too")
    settings = ErrorEstimatorConfig(reduction=2 if arguments.half_resolution else 1)
    training = ErrorMapTraining(settings, arguments.steps, arguments.crops, arguments.seed)
    error_map = fit_error_map(
        *(model.network, config, fitted, calibrated, training, arguments.batch_size), print
    )
    error_map = dataclasses.replace(error_map, network_sha256=model.sha256)
    save_model(output, dataclasses.replace(model, error_map=error_map))
    if error_map.calibration is None:
        print("one subject can't calibrate what trained on it: scales are as they are")
    else:
        print(band_table(error_map.calibration).markdown())
        for alpha, factor in error_map.calibration.factors.items():
            if factor is None:
                print(
                    f"too few subjects for a band of all but {alpha}: it takes "
                    f"{fewest_subjects(float(alpha))} and errors that they allow"
                )
    print(f"{output} has an error map")


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
