"""Settings: every YAML loads, the paper's values stand, and mistakes are named."""

import dataclasses
from pathlib import Path

import pytest
from conftest import REPOSITORY

from tsf_seq2seq.config import (
    Config,
    FusionConfig,
    LossConfig,
    Seq2SeqConfig,
    config_from_mapping,
    load_config,
    override,
    to_mapping,
)
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.build import build_network

YAMLS = sorted((REPOSITORY / "config").rglob("*.yaml"))
PAPER = {"stage 1": "seq2seq_brats_2d.yaml", "stage 2": "tsf_seq2seq_brats_2d.yaml"}


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


def load_paper(stage: str) -> Config:
    return load_config(REPOSITORY / "config" / PAPER[stage])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_loads(path):
    assert isinstance(load_config(path), Config)


def test_the_papers_yamls_are_there():
    assert {path.name for path in YAMLS} >= set(PAPER.values())


@pytest.mark.parametrize("stage", PAPER)
def test_both_stages_have_the_full_size(stage):
    config = load_paper(stage)
    assert config.seq2seq == Seq2SeqConfig(
        slices=3,
        sequence_code=64,
        kernels=16,
        encoder_channels=(64, 128, 256),
        encoder_kernels=(7, 3, 3),
        encoder_strides=(1, 2, 2),
        encoder_residual_blocks=6,
        lstm_channels=256,
        lstm_layers=3,
        decoder_channels=(128, 64, 3),
        decoder_kernels=(3, 3, 7),
        decoder_residual_blocks=6,
        norm="instance",
    )
    assert config.seq2seq == Seq2SeqConfig()
    assert config.loss == LossConfig(reconstruction=10, perceptual=0.01, cycle=10)
    assert config.perceptual.backbone == "vgg19"
    data = config.data
    assert (data.slices, data.crop, data.validation_stacks) == (128, (192, 192), 16)
    assert data.use_all_sequences
    assert tuple(data.sequences) == ("t1", "t1ce", "t2", "flair")
    assert (config.train.batch_size, config.train.output_start) == (1, "grey")


def test_stage_1_is_the_papers():
    config = load_paper("stage 1")
    assert config.fusion is None
    train = config.train
    assert (train.steps, train.lr, train.schedule_epochs) == (1_000_000, 2e-4, 1000)
    assert train.crops_per_visit == 8


def test_stage_2_is_the_papers():
    config = load_paper("stage 2")
    fusion = FusionConfig(attention_channels=(256,), attention_kernels=(3,), kernels=4, norm="none")
    assert config.fusion == fusion == FusionConfig()
    train = config.train
    assert (train.steps, train.lr, train.schedule_epochs) == (300_000, 1e-4, 500)
    assert train.crops_per_visit == 4


@pytest.mark.parametrize("stage", PAPER)
def test_the_fast_recipe_trains_the_same_network_on_no_more_crops(stage):
    paper = load_paper(stage)
    fast = load_config(REPOSITORY / "config" / PAPER[stage].replace("2d", "2d_fast"))
    assert (fast.seq2seq, fast.fusion, fast.loss) == (paper.seq2seq, paper.fusion, paper.loss)
    assert fast.perceptual == paper.perceptual
    data = dataclasses.replace(fast.data, store=None, workers=paper.data.workers)
    assert data == paper.data
    train, other = fast.train, paper.train
    assert (train.precision, train.channels_last, train.compile) == ("bf16", True, True)
    assert train.steps * train.batch_size == other.steps
    assert train.lr == pytest.approx(2.5 * other.lr)
    assert train.schedule_epochs == other.schedule_epochs
    assert train.crops_per_visit == other.crops_per_visit
    assert train.output != other.output


@pytest.mark.parametrize("stage", PAPER)
def test_round_trip_through_plain_values(stage):
    config = load_paper(stage)
    plain = to_mapping(config)
    assert plain["data"]["crop"] == [192, 192]
    assert isinstance(plain["data"]["root"], str)
    assert config_from_mapping(plain, "checkpoint") == config


def test_exponent_without_dot_is_a_number(write):
    config = load_config(write("train: {lr: 1e-4, steps: '1e3'}\nloss: {cycle: 0}"))
    assert config.train.lr == 1e-4
    assert isinstance(config.train.lr, float)
    assert config.train.steps == 1000
    assert isinstance(config.train.steps, int)
    assert config.loss.cycle == 0


def test_an_empty_file_gives_the_defaults(write):
    assert load_config(write("")) == Config()


def test_order_of_sequences_is_kept(write):
    text = "data: {sequences: {t2: '{name}/t2.nii', b: [x.nii, y.nii], a: [z.nii]}}"
    sequences = load_config(write(text)).data.sequences
    assert list(sequences.items()) == [
        ("t2", ("{name}/t2.nii",)),
        ("b", ("x.nii", "y.nii")),
        ("a", ("z.nii",)),
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: {stepz: 3}", ["unknown key 'train.stepz'", "nearest known key is 'steps'"]),
        ("trian: {steps: 3}", ["unknown key 'trian'", "nearest known key is 'train'"]),
        ("train: {steps: many}", ["'train.steps' must be a whole number, not 'many'"]),
        ("train: {steps: 1.5}", ["'train.steps' must be a whole number, not 1.5"]),
        ("train: {steps: true}", ["'train.steps' must be a whole number, not True"]),
        ("train: {lr: .nan}", ["'train.lr' must be a number, not nan"]),
        ("train: {lr: [1, 2]}", ["'train.lr' must be a number, not [1, 2]"]),
        ("data: {use_all_sequences: 1}", ["'data.use_all_sequences' must be true or false, not 1"]),
        ("data: {root: 3}", ["'data.root' must be a path, not 3"]),
        ("data: {sequences: [t1]}", ["'data.sequences' must be a mapping of names"]),
        ("data: {crop: [16]}", ["'data.crop' must be a list of 2 values", "not [16]"]),
        ("data: {crop: [16, 7]}", ["'data.crop' must be at least 8, not 7"]),
        ("data: {sequences: {t1: a.nii}}", ["data: sequences must be 2 to 8, not 1 (t1)"]),
        (
            f"data: {{sequences: {{{', '.join(f's{i}: a.nii' for i in range(9))}}}}}",
            ["data: sequences must be 2 to 8, not 9 (s0, s1, "],
        ),
        *(
            (f"data: {{sequences: {{t1: a.nii, '{name}': b.nii}}}}", [f"digit first, not '{name}'"])
            for name in ("t1+c", "t 2", "t2:a", "a/b", "-t2", "t2.5", "", "T1ρ", "t2\t")
        ),
        ("data: {sequences: {t1: a.nii, Target: b.nii}}", ["can't be called Target, which is a"]),
        ("data: {sequences: {t1: a.nii, T1: b.nii}}", ["sequence T1 differs from another only in"]),
        ("data:\n sequences:\n  t1: a.nii\n  t1: b.nii", ["key 't1' stands twice", "line 4"]),
        ("train: {steps: 1}\ntrain: {lr: 1}", ["key 'train' stands twice", "line 2"]),
        ("train: {steps: 0}", ["'train.steps' must be at least 1, not 0"]),
        ("loss: {cycle: -0.5}", ["'loss.cycle' must be at least 0, not -0.5"]),
        (
            "perceptual: {backbone: resnet}",
            ["'perceptual.backbone' must be one of vgg19, vgg16, none, not 'resnet'"],
        ),
        (
            "seq2seq: {encoder_kernels: [7, 3]}",
            ["encoder_channels and encoder_kernels", "one value a layer, not 3 and 2"],
        ),
        (
            "seq2seq: {decoder_channels: [128, 3]}",
            ["decoder_channels and decoder_kernels", "not 2 and 3"],
        ),
        ("fusion: {attention_kernels: [3, 3]}", ["attention_channels and attention_kernels"]),
        ("seq2seq: {slices: 4}", ["slices must be odd, not 4"]),
        ("seq2seq: {encoder_kernels: [7, 4, 3]}", ["encoder_kernels must be odd, not (7, 4, 3)"]),
        ("seq2seq: 3", ["'seq2seq' must be a mapping"]),
        ("[1, 2]", ["must hold a mapping of keys, not list"]),
        ("train: {steps: 3", ["is not valid YAML"]),
    ],
)
def test_mistakes_are_named(write, text, parts):
    path = write(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_names_that_are_allowed(write):
    names = ["t1", "T2-star", "dir_3d", "7", "x" * 40]
    text = "data: {sequences: {" + ", ".join(f"'{name}': a.nii" for name in names) + "}}"
    assert list(load_config(write(text)).data.sequences) == names


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


def test_overrides(write):
    path = write("train: {lr: 1e-3, steps: 5}")
    overrides = ["train.lr=2e-4", "data.crop=[16, 24]", "fusion.kernels=2", "perceptual.weights="]
    config = load_config(path, overrides)
    assert (config.train.lr, config.train.steps) == (2e-4, 5)
    assert config.data.crop == (16, 24)
    assert config.fusion == FusionConfig(kernels=2)
    assert config.perceptual.weights is None


def test_overrides_leave_the_mapping_as_it_was():
    values = {"train": {"steps": 5}}
    assert override(values, ["train.steps=6", "train.steps=7"]) == {"train": {"steps": 7}}
    assert values == {"train": {"steps": 5}}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train.lr", "--set wants key=value, such as train.lr=2e-4, not 'train.lr'"),
        ("=3", "--set wants key=value"),
        ("train.lr=[1", "'[1' is not a YAML value"),
        ("train.rate=1", "unknown key 'train.rate'"),
        ("train.lr.x=1", "'train.lr' must be a number"),
    ],
)
def test_malformed_overrides(write, text, part):
    with pytest.raises(UserError) as error:
        load_config(write(""), [text])
    assert part in str(error.value)


def test_architecture_follows_the_fusion_section(tiny_config):
    config = load_config(tiny_config)
    assert isinstance(build_network(config), TSFSeq2Seq)
    assert isinstance(build_network(load_config(tiny_config, ["fusion=null"])), Seq2Seq)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["seq2seq.encoder_strides=[2, 2]"], "strides reduce by 4, but 2 decoder layers enlarge"),
        (["seq2seq.decoder_channels=[4, 5]"], "last layer must give the 3 slices, not 5"),
        (
            ["seq2seq.sequence_code=3"],
            "seq2seq: sequence_code must be at least 4, the number of sequences, not 3",
        ),
        (["fusion.attention_channels=[32]"], "keep the feature's 16 channels"),
    ],
)
def test_settings_that_do_not_fit_together(tiny_config, overrides, part):
    with pytest.raises(UserError, match=part):
        build_network(load_config(tiny_config, overrides))
