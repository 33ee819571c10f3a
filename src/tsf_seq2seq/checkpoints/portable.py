"""Models without pickle: weights as safetensors, all else as JSON beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files import sha256, write_atomically, write_text

SUFFIXES = (".safetensors", ".json")
CHECKSUM = "weights_sha256"
LEFT_OUT = ("weights", "training")  # what the JSON file doesn't carry


def is_portable(path: Path) -> bool:
    """Whether `path` names either file of a portable model."""
    return path.suffix in SUFFIXES


def save_portable(path: Path, content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write a checkpoint's `content` without its training state; `path` names either file.

    The weights come first and the JSON file, which holds their SHA-256, last: a pair of which only
    one is new is told from a whole one. Returns both paths. Raises UserError for content that JSON
    can't hold, before anything is written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, settings = _pair(path)
    plain = {
        key: _as_json(key, value, path) for key, value in content.items() if key not in LEFT_OUT
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in content["weights"].items()}

    def save(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, {"format": "pt"})
        except SafetensorError as error:  # so it reports a full disk
            raise OSError(str(error).splitlines()[0]) from error

    write_atomically(weights, save)
    plain[CHECKSUM] = sha256(weights)
    write_text(settings, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
    return weights, settings


def read_portable(path: Path) -> dict[str, Any]:
    """A checkpoint's content from a portable model; `path` names either file.

    Raises UserError where one of the two is missing or damaged, or they don't belong together.
    """
    weights, settings = _pair(path)
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    for partner in (weights, settings):
        if not partner.is_file():
            raise UserError(f"{path} needs its partner {partner}, which does not exist")
    content = _read_json(settings)
    wanted = content.pop(CHECKSUM, None)
    if not isinstance(wanted, str):
        raise UserError(f"{settings} does not describe a model: it has no '{CHECKSUM}'")
    content["weights"] = _read_tensors(weights)
    if sha256(weights) != wanted:
        raise UserError(
            f"{weights} is damaged or belongs to another model: its SHA-256 is not the one that "
            f"{settings} names"
        )
    return content


def _pair(path: Path) -> tuple[Path, Path]:
    """Paths of the weights and of the settings."""
    return path.with_suffix(SUFFIXES[0]), path.with_suffix(SUFFIXES[1])


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys, not {type(content).__name__}")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None
