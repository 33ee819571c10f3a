"""The networks: what all of them are (base), the table of them (build), and a file for each."""

from typing import TYPE_CHECKING, Any

from tsf_seq2seq.models.seq2seq import Seq2Seq
from tsf_seq2seq.models.tsf_pyramid import TSFPyramid
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq
from tsf_seq2seq.models.unet import UNet

if TYPE_CHECKING:
    from tsf_seq2seq.models.build import build_network

__all__ = ["Seq2Seq", "TSFPyramid", "TSFSeq2Seq", "UNet", "build_network"]


def __getattr__(name: str) -> Any:
    """`build_network` on demand: the table names objectives, which need the networks first."""
    if name == "build_network":
        from tsf_seq2seq.models.build import build_network

        return build_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
