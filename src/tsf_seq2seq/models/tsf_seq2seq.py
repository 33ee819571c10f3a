"""TSF-Seq2Seq (stage 2): any set of source sequences in, any target sequence out.

Source: "An Explainable Deep Framework: Towards Task-Specific Fusion for Multi-to-One MRI
Synthesis", arXiv 2307.00885.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.attention import TaskAttention
from tsf_seq2seq.models.blocks import ConvLayer, GeneratedConv, Norm
from tsf_seq2seq.models.fusion import FusionWeights, weighted_average
from tsf_seq2seq.models.seq2seq import Seq2Seq

Availability = Tensor | Sequence[bool]


class TSFSeq2Seq(nn.Module):
    """Seq2Seq's encoder per source, task-specific fusion, Seq2Seq's decoder."""

    def __init__(
        self, seq2seq: Seq2Seq, layers: tuple[ConvLayer, ...], n_kernels: int, norm: Norm = "none"
    ) -> None:
        """`layers`, `n_kernels`, `norm`: those of the task-specific attention."""
        super().__init__()
        self.seq2seq = seq2seq
        self.fusion = FusionWeights(seq2seq.n_sequences)
        self.attention = TaskAttention(
            seq2seq.n_sequences, seq2seq.lstm_channels, layers, n_kernels, norm
        )

    @property
    def n_sequences(self) -> int:
        return self.seq2seq.n_sequences

    def forward(
        self, images: Tensor, available: Availability, target: int, attention: bool = True
    ) -> Tensor:
        """Synthesize sequence `target` from the available ones.

        images (B, S, C, H, W) in [-1, 1], available (S,) bool → (B, C, H, W) in [-1, 1]. Pixels of
        absent sequences are never read. Raises ValueError where no sequence is available.
        """
        sources = self._sources(available)
        features = self.encode(images[:, sources])  # (B, n, c, H/r, W/r)
        return self.synthesize(features, sources, target, images.shape[-2:], attention)

    def synthesize(
        self,
        features: Tensor,
        sources: Sequence[int],
        target: int,
        size: Sequence[int],
        attention: bool = True,
        convs: Sequence[GeneratedConv] | None = None,
    ) -> Tensor:
        """features (B, n, c, h, w) of `sources` → `target` (B, C, H, W), cut to `size`."""
        feature = self.fuse(features, sources, target)  # (B, c, h, w)
        if attention:
            feature = feature + self.attend(features, feature, sources, target)
        return self.decode(feature, target, size, convs)  # (B, C, H, W)

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

    def decode(
        self,
        feature: Tensor,
        target: int,
        size: Sequence[int] | None = None,
        convs: Sequence[GeneratedConv] | None = None,
    ) -> Tensor:
        """feature (B, c, h, w) → images (B, C, H, W) of sequence `target`, cut to `size`.

        `convs`: the target's of `Seq2Seq.decoder_convs`, where they are there already.
        """
        return self.seq2seq.decode(feature, target, size, convs=convs).squeeze(1)

    def task_code(self, sources: Sequence[int], target: int) -> Tensor:
        """z = [availability (S), one-hot target (S)]."""
        if not 0 <= target < self.n_sequences:
            raise ValueError(f"target must be 0 to {self.n_sequences - 1}, not {target}")
        code = torch.zeros(2 * self.n_sequences, device=self.fusion.linear.weight.device)
        code[list(sources)] = 1
        code[self.n_sequences + target] = 1
        return code

    def fusion_weights(self, available: Availability, target: int) -> Tensor:
        """Fusion weights ω (S,) of a task: they sum to one, and are 0 where a source is absent."""
        return self.fusion(self.task_code(self._sources(available), target))

    def enhanced_map(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """TSEM |output with f_A − output without f_A| of the centre slice, (B, H, W)."""
        sources = self._sources(available)
        features = self.encode(images[:, sources])  # (B, n, c, H/r, W/r)
        fused = self.fuse(features, sources, target)  # (B, c, H/r, W/r)
        residual = self.attend(features, fused, sources, target)
        both = torch.cat([fused + residual, fused])  # (2·B, c, H/r, W/r)
        refined, plain = self.decode(both, target, images.shape[-2:]).chunk(2)  # (B, C, H, W) each
        return (refined - plain)[:, refined.shape[1] // 2].abs()

    def _sources(self, available: Availability) -> list[int]:
        """Indices of the available sequences, ascending."""
        flags = torch.as_tensor(available, dtype=torch.bool).tolist()
        if len(flags) != self.n_sequences:
            raise ValueError(f"availability of {self.n_sequences} sequences needed, not {flags}")
        if not any(flags):
            raise ValueError("no source sequence is available")
        return [index for index, flag in enumerate(flags) if flag]
