"""Settings: every YAML loads, the paper's values stand, and mistakes are named."""

import dataclasses
import os
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_SEQ2SEQ, TINY_TSF, TINY_UNET

from tsf_seq2seq.config import Config, config_from_mapping, load_config, to_mapping
from tsf_seq2seq.config_layers import override
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.yaml_text import parse_yaml
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq, UNet, build_network
from tsf_seq2seq.models.seq2seq import Seq2SeqConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.models.unet import UNetConfig
from tsf_seq2seq.training.objectives import Seq2SeqLoss, UNetLoss

YAMLS = sorted((REPOSITORY / "config").rglob("*.yaml"))
PAPER = {"stage 1": "seq2seq_brats_2d.yaml", "stage 2": "tsf_seq2seq_brats_2d.yaml"}
FULL_SIZE = {
    "sequence_code": 64,
    "kernels": 16,
    "encoder_channels": (64, 128, 256),
    "encoder_kernels": (7, 3, 3),
    "encoder_strides": (1, 2, 2),
    "encoder_residual_blocks": 6,
    "lstm_channels": 256,
    "lstm_layers": 3,
    "decoder_channels": (128, 64, 3),
    "decoder_kernels": (3, 3, 7),
    "decoder_residual_blocks": 6,
    "norm": "instance",
    "output_start": "grey",
}


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
    own = {key: getattr(config.network, key) for key in FULL_SIZE}
    assert own == FULL_SIZE
    assert config.network == type(config.network)()
    assert config.loss == Seq2SeqLoss(reconstruction=10, perceptual=0.01, cycle=10)
    assert config.perceptual.backbone == "vgg19"
    data = config.data
    assert (data.stack, data.slices, data.crop) == (3, 128, (192, 192))
    assert data.validation_stacks == 16
    assert data.use_all_sequences
    assert tuple(data.sequences) == ("t1", "t1ce", "t2", "flair")
    assert config.train.batch_size == 1


def test_stage_1_is_the_papers():
    config = load_paper("stage 1")
    assert config.network == Seq2SeqConfig(name="seq2seq", **FULL_SIZE)
    train = config.train
    assert (train.steps, train.lr, train.schedule_epochs) == (1_000_000, 2e-4, 1000)
    assert train.crops_per_visit == 8


def test_stage_2_is_the_papers():
    config = load_paper("stage 2")
    assert config.network == TSFSeq2SeqConfig(
        name="tsf_seq2seq",
        attention_channels=(256,),
        attention_kernels=(3,),
        attention_mixed=4,
        attention_norm="none",
        **FULL_SIZE,
    )
    train = config.train
    assert (train.steps, train.lr, train.schedule_epochs) == (300_000, 1e-4, 500)
    assert train.crops_per_visit == 4


@pytest.mark.parametrize("stage", PAPER)
def test_the_fast_recipe_trains_the_same_network_on_no_more_crops(stage):
    paper = load_paper(stage)
    fast = load_config(REPOSITORY / "config" / PAPER[stage].replace("2d", "2d_fast"))
    assert (fast.network, fast.loss) == (paper.network, paper.loss)
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
    assert load_config(write("")) == Config(Seq2SeqConfig())


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
            "network: {encoder_kernels: [7, 3]}",
            ["encoder_channels and encoder_kernels", "one value a layer, not 3 and 2"],
        ),
        (
            "network: {decoder_channels: [128, 3]}",
            ["decoder_channels and decoder_kernels", "not 2 and 3"],
        ),
        (
            "network: {name: tsf_seq2seq, attention_kernels: [3, 3]}",
            ["network: attention_channels and attention_kernels"],
        ),
        ("data: {stack: 4}", ["data: stack must be odd, not 4"]),
        ("network: {encoder_kernels: [7, 4, 3]}", ["encoder_kernels must be odd, not (7, 4, 3)"]),
        ("network: 3", ["'network' must be a mapping"]),
        ("loss: 3", ["'loss' must be a mapping"]),
        *(
            (
                f"network: {{name: {name}}}",
                ["must be one of seq2seq, tsf_seq2seq, tsf_pyramid, unet, pix2pix", f", not {n}"],
            )
            for name, n in (("resnet", "'resnet'"), ("[unet]", "['unet']"), ("3", "3"))
        ),
        ("network: {name: unet, kernels: 4}", ["unknown key 'network.kernels'"]),
        ("network: {name: unet}\nloss: {cycle: 1}", ["unknown key 'loss.cycle'", "is 'l1'"]),
        ("seq2seq: 3", ["'seq2seq' must be a mapping"]),
        ("seq2seq: {slices: 5}\ndata: 3", ["'data' must be a mapping"]),
        ("seq2seq: {slices: 4}", ["data: stack must be odd, not 4"]),
        ("fusion: {norms: none}", ["unknown key 'network.fusion.norms'"]),
        *(
            (
                f"network: {{name: unet}}\n{section}: {{kernels: 3}}",
                [f"section '{section}' of former versions can't stand beside 'network'"],
            )
            for section in ("seq2seq", "fusion")
        ),
        ("[1, 2]", ["must hold a mapping of keys, not list"]),
        ("train: {steps: 3", ["is not valid YAML"]),
    ],
)
def test_mistakes_are_named(write, text, parts):
    check_said(write(text), parts)


def check_said(path, parts) -> str:
    """What is said of a YAML file: one line that begins with it and holds the parts."""
    with pytest.raises(UserError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_names_that_are_allowed(write):
    names = ["t1", "T2-star", "dir_3d", "7", "x" * 40]
    text = "data: {sequences: {" + ", ".join(f"'{name}': a.nii" for name in names) + "}}"
    assert list(load_config(write(text)).data.sequences) == names


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


def test_overrides(write):
    path = write("train: {lr: 1e-3, steps: 5}")
    overrides = ["train.lr=2e-4", "data.crop=[16, 24]", "network.kernels=2", "perceptual.weights="]
    config = load_config(path, overrides)
    assert (config.train.lr, config.train.steps) == (2e-4, 5)
    assert config.data.crop == (16, 24)
    assert config.network == Seq2SeqConfig(kernels=2)
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


# --- networks


@pytest.mark.parametrize(
    ("text", "kind", "loss"),
    [
        (TINY_SEQ2SEQ, Seq2Seq, Seq2SeqLoss(10, 0.01, 10)),
        (TINY_TSF, TSFSeq2Seq, Seq2SeqLoss(10, 0.01, 10)),
        (TINY_UNET, UNet, UNetLoss(l1=1)),
    ],
)
def test_the_name_chooses_the_network_and_its_loss(write, text, kind, loss):
    config = load_config(write(text))
    assert type(build_network(config)) is kind
    assert config.loss == loss
    assert config_from_mapping(to_mapping(config), "checkpoint") == config


def test_a_network_that_is_not_named_is_the_one_meant(write):
    path = write("network: {kernels: 2}")
    assert load_config(path).network == Seq2SeqConfig(kernels=2)
    assert load_config(path, network="tsf_seq2seq").network == TSFSeq2SeqConfig(kernels=2)
    named = write("network: {name: unet}")
    assert load_config(named, network="tsf_seq2seq").network == UNetConfig()


def test_the_number_of_sequences_and_the_stack_are_the_datas(write):
    sequences = "data: {stack: 1, sequences: {a: a.nii, b: b.nii, c: c.nii}}"
    network = build_network(load_config(write(TINY_UNET + sequences)))
    assert (network.n_sequences, network.slices) == (3, 1)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["network.encoder_strides=[2, 2]"], "strides reduce by 4, but 2 decoder layers enlarge"),
        (["network.decoder_channels=[4, 5]"], "last layer must give the 3 slices, not 5"),
        (["data.stack=5"], "last layer must give the 5 slices, not 3"),
        (
            ["network.sequence_code=3"],
            "network tsf_seq2seq: sequence_code must be at least 4, the number of sequences, not 3",
        ),
        (["network.attention_channels=[32]"], "keep the feature's 16 channels"),
    ],
)
def test_settings_that_do_not_fit_together(tiny_config, overrides, part):
    with pytest.raises(UserError, match=part):
        build_network(load_config(tiny_config, overrides))


# --- settings of former versions

FORMER_SEQ2SEQ = """
seq2seq: {sequence_code: 8, slices: 5, decoder_channels: [128, 64, 5], norm: none}
data: {slices: 12}
loss: {cycle: 0}
train: {output_start: background, steps: 5}
"""
FORMER_FUSION = """
fusion: {attention_channels: [256, 256], attention_kernels: [3, 5], kernels: 2, norm: instance}
"""
TODAYS_SEQ2SEQ = """
network: {name: seq2seq, sequence_code: 8, decoder_channels: [128, 64, 5], norm: none,
  output_start: background}
data: {stack: 5, slices: 12}
loss: {cycle: 0}
train: {steps: 5}
"""
TODAYS_TSF = TODAYS_SEQ2SEQ.replace(
    "name: seq2seq",
    "name: tsf_seq2seq, attention_channels: [256, 256], attention_kernels: [3, 5], "
    "attention_mixed: 2, attention_norm: instance",
)


@pytest.mark.parametrize(
    ("former", "today", "network"),
    [
        (FORMER_SEQ2SEQ, TODAYS_SEQ2SEQ, None),
        (FORMER_SEQ2SEQ + "fusion: null", TODAYS_SEQ2SEQ, None),
        (FORMER_SEQ2SEQ + FORMER_FUSION, TODAYS_TSF, None),
        (FORMER_SEQ2SEQ + FORMER_FUSION, TODAYS_SEQ2SEQ, "seq2seq"),  # stage 1's script
        ("fusion: {}", "network: {name: tsf_seq2seq}", None),
        ("seq2seq: {kernels: 4}", "network: {name: tsf_seq2seq, kernels: 4}", "tsf_seq2seq"),
        ("train: {output_start: background}", "network: {output_start: background}", None),
    ],
)
def test_settings_of_former_versions(write, former, today, network):
    wanted = load_config(write(today), network=network)
    config = load_config(write(former), network=network)
    assert config == wanted
    assert type(config.network) is type(wanted.network)


def test_settings_of_former_versions_can_be_overridden(write):
    overrides = ["seq2seq.kernels=4", "fusion.kernels=3", "data.stack=7", "train.steps=6"]
    config = load_config(write(FORMER_SEQ2SEQ + FORMER_FUSION), overrides)
    assert (config.network.kernels, config.network.attention_mixed) == (4, 3)
    assert (config.data.stack, config.train.steps) == (7, 6)


# --- a file on top of another


@pytest.fixture
def files(tmp_path):
    """files(name=text, …): YAML files in a folder; the path of the last."""

    def write(**texts: str) -> Path:
        (tmp_path / "settings").mkdir(exist_ok=True)
        for name, text in texts.items():
            path = tmp_path / "settings" / f"{name}.yaml"
            path.write_text(text)
        return path

    return write


BELOW = """
network: {name: seq2seq, kernels: 4, norm: none}
data: {slices: 12, crop: [16, 24], sequences: {a: a.nii, b: b.nii, c: c.nii}}
loss: {cycle: 0}
train: {steps: 5, lr: 1e-3}
"""


def test_a_file_says_what_differs_from_its_base(files, monkeypatch):
    above = """
base: below.yaml
network: {kernels: 2}
data: {crop: [8, 8], sequences: {d: d.nii, a: other.nii}}
train: {steps: 6}
"""
    path = files(below=BELOW, above=above)
    monkeypatch.chdir(path.parent.parent)  # a base lies beside its file, wherever one is
    config = load_config(Path("settings/above.yaml"), ["train.lr=2e-3"])
    assert config.network == Seq2SeqConfig(kernels=2, norm="none")
    assert config.loss == Seq2SeqLoss(cycle=0)
    data = config.data
    assert (data.slices, data.crop) == (12, (8, 8))  # lists are replaced, not merged
    assert list(data.sequences.items()) == [("d", ("d.nii",)), ("a", ("other.nii",))]  # as a whole
    assert (config.train.steps, config.train.lr) == (6, 2e-3)


def test_bases_of_bases(files):
    path = files(
        below=BELOW,
        middle="base: below.yaml\ntrain: {steps: 6}\nnetwork: {name: seq2seq, kernels: 3}",
        top="base: middle.yaml\ntrain: {seed: 7}",
    )
    config = load_config(path)
    assert config.network == Seq2SeqConfig(kernels=3, norm="none")
    assert (config.train.steps, config.train.seed, config.train.lr) == (6, 7, 1e-3)


def test_another_network_takes_nothing_of_its_bases_network_and_loss(files):
    path = files(
        below=BELOW,
        middle="base: below.yaml\nnetwork: {name: unet, channels: [4, 8]}",
        top="base: middle.yaml\nloss: {l1: 3}",
    )
    config = load_config(path)
    assert config.network == UNetConfig(channels=(4, 8))
    assert config.loss == UNetLoss(l1=3)
    assert (config.data.slices, config.train.steps) == (12, 5)
    fused = files(above="base: below.yaml\nnetwork: {name: tsf_seq2seq}")
    assert load_config(fused).network == TSFSeq2SeqConfig()
    assert load_config(fused).loss == Seq2SeqLoss()


def test_a_base_of_a_former_version(files):
    path = files(below=FORMER_SEQ2SEQ + FORMER_FUSION, above="base: below.yaml\ntrain: {steps: 6}")
    config = load_config(path)
    assert (config.network.attention_mixed, config.network.output_start) == (2, "background")
    assert (config.data.stack, config.train.steps) == (5, 6)


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        ({"top": "base: none.yaml"}, r"settings/top\.yaml: 'base' names .*/none\.yaml, which does"),
        ({"top": "base: top.yaml"}, r"settings/top\.yaml: 'base' leads back to the file itself"),
        (
            {"top": "base: other.yaml", "other": "base: top.yaml"},
            r"settings/other\.yaml: 'base' leads back to the file itself",
        ),
        ({"top": "base: [a.yaml]"}, r"settings/top\.yaml: 'base' must be the name of a YAML file"),
    ],
)
def test_bases_that_are_refused(files, texts, part):
    with pytest.raises(UserError, match=part):
        load_config(files(**texts))


# --- what PyYAML fails on, or takes for something else

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 10)}]}}\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: {seed: 2001-99-99}", ["'2001-99-99' can't be read as timestamp", "line 1"]),
        ("\ntrain: {seed: !!bool x}", ["'x' can't be read as bool: put it in quotes", "line 2"]),
        (f"train: {{seed: {'9' * 5000}}}", ["'9999999999999999999999999999999999999999' can't"]),
        ("train: {lr: !!float x}", ["'x' can't be read as float"]),
        ("train: {seed: !!int ''}", ["'' can't be read as int"]),
        ("train: {seed: !!int '1:x'}", ["'1:x' can't be read as int"]),
        ("train: {seed: !!timestamp x}", ["'x' can't be read as timestamp"]),
        ("train: {seed: !!binary é}", ["failed to convert bas", "line 1"]),
        ("train: {seed: !!python/object:os.x {}}", ["could not determine a constructor"]),
        ("train: " + "[" * 1500 + "]" * 1500, ["is not valid YAML: it is nested too deeply"]),
        ("train: " + "{a: " * 1500 + "1" + "}" * 1500, ["it is nested too deeply"]),
        ("data: &a {crop: *a}", ["what an alias repeats holds the alias itself", "line 1"]),
        ("data: {crop: &a [*a]}", ["what an alias repeats holds the alias itself"]),
        ("data: &a {<<: *a}", ["what an alias repeats holds the alias itself"]),
        (LAUGHS, ["it holds more than 10000 values", "line 4"]),
        (MERGES, ["it holds more than 10000 values"]),
        ("data: {<<: 3}", ["expected a mapping"]),
        *(
            (f"train:\n  {key}: 1", [f"key '{shown}' is read as {kind}, not as text", "line 2"])
            for key, shown, kind in (
                ("yes", "yes", "bool"),
                ("no", "no", "bool"),
                ("~", "~", "null"),
                ("1", "1", "int"),
                ("1.5", "1.5", "float"),
                ("2001-01-01", "2001-01-01", "timestamp"),
            )
        ),
        ("train:\n  ? [a, b]\n  : 1", ["key of several values is read as seq", "line 2"]),
        ("train: {a: 1}\0", ["is not valid YAML"]),
        ('data: {root: "a\\0b"}', ["'data.root' must be a path, not 'a\\x00b'"]),
        ('data: {root: "\\ud800"}', ["'data.root' must be a path"]),
        ("# " + "x" * 100_000, ["longer than 100000 signs"]),
        (
            f"train: {{seed: 0x{'f' * 5000}}}",
            ["'train.seed' must be a whole number, not a value to"],
        ),
        (f"train: {{{'x' * 900}: 1}}", [f"unknown key 'train.{'x' * 194}…'; the nearest"]),
        (f"train: {{lr: {'x' * 5000}}}", ["'train.lr' must be a number, not 'xxx"]),
        ("train: {steps: 1:30:x}", ["'train.steps' must be a whole number, not '1:30:x'"]),
    ],
)
def test_what_yaml_fails_on_is_named(write, text, parts):
    assert len(check_said(write(text), parts)) < 1000


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train.seed=2001-99-99", "is not a YAML value ('2001-99-99' can't be read as timestamp"),
        (f"train.seed={'9' * 5000}", "can't be read as int"),
        (f"data.crop={'[' * 1500}", "is not a YAML value"),
        ("data.sequences={yes: a.nii, b: b.nii}", "key 'yes' is read as bool, not as text"),
        ("data.sequences={a: a.nii, a: b.nii}", "key 'a' stands twice"),
        ("data.crop=&a [*a]", "holds the alias itself"),
    ],
)
def test_what_yaml_fails_on_is_named_in_overrides(write, text, part):
    with pytest.raises(UserError) as error:
        load_config(write(""), [text])
    assert str(error.value).startswith(f"--set {text[:200]}")
    assert part in str(error.value)
    assert len(str(error.value)) < 1000


def test_yaml_that_is_fine(write):
    """A byte order mark, aliases, merged sections, quoted keys, numbers as people write them."""
    text = """\ufeff
train: &train {steps: 1e3, lr: 2e-4}
data: {stack: &three 3, slices: *three, sequences: {'1': a.nii, 'yes': b.nii}}
network: {<<: &plain {kernels: 4}, norm: none}
"""
    config = load_config(write(text), ["train.validation_steps=1e9"])
    assert (config.train.steps, config.train.lr) == (1000, 2e-4)
    assert config.train.validation_steps == 1_000_000_000
    assert (config.data.stack, config.data.slices) == (3, 3)
    assert list(config.data.sequences) == ["1", "yes"]
    assert config.network == Seq2SeqConfig(kernels=4, norm="none")


def test_a_merged_section_may_be_merged_again():
    """What the inner one has from the outer is no key that stands twice."""
    text = "x: {y: &a {<<: &b {k: 1, j: 3}, k: 2}}\nz: {<<: *a}"
    merged = {"k": 2, "j": 3}
    assert parse_yaml(text) == {"x": {"y": merged}, "z": merged}


def test_no_file_in_a_yamls_place(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    for path, said in ((tmp_path / "fifo.yaml", "FIFO"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=rf"config file {path} can't be read: .*{said}"):
            load_config(path)
    with pytest.raises(UserError, match=r"/dev/zero can't be read: .*device"):
        load_config("/dev/zero")
    (tmp_path / "top.yaml").write_text("base: fifo.yaml")
    with pytest.raises(UserError, match=r"fifo\.yaml can't be read"):
        load_config(tmp_path / "top.yaml")
