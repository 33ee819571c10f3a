"""The paper's Table 1 from one command: every method under one budget of crops, then one table.

Trains TSF-Seq2Seq in its two stages (the first is Seq2Seq, the second without f_A its ablation),
the zero-filled U-Net, TSF-Pyramid and the six comparison methods at the demo's size, evaluates all
tasks, and writes table1.md in the paper's layout, with paired tests against the best, weights,
arithmetic and seconds. With several seeds the first one's first four are trained with the others,
too. Each step is one of the software's own commands, printed before it runs, two trainings at a
time; what is done isn't done again, and what was interrupted goes on.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench_networks import Cost, cost_of
from study import (
    EVALUATE,
    REPOSITORY,
    assignments,
    demo_settings,
    halve,
    run_command,
    side_by_side,
    split_rows,
    train_tsf,
)
from study_tables import merge, summarise, training_seconds

from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.evaluation.scores import PSNR, methods_of, read_scores
from tsf_seq2seq.evaluation.statistics import subject_means
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.tables import markdown

PEERS = ("pix2pix", "mm_gan", "diamond_gan", "resvit", "hi_net", "mmgsn_net")
OWN = ("unet", "tsf_pyramid")
BATCH = 4
RATE = 1e13  # multiply-additions a second that a data centre's GPU is trusted with: 20 TFLOP/s
RANKS = 4  # of the first seed, that are trained with further seeds
# Real scans, as config/few_scans has them: masks are of validation.
TRAINED = {
    "brats/BraTS-GLI-00000-000": 11,
    "tcga/TCGA-DU-7294": 13,
    "metastasis/AURORA_example": 14,
    "ms/patient07": 7,
}
VALIDATED = {"ms/patient19": 11}
TESTED = {"brats/BraTS-GLI-00001-000": 11, "ms/patient26": 13}


@dataclass(frozen=True)
class Data:
    """What is trained on: split files, how many subjects, and whether they are scans."""

    settings: dict[str, Path]
    n_training: int
    scans: bool
    crops: int  # that each method sees


def table1(data: Data, output: Path, seeds: Sequence[int], jobs: int) -> None:
    """Train, evaluate and lay out, on so many cores."""
    names = ("tsf_seq2seq", *OWN, *PEERS)
    costs = {name: cost_of(_config(name), 96) for name in names}
    scores: dict[int, list[Path]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        runs = output / f"seed{seed}"
        demo_settings(runs, "seq2seq", data.scans)  # which all others build on
        # The longest first, so that no core is left idle at the end.
        longest = sorted(names, key=lambda name: costs[name].step_macs, reverse=True)
        side_by_side([partial(_train, data, runs, seed, name) for name in longest], jobs)
        folders = {_method(name): runs / name for name in names}
        if "tsf" in folders:
            folders = {"seq2seq": runs / "seq2seq"} | folders
        for name, folder in folders.items():
            took = training_seconds(folder)
            took += seconds["seq2seq"][-1] if name == "tsf" else 0
            seconds.setdefault(name, []).append(took)
        run_command(
            *(EVALUATE, "-l", *(folder / "best.pth" for folder in folders.values())),
            *("--names", *folders, "--all-tasks"),
            *("--ablations", "--baselines", "linear_regression", "quadratic_regression"),
            *([] if data.scans else ["mean_image"]),  # scans lie on grids of their own
            *("--no-predictions", "-o", runs / "scores"),
            processes=jobs,
        )
        scores[seed] = [runs / "scores/metrics.csv"]
        if seed == seeds[0]:
            trained = {_method(name): name for name in names}
            ranked = [name for name in ranks(scores[seed][0]) if name in trained]
            names = tuple(trained[name] for name in ranked[:RANKS])
    seconds |= {"seq2seq_average": seconds["seq2seq"], "tsf_without_attention": seconds["tsf"]}
    merge(scores, output / "metrics.csv")
    best, *_ = ranks(output / "metrics.csv")
    run_command("src/evaluate/seq2seq/compare_methods.py", output, "--method", best, "-o", output)
    text = f"{summarise(scores, best, seconds)}\n{costs_table([*costs.values()])}"
    write_text(output / "table1.md", text)
    print(text)


def ranks(path: Path) -> list[str]:
    """Methods that do every task, by their PSNR's mean over subjects, the highest first."""
    rows = read_scores(path)
    most = max(sum(row.method == method for row in rows) for method in methods_of(rows))
    means = {}
    for method in methods_of(rows):
        own = [row for row in rows if row.method == method]
        if len(own) == most:
            means[method] = float(subject_means(own, PSNR.of).mean())
    return sorted(means, key=means.__getitem__, reverse=True)


def costs_table(costs: Sequence[Cost], crops: Sequence[int] = ()) -> str:
    """Weights, and the multiply-additions of a task by its number of sources and of a step; with
    the `crops` of each training the hours that they take at RATE."""
    headings = ["network", "weights", "task of 1, 2, 3 sources (GMAC)", "step of one crop (GMAC)"]
    rows = [headings + (["crops", "hours"] if crops else [])]
    for place, cost in enumerate(costs):
        macs = " / ".join("–" if own is None else f"{own / 1e9:.2f}" for own in cost.task_macs)
        row = [cost.name, f"{cost.weights / 1e6:.2f} M", macs, f"{cost.step_macs / 1e9:.1f}"]
        if crops:
            hours = cost.step_macs * crops[place] / RATE / 3600
            row += [f"{crops[place]:,}", f"{hours:.1f}"]
        rows.append(row)
    return markdown(rows) + "\n"


def published_table() -> str:
    """Costs at the published sizes, for 192 × 192 × 3, and of the trainings of their YAML files."""
    ends = [f"{name}_brats_2d" for name in ("seq2seq", "tsf_seq2seq", *OWN)]
    paths = [REPOSITORY / f"config/{end}.yaml" for end in (*ends, *(f"peers/{p}" for p in PEERS))]
    courses = [load_config(path).train for path in paths]
    crops = [train.steps * train.batch_size for train in courses]
    return costs_table([cost_of(path, 192) for path in paths], crops)


def _train(data: Data, runs: Path, seed: int, name: str) -> None:
    """Train a network, TSF-Seq2Seq in two stages of half the crops, or go on with it."""
    if name == "tsf_seq2seq":
        half = data.crops // 2
        train_tsf(runs, data.settings, (half, half), data.n_training, seed, data.scans)
        return
    size = (f"train.steps={data.crops // BATCH}", f"train.batch_size={BATCH}")
    course = assignments(*(f"data.{key}={value}" for key, value in data.settings.items()), *size)
    config = _own_settings(runs, name, data.scans)
    run_command(
        *("src/train/train.py", "-c", config, *course),
        *("--seed", seed, "--resume", "-o", runs / name),
    )


def _method(name: str) -> str:
    """A network's name in the table."""
    return "tsf" if name == "tsf_seq2seq" else name.removeprefix("tsf_")


def _config(name: str) -> Path:
    folder = "config/peers/demo" if name in PEERS else "config/demo"
    return REPOSITORY / folder / f"{name}.yaml"


def _own_settings(runs: Path, name: str, scans: bool) -> Path:
    """A method's settings beside those that they build on."""
    if name not in PEERS:
        return demo_settings(runs, name, scans)
    text = _config(name).read_text().replace("../../demo/seq2seq.yaml", "seq2seq.yaml")
    write_text(runs / f"{name}.yaml", text)
    return runs / f"{name}.yaml"


def phantoms(root: Path, crops: int) -> Data:
    """The demo's data set, as `make demo` writes it."""
    parts = {part: root / f"{part}.csv" for part in ("train", "valid", "test")}
    for path in parts.values():
        if not path.is_file():
            raise UserError(f"{path} does not exist: -r must name the phantoms of make demo")
    rows = [line for line in parts["train"].read_text().splitlines() if line.strip()]
    count = len(rows) - rows[0].startswith("name,")
    return Data({"root": root, **parts}, count, scans=False, crops=crops)


def real_scans(root: Path, output: Path, crops: int) -> Data:
    """Copies of the scans at 2 mm: four to train on, one to validate, two to test."""
    for name in (*TRAINED, *VALIDATED, *TESTED):
        halve(root, output / "scans_2mm", name)
    parts = {"train": TRAINED, "valid": VALIDATED, "test": TESTED}
    for part, masks in parts.items():
        write_text(output / f"{part}.csv", split_rows(masks))
    paths = {part: output / f"{part}.csv" for part in parts}
    settings: Mapping[str, Path] = {"root": output / "scans_2mm", **paths}
    return Data(dict(settings), len(TRAINED), scans=True, crops=crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--root", type=Path, default=Path("data/phantom"), help="phantoms")
    parser.add_argument("--scans", type=Path, help="real scans, of config/few_scans, instead")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/table1"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    jobs = "trainings at a time, and processes of an evaluation, of one thread each"
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help=jobs)
    parser.add_argument("--crops", type=int, default=6000, help="that each method sees")
    published = "only count what the published sizes cost"
    parser.add_argument("--published", action="store_true", help=published)
    arguments = parser.parse_args()
    if arguments.published:
        print(published_table())
        return
    output = arguments.output.absolute()
    if arguments.scans is None:
        data = phantoms(arguments.root.absolute(), arguments.crops)
    else:
        data = real_scans(arguments.scans.absolute(), output, arguments.crops)
    table1(data, output, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    run_script(main)
