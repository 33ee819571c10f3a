"""Checkpoints of which a part was dropped or replaced: refused in one sentence, or as before."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_TSF
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    load_weights,
    open_model,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.portable import read_portable, save_portable
from tsf_seq2seq.checkpoints.state_dicts import read_file
from tsf_seq2seq.config import Config, config_from_mapping
from tsf_seq2seq.data.sampling import Position
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.training.loop import _trained
from tsf_seq2seq.training.objectives import TSFObjective
from tsf_seq2seq.training.state import Trained, TrainingState, enter_folder, save_state

pytestmark = pytest.mark.property

Place = tuple[str | int, ...]
CPU = torch.device("cpu")
SEQUENCES = ["t1", "t1ce", "t2", "flair"]
STATE = TrainingState(
    step=7,
    position=Position(1, 2, 3),
    best_psnr=21.5,
    seconds=3.25,
    sums={"loss": 0.5, "reconstruction": 0.25},
    data={"data.train": {"A": "12", "B": "34"}, "data.valid": {"C": "56"}},
    statistics=TrainingStatistics({"t1": 500.0, "flair": 0.25}, (1.0, 1.5)),
)
DROPPED = "dropped"
ODD: dict[str, Any] = {
    "none": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "seven": 7,
    "large": 10**18,
    "larger than floats": 10**400,
    "nan": float("nan"),
    "infinite": float("inf"),
    "half": 0.5,
    "text": "x",
    "number as text": "3",
    "escape": "\x1b[2J\n",
    "bytes": b"\xff",
    "empty text": "",
    "empty list": [],
    "empty mapping": {},
    "list": [1, "x", None],
    "list of lists": [[[1]]],
    "mapping": {"x": 1, 2: [3]},
    "keys of numbers": {0: {}, 1.5: {}, None: 1},
    "tuple": (1, 2),
    "a number as tensor": torch.tensor(1.0),
    "tensor": torch.ones(2, 3),
    "nan tensor": torch.full((4,), float("nan")),
    "empty tensor": torch.empty(0),
    "whole numbers": torch.ones(4, dtype=torch.int64),
    "complex": torch.ones(4, dtype=torch.complex64),
    "sparse": torch.ones(4, 4).to_sparse(),
    "without values": torch.ones(4, device="meta"),
}


@cache
def config() -> Config:
    values = yaml.safe_load(TINY_TSF) | {"perceptual": {"backbone": "none"}}
    return config_from_mapping(values, "tiny")


def fresh() -> Trained:
    network = build_network(config())
    return _trained(TSFObjective(network, config().loss), config(), CPU)


def step(trained: Trained) -> None:
    """A step on made-up gradients."""
    for optimizer in trained.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()


@cache
def whole() -> dict[str, Any]:
    """Content of a last.pth."""
    trained = fresh()
    step(trained)
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder, "last.pth"), config(), trained, STATE)
        return read_checkpoint(Path(folder, "last.pth"))


@cache
def whole_best() -> dict[str, Any]:
    return {key: value for key, value in whole().items() if key != "training"}


def places(tree: Any, above: Place = ()) -> Iterator[Place]:
    """Every place of nested mappings and lists."""
    if above:
        yield above
    pairs = enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in tree.items() if isinstance(tree, dict) else pairs:
        yield from places(value, (*above, key))


def some_place(*sections: str) -> st.SearchStrategy[Place]:
    """Each section as likely as the others, however many places it has."""

    def inside(section: str) -> st.SearchStrategy[Place]:
        start = tuple(section.split("."))
        tree = whole()
        for key in start:
            tree = tree[key]
        return st.sampled_from([start, *places(tree, start)])

    return st.deferred(lambda: st.one_of(map(inside, sections)))


def mutated(tree: Any, place: Place, value: str) -> Any:
    """A copy with the place dropped, or replaced by one of the ODD values."""
    key, *rest = place
    result = copy.copy(tree) if isinstance(tree, dict) else list(tree)
    if rest:
        result[key] = mutated(tree[key], tuple(rest), value)
    elif value == DROPPED:
        del result[key]
    else:
        result[key] = ODD[value]
    return tuple(result) if isinstance(tree, tuple) else result


def accepted(read: Callable[[Path], Any], path: Path) -> Any:
    """What is read, or None where it is refused by a sentence that names the file."""
    try:
        return read(path)
    except UserError as error:
        message = str(error)
    assert str(path) in message
    return None


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


LAST = (
    "format",
    "version",
    "config",
    "config.network",
    "weights",
    "statistics",
    "training",
    "training.optimizers.network.state",
    "training.optimizers.network.param_groups",
    "training.position",
    "training.sums",
    "training.data",
)
odd_values = st.sampled_from([DROPPED, *ODD])


@given(some_place(*LAST), odd_values)
@example(("training", "optimizers", "network", "state", 0), DROPPED)
@example(("training", "optimizers", "network", "state", 0, "exp_avg"), DROPPED)
@example(("training", "optimizers", "network", "param_groups", 0, "params", 0), "tensor")
@example(("training", "position"), "list")
@example(("training", "companions"), "list")
@example(("training", "best_psnr"), "nan")
@example(("training", "step"), "minus one")
@example(("version",), "tensor")
def test_resuming(place, value):
    """What is accepted goes on with the same weights and optimizers, bit for bit."""
    content = mutated(whole(), place, value)
    trained = fresh()
    with tempfile.TemporaryDirectory() as name:
        torch.save(content, Path(name, "last.pth"))
        enter = partial(enter_folder, config=config(), trained=trained, resume=True)
        state = accepted(enter, Path(name))
    if state is None:
        return
    assert equal(dict(trained.network.state_dict()), dict(whole()["weights"]))
    optimizer = trained.optimizers["network"].state_dict()
    assert equal(optimizer, whole()["training"]["optimizers"]["network"])
    if place[0] in ("format", "version", "weights") or place[:2] == ("training", "optimizers"):
        assert state == STATE
    for key in ("step", "position", "best_psnr", "seconds", "sums", "data", "statistics"):
        if key not in place:
            assert getattr(state, key) == getattr(STATE, key)
    assert isinstance(state.step, int)
    assert 0 <= state.step < 2**53
    step(trained)


@given(some_place("format", "version", "config", "config.network", "weights"), odd_values)
@example(("weights", "fusion.linear.bias"), "nan tensor")
@example(("config", "network", "lstm_layers"), "large")
def test_opening(place, value):
    content = mutated(whole_best(), place, value)

    def load_first(path: Path) -> SynthesisNetwork:
        network = build_network(config())
        load_weights(network, path, None, SEQUENCES)
        return network

    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "best.pth")
        torch.save(content, path)
        readers = (load_model, lambda path: open_model(path).network, load_first)
        found = [accepted(read, path) for read in readers]
    for one in filter(None, found):
        assert equal(dict(one.state_dict()), dict(whole()["weights"]))


@given(some_place("config", "statistics"), odd_values)
def test_portable_models(place, value):
    """What can be written comes back as it was, or is refused as the checkpoint is."""
    content = mutated(whole_best(), place, value)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "model.safetensors")
        accepted(partial(save_portable, content=content), path)
        if path.exists():
            accepted(load_model, path)


SMALL = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}


@cache
def small(suffix: str) -> bytes:
    content = {"format": "small", "weights": SMALL}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"small{suffix}")
        save_portable(path, content) if suffix == ".safetensors" else torch.save(content, path)
        return path.read_bytes()


@given(
    st.sampled_from([".pth", ".safetensors"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1),
    st.just(1.0) | st.floats(0, 1),
)
def test_damaged_bytes(suffix, changes, length):
    """Bytes changed anywhere, or the end cut off."""
    content = bytearray(small(suffix))
    for place, byte in changes:
        content[int(place * len(content))] = byte
    content = content[: round(length * len(content))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"small{suffix}")
        path.write_bytes(content)
        found = accepted(read_file if suffix == ".pth" else read_portable, path)
    if found is None:
        return
    assert found["format"] == "small"
    assert equal(found["weights"], SMALL)


def test_what_is_whole_is_accepted(tmp_path):
    torch.save(whole(), tmp_path / "last.pth")
    trained = fresh()
    assert enter_folder(tmp_path, config(), trained, resume=True) == STATE
    assert equal(dict(trained.network.state_dict()), dict(whole()["weights"]))
    save_checkpoint(tmp_path / "best.pth", trained.network, config(), None, STATE.statistics)
    assert equal(read_checkpoint(tmp_path / "best.pth"), whole_best())
