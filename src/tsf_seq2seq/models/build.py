"""From settings to networks: what a checkpoint must say so that its network can be rebuilt."""

from tsf_seq2seq.config import Config, FusionConfig, Seq2SeqConfig
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.blocks import ConvLayer

Network = Seq2Seq | TSFSeq2Seq


def build_seq2seq(config: Seq2SeqConfig, n_sequences: int) -> Seq2Seq:
    """Untrained Seq2Seq; settings that don't fit together are a UserError."""
    encoder = map(
        ConvLayer, config.encoder_channels, config.encoder_kernels, config.encoder_strides
    )
    decoder = map(ConvLayer, config.decoder_channels, config.decoder_kernels)
    try:
        return Seq2Seq(
            n_sequences=n_sequences,
            slices=config.slices,
            sequence_code=config.sequence_code,
            n_kernels=config.kernels,
            encoder=tuple(encoder),
            encoder_residual_blocks=config.encoder_residual_blocks,
            lstm_channels=config.lstm_channels,
            lstm_layers=config.lstm_layers,
            decoder=tuple(decoder),
            decoder_residual_blocks=config.decoder_residual_blocks,
            norm=config.norm,
        )
    except ValueError as error:
        raise UserError(f"seq2seq: {error}") from error


def build_tsf_seq2seq(seq2seq: Seq2SeqConfig, fusion: FusionConfig, n_sequences: int) -> TSFSeq2Seq:
    """Untrained TSFSeq2Seq; settings that don't fit together are a UserError."""
    layers = tuple(map(ConvLayer, fusion.attention_channels, fusion.attention_kernels))
    network = build_seq2seq(seq2seq, n_sequences)
    try:
        return TSFSeq2Seq(network, layers, fusion.kernels, fusion.norm)
    except ValueError as error:
        raise UserError(f"fusion: {error}") from error


def build_network(config: Config) -> Network:
    """The network that an experiment trains: TSFSeq2Seq where it has a fusion section."""
    n_sequences = len(config.data.sequences)
    if config.fusion is None:
        return build_seq2seq(config.seq2seq, n_sequences)
    return build_tsf_seq2seq(config.seq2seq, config.fusion, n_sequences)
