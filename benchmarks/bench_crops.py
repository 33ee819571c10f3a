"""Measure how long a training crop takes to read, from a store and from .nii.gz files."""

import argparse
import dataclasses
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.check import subjects_of_folders
from tsf_seq2seq.data.prepare import KEPT, STORED, prepare
from tsf_seq2seq.data.slices import Images, pad_to, random_crop
from tsf_seq2seq.data.store import StoredImages, VolumeStore
from tsf_seq2seq.data.subjects import Subject, load_subject
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import markdown

HEIGHT, VISIT = 3, 8  # slices of a crop; crops of a visit to a subject, in stage 1
SHAPE = (240, 240, 155)  # BraTS
Open = Callable[[Subject], Images]


def make_synthetic(root: Path, subjects: int, seed: int = 0) -> None:
    """Noisy ellipsoids of a brain's size on BraTS's grid, as int16 .nii.gz in BraTS 2021 layout."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE)
    radius = (x[:, None, None] / 0.57) ** 2 + (y[:, None] / 0.75) ** 2 + (z / 0.9) ** 2
    for name in (f"Synthetic_{i:05}" for i in range(subjects)):
        (root / name).mkdir(parents=True)
        for sequence in ("t1", "t1ce", "t2", "flair"):
            tissue = (1.2 - radius) * 1000 + rng.normal(0, 30, SHAPE)
            voxels = np.where(radius < 1, tissue, 0).astype(np.int16)
            image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
            nib.save(image, root / name / f"{name}_{sequence}.nii.gz")


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


def measure(data: DataConfig, path: Path, visits: int, nifti_visits: int) -> list[list[float]]:
    """Of .nii.gz files, then of a store that is made at `path`: ms of a lone crop, ms of a crop in
    a visit of 8, MB per subject."""
    masks = subjects_of_folders(data)
    for name, outcome in tqdm(prepare(data, masks, path), total=len(masks), desc="preparing"):
        if outcome not in (KEPT, STORED):
            raise UserError(f"{name}: {outcome}")
    store = VolumeStore(path, data.root)
    subjects = [store.subject(name) for name in masks]

    def open_files(subject: Subject) -> Images:
        return pad_to(load_subject(subject, data.slices, len(data.sequences)).images, data.crop)

    def open_store(subject: Subject) -> Images:
        return StoredImages(store.open(subject.name), data.slices, data.crop)

    results = []
    for open_images, count in ((open_files, nifti_visits), (open_store, visits)):
        for subject in subjects:  # warms the file cache
            open_images(subject)
        results.append(
            [time_crop(subjects, open_images, data, count, crops) for crops in (1, VISIT)]
        )
    sources = [file for subject in subjects for file in subject.files.values()]
    for row, files in zip(
        results, (sources, [path / f"{name}.b2nd" for name in masks]), strict=True
    ):
        row.append(sum(file.stat().st_size for file in files) / 1e6 / len(subjects))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--root", type=Path, help="data set folder (else synthetic data)")
    parser.add_argument("--visits", type=int, default=200, help="visits to the store")
    parser.add_argument("--nifti-visits", type=int, default=5, help="visits to .nii.gz files")
    parser.add_argument("-o", "--output", type=Path, metavar="MD", help="write the table there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary, "data")
        if arguments.root is None:
            make_synthetic(root, subjects=2)
        data = dataclasses.replace(DataConfig(), root=root)
        files, store = measure(
            data, Path(temporary, "store"), arguments.visits, arguments.nifti_visits
        )
    rows = [
        ["", "one crop (ms)", f"a crop of {VISIT} (ms)", "MB per subject"],
        [".nii.gz", *(f"{value:.2f}" for value in files)],
        ["store", *(f"{value:.2f}" for value in store)],
        [".nii.gz / store", *(f"{a / b:.3g}" for a, b in zip(files, store, strict=True))],
    ]
    size = " × ".join(map(str, (len(data.sequences), HEIGHT, *data.crop)))
    text = f"{platform.machine()}, one process; random crops of {size}; medians of "
    text += f"{arguments.nifti_visits} and {arguments.visits} visits\n\n{markdown(rows)}\n"
    print(text)
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    run_script(main)
