"""Measure peak memory against the number of subjects, of evaluation and of training.

Each run is a process of its own with a tiny network on small synthetic volumes, so that volumes
which were kept would show. It needs nibabel and blosc2.
"""

import argparse
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bench_crops import make_store, make_synthetic
from machine import peak_bytes_of_process

from tsf_seq2seq.config import Config, DataConfig, PerceptualConfig, TrainConfig
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.evaluation.protocol import EvaluationProtocol, evaluate
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer
from tsf_seq2seq.tables import markdown
from tsf_seq2seq.tasks import missing_target_tasks
from tsf_seq2seq.training.loop import train

SHAPE = (96, 96, 64)  # voxels x, y, z
STEPS = 96  # of each training run, whatever the number of subjects
TINY = TSFSeq2SeqConfig(
    encoder_channels=(4, 16),
    encoder_kernels=(3, 3),
    encoder_strides=(1, 4),
    encoder_residual_blocks=1,
    lstm_channels=16,
    lstm_layers=1,
    decoder_channels=(4, 4, 3),
    decoder_kernels=(3, 3, 3),
    decoder_residual_blocks=1,
    attention_channels=(16,),
    attention_mixed=2,
)


class Growth(NamedTuple):
    """Peak memory (bytes) of one kind of run by its number of subjects."""

    name: str
    peaks: dict[int, float]

    @property
    def per_subject(self) -> float:
        """What a further subject adds (bytes), between the two largest numbers of subjects."""
        fewer, most = sorted(self.peaks)[-2:]
        return (self.peaks[most] - self.peaks[fewer]) / (most - fewer)


def evaluation_peak(config: Config) -> float:
    """Peak memory of evaluating all subjects of the test split."""
    torch.set_num_threads(1)
    with _silence():
        method = NetworkSynthesizer("tsf", build_network(config), [FULL], batch_size=8)
        protocol = EvaluationProtocol(missing_target_tasks, [method], lpips=None, identity={})
        subjects = find_subjects(config.data, config.data.test)
        evaluate(config, subjects, protocol, config.train.output)
    return peak_bytes_of_process()


def training_peak(config: Config) -> float:
    """Peak memory of STEPS steps of stage 2, reading in the training process."""
    torch.set_num_threads(1)
    with _silence():
        train(config, build_network(config), torch.device("cpu"))
    return peak_bytes_of_process()


def measure(
    counts: Sequence[int], shape: tuple[int, int, int] = SHAPE, steps: int = STEPS
) -> list[Growth]:
    """Of evaluation, training from .nii.gz files, and training from a store."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = make_synthetic(folder / "data", max(counts), shape)
        config = _config(folder, shape, steps)
        make_store(config.data, dict.fromkeys(names, 15), folder / "store")
        (folder / "valid.csv").write_text(f"{names[0]},7\n")
        stored = dataclasses.replace(config.data, store=folder / "store")
        kinds: list[tuple[str, Callable[[Config], float], DataConfig]] = [
            ("evaluation", evaluation_peak, config.data),
            ("training from .nii.gz", training_peak, config.data),
            ("training from a store", training_peak, stored),
        ]
        results = [Growth(name, {}) for name, _, _ in kinds]
        for count in counts:
            rows = "".join(f"{name},7\n" for name in names[:count])
            (folder / "subjects.csv").write_text(rows)
            for (name, peak, data), growth in zip(kinds, results, strict=True):
                output = folder / f"{name} {count}"
                course = dataclasses.replace(config.train, output=output)
                run = dataclasses.replace(config, data=data, train=course)
                growth.peaks[count] = in_fresh_process(peak, run)
    return results


def in_fresh_process(function: Callable[[Config], float], config: Config) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, config).result()


def volume_bytes(shape: tuple[int, int, int] = SHAPE) -> int:
    """What a subject's loaded sequences take: what each would add if it were kept."""
    x, y, z = shape
    return 4 * 4 * x * y * z


def table(results: Sequence[Growth]) -> list[list[str]]:
    counts = list(results[0].peaks)
    headings = ["peak memory (MB)", *(f"{count} subjects" for count in counts)]
    return [[*headings, "per further subject"]] + [
        [
            growth.name,
            *(f"{peak / 1e6:.0f}" for peak in growth.peaks.values()),
            f"{growth.per_subject / 1e6:.2f}",
        ]
        for growth in results
    ]


def note(shape: tuple[int, int, int] = SHAPE) -> str:
    size = " × ".join(map(str, shape))
    return (
        f"Whole process, tiny network, volumes of {size}: a subject that stayed in memory would "
        f"add {volume_bytes(shape) / 1e6:.1f} MB. 'Per further subject' is between the two largest "
        "numbers of subjects."
    )


def to_json(results: Sequence[Growth]) -> list[dict[str, Any]]:
    return [{**growth._asdict(), "per_subject": growth.per_subject} for growth in results]


def _config(folder: Path, shape: tuple[int, int, int], steps: int) -> Config:
    data = DataConfig(
        root=folder / "data",
        train=folder / "subjects.csv",
        valid=folder / "valid.csv",
        test=folder / "subjects.csv",
        slices=shape[2],
        crop=(32, 32),
        workers=0,
    )
    course = TrainConfig(steps=steps, crops_per_visit=1)
    return Config(TINY, data=data, perceptual=PerceptualConfig("none"), train=course)


@contextlib.contextmanager
def _silence() -> Any:
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, nargs="+", default=[2, 8, 32], help="two or more")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training run")
    parser.add_argument("-o", "--output", type=Path, metavar="MD", help="write the table there")
    arguments = parser.parse_args()
    text = f"{note()}\n\n{markdown(table(measure(arguments.subjects, steps=arguments.steps)))}\n"
    print(text)
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    run_script(main)
