"""Settings of sizes that no machine has are refused before any memory is taken."""

import re
import resource

import pytest
import torch
from conftest import REFERENCE, TINY_SEQ2SEQ, TINY_TSF, TINY_UNET, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import load_model, save_checkpoint
from tsf_seq2seq.checkpoints.published import load_published
from tsf_seq2seq.cli.train import train_network
from tsf_seq2seq.config import load_config
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.build import check_size

GIGABYTE = 2**20  # in the kB that getrusage counts
NETWORKS = {"seq2seq": TINY_SEQ2SEQ, "tsf_seq2seq": TINY_TSF, "unet": TINY_UNET}


@pytest.fixture
def settings(tiny_dataset, tmp_path):
    """settings(network) → YAML of a tiny run."""

    def write(network: str):
        path = tmp_path / f"{network}.yaml"
        path.write_text(tiny_yaml(NETWORKS[network], tiny_dataset, tmp_path / "run"))
        return path

    return write


def deep(n_layers: int, stride: int) -> list[str]:
    """Settings of a Seq2Seq with so many layers of one channel on either way."""
    return [
        f"network.encoder_channels={[1] * n_layers}",
        f"network.encoder_kernels={[1] * n_layers}",
        f"network.encoder_strides={[1] + [stride] * (n_layers - 1)}",
        f"network.decoder_channels={[1] * (n_layers - 1) + [3]}",
        f"network.decoder_kernels={[1] * n_layers}",
    ]


@pytest.mark.parametrize(
    ("network", "overrides", "part"),
    [
        ("tsf_seq2seq", ["network.kernels=1e9"], "weights or more would take"),
        ("tsf_seq2seq", ["network.sequence_code=1e9"], "weights or more would take"),
        ("tsf_seq2seq", ["network.sequence_code=9e15"], "has sizes that no machine holds: "),
        ("tsf_seq2seq", ["network.lstm_channels=1e7"], "weights or more would take"),
        ("tsf_seq2seq", ["network.lstm_layers=1e9"], "more layers than 10,000 arrays of weights"),
        ("tsf_seq2seq", ["network.attention_mixed=1e10"], "weights or more would take"),
        ("seq2seq", ["network.encoder_channels=[1e7,1e7]"], "weights or more would take"),
        ("seq2seq", ["network.encoder_kernels=[1000001,3]"], "weights or more would take"),
        ("seq2seq", ["network.encoder_residual_blocks=1e9"], "more layers than 10,000 arrays"),
        ("seq2seq", deep(4_000, 2), "more layers than 10,000 arrays of weights"),
        ("unet", ["data.stack=1000000001"], "weights or more would take"),
        ("unet", ["network.channels=[1e7,1e7]"], "weights or more would take"),
        ("unet", ["network.residual_blocks=1e12"], "more layers than 10,000 arrays of weights"),
        ("unet", [f"network.channels={[1] * 9_000}"], "more layers than 10,000 arrays of weights"),
    ],
)
def test_networks(network, overrides, part, settings):
    config = load_config(settings(network), overrides)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"^network {network} .*{part}"):
        build_network(config)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + GIGABYTE / 4


def test_the_message_counts(settings):
    """kernels: 16 × 16 × 3 × 3 in the decoder's first convolution, 1e9 times each."""
    config = load_config(settings("seq2seq"), ["network.kernels=1e9"])
    with pytest.raises(UserError) as error:
        build_network(config)
    before = sum(
        value.numel()
        for name, value in build_network(load_config(settings("seq2seq"))).state_dict().items()
        if not name.startswith("decoder.")
    )
    count = before + 16 * 16 * 9 * 10**9
    assert f"with its {count:,} weights or more would take 9,216 GB of memory" in str(error.value)


@pytest.mark.parametrize("network", NETWORKS)
def test_looking_changes_nothing(network, settings):
    """No weights are drawn, no hook stays, and values start as they would."""
    start = [] if network == "unet" else ["network.output_start=background"]
    config = load_config(settings(network), start)
    random = torch.random.get_rng_state()
    check_size(config.network, 4, 3)
    assert torch.equal(torch.random.get_rng_state(), random)
    own = config.network.build(4, 3).state_dict()
    assert not any(value.is_meta for value in own.values())


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("data.crop=[1000000000, 1000000000]", "a visit's 2 crops .* of 3 × 1,000,000,000 × 1,000"),
        ("train.crops_per_visit=1e12", "a visit's 1,000,000,000,000 crops"),
        ("data.cache_gb=1e9", "data.cache_gb in all data.workers would take 1,000,000,000 GB"),
        ("data.workers=1e9", "data.workers must be at most 1000, not 1,000,000,000"),
    ],
)
def test_runs(override, part, settings, script, tmp_path):
    outcome = script(train_network, "-c", settings("unet"), "--set", override)
    assert re.search(part, outcome.error)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_set(settings, script):
    overrides = ["--set", "train.batch_size=1e12", "--set", "train.steps=1"]
    assert script(train_network, "-c", settings("unet"), *overrides).code == 0


def test_crops_smaller_than_what_the_network_takes(settings, script):
    overrides = [f"network.channels={[1] * 6}", "data.crop=[8,40]"]
    options = [part for override in overrides for part in ("--set", override)]
    error = script(train_network, "-c", settings("unet"), *options).error
    assert error == "data.crop 8 is too small for network unet, which takes multiples of 32"


def test_checkpoints(settings, tmp_path):
    config = load_config(settings("seq2seq"))
    path = tmp_path / "model.pth"
    save_checkpoint(path, build_network(config), config)
    content = torch.load(path, weights_only=True)
    content["config"]["network"]["kernels"] = 10**9
    torch.save(content, path)
    with pytest.raises(UserError, match=r"model\.pth: network seq2seq with its .* would take"):
        load_model(path)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("c_w: 4", "c_w: 1000000000", "would take"),
        ("c_s_source: 4", "c_s_source: many", "c_s_source must be a number of sequences, not 'man"),
    ],
)
def test_published_settings(old, new, part, tmp_path):
    folder = REFERENCE / "model"
    text = (folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace(old, new))
    assert old in text
    with pytest.raises(UserError, match=part):
        load_published(tmp_path / "config.yaml", folder / "seq2seq.pth", folder / "tsf.pth")
