"""Seq2Seq (stage 1): one source sequence in, any target sequence out.

Source: "Synthesis-based Imaging-Differentiation Representation Learning for Multi-Sequence 3D/4D
MRI", arXiv 2302.00517.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.base import (
    AVERAGE,
    FULL,
    Availability,
    SynthesisNetwork,
)
from tsf_seq2seq.models.blocks import ConvLayer, Decoder, DecoderConvs, Encoder, Norm, activation
from tsf_seq2seq.models.convlstm import ConvLSTM
from tsf_seq2seq.settings import NetworkSettings, check_odd, check_same_length, setting
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import Task


@dataclass(frozen=True)
class Seq2SeqConfig(NetworkSettings):
    """Architecture of the Seq2Seq network; the defaults are the published full size."""

    name: str = setting("seq2seq", "which network")
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
    output_start: Literal["grey", "background"] = setting(
        "grey", "what the untrained decoder puts out: mid-grey (0) or background (-1)"
    )

    def __post_init__(self) -> None:
        check_same_length(self, "encoder_channels", "encoder_kernels", "encoder_strides")
        check_same_length(self, "decoder_channels", "decoder_kernels")
        check_odd(self, "encoder_kernels", "decoder_kernels")

    def build(self, n_sequences: int, stack: int) -> "SynthesisNetwork":
        return self.build_seq2seq(n_sequences, stack)

    def build_seq2seq(self, n_sequences: int, stack: int) -> "Seq2Seq":
        """Untrained Seq2Seq, also where these settings are of a network that owns one."""
        layers = (self.encoder_channels, self.encoder_kernels, self.encoder_strides)
        network = Seq2Seq(
            n_sequences=n_sequences,
            slices=stack,
            sequence_code=self.sequence_code,
            n_kernels=self.kernels,
            encoder=tuple(map(ConvLayer, *layers)),
            encoder_residual_blocks=self.encoder_residual_blocks,
            lstm_channels=self.lstm_channels,
            lstm_layers=self.lstm_layers,
            decoder=tuple(map(ConvLayer, self.decoder_channels, self.decoder_kernels)),
            decoder_residual_blocks=self.decoder_residual_blocks,
            norm=self.norm,
        )
        if self.output_start == "background":
            network.decoder.start_at_background()
        return network


class Seq2Seq(SynthesisNetwork):
    """Encoder → ConvLSTM → feature → ConvLSTM → decoder steered by the target's sequence code."""

    variants = (FULL, AVERAGE)

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
        self.size_multiple = math.prod(layer.stride for layer in encoder)
        self.lstm_channels = lstm_channels
        _check_plan(n_sequences, slices, sequence_code, self.size_multiple, decoder)
        self.encoder = Encoder(slices, encoder, encoder_residual_blocks, norm)
        self.encoder_lstm = ConvLSTM(encoder[-1].channels, lstm_channels, lstm_layers)
        self.style = nn.Linear(sequence_code, sequence_code)
        self.decoder_lstm = ConvLSTM(lstm_channels, lstm_channels, lstm_layers)
        self.decoder = Decoder(
            lstm_channels, decoder, decoder_residual_blocks, norm, sequence_code, n_kernels
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, available: Availability, target: int) -> Tensor:
        """The one available source of images (B, S, C, H, W) → sequence `target` (B, C, H, W).

        Raises ValueError where several sources are available.
        """
        sources = self.sources_of(available)
        if len(sources) > 1:
            raise ValueError(f"a Seq2Seq takes one source, not {len(sources)}")
        return self.translate(images[:, sources], target).squeeze(1)

    def translate(self, images: Tensor, target: int, n_out: int = 1) -> Tensor:
        """Synthesize sequence `target` from T time steps of one source.

        images (B, T, C, H, W) in [-1, 1] → (B, n_out, C, H, W) in [-1, 1].
        """
        (convs,) = self.decoder_convs(target)
        feature = self.encode(images)  # (B, c, H/r, W/r)
        return self.decode(feature, convs, images.shape[-2:], n_out)  # (B, n_out, C, H, W)

    def encode(self, images: Tensor) -> Tensor:
        """images (B, T, C, H, W) → feature (B, c, H/r, W/r), sizes rounded up.

        The feature is the mean over time of the encoder ConvLSTM's outputs.
        """
        batch, steps = images.shape[:2]
        x = self.pad(images.flatten(0, 1))  # (B·T, C, H, W)
        x = self.encoder(x)  # (B·T, c, H/r, W/r)
        return self.encoder_lstm(x.unflatten(0, (batch, steps))).mean(dim=1)

    def decode(
        self, feature: Tensor, convs: DecoderConvs, size: Sequence[int], n_out: int = 1
    ) -> Tensor:
        """feature (B, c, h, w) → images (B, n_out, C, H, W), cut to `size`.

        `convs`: the target sequence's of `decoder_convs`.
        """
        x = feature.unsqueeze(1).expand(-1, n_out, -1, -1, -1)
        x = self.decoder_lstm(x).flatten(0, 1)  # (B·n_out, c, h, w)
        x = self.decoder(x, convs)  # (B·n_out, C, H, W)
        height, width = size
        return x[..., :height, :width].unflatten(0, (-1, n_out))

    def decoder_convs(self, *targets: int) -> list[DecoderConvs]:
        """What the decoder does for each of the sequences `targets`, generated together."""
        distinct = sorted(set(targets))
        styles = torch.stack([self.target_style(target) for target in distinct])  # (n, c_s)
        convs = dict(zip(distinct, self.decoder.generate(styles), strict=True))
        return [convs[target] for target in targets]

    def target_style(self, target: int) -> Tensor:
        """Style s = LeakyReLU(Linear(sequence code)), (c_s,); the code is the target's one-hot."""
        self.check_target(target)
        code = torch.zeros(self.sequence_code, device=self.style.weight.device)
        code[target] = 1
        return activation(self.style(code))

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        return variant == AVERAGE or len(task.sources) == 1

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As every network does it; each source is encoded once and each pair decoded once.

        `AVERAGE`: the mean of the single-source outputs. (The paper's Seq2Seq (Average); that it
        averages images is our reading.)
        """
        features = self.encode_each(images, {i for task in tasks for i in task.sources})
        for target, members in group_by(tasks, attrgetter("target")).items():
            (convs,) = self.decoder_convs(target)
            outputs = {
                source: self.decode(features[source], convs, images.shape[-2:]).squeeze(1)
                for source in sorted({i for task in members for i in task.sources})
            }
            for task in members:
                first, *others = (outputs[source] for source in task.sources)
                for variant in variants:
                    output = first if variant == FULL else sum(others, first) / len(task.sources)
                    yield variant, task, output

    def encode_each(self, images: Tensor, sources: Iterable[int]) -> dict[int, Tensor]:
        """Feature (B, c, H/r, W/r) of each of the `sources` of images (B, S, C, H, W)."""
        return {source: self.encode(images[:, [source]]) for source in sorted(sources)}

    def compiled_parts(self) -> Iterable[nn.Module]:
        return self.encoder, self.encoder_lstm, self.decoder_lstm, self.decoder


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
