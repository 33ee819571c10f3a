"""The networks: what all of them are (base), the table of them (build), and a file for each."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsf_seq2seq.models.build import build_network as build_network
    from tsf_seq2seq.models.seq2seq import Seq2Seq as Seq2Seq
    from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq as TSFSeq2Seq
    from tsf_seq2seq.models.unet import UNet as UNet

_HOMES = {
    "build_network": "build",
    "Seq2Seq": "seq2seq",
    "TSFSeq2Seq": "tsf_seq2seq",
    "UNet": "unet",
}
__all__ = ["Seq2Seq", "TSFSeq2Seq", "UNet", "build_network"]


def __getattr__(name: str) -> Any:
    """Imported on demand: the table of networks names their objectives, which know the networks."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"tsf_seq2seq.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
