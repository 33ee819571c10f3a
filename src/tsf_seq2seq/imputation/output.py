"""The files of an imputation: image, TSEM and the sidecar that says how they came about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib

from tsf_seq2seq import __version__
from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.data.names import NAME
from tsf_seq2seq.data.nifti import compressed
from tsf_seq2seq.data.synthetic import (
    RECORD_KEY,
    RESEARCH_USE,
    SOFTWARE,
    has_record,
    is_marked_file,
    may_be_replaced,
    sidecar_path,
)
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.files.writing import Write, write_together
from tsf_seq2seq.imputation.places import bids_name, check_labels, check_places
from tsf_seq2seq.imputation.subject import Imputation

Layout = Literal["plain", "bids", "names"]
RECORD_VERSION = 2  # of what a sidecar must hold for its image to be done already
DESCRIPTION_FILE = "dataset_description.json"
DATASET_DESCRIPTION = {
    "Name": f"{SOFTWARE}: synthetic sequences, research use",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": SOFTWARE, "Version": __version__, "Description": RESEARCH_USE}],
}


class Paths(NamedTuple):
    """Where an imputation goes; in BIDS also beside the TSEM lies a sidecar."""

    image: Path
    tsem: Path
    sidecar: Path
    tsem_sidecar: Path | None = None


@dataclass(frozen=True)
class Output:
    """A folder of results: `<name>_<target>_synth.nii.gz` and so on (plain), BIDS derivatives
    (bids), or the target under the name that its data set would have given it (names)."""

    folder: Path
    layout: Layout = "plain"

    def paths(self, subject: FoundSubject, target: str) -> Paths:
        """Files of a target. UserError where its own name is wanted but can't be told."""
        own = f"{subject.name}_{target}"
        if self.layout == "bids":
            image, tsem = (bids_name(subject, target, kind) for kind in ("synth", "tsem"))
        elif self.layout == "plain":
            image, tsem = f"{own}_synth", f"{own}_tsem"
        elif target in subject.naming.names:
            above, _, name = subject.name.rpartition("/")
            image = str(Path(above, subject.naming.names[target].replace(NAME, name)))
            image, tsem = image.removesuffix(".gz").removesuffix(".nii"), f"tsem/{own}_tsem"
        else:
            raise UserError(
                f"subject {subject.name}: what its data set would call {target} can't be told from "
                f"its names ({subject.naming.title})"
            )
        maps = self.folder / f"{tsem}.nii.gz"
        found = Paths(self.folder / f"{image}.nii.gz", maps, self.folder / f"{image}.json")
        return found._replace(tsem_sidecar=sidecar_path(maps)) if self.layout == "bids" else found

    def check(self, wanted: Sequence[tuple[FoundSubject, Mapping[str, Paths]]]) -> None:
        """UserError unless each file of what is wanted (subject, and files by target) has a place
        of its own inside the folder, and the folder is not another data set's."""
        check_places(self.folder, wanted)
        if self.layout != "bids":
            return
        check_labels(subject for subject, places in wanted if places)
        description = self.folder / DESCRIPTION_FILE
        if description.exists():
            makers = (_record(description) or {}).get("GeneratedBy")
            makers = makers if isinstance(makers, list) else []
            names = [maker.get("Name") for maker in makers if isinstance(maker, dict)]
            if SOFTWARE not in names:
                raise UserError(
                    f"{description} is of another data set: derivatives belong in a folder of "
                    f"their own, such as {self.folder / 'derivatives' / SOFTWARE.lower()}"
                )


def circumstances(
    model: Model, sources: Mapping[str, Path], precision: str, resample: bool
) -> dict[str, Any]:
    """What decides on an imputation, as its sidecar tells; to be taken before the sources are read.

    Raises UserError where a source can't be read.
    """
    if missing := [path for path in sources.values() if not path.exists()]:
        raise UserError(f"{missing[0]} does not exist")
    return {
        "RecordVersion": RECORD_VERSION,
        RECORD_KEY: model.sha256,
        "SourceSequences": list(sources),
        "SourceFingerprints": [fingerprint(path) for path in sources.values()],
        "Precision": precision,
        "Resample": resample,
    }


def out_of_date(paths: Paths, wanted: Mapping[str, Any]) -> str | None:
    """Why the files of an imputation aren't those that the circumstances `wanted` give, or None."""
    record = _record(paths.sidecar)
    if record is None:
        return "its sidecar is missing or damaged"
    for key, value in wanted.items():
        if record.get(key) != value:
            return _change(key, record, wanted)
    outputs = record.get("OutputFingerprints")
    for kind, path in (("image", paths.image), ("TSEM", paths.tsem)):
        known = outputs.get(kind) if isinstance(outputs, dict) else None
        if (known or kind == "image") and not _holds(path, known):
            return f"its {kind} has changed" if path.exists() else f"its {kind} is missing"
    return None


def refuse_foreign(paths: Paths) -> None:
    """UserError where what isn't ours lies in a file's place; its content decides, not its name."""
    for path in (paths.image, paths.tsem):
        if path.exists() and not may_be_replaced(path):
            raise UserError(f"{path} exists and is not of a synthetic image: choose another folder")
    sidecars = ((paths.image, paths.sidecar), (paths.tsem, paths.tsem_sidecar))
    for image, record in sidecars:
        if record is None or not record.exists() or (record.is_file() and has_record(image)):
            continue
        if not record.is_file() or not is_marked_file(image) or _record(record) is not None:
            raise UserError(
                f"{record} exists and is not of a synthetic image: choose another folder"
            )


def write(
    found: Imputation,
    paths: Paths,
    output: Output,
    made_in: Mapping[str, Any],
    command: str | None = None,
) -> None:
    """Write image, TSEM and sidecars: all of them, or none (UserError), with what lay there kept.

    `made_in`: the circumstances. Never takes the place of a file that isn't synthetic.
    """
    refuse_foreign(paths)
    record, prints = sidecar(found, command) | dict(made_in), dict[str, str]()
    writes: dict[Path, Write] = {paths.image: _image_writer(found.image, "image", prints)}
    removed = []
    if found.tsem is not None:
        writes[paths.tsem] = _image_writer(found.tsem, "TSEM", prints)
        if paths.tsem_sidecar is not None:
            words = {"Description": f"TSEM of a {RESEARCH_USE}"}
            writes[paths.tsem_sidecar] = _json_writer(lambda: record | words)
    else:  # an earlier network's
        removed = [p for p in (paths.tsem, paths.tsem_sidecar) if p is not None and p.exists()]
    if output.layout == "bids" and not (output.folder / DESCRIPTION_FILE).exists():
        writes[output.folder / DESCRIPTION_FILE] = _json_writer(lambda: DATASET_DESCRIPTION)
    # The last, as the images' fingerprints are known when they have been written.
    writes[paths.sidecar] = _json_writer(lambda: record | {"OutputFingerprints": prints})
    write_together(output.folder, writes, tuple(removed))


def sidecar(found: Imputation, command: str | None = None) -> dict[str, Any]:
    """What is to be known of a synthetic image; keys in the manner of BIDS."""
    tsem = found.tsem is not None
    return {
        "Description": RESEARCH_USE,
        "Target": found.target,
        "SourceSequences": list(found.sources),
        "Sources": list(found.sources.values()),
        "FusionWeights": found.fusion_weights,
        "Network": found.model.config.network.name,
        "MeanTSEM": found.mean_tsem,
        "TSEMUnits": "network scale, range 2; mean over the brain" if tsem else None,
        "IntensityMaximum": found.intensity_maximum,
        "IntensityScale": found.intensity_scale,
        "Resampling": list(found.resampling),
        "Warnings": list(found.warnings),
        "SkullStripped": found.skull_stripped,
        "Precision": found.precision,
        "Checkpoint": found.model.path.name,
        RECORD_KEY: found.model.sha256,
        "Software": SOFTWARE,
        "SoftwareVersion": __version__,
        "Command": command,
    }


def _image_writer(image: nib.Nifti1Image, kind: str, prints: dict[str, str]) -> Write:
    """Writes an image, and notes its fingerprint in `prints`."""

    def write_image(path: Path) -> None:
        path.write_bytes(compressed(image))
        prints[kind] = fingerprint(path)

    return write_image


def _json_writer(content: Callable[[], Mapping[str, Any]]) -> Write:
    """Writes what `content` gives when the file's turn comes.

    Names that are no UTF-8 become JSON's own escapes.
    """

    def write_json(path: Path) -> None:
        text = json.dumps(content(), indent=2, ensure_ascii=False) + "\n"
        path.write_bytes(text.encode("utf-8", "backslashreplace"))

    return write_json


def _record(path: Path) -> dict[str, Any] | None:
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
        "Resample": "--resample was given before" if old else "--resample was not given before",
    }
    return words.get(key, "its sidecar is of another version of this software")


def _holds(path: Path, known: object) -> bool:
    """Whether a file has the fingerprint that is known of it."""
    try:
        return fingerprint(path) == known
    except UserError:
        return False
