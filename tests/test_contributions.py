"""Contributions: Shapley values per voxel, by hand; what scripts and tsf-impute make of them."""

import csv
import json

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti, sequence_file
from torch import Tensor, nn

from tsf_seq2seq import impute
from tsf_seq2seq.cli.explain import map_contributions
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.data.synthetic import is_marked_file
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.contribution_maps import (
    check_explicable,
    explain_contributions,
    explained,
)
from tsf_seq2seq.explain.contributions import read_contributions
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.tasks import Task, source_sets

SHAPE = (2, 5, 6)
ALL = Task((0, 1, 2), 3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Linear(SynthesisNetwork):
    """Σ w_i x_i over the sources, plus a bias."""

    WEIGHTS, BIAS = (0.5, -0.25, 2.0, 1.0), 0.125

    def __init__(self) -> None:
        super().__init__()
        self.n_sequences, self.slices, self.size_multiple = 4, 1, 1
        self.place = nn.Linear(1, 1)  # a network is where its weights are

    def forward(self, images: Tensor, available: list[bool], target: int) -> Tensor:
        parts = [self.WEIGHTS[i] * images[:, i] for i in self.sources_of(available)]
        return sum(parts) + self.BIAS


# --- by hand


def test_a_network_that_is_linear_in_its_sources(rng):
    """φ_i = w_i x_i, where v(∅) is the bias."""
    window = rng.uniform(-1, 1, (4, *SHAPE)).astype(np.float32)
    empty = {3: np.full(SHAPE, Linear.BIAS, np.float32)}
    tasks = [ALL, Task((0, 2), 3)]
    found = {own.task: own for own in explain_contributions(Linear(), window, tasks, 2, empty)}
    assert set(found) == set(tasks)
    for task in tasks:
        assert list(found[task].contributions) == list(task.sources)
        for source, own in found[task].contributions.items():
            wanted = Linear.WEIGHTS[source] * window[source]
            np.testing.assert_allclose(own, wanted, atol=1e-6)


def test_two_sources_share_what_they_only_give_together():
    """v(a) = 1, v(b) = 3, v(ab) = 10, v(∅) = −1: each brings half of its way alone and last."""
    values = {(0,): 1.0, (1,): 3.0, (0, 1): 10.0}
    outputs = {Task(s, 3): np.full(SHAPE, v, np.float32) for s, v in values.items()}
    found = explained(Task((0, 1), 3), outputs, np.full(SHAPE, -1, np.float32))
    np.testing.assert_array_equal(found.contributions[0], (1 + 1 + 10 - 3) / 2)
    np.testing.assert_array_equal(found.contributions[1], (3 + 1 + 10 - 1) / 2)
    assert found.shares(np.ones(SHAPE, bool)) == {0: 4.5 / 11, 1: 6.5 / 11}


def test_they_add_up_whatever_the_network(rng):
    outputs = {own: rng.uniform(-1, 1, SHAPE).astype(np.float32) for own in source_sets(ALL)}
    empty = rng.uniform(-1, 1, SHAPE).astype(np.float32)
    found = explained(ALL, outputs, empty)
    total = sum(found.contributions.values()) + empty
    np.testing.assert_allclose(total, outputs[ALL], atol=1e-6)


def test_shares_are_of_amounts_and_of_a_region():
    """0 and 1 move as much, in other directions; outside of the region nothing counts."""
    outputs = {own: np.zeros(SHAPE, np.float32) for own in source_sets(Task((0, 1), 3))}
    region = np.zeros(SHAPE, bool)
    region[0] = True
    outputs[Task((0,), 3)][0] = 1
    outputs[Task((1,), 3)][0] = -1
    outputs[Task((1,), 3)][1] = 7
    found = explained(Task((0, 1), 3), outputs, np.zeros(SHAPE, np.float32))
    assert found.shares(region) == {0: 0.5, 1: 0.5}
    nothing = explained(Task((0,), 3), {Task((0,), 3): np.zeros(SHAPE)}, np.zeros(SHAPE))
    assert np.isnan(nothing.shares(region)[0])


def test_networks_that_need_all_sources_are_refused():
    class Two(Linear):
        def accepts(self, task, variant="full"):
            return len(task.sources) == 2

    with pytest.raises(UserError, match="a Two can't do with fewer sources"):
        check_explicable(Two(), [Task((0, 1), 3)])
    check_explicable(Linear(), [ALL])


# --- the script


def table_of(folder) -> list[dict[str, str]]:
    with (folder / "contributions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_script(script, checkpoint, tiny_dataset, tmp_path):
    """Every sequence of the test subject, from all others; in brain and lesion."""
    labels = np.zeros(blob(0).shape, np.int16)
    labels[3:8, 3:8, 4:7] = 1
    name = "Tiny_00003"
    save_nifti(tiny_dataset / name / f"{name}_seg.nii.gz", labels)
    outcome = script(map_contributions, "-l", checkpoint, "-o", tmp_path / "out", "--cases", 2)
    assert outcome.code == 0, outcome.err
    rows = read_contributions(tmp_path / "out/contributions.csv")
    assert len(rows) == 4 * 3 * 2
    assert {(row.name, row.region) for row in rows} == {(name, "brain"), (name, "lesion")}
    for row in rows:
        assert row.source in row.sources.split("+")
        key = (row.name, row.target, row.region)
        same = [other for other in rows if (other.name, other.target, other.region) == key]
        assert sum(other.share for other in same) == pytest.approx(1, abs=1e-4)
        assert row.amount >= abs(row.mean) - 1e-6
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("contributions.csv", "contributions.pdf", "contributions.png"),
    }
    assert "t1+t1ce+t2" in outcome.out


def test_script_s_tasks(script, checkpoint, tmp_path):
    chosen = ("--task", "t1+t2:flair", "--max-subjects", 1)
    outcome = script(map_contributions, "-l", checkpoint, "-o", tmp_path / "out", *chosen)
    assert outcome.code == 0, outcome.err
    assert [(r["sources"], r["source"]) for r in table_of(tmp_path / "out")] == [
        ("t1+t2", "t1"),
        ("t1+t2", "t2"),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "t1+dwi:flair"], "task 't1+dwi:flair' must be sources and target"),
        (["--subjects", "nobody"], "names no subject nobody"),
    ],
)
def test_mistakes(script, checkpoint, tmp_path, options, words):
    outcome = script(map_contributions, "-l", checkpoint, "-o", tmp_path / "out", *options)
    assert words in outcome.error
    assert not (tmp_path / "out").exists()


# --- tsf-impute


@pytest.fixture
def patient(tiny_dataset):
    """A subject without flair, and its folder."""
    sequence_file(tiny_dataset, 0, "flair").unlink()
    return tiny_dataset / "Tiny_00000"


@pytest.fixture
def run(script, checkpoint, tmp_path):
    return lambda *arguments: script(
        impute_sequences, *arguments, "-l", checkpoint, "-o", tmp_path / "out"
    )


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_tsf_impute(run, patient, tmp_path):
    """The maps lie on the image's grid, add up to it, and are told from scans."""
    out, stem = tmp_path / "out", "Tiny_00000_flair"
    labels = np.zeros(blob(0).shape, np.int16)
    labels[3:8, 3:8, 4:7] = 2
    save_nifti(tmp_path / "labels.nii.gz", labels)
    outcome = run(patient, "--contributions", "--labels", tmp_path / "labels.nii.gz")
    assert outcome.code == 0, outcome.err
    maps = {s: f"{stem}_contribution-{s}.nii.gz" for s in SEQUENCES[:3]}
    kinds = ("synth.nii.gz", "synth.json", "tsem.nii.gz")
    assert files_in(out) == {*maps.values(), *(f"{stem}_{kind}" for kind in kinds)}
    record = json.loads((out / f"{stem}_synth.json").read_text())
    told = record["Contributions"]
    assert told["WithoutSourcesOf"].startswith("the synthesis' own mean")
    image, geometry = read_volume(out / f"{stem}_synth.nii.gz")
    total = sum(read_volume(out / file)[0] for file in maps.values())
    brain = np.any([blob(i) > 0 for i in range(3)], axis=0)
    np.testing.assert_allclose(total[brain] + told["WithoutSources"], image[brain], atol=1e-3)
    assert (total[~brain] == 0).all()
    np.testing.assert_array_equal(read_volume(out / maps["t1"])[1].affine, geometry.affine)
    for shares, region in (("Shares", brain), ("LesionShares", brain & (labels > 0))):
        amounts = {s: np.abs(read_volume(out / f)[0][region]).mean() for s, f in maps.items()}
        wanted = {s: amount / sum(amounts.values()) for s, amount in amounts.items()}
        assert told[shares] == pytest.approx(wanted, abs=1e-4)
    assert is_marked_file(out / maps["t1"])


def test_they_are_made_when_they_are_asked_for(run, patient, tmp_path):
    """And go when the image is made anew without them."""
    out = tmp_path / "out"
    assert run(patient).code == 0
    assert (
        "flair is made again: it was made without contributions"
        in run(patient, "--contributions").out
    )
    assert "flair is done already" in run(patient, "--contributions").out
    assert "flair is done already" in run(patient).out
    maps = [path for path in files_in(out) if "contribution" in path]
    assert len(maps) == 3
    (out / maps[0]).unlink()
    assert "its contribution of" in run(patient, "--contributions").out
    outcome = run(patient, "--sources", "t1,t2")
    assert "made again: it was made from t1, t1ce, t2" in outcome.out
    assert not [path for path in files_in(out) if "contribution" in path]


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        ("--bids", "sub-Tiny00000/anat/sub-Tiny00000_desc-contributiont1_FLAIR.nii.gz"),
        ("--keep-names", "contribution/Tiny_00000_flair_contribution-t1.nii.gz"),
    ],
)
def test_places(run, patient, tmp_path, layout, place):
    outcome = run(patient, "--contributions", layout)
    assert outcome.code == 0, outcome.err
    assert place in files_in(tmp_path / "out")


def test_labels_are_of_one_subject_s_contributions(run, patient, tiny_dataset, tmp_path):
    save_nifti(tmp_path / "labels.nii.gz", blob(0))
    labels = ("--labels", tmp_path / "labels.nii.gz")
    wanted = "--labels is for the --contributions of one subject"
    assert run(patient, *labels).error == wanted
    assert run(tiny_dataset, "--contributions", *labels).error == wanted
    assert "does not exist" in run(patient, "--contributions", "--labels", tmp_path / "no").error


def test_an_adapted_image_s_contributions_are_the_network_s(checkpoint, tiny_dataset):
    """As TSEM and ω are: what a map makes of the output comes after."""
    names = SEQUENCES[:3]
    files = {name: sequence_file(tiny_dataset, 0, name) for name in names}
    like = [{name: sequence_file(tiny_dataset, 1, name) for name in SEQUENCES}]
    plain = impute(files, checkpoint, "flair", contributions=True)
    found = impute(files, checkpoint, "flair", contributions=True, like=like)
    assert found.adapted is not None
    assert found.contributions.shares == pytest.approx(plain.contributions.shares)
    scale = found.intensity_maximum / plain.intensity_maximum
    for name in names:
        own, other = (f.contributions.images[name].get_fdata() for f in (found, plain))
        np.testing.assert_allclose(own, scale * other, rtol=1e-5, atol=1e-3)
