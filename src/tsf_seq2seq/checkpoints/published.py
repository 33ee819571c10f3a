"""The authors' published weights and YAML, brought to our names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tsf_seq2seq.checkpoints.state_dicts import load_state, read_tensors
from tsf_seq2seq.config import BRATS_SEQUENCES, DataConfig
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.yaml_text import read_yaml
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.build import check_size
from tsf_seq2seq.models.seq2seq import Seq2SeqConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq, TSFSeq2SeqConfig
from tsf_seq2seq.settings import parse

# Their key's pattern → ours, for what is special to each network ...
_SEQ2SEQ_NAMES = (
    (r"^encoder\.conv\.(\d+)\.0\.", r"encoder.convs.\1."),
    (r"^encoder\.res\.(\d+)\.conv_block\.1\.", r"encoder.residual_blocks.\1.conv1."),
    (r"^encoder\.res\.(\d+)\.conv_block\.[45]\.", r"encoder.residual_blocks.\1.conv2."),
    (r"^enc_convlstm\.cell_list\.", "encoder_lstm.cells."),
    (r"^dec_convlstm\.cell_list\.", "decoder_lstm.cells."),
    (r"^decoder\.res\.", "decoder.residual_blocks."),
    (r"^decoder\.convs\.", "decoder.upsampling."),
    (r"^decoder\.conv_last\.", "decoder.output."),
    (r"^style_fc\.0\.", "style."),
)
_TSF_NAMES = (
    (r"^fc_p\.0\.", "fusion.linear."),
    (r"^convs\.(\d+)\.", r"attention.layers.\1.conv."),
    (r"^cas\.(\d+)\.fc1\.", r"attention.layers.\1.channel_attention.reduce."),
    (r"^cas\.(\d+)\.fc3\.", r"attention.layers.\1.channel_attention.expand."),
    (r"^sas\.(\d+)\.conv1\.", r"attention.layers.\1.spatial_attention.conv."),
)
# ... and for every HyperConv of both.
_HYPERCONV_NAMES = (
    (r"\.param$", ".kernels"),
    (r"\.b$", ".biases"),
    (r"\.fc\.(weight|bias)$", r".kernel_mixture.\1"),
    (r"\.fc_bias\.(weight|bias)$", r".bias_mixture.\1"),
)
_SEQ2SEQ_SETTINGS = {
    "c_s": "sequence_code",
    "c_w": "kernels",
    "c_enc": "encoder_channels",
    "k_enc": "encoder_kernels",
    "s_enc": "encoder_strides",
    "nres_enc": "encoder_residual_blocks",
    "c_lstm": "lstm_channels",
    "c_dec": "decoder_channels",
    "k_dec": "decoder_kernels",
    "nres_dec": "decoder_residual_blocks",
}
_TSF_SETTINGS = {
    "c_w": "attention_mixed",
    "c_enc": "attention_channels",
    "k_enc": "attention_kernels",
}
_NORMS = {None: "none", "None": "none", "InstanceNorm": "instance"}


def load_published(
    config_yaml: Path | str, seq2seq_pth: Path | str, tsf_pth: Path | str | None = None
) -> SynthesisNetwork:
    """The authors' network: TSFSeq2Seq, or Seq2Seq where no TSF weights are given.

    `config_yaml` is in the authors' keys; the number of sequences is
    `TSF_seq2seq.c_s_source`, four without that section. Raises UserError for a file that is
    missing, unsafe, or of another architecture, naming the first differing keys.
    """
    settings, stack, n_sequences = published_architecture(Path(config_yaml))
    state = seq2seq_names(read_tensors(Path(seq2seq_pth)))
    try:
        check_size(settings, n_sequences, stack)
        network = settings.build(n_sequences, stack)
    except ValueError as error:
        raise UserError(f"{config_yaml}: {error}") from error
    seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
    if tsf_pth is not None and seq2seq is network:
        raise UserError(f"{config_yaml}: section 'TSF_seq2seq' is missing, so {tsf_pth} can't load")
    load_state(seq2seq, state, seq2seq_pth)
    if tsf_pth is None:
        return seq2seq
    load_state(network, tsf_names(read_tensors(Path(tsf_pth))), tsf_pth, besides="seq2seq.")
    return network


def published_architecture(path: Path) -> tuple[Seq2SeqConfig, int, int]:
    """Settings of the network (TSF's where the authors' YAML has them), stack height, sequences."""
    values = read_yaml(path)
    section = _section(values, "seq2seq", path)
    if (ndims := section.get("ndims", 2)) != 2:
        raise UserError(f"{path}: ndims must be 2, not {ndims!r}")
    renamed = _renamed(section, _SEQ2SEQ_SETTINGS, path) | {"norm": _norm(section, path)}
    stack = parse(DataConfig, _renamed(section, {"c_in": "stack"}, path), str(path)).stack
    if "TSF_seq2seq" not in values:
        return parse(Seq2SeqConfig, renamed, str(path)), stack, len(BRATS_SEQUENCES)
    section = _section(values, "TSF_seq2seq", path)
    renamed |= _renamed(section, _TSF_SETTINGS, path) | {"attention_norm": _norm(section, path)}
    n_sequences = section.get("c_s_source", len(BRATS_SEQUENCES))
    if type(n_sequences) is not int or n_sequences < 1:
        raise UserError(f"{path}: c_s_source must be a number of sequences, not {n_sequences!r}")
    return parse(TSFSeq2SeqConfig, renamed, str(path)), stack, n_sequences


def is_published_seq2seq(state: Mapping[str, Any]) -> bool:
    return "style_fc.0.weight" in state


def is_published_tsf(state: Mapping[str, Any]) -> bool:
    return "fc_p.0.weight" in state


def seq2seq_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the authors' Seq2Seq in our names."""
    return _rename_keys(state, _SEQ2SEQ_NAMES)


def tsf_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the authors' TSF in the names of our TSFSeq2Seq."""
    return _rename_keys(state, _TSF_NAMES)


def _rename_keys(
    state: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]
) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in (*names, *_HYPERCONV_NAMES):
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _section(values: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = values.get(name)
    if not isinstance(section, dict):
        raise UserError(f"{path}: section '{name}' of the authors' YAML is missing")
    return section


def _renamed(section: dict[str, Any], names: dict[str, str], path: Path) -> dict[str, Any]:
    missing = [theirs for theirs in names if theirs not in section]
    if missing:
        raise UserError(f"{path}: key '{missing[0]}' of the authors' YAML is missing")
    return {ours: section[theirs] for theirs, ours in names.items()}


def _norm(section: dict[str, Any], path: Path) -> str:
    norm = section.get("norm")
    if norm not in _NORMS:
        raise UserError(f"{path}: norm must be InstanceNorm or None, not {norm!r}")
    return _NORMS[norm]
