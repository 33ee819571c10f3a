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
    former = [key for key in ("seq2seq", "fusion") if key in values]
    if "network" in values:
        if former:
            raise UserError(
                f"{origin}: the section '{former[0]}' of former versions can't stand beside "
                "'network', which holds these keys now"
            )
        section = _section(values, "network", origin)
        return {**values, "network": {"name": network or DEFAULT_NETWORK} | section}
    data, train, seq2seq, fusion = (
        _section(values, key, origin) for key in ("data", "train", "seq2seq", "fusion")
    )
    described = "tsf_seq2seq" if values.get("fusion") is not None else DEFAULT_NETWORK
    section = {"name": network or described} | seq2seq
    values = {key: value for key, value in values.items() if key not in former}
    if "slices" in section:
        values["data"] = {"stack": section.pop("slices")} | data
    if "output_start" in train:
        section["output_start"] = train.pop("output_start")
        values["train"] = train
    if section["name"] == "tsf_seq2seq":
        section |= {_FUSION_KEYS.get(key, f"fusion.{key}"): fusion[key] for key in fusion}
    return values | {"network": section}


def _section(values: Mapping[str, Any], key: str, origin: str) -> dict[str, Any]:
    """A copy of the section, empty where it is left out."""
    value = values.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{origin}: '{key}' must be a mapping of keys")
    return dict(value or {})
