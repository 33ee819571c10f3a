"""Ways to compute the same numbers faster: memory format and compilation of the networks' parts."""

from typing import Any

import torch
from torch import nn

from tsf_seq2seq.config import TrainConfig
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.attention import AttentionLayer
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.blocks import HyperResidualBlock
from tsf_seq2seq.models.convlstm import ConvLSTMCell
from tsf_seq2seq.training.perceptual import PerceptualLoss


def accelerate(
    network: SynthesisNetwork,
    perceptual: PerceptualLoss | None,
    train: TrainConfig,
    device: torch.device,
) -> None:
    """Make networks on `device` compute as `train.channels_last` and `train.compile` say.

    Parameters and their names stay as they are. Raises UserError where nothing can be compiled.
    """
    if train.channels_last:
        use_channels_last(network, perceptual)
    if train.compile:
        check_compiler(device)
        compile_parts(network, perceptual)


def use_channels_last(network: SynthesisNetwork, perceptual: PerceptualLoss | None = None) -> None:
    """Let whatever convolves take its input in channels_last; what follows a convolution keeps it.

    The parameters keep their format, since a HyperConv's have five dimensions, and an optimizer's
    state must lie as they do: a convolution casts its small kernel by itself.
    """
    kinds = nn.Conv2d | ConvLSTMCell | HyperResidualBlock | AttentionLayer
    for part in (network, perceptual) if perceptual is not None else (network,):
        for module in part.modules():
            if isinstance(module, kinds):
                module.register_forward_pre_hook(_channels_last_input)


def compile_parts(network: SynthesisNetwork, perceptual: PerceptualLoss | None = None) -> None:
    """Compile, at their first use, the parts in which the time goes; names of parameters stay.

    A part is compiled for each size of batch that comes: with sizes left open, PyTorch 2.14's
    compiler fails on the attention's shapes.
    """
    # Its variants: batch size, with or without gradients, training or validation, and the number of
    # sources. Past the limit, of 8 by default, a part would no longer run compiled.
    torch._dynamo.config.recompile_limit = 64
    parts = list(network.compiled_parts())
    if perceptual is not None:
        parts += [perceptual, perceptual.features]
    for part in parts:
        part.compile(dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise a UserError where torch.compile can't work, as without a C++ compiler."""
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except Exception as error:  # whatever the compiler, its files or its tools lack
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            "train.compile needs a C++ compiler (on CUDA Triton too) that PyTorch can use: "
            f"install one, or set train.compile to false ({reason})"
        ) from error
    finally:
        torch._dynamo.reset()


def _probe(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) + 1


def _channels_last_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:]
