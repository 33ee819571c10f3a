"""Settings in layers: a YAML file on top of its base, and single keys on top of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.yaml_text import parse_yaml, read_yaml
from tsf_seq2seq.migration import DEFAULT_NETWORK
from tsf_seq2seq.settings import shortened


def read_with_bases(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a YAML file holds, on top of the file that its key `base` names (beside it).

    Sections go together key by key. A file that names another network than its base takes nothing
    of the base's sections `network` and `loss`. `above`: the files that led here.
    """
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: 'base' must be the name of a YAML file, not {base!r}")
    if path.resolve() in above:
        raise UserError(f"{path}: 'base' leads back to the file itself")
    if not (path.parent / base).exists():
        raise UserError(f"{path}: 'base' names {path.parent / base}, which does not exist")
    below = read_with_bases(path.parent / base, (*above, path.resolve()))
    if _network_name(values) not in (None, _network_name(below) or DEFAULT_NETWORK):
        below = {key: below[key] for key in below if key not in ("network", "loss")}
    return _merged(below, values)


def _network_name(values: Mapping[str, Any]) -> Any:
    section = values.get("network")
    return section.get("name") if isinstance(section, Mapping) else None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of `above` in their places; data.sequences is replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key != "sequences":
            result[key] = _merged(old, value)
    return result


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy of nested `values` with each "key.subkey=value" (a YAML value) put in its place."""
    result = dict(values)
    for text in overrides:
        path, separator, value = text.partition("=")
        if not separator or not path:
            raise UserError(f"--set wants key=value, such as train.lr=2e-4, not '{text}'")
        *sections, key = path.split(".")
        place = result
        for section in sections:
            inner = place.get(section)
            place[section] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[section]
        try:
            place[key] = parse_yaml(value)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"--set {shortened(text)}: '{shortened(value)}' is not a YAML value ({reason})"
            ) from None
    return result
