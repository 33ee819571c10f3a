"""The table of networks, and the way from settings to an untrained one."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork, seeded
from tsf_seq2seq.models.seq2seq import Seq2SeqConfig
from tsf_seq2seq.models.tsf_pyramid import TSFPyramidConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.models.unet import UNetConfig
from tsf_seq2seq.peers.diamond_gan import DiamondGANConfig
from tsf_seq2seq.peers.hi_net import HiNetConfig
from tsf_seq2seq.peers.mm_gan import MMGANConfig
from tsf_seq2seq.peers.mmgsn_net import MMgSNConfig
from tsf_seq2seq.peers.pix2pix import Pix2PixConfig
from tsf_seq2seq.peers.resvit import ResViTConfig
from tsf_seq2seq.processes import check_memory
from tsf_seq2seq.settings import NetworkSettings
from tsf_seq2seq.training.objectives import (
    Objective,
    Seq2SeqObjective,
    TSFObjective,
    UNetObjective,
)
from tsf_seq2seq.training.peer_objectives import (
    DiamondGANObjective,
    HiNetObjective,
    MMGANObjective,
    MMgSNObjective,
    Pix2PixObjective,
    ResViTObjective,
)
from tsf_seq2seq.training.pyramid_objective import PyramidObjective

if TYPE_CHECKING:
    from tsf_seq2seq.config import Config


MOST_ARRAYS = 10_000  # of weights; the published network has 157, the largest family 2,000


class NetworkKind(NamedTuple):
    """What `network.name` stands for: its settings, which build it, and how it is trained."""

    settings: type[NetworkSettings]
    objective: type[Objective]


NETWORKS: dict[str, NetworkKind] = {
    "seq2seq": NetworkKind(Seq2SeqConfig, Seq2SeqObjective),
    "tsf_seq2seq": NetworkKind(TSFSeq2SeqConfig, TSFObjective),
    "tsf_pyramid": NetworkKind(TSFPyramidConfig, PyramidObjective),
    "unet": NetworkKind(UNetConfig, UNetObjective),
    # The comparison methods of the paper's Table 1.
    "pix2pix": NetworkKind(Pix2PixConfig, Pix2PixObjective),
    "mm_gan": NetworkKind(MMGANConfig, MMGANObjective),
    "diamond_gan": NetworkKind(DiamondGANConfig, DiamondGANObjective),
    "resvit": NetworkKind(ResViTConfig, ResViTObjective),
    "hi_net": NetworkKind(HiNetConfig, HiNetObjective),
    "mmgsn_net": NetworkKind(MMgSNConfig, MMgSNObjective),
}


def build_network(config: "Config") -> SynthesisNetwork:
    """The experiment's untrained network, its weights drawn from `train.seed`.

    Random numbers elsewhere stay untouched. Settings that don't fit together are a UserError, as
    are those of a network that no machine holds.
    """
    n_sequences, stack = len(config.data.sequences), config.data.stack
    try:
        check_size(config.network, n_sequences, stack)
        with seeded(config.train.seed):
            return config.network.build(n_sequences, stack)
    except ValueError as error:
        raise UserError(f"network {config.network.name}: {error}") from error


def check_size(settings: NetworkSettings, n_sequences: int, stack: int) -> None:
    """Lay a network out without memory, to see whether its weights would fit into this machine's.

    Raises UserError where they don't, or there are too many of them; ValueError for settings that
    don't fit together.
    """
    title = f"network {settings.name}"
    arrays = weights = 0

    def add(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal arrays, weights
        if parameter is not None:
            arrays, weights = arrays + 1, weights + parameter.numel()
            check_memory(f"{title} with its {weights:,} weights or more", 4 * weights)
            if arrays > MOST_ARRAYS:
                raise UserError(f"{title} has more layers than {MOST_ARRAYS:,} arrays of weights")

    hook = register_module_parameter_registration_hook(add)
    try:
        with torch.device("meta"), _Undrawn():
            settings.build(n_sequences, stack)
    except RuntimeError as error:  # of others, such as a look at values, the real network tells
        if "overflow" in str(error).lower():
            raise UserError(f"{title} has sizes that no machine holds: {error}") from None
    finally:
        hook.remove()


class _Undrawn(TorchFunctionMode):
    """Random weights stay undrawn: on the meta device that would import SymPy, for a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return function(*args, **(kwargs or {}))
