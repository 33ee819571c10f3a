"""Models as safetensors and JSON: the same model, and errors that say which file is wrong."""

import hashlib
import json
import runpy
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from safetensors import SafetensorError, safe_open

from tsf_seq2seq.checkpoints import portable
from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    load_model_and_config,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.portable import save_portable
from tsf_seq2seq.cli import evaluate_tsf_seq2seq, train_tsf_seq2seq
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
    """Weights file of the checkpoint as a portable model."""
    weights, _ = save_portable(tmp_path / "portable" / "model.json", read_checkpoint(checkpoint))
    return weights


def settings_of(model: Path) -> Path:
    return model.with_suffix(".json")


def rewrite(model: Path, **changes) -> None:
    content = json.loads(settings_of(model).read_text()) | changes
    settings_of(model).write_text(json.dumps(content))


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_the_same_model_comes_back(checkpoint, model, suffix):
    wanted, config = load_model_and_config(checkpoint)
    network, same_config = load_model_and_config(model.with_suffix(suffix))
    assert same_config == config
    state = network.state_dict()
    assert list(state) == list(wanted.state_dict())
    assert all(torch.equal(state[key], value) for key, value in wanted.state_dict().items())
    assert not load_model(model.with_suffix(suffix)).training


def test_content(checkpoint, model):
    wanted = read_checkpoint(checkpoint)
    settings = json.loads(settings_of(model).read_text(encoding="utf-8"))
    assert settings == {
        "format": "tsf-seq2seq checkpoint",
        "version": 2,
        "config": wanted["config"],
        "statistics": STATISTICS,
        "rates": [0.5, 1],
        "weights_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    with safe_open(model, "pt") as tensors:
        assert set(tensors.keys()) == set(wanted["weights"])
    content = read_checkpoint(model)
    assert set(content) == {"format", "version", "config", "weights", "statistics", "rates"}
    assert content["statistics"] == STATISTICS


def test_exported_again_it_is_the_same(model, tmp_path):
    weights, settings = save_portable(tmp_path / "again.safetensors", read_checkpoint(model))
    assert weights.read_bytes() == model.read_bytes()
    assert settings.read_bytes() == settings_of(model).read_bytes()


@pytest.mark.parametrize("value", [torch.zeros(2), {1: 2}, float("nan"), [Path("x")]])
def test_what_json_cannot_hold(checkpoint, tmp_path, value):
    content = read_checkpoint(checkpoint) | {"further": value}
    with pytest.raises(UserError, match=r"new\.json can't be written: JSON can't hold 'further'"):
        save_portable(tmp_path / "new.json", content)
    assert not list(tmp_path.glob("new.*"))


def test_scripts_read_it(model, tiny_config, script, tmp_path):
    outcome = script(
        evaluate_tsf_seq2seq, "-l", settings_of(model), "-o", tmp_path / "scores", "--max-slices", 1
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


def swap_weights(model: Path) -> None:
    """Weights of another network of the same architecture."""
    network, config = load_model_and_config(model)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    other = model.with_name("other.pth")
    save_checkpoint(other, network, config)
    weights, _ = save_portable(other, read_checkpoint(other))
    model.write_bytes(weights.read_bytes())


def other_architecture(model: Path) -> None:
    config = json.loads(settings_of(model).read_text())["config"]
    config["network"]["lstm_layers"] = 2
    rewrite(model, config=config)


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda m: m.unlink(), "model.safetensors"),
        (lambda m: settings_of(m).unlink(), "model.json"),
        (lambda m: m.write_bytes(b"\xff" * 100), "is damaged or not a safetensors file"),
        (lambda m: m.write_bytes(m.read_bytes()[:-4]), "is damaged or not a safetensors file"),
        (swap_weights, "is damaged or belongs to another model: its SHA-256 is not the one that"),
        (lambda m: settings_of(m).write_text("{"), "is damaged or not JSON"),
        (lambda m: settings_of(m).write_bytes(b"\xff"), "is damaged or not JSON"),
        (lambda m: settings_of(m).write_text("[]"), "must hold a mapping of keys, not list"),
        (lambda m: settings_of(m).write_text("{}"), "it has no 'weights_sha256'"),
        (lambda m: rewrite(m, format="other"), "is not a checkpoint of this software"),
        (
            lambda m: rewrite(m, version=99),
            "has format version 99, but this software reads 1 and",
        ),
        (lambda m: rewrite(m, config=3), "is damaged: it holds no settings"),
        (other_architecture, "is of another architecture: "),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_errors_are_one_sentence(model, script, tmp_path, damage, part, suffix):
    damage(model)
    path = model.with_suffix(suffix)
    outcome = script(evaluate_tsf_seq2seq, "-l", path, "-o", tmp_path / "scores")
    assert part in outcome.error
    assert str(model.with_suffix("")) in outcome.error
    if not path.exists():
        assert outcome.error == f"weights file {path} does not exist"


def test_a_missing_partner_is_named(model):
    settings_of(model).unlink()
    with pytest.raises(UserError) as error:
        load_model(model)
    settings = settings_of(model)
    assert str(error.value) == f"{model} needs its partner {settings}, which does not exist"


def test_only_half_of_a_new_pair_is_noticed(checkpoint, model, monkeypatch):
    """Killed after the weights, before the JSON file: the old one doesn't fit any more."""
    content = read_checkpoint(checkpoint)
    content["weights"]["fusion.linear.bias"] += 1

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(portable, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        save_portable(model, content)
    with pytest.raises(UserError, match="belongs to another model"):
        load_model(model)
    assert len(list(model.parent.iterdir())) == 2


def test_full_disk_keeps_the_old_model(checkpoint, model, monkeypatch):
    before = model.read_bytes(), settings_of(model).read_bytes()

    def refuse(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(UserError, match=r"model\.safetensors could not be written: I/O error"):
        save_portable(model, read_checkpoint(checkpoint))
    assert (model.read_bytes(), settings_of(model).read_bytes()) == before


@pytest.fixture
def export():
    """The `main` of the export script."""
    main = runpy.run_path(str(REPOSITORY / "src" / "convert" / "export.py"))["main"]
    return lambda _: main()


def test_script(checkpoint, script, export, tmp_path):
    outcome = script(export, "-l", checkpoint, "-o", tmp_path / "out" / "tsf.v2.safetensors")
    assert outcome.code == 0
    assert outcome.err == []
    assert "tsf.v2.json hold the model" in outcome.out
    assert read_checkpoint(tmp_path / "out" / "tsf.v2.json")["statistics"] == STATISTICS


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-o", "x.pth"], "-o must end in .safetensors or .onnx, not x.pth"),
        (["-o", "x.json", "--target", "t1"], "are for ONNX: let -o end in .onnx"),
        (["-o", "x.json", "--with-tsem"], "are for ONNX: let -o end in .onnx"),
        (["-o", "x.onnx", "--target", "t1"], "give it with --sources and --target"),
        (["-o", "x.onnx", "--sources", "t1"], "give it with --sources and --target"),
    ],
)
def test_arguments_that_do_not_fit(checkpoint, script, export, arguments, part):
    assert part in script(export, "-l", checkpoint, *arguments).error
