"""Measure the library against the plain formulation, in one run, as ratios: training steps and
synthesis with their peak memory, reading of crops, and memory against the number of subjects.

Steps need no package that reads images; what can't be measured without one is left out and said.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_steps
import torch
from machine import file_name, hardware

from tsf_seq2seq.config import TrainConfig
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.tables import markdown

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    text: str
    values: Any  # for JSON


def steps(arguments: argparse.Namespace, device: torch.device) -> Section:
    """Both stages' steps and all tasks: time, arithmetic, memory."""
    small = arguments.size == "small"
    pixels = arguments.pixels or (64 if small else 192)
    precisions = arguments.precisions or (
        ["tf32", "bf16", "fp32"] if device.type == "cuda" else ["fp32", "bf16"]
    )
    repeats = arguments.repeats or (20 if device.type == "cuda" else 3)
    options = _options(arguments)
    course = TrainConfig(**dict.fromkeys(options, True))
    rows = bench_steps.measure(device, small, pixels, precisions, repeats, course)
    tables = (markdown(table(rows)) for table in (bench_steps.time_table, bench_steps.memory_table))
    how = f"; the library with {' and '.join(options)}" if options else ""
    title = (
        f"{arguments.size.capitalize()} size, {pixels} × {pixels}, batch 1, medians of {repeats}"
        f"{how}. {bench_steps.rate_note(rows)}{_arithmetic_note(device)}"
    )
    return Section("\n\n".join([title, *tables]), bench_steps.to_json(rows))


def networks(arguments: argparse.Namespace, device: torch.device) -> Section:
    """Counted arithmetic of the networks, on the CPU."""
    import bench_networks  # needs PyYAML

    small = arguments.size == "small"
    pixels = 96 if small else 192
    costs = bench_networks.measure(small, pixels)
    note = f"Networks of {'the demo' if small else 'published size'}, {pixels} × {pixels} × 3."
    return Section(
        f"{note}\n\n{markdown(bench_networks.table(costs))}", bench_networks.to_json(costs)
    )


def _options(arguments: argparse.Namespace) -> list[str]:
    return [name for name in ("channels_last", "compile") if getattr(arguments, name)]


def crops(arguments: argparse.Namespace, device: torch.device) -> Section:
    """Reading of crops from a store and from .nii.gz files."""
    import bench_crops  # needs nibabel and blosc2

    small = arguments.size == "small"
    visits = (5, 2) if small else (200, 5)
    note, results = bench_crops.measure_folder(arguments.root, *visits, small)
    return Section(
        f"{note}\n\n{markdown(bench_crops.table(results))}", [row._asdict() for row in results]
    )


def memory(arguments: argparse.Namespace, device: torch.device) -> Section:
    """Peak memory against the number of subjects, on the CPU."""
    import bench_memory  # needs nibabel and blosc2

    results = bench_memory.measure([2, 4] if arguments.size == "small" else [2, 8, 32])
    text = f"{bench_memory.note()}\n\n{markdown(bench_memory.table(results))}"
    return Section(text, bench_memory.to_json(results))


SECTIONS: dict[str, Callable[[argparse.Namespace, torch.device], Section]] = {
    "steps": steps,
    "networks": networks,
    "crops": crops,
    "memory": memory,
}


def _arithmetic_note(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return " TF32 is off for fp32, on for the others (PyTorch's default: on in convolutions)."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-d", "--device", default="cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--pixels", type=int, help="height and width of the steps (192, small 64)")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "tf32", "bf16", "fp16"),
        help="the first one's plain formulation is the yardstick (fp32 bf16, or on CUDA "
        "tf32 bf16 fp32)",
    )
    parser.add_argument("--repeats", type=int, help="timed runs of each step (3, on CUDA 20)")
    parser.add_argument(
        "--channels-last", action="store_true", help="the library's steps as train.channels_last"
    )
    parser.add_argument(
        "--compile", action="store_true", help="the library's steps as train.compile"
    )
    parser.add_argument("-r", "--root", type=Path, help="data set for crops (else synthetic data)")
    parser.add_argument("--sections", nargs="+", choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument(
        "-o", "--output", type=Path, help="OUTPUT.md and OUTPUT.json (results/<hardware name>)"
    )
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"-d {arguments.device}: PyTorch {torch.__version__} finds no CUDA device")
    title = f"{hardware(device)}; PyTorch {torch.__version__}"
    texts, values = [title], {"title": title, "size": arguments.size}
    for name in arguments.sections:
        try:
            section = SECTIONS[name](arguments, device)
        except ImportError as error:
            section = Section(f"{name} left out: {error}", None)
        texts.append(section.text)
        values[name] = section.values
    text = "\n\n".join(texts) + "\n"
    print(text)
    name = file_name(" ".join([hardware(device), *_options(arguments)]))
    stem = str(arguments.output or RESULTS / name)
    write_text(Path(f"{stem}.md"), text)
    write_text(Path(f"{stem}.json"), json.dumps(values, indent=1) + "\n")
    print(f"{stem}.md, {stem}.json")


if __name__ == "__main__":
    run_script(main)
