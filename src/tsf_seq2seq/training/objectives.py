"""What the training of each network optimizes: its loss terms, tasks, optimizers and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.seq2seq import Seq2Seq
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq
from tsf_seq2seq.settings import setting
from tsf_seq2seq.tasks import (
    Task,
    missing_target_tasks,
    sample_fusion_task,
    sample_missing_task,
    sample_translation,
    translation_pairs,
)
from tsf_seq2seq.training.perceptual import PerceptualLoss

if TYPE_CHECKING:  # so that steps run without the packages that read images
    import numpy as np

    from tsf_seq2seq.config import Config, TrainConfig
    from tsf_seq2seq.data.loading import Subject
    from tsf_seq2seq.data.sampling import Crop

NETWORK = "network"  # the optimizer of a network that is trained by one


class Objective:
    """How one kind of network is trained; an instance per run.

    `title` names the training in messages. `terms`: the loss terms, in log.csv's order; `weights`:
    the settings class of the YAML's section `loss`, with a weight for each. `some_rest`: whether a
    step's loss may leave some of the trained parameters out, of which several processes must know.
    `smallest_crop`: voxels below which a loss is not defined; `fewest_sequences`: those that a
    subject must have to be trained on.
    """

    some_rest: ClassVar[bool] = False
    smallest_crop: ClassVar[int] = 1
    fewest_sequences: ClassVar[int] = 1
    title: ClassVar[str]
    terms: ClassVar[tuple[str, ...]]
    weights: ClassVar[type]

    def __init__(self, network: Any, loss: Any, perceptual: PerceptualLoss | None = None) -> None:
        """`loss`: weights of the terms, an instance of `weights`; `perceptual`: None for no such
        term."""
        self.network, self.loss, self.perceptual = network, loss, perceptual

    @staticmethod
    def sample_task(available: Sequence[int], rng: np.random.Generator) -> Task:
        """A crop's task, of a subject that has the `available` sequences."""
        raise NotImplementedError

    @staticmethod
    def validation_tasks(subject: Subject) -> list[Task]:
        """Those whose mean PSNR chooses the best weights."""
        return missing_target_tasks(subject)

    @classmethod
    def task_at(cls, available: Sequence[int], rng: np.random.Generator, done: float) -> Task:
        """A crop's task when the share `done` of the run is past, for those with a curriculum.

        Of the class, so that reading processes are not given the network.
        """
        return cls.sample_task(available, rng)

    def configure(self, config: Config) -> None:
        """What modules beside the network take from the whole experiment; by most nothing."""

    def prepare(self, config: Config, subjects: Sequence[Subject]) -> None:
        """What is computed of the training subjects before the first step; by most nothing."""

    def trained(self) -> Mapping[str, nn.Module]:
        """What each optimizer trains, by its name, in the order in which they step.

        Modules beside the network, such as a discriminator, are kept in last.pth, too.
        """
        return {NETWORK: self.network}

    def optimizer(
        self, name: str, parameters: list[nn.Parameter], train: TrainConfig
    ) -> torch.optim.Optimizer:
        """The optimizer `name` of those of its module's parameters that need gradients."""
        on_cuda = parameters[0].device.type == "cuda"
        return torch.optim.Adam(parameters, lr=train.lr, fused=on_cuda)

    def learning_rate(self, train: TrainConfig, epoch: int, step: int) -> float:
        """The rate of step `step` (from 0), in epoch `epoch` of the data."""
        return poly_learning_rate(train.lr, epoch, train.schedule_epochs)

    def begin(self, train: TrainConfig, step: int) -> None:
        """What changes in the course of a training, set for step `step` (from 0); mostly none."""

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        """Unweighted terms, scalars, that the optimizer `name` steps on."""
        raise NotImplementedError

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Σ weight · term."""
        return _sum(getattr(self.loss, name) * term for name, term in terms.items())


@dataclass(frozen=True)
class Seq2SeqLoss:
    """Weights of the loss terms of both stages."""

    reconstruction: float = setting(10.0, "weight of the smooth L1 terms", 0)
    perceptual: float = setting(0.01, "weight of the perceptual terms", 0)
    cycle: float = setting(10.0, "weight of stage 1's cycle term", 0)


class Seq2SeqObjective(Objective):
    """Stage 1: SmoothL1 and perceptual loss of target and of reconstructed source, and the cycle.

    cycle = SmoothL1(synthesized target → source, source), left out (zero) where its weight is.
    Source: the Seq2Seq paper (arXiv 2302.00517).
    """

    title = "stage 1, Seq2Seq"
    terms = ("reconstruction", "perceptual", "cycle")
    weights = Seq2SeqLoss
    sample_task = staticmethod(sample_translation)
    network: Seq2Seq

    @staticmethod
    def validation_tasks(subject: Subject) -> list[Task]:
        return translation_pairs(subject.available)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        (source,), target = crop.task
        network, size = self.network, crop.images.shape[-2:]
        wanted, original = crop.images[:, target], crop.images[:, source]  # (B, C, H, W)
        feature = network.encode(crop.inputs[:, source].unsqueeze(1))  # (B, c, H/r, W/r)
        to_target, to_source = network.decoder_convs(target, source)
        synthesized = network.decode(feature, to_target, size).squeeze(1)  # (B, C, H, W)
        reconstructed = synthesized
        if source != target:
            reconstructed = network.decode(feature, to_source, size).squeeze(1)  # (B, C, H, W)
        comparisons = [(wanted, [synthesized]), (original, [reconstructed])]
        cycle = wanted.new_zeros(())
        if self.loss.cycle > 0:
            again = network.encode(synthesized.unsqueeze(1))  # (B, c, H/r, W/r)
            back = network.decode(again, to_source, size).squeeze(1)  # (B, C, H, W)
            cycle = F.smooth_l1_loss(back.float(), original)
        return {
            "reconstruction": smooth_l1(comparisons),
            "perceptual": perceptual_term(self.perceptual, comparisons),
            "cycle": cycle,
        }


class TSFObjective(Objective):
    """Stage 2: the target without and with f_A, and the first source reconstructed.

    The crop's coin says whether without f_A. Stage 1's encoder stays as it is, so that its outputs
    need no gradient. Source: the TSF-Seq2Seq paper (arXiv 2307.00885).
    """

    title = "stage 2, TSF-Seq2Seq"
    terms = ("reconstruction", "perceptual")
    weights = Seq2SeqLoss
    sample_task = staticmethod(sample_fusion_task)
    network: TSFSeq2Seq

    def __init__(
        self, network: TSFSeq2Seq, loss: Seq2SeqLoss, perceptual: PerceptualLoss | None = None
    ) -> None:
        super().__init__(network, loss, perceptual)
        network.seq2seq.encoder.requires_grad_(False)
        network.seq2seq.encoder_lstm.requires_grad_(False)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        sources, target = crop.task
        first, network, size = sources[0], self.network, crop.images.shape[-2:]
        wanted, original = crop.images[:, target], crop.images[:, first]  # (B, C, H, W)
        with torch.no_grad():
            features = network.encode(crop.inputs[:, list(sources)])  # (B, n, c, H/r, W/r)
        fused = network.fuse(features, sources, target)  # (B, c, H/r, W/r)
        residual = network.attend(features, fused, sources, target)
        both = torch.cat([fused, fused + residual])  # (2·B, c, H/r, W/r)
        to_target, to_first = network.seq2seq.decoder_convs(target, first)
        plain, refined = network.decode(both, to_target, size).chunk(2)  # (B, C, H, W)
        feature = network.fuse(features, sources, first)  # (B, c, H/r, W/r)
        if not crop.coin:
            feature = feature + network.attend(features, feature, sources, first)
        reconstructed = network.decode(feature, to_first, size)  # (B, C, H, W)
        comparisons = [(wanted, [plain, refined]), (original, [reconstructed])]
        return {
            "reconstruction": smooth_l1(comparisons),
            "perceptual": perceptual_term(self.perceptual, comparisons),
        }


@dataclass(frozen=True)
class UNetLoss:
    """Weights of the U-Net's loss terms."""

    l1: float = setting(1.0, "weight of the mean absolute error", 0)


class UNetObjective(Objective):
    """Mean absolute error of the target, AdamW, one cycle of the learning rate."""

    title = "U-Net"
    terms = ("l1",)
    weights = UNetLoss
    sample_task = staticmethod(sample_missing_task)
    network: SynthesisNetwork

    def optimizer(
        self, name: str, parameters: list[nn.Parameter], train: TrainConfig
    ) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=train.lr)

    def learning_rate(self, train: TrainConfig, epoch: int, step: int) -> float:
        return one_cycle_learning_rate(train.lr, step / train.steps)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        sources, target = crop.task
        available = [index in sources for index in range(crop.inputs.shape[1])]
        output = self.network(crop.inputs, available, target)  # (B, C, H, W)
        return {"l1": F.l1_loss(output.float(), crop.images[:, target])}


def poly_learning_rate(lr: float, epoch: int, epochs: int, minimum: float = 1e-6) -> float:
    """lr_e = lr_min + (lr − lr_min)(1 − e/E)^0.9; past the schedule's end it stays lr_min."""
    return minimum + (lr - minimum) * max(0.0, 1 - epoch / epochs) ** 0.9


def one_cycle_learning_rate(lr: float, done: float, warm_up: float = 0.3) -> float:
    """From lr/25 up to lr over the first 30 % of the run, down to lr/250,000, along cosines.

    `done`: share of the run that is past, in [0, 1]. Smith and Topin 2019, with PyTorch's defaults.
    """
    low, high, last = lr / 25, lr, lr / 250_000
    if done < warm_up:
        return low + (high - low) * (1 - math.cos(math.pi * done / warm_up)) / 2
    return last + (high - last) * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2


# Each target image with the outputs that are compared with it.
Comparisons = Sequence[tuple[Tensor, Sequence[Tensor]]]


def smooth_l1(comparisons: Comparisons) -> Tensor:
    """Sum over all outputs of SmoothL1(output, target)."""
    return torch.stack(
        [
            F.smooth_l1_loss(output.float(), wanted)
            for wanted, outputs in comparisons
            for output in outputs
        ]
    ).sum()


def perceptual_term(loss: PerceptualLoss | None, comparisons: Comparisons) -> Tensor:
    """Sum over all outputs of the perceptual loss; each target's features are computed once."""
    if loss is None:
        return comparisons[0][0].new_zeros(())
    terms = []
    for wanted, outputs in comparisons:
        features = loss.target_features(wanted)
        terms += [loss(output, features) for output in outputs]
    return torch.stack(terms).sum()


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    return sum(others, first)
