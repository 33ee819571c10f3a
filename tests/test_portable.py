"""Models as one safetensors file: the same model, older pairs too, and errors that say why not."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    load_model_and_config,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.portable import read_portable, save_portable
from tsf_seq2seq.cli.convert import export_model
from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.train import train_tsf_seq2seq
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network

STATISTICS = {"psnr": 27.5, "by_task": {"t1+t2:flair": [0.1, None, True, "µ"]}}


@pytest.fixture
def checkpoint(tiny_config, tmp_path) -> Path:
    """An untrained TSFSeq2Seq of the tiny settings, with training state and further keys."""
    config = load_config(tiny_config)
    path = tmp_path / "model.pth"
    save_checkpoint(path, build_network(config), config, {"step": 3})
    content = read_checkpoint(path) | {"statistics": STATISTICS, "rates": (0.5, 1)}
    torch.save(content, path)
    return path


@pytest.fixture
def model(checkpoint, tmp_path) -> Path:
    """The checkpoint as a portable model."""
    path = tmp_path / "portable" / "model.safetensors"
    save_portable(path, read_checkpoint(checkpoint))
    return path


@pytest.fixture
def pair(checkpoint, tmp_path) -> Path:
    """Weights file of the checkpoint as portable models were before the header: with JSON beside.

    Written here as `save_portable` did then.
    """
    path = tmp_path / "pair" / "model.safetensors"
    path.parent.mkdir()
    content = read_checkpoint(checkpoint)
    save_file(content.pop("weights"), path, {"format": "pt"})
    content.pop("training")
    content["rates"] = [0.5, 1]
    content["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    settings_of(path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def settings_of(model: Path) -> Path:
    """The JSON file of a pair."""
    return model.with_suffix(".json")


def header_of(model: Path) -> dict[str, str]:
    with safe_open(model, "pt") as tensors:
        return tensors.metadata()


def state_of(model: Path) -> dict[str, torch.Tensor]:
    with safe_open(model, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def rewrite(model: Path, **changes) -> None:
    """Change entries of a whole model, which stays whole, or of a pair's JSON file."""
    if settings_of(model).exists():
        content = json.loads(settings_of(model).read_text()) | changes
        settings_of(model).write_text(json.dumps(content))
    else:
        save_portable(model, read_portable(model) | changes)


def put_header(model: Path, text: str) -> None:
    save_file(state_of(model), model, {"checkpoint": text})


@pytest.mark.parametrize(
    ("kind", "suffix"), [("model", ".safetensors"), ("pair", ".safetensors"), ("pair", ".json")]
)
def test_the_same_model_comes_back(checkpoint, request, kind, suffix):
    path = request.getfixturevalue(kind).with_suffix(suffix)
    wanted, config = load_model_and_config(checkpoint)
    network, same_config = load_model_and_config(path)
    assert same_config == config
    state = network.state_dict()
    assert list(state) == list(wanted.state_dict())
    assert all(torch.equal(state[key], value) for key, value in wanted.state_dict().items())
    assert not load_model(path).training
    assert read_checkpoint(path)["statistics"] == STATISTICS


def test_content(checkpoint, model):
    wanted = read_checkpoint(checkpoint)
    assert list(model.parent.iterdir()) == [model]
    header = header_of(model)
    assert list(header) == ["checkpoint"]
    settings = json.loads(header["checkpoint"])
    checksum = settings.pop("weights_sha256")
    assert settings == {
        "format": "tsf-seq2seq checkpoint",
        "version": 2,
        "config": wanted["config"],
        "statistics": STATISTICS,
        "rates": [0.5, 1],
    }
    by_hand = hashlib.sha256(json.dumps(settings).encode())
    for name in sorted(wanted["weights"]):
        array = wanted["weights"][name].numpy()
        by_hand.update(f"\n{name} torch.float32 {list(array.shape)}\n".encode() + array.tobytes())
    assert checksum == by_hand.hexdigest()
    assert set(state_of(model)) == set(wanted["weights"])
    content = read_checkpoint(model)
    assert set(content) == {"format", "version", "config", "weights", "statistics", "rates"}


def test_exported_again_it_is_the_same(model, pair, tmp_path):
    for source in (model, pair):
        save_portable(tmp_path / "again.safetensors", read_checkpoint(source))
        assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


def test_tensors_of_any_type(tmp_path):
    weights = {
        "half": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "nothing": torch.zeros(0, 2),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
    }
    save_portable(tmp_path / "x.safetensors", {"weights": weights})
    found = read_portable(tmp_path / "x.safetensors")["weights"]
    assert set(found) == set(weights)
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("value", [torch.zeros(2), {1: 2}, float("nan"), [Path("x")]])
def test_what_json_cannot_hold(checkpoint, tmp_path, value):
    content = read_checkpoint(checkpoint) | {"further": value}
    path = tmp_path / "new.safetensors"
    with pytest.raises(
        UserError, match=r"new\.safetensors can't be written: JSON can't hold 'furt"
    ):
        save_portable(path, content)
    assert not list(tmp_path.glob("new.*"))


def test_scripts_read_it(model, tiny_config, script, tmp_path):
    outcome = script(
        evaluate_tsf_seq2seq, "-l", model, "-o", tmp_path / "scores", "--max-slices", 1
    )
    assert outcome.code == 0, outcome.err
    outcome = script(
        train_tsf_seq2seq, "-c", tiny_config, "-m", model, "--set", "train.steps=1", "-o",
        tmp_path / "run"
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    wanted = load_model(model).seq2seq.encoder.state_dict()
    trained = load_model(tmp_path / "run" / "last.pth").seq2seq.encoder.state_dict()
    assert all(torch.equal(trained[key], value) for key, value in wanted.items())


def flip_byte(model: Path, at: int) -> None:
    content = bytearray(model.read_bytes())
    content[at] ^= 1
    model.write_bytes(content)


def change_settings(model: Path) -> None:
    put_header(model, header_of(model)["checkpoint"].replace("27.5", "28.5"))


def rename_tensor(model: Path) -> None:
    header, tensors = header_of(model), state_of(model)
    tensors["fusion.linear.bias2"] = tensors.pop("fusion.linear.bias")
    save_file(tensors, model, header)


def swap_weights(pair: Path) -> None:
    """Weights of another network of the same architecture."""
    tensors = state_of(pair)
    tensors["fusion.linear.bias"] += 1
    save_file(tensors, pair, {"format": "pt"})


def other_architecture(model: Path) -> None:
    config = read_portable(model)["config"]
    config["network"]["lstm_layers"] = 2
    rewrite(model, config=config)


EITHER = [
    (lambda m: m.write_bytes(b"\xff" * 100), "is damaged or not a safetensors file"),
    (lambda m: m.write_bytes(m.read_bytes()[:-4]), "is damaged or not a safetensors file"),
    (lambda m: flip_byte(m, -9), "is damaged or belongs to another model: its SHA-256 is not the"),
    (lambda m: rewrite(m, format="other"), "is not a checkpoint of this software"),
    (lambda m: rewrite(m, version=99), "has format version 99, but this software reads 1"),
    (lambda m: rewrite(m, config=3), "is damaged: it holds no settings"),
    (other_architecture, "is of another architecture: "),
]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        *EITHER,
        (lambda m: m.unlink(), "model.safetensors does not exist"),
        (change_settings, "its SHA-256 is not the 'weights_sha256' of its header"),
        (rename_tensor, "its SHA-256 is not the 'weights_sha256' of its header"),
        (lambda m: put_header(m, "{"), "is damaged or not JSON"),
        (lambda m: put_header(m, "[]"), "must hold a mapping of keys, not list"),
        (lambda m: put_header(m, "{}"), "its SHA-256 is not the 'weights_sha256' of its header"),
        (lambda m: save_file(state_of(m), m), "describe a model: its header has no 'checkpoint'"),
    ],
)
def test_errors_are_one_sentence(model, script, tmp_path, damage, part):
    damage(model)
    outcome = script(evaluate_tsf_seq2seq, "-l", model, "-o", tmp_path / "scores")
    assert part in outcome.error
    assert str(model) in outcome.error


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        *EITHER,
        (lambda m: m.unlink(), "model.safetensors"),
        (lambda m: settings_of(m).unlink(), "model.json"),
        (swap_weights, "is damaged or belongs to another model: its SHA-256 is not the 'weights_"),
        (lambda m: settings_of(m).write_text("{"), "is damaged or not JSON"),
        (lambda m: settings_of(m).write_bytes(b"\xff"), "is damaged or not JSON"),
        (lambda m: settings_of(m).write_text("[]"), "must hold a mapping of keys, not list"),
        (lambda m: settings_of(m).write_text("{}"), "its SHA-256 is not the 'weights_sha256' of"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_errors_of_pairs(pair, script, tmp_path, damage, part, suffix):
    damage(pair)
    path = pair.with_suffix(suffix)
    outcome = script(evaluate_tsf_seq2seq, "-l", path, "-o", tmp_path / "scores")
    assert part in outcome.error
    assert str(pair.with_suffix("")) in outcome.error
    if not path.exists():
        assert outcome.error == f"weights file {path} does not exist"


def test_a_missing_partner_is_named(pair):
    pair.unlink()
    with pytest.raises(UserError) as error:
        load_model(settings_of(pair))
    settings = settings_of(pair)
    assert str(error.value) == f"{settings} needs its partner {pair}, which does not exist"


def test_a_new_model_over_a_pair(model, pair):
    """The JSON file that is left doesn't belong to it, and isn't taken for it."""
    pair.write_bytes(model.read_bytes())
    assert load_model(pair)
    with pytest.raises(UserError, match="belongs to another model"):
        load_model(settings_of(pair))


def test_full_disk_keeps_the_old_model(checkpoint, model, monkeypatch):
    before = model.read_bytes()

    def refuse(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(UserError, match=r"model\.safetensors could not be written: I/O error"):
        save_portable(model, read_checkpoint(checkpoint))
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_script(checkpoint, script, tmp_path):
    outcome = script(export_model, "-l", checkpoint, "-o", tmp_path / "out" / "tsf.v2.safetensors")
    assert outcome.code == 0
    assert outcome.err == []
    assert "tsf.v2.safetensors holds the model" in outcome.out
    assert read_checkpoint(tmp_path / "out" / "tsf.v2.safetensors")["statistics"] == STATISTICS


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-o", "x.pth"], "-o must end in .safetensors or .onnx, not x.pth"),
        (["-o", "x.json"], "-o must end in .safetensors or .onnx, not x.json"),
        (["-o", "x.safetensors", "--target", "t1"], "are for ONNX: let -o end in .onnx"),
        (["-o", "x.safetensors", "--with-tsem"], "are for ONNX: let -o end in .onnx"),
        (["-o", "x.onnx", "--target", "t1"], "give it with --sources and --target"),
        (["-o", "x.onnx", "--sources", "t1"], "give it with --sources and --target"),
    ],
)
def test_arguments_that_do_not_fit(checkpoint, script, arguments, part):
    assert part in script(export_model, "-l", checkpoint, *arguments).error
