"""Every command under faults of the disk: nothing that was whole is lost, nothing half is whole.

A fault strikes at one change of a command's folder, of all its files: `make test` looks at some
faults of each command, `make fuzz` at others, drawn at random, FAULTS=all at every one.
"""

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import (
    SEQUENCES,
    TINY_SEQ2SEQ,
    TINY_SHAPE,
    TINY_TSF,
    blob,
    save_nifti,
    sequence_file,
    tiny_yaml,
)
from faults import KINDS, Command, Kind, contents, recovered, run

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.models import build_network

CHOSEN = os.environ.get("FAULTS", "")  # "all", or a seed
SOME = 6  # faults of each command otherwise
TEST_SUBJECT = 3
# Of many versions: they grow subject by subject, or step by step, once what isn't true has gone.
GROWING = {"metrics.csv", "evaluation.record", "error_estimation.record"}
GROWING |= {"log.csv", "curves.png", "last.pth", "best.pth"}


# --- what commands start from


def network(here: Path, name: str, settings: str, seed: int = 0) -> Path:
    """An untrained network of the tiny settings, in a checkpoint {name}.pth; its YAML beside it."""
    yaml = here / f"{name}.yaml"
    yaml.write_text(tiny_yaml(settings, here / "data", here / "out"))
    config = load_config(yaml, [f"train.seed={seed}"])
    save_checkpoint(here / f"{name}.pth", build_network(config), config)
    return here / f"{name}.pth"


def world(here: Path) -> None:
    """Four tiny subjects, and networks of either stage; `other` is another one."""
    data = here / "data"
    for subject in range(4):
        for index, sequence in enumerate(SEQUENCES):
            save_nifti(sequence_file(data, subject, sequence), blob(10 * subject + index))
    labels = (blob(7) > 900).astype("int16") * 4
    assert labels.any()
    assert labels.shape == TINY_SHAPE
    save_nifti(sequence_file(data, TEST_SUBJECT, "seg"), labels)
    (data / "train.csv").write_text("Tiny_00000,15\nTiny_00001,15\n")
    (data / "valid.csv").write_text("Tiny_00002,11\n")
    (data / "test.csv").write_text("Tiny_00003,10\nTiny_00002,11\n")
    network(here, "tsf", TINY_TSF)
    network(here, "other", TINY_TSF, seed=1)
    network(here, "stage1", TINY_SEQ2SEQ)


def lacking(here: Path) -> None:
    """The world, where two subjects lack a sequence each."""
    world(here)
    sequence_file(here / "data", 0, "flair").unlink()
    sequence_file(here / "data", 1, "t1").unlink()
    for subject in (2, 3):
        shutil.rmtree(here / "data" / f"Tiny_0000{subject}")


def changed(here: Path) -> None:
    """The test subject's T2 becomes another image."""
    save_nifti(sequence_file(here / "data", TEST_SUBJECT, "t2"), blob(99))


def after(
    command: Command, change: Callable[[Path], object] = lambda _: None
) -> Callable[[Path], None]:
    """A folder where `command` has run to its end, and then something changed."""

    def prepared(here: Path) -> None:
        command.prepared(here)
        ended = run(command, here)
        assert ended.code in (0, 1), ended.err
        change(here)

    return prepared


def steps(*commands: Command) -> Callable[[Path], None]:
    """A folder where several commands have run, each into a folder of its own."""

    def prepared(here: Path) -> None:
        commands[0].prepared(here)
        for command in commands:
            ended = run(command, here)
            assert ended.code == 0, ended.err

    return prepared


# --- the commands

IMPUTE = Command(
    "impute",
    "impute:main",
    ("-l", "{here}/tsf.pth", "{here}/data", "-o", "{here}/out"),
    lacking,
)
BIDS = replace(IMPUTE, name="impute bids", arguments=(*IMPUTE.arguments, "--bids"))
KEPT_NAMES = replace(IMPUTE, name="impute names", arguments=(*IMPUTE.arguments, "--keep-names"))
OTHER_NETWORK = ("-l", "{here}/other.pth", *IMPUTE.arguments[2:])
EVALUATE = Command(
    "evaluate",
    "evaluate:evaluate_networks",
    (
        *("-l", "{here}/tsf.pth", "--names", "tsf", "-o", "{here}/out"),
        *("--ablations", "--baselines", "mean_image"),
    ),
    world,
    outdated_go=True,
)
ALL_TASKS = replace(
    EVALUATE,
    name="evaluate all tasks",
    arguments=(*EVALUATE.arguments, "-o", "{here}/all", "--all-tasks", "--no-predictions"),
    output="all",
)
SINGLE = Command(
    "evaluate stage 1",
    "evaluate:evaluate_seq2seq",
    ("-m", "{here}/stage1.pth", "-o", "{here}/single", "--all-tasks"),
    world,
    output="single",
)
PAPER = Command(
    "evaluate stage 2",
    "evaluate:evaluate_tsf_seq2seq",
    ("-l", "{here}/tsf.pth", "-o", "{here}/paper"),
    world,
    output="paper",
)
TRAIN = Command(
    "train",
    "train:train_network",
    ("-c", "{here}/stage1.yaml", "-o", "{here}/out"),
    world,
    again=("--resume",),
)
HALF = replace(TRAIN, arguments=(*TRAIN.arguments, "--set", "train.steps=3"))
STORE = Command(
    "prepare store", "data:prepare_store", ("-c", "{here}/tsf.yaml", "-o", "{here}/out"), world
)
ERRORS = Command(
    "error estimation",
    "trust:check_error_estimates",
    ("-l", "{here}/tsf.pth", "-o", "{here}/out", "--targets", "flair"),
    world,
    outdated_go=True,
)
FUSION = Command(
    "fusion weights",
    "explain:explain_fusion_weights",
    ("-l", "{here}/tsf.pth", "-o", "{here}/fusion"),
    world,
    output="fusion",
)
TSEM = Command(
    "tsem",
    "explain:map_tsem",
    ("-l", "{here}/tsf.pth", "-o", "{here}/tsem", "--max-subjects", "1"),
    world,
    output="tsem",
)
REPORT = Command(
    "report",
    "report:make_report",
    (
        *("-l", "{here}/tsf.pth", "-o", "{here}/out", "--evaluation", "{here}/all"),
        *("--fusion-weights", "{here}/fusion", "--tsem", "{here}/tsem"),
        *("--single-source", "{here}/single"),
    ),
    steps(ALL_TASKS, FUSION, TSEM, SINGLE),
    as_one=True,
)

COMMANDS = [
    IMPUTE,
    replace(IMPUTE, name="impute again", arguments=OTHER_NETWORK, prepared=after(IMPUTE)),
    replace(
        BIDS,
        name="impute bids again",
        arguments=(*OTHER_NETWORK, "--bids"),
        prepared=after(BIDS),
    ),
    replace(
        KEPT_NAMES,
        name="impute names again",
        arguments=(*OTHER_NETWORK, "--keep-names"),
        prepared=after(KEPT_NAMES),
    ),
    EVALUATE,
    replace(EVALUATE, name="evaluate what changed", prepared=after(EVALUATE, changed)),
    replace(
        EVALUATE,
        name="evaluate fewer",
        arguments=(*EVALUATE.arguments, "--max-subjects", "1"),
        prepared=after(EVALUATE),
    ),
    SINGLE,
    PAPER,
    TRAIN,
    replace(TRAIN, name="resume", arguments=(*TRAIN.arguments, "--resume"), prepared=after(HALF)),
    STORE,
    replace(STORE, name="store what changed", prepared=after(STORE, changed)),
    ERRORS,
    replace(ERRORS, name="error estimation of what changed", prepared=after(ERRORS, changed)),
    FUSION,
    TSEM,
    Command(
        "differentiation",
        "explain:map_differentiation",
        ("-m", "{here}/stage1.pth", "-o", "{here}/out"),
        world,
    ),
    Command(
        "contribution",
        "explain:explain_contribution",
        ("{here}/single", "-o", "{here}/out"),
        steps(SINGLE),
    ),
    Command(
        "faithfulness",
        "trust:check_faithfulness",
        ("{here}/all", "--fusion-weights", "{here}/fusion", "-o", "{here}/out"),
        steps(ALL_TASKS, FUSION),
    ),
    Command(
        "comparisons",
        "trust:compare_methods",
        ("{here}/paper", "-o", "{here}/paper"),
        steps(
            replace(PAPER, arguments=(*PAPER.arguments, "--methods", "tsf", "mean_image")),
        ),
        output="paper",
    ),
    Command(
        "tumour",
        "trust:evaluate_tumour",
        ("{here}/paper", "-l", "{here}/tsf.pth", "-o", "{here}/out"),
        steps(PAPER),
    ),
    REPORT,
    replace(
        REPORT,
        name="report again",
        arguments=(*REPORT.arguments, "--title", "Another"),
        prepared=after(REPORT),
    ),
    Command(
        "split",
        "data:make_split",
        ("-r", "{here}/data", "--shares", "2", "1", "1", "-o", "{here}/data"),
        world,
        output="data",
    ),
    Command(
        "check",
        "data:check_dataset",
        ("-c", "{here}/tsf.yaml", "-o", "{here}/out/found.json"),
        world,
    ),
    Command(
        "export",
        "convert:export_model",
        ("-l", "{here}/tsf.pth", "-o", "{here}/out/tsf.safetensors"),
        world,
    ),
    Command(
        "phantoms",
        "phantom:make_phantom_dataset",
        ("-o", "{here}/out", "-n", "2", "--spacing", "2", "--sequences", "t1"),
        lambda here: here.mkdir(exist_ok=True),
    ),
]


@pytest.fixture(params=COMMANDS, ids=lambda command: command.name.replace(" ", "_"))
def command(request) -> Command:
    return request.param


@pytest.mark.slow
def test_nothing_whole_is_lost_and_nothing_half_is_taken_for_whole(command, tmp_path):
    here, template = tmp_path / "here", tmp_path / "template"
    here.mkdir()
    command.prepared(here)
    out = here / command.output
    shutil.copytree(here, template)
    old = contents(out)
    clean = run(command, here)
    assert clean.code == 0, clean.err
    new = contents(out)
    assert clean.changes > 2
    assert new != old
    assert not [name for name in new if re.search(r"\.(unfinished|replaced)|\.lock", name)]
    struck = faults(clean.changes)
    print(f"{len(struck)} faults in {command.name}")
    for at, kind in struck:
        shutil.rmtree(here)
        shutil.copytree(template, here)
        strike(command, here, at, kind, old, new)


def faults(changes: int) -> list[tuple[int, Kind]]:
    """Of every change and kind: all, a random choice, or some far apart, the same each time."""
    every = [(at, kind) for at in range(changes) for kind in KINDS]
    if CHOSEN == "all":
        return every
    if CHOSEN:
        return random.Random(CHOSEN).sample(every, SOME)
    stride = len(every) // SOME
    return every[:: stride + (stride % len(KINDS) == 0)]


def strike(
    command: Command, here: Path, at: int, kind: Kind, old: dict[str, str], new: dict[str, str]
) -> None:
    """One run with a fault, and another one that goes on from what it left."""
    place, out = f"{command.name}, {kind} at change {at}", here / command.output
    ended = run(command, here, at, kind)
    assert "Traceback" not in ended.err, f"{place}:\n{ended.err}"
    if kind == "kill":
        assert ended.code == -signal.SIGKILL, place
    elif ended.code == 0:  # it could do without
        assert recovered(out) == new, place
    else:
        assert ended.code in (1, 2), f"{place}: {ended.code} {ended.err}"
        assert ended.code == 1 or len(ended.error_lines) == 1, f"{place}:\n{ended.err}"

    left = recovered(out)
    for name in old.keys() - GROWING:
        allowed = {old[name], new.get(name)}
        if command.outdated_go and len(allowed) == 2:
            allowed.add(None)
        assert left.get(name) in allowed, f"{place}: {name} is lost"
    if command.function == "impute:main":
        for names in together(left):
            own = {name: left.get(name) for name in names}
            of_one_run = [{name: run.get(name) for name in names} for run in (old, new)]
            assert own in of_one_run, f"{place}: {', '.join(names)} are of two runs"

    assert not command.as_one or left in (old, new), f"{place}: {difference(left, old)} changed"
    again = run(command, here, again=True)
    assert again.code == 0, f"{place}, then again: {again.err}"
    assert recovered(out) == new, f"{place}, then again: {difference(contents(out), new)}"


def together(names: dict[str, str]) -> list[list[str]]:
    """An imputation's files that belong to one target: a sidecar, and what it is of."""
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [[name for name in names if name.startswith(f"{stem}.")] for stem in stems]


def difference(found: dict[str, str], wanted: dict[str, str]) -> str:
    names = sorted(found.keys() | wanted.keys())
    return json.dumps([name for name in names if found.get(name) != wanted.get(name)])
