"""The files of an imputation: image, TSEM and the sidecar that says how they came about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib

from tsf_seq2seq import __version__
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.data.names import NAME
from tsf_seq2seq.data.nifti import compressed
from tsf_seq2seq.data.synthetic import RECORD_KEY, RESEARCH_USE, SOFTWARE, sidecar_path
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.files.writing import Write, write_together
from tsf_seq2seq.imputation.contributions import Contributions
from tsf_seq2seq.imputation.errors import ImputedErrors
from tsf_seq2seq.imputation.mapped import AppliedMap
from tsf_seq2seq.imputation.places import (
    EXPECTED_ERROR,
    LOWER,
    TSEM,
    UPPER,
    Paths,
    bids_name,
    check_labels,
    check_places,
    contribution_kind,
)
from tsf_seq2seq.imputation.record import FINISH_KEY, read_record, refuse_foreign
from tsf_seq2seq.imputation.subject import Imputation
from tsf_seq2seq.synthesis.contrast_map import map_terms
from tsf_seq2seq.synthesis.verdict import Verdict

Layout = Literal["plain", "bids", "names"]
DESCRIPTION_FILE = "dataset_description.json"
DATASET_DESCRIPTION = {
    "Name": f"{SOFTWARE}: synthetic sequences, research use",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": SOFTWARE, "Version": __version__, "Description": RESEARCH_USE}],
}


@dataclass(frozen=True)
class Output:
    """A folder of results: `<name>_<target>_synth.nii.gz` and so on (plain), BIDS derivatives
    (bids), or the target under the name that its data set would have given it (names)."""

    folder: Path
    layout: Layout = "plain"

    def paths(self, subject: FoundSubject, target: str, sources: Sequence[str] = ()) -> Paths:
        """Files of a target, also of contributions of the `sources`. UserError where its own name
        is wanted but can't be told."""
        own = f"{subject.name}_{target}"
        kinds = {TSEM: "tsem", EXPECTED_ERROR: "error", LOWER: "lower", UPPER: "upper"}
        kinds |= {contribution_kind(source): f"contribution-{source}" for source in sources}
        if self.layout == "bids":
            image = bids_name(subject, target, "synth")
            maps = {kind: bids_name(subject, target, end) for kind, end in kinds.items()}
            if len(set(maps.values())) < len(maps):
                raise UserError(f"some of {', '.join(sources)} would be one label in BIDS")
        elif self.layout == "plain":
            image = f"{own}_synth"
            maps = {kind: f"{own}_{end}" for kind, end in kinds.items()}
        elif target in subject.naming.names:
            above = subject.name.removesuffix(subject.short_name)
            named = subject.naming.names[target].replace(NAME, subject.short_name)
            image = str(Path(above, named))
            image = image.removesuffix(".gz").removesuffix(".nii")
            folders = {kind: end.partition("-")[0] for kind, end in kinds.items()}
            maps = {kind: f"{folders[kind]}/{own}_{end}" for kind, end in kinds.items()}
        else:
            raise UserError(
                f"subject {subject.name}: what its data set would call {target} can't be told from "
                f"its names ({subject.naming.title})"
            )
        files = {kind: self.folder / f"{name}.nii.gz" for kind, name in maps.items()}
        sidecars = {kind: sidecar_path(path) for kind, path in files.items()}
        return Paths(
            self.folder / f"{image}.nii.gz",
            self.folder / f"{image}.json",
            files,
            sidecars if self.layout == "bids" else {},
        )

    def check(self, wanted: Sequence[tuple[FoundSubject, Mapping[str, Paths]]]) -> None:
        """UserError unless each file of what is wanted (subject, and files by target) has a place
        of its own inside the folder, and the folder is not another data set's."""
        check_places(self.folder, wanted)
        if self.layout != "bids":
            return
        check_labels(subject for subject, places in wanted if places)
        description = self.folder / DESCRIPTION_FILE
        if description.exists():
            makers = (read_record(description) or {}).get("GeneratedBy")
            makers = makers if isinstance(makers, list) else []
            names = [maker.get("Name") for maker in makers if isinstance(maker, dict)]
            if SOFTWARE not in names:
                raise UserError(
                    f"{description} is of another data set: derivatives belong in a folder of "
                    f"their own, such as {self.folder / 'derivatives' / SOFTWARE.lower()}"
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
    writes: dict[Path, Write] = {}
    for kind, image in found.images.items():
        writes[paths.images[kind]] = _image_writer(image, kind, prints)
        if kind in paths.map_sidecars:
            told = record | {"Description": f"{kind} of a {RESEARCH_USE}"}
            writes[paths.map_sidecars[kind]] = _json_writer(told.copy)
    others = [
        own[kind]
        for own in (paths.maps, paths.map_sidecars)
        for kind in own
        if kind not in found.images
    ]
    removed = [path for path in others if path.exists()]  # an earlier imputation's
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
        FINISH_KEY: list(found.finish) or None,
        "Checkpoint": found.model.path.name,
        RECORD_KEY: found.model.sha256,
        "Software": SOFTWARE,
        "SoftwareVersion": __version__,
        "Command": command,
        "Adaptation": None if found.adapted is None else _adaptation(found.adapted),
        "ErrorMap": None if found.error_map is None else _errors(found.error_map),
        "Contributions": None if found.contributions is None else _shares(found.contributions),
    }


def _adaptation(adapted: AppliedMap) -> dict[str, Any]:
    """What is to be known of the contrast map that made the image of the network's output."""
    fitted, variables = adapted.fitted, list(adapted.shares)
    terms = map_terms(fitted.n_variables)
    labels = ["*".join(variables[i] for i in term) or "1" for term in terms]
    return {
        "References": list(adapted.references),
        "Coefficients": dict(zip(labels, fitted.coefficients, strict=True)),
        "CoefficientsOf": "the network's scale, -1 to 1; output: the network's own",
        "PriorStrength": fitted.strength,
        "PriorStrengthUnits": "references that the prior counts for; null: infinitely many",
        "LeftOutGain": fitted.gain_db,
        "LeftOutGainUnits": "dB of PSNR in the brain, on references (or slabs) left out of the map",
        "VarianceShares": adapted.shares,
        "Departure": adapted.departure,
        "DepartureUnits": "root mean square change of the output in the brain, network scale",
        "Differences": [
            {
                "Sequence": found.sequence,
                "Reference": found.reference,
                "Distance": found.distance,
                "UsualDistance": found.usual,
                "UsualDistanceOf": found.of,
            }
            for found in adapted.differences
        ],
    }


def _errors(found: ImputedErrors) -> dict[str, Any]:
    """What is to be known of an error map beside its images."""
    return {
        "MeanExpectedError": found.mean,
        "MeanExpectedErrorUnits": "the image's intensity; mean over the brain",
        "ExpectedPSNR": found.psnr,
        "PSNRMargin": found.psnr_margin,
        "PSNROf": "the brain in the slices that calibration would look at, with the intensity "
        "maximum as data range; the margin holds for all but 10 % of subjects like those of the "
        "calibration",
        "BandFactor": found.factor,
        "BandOf": "all but 10 % of the brain, on average over subjects like those",
        "CalibrationSubjects": found.subjects,
        "Verdict": None if found.verdict is None else _verdict(found.verdict),
    }


def _verdict(found: Verdict) -> dict[str, Any]:
    """Whether the subject is like those of the calibration."""
    return {
        "Trust": not found.outside,
        "ShareFurtherOut": found.share,
        "ShareOf": "subjects like those of the calibration, at most",
        "CalibrationSubjects": found.subjects,
        "Reasons": [
            {
                "Statistic": reason.name,
                "Value": reason.value,
                "Calibration": list(reason.seen),
                "Deviation": reason.deviation,
            }
            for reason in found.reasons
        ],
    }


def _shares(found: Contributions) -> dict[str, Any]:
    """What is to be known of contributions beside their images."""
    return {
        "Shares": found.shares,
        "SharesOf": "mean of the amounts over the brain",
        "LesionShares": found.lesion_shares,
        "WithoutSources": found.empty,
        "WithoutSourcesOf": found.empty_of,
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
