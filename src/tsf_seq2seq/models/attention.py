"""Task-specific attention: the residual f_A that refines the fused feature.

Source: TSF-Seq2Seq paper (arXiv 2307.00885), task-specific attention.
"""

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.blocks import (
    ConvLayer,
    GeneratedConv,
    HyperConv,
    Norm,
    activation,
    feature_norm,
)


class ChannelAttention(nn.Module):
    """σ(M(avgpool r) + M(maxpool r)), (B, c, 1, 1); M: HyperConv 1×1 to c/16, LeakyReLU, back."""

    def __init__(self, channels: int, code_length: int, n_kernels: int) -> None:
        super().__init__()
        self.reduce = HyperConv(channels, channels // 16, 1, code_length, n_kernels)
        self.expand = HyperConv(channels // 16, channels, 1, code_length, n_kernels)

    def forward(self, r: Tensor, task_code: Tensor) -> Tensor:
        pooled = torch.cat([r.mean(dim=(2, 3), keepdim=True), r.amax(dim=(2, 3), keepdim=True)])
        squeezed = activation(self.reduce(pooled, task_code))  # (2·B, c/16, 1, 1)
        expanded = self.expand(squeezed, task_code).unflatten(0, (2, r.shape[0]))
        return torch.sigmoid(expanded.sum(dim=0))  # (B, c, 1, 1)


class SpatialAttention(nn.Module):
    """σ(HyperConv 7×7([channel mean, channel max])), (B, 1, h, w); zero padding, no bias."""

    def __init__(self, code_length: int, n_kernels: int) -> None:
        super().__init__()
        self.conv = HyperConv(2, 1, 7, code_length, n_kernels, bias=False)

    def forward(self, r: Tensor, task_code: Tensor) -> Tensor:
        pooled = torch.cat([r.mean(dim=1, keepdim=True), r.amax(dim=1, keepdim=True)], dim=1)
        padded = nn.functional.pad(pooled, (3, 3, 3, 3))
        return torch.sigmoid(self.conv(padded, task_code))


class AttentionLayer(nn.Module):
    """r ← act(norm(HyperConv r)); r ← r · channel attention; r ← r · spatial attention."""

    def __init__(
        self, c_in: int, layer: ConvLayer, code_length: int, n_kernels: int, norm: Norm
    ) -> None:
        super().__init__()
        self.norm = norm
        self.conv = HyperConv(c_in, layer.channels, layer.kernel, code_length, n_kernels)
        self.channel_attention = ChannelAttention(layer.channels, code_length, n_kernels)
        self.spatial_attention = SpatialAttention(code_length, n_kernels)

    def forward(self, r: Tensor, task_code: Tensor, present: Tensor | None = None) -> Tensor:
        """r (B, c_in, h, w) → (B, c, h, w).

        With `present`, indices of the available sequences, r holds their features only: what
        stands for the absent ones is zero, so their part of the kernel is left out.
        """
        kernel = self.conv.kernel(task_code)
        if present is not None:
            kernel = present_part(kernel, present, r.shape[1] // len(present))
        r = GeneratedConv(kernel, self.conv.bias(task_code))(r)  # (B, c, h, w)
        r = activation(feature_norm(r, self.norm))
        r = r * self.channel_attention(r, task_code)
        return r * self.spatial_attention(r, task_code)


def present_part(kernel: Tensor, present: Tensor, channels: int) -> Tensor:
    """The part (c, n·channels, k, k) of a kernel that meets the n `present` of S sequences."""
    return kernel.unflatten(1, (-1, channels))[:, present].flatten(1, 2)


class TaskAttention(nn.Module):
    """f_A: the sum of what each attention layer adds to the fused feature x (x ← x + r)."""

    def __init__(
        self,
        n_sequences: int,
        channels: int,
        layers: tuple[ConvLayer, ...],
        n_kernels: int,
        norm: Norm,
    ) -> None:
        """`channels`: of a source's feature, which every layer must give too, else ValueError."""
        super().__init__()
        for layer in layers:
            if layer.channels != channels or layer.stride != 1:
                raise ValueError(
                    f"an attention layer must keep the feature's {channels} channels and its size, "
                    f"not give {layer.channels} channels at stride {layer.stride}"
                )
        inputs = [n_sequences * channels] + [channels] * (len(layers) - 1)
        self.layers = nn.ModuleList(
            AttentionLayer(c_in, layer, 2 * n_sequences, n_kernels, norm)
            for c_in, layer in zip(inputs, layers, strict=True)
        )

    def forward(
        self, features: Tensor, fused: Tensor, task_code: Tensor, present: Tensor | None
    ) -> Tensor:
        """f_A (B, c, h, w) of the sources' features (B, n, c, h, w) and fused (B, c, h, w).

        `present`: indices of the sources, None where the first kernel takes just these.
        """
        residual = self.layers[0](features.flatten(1, 2), task_code, present)
        for layer in list(self.layers)[1:]:
            residual = residual + layer(fused + residual, task_code)
        return residual
