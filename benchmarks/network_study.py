"""The studies of docs/network.md, on real scans: TSF-Pyramid beside TSF-Seq2Seq and regressions,
each of its choices the other way, and what pre-training is worth.

Every subject is tested once by networks that never saw it: folds of two subjects, trained on the
rest, and one of a whole scanner, whose other subjects serve as references. Each step is one of the
software's own commands, printed before it runs; what is done isn't done again. On a core of its
own, with two seeds: networks 3 hours, an ablation an hour and a half for each fold.
"""

import argparse
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
from study_tables import merge, summarise, training_seconds

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
# Ablations and pre-training: fewer steps, at twice the speed on a CPU that has bf16.
SHORT = {"train.steps": 300, "train.validation_steps": 300, "train.precision": "bf16"}
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
    "perceptual": ["loss.perceptual=0.1", "perceptual.backbone=vgg16"],
}
PATIENTS = (2, 4)  # that pre-trained weights and fresh ones are trained on, beside all


def study_networks(output: Path, folds: list[str], seeds: list[int]) -> None:
    """TSF-Pyramid and TSF-Seq2Seq of each fold and seed, scored; the folds put together."""
    for fold in folds:
        settings, n_training = _split(output, fold)
        for seed in seeds:
            runs = output / fold / f"seed{seed}"
            tsf = train_tsf(runs, settings, TSF_STEPS, n_training, seed, scans=True)
            networks = {"tsf": tsf, "pyramid": _train(runs, "pyramid", settings, n_training, seed)}
            more = ("--finish", *FINISH, *(("--like", 1) if fold in UNSEEN else ()))
            baselines = ("--baselines", "quadratic_regression")
            _evaluate(runs / "scores", settings, networks, 24, *more, *baselines)
    groups = {
        "folds": [fold for fold in FOLDS if fold in folds],
        **{fold: [fold] for fold in UNSEEN},
    }
    for name, together in groups.items():
        scores = {
            seed: [output / fold / f"seed{seed}/scores/metrics.csv" for fold in together]
            for seed in seeds
        }
        if together and set(together) <= set(folds):
            _tell(output / "networks" / name, scores, "pyramid", {})


def study_ablation(output: Path, folds: list[str], seeds: list[int]) -> None:
    """TSF-Pyramid, and with each of its choices the other way."""
    scores: dict[int, list[Path]] = {seed: [] for seed in seeds}
    seconds: dict[str, list[float]] = {}
    for fold in folds:
        settings, n_training = _split(output, fold)
        for seed in seeds:
            runs = output / fold / f"seed{seed}/ablation"
            networks = {
                name: _train(runs, name, settings, n_training, seed, [*_short(), *own])
                for name, own in {"pyramid": [], **ABLATION}.items()
            }
            for name, path in networks.items():
                seconds.setdefault(name, []).append(training_seconds(path.parent))
            plain = assignments("evaluation.finish=[]")
            _evaluate(runs / "scores", settings, networks, 12, *plain)
            scores[seed].append(runs / "scores/metrics.csv")
    _tell(output / "ablation", scores, "pyramid", seconds)


def study_pretraining(output: Path, folds: list[str], seeds: list[int], weights: Path) -> None:
    """Networks trained on few patients, from pre-trained weights and from fresh ones."""
    scores: dict[int, list[Path]] = {seed: [] for seed in seeds}
    seconds: dict[str, list[float]] = {}
    for fold in folds:
        for seed in seeds:
            runs = output / fold / f"seed{seed}/pretraining"
            networks = {}
            for patients in (*PATIENTS, None):
                settings, n_training = _split(output, fold, patients)
                title = patients or "all"
                for start, own in {"fresh": (), "pretrained": ("-l", weights)}.items():
                    name = f"{start}_{title}"
                    networks[name] = _train(runs, name, settings, n_training, seed, _short(), own)
                    seconds.setdefault(name, []).append(training_seconds(networks[name].parent))
            networks["pretrained"] = weights  # last: settings are those of the first
            _evaluate(runs / "scores", settings, networks, 12)
            scores[seed].append(runs / "scores/metrics.csv")
    _tell(output / "pretraining", scores, "fresh_all", seconds)


def _tell(
    folder: Path,
    scores: dict[int, list[Path]],
    reference: str,
    seconds: dict[str, list[float]],
) -> None:
    """Means over seeds, folds put together, with paired tests of the reference and a table."""
    merge(scores, folder / "metrics.csv")
    run_command(
        "src/evaluate/seq2seq/compare_methods.py", folder, "--method", reference, "-o", folder
    )
    write_text(folder / "summary.md", summarise(scores, reference, seconds))
    print((folder / "summary.md").read_text())


def _short() -> list[str]:
    return [f"{key}={value}" for key, value in SHORT.items()]


def _split(output: Path, fold: str, patients: int | None = None) -> tuple[dict[str, Path], int]:
    """Split files of a fold, and how many subjects it trains on: all others, or the first ones."""
    tested = (FOLDS | UNSEEN)[fold]
    training = [name for name in (*GLIOMAS, *OTHERS, *SCANNER) if name not in tested][:patients]
    train = output / fold / f"train{patients or ''}.csv"
    text = "".join(
        split_rows({name: MASKS[number % len(MASKS)]}, site=name.split("/")[0])
        for number, name in enumerate(training)
    )
    write_text(train, text)
    masks = {name: MASKS[number % len(MASKS)] for number, name in enumerate(tested)}
    test = output / fold / "test.csv"
    write_text(test, split_rows(masks, site=fold))
    root = output / "scans_2mm"
    return {"root": root, "train": train, "valid": train, "test": test}, len(training)


def _train(
    runs: Path,
    name: str,
    settings: dict[str, Path],
    n_training: int,
    seed: int,
    own: Sequence[str] = (),
    options: Sequence[object] = (),
) -> Path:
    """TSF-Pyramid with settings of its own; its best.pth."""
    demo_settings(runs, "seq2seq", scans=True)
    config = demo_settings(runs, "tsf_pyramid", scans=True)
    data = [f"data.{key}={value}" for key, value in settings.items()]
    size = (f"train.steps={STEPS}", f"train.batch_size={n_training}")
    course = assignments(*data, *size, f"train.validation_steps={STEPS}", *own)
    folder = runs / name
    script = "src/train/train.py"
    run_command(script, "-c", config, *options, *course, "--seed", seed, "--resume", "-o", folder)
    return folder / "best.pth"


def _evaluate(
    folder: Path, settings: dict[str, Path], networks: dict[str, Path], slices: int, *more: object
) -> None:
    """All tasks of the fold's test subjects, in so many slices."""
    data = assignments(f"data.root={settings['root']}", f"data.test={settings['test']}")
    run_command(
        *(EVALUATE, "-l", *networks.values(), "--names", *networks, *data, "--all-tasks"),
        *("--max-slices", slices, "--no-predictions", *more, "-o", folder),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("networks", "ablation", "pretraining"))
    parser.add_argument("-r", "--root", type=Path, required=True, help="config/few_scans' scans")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("-l", "--pretrained", type=Path, help="best.pth of `make pretrained`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    known = [*FOLDS, *UNSEEN]
    parser.add_argument("--folds", nargs="+", choices=known, help="all; of an ablation b alone")
    arguments = parser.parse_args()
    output, seeds = arguments.output.absolute(), arguments.seeds
    for name in (*GLIOMAS, *OTHERS, *SCANNER):
        halve(arguments.root.absolute(), output / "scans_2mm", name)
    if arguments.study == "networks":
        study_networks(output, arguments.folds or known, seeds)
    elif arguments.study == "ablation":
        study_ablation(output, arguments.folds or ["b"], seeds)
    elif arguments.pretrained is None:
        raise UserError("-l must name pre-trained weights, such as those of `make pretrained`")
    else:
        folds = arguments.folds or ["b", "c"]
        study_pretraining(output, folds, seeds, arguments.pretrained.absolute())


if __name__ == "__main__":
    run_script(main)
