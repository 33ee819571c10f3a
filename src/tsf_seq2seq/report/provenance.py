"""Where a report comes from: data, weights, command, versions."""

import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import tsf_seq2seq
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.files.fingerprint import sha256
from tsf_seq2seq.report.inputs import read_json


def facts(
    command: Sequence[str],
    weights: Path | None,
    identity: dict[str, Any] | None,
    scores: Sequence[Score],
) -> list[tuple[str, str]]:
    """What made the numbers, as terms and what they are here."""
    items = [("command", shlex.join(command))]
    if weights is not None:
        items.append(("checkpoint", f"{weights}, SHA-256 {sha256(weights)}"))
    if identity is not None:
        data = identity.get("data", {})
        items.append(("evaluated data", f"{data.get('root')}, split {data.get('test')}"))
        hashes = identity.get("weights", {})
        items += [(f"weights of the evaluation: {p}", f"SHA-256 {h}") for p, h in hashes.items()]
        items.append(("source sets", "all" if identity.get("all_tasks") else "by each mask"))
        if identity.get("max_slices"):
            items.append(("slices", f"the central {identity['max_slices']} of each subject"))
        items.append(("methods", ", ".join(identity.get("methods", ()))))
    if scores:
        subjects = len({score.name for score in scores})
        items.append(("scored", f"{len(scores)} volume pairs of {subjects} subjects"))
    versions = f"tsf-seq2seq {tsf_seq2seq.__version__}, PyTorch {torch.__version__}, Python "
    items.append(("software", versions + platform.python_version()))
    items.append(("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")))
    return items


def other_weights(
    weights: Path | None, identity: dict[str, Any] | None, same: str | None = None
) -> str:
    """A warning where the evaluation was made with other weights than the cases are; else "".

    `same`: SHA-256 of another file that holds the same network.
    """
    hashes = (identity or {}).get("weights", {}).values()
    if weights is None or not hashes or not {sha256(weights), same}.isdisjoint(hashes):
        return ""
    return f"The scores come from other weights than {weights}, which made the pictures."


def read_identity(path: Path) -> dict[str, Any]:
    """evaluation.json; UserError where it can't be read or is none."""
    content = read_json(path)
    kinds: dict[str, type] = {"weights": dict, "data": dict, "methods": list, "finish": dict}
    for name, value, kind in [
        ("the file", content, dict),
        *((key, content[key], kind) for key, kind in kinds.items() if key in content),
    ]:
        if not isinstance(value, kind):
            raise UserError(f"{path}: {name} must hold a {kind.__name__}, not {value!r:.40}")
    return content
