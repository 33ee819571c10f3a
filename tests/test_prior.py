"""The maps of validation subjects in best.pth: as by hand, and there whatever became of the run."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEQUENCES, blob, save_nifti, sequence_file
from test_training import CPU, Killed, check_equal, run, run_and_kill

from tsf_seq2seq.checkpoints.checkpoint import Model, open_model, read_checkpoint
from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.distributed import Processes
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.models.base import AVERAGE, FULL
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, slab_moments
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task, all_tasks
from tsf_seq2seq.training import prior as maps_of_training
from tsf_seq2seq.training.prior import add_prior

EVERY_TASK = {
    f"{'+'.join(sources)}:{target}"
    for size in (1, 2, 3)
    for sources in combinations(SEQUENCES, size)
    for target in SEQUENCES
    if target not in sources
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    """No curves.png: its drawing takes longer than all steps."""
    monkeypatch.setattr("tsf_seq2seq.training.log.plot_curves", lambda *_: None)


@pytest.fixture
def stage_1(tiny_stage1: Path) -> Config:
    return load_config(tiny_stage1)


@pytest.fixture
def stage_2(tiny_config: Path) -> Config:
    return load_config(tiny_config)


def prior_of(path: Path) -> Adaptation:
    found = open_model(path).prior
    assert found is not None
    return found


def without_prior(path: Path) -> None:
    """Save a checkpoint as versions before the maps did."""
    content = read_checkpoint(path)
    del content["prior"]
    torch.save(content, path)


def names_of(found: Adaptation) -> list[str]:
    return [reference.name for reference in found.references]


def fit_by_hand(
    model: Model, key: str, names: Sequence[str], places: slice | Sequence[int] = slice(None)
) -> ContrastMap:
    """The map of a task, such as t1+t2:flair, of validation subjects' windows, slices `places`."""
    sources, target = key.split(":")
    task = Task(tuple(map(SEQUENCES.index, sources.split("+"))), SEQUENCES.index(target))
    variant = FULL if model.network.accepts(task) else AVERAGE
    moments, data = {}, model.config.data
    for subject in find_subjects(data, data.valid):
        if subject.name in names:
            window = load_window(model.config, subject)
            plain = NetworkSynthesizer("net", model.network, [variant], 3)
            (output,) = plain.predict(window, [task]).values()
            images, target = window.centres[list(task.sources)], window.centres[task.target]
            parts = images[:, places], output[places], target[places]
            moments[subject.name] = slab_moments(*parts, np.any(parts[0] > -1, axis=0))
    return fit_map(moments, uses_output=True)


def check_map(found: ContrastMap, wanted: ContrastMap) -> None:
    np.testing.assert_allclose(found.coefficients, wanted.coefficients, atol=1e-4)
    np.testing.assert_allclose(found.metric, wanted.metric, atol=1e-5)
    assert (found.uses_output, found.voxels) == (wanted.uses_output, wanted.voxels)
    assert found.strength == wanted.strength
    assert found.gain_db == pytest.approx(wanted.gain_db, abs=1e-3)


# --- what it is


@pytest.mark.parametrize("stage", ["stage_1", "stage_2"])
def test_every_task_has_a_map_as_by_hand(stage, request, tiny_dataset):
    """Those that a Seq2Seq's whole network can't do, of its average."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,11\nTiny_00003,14\n")
    model = open_model(run(request.getfixturevalue(stage)) / "best.pth")
    assert model.prior is not None
    assert set(model.prior.maps) == EVERY_TASK
    assert len(EVERY_TASK) == len(all_tasks(4)) == 28
    names = ["Tiny_00002", "Tiny_00003"]
    for key in ("t1:t2", "flair:t1", "t1+t2:flair", "t1ce+t2+flair:t1"):
        check_map(model.prior.maps[key], fit_by_hand(model, key, names))


def test_whom_it_is_from(stage_2, tiny_dataset):
    """Validation subjects with their files' content; the medians of their intensity maxima."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,11\nTiny_00003,14\n")
    found = prior_of(run(stage_2) / "best.pth")
    assert names_of(found) == ["Tiny_00002", "Tiny_00003"]
    for number, reference in zip((2, 3), found.references, strict=True):
        files = {name: sequence_file(tiny_dataset, number, name) for name in SEQUENCES}
        assert reference.fingerprints == {name: fingerprint(files[name]) for name in SEQUENCES}
    for index, name in enumerate(SEQUENCES):
        maxima = [2 * np.percentile(blob(10 * number + index), 99) for number in (2, 3)]
        assert found.maxima[name] == pytest.approx(np.mean(maxima))


def test_histograms_of_training_subjects(stage_2, tiny_dataset):
    """With their sites; of the sequences that training takes, in the evaluated window."""
    (tiny_dataset / "train.csv").write_text("Tiny_00000,15,a\nTiny_00001,9,\n")
    data = replace(stage_2.data, use_all_sequences=False)
    first, second = prior_of(run(replace(stage_2, data=data)) / "best.pth").histograms
    assert (first.name, first.site) == ("Tiny_00000", "a")
    assert (second.name, second.site) == ("Tiny_00001", None)
    assert set(first.quantiles) == set(SEQUENCES)
    assert set(second.quantiles) == {"t1", "flair"}
    voxels = blob(13).astype(float)
    voxels = voxels.clip(0, 2 * np.percentile(voxels, 99)) / np.percentile(voxels, 99) - 1
    window = voxels[4:20, 2:18]  # 16 of 24, 16 of 20, and all slices
    levels = np.quantile(window[window > -1], np.arange(1, 20) / 20)
    np.testing.assert_allclose(second.quantiles["flair"], levels, atol=1e-5)


def test_validation_subjects_without_some_sequences(stage_2, tiny_dataset):
    """Each serves for what it has; of t1ce the other one alone."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,9\nTiny_00003,14\n")
    sequence_file(tiny_dataset, 2, "t1ce").unlink()
    model = open_model(run(stage_2) / "best.pth")
    assert model.prior is not None
    assert set(model.prior.maps) == EVERY_TASK
    both = ["Tiny_00002", "Tiny_00003"]
    for key, names in (("t1+t2:flair", both), ("t1+t1ce:flair", both[1:]), ("t2:t1ce", both[1:])):
        check_map(model.prior.maps[key], fit_by_hand(model, key, names))
    fingerprints = [list(reference.fingerprints) for reference in model.prior.references]
    assert fingerprints == [["t1", "t2", "flair"], list(SEQUENCES)]


def test_tasks_that_no_validation_subject_allows(stage_1, tiny_dataset):
    """Of three sequences there are six pairs, and three tasks of two sources."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,9\n")
    sequence_file(tiny_dataset, 2, "t1ce").unlink()
    found = prior_of(run(stage_1) / "best.pth")
    assert set(found.maps) == {key for key in EVERY_TASK if "t1ce" not in key}
    assert len(found.maps) == 9
    assert set(found.maxima) == {"t1", "t2", "flair"}


def test_few_of_many(stage_2, tiny_dataset, monkeypatch):
    """Subjects and stacks are spread evenly over all, with both ends: of 10 stacks 0, 4 and 9."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00001,11\nTiny_00002,11\nTiny_00003,14\n")
    rows = "".join(f"Tiny_0000{i},15\n" for i in (1, 0, 3))
    (tiny_dataset / "train.csv").write_text(rows)
    monkeypatch.setattr(maps_of_training, "STACKS", 3)
    monkeypatch.setattr(maps_of_training, "SAMPLE", 2)
    model = open_model(run(stage_2) / "best.pth")
    assert model.prior is not None
    assert names_of(model.prior) == ["Tiny_00001", "Tiny_00003"]
    assert [one.name for one in model.prior.histograms] == ["Tiny_00001", "Tiny_00003"]
    wanted = fit_by_hand(model, "t1:flair", ["Tiny_00001", "Tiny_00003"], [0, 4, 9])
    check_map(model.prior.maps["t1:flair"], wanted)


def test_a_training_subject_whose_window_is_empty(stage_2, tiny_dataset):
    """Its brain lies beside the central crop: it has no histogram, and best.pth can be read."""
    voxels = np.zeros((24, 20, 12), np.int16)
    voxels[:3] = 100 + np.arange(12)
    for sequence in SEQUENCES:
        save_nifti(sequence_file(tiny_dataset, 1, sequence), voxels)
    found = prior_of(run(stage_2) / "best.pth")
    assert [one.name for one in found.histograms] == ["Tiny_00000"]


# --- that it is there


def test_killed_and_resumed_it_is_the_same(stage_2, tmp_path, monkeypatch):
    """In a step, before the maps are fitted, or before they are saved."""

    def of_folder(name: str) -> Config:
        return replace(stage_2, train=replace(stage_2.train, output=tmp_path / name))

    wanted = read_checkpoint(run(of_folder("whole")) / "best.pth")
    run_and_kill(monkeypatch, 4, of_folder("in a step"))
    assert "prior" not in read_checkpoint(tmp_path / "in a step" / "best.pth")
    for place in ("_look", "save_model"):
        with monkeypatch.context() as patch:
            patch.setattr(maps_of_training, place, killed)
            with pytest.raises(Killed):
                run(of_folder(place))
        assert "prior" not in read_checkpoint(tmp_path / place / "best.pth")
    for name in ("in a step", "_look", "save_model"):
        run(of_folder(name), resume=True)
        found = read_checkpoint(tmp_path / name / "best.pth")
        check_equal(found["weights"], wanted["weights"])
        assert found["prior"] == wanted["prior"]
        assert found["statistics"] == wanted["statistics"]


def killed(*_: object, **__: object) -> None:
    raise Killed


def test_resuming_a_finished_run_adds_it(stage_1):
    """What earlier versions left has none; what has one stays as it is, to the byte."""
    path = run(stage_1) / "best.pth"
    wanted = read_checkpoint(path)
    without_prior(path)
    assert open_model(path).prior is None
    run(stage_1, resume=True)
    found = read_checkpoint(path)
    assert found.keys() == wanted.keys()
    assert found["prior"] == wanted["prior"]
    check_equal(found["weights"], wanted["weights"])
    before = path.read_bytes(), path.stat().st_mtime_ns
    run(stage_1, resume=True)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_better_weights_get_maps_of_their_own(stage_1):
    """A run that goes on for longer: best.pth changes, and so do its maps."""
    path = run(stage_1) / "best.pth"
    before = read_checkpoint(path)
    run(replace(stage_1, train=replace(stage_1.train, steps=12)), resume=True)
    model, weights = open_model(path), read_checkpoint(path)["weights"]
    assert any(not torch.equal(value, weights[key]) for key, value in before["weights"].items())
    assert model.prior is not None
    found = model.prior.maps["t1:t2"]
    assert list(found.coefficients) != list(before["prior"]["maps"]["t1:t2"]["coefficients"])
    check_map(found, fit_by_hand(model, "t1:t2", ["Tiny_00002"]))


def test_a_run_whose_best_was_moved_away_ends_well(stage_1):
    folder = run(stage_1)
    (folder / "best.pth").unlink()
    run(stage_1, resume=True)
    assert not (folder / "best.pth").exists()


def test_two_processes_share_the_subjects(stage_1, tiny_dataset, tmp_path, monkeypatch):
    """Each looks at its own, the main one writes: the maps of one process."""
    (tiny_dataset / "valid.csv").write_text("Tiny_00002,11\nTiny_00003,14\nTiny_00001,7\n")
    path = run(stage_1) / "best.pth"
    wanted = read_checkpoint(path)
    without_prior(path)
    shutil.copy(path, tmp_path / "two.pth")
    data = stage_1.data
    subjects = [find_subjects(data, split) for split in (data.valid, data.train)]
    looked, real = [], maps_of_training._look
    monkeypatch.setattr(
        maps_of_training, "_look", lambda *given: looked.append(given[2].name) or real(*given)
    )

    said: list[object] = []  # by the second process, which the first then hears
    monkeypatch.setattr(Processes, "gather", lambda _, item: said.append(item) or [item, item])
    add_prior(tmp_path / "two.pth", *subjects, CPU, Processes(1, 2))
    assert "prior" not in read_checkpoint(tmp_path / "two.pth")
    assert looked == ["Tiny_00003"]
    answers = iter(said)
    monkeypatch.setattr(Processes, "gather", lambda _, item: [item, next(answers)])
    add_prior(tmp_path / "two.pth", *subjects, CPU, Processes(0, 2))
    assert looked == ["Tiny_00003", "Tiny_00002", "Tiny_00001"]
    assert read_checkpoint(tmp_path / "two.pth")["prior"] == wanted["prior"]
