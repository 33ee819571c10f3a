"""What the two stages optimize: their loss terms and the parameters that train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.config import LossConfig
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.build import Network
from tsf_seq2seq.tasks import Task, sample_fusion_task, sample_translation, translation_pairs
from tsf_seq2seq.training.perceptual import PerceptualLoss

if TYPE_CHECKING:  # so that steps run without the packages that read images
    from tsf_seq2seq.data.sampling import Crop, SampleTask
    from tsf_seq2seq.data.subjects import Subject


class LossTerms(NamedTuple):
    """Unweighted loss terms of one step, scalars."""

    reconstruction: Tensor
    perceptual: Tensor
    cycle: Tensor

    def total(self, weights: LossConfig) -> Tensor:
        return (
            weights.reconstruction * self.reconstruction
            + weights.perceptual * self.perceptual
            + weights.cycle * self.cycle
        )


def seq2seq_loss(
    network: Seq2Seq,
    images: Tensor,
    task: Task,
    perceptual: PerceptualLoss | None = None,
    cycle: bool = True,
) -> LossTerms:
    """Stage 1: SmoothL1 and perceptual loss of target and of reconstructed source, and the cycle.

    images (B, S, C, H, W); cycle = SmoothL1(synthesized target → source, source), left out (zero)
    where `cycle` is false. Source: the Seq2Seq paper (arXiv 2302.00517).
    """
    (source,), target = task
    wanted, given = images[:, target], images[:, source]  # (B, C, H, W)
    feature = network.encode(given.unsqueeze(1))  # (B, c, H/r, W/r)
    size = given.shape[-2:]
    to_target, to_source = network.decoder_convs(target, source)
    synthesized = network.decode(feature, target, size, convs=to_target).squeeze(1)  # (B, C, H, W)
    reconstructed = (
        network.decode(feature, source, size, convs=to_source).squeeze(1)
        if source != target
        else synthesized
    )
    comparisons = [(wanted, [synthesized]), (given, [reconstructed])]
    back = given.new_zeros(())
    if cycle:
        again = network.encode(synthesized.unsqueeze(1))  # (B, c, H/r, W/r)
        back = F.smooth_l1_loss(
            network.decode(again, source, size, convs=to_source).squeeze(1).float(), given
        )
    return LossTerms(_smooth_l1(comparisons), _perceptual(perceptual, comparisons), back)


def tsf_loss(
    network: TSFSeq2Seq,
    images: Tensor,
    task: Task,
    perceptual: PerceptualLoss | None = None,
    skip_attention: bool = False,
) -> LossTerms:
    """Stage 2: the target without and with f_A, and the first source reconstructed.

    images (B, S, C, H, W); `skip_attention` reconstructs without f_A. Source: the TSF-Seq2Seq
    paper (arXiv 2307.00885). The encoder is frozen, so that its outputs need no gradient.
    """
    first = task.sources[0]
    wanted, given = images[:, task.target], images[:, first]  # (B, C, H, W)
    size = given.shape[-2:]
    with torch.no_grad():
        features = network.encode(images[:, list(task.sources)])  # (B, n, c, H/r, W/r)
    fused = network.fuse(features, task.sources, task.target)  # (B, c, H/r, W/r)
    residual = network.attend(features, fused, task.sources, task.target)
    both = torch.cat([fused, fused + residual])  # (2·B, c, H/r, W/r)
    to_target, to_first = network.seq2seq.decoder_convs(task.target, first)
    plain, refined = network.decode(both, task.target, size, to_target).chunk(2)  # (B, C, H, W)
    reconstructed = network.synthesize(
        features, task.sources, first, size, not skip_attention, to_first
    )
    comparisons = [(wanted, [plain, refined]), (given, [reconstructed])]
    return LossTerms(
        _smooth_l1(comparisons), _perceptual(perceptual, comparisons), given.new_zeros(())
    )


@dataclass(frozen=True)
class Stage:
    """What tells one stage's training from the other's."""

    title: str
    sample_task: SampleTask
    loss: Callable[[Network, Crop, PerceptualLoss | None, LossConfig], LossTerms]
    validation_tasks: Callable[[Subject], list[Task]]


def _seq2seq_step(
    network: Network, crop: Crop, perceptual: PerceptualLoss | None, weights: LossConfig
) -> LossTerms:
    assert isinstance(network, Seq2Seq)
    return seq2seq_loss(network, crop.images, crop.task, perceptual, weights.cycle > 0)


def _tsf_step(
    network: Network, crop: Crop, perceptual: PerceptualLoss | None, weights: LossConfig
) -> LossTerms:
    assert isinstance(network, TSFSeq2Seq)
    return tsf_loss(network, crop.images, crop.task, perceptual, crop.skip_attention)


def missing_target_tasks(subject: Subject) -> list[Task]:
    """The subject's available sequences → each of its missing ones that is on disk."""
    return [Task(subject.available, target) for target in subject.missing_targets]


SEQ2SEQ = Stage(
    title="stage 1, Seq2Seq",
    sample_task=sample_translation,
    loss=_seq2seq_step,
    validation_tasks=lambda subject: translation_pairs(subject.available),
)
TSF = Stage(
    title="stage 2, TSF-Seq2Seq",
    sample_task=sample_fusion_task,
    loss=_tsf_step,
    validation_tasks=missing_target_tasks,
)


def freeze_encoder(network: TSFSeq2Seq) -> None:
    """Stage 2 leaves stage 1's encoder and encoder ConvLSTM as they are."""
    network.seq2seq.encoder.requires_grad_(False)
    network.seq2seq.encoder_lstm.requires_grad_(False)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def poly_learning_rate(lr: float, epoch: int, epochs: int, minimum: float = 1e-6) -> float:
    """lr_e = lr_min + (lr − lr_min)(1 − e/E)^0.9; past the schedule's end it stays lr_min."""
    return minimum + (lr - minimum) * max(0.0, 1 - epoch / epochs) ** 0.9


# Each target image with the outputs that are compared with it.
Comparisons = list[tuple[Tensor, list[Tensor]]]


def _smooth_l1(comparisons: Comparisons) -> Tensor:
    return _sum(
        F.smooth_l1_loss(output.float(), wanted)
        for wanted, outputs in comparisons
        for output in outputs
    )


def _perceptual(loss: PerceptualLoss | None, comparisons: Comparisons) -> Tensor:
    """Sum over all outputs; each target's features are computed once."""
    if loss is None:
        return comparisons[0][0].new_zeros(())
    terms = []
    for wanted, outputs in comparisons:
        features = loss.target_features(wanted)
        terms += [loss(output, features) for output in outputs]
    return _sum(terms)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
