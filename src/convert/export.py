"""Export a checkpoint: as one safetensors file, or one task of it as an ONNX file."""

import argparse
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import load_model_and_config, open_model, read_checkpoint
from tsf_seq2seq.checkpoints.portable import SUFFIX, save_portable
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.export.onnx_file import export_onnx, find_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-l", "--load", type=Path, required=True, metavar="PTH", help="checkpoint of ours"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="file to write: .safetensors, or .onnx for a task",
    )
    parser.add_argument(
        "--sources", metavar="NAMES", help="the task's sources, such as t1,t2,flair"
    )
    parser.add_argument("--target", metavar="NAME", help="the task's target, such as t1ce")
    parser.add_argument(
        "--with-tsem", action="store_true", help="let the ONNX file give the TSEM too"
    )
    arguments = parser.parse_args()
    if arguments.output.suffix == ".onnx":
        export_task(arguments)
    elif arguments.output.suffix == SUFFIX:
        export_model(arguments)
    else:
        raise UserError(f"-o must end in .safetensors or .onnx, not {arguments.output.name}")


def export_model(arguments: argparse.Namespace) -> None:
    if arguments.sources or arguments.target or arguments.with_tsem:
        raise UserError("--sources, --target and --with-tsem are for ONNX: let -o end in .onnx")
    load_model_and_config(arguments.load)  # what can't be loaded isn't exported
    save_portable(arguments.output, read_checkpoint(arguments.load))
    print(f"{arguments.output} holds the model, settings included; give it to -l or -m")


def export_task(arguments: argparse.Namespace) -> None:
    if not (arguments.sources and arguments.target):
        raise UserError("an ONNX file holds one task: give it with --sources and --target")
    model = open_model(arguments.load)
    names, tsem = model.sequences, arguments.with_tsem
    task = find_task(arguments.sources.split(","), arguments.target, names)
    difference = export_onnx(arguments.output, model.network, task, names, tsem, model.statistics)
    print(f"{arguments.output} synthesizes {arguments.target} from {arguments.sources}")
    if difference is None:
        print("onnxruntime is not installed: the file was not checked")
    else:
        print(f"largest difference between onnxruntime and PyTorch: {difference:.1e}")


if __name__ == "__main__":
    run_script(main)
