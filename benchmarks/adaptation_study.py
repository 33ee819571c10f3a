"""The studies of docs/adapt.md: what references of a scanner bring, on real scans and on phantoms.

Each step is one of the software's own commands, printed before it runs; what is done isn't done
again. About an hour on two idle cores for the scans with two seeds, as long for the phantoms.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from tsf_seq2seq.data.nifti import write_voxels
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text

REPOSITORY = Path(__file__).parent.parent
STAGE1 = "src/train/seq2seq/train_brats_seq2seq_2d.py"
STAGE2 = "src/train/seq2seq/train_brats_tsf_seq2seq_2d.py"
EVALUATE = "src/evaluate/evaluate.py"
# Of config/few_scans: trained on (masks are of validation, on the same), and those of one scanner.
TRAINED = {
    "brats/BraTS-GLI-00000-000": 11,
    "brats/BraTS-GLI-00001-000": 13,
    "tcga/TCGA-DU-7294": 14,
    "metastasis/AURORA_example": 7,
}
TESTED = {"ms/patient07": 11, "ms/patient19": 13, "ms/patient26": 14}
CROPS = {"scans": (5000, 7000), "phantoms": (4000, 4000)}  # steps of both stages
SITES, SUBJECTS = 5, 50
FINE_TUNED = {"1 min": 700, "5 min": 3500, "20 min": 14000}  # steps, about 12 a second on a core


def study_scans(scans: Path, output: Path, seeds: list[int], share: float) -> None:
    """Train on four patients, adapt to the three of one scanner, by one another and by the four."""
    data = output / "scans_2mm"
    for name in (*TRAINED, *TESTED):
        halve(scans, data, name)
    write_text(output / "train.csv", _rows(TRAINED))
    write_text(output / "test.csv", _rows(TESTED, site="one"))
    few = REPOSITORY / "config/few_scans/seq2seq.yaml"
    settings = {"root": data, "train": output / "train.csv", "valid": output / "train.csv"}
    settings["test"] = output / "test.csv"
    for seed in seeds:
        runs = output / f"seed{seed}"
        best = _train(runs, settings, "scans", seed, share, sequences_of=few)
        common = ("--all-tasks", "--max-slices", 50, "--no-predictions")
        _run(
            *(EVALUATE, "-l", best, "--names", "tsf", *common, "--like", 0, 1, 2),
            *("--like-baselines", "--baselines", "quadratic_regression", "-o", runs / "like"),
        )
        wrong = [runs / f"by_{Path(name).name}.pth" for name in TRAINED]
        for name, path in zip(TRAINED, wrong, strict=True):
            _run("src/adapt/adapt.py", "-l", best, "--like", data / name, "-o", path)
        names = [path.stem for path in wrong]
        _run(EVALUATE, "-l", *wrong, "--names", *names, *common, "-o", runs / "wrong_references")


def study_phantoms(output: Path, seeds: list[int], share: float) -> None:
    """Train on four sites, adapt to a fifth, and fine-tune on one reference of it."""
    data = output / "sites"
    if not (data / "test.csv").exists():
        options = ("-n", SUBJECTS, "--spacing", 2, "--sites", SITES, "--processes", 2)
        _run("src/data/make_phantom_dataset.py", "-o", data, *options)
        split = ("--site", r"(Site\d+)_.*", "--test-sites", "Site1", "--shares", 9, 1, 0)
        _run("src/data/make_split.py", "-r", data, *split)
    settings = {"root": data} | {part: data / f"{part}.csv" for part in ("train", "valid", "test")}
    header, *rows = (data / "test.csv").read_text().splitlines()
    reference, *rest = sorted(rows)
    name = reference.split(",")[0]
    write_text(output / "reference.csv", f"{name},15\n")
    write_text(output / "reference_valid.csv", f"{name},11\n")
    write_text(output / "rest.csv", "\n".join([header, *rest]) + "\n")
    for seed in seeds:
        runs = output / f"seed{seed}"
        best = _train(runs, settings, "phantoms", seed, share)
        common = ("--all-tasks", "--max-slices", 24, "--no-predictions")
        counts = ("--like", 0, 1, 2, 4, 8, "--like-baselines")
        _run(EVALUATE, "-l", best, "--names", "tsf", *common, *counts, "-o", runs / "like")
        weights = {"tsf": best, "adapted": runs / "adapted.pth"}
        _run("src/adapt/adapt.py", "-l", best, "--like", data / name, "-o", weights["adapted"])
        of_reference = settings | {
            "train": output / "reference.csv",
            "valid": output / "reference_valid.csv",
        }
        for title, steps in FINE_TUNED.items():
            folder, own = runs / title.replace(" ", ""), max(5, int(steps * share))
            course = _course(own, own // 5, of_reference) + _set("train.lr=5e-4")
            _run(
                STAGE2,
                "-c",
                "config/demo/tsf_seq2seq.yaml",
                "-l",
                best,
                *course,
                "--resume",
                "-o",
                folder,
            )
            weights[title.replace(" ", "")] = folder / "last.pth"
        _run(
            *(EVALUATE, "-l", *weights.values(), "--names", *weights, *common),
            *_set(f"data.root={data}", f"data.test={output / 'rest.csv'}"),
            *("-o", runs / "fine_tuned"),
        )


def halve(scans: Path, data: Path, name: str) -> None:
    """Copies of a subject's images whose voxels are means of 2 × 2 × 2 of theirs."""
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
        write_voxels(copy, blocks.mean((1, 3, 5)).astype(np.float32), affine)


def _train(
    runs: Path,
    settings: dict[str, Path],
    study: str,
    seed: int,
    share: float,
    sequences_of: Path | None = None,
) -> Path:
    """Both stages at the demo's size; stage 2's best.pth."""
    one, two = (max(20, int(steps * share)) for steps in CROPS[study])
    subjects = 4 if study == "scans" else 36
    configs = []
    for name in ("seq2seq", "tsf_seq2seq"):
        text = (REPOSITORY / f"config/demo/{name}.yaml").read_text()
        if sequences_of is not None and name == "seq2seq":
            few = sequences_of.read_text()
            patterns = few[few.index("  sequences:") : few.index("  segmentation:")]
            text = text.replace("\ndata:\n", f"\ndata:\n{patterns}")
        write_text(runs / f"{name}.yaml", text)
        configs.append(runs / f"{name}.yaml")
    folders = runs / "seq2seq", runs / "tsf_seq2seq"
    more = ("--seed", seed, "--resume")
    epochs = [-(-steps // (5 * subjects)) for steps in (one, two)]  # 5 crops a visit
    _run(STAGE1, "-c", configs[0], *_course(one, epochs[0], settings), *more, "-o", folders[0])
    stage1 = ("-m", folders[0] / "best.pth")
    course = _course(two, epochs[1], settings)
    _run(STAGE2, "-c", configs[1], *stage1, *course, *more, "-o", folders[1])
    return folders[1] / "best.pth"


def _course(steps: int, epochs: int, settings: dict[str, Path]) -> tuple[object, ...]:
    data = [f"data.{key}={value}" for key, value in settings.items()]
    return _set(*data, f"train.steps={steps}", f"train.schedule_epochs={epochs}")


def _set(*assignments: str) -> tuple[object, ...]:
    return tuple(part for own in assignments for part in ("--set", own))


def _rows(masks: dict[str, int], site: str | None = None) -> str:
    end = "" if site is None else f",{site}"
    return "".join(f"{name},{mask}{end}\n" for name, mask in masks.items())


def _run(*command: object) -> None:
    """Run one of the repository's scripts; its error ends the study."""
    words = [sys.executable, *map(str, command)]
    print(f"\n$ {shlex.join(words[1:])}", flush=True)
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if subprocess.run(words, cwd=REPOSITORY, env=os.environ | threads, check=False).returncode:
        raise UserError(f"{command[0]} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("scans", "phantoms"))
    parser.add_argument("-r", "--root", type=Path, help="the scans of config/few_scans")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the steps of every training, for a quick look"
    )
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    if arguments.study == "phantoms":
        study_phantoms(output, arguments.seeds, arguments.share)
    elif arguments.root is None:
        raise UserError("-r must name the folder of the scans")
    else:
        study_scans(arguments.root.absolute(), output, arguments.seeds, arguments.share)


if __name__ == "__main__":
    run_script(main)
