"""The studies of docs/adapt.md: what references of a scanner bring, on real scans and on phantoms.

Each step is one of the software's own commands, printed before it runs; what is done isn't done
again. About an hour on two idle cores for the scans with two seeds, as long for the phantoms.
"""

import argparse
from pathlib import Path

from study import (
    EVALUATE,
    STAGE2,
    assignments,
    halve,
    run_command,
    split_rows,
    train_tsf,
    tsf_course,
)

from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text

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
    write_text(output / "train.csv", split_rows(TRAINED))
    write_text(output / "test.csv", split_rows(TESTED, site="one"))
    settings = {"root": data, "train": output / "train.csv", "valid": output / "train.csv"}
    settings["test"] = output / "test.csv"
    for seed in seeds:
        runs = output / f"seed{seed}"
        best = train_tsf(runs, settings, _steps("scans", share), len(TRAINED), seed, scans=True)
        common = ("--all-tasks", "--max-slices", 50, "--no-predictions")
        run_command(
            *(EVALUATE, "-l", best, "--names", "tsf", *common, "--like", 0, 1, 2),
            *("--like-baselines", "--baselines", "quadratic_regression", "-o", runs / "like"),
        )
        wrong = [runs / f"by_{Path(name).name}.pth" for name in TRAINED]
        for name, path in zip(TRAINED, wrong, strict=True):
            run_command("src/adapt/adapt.py", "-l", best, "--like", data / name, "-o", path)
        names = [path.stem for path in wrong]
        run_command(
            EVALUATE, "-l", *wrong, "--names", *names, *common, "-o", runs / "wrong_references"
        )


def study_phantoms(output: Path, seeds: list[int], share: float) -> None:
    """Train on four sites, adapt to a fifth, and fine-tune on one reference of it."""
    data = output / "sites"
    if not (data / "test.csv").exists():
        options = ("-n", SUBJECTS, "--spacing", 2, "--sites", SITES, "--processes", 2)
        run_command("src/data/make_phantom_dataset.py", "-o", data, *options)
        split = ("--site", r"(Site\d+)_.*", "--test-sites", "Site1", "--shares", 9, 1, 0)
        run_command("src/data/make_split.py", "-r", data, *split)
    settings = {"root": data} | {part: data / f"{part}.csv" for part in ("train", "valid", "test")}
    header, *rows = (data / "test.csv").read_text().splitlines()
    reference, *rest = sorted(rows)
    name = reference.split(",")[0]
    write_text(output / "reference.csv", f"{name},15\n")
    write_text(output / "reference_valid.csv", f"{name},11\n")
    write_text(output / "rest.csv", "\n".join([header, *rest]) + "\n")
    for seed in seeds:
        runs = output / f"seed{seed}"
        best = train_tsf(runs, settings, _steps("phantoms", share), 36, seed, scans=False)
        common = ("--all-tasks", "--max-slices", 24, "--no-predictions")
        counts = ("--like", 0, 1, 2, 4, 8, "--like-baselines")
        run_command(EVALUATE, "-l", best, "--names", "tsf", *common, *counts, "-o", runs / "like")
        weights = {"tsf": best, "adapted": runs / "adapted.pth"}
        run_command(
            "src/adapt/adapt.py", "-l", best, "--like", data / name, "-o", weights["adapted"]
        )
        of_reference = settings | {
            "train": output / "reference.csv",
            "valid": output / "reference_valid.csv",
        }
        for title, steps in FINE_TUNED.items():
            folder, own = runs / title.replace(" ", ""), max(5, int(steps * share))
            course = tsf_course(own, 1, of_reference) + assignments("train.lr=5e-4")
            run_command(
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
        run_command(
            *(EVALUATE, "-l", *weights.values(), "--names", *weights, *common),
            *assignments(f"data.root={data}", f"data.test={output / 'rest.csv'}"),
            *("-o", runs / "fine_tuned"),
        )


def _steps(study: str, share: float) -> tuple[int, int]:
    one, two = (max(20, int(steps * share)) for steps in CROPS[study])
    return one, two


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
