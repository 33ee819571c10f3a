"""Weights that are damaged, edited or of another type are refused, never taken for whole ones."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network

SEQUENCES = ["t1", "t1ce", "t2", "flair"]
SMALL = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}


@pytest.fixture
def checkpoint(tiny_stage1, tmp_path) -> Path:
    """An untrained Seq2Seq of the tiny settings."""
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "model.pth", build_network(config), config)
    return tmp_path / "model.pth"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change a checkpoint's content, and write it anew with the right checksums."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def is_whole(content: dict) -> bool:
    weights = content["weights"]
    return (
        content["format"] == "small"
        and list(weights) == ["a", "b"]
        and all(weights[key].dtype == value.dtype for key, value in SMALL.items())
        and all(torch.equal(weights[key], value) for key, value in SMALL.items())
    )


def flipped(content: bytes, at: int, bit: int | None = None) -> bytes:
    """With one bit of a byte flipped, another one from byte to byte unless it is given."""
    bit = at % 8 if bit is None else bit
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def refused(path: Path, content: bytes, read: Callable[[Path], dict]) -> bool:
    """Whether the file is refused; what is not must be whole."""
    path.write_bytes(content)
    try:
        found = read(path)
    except UserError as error:
        message = str(error)
    else:
        assert is_whole(found)
        return False
    assert str(path) in message
    return True


def test_every_flipped_byte_is_refused_or_without_effect(tmp_path):
    path = tmp_path / "small.pth"
    torch.save({"format": "small", "weights": SMALL}, path)
    whole = path.read_bytes()
    for at in range(whole.index(b"PK\x01\x02"), len(whole)):
        # The bit that makes a folder of a part, of which PyTorch would read nothing.
        refused(path, flipped(whole, at, bit=4), read_file)
    count = sum(refused(path, flipped(whole, at), read_file) for at in range(len(whole)))
    assert count > len(whole) / 3  # the rest is padding, and what zip files say twice
    for value in SMALL.values():
        at = whole.index(value.numpy().tobytes())
        for place in range(at, at + value.nbytes):
            assert refused(path, flipped(whole, place), read_file)
    path.write_bytes(whole)
    assert is_whole(read_file(path))


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "small.pth"
    torch.save({"format": "small", "weights": SMALL}, path)
    whole = path.read_bytes()
    assert all(refused(path, whole[:length], read_file) for length in range(len(whole)))


def test_every_flipped_byte_of_a_portable_model(tmp_path):
    path = tmp_path / "small.safetensors"
    save_portable(path, {"format": "small", "weights": SMALL})
    whole = path.read_bytes()
    for at in range(len(whole)):
        refused(path, flipped(whole, at), read_portable)
    at = whole.index(SMALL["a"].numpy().tobytes())
    assert all(refused(path, flipped(whole, i), read_portable) for i in range(at, len(whole)))
    assert all(refused(path, whole[:length], read_portable) for length in range(len(whole)))


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (10**18).to_bytes(8, "little"),
        (2**27).to_bytes(8, "little"),
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (9).to_bytes(8, "little") + b'{"a":1e9}',
    ],
)
def test_headers_of_portable_models(tmp_path, header):
    path = tmp_path / "small.safetensors"
    path.write_bytes(header)
    with pytest.raises(UserError, match=r"small\.safetensors is damaged or not a safetensors"):
        read_portable(path)


@pytest.mark.parametrize("depth", [500, 900, 990, 2000, 100_000])
def test_settings_nested_deeply(tmp_path, depth):
    from safetensors.torch import save_file

    path = tmp_path / "small.safetensors"
    save_file(SMALL, path, {"checkpoint": '{"config":' + "[" * depth + "]" * depth + "}"})
    with pytest.raises(UserError, match=r"small\.safetensors is damaged"):
        read_portable(path)


@pytest.mark.parametrize("depth", [300, 950, 5000])
def test_settings_of_a_checkpoint_nested_deeply(checkpoint, depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        edit(checkpoint, lambda content: content["config"]["network"].update(kernels=value))
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(UserError, match=r"model\.pth"):
        load_model(checkpoint)


def test_a_flipped_bit_in_a_weight(checkpoint, tiny_stage1):
    whole = checkpoint.read_bytes()
    weight = read_checkpoint(checkpoint)["weights"]["decoder.output.kernels"]
    at = whole.index(weight.numpy().tobytes()) + 3  # its sign and exponent
    checkpoint.write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
    network = build_network(load_config(tiny_stage1))
    for read in (load_model, open_model, lambda p: load_weights(network, p, None, SEQUENCES)):
        with pytest.raises(UserError, match=r"model\.pth is damaged: its part data/\d+ does"):
            read(checkpoint)


def with_weight(path: Path, key: str, value: Tensor) -> None:
    edit(path, lambda content: content["weights"].update({key: value}))


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "int32", "bool", "complex64", "uint8"]
)
def test_other_types_are_refused_not_cast(checkpoint, dtype):
    with_weight(checkpoint, "style.bias", torch.ones(8).to(getattr(torch, dtype)))
    with pytest.raises(UserError) as error:
        load_model(checkpoint)
    assert str(error.value) == (
        f"{checkpoint} holds style.bias as {dtype}, but float32 is needed, and not cast"
    )


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_other_layouts_are_refused(checkpoint):
    with_weight(checkpoint, "style.weight", torch.eye(8).to_sparse())
    with pytest.raises(UserError, match=r"style\.weight as float32, sparse_coo, but float32 is"):
        load_model(checkpoint)
    with_weight(checkpoint, "style.weight", torch.empty(8, 8, device="meta"))
    with pytest.raises(UserError, match=r"style\.weight as float32 without values, but float32"):
        load_model(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(checkpoint, value):
    bias = torch.ones(8)
    bias[5] = value
    with_weight(checkpoint, "style.bias", bias)
    with pytest.raises(UserError, match=r"model\.pth is damaged: style\.bias holds NaN or infinit"):
        load_model(checkpoint)


def test_large_finite_weights_are_not_refused(checkpoint):
    """Their sum is infinite."""
    with_weight(checkpoint, "style.bias", torch.full((8,), 3e38))
    assert load_model(checkpoint).style.bias[0].item() == pytest.approx(3e38)


@pytest.mark.parametrize("version", [None, "2", True, 2.0, [], torch.zeros(2), torch.tensor(2)])
def test_odd_versions(checkpoint, version):
    edit(checkpoint, lambda content: content.update(version=version))
    with pytest.raises(UserError, match=r"model\.pth has format version "):
        load_model(checkpoint)


def test_settings_that_do_not_fit_together_name_the_file(checkpoint):
    edit(checkpoint, lambda content: content["config"]["network"].update(sequence_code=2))
    with pytest.raises(UserError) as error:
        load_model(checkpoint)
    assert str(error.value).startswith(f"{checkpoint}: network seq2seq: sequence_code must be at")
