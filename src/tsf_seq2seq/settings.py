"""Mapping → frozen dataclass, with errors that name the key, the value and what is allowed."""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tsf_seq2seq.errors import UserError

if TYPE_CHECKING:
    from tsf_seq2seq.models.base import SynthesisNetwork

T = TypeVar("T")
LONGEST_SHOWN = 200  # signs of a value in a message


def setting(default: Any, meaning: str, minimum: float | None = None) -> Any:
    """A dataclass field with its one default, its line of meaning and its smallest value."""
    metadata = {"meaning": meaning, "minimum": minimum}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The section `network` of an experiment; each network has its own keys beside the name."""

    name: str

    def build(self, n_sequences: int, stack: int) -> "SynthesisNetwork":
        """The untrained network for stacks of `stack` slices; ValueError for settings that don't
        fit together."""
        raise NotImplementedError


def parse(cls: type[T], values: Any, origin: str, prefix: str = "") -> T:
    """Build dataclass `cls` from a mapping read from `origin` (a file's name, for messages).

    Raises UserError for a value that is no mapping, an unknown key, a wrong type, a value below
    the field's minimum, or what the class's own `__post_init__` refuses.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{origin}: '{prefix.rstrip('.') or 'file'}' must be a mapping of keys")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = _type_hints(cls)  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            shown = shortened(f"{prefix}{key}")
            raise UserError(f"{origin}: unknown key '{shown}'{_nearest(key, fields)}")
        path = f"{prefix}{key}"
        arguments[key] = _convert(hints[key], value, origin, path)
        minimum = fields[key].metadata.get("minimum")
        if minimum is not None:
            _check_minimum(arguments[key], minimum, origin, path)
    missing = [name for name, field in fields.items() if _required(field) and name not in arguments]
    if missing:
        raise UserError(f"{origin}: key '{prefix}{missing[0]}' is missing")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(f"{origin}: {prefix.rstrip('.') or 'settings'}: {error}") from error


def check_same_length(config: Any, first: str, *others: str) -> None:
    """ValueError unless the settings named have one value a layer each."""
    length = len(getattr(config, first))
    for other in others:
        if len(getattr(config, other)) != length or length == 0:
            raise ValueError(
                f"{first} and {other} must have one value a layer, "
                f"not {length} and {len(getattr(config, other))}"
            )


def check_odd(config: Any, *names: str) -> None:
    """ValueError unless every number in the settings named is odd."""
    for name in names:
        value = getattr(config, name)
        if any(number % 2 == 0 for number in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} must be odd, not {value}")


@lru_cache  # an index of a store has thousands of entries
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def shortened(text: str) -> str:
    """The text, or its beginning where it is too long for a message."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _shown(value: Any) -> str:
    """A value as messages show it."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # Python shows no number of 5,000 digits
        return "a value too long to be shown"


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _nearest(key: object, known: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(shortened(str(key)), list(known), n=1, cutoff=0.0)
    return f"; the nearest known key is '{matches[0]}'" if matches else ""


def _check_minimum(value: Any, minimum: float, origin: str, path: str) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if number is not None and not number >= minimum:
            raise UserError(
                f"{origin}: '{path}' must be at least {minimum:g}, not {_shown(number)}"
            )


def _convert(hint: Any, value: Any, origin: str, path: str) -> Any:
    """Value as the type `hint`; numbers may come as strings, as YAML 1.1 reads `1e-4`."""
    try:
        return _as_type(hint, value, origin, path)
    except (TypeError, ValueError, OverflowError):
        wanted, path = _describe(hint), shortened(path)
        raise UserError(f"{origin}: '{path}' must be {wanted}, not {_shown(value)}") from None


def _as_type(hint: Any, value: Any, origin: str, path: str) -> Any:
    container, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (isinstance(hint, type) and dataclasses.is_dataclass(value)):
        return value
    if container in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(argument for argument in arguments if argument is not type(None))
        return _as_type(hint, value, origin, path)
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, origin, path + ".")  # type: ignore[arg-type]
    if container is typing.Literal:
        if value not in arguments:
            raise ValueError
        return value
    if container is tuple:
        return _as_tuple(arguments, value, origin, path)
    if container is dict:
        if not isinstance(value, Mapping) or not value:
            raise TypeError
        return {
            str(key): _convert(arguments[1], item, origin, f"{path}.{key}")
            for key, item in value.items()
        }
    return _as_scalar(hint, value)


def _as_tuple(arguments: tuple[Any, ...], value: Any, origin: str, path: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise TypeError
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise ValueError
    return tuple(_convert(arguments[0], item, origin, path) for item in value)


def _as_scalar(hint: Any, value: Any) -> Any:
    if hint is Path and isinstance(value, str | Path):
        if b"\0" in os.fsencode(value):  # itself a ValueError where no file could have the name
            raise ValueError
        return Path(value)
    if hint is str and isinstance(value, str):
        return value
    if isinstance(value, bool):
        if hint is bool:
            return value
        raise TypeError
    if hint in (int, float) and isinstance(value, int | float | str):
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
        if hint is int and (number != int(number) or abs(number) >= 2**53):
            raise ValueError
        return hint(number) if isinstance(value, str) else hint(value)
    raise TypeError


def _describe(hint: Any) -> str:
    container, arguments = typing.get_origin(hint), typing.get_args(hint)
    if container in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if container is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if container is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {count}values, each {_describe(arguments[0])}"
    if container is dict:
        return "a mapping of names"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, "a path" if hint is Path else "nothing (null)")
