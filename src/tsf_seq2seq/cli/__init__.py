"""The command line: what the scripts under src/ and tsf-impute run, a module for each kind."""

import importlib
from typing import Any

_PLACES = {
    "evaluate_networks": "evaluate",
    "evaluate_seq2seq": "evaluate",
    "evaluate_tsf_seq2seq": "evaluate",
    "impute_sequences": "impute",
    "train_network": "train",
    "train_seq2seq": "train",
    "train_tsf_seq2seq": "train",
}


def __getattr__(name: str) -> Any:
    """A function of one of the modules; scripts that need no PyTorch don't wait for it."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"tsf_seq2seq.cli.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
