"""Measure how long a training crop takes to read, from a store and from .nii.gz files.

It needs nibabel and blosc2.
"""

import argparse
import dataclasses
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.check import subjects_of_folders
from tsf_seq2seq.data.loading import Subject, load_subject
from tsf_seq2seq.data.prepare import KEPT, STORED, fill_store
from tsf_seq2seq.data.slices import Images, pad_to, random_crop
from tsf_seq2seq.data.store import StoredImages, VolumeStore
from tsf_seq2seq.data.subjects import find_subject
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.tables import markdown

HEIGHT, VISIT = 3, 8  # slices of a crop; crops of a visit to a subject, in stage 1
SHAPE = (240, 240, 155)  # BraTS
SEQUENCES = ("t1", "t1ce", "t2", "flair")
DIFFERENT = 2  # synthetic subjects that differ; further ones are their copies
Open = Callable[[Subject], Images]


class Reading(NamedTuple):
    """Medians: ms of a lone crop, ms of a crop in a visit of VISIT; MB per subject."""

    crop_ms: float
    visit_crop_ms: float
    subject_mb: float


def make_synthetic(
    root: Path, subjects: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0
) -> list[str]:
    """Noisy ellipsoids of a brain's share of the grid, as int16 .nii.gz in BraTS 2021 layout; the
    subjects' names."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    radius = (x[:, None, None] / 0.57) ** 2 + (y[:, None] / 0.75) ** 2 + (z / 0.9) ** 2
    names = [f"Synthetic_{i:05}" for i in range(subjects)]
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for sequence in SEQUENCES:
            path = root / name / f"{name}_{sequence}.nii.gz"
            if number >= DIFFERENT:
                first = names[number % DIFFERENT]
                shutil.copyfile(root / first / f"{first}_{sequence}.nii.gz", path)
                continue
            tissue = (1.2 - radius) * 1000 + rng.normal(0, 30, shape)
            voxels = np.where(radius < 1, tissue, 0).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return names


def make_store(data: DataConfig, masks: dict[str, int], path: Path) -> None:
    """Make a store of all subjects of `masks`; UserError where one can't be stored."""
    for name, outcome in tqdm(fill_store(data, masks, path), total=len(masks), desc="preparing"):
        if outcome not in (KEPT, STORED):
            raise UserError(f"{name}: {outcome}")


def time_crop(
    subjects: list[Subject], open_images: Open, data: DataConfig, visits: int, crops: int
) -> float:
    """Median ms per crop of visits to random subjects, each opened and then cut `crops` times."""
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(visits):
        subject = subjects[rng.integers(len(subjects))]
        start = time.perf_counter()
        images = open_images(subject)
        for _ in range(crops):
            np.ascontiguousarray(random_crop(images, HEIGHT, data.crop, rng))
        seconds.append((time.perf_counter() - start) / crops)
    return 1000 * median(seconds)


def measure(data: DataConfig, path: Path, visits: int, nifti_visits: int) -> list[Reading]:
    """Of .nii.gz files, then of a store that is made at `path`."""
    masks = subjects_of_folders(data)
    make_store(data, masks, path)
    store = VolumeStore(path, data.root)
    subjects = [find_subject(data, name, mask=0) for name in masks]

    def open_files(subject: Subject) -> Images:
        return pad_to(load_subject(subject, data.slices, len(data.sequences)).images, data.crop)

    def open_store(subject: Subject) -> Images:
        return StoredImages(store.open(subject.name), data.slices, data.crop)

    sources = [file for subject in subjects for file in subject.files.values()]
    stored = [path / f"{name}.b2nd" for name in masks]
    results = []
    for open_images, files, count in (
        (open_files, sources, nifti_visits),
        (open_store, stored, visits),
    ):
        for subject in subjects:  # warms the file cache
            open_images(subject)
        times = [time_crop(subjects, open_images, data, count, crops) for crops in (1, VISIT)]
        size = sum(file.stat().st_size for file in files) / 1e6 / len(subjects)
        results.append(Reading(*times, size))
    return results


def measure_folder(
    root: Path | None, visits: int, nifti_visits: int, small: bool = False
) -> tuple[str, list[Reading]]:
    """What was measured, and the readings; of synthetic data where `root` is None."""
    data = DataConfig(slices=16, crop=(32, 32)) if small else DataConfig()
    with tempfile.TemporaryDirectory() as temporary:
        if root is None:
            make_synthetic(Path(temporary, "data"), 2, (48, 48, 24) if small else SHAPE)
        data = dataclasses.replace(data, root=root or Path(temporary, "data"))
        results = measure(data, Path(temporary, "store"), visits, nifti_visits)
    size = " × ".join(map(str, (len(data.sequences), HEIGHT, *data.crop)))
    origin = "synthetic data" if root is None else "a data set"
    note = f"Random crops of {size} of {origin}, in one process, files in the system's cache; "
    return note + f"medians of {nifti_visits} and {visits} visits.", results


def table(results: list[Reading]) -> list[list[str]]:
    """Headings, .nii.gz, store, and their ratio."""
    files, store = results
    return [
        ["reading", "one crop (ms)", f"a crop of {VISIT} (ms)", "MB per subject"],
        [".nii.gz", *(f"{value:.2f}" for value in files)],
        ["store", *(f"{value:.2f}" for value in store)],
        [".nii.gz / store", *(f"{a / b:.3g}" for a, b in zip(files, store, strict=True))],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else synthetic data)")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--visits", type=int, default=200, help="visits to the store")
    parser.add_argument("--nifti-visits", type=int, default=5, help="visits to .nii.gz files")
    parser.add_argument("-o", "--output", type=Path, metavar="MD", help="write the table there")
    arguments = parser.parse_args()
    note, results = measure_folder(
        arguments.root, arguments.visits, arguments.nifti_visits, arguments.size == "small"
    )
    text = f"{platform.machine()}. {note}\n\n{markdown(table(results))}\n"
    print(text)
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    run_script(main)
