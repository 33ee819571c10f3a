"""Other sets of sequences than BraTS's, subjects that lack some of them, other matrix sizes."""

import csv
import json
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import TINY_SEQ2SEQ, TINY_TSF, blob, save_nifti, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import load_model, save_checkpoint
from tsf_seq2seq.cli.evaluate import evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.cli.explain import (
    explain_contribution,
    explain_fusion_weights,
    map_differentiation,
    map_tsem,
)
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_seq2seq, train_tsf_seq2seq
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.prepare import fill_store
from tsf_seq2seq.data.sampling import CropStream
from tsf_seq2seq.data.slices import normalise
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.models import TSFSeq2Seq, build_network
from tsf_seq2seq.phantom.subject import write_phantom_dataset
from tsf_seq2seq.training.log import synthesis_grid
from tsf_seq2seq.training.objectives import TSFObjective

PHANTOM_SEQUENCES = ("t1", "t2", "flair", "pd", "t2star")
METHODS = ("tsf", "tsf_without_attention", "seq2seq_average", "linear_regression", "mean_image")
ANISOTROPIC = np.diag([-1.0, -1.0, 3.0, 1.0])


def write_config(path: Path, root: Path, sequences: dict[str, str], **data: object) -> Path:
    """Tiny settings of stage 1, and beside them of stage 2, of these sequences; no label maps."""
    values = yaml.safe_load(tiny_yaml(TINY_SEQ2SEQ, root, path.parent / "run"))
    values["data"] |= {"sequences": sequences, "segmentation": [], **data}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    of_stage_2(path).write_text(f"base: {path.name}\n{TINY_TSF}")
    return path


def of_stage_2(config: Path) -> Path:
    return config.with_stem(f"{config.stem}_tsf")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- three and five sequences, from training to explanations


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """p0/visit1/pd.nii.gz and so on: three phantoms of five sequences, without label maps."""
    root = tmp_path_factory.mktemp("phantoms") / "phantoms"
    write_phantom_dataset(root, 3, spacing=2, sequences=PHANTOM_SEQUENCES)
    for number in range(3):
        folder, visit = root / f"Phantom_{number:05}", root / f"p{number}" / "visit1"
        visit.mkdir(parents=True)
        for sequence in PHANTOM_SEQUENCES:
            (folder / f"{folder.name}_{sequence}.nii.gz").rename(visit / f"{sequence}.nii.gz")
        shutil.rmtree(folder)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("pd", "t1", "flair"), {1: 6, 2: 3}),
        (PHANTOM_SEQUENCES, {1: 20, 2: 30, 3: 20, 4: 5}),
    ],
    ids=["three", "five"],
)
def test_from_training_to_explanations(names, pairs, phantoms, tmp_path, script):
    for number, part in enumerate(("train", "valid", "test")):
        (tmp_path / f"{part}.csv").write_text(f"p{number}/visit1,1\n")  # the last one
    config = write_config(
        tmp_path / "own.yaml",
        phantoms,
        {name: f"{{name}}/{name}.nii.gz" for name in names},
        **{part: str(tmp_path / f"{part}.csv") for part in ("train", "valid", "test")},
        crop=[22, 18],
    )
    first, second = tmp_path / "stage1", tmp_path / "stage2"
    outcomes = [
        script(train_seq2seq, "-c", config, "-o", first),
        script(train_tsf_seq2seq, "-c", of_stage_2(config), "-m", first / "best.pth", "-o", second),
    ]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[0].err + outcomes[1].err

    # --- every task, by every method
    weights = ("-l", second / "best.pth", "-m", first / "best.pth")
    folder = tmp_path / "all_tasks"
    options = ("--all-tasks", "--no-predictions", "-o")
    outcome = script(evaluate_tsf_seq2seq, *weights, "--methods", *METHODS, *options, folder)
    assert outcome.code == 0, outcome.err
    scores = read_scores(folder / "metrics.csv")
    assert Counter(score.method for score in scores) == dict.fromkeys(METHODS, sum(pairs.values()))
    assert Counter(s.n_inputs for s in scores if s.method == "tsf") == pairs
    tasks = {(score.sources, score.target) for score in scores}
    assert len(tasks) == sum(pairs.values())
    assert all(target not in sources.split("+") for sources, target in tasks)
    table = json.loads((folder / "table.json").read_text())["By number of inputs"]
    assert {(row["inputs"], row["pairs"]) for row in table} == set(pairs.items())

    # --- explanations
    outcome = script(explain_fusion_weights, "-l", second / "best.pth", "-o", folder)
    assert outcome.code == 0, outcome.err
    rows = rows_of(folder / "fusion_weights.csv")
    assert len(rows) == sum(pairs.values())
    assert list(rows[0]) == ["sources", "target", *names]
    for row in rows:
        shares = {name: float(row[name]) for name in names if row[name]}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert "+".join(shares) == row["sources"]
    single = tmp_path / "single"
    outcome = script(evaluate_seq2seq, "-m", first / "best.pth", *options, single)
    assert outcome.code == 0, outcome.err
    outcome = script(explain_contribution, single)
    assert outcome.code == 0, outcome.err
    content = json.loads((single / "contribution.json").read_text())
    assert tuple(content["sequences"]) == names
    assert np.array(content["subjects"]).tolist() == np.ones((len(names),) * 2).tolist()
    outcome = script(map_differentiation, "-m", first / "best.pth", "-o", tmp_path / "maps")
    assert outcome.code == 0, outcome.err
    maps = {path.name for path in (tmp_path / "maps").glob("*.nii.gz")}
    assert maps == {f"p2_visit1_{name}_differentiation.nii.gz" for name in names}
    task = f"{'+'.join(names[1:])}:{names[0]}"
    outcome = script(map_tsem, "-l", second / "best.pth", "--task", task, "-o", tmp_path / "tsem")
    assert outcome.code == 0, outcome.err
    (finding,) = rows_of(tmp_path / "tsem" / "tsem.csv")
    assert f"{finding['sources']}:{finding['target']}" == task

    # --- what is missing of all visits
    for visit in phantoms.glob("*/visit1"):
        shutil.copytree(visit, tmp_path / "new" / visit.relative_to(phantoms))
        (tmp_path / "new" / visit.relative_to(phantoms) / f"{names[0]}.nii.gz").unlink()
    made = (str(tmp_path / "new"), "-l", second / "best.pth", "-o", tmp_path / "imputed")
    outcome = script(impute_sequences, *made, "--keep-names")
    assert outcome.code == 0, outcome.err
    for number in range(3):
        assert (tmp_path / "imputed" / f"p{number}" / "visit1" / f"{names[0]}.nii.gz").exists()
    assert (tmp_path / "tsem" / "tsem.png").exists()


# --- subjects that lack sequences on disk, of odd and anisotropic grids


HELD = {  # subject → what it has on disk
    "train_0": ("t1", "pd"),
    "train_1": ("t1", "pd"),
    "train_2": ("pd", "flair"),
    "train_3": ("t1", "flair"),
    "valid_0": ("t1",),
    "valid_1": ("pd", "flair"),
    "test_0": ("t1", "flair"),
    "test_1": ("t1", "pd", "flair"),
}
NAMES = ("t1", "pd", "flair")


@pytest.fixture
def incomplete(tmp_path) -> Path:
    """Settings of eight subjects at 1 × 1 × 3 mm, each on a grid of its own; t1 is the source."""
    masks: dict[str, list[str]] = {}
    for number, (name, sequences) in enumerate(HELD.items()):
        shape = (15 + 2 * number, 29 - number, 7 + number)  # x, y, z: below the crop and above it
        for sequence in sequences:
            path = tmp_path / "ms" / name / f"{sequence.upper()}_{number}.nii"
            save_nifti(path, blob(10 * number + NAMES.index(sequence), shape), ANISOTROPIC)
        mask = 4 >> NAMES.index(sequences[0])
        masks.setdefault(name.split("_")[0], []).append(f"{name},{mask}\n")
    for part, lines in masks.items():
        (tmp_path / "ms" / f"{part}.csv").write_text("".join(lines))
    patterns = {name: f"{{name}}/{name.upper()}_*.nii" for name in NAMES}
    return write_config(tmp_path / "ms.yaml", tmp_path / "ms", patterns, crop=[22, 26])


def stream(config: Config) -> CropStream:
    subjects = find_subjects(config.data, config.data.train)
    return CropStream(subjects, config, TSFObjective.task_at)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_training_takes_what_is_there(incomplete, batch_size):
    config = load_config(incomplete, [f"train.batch_size={batch_size}"])
    sizes, used = set(), set()
    for crop, _ in islice(stream(config), 60):
        sizes.add(len(crop.names))
        used |= {(crop.available, index) for index in (*crop.task.sources, crop.task.target)}
        for name in crop.names:
            assert tuple(NAMES[i] for i in crop.available) == HELD[name]
        assert {*crop.task.sources, crop.task.target} <= set(crop.available)
        absent = [i for i in range(3) if i not in crop.available]
        assert crop.images.shape == (len(crop.names), 3, 3, 22, 26)
        assert (crop.images[:, absent] == -1).all()
    assert sizes == set(range(1, batch_size + 1))  # only two subjects have the same sequences
    assert used == {(pair, index) for pair in ((0, 1), (1, 2), (0, 2)) for index in pair}


def test_a_store_gives_the_same_crops(incomplete, tmp_path):
    config = load_config(incomplete)
    names = dict.fromkeys((name for name in HELD if name.startswith("train")), 0)
    outcomes = dict(fill_store(config.data, names, tmp_path / "store"))
    assert outcomes == dict.fromkeys(names, "stored")
    stored = load_config(incomplete, [f"data.store={tmp_path / 'store'}"])
    for (one, _), (other, _) in islice(zip(stream(config), stream(stored), strict=True), 20):
        assert (one.names, one.available, one.task) == (other.names, other.available, other.task)
        assert torch.equal(one.images, other.images)


def test_evaluation_of_what_is_there(incomplete, tmp_path, script):
    config = load_config(of_stage_2(incomplete))
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    labels = {}
    for option in ("--all-tasks", "--no-predictions"):
        folder = tmp_path / option
        weights = ("-l", tmp_path / "tsf.pth", "-o", folder)
        outcome = script(evaluate_tsf_seq2seq, *weights, option)
        assert outcome.code == 0, outcome.err
        scores = read_scores(folder / "metrics.csv")
        labels[option] = {(s.name, s.sources, s.target) for s in scores}
    missing = {("test_0", "t1", "flair"), ("test_1", "t1", "pd"), ("test_1", "t1", "flair")}
    assert labels["--no-predictions"] == missing
    assert Counter(name for name, _, _ in labels["--all-tasks"]) == {"test_0": 2, "test_1": 9}

    # --- its predictions lie on the subject's grid, and give the scores of metrics.csv
    source = nib.load(tmp_path / "ms" / "test_0" / "FLAIR_6.nii")
    folder = tmp_path / "--all-tasks"
    prediction = nib.load(folder / "predict" / "test_0_flair_from_t1.nii.gz")
    assert prediction.shape == source.shape == (27, 23, 13)
    np.testing.assert_allclose(prediction.affine, source.affine)
    voxels = source.get_fdata()
    box = (slice(0, 26), slice(0, 22), slice(1, 11))  # 12 of 13 slices; centres of 10 stacks
    wanted = normalise(voxels, 2 * np.percentile(voxels, 99))[box]
    (score,) = (
        s
        for s in read_scores(folder / "metrics.csv")
        if (s.name, s.sources, s.target) == ("test_0", "t1", "flair")
    )
    found = prediction.get_fdata(dtype=np.float32)
    assert score.psnr == pytest.approx(psnr(wanted, found[box]), abs=1e-4)
    outside = np.ones(found.shape, bool)
    outside[box] = False
    assert (found[outside] == -1).all()


def test_both_stages_and_baselines(incomplete, tmp_path, script):
    batches = ("--set", "train.batch_size=2", "--set", "train.image_steps=1")
    first, second = tmp_path / "stage1", tmp_path / "stage2"
    outcome = script(train_seq2seq, "-c", incomplete, "-o", first, *batches)
    assert outcome.code == 0, outcome.err
    assert "pd: 3 of 4 training subjects" in outcome.out
    weights = ("-m", first / "best.pth", "-o", second)
    outcome = script(train_tsf_seq2seq, "-c", of_stage_2(incomplete), *weights, *batches)
    assert outcome.code == 0, outcome.err
    assert isinstance(load_model(second / "best.pth"), TSFSeq2Seq)

    # --- other sequences don't go on from it, though the weights would fit
    patterns = [
        f"{new}: '{{name}}/{old.upper()}_*.nii'" for new, old in zip("abc", NAMES, strict=True)
    ]
    other = ("--set", f"data.sequences={{{', '.join(patterns)}}}")
    outcome = script(train_seq2seq, "-c", incomplete, "-o", first, "--resume", *other)
    assert outcome.error == (
        f"{first / 'last.pth'} knows the sequences t1, pd, flair, but the settings name a, b, c "
        "(data.sequences)"
    )

    # --- every pair is in some training subject, all three sequences are in none
    common = ("-l", second / "best.pth", "--methods", "tsf", "linear_regression", "-o")
    outcome = script(evaluate_tsf_seq2seq, *common, tmp_path / "paired")
    assert outcome.code == 0, outcome.err
    assert len(read_scores(tmp_path / "paired" / "metrics.csv")) == 2 * 3
    outcome = script(evaluate_tsf_seq2seq, *common, tmp_path / "all", "--all-tasks")
    assert outcome.error == (
        f"{tmp_path / 'ms' / 'train.csv'}: no subject has the sequences to fit linear_regression "
        "for t1+pd → flair; leave it out of the methods"
    )


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_the_training_pictures_ignore_absent_sequences(incomplete, stage):
    config = load_config(incomplete if stage == "stage 1" else of_stage_2(incomplete))
    network = build_network(config).eval()
    images = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    other = images.clone()
    other[:, 1] = 0.5
    grids = [synthesis_grid(network, shown, (0, 2)) for shown in (images, other)]
    assert grids[0].shape == (32, 48)
    np.testing.assert_array_equal(grids[0][16:], grids[1][16:])  # syntheses
    assert (grids[0][:16] != grids[1][:16]).any()
    alone = [synthesis_grid(network, shown, (1,)) for shown in (images, other)]
    assert (alone[0][16:] != alone[1][16:]).any()


def test_too_few_slices_for_ssim(incomplete, tmp_path, script):
    """8 slices give 6 stacks, fewer than SSIM's window: it is left out, PSNR is not."""
    config = load_config(of_stage_2(incomplete), ["data.slices=8"])
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    outcome = script(evaluate_tsf_seq2seq, "-l", tmp_path / "tsf.pth", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    scores = read_scores(tmp_path / "out" / "metrics.csv")
    assert all(np.isnan(score.ssim) and np.isfinite(score.psnr) for score in scores)
    assert "SSIM" not in outcome.out


def test_a_stack_of_one_slice(incomplete, tmp_path, script):
    """Where slices are thick, neighbours may be left out."""
    one = ("--set", "data.stack=1", "--set", "network.decoder_channels=[4, 1]")
    outcome = script(train_seq2seq, "-c", incomplete, "-o", tmp_path / "run", *one)
    assert outcome.code == 0, outcome.err
    outcome = script(
        evaluate_seq2seq, "-m", tmp_path / "run" / "best.pth", "-o", tmp_path / "out", "--all-tasks"
    )
    assert outcome.code == 0, outcome.err
    prediction = nib.load(tmp_path / "out" / "predict" / "test_0_t1_from_t1.nii.gz").get_fdata()
    covered = (prediction[:26, :22] != -1).any(axis=(0, 1))
    assert covered.tolist() == [True] * 12 + [False]  # every one of the 12 slices, no rim
