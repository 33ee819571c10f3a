"""Settings of old YAML files and checkpoints, brought to today's keys."""

from collections.abc import Mapping
from typing import Any

from tsf_seq2seq.errors import UserError

DEFAULT_NETWORK = "seq2seq"
_FUSION_KEYS = {
    "attention_channels": "attention_channels",
    "attention_kernels": "attention_kernels",
    "kernels": "attention_mixed",
    "norm": "attention_norm",
}


def with_network_section(
    values: Mapping[str, Any], origin: str, network: str | None = None
) -> dict[str, Any]:
    """Settings in which the section `network` names the network.

    Once, the sections `seq2seq` and `fusion` described it, a fusion made it TSF-Seq2Seq, a stack's
    height was `seq2seq.slices`, and the output's start `train.output_start`. `network`: the one
    that is meant where none is named. Raises UserError where old sections stand beside the new one.
    """
    values = dict(values)
    former = [key for key in ("seq2seq", "fusion") if key in values]
    if not former:
        section = values.get("network")
        if section is None or isinstance(section, Mapping):
            values["network"] = {"name": network or DEFAULT_NETWORK} | dict(section or {})
        return values
    if "network" in values:
        raise UserError(
            f"{origin}: the section '{former[0]}' of former versions can't stand beside 'network', "
            "which holds these keys now"
        )
    seq2seq, fusion = (
        _section(values.pop(key, None), key, origin) for key in ("seq2seq", "fusion")
    )
    name = network or ("tsf_seq2seq" if fusion is not None else "seq2seq")
    section = {"name": name} | (seq2seq or {})
    _move(section, "slices", values, "data", "stack")
    train = _section(values.get("train"), "train", origin) or {}
    if "output_start" in train:
        section["output_start"] = train.pop("output_start")
        values["train"] = train
    if name == "tsf_seq2seq":
        for key, value in (fusion or {}).items():
            section[_FUSION_KEYS.get(key, f"fusion.{key}")] = value
    values["network"] = section
    return values


def _section(value: Any, key: str, origin: str) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{origin}: '{key}' must be a mapping of keys")
    return None if value is None else dict(value)


def _move(
    section: dict[str, Any], key: str, values: dict[str, Any], name: str, new_key: str
) -> None:
    """Move a key of `section` to another section of `values`."""
    if key in section:
        values[name] = {new_key: section.pop(key)} | dict(values.get(name) or {})
