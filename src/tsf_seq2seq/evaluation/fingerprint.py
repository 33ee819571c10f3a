"""What a folder's results are results of: an interrupted run goes on, another one is refused."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tsf_seq2seq.config import DataConfig, to_mapping
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import sha256
from tsf_seq2seq.files.writing import write_text


def identity_of(data: DataConfig, weights: Iterable[Path], **choices: object) -> dict[str, Any]:
    """All that results depend on: weights by their SHA-256, `choices`, data."""
    values = to_mapping(data)
    return {
        "weights": {str(path): sha256(path) for path in weights},
        **choices,
        "data": {key: values[key] for key in ("root", "test", "sequences", "slices", "crop")},
    }


def goes_on(results: Path, record: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the file `results` is there, of the identity that `record` holds.

    If it isn't there, `record` is written. UserError where the results are another run's.
    """
    text = json.dumps(identity, indent=1) + "\n"
    if not results.exists():
        write_text(record, text)
        return False
    if not record.exists() or record.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{results.parent} holds the results of another run ({record} differs); name another "
            "folder with -o"
        )
    return True
