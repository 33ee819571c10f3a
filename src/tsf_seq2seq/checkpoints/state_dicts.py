"""Tensors from files, read without running code, and put into networks strictly."""

import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import sha256

ZIP_MAGIC = b"PK\x03\x04"
CHUNK_BYTES = 2**20
DIRECTORY = 0x10  # the attribute of a zip file's folders, of which torch reads nothing
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # torch.hub's: the SHA-256's first digits


def read_file(path: Path) -> Any:
    """What torch.save wrote, admitting tensors and plain values only.

    Raises UserError where the file is missing, damaged, or a pickle that would run code. Files of
    PyTorch before 1.6 hold no checksums: where the name doesn't say their SHA-256, as torch.hub's
    do, a warning says so.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        with open(path, "rb") as file:
            zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        with ThreadPoolExecutor(1) as pool:  # checksums at the same time: neither needs the other
            check = pool.submit(_check_zip, path) if zipped else None
            try:
                content = _load(path)
            finally:
                if check is not None:
                    check.result()  # what it finds says more than what torch stumbles over
    except UserError:
        raise
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
    if not zipped:
        _check_named_hash(path)
    return content


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle protocol of foreign files
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_zip(path: Path) -> None:
    """UserError unless every part of a torch file has its checksum, at which torch doesn't look."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            try:
                with archive.open(entry) as part:
                    while part.read(CHUNK_BYTES):
                        pass
                sound = not entry.external_attr & DIRECTORY
            except zipfile.BadZipFile:
                sound = False
            if not sound:
                name = entry.filename.partition("/")[2]  # before it, what torch.save wrote to
                raise UserError(f"{path} is damaged: its part {name} does not have its checksum")


def _check_named_hash(path: Path) -> None:
    """Check a file without checksums against the hash in its name; a warning where it has none."""
    named = HASH_IN_NAME.search(path.name)
    if named is None:
        text = "is of an old format without checksums, so that damage can't be seen"
        print(f"warning: {path} {text}", file=sys.stderr)
    elif not sha256(path).startswith(named[1]):
        raise UserError(f"{path} is damaged: its SHA-256 does not begin with {named[1]}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict: names → tensors."""
    return check_tensors(read_file(path), path)


def check_tensors(state: Any, origin: Path | str) -> dict[str, Tensor]:
    """`state` itself where it is a state dict, else UserError."""
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UserError(f"{origin} holds no state dict of tensors")
    return state


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], origin: Path | str, besides: str | None = None
) -> None:
    """Copy `state` into `network`; keys, shapes and types must be the same, else UserError.

    So must all values be finite. Parameters whose names start with `besides` are left as they are.
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
    for key, value in own.items():
        check_type(state[key], value, key, origin)
        if not is_finite(state[key]):
            raise UserError(f"{origin} is damaged: {key} holds NaN or infinite values")
    network.load_state_dict(dict(state), strict=besides is None)


def check_type(value: Tensor, like: Tensor, key: str, origin: Path | str) -> None:
    """UserError unless `value` is of the type of `like`."""
    found, wanted = _kind(value), _kind(like)
    if found != wanted:
        raise UserError(f"{origin} holds {key} as {found}, but {wanted} is needed, and not cast")


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # A sum is faster than looking at each value, but may overflow.
    return (
        not tensor.is_floating_point()
        or bool(tensor.sum().isfinite())
        or bool(tensor.isfinite().all())
    )


def _kind(tensor: Tensor) -> str:
    """Type of the values and, where it isn't the usual one, how they are laid out."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided:
        kind = f"{kind}, {str(tensor.layout).removeprefix('torch.')}"
    return f"{kind} without values" if tensor.is_meta else kind
