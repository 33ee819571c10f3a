"""Seq2Seq (stage 1): one source sequence in, any target sequence out.

Source: "Synthesis-based Imaging-Differentiation Representation Learning for Multi-Sequence 3D/4D
MRI", arXiv 2302.00517.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.blocks import (
    ConvLayer,
    Decoder,
    Encoder,
    GeneratedConv,
    Norm,
    activation,
)
from tsf_seq2seq.models.convlstm import ConvLSTM


class Seq2Seq(nn.Module):
    """Encoder → ConvLSTM → feature → ConvLSTM → decoder steered by the target's sequence code."""

    def __init__(
        self,
        n_sequences: int,
        slices: int,
        sequence_code: int,
        n_kernels: int,
        encoder: Sequence[ConvLayer],
        encoder_residual_blocks: int,
        lstm_channels: int,
        lstm_layers: int,
        decoder: Sequence[ConvLayer],
        decoder_residual_blocks: int,
        norm: Norm = "instance",
    ) -> None:
        """Lay out the network.

        `slices`: neighbouring slices taken as channels, C; `sequence_code`: length c_s of the
        sequence code, at least `n_sequences`; `n_kernels`: kernels c_w that a HyperConv mixes. The
        decoder's last layer gives the C slices, every other one doubles the size, which must undo
        the encoder's strides. Raises ValueError otherwise.
        """
        super().__init__()
        self.n_sequences, self.slices, self.sequence_code = n_sequences, slices, sequence_code
        self.reduction = math.prod(layer.stride for layer in encoder)
        self.lstm_channels = lstm_channels
        _check_plan(n_sequences, slices, sequence_code, self.reduction, decoder)
        self.encoder = Encoder(slices, encoder, encoder_residual_blocks, norm)
        self.encoder_lstm = ConvLSTM(encoder[-1].channels, lstm_channels, lstm_layers)
        self.style = nn.Linear(sequence_code, sequence_code)
        self.decoder_lstm = ConvLSTM(lstm_channels, lstm_channels, lstm_layers)
        self.decoder = Decoder(
            lstm_channels, decoder, decoder_residual_blocks, norm, sequence_code, n_kernels
        )
        self._kept_convs: dict[int, Sequence[GeneratedConv]] = {}
        self._kept_state: tuple[object, ...] = ()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, target: int, n_out: int = 1) -> Tensor:
        """Synthesize sequence `target` from one source.

        images (B, T, C, H, W) in [-1, 1] → (B, n_out, C, H, W) in [-1, 1].
        """
        feature = self.encode(images)  # (B, c, H/r, W/r)
        return self.decode(feature, target, images.shape[-2:], n_out)  # (B, n_out, C, H, W)

    def encode(self, images: Tensor) -> Tensor:
        """images (B, T, C, H, W) → feature (B, c, H/r, W/r), sizes rounded up.

        The feature is the mean over time of the encoder ConvLSTM's outputs.
        """
        batch, steps = images.shape[:2]
        x = self._pad(images.flatten(0, 1))  # (B·T, C, H, W)
        x = self.encoder(x)  # (B·T, c, H/r, W/r)
        return self.encoder_lstm(x.unflatten(0, (batch, steps))).mean(dim=1)

    def decode(
        self,
        feature: Tensor,
        target: int,
        size: Sequence[int] | None = None,
        n_out: int = 1,
        convs: Sequence[GeneratedConv] | None = None,
    ) -> Tensor:
        """feature (B, c, h, w) → images (B, n_out, C, H, W) of sequence `target`, cut to `size`.

        `convs`: the target's of `decoder_convs`, where several decodings are to share them.
        """
        x = feature.unsqueeze(1).expand(-1, n_out, -1, -1, -1)
        x = self.decoder_lstm(x).flatten(0, 1)  # (B·n_out, c, h, w)
        x = self.decoder(x, convs or self.decoder_convs(target)[0])  # (B·n_out, C, H, W)
        height, width = size or x.shape[-2:]
        return x[..., :height, :width].unflatten(0, (-1, n_out))

    def decoder_convs(self, *targets: int) -> list[Sequence[GeneratedConv]]:
        """The decoder's convolutions for each of the sequences `targets`, generated together.

        Without gradients they are kept until a parameter changes: whole data sets are synthesized
        with kernels that were generated once.
        """
        if torch.is_grad_enabled():
            convs = self._generate(targets)
            return [convs[target] for target in targets]
        state = self._decoder_state()
        if self._kept_state != state:
            self._kept_convs, self._kept_state = {}, state
        missing = [target for target in targets if target not in self._kept_convs]
        if missing:
            self._kept_convs.update(self._generate(missing))
        return [self._kept_convs[target] for target in targets]

    def _generate(self, targets: Sequence[int]) -> dict[int, Sequence[GeneratedConv]]:
        distinct = sorted(set(targets))
        styles = torch.stack([self.target_style(target) for target in distinct])  # (n, c_s)
        return dict(zip(distinct, self.decoder.generate(styles), strict=True))

    def _decoder_state(self) -> tuple[object, ...]:
        """What the generated kernels depend on: the parameters' contents and places, autocast."""
        kind = self.style.weight.device.type
        parameters = (*self.style.parameters(), *self.decoder.parameters())
        versions = tuple((p.data_ptr(), p._version) for p in parameters)
        return versions, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def target_style(self, target: int) -> Tensor:
        """Style s = LeakyReLU(Linear(sequence code)), (c_s,); the code is the target's one-hot."""
        if not 0 <= target < self.n_sequences:
            raise ValueError(f"target must be 0 to {self.n_sequences - 1}, not {target}")
        code = torch.zeros(self.sequence_code, device=self.style.weight.device)
        code[target] = 1
        return activation(self.style(code))

    def _pad(self, x: Tensor) -> Tensor:
        """Reflect right and bottom edges so that the strides divide H and W."""
        bottom, right = (-x.shape[-2] % self.reduction, -x.shape[-1] % self.reduction)
        return F.pad(x, (0, right, 0, bottom), mode="reflect") if bottom or right else x


def _check_plan(
    n_sequences: int, slices: int, sequence_code: int, reduction: int, decoder: Sequence[ConvLayer]
) -> None:
    if n_sequences > sequence_code:
        raise ValueError(
            f"sequence_code must be at least {n_sequences}, the number of sequences, not "
            f"{sequence_code}"
        )
    if decoder[-1].channels != slices:
        raise ValueError(
            f"the decoder's last layer must give the {slices} slices, not {decoder[-1].channels}"
        )
    if reduction != 2 ** (len(decoder) - 1):
        raise ValueError(
            f"the encoder's strides reduce by {reduction}, but {len(decoder)} decoder layers "
            f"enlarge by {2 ** (len(decoder) - 1)}"
        )
