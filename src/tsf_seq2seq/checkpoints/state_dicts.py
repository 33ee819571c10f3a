"""Tensors from files, read without running code, and put into networks strictly."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsf_seq2seq.errors import UserError


def read_file(path: Path) -> Any:
    """What torch.save wrote, admitting tensors and plain values only.

    Raises UserError where the file is missing, damaged, or a pickle that would run code.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of foreign files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f": it asks for {found[1]}" if found else ""
        raise UserError(
            f"{path} was refused: it is not a file of tensors and plain values alone, and could "
            f"run code{reason}"
        ) from None
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ... for damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged or not a weights file ({reason})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict: names → tensors."""
    return check_tensors(read_file(path), path)


def check_tensors(state: Any, origin: Path) -> dict[str, Tensor]:
    """`state` itself where it is a state dict, else UserError."""
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UserError(f"{origin} holds no state dict of tensors")
    return state


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], origin: Path | str, besides: str | None = None
) -> None:
    """Copy `state` into `network`; keys and shapes must be the same, else UserError.

    Parameters whose names start with `besides` are left as they are.
    """
    own = network.state_dict()
    if besides is not None:
        own = {key: value for key, value in own.items() if not key.startswith(besides)}
    differences = [f"{key} is missing" for key in own if key not in state]
    differences += [f"{key} is unknown" for key in state if key not in own]
    differences += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(f"{origin} is of another architecture: {'; '.join(differences[:3])}{more}")
    network.load_state_dict(dict(state), strict=besides is None)
