"""The scripts that turn weights from one format into another."""

import argparse

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model_and_config,
    open_model,
    read_checkpoint,
    save_checkpoint,
    stage1_config,
)
from tsf_seq2seq.checkpoints.portable import SUFFIX, save_portable
from tsf_seq2seq.checkpoints.published import load_published, published_architecture
from tsf_seq2seq.cli.arguments import script_parser
from tsf_seq2seq.config import Config, DataConfig
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.export.onnx_file import export_onnx, find_task


def import_published(description: str | None) -> None:
    """Write a checkpoint of ours from the authors' YAML and weights."""
    arguments = script_parser(
        description,
        ["config", "seq2seq", "output"],
        ["load"],
        config="the authors' YAML",
        output="checkpoint to write",
        load="the authors' TSF weights",
    ).parse_args()
    network = load_published(arguments.config, arguments.seq2seq, arguments.load)
    settings, stack, n_sequences = published_architecture(arguments.config)
    config = Config(network=settings, data=DataConfig(stack=stack))
    if not arguments.load:
        config = stage1_config(config)
    if n_sequences != len(config.data.sequences):
        raise UserError(
            f"{arguments.config}: these weights know {n_sequences} sequences, but only BraTS's "
            f"{len(config.data.sequences)} can be imported without their names"
        )
    save_checkpoint(arguments.output, network, config)
    print(f"{arguments.output} holds the imported {type(network).__name__}")


def export_model(description: str | None) -> None:
    """Export a checkpoint of ours, or one task of it."""
    meaning = "file to write: .safetensors, or .onnx for a task"
    parser = script_parser(description, ["load", "output"], output=meaning)
    parser.add_argument(
        "--sources", metavar="NAMES", help="the task's sources, such as t1,t2,flair"
    )
    parser.add_argument("--target", metavar="NAME", help="the task's target, such as t1ce")
    parser.add_argument(
        "--with-tsem", action="store_true", help="let the ONNX file give the TSEM too"
    )
    parser.add_argument(
        "--with-error-map", action="store_true", help="let it give the expected error too"
    )
    arguments = parser.parse_args()
    if arguments.output.suffix == ".onnx":
        _export_task(arguments)
    elif arguments.output.suffix == SUFFIX:
        _export_weights(arguments)
    else:
        raise UserError(f"-o must end in .safetensors or .onnx, not {arguments.output.name}")


def _export_weights(arguments: argparse.Namespace) -> None:
    maps = arguments.with_tsem or arguments.with_error_map
    if arguments.sources or arguments.target or maps:
        raise UserError("--sources, --target and --with-… are for ONNX: let -o end in .onnx")
    load_model_and_config(arguments.load)  # what can't be loaded isn't exported
    save_portable(arguments.output, read_checkpoint(arguments.load))
    print(f"{arguments.output} holds the model, settings included; give it to -l or -m")


def _export_task(arguments: argparse.Namespace) -> None:
    if not (arguments.sources and arguments.target):
        raise UserError("an ONNX file holds one task: give it with --sources and --target")
    model = open_model(arguments.load)
    names, tsem = model.sequences, arguments.with_tsem
    task = find_task(arguments.sources.split(","), arguments.target, names)
    error_map = model.error_map if arguments.with_error_map else None
    if arguments.with_error_map and error_map is None:
        raise UserError(f"{arguments.load} has no error map; train_error_map.py makes one")
    told = model.statistics, model.adaptation, error_map
    difference = export_onnx(arguments.output, model.network, task, names, tsem, *told)
    print(f"{arguments.output} synthesizes {arguments.target} from {arguments.sources}")
    if difference is None:
        print("onnxruntime is not installed: the file was not checked")
    else:
        print(f"largest difference between onnxruntime and PyTorch: {difference:.1e}")
