"""Statistics of the training data: medians by hand, from files and store, kept in checkpoints."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEQUENCES, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    open_model,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data import statistics
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.prepare import fill_store
from tsf_seq2seq.data.statistics import TrainingStatistics, in_plane_spacing, measure_statistics
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.training import loop as training

AFFINE = np.diag([-2.0, -3.0, 4.0, 1.0])  # mm along x, y, z, LPS


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Subjects 0 to 4; sequence i of subject s is (i + 1) · (s + 1) everywhere; no t2 in 0."""
    for subject in range(5):
        for index, sequence in enumerate(SEQUENCES):
            if (subject, sequence) != (0, "t2"):
                voxels = np.full((4, 5, 6), (index + 1) * (subject + 1), np.int16)
                save_nifti(sequence_file(tmp_path, subject, sequence), voxels, AFFINE)
    split = "".join(f"Tiny_0000{subject},8\n" for subject in range(5))
    (tmp_path / "train.csv").write_text(split)
    return DataConfig(root=tmp_path, train=tmp_path / "train.csv")


def test_medians_of_files(data, capsys):
    """2 × 99th percentile of a constant c is 2c; medians over subjects 1 … 5, of t2 over 2 … 5."""
    measured = measure_statistics(data, find_subjects(data, data.train))
    assert measured.maxima == {"t1": 6, "t1ce": 12, "t2": 21, "flair": 24}
    assert measured.spacing == (3, 2)  # y, x
    assert measured.means == dict.fromkeys(SEQUENCES, 0)  # half of what becomes 1
    assert capsys.readouterr().out == "intensity statistics: of 5 of 5 training subjects\n"


def test_files_are_sampled_evenly(data, capsys, monkeypatch):
    """Three of five: subjects 0, 2 and 4, whose t1 is 1, 3 and 5."""
    monkeypatch.setattr(statistics, "SAMPLE", 3)
    measured = measure_statistics(data, find_subjects(data, data.train))
    assert measured.maxima["t1"] == 6
    assert measured.maxima["t2"] == 2 * 3 * (3 + 5) / 2
    assert "of 3 of 5 training subjects" in capsys.readouterr().out


def test_store_knows_all_but_means_without_reading(data, tmp_path, capsys, monkeypatch):
    wanted = measure_statistics(data, find_subjects(data, data.train))
    store = tmp_path / "store"
    assert len(list(fill_store(data, {f"Tiny_0000{s}": 0 for s in range(5)}, store))) == 5
    data = DataConfig(root=data.root, train=data.train, store=store)
    monkeypatch.setattr(statistics, "SAMPLE", 1)
    capsys.readouterr()
    measured = measure_statistics(data, find_subjects(data, data.train))
    assert (measured.maxima, measured.spacing) == (wanted.maxima, wanted.spacing)
    assert measured.means == {"t1": 0, "t1ce": 0, "flair": 0}  # of the first alone
    assert capsys.readouterr().out == ""


def test_means_are_of_what_is_above_the_background(data):
    """Half of a volume is 0, the rest 1, 2 and 3 in equal shares: 6 becomes 1."""
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels[..., 3:] = np.arange(1, 4)
    save_nifti(sequence_file(data.root, 0, "t1"), voxels, AFFINE)
    means = measure_statistics(data, find_subjects(data, data.train)[:1]).means
    assert means["t1"] == pytest.approx(2 * 2 / 6 - 1)


def test_only_what_training_uses(data):
    """Mask 8 is t1 alone."""
    data = DataConfig(root=data.root, train=data.train, use_all_sequences=False)
    measured = measure_statistics(data, find_subjects(data, data.train))
    assert measured.maxima == {"t1": 6}


def test_spacing_is_that_of_the_axial_plane():
    """Voxel axes run along z (4 mm), x (2 mm) and y (3 mm)."""
    affine = np.array([[0, 2, 0, 0], [0, 0, 3, 0], [4, 0, 0, 0], [0, 0, 0, 1.0]])
    assert in_plane_spacing(Geometry((5, 6, 7), affine)) == (3, 2)


def test_training_keeps_what_resuming_takes_over(tiny_config, tmp_path, monkeypatch):
    """All checkpoints carry the same statistics; the second run measures none."""
    monkeypatch.setattr("tsf_seq2seq.training.log.plot_curves", lambda *_: None)
    config = load_config(tiny_config, ["train.steps=2", "train.validation_steps=2"])
    training.train(config, build_network(config), torch.device("cpu"))
    folder = config.train.output
    measured = open_model(folder / "best.pth").statistics
    assert measured == measure_statistics(
        config.data, find_subjects(config.data, config.data.train)
    )
    config = load_config(tiny_config, ["train.steps=3", "train.validation_steps=3"])
    monkeypatch.setattr(training, "measure_statistics", lambda *_: pytest.fail("measured again"))
    training.train(config, build_network(config), torch.device("cpu"), resume=True)
    content = read_checkpoint(folder / "last.pth")
    assert content["training"]["step"] == 3
    assert open_model(folder / "last.pth").statistics == measured


def test_older_checkpoints_have_none(tiny_config, tmp_path):
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "old.pth", build_network(config), config)
    model = open_model(tmp_path / "old.pth")
    assert model.statistics is None
    assert model.sequences == SEQUENCES
    assert not model.network.training
    own, loaded = model.network.state_dict(), load_model(tmp_path / "old.pth").state_dict()
    assert all(torch.equal(own[key], loaded[key]) for key in own | loaded)


def test_hash_is_the_files(tiny_config, tmp_path):
    """As `sha256sum` would print it."""
    config, path = load_config(tiny_config), tmp_path / "model.pth"
    save_checkpoint(path, build_network(config), config)
    assert open_model(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"maxima": {"t1": 1.0}}, "key 'statistics.spacing' is missing"),
        ({"maxima": {"t1": -1.0}, "spacing": [1, 1]}, "must be above 0, not -1"),
        ({"maxima": {"t1": "x"}, "spacing": [1, 1]}, "'statistics.maxima.t1' must be a number"),
        ([1], "'statistics' must be a mapping"),
    ],
)
def test_damaged_statistics_are_refused(tiny_config, tmp_path, value, message):
    config, path = load_config(tiny_config), tmp_path / "model.pth"
    save_checkpoint(path, build_network(config), config, statistics=TrainingStatistics({}, (1, 1)))
    content = torch.load(path, weights_only=True)
    content["statistics"] = value
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        open_model(path)
