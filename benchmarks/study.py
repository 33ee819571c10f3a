"""What studies share: scans at 2 mm, the demo's settings, and the software's commands."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

import nibabel as nib
import numpy as np

from tsf_seq2seq.data.nifti import write_voxels
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import write_text

REPOSITORY = Path(__file__).parent.parent
STAGE1 = "src/train/seq2seq/train_brats_seq2seq_2d.py"
STAGE2 = "src/train/seq2seq/train_brats_tsf_seq2seq_2d.py"
EVALUATE = "src/evaluate/evaluate.py"
LABEL_MAPS = ("*-seg.nii.gz", "GOLD_STANDARD_*", "mav.nii.gz")  # of config/few_scans


def halve(scans: Path, data: Path, name: str) -> None:
    """Copies of a subject's images whose voxels are means of 2 × 2 × 2 of theirs, of label maps the
    most frequent of these."""
    files = sorted((scans / name).glob("*.nii.gz"))
    if not files:
        raise UserError(f"{scans / name} holds no .nii.gz file")
    for path in files:
        copy = data / name / path.name
        if copy.exists():
            continue
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, dtype=np.float64)
        x, y, z = (size // 2 for size in voxels.shape)
        blocks = voxels[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2)
        affine = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] += image.affine[:3, :3] @ np.full(3, 0.5)
        halved = blocks.mean((1, 3, 5))
        if any(fnmatch(path.name, pattern) for pattern in LABEL_MAPS):
            labels = np.unique(voxels)
            counts = [(blocks == label).sum((1, 3, 5)) for label in labels]
            halved = labels[np.argmax(counts, axis=0)]
        write_voxels(copy, halved.astype(np.float32), affine)


def demo_settings(folder: Path, name: str, scans: bool) -> Path:
    """config/demo's settings of a network, with the file patterns of config/few_scans for scans."""
    text = (REPOSITORY / f"config/demo/{name}.yaml").read_text()
    if scans and name == "seq2seq":
        few = (REPOSITORY / "config/few_scans/seq2seq.yaml").read_text()
        patterns = few[few.index("  sequences:") : few.index("  crop:")]
        text = text.replace("\ndata:\n", f"\ndata:\n{patterns}")
    write_text(folder / f"{name}.yaml", text)
    return folder / f"{name}.yaml"


def train_tsf(
    runs: Path,
    settings: dict[str, Path],
    steps: tuple[int, int],
    subjects: int,
    seed: int,
    scans: bool,
) -> Path:
    """Both stages at the demo's size on so many subjects, `steps` each; stage 2's best.pth."""
    configs = [demo_settings(runs, name, scans) for name in ("seq2seq", "tsf_seq2seq")]
    folders = runs / "seq2seq", runs / "tsf_seq2seq"
    more = ("--seed", seed, "--resume")
    courses = [tsf_course(own, subjects, settings) for own in steps]
    run_command(STAGE1, "-c", configs[0], *courses[0], *more, "-o", folders[0])
    stage1 = ("-m", folders[0] / "best.pth")
    run_command(STAGE2, "-c", configs[1], *stage1, *courses[1], *more, "-o", folders[1])
    return folders[1] / "best.pth"


def tsf_course(steps: int, subjects: int, settings: dict[str, Path]) -> tuple[object, ...]:
    """Options of a stage's training, whose rate ends as the run does: 5 crops a visit."""
    epochs = -(-steps // (5 * subjects))
    course = (f"train.steps={steps}", f"train.schedule_epochs={epochs}")
    return assignments(*(f"data.{key}={value}" for key, value in settings.items()), *course)


def assignments(*keys: str) -> tuple[object, ...]:
    """--set of each "key=value"."""
    return tuple(part for own in keys for part in ("--set", own))


def split_rows(masks: dict[str, int], site: str | None = None) -> str:
    """Lines of a split file."""
    end = "" if site is None else f",{site}"
    return "".join(f"{name},{mask}{end}\n" for name, mask in masks.items())


def run_command(*command: object, processes: int = 1) -> None:
    """Run one of the repository's scripts, in so many processes; its error ends the study."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [sys.executable, *(launch if processes > 1 else []), *map(str, command)]
    print(f"\n$ {shlex.join(words[1:])}", flush=True)
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if subprocess.run(words, cwd=REPOSITORY, env=os.environ | threads, check=False).returncode:
        raise UserError(f"{command[0]} failed")


def side_by_side(tasks: Iterable[Callable[[], object]], jobs: int) -> None:
    """Run so many tasks at a time. After the first error, or Ctrl-C, no further one starts; those
    that run come to their end, or save and leave, since Ctrl-C reaches their commands, too."""
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            for task in as_completed(running):
                task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
