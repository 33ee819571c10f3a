"""What a sidecar records of an imputation, and whether the files beside it are still that."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.synthetic import RECORD_KEY, is_marked_file, is_record, may_be_replaced
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.places import IMAGE, Paths
from tsf_seq2seq.synthesis.finish import Finish

FINISH_KEY = "Finish"  # steps, null for none
WITH_CONTRIBUTIONS, WITH_INTERVAL = "WithContributions", "WithInterval"
LABELS_KEY = "LabelMapFingerprint"
REFERENCES_KEY = "ReferenceFingerprints"  # name → sequence → fingerprint, where there are some
RECORD_VERSION = 2  # of what a sidecar must hold for its image to be done already


def circumstances(
    model: Model,
    sources: Mapping[str, Path],
    options: ImputeOptions,
    finish: Finish | None = None,
) -> dict[str, Any]:
    """What decides on an imputation, as its sidecar tells; to be taken before the sources are read.

    What isn't asked for doesn't decide. Raises UserError where a source or the label map can't be
    read.
    """
    labels = None if options.labels is None else Path(options.labels)
    given = [*sources.values(), *([] if labels is None else [labels])]
    if missing := [path for path in given if not path.exists()]:
        raise UserError(f"{missing[0]} does not exist")
    asked: dict[str, Any] = {WITH_CONTRIBUTIONS: True} if options.contributions else {}
    if options.interval:
        asked[WITH_INTERVAL] = True
    if labels is not None:
        asked[LABELS_KEY] = fingerprint(labels)
    return asked | {
        "RecordVersion": RECORD_VERSION,
        RECORD_KEY: model.sha256,
        "SourceSequences": list(sources),
        "SourceFingerprints": [fingerprint(path) for path in sources.values()],
        "Precision": options.precision,
        "Resample": options.resample,
        FINISH_KEY: [*finish.steps] if finish else None,
    }


def out_of_date(paths: Paths, wanted: Mapping[str, Any]) -> str | None:
    """Why the files of an imputation aren't those that the circumstances `wanted` give, or None."""
    record = read_record(paths.sidecar)
    if record is None:
        return "its sidecar is missing or damaged"
    for key, value in wanted.items():
        if record.get(key) != value:
            return _change(key, record, wanted)
    outputs = record.get("OutputFingerprints")
    for kind, path in paths.images.items():
        known = outputs.get(kind) if isinstance(outputs, dict) else None
        if (known or kind == IMAGE) and not _holds(path, known):
            return f"its {kind} has changed" if path.exists() else f"its {kind} is missing"
    return None


def refuse_foreign(paths: Paths) -> None:
    """UserError where what isn't ours lies in a file's place; its content decides, not its name."""
    for path in paths.images.values():
        if path.exists() and not may_be_replaced(path, paths.sidecar):
            raise UserError(f"{path} exists and is not of a synthetic image: choose another folder")
    for kind, record in paths.sidecars.items():
        image = paths.images[kind]
        if not record.exists() or (record.is_file() and is_record(record)):
            continue
        if not record.is_file() or not is_marked_file(image) or read_record(record) is not None:
            raise UserError(
                f"{record} exists and is not of a synthetic image: choose another folder"
            )


def refuse_others(paths: Paths, files: Mapping[str, Path]) -> None:
    """UserError where the result of another subject lies, of the same name but other files (as
    its record tells, and they still are) than this one's (sequence → file)."""
    record = read_record(paths.sidecar) or {}
    keys = ("SourceSequences", "Sources", "SourceFingerprints")
    known = [record[key] for key in keys if isinstance(record.get(key), list)]
    for name, place, content in zip(*known, strict=False) if len(known) == len(keys) else ():
        own = files.get(name)
        same = str(own) == place or (own is not None and _holds(own, content))
        if not same and _holds(Path(str(place)), content):
            raise UserError(
                f"{paths.image} is of another subject, whose {name} is {place}: choose another "
                "folder"
            )


def read_record(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None without one."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _change(key: str, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs from a record, in words."""
    old = record.get(key)
    if key == "SourceFingerprints":
        known = old if isinstance(old, list) else []
        pairs = zip(wanted["SourceSequences"], wanted[key], strict=True)
        changed = [name for i, (name, value) in enumerate(pairs) if known[i : i + 1] != [value]]
        return f"source {', '.join(changed)} has changed"
    if key == "SourceSequences" and isinstance(old, list):
        return f"it was made from {', '.join(map(str, old))}"
    words = {
        RECORD_KEY: "the checkpoint is another one",
        "Precision": f"it was made in {old}",
        FINISH_KEY: _finish_before(old),
        WITH_CONTRIBUTIONS: "it was made without contributions",
        WITH_INTERVAL: "it was made without interval",
        LABELS_KEY: "the label map has changed" if old else "it was made without label map",
        REFERENCES_KEY: _change_of_references(old, wanted.get(REFERENCES_KEY)),
        "Resample": "--resample was given before" if old else "--resample was not given before",
    }
    return words.get(key, "its sidecar is of another version of this software")


def _change_of_references(old: object, wanted: object) -> str:
    if not old:
        return "it was made without references"
    return "its references have changed" if wanted else "it was adapted to references"


def _finish_before(old: object) -> str:
    if not isinstance(old, list):
        return "it was made without finish"
    return f"it was finished by {', '.join(map(str, old))}"


def _holds(path: Path, known: object) -> bool:
    """Whether a file has the fingerprint that is known of it."""
    try:
        return fingerprint(path) == known
    except UserError:
        return False
