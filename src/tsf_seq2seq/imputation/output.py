"""The files of an imputation: image, TSEM and the sidecar that says how they came about."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tsf_seq2seq import __version__
from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.discovery import (
    BIDS_SUFFIXES,
    NAME,
    FoundSubject,
    canonical_name,
    is_synthetic,
    stem,
)
from tsf_seq2seq.data.nifti import compressed
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import write_atomically, write_text
from tsf_seq2seq.imputation.subject import RESEARCH_USE, Imputation

Layout = Literal["plain", "bids", "names"]
SOFTWARE = "TSF-Seq2Seq"
DATASET_DESCRIPTION = {
    "Name": f"{SOFTWARE}: synthetic sequences, research use",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": SOFTWARE, "Version": __version__, "Description": RESEARCH_USE}],
}


class Paths(NamedTuple):
    """Where an imputation goes; the sidecar comes last, so that it tells what is whole."""

    image: Path
    tsem: Path
    sidecar: Path


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
            image, tsem = (_bids_name(subject.name, target, kind) for kind in ("synth", "tsem"))
        elif self.layout == "plain":
            image, tsem = f"{own}_synth", f"{own}_tsem"
        elif target in subject.naming.names:
            image = subject.naming.names[target].replace(NAME, subject.name)
            image, tsem = image.removesuffix(".gz").removesuffix(".nii"), f"tsem/{own}_tsem"
        else:
            raise UserError(
                f"subject {subject.name}: what its data set would call {target} can't be told from "
                f"its names ({subject.naming.title})"
            )
        names = (f"{image}.nii.gz", f"{tsem}.nii.gz", f"{image}.json")
        return Paths(*(self.folder / name for name in names))


def is_done(paths: Paths, model: Model, sources: Mapping[str, Path]) -> bool:
    """Whether the files are there, of the same checkpoint and sources."""
    try:
        record = json.loads(paths.sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or not paths.image.exists():
        return False
    same = {"CheckpointSHA256": model.sha256, **_sources(sources)}
    return all(record.get(key) == value for key, value in same.items())


def write(found: Imputation, paths: Paths, output: Output, command: str | None = None) -> None:
    """Write image, TSEM and sidecars: all of them, or none where the disk refuses (UserError).

    Never takes the place of a file that isn't synthetic.
    """
    for path in (paths.image, paths.sidecar):
        if path.exists() and not is_synthetic(paths.image):
            raise UserError(f"{path} exists and is not of a synthetic image: choose another folder")
    record = sidecar(found, command)
    written = [paths.sidecar]
    try:
        # Until the files are whole, the sidecar says that they are synthetic, but not done.
        write_text(paths.sidecar, _json(record | {"CheckpointSHA256": "unfinished"}))
        if found.tsem is not None:
            _write_image(paths.tsem, found.tsem, written)
        if output.layout == "bids":
            _write_bids(found, record, paths, output.folder, written)
        _write_image(paths.image, found.image, written)
        write_text(paths.sidecar, _json(record))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def sidecar(found: Imputation, command: str | None = None) -> dict[str, Any]:
    """What is to be known of a synthetic image; keys in the manner of BIDS."""
    tsem = found.tsem is not None
    return {
        "Description": RESEARCH_USE,
        "Target": found.target,
        **_sources(found.sources),
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
        "CheckpointSHA256": found.model.sha256,
        "Software": SOFTWARE,
        "SoftwareVersion": __version__,
        "Command": command,
    }


def _write_image(path: Path, image: Any, written: list[Path]) -> None:
    content = compressed(image)
    written.append(path)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _write_bids(
    found: Imputation, record: dict[str, Any], paths: Paths, folder: Path, written: list[Path]
) -> None:
    """What BIDS asks for beside the images: the data set's description, a sidecar for the TSEM."""
    write_text(folder / "dataset_description.json", _json(DATASET_DESCRIPTION))
    if found.tsem is not None:
        written.append(paths.tsem.with_name(f"{stem(paths.tsem)}.json"))
        write_text(written[-1], _json(record | {"Description": f"TSEM of a {RESEARCH_USE}"}))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sources(files: Mapping[str, Path | str]) -> dict[str, list[str]]:
    return {"SourceSequences": list(files), "Sources": [str(path) for path in files.values()]}


def _bids_name(name: str, target: str, kind: str) -> str:
    """A derivative's path without its ending, such as sub-1/anat/sub-1_desc-synth_T2w."""
    labels, canonical = _bids_labels(name), canonical_name(target)
    ending = BIDS_SUFFIXES[canonical] if canonical else f"_{_alphanumeric(target)}"
    entities, _, suffix = f"{'_'.join(labels)}{ending}".rpartition("_")
    return f"{'/'.join(labels)}/anat/{entities}_desc-{kind}_{suffix}"


def _bids_labels(name: str) -> list[str]:
    """sub-… and, if the name tells one, ses-…: of sub-1_ses-2, and of folders as in 1/2."""
    if found := re.fullmatch(r"(sub-[^/_]+)(?:[_/](ses-[^/_]+))?", name):
        return [label for label in found.groups() if label]
    subject, _, session = name.partition("/")
    labels = [f"sub-{_alphanumeric(subject)}"]
    return [*labels, f"ses-{_alphanumeric(session)}"] if session else labels


def _alphanumeric(text: str) -> str:
    return "".join(character for character in text if character.isalnum())
