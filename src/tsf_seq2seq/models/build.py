"""The table of networks, and the way from settings to an untrained one."""

from typing import TYPE_CHECKING, NamedTuple

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork, seeded
from tsf_seq2seq.models.seq2seq import Seq2SeqConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2SeqConfig
from tsf_seq2seq.models.unet import UNetConfig
from tsf_seq2seq.settings import NetworkSettings
from tsf_seq2seq.training.objectives import (
    Objective,
    Seq2SeqObjective,
    TSFObjective,
    UNetObjective,
)

if TYPE_CHECKING:
    from tsf_seq2seq.config import Config


class NetworkKind(NamedTuple):
    """What `network.name` stands for: its settings, which build it, and how it is trained."""

    settings: type[NetworkSettings]
    objective: type[Objective]


NETWORKS: dict[str, NetworkKind] = {
    "seq2seq": NetworkKind(Seq2SeqConfig, Seq2SeqObjective),
    "tsf_seq2seq": NetworkKind(TSFSeq2SeqConfig, TSFObjective),
    "unet": NetworkKind(UNetConfig, UNetObjective),
}


def build_network(config: "Config") -> SynthesisNetwork:
    """The experiment's untrained network, its weights drawn from `train.seed`.

    Random numbers elsewhere stay untouched. Settings that don't fit together are a UserError.
    """
    try:
        with seeded(config.train.seed):
            return config.network.build(len(config.data.sequences), config.data.stack)
    except ValueError as error:
        raise UserError(f"network {config.network.name}: {error}") from error
