"""Experiment settings: YAML → frozen dataclasses, every key with one default and one meaning."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tsf_seq2seq.config_layers import override, read_with_bases
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.migration import with_network_section
from tsf_seq2seq.settings import NetworkSettings, check_odd, parse, setting
from tsf_seq2seq.tasks import check_sequence_names

if TYPE_CHECKING:
    from tsf_seq2seq.models.build import NetworkKind

# BraTS 2021 names, then those of BraTS 2023 and later; the first pattern with a file counts.
BRATS_SEQUENCES = {
    "t1": ("{name}/{name}_t1.nii.gz", "{name}/{name}-t1n.nii.gz"),
    "t1ce": ("{name}/{name}_t1ce.nii.gz", "{name}/{name}-t1c.nii.gz"),
    "t2": ("{name}/{name}_t2.nii.gz", "{name}/{name}-t2w.nii.gz"),
    "flair": ("{name}/{name}_flair.nii.gz", "{name}/{name}-t2f.nii.gz"),
}
BRATS_SEGMENTATION = ("{name}/{name}_seg.nii.gz", "{name}/{name}-seg.nii.gz")
# Beyond these, little of the anatomy is left: it leaves the crop, folds, or turns black or white.
MOST_AUGMENTATION = {
    "probability": 1,
    "rotation": 180,
    "scale": 0.9,
    "elastic": 10,
    "gain": 1,
    "gamma": 1,
    "bias": 1,
    "noise": 0.5,
}

FinishStep = Literal["flip", "neighbours", "map", "background", "clip"]
FINISH_STEPS: tuple[FinishStep, ...] = get_args(FinishStep)  # in the order in which they are done


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
    stack: int = setting(3, "neighbouring slices that the network sees at once, odd", 1)
    slices: int = setting(128, "central axial slices taken of a volume", 1)
    crop: tuple[int, int] = setting((192, 192), "height and width of crops, voxels", 8)
    validation_stacks: int = setting(16, "central slice stacks that validation looks at", 1)
    workers: int = setting(2, "processes that read volumes ahead, 0 reads in the training one", 0)
    cache_gb: float = setting(0.0, "memory for volumes already read, GB per reading process", 0)

    def __post_init__(self) -> None:
        check_sequence_names(self.sequences)
        check_odd(self, "stack")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How training crops are varied: shapes of all sequences alike, intensities of inputs alone.

    0 leaves a variation out. Intensities are meant in [0, 1], u = (x + 1) / 2.
    """

    probability: float = setting(1.0, "share of the crops that are varied at all", 0)
    rotation: float = setting(0.0, "largest angle in plane, degrees, either way", 0)
    scale: float = setting(0.0, "largest change of the size in plane: a factor in 1 ± this", 0)
    elastic: float = setting(0.0, "standard deviation of smooth displacements, voxels", 0)
    gain: float = setting(0.0, "standard deviation of log g, each sequence's u · g", 0)
    gamma: float = setting(0.0, "standard deviation of log γ, each sequence's u ** γ", 0)
    bias: float = setting(0.0, "standard deviation of the log of a smooth factor of u", 0)
    noise: float = setting(0.0, "standard deviation of what is added to u at each voxel", 0)

    def __post_init__(self) -> None:
        for name, most in MOST_AUGMENTATION.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:g}, not {getattr(self, name):g}")

    @property
    def spatial(self) -> bool:
        """Whether shapes are varied."""
        return max(self.rotation, self.scale, self.elastic) > 0

    @property
    def intensity(self) -> bool:
        """Whether intensities are varied, so that inputs differ from images."""
        return max(self.gain, self.gamma, self.bias, self.noise) > 0


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
    clip_norm: float = setting(0.0, "norm to which longer gradients are cut, 0 cuts none", 0)
    average: float = setting(
        0.0,
        "share of the averaged weights that a step keeps; these are then used; 0: no average",
        0,
    )
    batch_size: int = setting(1, "subjects visited together; their crops share a task", 1)
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

    def __post_init__(self) -> None:
        if self.average >= 1:
            raise ValueError(f"average must be below 1, not {self.average:g}")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is done to networks' outputs in evaluation and imputation; the steps in their order."""

    finish: tuple[FinishStep, ...] = setting(
        (), f"steps, of {', '.join(FINISH_STEPS)}; none: the paper's protocol"
    )

    def __post_init__(self) -> None:
        for step in FINISH_STEPS:
            if self.finish.count(step) > 1:
                raise ValueError(
                    f"finish names {step} more than once; it takes {', '.join(FINISH_STEPS)}, each "
                    "once at most"
                )
        object.__setattr__(self, "finish", tuple(s for s in FINISH_STEPS if s in self.finish))


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment; what classes `network` and `loss` are of, the network's name says."""

    network: NetworkSettings = setting(dataclasses.MISSING, "the network")
    loss: Any = setting(None, "weights of the loss terms; None: the network's usual ones")
    data: DataConfig = setting(DataConfig(), "the data set")
    augmentation: AugmentationConfig = setting(AugmentationConfig(), "how crops are varied")
    perceptual: PerceptualConfig = setting(PerceptualConfig(), "the perceptual loss's network")
    train: TrainConfig = setting(TrainConfig(), "the training run")
    evaluation: EvaluationConfig = setting(EvaluationConfig(), "evaluation and imputation")

    def __post_init__(self) -> None:
        if self.loss is None:
            object.__setattr__(self, "loss", _kind(self.network.name).objective.weights())


def load_config(
    path: Path | str, overrides: Sequence[str] = (), network: str | None = None
) -> Config:
    """Config of a YAML file, with `overrides` such as "train.lr=2e-4" on top.

    `network`: the one that is meant where the file names none. Raises UserError that names the file
    and key for whatever is wrong with it.
    """
    values = override(read_with_bases(Path(path)), overrides)
    return config_from_mapping(values, str(path), network)


def config_from_mapping(
    values: Mapping[str, Any], origin: str, network: str | None = None
) -> Config:
    """Config of plain nested mappings, as YAML or a checkpoint holds them.

    `network`: the one that is meant where they name none.
    """
    values = with_network_section(values, origin, network)
    section = values["network"]
    kind = _kind(section["name"], origin)
    parsed = {
        "network": parse(kind.settings, section, origin, "network."),
        "loss": parse(kind.objective.weights, values.get("loss", {}), origin, "loss."),
    }
    return parse(Config, dict(values) | parsed, origin)


def _kind(name: object, origin: str = "settings") -> "NetworkKind":
    """What the table of networks has under `name`; imported late, since networks need PyTorch."""
    from tsf_seq2seq.models.build import NETWORKS

    if not isinstance(name, str) or name not in NETWORKS:
        raise UserError(
            f"{origin}: 'network.name' must be one of {', '.join(NETWORKS)}, not {name!r}"
        )
    return NETWORKS[name]


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain mapping of a settings dataclass: nothing but dict, list, str and numbers."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
