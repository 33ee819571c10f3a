"""Building blocks shared by encoder, decoder and attention."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["instance", "none"]


class ConvLayer(NamedTuple):
    """One convolution of an encoder, decoder or attention stack."""

    channels: int
    kernel: int
    stride: int = 1


def activation(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2, the only activation of hidden layers."""
    return F.leaky_relu(x, 0.2)


def feature_norm(x: Tensor, norm: Norm) -> Tensor:
    """InstanceNorm without affine parameters over (H, W), or nothing; keeps the memory format."""
    if norm == "none":
        return x
    if x.is_contiguous():
        return F.instance_norm(x)
    # A tensor in channels_last would leave F.instance_norm contiguous.
    precise = x.to(torch.promote_types(x.dtype, torch.float32))  # (B, c, H, W)
    variance, mean = torch.var_mean(precise, dim=(2, 3), correction=0, keepdim=True)
    return ((precise - mean) * torch.rsqrt(variance + 1e-5)).to(x.dtype)


def reflect_pad(x: Tensor, kernel: int) -> Tensor:
    """Pad H and W by reflection so that a stride 1 convolution of `kernel` keeps the size."""
    return F.pad(x, (kernel // 2,) * 4, mode="reflect")


def as_autocast(x: Tensor) -> Tensor:
    """x in the precision that autocast gives convolutions, or as it is."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Conv(nn.Conv2d):
    """Reflect-padded convolution; Kaiming normal kernel (fan_in), bias at zero."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(reflect_pad(x, self.kernel_size[0]))


class GeneratedConv(NamedTuple):
    """A convolution as a HyperConv generates it for one code: kernel (c_out, c_in, k, k), bias."""

    kernel: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, pad: bool = True) -> Tensor:
        """Convolve x (B, c_in, H, W), reflect-padded to keep its size, or as it is."""
        x = reflect_pad(x, self.kernel.shape[-1]) if pad else x
        return F.conv2d(x, self.kernel, self.bias)


class DecoderConvs(NamedTuple):
    """What a decoder does for one target: the convolutions that its HyperConvs generate."""

    blocks: tuple[tuple[GeneratedConv, GeneratedConv], ...]
    upsampling: tuple[GeneratedConv, ...]
    output: GeneratedConv


class HyperConv(nn.Module):
    """Convolution whose kernel is a code-dependent mixture: K = Σ_k P[..., k] · (A s + α)_k.

    The bias is mixed likewise, Σ_k b[:, k] · (B s + β)_k. Source: Seq2Seq paper (arXiv 2302.00517),
    dynamic convolution of the decoder.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        code_length: int,
        n_kernels: int,
        bias: bool = True,
    ) -> None:
        """`code_length`: length of the code s; `n_kernels`: how many kernels P are mixed (c_w)."""
        super().__init__()
        self.kernels = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel, n_kernels))
        self.kernel_mixture = nn.Linear(code_length, n_kernels)
        self.biases = nn.Parameter(torch.zeros(c_out, n_kernels)) if bias else None
        self.bias_mixture = nn.Linear(code_length, n_kernels) if bias else None
        nn.init.kaiming_normal_(self.kernels)  # fan_in of the 5-d tensor: c_in · k · k · c_w

    def kernel(self, code: Tensor) -> Tensor:
        """(c_out, c_in, k, k) kernel of `code` (code_length,)."""
        return self.kernels @ self.kernel_mixture(code)

    def kernels_of(self, codes: Tensor) -> Tensor:
        """(n, c_out, c_in, k, k) kernels of `codes` (n, code_length), in one pass over P.

        In float32 also under autocast: casting P and its gradient takes longer than mixing it.
        """
        with torch.autocast(codes.device.type, enabled=False):
            mixtures = self.kernel_mixture(codes.to(self.kernels.dtype))  # (n, c_w)
            mixed = mixtures @ self.kernels.flatten(0, 3).T  # (n, c_out·c_in·k·k)
        return mixed.unflatten(1, self.kernels.shape[:4])

    def bias(self, code: Tensor) -> Tensor | None:
        """(c_out,) bias of `code`, or None."""
        if self.biases is None or self.bias_mixture is None:
            return None
        return self.biases @ self.bias_mixture(code)

    def generate(self, codes: Tensor) -> list[GeneratedConv]:
        """The convolution for each of `codes` (n, code_length)."""
        kernels = as_autocast(self.kernels_of(codes))
        return [
            GeneratedConv(kernel, self.bias(code))
            for kernel, code in zip(kernels.unbind(), codes, strict=True)
        ]

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Convolve x (B, c_in, H, W) without padding; one code (code_length,) for the batch."""
        return GeneratedConv(self.kernel(code), self.bias(code))(x, pad=False)


class ResidualBlock(nn.Module):
    """x + norm(conv(act(norm(conv(x))))), 3×3, reflect-padded."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        r = activation(feature_norm(self.conv1(x), self.norm))
        return x + feature_norm(self.conv2(r), self.norm)


class HyperResidualBlock(nn.Module):
    """`ResidualBlock` whose convolutions depend on the style of the target sequence."""

    def __init__(self, channels: int, code_length: int, n_kernels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = HyperConv(channels, channels, 3, code_length, n_kernels)
        self.conv2 = HyperConv(channels, channels, 3, code_length, n_kernels)

    def forward(self, x: Tensor, conv1: GeneratedConv, conv2: GeneratedConv) -> Tensor:
        """x (B, c, h, w) with what `conv1` and `conv2` generated."""
        r = activation(feature_norm(conv1(x), self.norm))
        return x + feature_norm(conv2(r), self.norm)


class Encoder(nn.Module):
    """Strided convolutions and residual blocks: (B, C, H, W) → (B, c, H/r, W/r)."""

    def __init__(
        self, c_in: int, layers: Sequence[ConvLayer], n_residual_blocks: int, norm: Norm
    ) -> None:
        super().__init__()
        self.norm = norm
        channels = [c_in, *(layer.channels for layer in layers)]
        self.convs = nn.ModuleList(
            Conv(c, layer.channels, layer.kernel, layer.stride)
            for c, layer in zip(channels, layers, strict=False)
        )
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(channels[-1], norm) for _ in range(n_residual_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = activation(feature_norm(conv(x), self.norm))
        for block in self.residual_blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Hyper residual blocks, ×2 up-sampling layers, output: (B, c, h, w) → (B, C, H, W).

    Every layer but the last doubles the size; values leave through tanh, in [-1, 1].
    """

    def __init__(
        self,
        c_in: int,
        layers: Sequence[ConvLayer],
        n_residual_blocks: int,
        norm: Norm,
        code_length: int,
        n_kernels: int,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.residual_blocks = nn.ModuleList(
            HyperResidualBlock(c_in, code_length, n_kernels, norm) for _ in range(n_residual_blocks)
        )
        channels = [c_in, *(layer.channels for layer in layers)]
        convs = [
            HyperConv(c, layer.channels, layer.kernel, code_length, n_kernels)
            for c, layer in zip(channels, layers, strict=False)
        ]
        self.upsampling = nn.ModuleList(convs[:-1])
        self.output = convs[-1]

    @torch.no_grad()
    def start_at_background(self, value: float = -0.95) -> None:
        """Let the output of an untrained decoder be near background instead of mid-grey.

        Every one of the output layer's bias vectors becomes atanh(value), mixed by equal parts.
        """
        output = self.output
        assert output.biases is not None
        assert output.bias_mixture is not None
        output.biases.fill_(float(torch.atanh(torch.tensor(value, device="cpu"))))
        output.bias_mixture.weight.zero_()
        output.bias_mixture.bias.fill_(1 / output.biases.shape[1])

    def generate(self, styles: Tensor) -> list[DecoderConvs]:
        """All convolutions for each of `styles` (n, c_s), every P passed once for all of them."""
        generated = [conv.generate(styles) for conv in self.hyperconvs()]  # per layer, per style
        n_blocks = len(self.residual_blocks)
        found = []
        for *convs, output in zip(*generated, strict=True):
            pairs = zip(convs[: 2 * n_blocks : 2], convs[1 : 2 * n_blocks : 2], strict=True)
            found.append(DecoderConvs(tuple(pairs), tuple(convs[2 * n_blocks :]), output))
        return found

    def hyperconvs(self) -> list[HyperConv]:
        """Both of each residual block, those of the up-sampling layers, the output's."""
        blocks = [conv for b in self.residual_blocks for conv in (b.conv1, b.conv2)]
        return [*blocks, *self.upsampling, self.output]

    def forward(self, x: Tensor, convs: DecoderConvs) -> Tensor:
        for block, (conv1, conv2) in zip(self.residual_blocks, convs.blocks, strict=True):
            x = block(x, conv1, conv2)  # (B, c, h, w)
        for conv in convs.upsampling:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = activation(feature_norm(conv(x), self.norm))  # (B, c', 2·h, 2·w)
        return torch.tanh(convs.output(x))  # (B, C, H, W)
