"""Experiment settings: YAML → frozen dataclasses, every key with one default and one meaning."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.settings import check_odd, check_same_length, parse, setting
from tsf_seq2seq.tasks import check_sequence_names

# BraTS 2021 names, then those of BraTS 2023 and later; the first pattern with a file counts.
BRATS_SEQUENCES = {
    "t1": ("{name}/{name}_t1.nii.gz", "{name}/{name}-t1n.nii.gz"),
    "t1ce": ("{name}/{name}_t1ce.nii.gz", "{name}/{name}-t1c.nii.gz"),
    "t2": ("{name}/{name}_t2.nii.gz", "{name}/{name}-t2w.nii.gz"),
    "flair": ("{name}/{name}_flair.nii.gz", "{name}/{name}-t2f.nii.gz"),
}
BRATS_SEGMENTATION = ("{name}/{name}_seg.nii.gz", "{name}/{name}-seg.nii.gz")


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig:
    """Architecture of the Seq2Seq network; the defaults are the published full size."""

    slices: int = setting(3, "neighbouring slices taken as channels, odd", 1)
    sequence_code: int = setting(64, "length of the sequence code, c_s", 1)
    kernels: int = setting(16, "kernels that a HyperConv mixes, c_w", 1)
    encoder_channels: tuple[int, ...] = setting((64, 128, 256), "channels per encoder layer", 1)
    encoder_kernels: tuple[int, ...] = setting((7, 3, 3), "kernel size per encoder layer", 1)
    encoder_strides: tuple[int, ...] = setting((1, 2, 2), "stride per encoder layer", 1)
    encoder_residual_blocks: int = setting(6, "residual blocks of the encoder", 0)
    lstm_channels: int = setting(256, "channels of both ConvLSTMs and of the feature", 1)
    lstm_layers: int = setting(3, "layers of each ConvLSTM", 1)
    decoder_channels: tuple[int, ...] = setting((128, 64, 3), "channels per decoder layer", 1)
    decoder_kernels: tuple[int, ...] = setting((3, 3, 7), "kernel size per decoder layer", 1)
    decoder_residual_blocks: int = setting(6, "residual blocks of the decoder", 0)
    norm: Literal["instance", "none"] = setting("instance", "normalisation of hidden layers")

    def __post_init__(self) -> None:
        check_same_length(self, "encoder_channels", "encoder_kernels", "encoder_strides")
        check_same_length(self, "decoder_channels", "decoder_kernels")
        check_odd(self, "slices", "encoder_kernels", "decoder_kernels")


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """Architecture of the task-specific fusion; the defaults are the published full size."""

    attention_channels: tuple[int, ...] = setting((256,), "channels per attention layer", 16)
    attention_kernels: tuple[int, ...] = setting((3,), "kernel size per attention layer", 1)
    kernels: int = setting(4, "kernels that a HyperConv of the attention mixes, c_w", 1)
    norm: Literal["instance", "none"] = setting("none", "normalisation of attention layers")

    def __post_init__(self) -> None:
        check_same_length(self, "attention_channels", "attention_kernels")
        check_odd(self, "attention_kernels")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where subjects lie and what is taken of them."""

    root: Path = setting(Path("data/brats"), "folder that the file patterns start from")
    store: Path | None = setting(None, "prepared volumes, read instead of the files; may be null")
    train: Path = setting(Path("data/brats/train.csv"), "split CSV (name,mask) to train on")
    valid: Path = setting(Path("data/brats/valid.csv"), "split CSV that chooses the best weights")
    test: Path = setting(Path("data/brats/test.csv"), "split CSV to evaluate on")
    sequences: dict[str, tuple[str, ...]] = setting(
        BRATS_SEQUENCES, "sequence names, in order, each with its file patterns"
    )
    segmentation: tuple[str, ...] = setting(
        BRATS_SEGMENTATION, "file patterns of a tumour or lesion label map; may be empty"
    )
    use_all_sequences: bool = setting(
        True, "train on every sequence on disk, whatever the mask says"
    )
    slices: int = setting(128, "central axial slices taken of a volume", 1)
    crop: tuple[int, int] = setting((192, 192), "height and width of crops, voxels", 8)
    validation_stacks: int = setting(16, "central slice stacks that validation looks at", 1)
    workers: int = setting(2, "processes that read volumes ahead, 0 reads in the training one", 0)
    cache_gb: float = setting(0.0, "memory for volumes already read, GB per reading process", 0)

    def __post_init__(self) -> None:
        check_sequence_names(self.sequences)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    reconstruction: float = setting(10.0, "weight of the smooth L1 terms", 0)
    perceptual: float = setting(0.01, "weight of the perceptual terms", 0)
    cycle: float = setting(10.0, "weight of stage 1's cycle term", 0)


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """The perceptual loss's network."""

    backbone: Literal["vgg19", "vgg16", "none"] = setting("vgg19", "ImageNet network")
    weights: Path | None = setting(None, "its weights (.pth); null looks in the usual places")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The course of a training run."""

    output: Path = setting(Path("runs/train"), "folder for checkpoints, log and curves")
    seed: int = setting(0, "seed of initial weights, crops and tasks", 0)
    steps: int = setting(1_000_000, "optimizer steps until the run ends", 1)
    lr: float = setting(2e-4, "Adam's first learning rate", 1e-12)
    schedule_epochs: int = setting(1000, "epochs over which the rate would fall to 1e-6", 1)
    crops_per_visit: int = setting(8, "crops, each one step, from one visit to a subject", 1)
    batch_size: int = setting(1, "subjects visited together; their crops share a task", 1)
    output_start: Literal["grey", "background"] = setting(
        "grey", "what the untrained decoder puts out: mid-grey (0) or background (-1)"
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32", "arithmetic of the networks: fp32, or mixed with bf16 or (on CUDA) fp16"
    )
    channels_last: bool = setting(
        False, "keep the channels of a voxel together in memory, as GPUs like best"
    )
    compile: bool = setting(False, "compile the networks in the first steps (torch.compile)")
    log_steps: int = setting(100, "steps averaged into one line of log.csv", 1)
    image_steps: int = setting(1000, "steps between image grids for TensorBoard", 1)
    validation_steps: int = setting(10_000, "steps between validations", 1)
    checkpoint_steps: int = setting(1000, "steps between writes of last.pth", 1)


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    seq2seq: Seq2SeqConfig = setting(Seq2SeqConfig(), "the Seq2Seq network")
    fusion: FusionConfig | None = setting(None, "the task-specific fusion; absent in stage 1")
    data: DataConfig = setting(DataConfig(), "the data set")
    loss: LossConfig = setting(LossConfig(), "the loss")
    perceptual: PerceptualConfig = setting(PerceptualConfig(), "the perceptual loss's network")
    train: TrainConfig = setting(TrainConfig(), "the training run")


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Config of a YAML file, with `overrides` such as "train.lr=2e-4" on top.

    Raises UserError that names the file and key for whatever is wrong with it.
    """
    return config_from_mapping(override(read_yaml(path), overrides), str(path))


def config_from_mapping(values: Mapping[str, Any], origin: str) -> Config:
    """Config of plain nested mappings, as YAML or a checkpoint holds them."""
    return parse(Config, values, origin)


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain mapping of a settings dataclass: nothing but dict, list, str and numbers."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, read safely."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of keys, not {type(values).__name__}")
    return values or {}


class _UniqueKeys(yaml.SafeLoader):
    """Safe reading, where a key that stands twice is an error: plain YAML keeps the last only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' stands twice", key.start_mark
                )
            found.add(key.value)
        return super().construct_mapping(node, deep)


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy of nested `values` with each "key.subkey=value" (a YAML value) put in its place."""
    result = dict(values)
    for text in overrides:
        path, separator, value = text.partition("=")
        if not separator or not path:
            raise UserError(f"--set wants key=value, such as train.lr=2e-4, not '{text}'")
        *sections, key = path.split(".")
        place = result
        for section in sections:
            inner = place.get(section)
            place[section] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[section]
        try:
            place[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text}: '{value}' is not a YAML value") from None
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
