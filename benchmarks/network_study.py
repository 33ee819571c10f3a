"""The studies of docs/network.md: TSF-Pyramid beside TSF-Seq2Seq and regressions, on real scans.

Every subject is tested once by networks that never saw it: folds of two subjects, trained on the
rest, and one of a whole scanner, whose other subjects serve as references. Each step is one of the
software's own commands, printed before it runs; what is done isn't done again. Four hours on two
idle cores with two seeds.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from study import (
    EVALUATE,
    assignments,
    demo_settings,
    halve,
    run_command,
    split_rows,
    train_tsf,
)

from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text

GLIOMAS = ["brats/BraTS-GLI-00000-000", "brats/BraTS-GLI-00001-000", "tcga/TCGA-DU-7294"]
OTHERS = ["metastasis/AURORA_example"]
SCANNER = ["ms/patient07", "ms/patient19", "ms/patient26"]  # three of one scanner
FOLDS = {
    "a": [SCANNER[0], GLIOMAS[0]],
    "b": [SCANNER[1], GLIOMAS[1]],
    "c": [SCANNER[2], OTHERS[0]],
    "d": [GLIOMAS[2]],
}
UNSEEN = {"scanner": SCANNER}
MASKS = (11, 13, 14, 7)  # of validation
TSF_STEPS = (2000, 2500)
STEPS = 800  # of TSF-Pyramid, with all training subjects in each
FINISH = ("neighbours", "map", "background", "clip")
# What is switched on the other way, one by one.
ABLATION = {
    "norm_none": ["network.norm=none"],
    "norm_branch": ["network.norm=branch"],
    "no_regression": ["network.regression=false"],
    "no_joint": ["network.joint=false"],
    "one_fusion": ["network.weights_per_scale=false"],
    "no_mapped": ["loss.mapped=0"],
    "log_mse": ["loss.mse=0", "loss.log_mse=1"],
    "l1": ["loss.mse=0", "loss.mapped=0", "loss.l1=10"],
    "no_average": ["train.average=0"],
    "spatial": ["augmentation.rotation=10", "augmentation.scale=0.1", "augmentation.elastic=1"],
    "intensity": ["augmentation.gain=0.15", "augmentation.gamma=0.2"],
}


def study(scans: Path, output: Path, folds: list[str], seeds: list[int], ablation: bool) -> None:
    """Train and score on each fold with each seed; merge the scores of the folds."""
    for name in (*GLIOMAS, *OTHERS, *SCANNER):
        halve(scans, output / "scans_2mm", name)
    for fold in folds:
        for seed in seeds:
            settings, n_training = _split(output, fold)
            runs = output / fold / f"seed{seed}"
            tsf = train_tsf(runs, settings, TSF_STEPS, n_training, seed, scans=True)
            networks = {"tsf": tsf, "pyramid": _train(runs, "pyramid", settings, n_training, seed)}
            _evaluate(runs / "scores", networks, fold in UNSEEN)
            if ablation:
                variants = {
                    name: _train(runs, name, settings, n_training, seed, own)
                    for name, own in ABLATION.items()
                }
                _evaluate(runs / "ablation", {"pyramid": networks["pyramid"], **variants}, False)
    for seed in seeds:
        tested = [fold for fold in folds if fold not in UNSEEN]
        scores = [output / fold / f"seed{seed}/scores/metrics.csv" for fold in tested]
        if len(scores) > 1:
            merged = output / f"seed{seed}"
            merge(scores, merged / "metrics.csv")
            of = ("--method", "pyramid, finished")
            run_command("src/evaluate/seq2seq/compare_methods.py", merged, *of, "-o", merged)


def merge(scores: list[Path], path: Path) -> None:
    """One metrics.csv of several, whose columns must be the same."""
    headings, rows = None, []
    for one in scores:
        with one.open(newline="") as file:
            first, *others = csv.reader(file)
        if headings not in (None, first):
            raise UserError(f"{one} has other columns than {scores[0]}")
        headings, rows = first, rows + others
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headings or [], *rows])
    write_text(path, text.getvalue())


def _split(output: Path, fold: str) -> tuple[dict[str, Path], int]:
    """Split files of a fold, and how many subjects it trains on."""
    tested = (FOLDS | UNSEEN)[fold]
    training = [name for name in (*GLIOMAS, *OTHERS, *SCANNER) if name not in tested]
    text = "".join(
        split_rows({name: MASKS[number % len(MASKS)]}, site=name.split("/")[0])
        for number, name in enumerate(training)
    )
    write_text(output / fold / "train.csv", text)
    masks = {name: MASKS[number % len(MASKS)] for number, name in enumerate(tested)}
    write_text(output / fold / "test.csv", split_rows(masks, site=fold))
    paths = {part: output / fold / f"{part}.csv" for part in ("train", "test")}
    return {"root": output / "scans_2mm", "valid": paths["train"], **paths}, len(training)


def _train(
    runs: Path,
    name: str,
    settings: dict[str, Path],
    n_training: int,
    seed: int,
    own: Sequence[str] = (),
) -> Path:
    """TSF-Pyramid with settings of its own; its best.pth."""
    demo_settings(runs, "seq2seq", scans=True)
    config = demo_settings(runs, "tsf_pyramid", scans=True)
    data = [f"data.{key}={value}" for key, value in settings.items()]
    size = (f"train.steps={STEPS}", f"train.batch_size={n_training}")
    course = assignments(*data, *size, *own)
    folder = runs / name
    script = "src/train/train.py"
    run_command(script, "-c", config, *course, "--seed", seed, "--resume", "-o", folder)
    return folder / "best.pth"


def _evaluate(folder: Path, networks: dict[str, Path], references: bool) -> None:
    """All tasks of the fold's test subjects, 24 slices, without and with the finish."""
    more = ("--like", 1) if references else ()
    baselines = ("--baselines", "quadratic_regression")
    names = ("--names", *networks)
    run_command(
        *(EVALUATE, "-l", *networks.values(), *names, "--all-tasks", "--max-slices", 24),
        *("--no-predictions", "--finish", *FINISH, *more, *baselines, "-o", folder),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--root", type=Path, required=True, help="config/few_scans' scans")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    known = [*FOLDS, *UNSEEN]
    parser.add_argument("--folds", nargs="+", choices=known, default=known)
    parser.add_argument("--ablation", action="store_true", help="every choice the other way, too")
    arguments = parser.parse_args()
    root, output = arguments.root.absolute(), arguments.output.absolute()
    study(root, output, arguments.folds, arguments.seeds, arguments.ablation)


if __name__ == "__main__":
    run_script(main)
