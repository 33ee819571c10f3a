"""Measure what adaptation to a reference costs beside an imputation, in seconds and memory.

A simulated subject of 240 × 240 × 155 voxels is imputed as it is, adapted to another one, and
imputed by the adapted checkpoint; each in a process of its own. Random weights: they don't change
what it costs.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from machine import hardware, peak_bytes_of_process

from tsf_seq2seq.checkpoints.checkpoint import open_model, save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.imputation import impute
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.references import References
from tsf_seq2seq.models import build_network
from tsf_seq2seq.phantom.subject import write_phantom_dataset
from tsf_seq2seq.tables import markdown

CONFIG = Path(__file__).parent.parent / "config/few_scans/tsf_seq2seq.yaml"
SOURCES, TARGET = ("t1", "t1ce", "t2"), "flair"


class Cost(NamedTuple):
    """Of one job: seconds without its start, and peak memory of its process in bytes."""

    seconds: float
    peak: float


class Work(NamedTuple):
    """A subject and a reference (folders of NIfTI files), a checkpoint, and the adapted one."""

    subject: Path
    reference: Path
    checkpoint: Path
    adapted: Path
    precision: str
    threads: int


def files(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{folder.name}_{name}.nii.gz" for name in (*SOURCES, TARGET)}


def plain(work: Work) -> Cost:
    """An imputation with TSEM."""
    return _imputation(work, work.checkpoint)


def adapted(work: Work) -> Cost:
    """The same by the adapted checkpoint."""
    return _imputation(work, work.adapted)


def adapting(work: Work) -> Cost:
    """The map of one task from the reference."""
    torch.set_num_threads(work.threads)
    model, started = open_model(work.checkpoint), time.perf_counter()
    options = ImputeOptions(precision=work.precision)
    references = References(model, {"reference": files(work.reference)}, options)
    adaptation, _ = references.adaptation(SOURCES, TARGET)
    seconds = time.perf_counter() - started
    maps = dataclasses.asdict(adaptation)["maps"]
    assert len(maps) == 1
    save_checkpoint(
        work.adapted,
        model.network,
        model.config,
        statistics=model.statistics,
        adaptation=adaptation,
    )
    return Cost(seconds, peak_bytes_of_process())


def _imputation(work: Work, checkpoint: Path) -> Cost:
    torch.set_num_threads(work.threads)
    model, images = open_model(checkpoint), files(work.subject)
    started = time.perf_counter()
    impute({name: images[name] for name in SOURCES}, model, TARGET, precision=work.precision)
    return Cost(time.perf_counter() - started, peak_bytes_of_process())


def measure(
    config_path: Path, spacing: float, precision: str, repeats: int
) -> dict[str, list[Cost]]:
    """What each job costs, `repeats` times in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_phantom_dataset(folder / "data", 2, spacing=spacing)
        config = load_config(config_path)
        save_checkpoint(folder / "plain.pth", build_network(config), config)
        subject, reference = (folder / "data" / name for name in names)
        paths = subject, reference, folder / "plain.pth", folder / "adapted.pth"
        work = Work(*paths, precision, torch.get_num_threads())
        jobs = {"imputation": plain, "adapting to one reference": adapting}
        jobs["imputation, adapted"] = adapted
        costs: dict[str, list[Cost]] = {name: [] for name in jobs}
        for _ in range(repeats):
            for name, job in jobs.items():
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    costs[name].append(pool.submit(job, work).result())
    return costs


def table(costs: dict[str, list[Cost]]) -> list[list[str]]:
    """Medians, and how they compare with the plain imputation."""
    first = next(iter(costs.values()))
    base = Cost(_median([c.seconds for c in first]), _median([c.peak for c in first]))
    rows = [["job", "seconds", "ratio", "peak memory (GB)", "more (GB)"]]
    for name, own in costs.items():
        seconds, peak = _median([c.seconds for c in own]), _median([c.peak for c in own])
        ratio, more = seconds / base.seconds, (peak - base.peak) / 1e9
        rows.append([name, f"{seconds:.1f}", f"{ratio:.2f}", f"{peak / 1e9:.2f}", f"{more:+.2f}"])
    return rows


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, default=CONFIG, help="YAML of the network")
    parser.add_argument("--spacing", type=float, choices=(1.0, 2.0), default=1.0, help="mm")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, metavar="MD", help="write the table there")
    arguments = parser.parse_args()
    options = arguments.spacing, arguments.precision, arguments.repeats
    costs = measure(arguments.config, *options)
    note = (
        f"{hardware(torch.device('cpu'))}, {arguments.config.name}, {arguments.precision}, medians "
        f"of {arguments.repeats}: {TARGET} from {', '.join(SOURCES)}."
    )
    text = f"{note}\n\n{markdown(table(costs))}\n"
    print(text)
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    run_script(main)
