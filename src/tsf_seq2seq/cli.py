"""What the training and evaluation scripts share: arguments, device, experiment set-up."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from tsf_seq2seq.architecture import Network, build_network
from tsf_seq2seq.backbones import find_weights
from tsf_seq2seq.checkpoint import load_seq2seq_weights, load_tsf_weights, read_checkpoint
from tsf_seq2seq.config import Config, FusionConfig, config_from_mapping, load_config, override
from tsf_seq2seq.data.subjects import Subject, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation import (
    Method,
    NetworkMethod,
    Score,
    TasksOf,
    evaluate,
    fit_baselines,
    table_by_inputs,
    table_by_pair,
    task_list,
)
from tsf_seq2seq.metrics import LPIPS
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.stages import SEQ2SEQ, TSF, freeze_encoder, missing_target_tasks
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training import train


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
        load_seq2seq_weights(network, arguments.load)
    train(config, network, SEQ2SEQ, device, arguments.resume)


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
    if arguments.load is not None:
        load_tsf_weights(network, arguments.load, arguments.seq2seq)
    elif arguments.seq2seq is not None:
        load_seq2seq_weights(network.seq2seq, arguments.seq2seq)
    elif not arguments.resume:
        raise UserError("stage 2 needs stage 1's weights: give them with -m")
    freeze_encoder(network)
    train(config, network, TSF, device, arguments.resume)


def new_network(config: Config) -> Seq2Seq | TSFSeq2Seq:
    """The experiment's network with its seeded initial weights."""
    torch.manual_seed(config.train.seed)
    network = build_network(config)
    if config.train.output_start == "background":
        seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
        seq2seq.decoder.start_at_background()
    return network


def find_device(name: str) -> torch.device:
    """The device `name`, such as cpu, cuda:0 or mps; UserError where this machine lacks it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"-d {name} is no device; use cpu, cuda:0 or mps") from None
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


def _training_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-d", "--device", default="cpu", help="cpu, cuda:0 or mps")
    add_config_arguments(parser, required=True)
    parser.add_argument(
        "-l", "--load", type=Path, metavar="PTH", help="weights to start from, ours or the authors'"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the run (train.output)")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last.pth")
    parser.add_argument("--seed", type=int, help="seed of the run (train.seed)")
    return parser


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


def _training_config(arguments: argparse.Namespace) -> Config:
    overrides = list(arguments.set)
    if arguments.output is not None:
        overrides.append(f"train.output={arguments.output}")
    if arguments.seed is not None:
        overrides.append(f"train.seed={arguments.seed}")
    return load_config(arguments.config, overrides)


def evaluate_seq2seq(description: str) -> None:
    """The stage 1 evaluation script: every source alone to every sequence on disk."""
    parser = _evaluation_parser(description)
    parser.add_argument(
        "-m", "-l", "--load", type=Path, required=True, metavar="PTH", help="stage 1 weights"
    )
    arguments = parser.parse_args()
    config = dataclasses.replace(_evaluation_config(arguments), fusion=None)
    network = build_network(config)
    assert isinstance(network, Seq2Seq)
    load_seq2seq_weights(network, arguments.load)

    def tasks_of(subject: Subject) -> list[Task]:
        return [Task((i,), j) for i in subject.available for j in subject.on_disk]

    scores = _run_evaluation(arguments, config, network, "seq2seq", tasks_of)
    print(table_by_pair(scores))
    _say_where(arguments)


def evaluate_tsf_seq2seq(description: str) -> None:
    """The stage 2 evaluation script: the paper's protocol, or all tasks."""
    parser = _evaluation_parser(description)
    parser.add_argument(
        "-l", "--load", type=Path, required=True, metavar="PTH", help="stage 2 weights"
    )
    parser.add_argument(
        "-m", "--seq2seq", type=Path, metavar="PTH", help="the Seq2Seq of the authors' pair"
    )
    parser.add_argument(
        "--all-tasks", action="store_true", help="every source set and missing target per subject"
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=("linear_regression", "mean_image"),
        default=[],
        help="yardsticks to fit on the training subjects and score too",
    )
    arguments = parser.parse_args()
    config = _evaluation_config(arguments)
    if config.fusion is None:
        config = dataclasses.replace(config, fusion=FusionConfig())
    network = build_network(config)
    assert isinstance(network, TSFSeq2Seq)
    load_tsf_weights(network, arguments.load, arguments.seq2seq)

    def tasks_of(subject: Subject) -> list[Task]:
        if arguments.all_tasks:
            return task_list(subject, len(config.data.sequences))
        return missing_target_tasks(subject)

    scores = _run_evaluation(arguments, config, network, "tsf", tasks_of, arguments.baselines)
    print(table_by_inputs(scores))
    _say_where(arguments)


def _evaluation_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-d", "--device", default="cpu", help="cpu, cuda:0 or mps")
    add_config_arguments(parser, required=False)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--max-subjects", type=int, metavar="N", help="only the first N subjects")
    parser.add_argument("--batch-size", type=int, default=8, help="stacks synthesized at once")
    parser.add_argument(
        "--no-predictions", action="store_true", help="write no NIfTI files, only metrics"
    )
    parser.add_argument("--lpips-weights", type=Path, metavar="PTH", help="AlexNet for LPIPS")
    return parser


def _evaluation_config(arguments: argparse.Namespace) -> Config:
    """Settings of -c, else those that our checkpoint carries; --set on top."""
    if arguments.config is not None:
        return load_config(arguments.config, arguments.set)
    content = read_checkpoint(arguments.load)
    return config_from_mapping(override(content["config"], arguments.set), str(arguments.load))


def _run_evaluation(
    arguments: argparse.Namespace,
    config: Config,
    network: Network,
    name: str,
    tasks_of: TasksOf,
    baselines: Sequence[str] = (),
) -> list[Score]:
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {arguments.batch_size}")
    device = find_device(arguments.device)
    subjects = find_subjects(config.data, config.data.test)[: arguments.max_subjects]
    lpips = None
    if arguments.lpips_weights or find_weights("alexnet"):
        lpips = LPIPS(str(device), arguments.lpips_weights)
    else:
        print("LPIPS is left out: AlexNet's weights were not found (make weights brings them)")
    height = config.seq2seq.slices
    methods: list[Method] = [
        NetworkMethod(name, network.to(device).eval(), height, arguments.batch_size),
        *fit_baselines(config, baselines),
    ]
    return evaluate(
        config,
        subjects,
        tasks_of,
        methods,
        arguments.output,
        lpips,
        predictions=not arguments.no_predictions,
    )


def _say_where(arguments: argparse.Namespace) -> None:
    print(f"metrics, examples and predictions are in {arguments.output}")
