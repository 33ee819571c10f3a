"""TSF-Seq2Seq (stage 2): any set of source sequences in, any target sequence out.

Source: "An Explainable Deep Framework: Towards Task-Specific Fusion for Multi-to-One MRI
Synthesis", arXiv 2307.00885.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.attention import TaskAttention
from tsf_seq2seq.models.base import (
    FULL,
    WITHOUT_ATTENTION,
    Availability,
    SynthesisNetwork,
)
from tsf_seq2seq.models.blocks import ConvLayer, DecoderConvs, Norm
from tsf_seq2seq.models.fusion import FusionWeights, weighted_average
from tsf_seq2seq.models.seq2seq import Seq2Seq, Seq2SeqConfig
from tsf_seq2seq.settings import check_odd, check_same_length, setting
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import Task


@dataclass(frozen=True)
class TSFSeq2SeqConfig(Seq2SeqConfig):
    """Architecture of TSF-Seq2Seq: Seq2Seq's, and that of the task-specific attention."""

    name: str = setting("tsf_seq2seq", "which network")
    attention_channels: tuple[int, ...] = setting((256,), "channels per attention layer", 16)
    attention_kernels: tuple[int, ...] = setting((3,), "kernel size per attention layer", 1)
    attention_mixed: int = setting(4, "kernels that an attention's HyperConv mixes, c_w", 1)
    attention_norm: Literal["instance", "none"] = setting(
        "none", "normalisation of attention layers"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_same_length(self, "attention_channels", "attention_kernels")
        check_odd(self, "attention_kernels")

    def build(self, n_sequences: int, stack: int) -> "TSFSeq2Seq":
        layers = tuple(map(ConvLayer, self.attention_channels, self.attention_kernels))
        seq2seq = self.build_seq2seq(n_sequences, stack)
        return TSFSeq2Seq(seq2seq, layers, self.attention_mixed, self.attention_norm)


class TSFSeq2Seq(SynthesisNetwork):
    """Seq2Seq's encoder per source, task-specific fusion, Seq2Seq's decoder."""

    variants = (FULL, WITHOUT_ATTENTION)
    builds_on = "seq2seq"

    def __init__(
        self, seq2seq: Seq2Seq, layers: tuple[ConvLayer, ...], n_kernels: int, norm: Norm = "none"
    ) -> None:
        """`layers`, `n_kernels`, `norm`: those of the task-specific attention."""
        super().__init__()
        self.n_sequences, self.slices = seq2seq.n_sequences, seq2seq.slices
        self.size_multiple = seq2seq.size_multiple
        self.seq2seq = seq2seq
        self.fusion = FusionWeights(seq2seq.n_sequences)
        self.attention = TaskAttention(
            seq2seq.n_sequences, seq2seq.lstm_channels, layers, n_kernels, norm
        )

    def forward(
        self, images: Tensor, available: Availability, target: int, attention: bool = True
    ) -> Tensor:
        """Synthesize sequence `target` from the available ones.

        images (B, S, C, H, W) in [-1, 1], available (S,) bool → (B, C, H, W) in [-1, 1]. Pixels of
        absent sequences are never read. Raises ValueError where no sequence is available.
        """
        sources = self.sources_of(available)
        (convs,) = self.seq2seq.decoder_convs(target)
        features = self.encode(images[:, sources])  # (B, n, c, H/r, W/r)
        feature = self.fuse(features, sources, target)  # (B, c, H/r, W/r)
        if attention:
            feature = feature + self.attend(features, feature, sources, target)
        return self.decode(feature, convs, images.shape[-2:])  # (B, C, H, W)

    def encode(self, images: Tensor) -> Tensor:
        """Each source by itself: images (B, n, C, H, W) → features (B, n, c, H/r, W/r)."""
        batch, n = images.shape[:2]
        return self.seq2seq.encode(images.flatten(0, 1).unsqueeze(1)).unflatten(0, (batch, n))

    def fuse(self, features: Tensor, sources: Sequence[int], target: int) -> Tensor:
        """Fused feature f̂ = Σ ω_i f_i, (B, c, h, w); features (B, n, c, h, w) of `sources`."""
        weights = self.fusion(self.task_code(sources, target))[list(sources)]  # (n,)
        return weighted_average(features, weights)

    def attend(
        self, features: Tensor, fused: Tensor, sources: Sequence[int], target: int
    ) -> Tensor:
        """Attention residual f_A (B, c, h, w), which is added to f̂ `fused`."""
        code = self.task_code(sources, target)
        return self.attention(features, fused, code, torch.as_tensor(sources, device=code.device))

    def decode(self, feature: Tensor, convs: DecoderConvs, size: Sequence[int]) -> Tensor:
        """feature (B, c, h, w) → images (B, C, H, W), cut to `size`; `convs`: the target's."""
        return self.seq2seq.decode(feature, convs, size).squeeze(1)

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As every network does it; each source is encoded once."""
        encoded = self.seq2seq.encode_each(images, {i for task in tasks for i in task.sources})
        for target, members in group_by(tasks, attrgetter("target")).items():
            (convs,) = self.seq2seq.decoder_convs(target)
            for task in members:
                features = torch.stack([encoded[i] for i in task.sources], dim=1)
                fused = self.fuse(features, *task)  # (B, c, H/r, W/r)
                for variant in variants:
                    feature = fused
                    if variant == FULL:
                        feature = fused + self.attend(features, fused, *task)
                    yield variant, task, self.decode(feature, convs, images.shape[-2:])

    def fusion_weights(self, available: Availability, target: int) -> Tensor:
        """Fusion weights ω (S,) of a task: they sum to one, and are 0 where a source is absent."""
        return self.fusion(self.task_code(self.sources_of(available), target))

    def compiled_parts(self) -> Iterable[nn.Module]:
        return *self.seq2seq.compiled_parts(), self.attention
