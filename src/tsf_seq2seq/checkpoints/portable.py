"""Models without pickle: one safetensors file, whose header holds all that isn't a weight."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import sha256
from tsf_seq2seq.files.writing import write_atomically

SUFFIX = ".safetensors"
PARTNER = ".json"  # of models written before the header held the settings
HEADER = "checkpoint"  # the only key: safetensors writes several in random order
CHECKSUM = "weights_sha256"
LEFT_OUT = ("weights", "training")  # what the header doesn't carry


def is_portable(path: Path) -> bool:
    """Whether `path` names a portable model, or either file of a pair written formerly."""
    return path.suffix in (SUFFIX, PARTNER)


def save_portable(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint's `content` without its training state to a .safetensors file, all or
    nothing.

    Raises UserError for content that JSON can't hold, before anything is written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {
        key: _as_json(key, value, path) for key, value in content.items() if key not in LEFT_OUT
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in content["weights"].items()}
    plain[CHECKSUM] = _checksum(plain, tensors)

    def save(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, {HEADER: json.dumps(plain)})
        except SafetensorError as error:  # so it reports a full disk
            raise OSError(str(error).splitlines()[0]) from error

    write_atomically(path, save)


def read_portable(path: Path) -> dict[str, Any]:
    """A checkpoint's content from a portable model, or from either file of a former pair.

    Raises UserError where the file is missing or damaged, or a pair doesn't belong together.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    weights, partner = path.with_suffix(SUFFIX), path.with_suffix(PARTNER)
    if not weights.is_file():
        raise UserError(f"{path} needs its partner {weights}, which does not exist")
    tensors, header = _read_tensors(weights)
    if path == weights and HEADER in header:
        content = _read_json(header[HEADER], path)
        expected = content.pop(CHECKSUM, None)
        found, origin = _checksum(content, tensors), "its header"
    elif partner.is_file():
        content = _read_json(partner.read_bytes(), partner)
        expected = content.pop(CHECKSUM, None)
        found, origin = sha256(weights), str(partner)
    else:
        raise UserError(
            f"{path} does not describe a model: its header has no '{HEADER}', and {partner}, as "
            "older models have it, does not exist"
        )
    if found != expected:
        raise UserError(
            f"{weights} is damaged or belongs to another model: its SHA-256 is not the "
            f"'{CHECKSUM}' of {origin}"
        )
    return {**content, "weights": tensors}


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over settings, and names, types, shapes and bytes of all tensors; hexadecimal."""
    digest = hashlib.sha256(json.dumps(content).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _as_json(key: str, value: Any, origin: Path) -> Any:
    """`value` as JSON gives it back, with lists for tuples; UserError where it would change."""
    value = _with_lists(value)
    try:
        kept = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        kept = None
    if kept != value:
        raise UserError(f"{origin} can't be written: JSON can't hold '{key}' of the checkpoint")
    return kept


def _with_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _read_json(text: str | bytes, origin: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is damaged or not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{origin} must hold a mapping of keys, not {type(content).__name__}")
    return content


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the header's own entries."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return load_file(path), header
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None
