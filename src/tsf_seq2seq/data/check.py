"""Checks of a whole data set: every subject that could not be used, and why; a summary."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import (
    check_both_oriented,
    check_same_grid,
    defect_text,
    load_segmentation,
    positive_maximum,
)
from tsf_seq2seq.data.names import NAME, subject_names
from tsf_seq2seq.data.nifti import (
    Geometry,
    is_orientation,
    orientation_doubt,
    read_image,
    read_scan,
)
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.data.subjects import (
    check_root,
    find_files,
    find_segmentation,
    missing_file,
    other_format_of,
)
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.processes import map_in_processes
from tsf_seq2seq.tasks import mask_to_sequences

INTENSITIES = ("minimum", "brain_median", "percentile_99", "maximum")


@dataclass(frozen=True)
class SequenceReport:
    """One file: its grid, and intensities; the brain is where the sequence is above 0."""

    path: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]  # mm, of x, y, z in the file's voxel order
    orientation: str  # of the file's voxel order, such as LPS
    minimum: float
    brain_median: float
    percentile_99: float
    maximum: float


@dataclass
class SubjectReport:
    """What a subject has, and all that is wrong with it."""

    name: str
    defects: list[str] = field(default_factory=list)
    sequences: dict[str, SequenceReport] = field(default_factory=dict)

    @contextmanager
    def noting(self, part: str = "") -> Iterator[None]:
        """Whatever is raised within becomes a defect, of `part`: no subject ends the batch."""
        try:
            yield
        except Exception as error:
            self.defects.append(part + defect_text(error, self.name))


def subjects_of_splits(data: DataConfig, splits: Iterable[Path]) -> dict[str, int]:
    """Name → mask of the sequences that one split or another names."""
    check_root(data)
    masks: dict[str, int] = {}
    for split in splits:
        for name, mask, _ in read_split(split, len(data.sequences)):
            masks[name] = masks.get(name, 0) | mask
    return masks


def subjects_of_folders(data: DataConfig) -> dict[str, int]:
    """Name → 0 for every subject of the root, and for every folder that should be one."""
    check_root(data)
    names = subject_names(data.root, data.sequences)
    patterns = [pattern for own in data.sequences.values() for pattern in own]
    if any(pattern.startswith(f"{NAME}/") for pattern in patterns):
        known = {name.split("/")[0] for name in names}
        folders = {path.name for path in data.root.iterdir() if path.is_dir()} - known
        names = sorted([*names, *(name for name in folders if not name.startswith("."))])
    if not names:
        raise UserError(f"{data.root} holds no subjects: no file such as {patterns[0]}")
    return dict.fromkeys(names, 0)


def check_subjects(
    data: DataConfig, masks: Mapping[str, int], processes: int = 1
) -> Iterator[SubjectReport]:
    """Reports in the order of `masks`, which says what files a subject must have; 0: any one."""
    check = partial(check_subject, data)
    return map_in_processes(processes, check, masks, masks.values())


def check_subject(data: DataConfig, name: str, mask: int) -> SubjectReport:
    """All defects of a subject's sequences, as far as each file can be read, and of its labels."""
    report = SubjectReport(name)
    files = _find_sequences(data, name, mask, report)
    first: tuple[Geometry, str] | None = None
    contents: dict[str, str] = {}
    for sequence, path in files.items():
        voxels, geometry = _read(path, report)
        if geometry is not None:
            first = first or (geometry, path.name)
            if geometry.doubt:
                report.defects.append(f"{path} {geometry.doubt}")
            for check in (check_same_grid, check_both_oriented):
                with report.noting():
                    check(first[0], geometry, first[1], path.name)
        if voxels is None or geometry is None:
            continue
        with report.noting():
            report.sequences[sequence] = describe(path, voxels, geometry)
            positive_maximum(voxels, path)
            twin = contents.setdefault(_digest(geometry.to_network(voxels)), sequence)
            if twin != sequence:
                raise UserError(f"{twin} and {sequence} are identical, in {path}")
    if first is not None:
        with report.noting("segmentation: "):
            labels = find_segmentation(data, name)
            if labels is not None:
                load_segmentation(labels, first[0])
    return report


def describe(path: Path, voxels: np.ndarray, geometry: Geometry) -> SequenceReport:
    """Grid and intensities of a volume (x, y, z)."""
    inside = voxels[voxels > 0]
    return SequenceReport(
        path=str(path),
        shape=geometry.shape,
        spacing=tuple(float(f"{s:.4g}") for s in nib.affines.voxel_sizes(geometry.affine)),
        orientation="".join(nib.aff2axcodes(geometry.affine)),
        minimum=float(voxels.min()),
        brain_median=float(np.median(inside)) if inside.size else 0.0,
        percentile_99=float(np.percentile(voxels, 99)),
        maximum=float(voxels.max()),
    )


def summarise(reports: Sequence[SubjectReport]) -> dict[str, Any]:
    """Counts of subjects, sequences and grids; medians over subjects of the intensities."""
    sequences: dict[str, list[SequenceReport]] = {}
    for report in reports:
        for name, sequence in report.sequences.items():
            sequences.setdefault(name, []).append(sequence)
    return {
        "subjects": len(reports),
        "subjects_with_defects": sum(bool(report.defects) for report in reports),
        "sequences": {name: len(members) for name, members in sequences.items()},
        "grid_sizes": _count(reports, lambda sequence: " × ".join(map(str, sequence.shape))),
        "spacings_mm": _count(
            reports, lambda sequence: " × ".join(f"{size:g}" for size in sequence.spacing)
        ),
        "orientations": _count(reports, lambda sequence: sequence.orientation),
        "intensities": {
            name: {
                key: float(np.median([getattr(member, key) for member in members]))
                for key in INTENSITIES
            }
            for name, members in sequences.items()
        },
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary for people."""

    def counts(key: str) -> str:
        return ", ".join(f"{value} ({n})" for value, n in summary[key].items()) or "none"

    lines = [
        f"subjects      {summary['subjects']}, {summary['subjects_with_defects']} with defects",
        f"sequences     {counts('sequences')}",
        f"grid sizes    {counts('grid_sizes')}",
        f"spacings, mm  {counts('spacings_mm')}",
        f"orientations  {counts('orientations')}",
    ]
    if summary["intensities"]:
        lines.append("intensities, medians over subjects; brain: voxels above 0")
        width = max(map(len, summary["intensities"]))
        headings = ("minimum", "brain median", "99th percentile", "maximum")
        lines.append("  ".join([" " * width, *(f"{heading:>15}" for heading in headings)]))
        for name, values in summary["intensities"].items():
            cells = (f"{values[key]:>15.5g}" for key in INTENSITIES)
            lines.append("  ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def _find_sequences(
    data: DataConfig, name: str, mask: int, report: SubjectReport
) -> dict[str, Path]:
    """Files of the sequences; those that are missing or ambiguous become defects."""
    files: dict[str, Path] = {}
    needed = mask_to_sequences(mask, len(data.sequences))
    for index, (sequence, patterns) in enumerate(data.sequences.items()):
        with report.noting():
            if found := find_files(data.root, name, {sequence: patterns}):
                files[sequence] = found[0]
            elif index in needed:
                raise UserError(missing_file(data, name, mask, sequence))
            elif other := other_format_of(data.root, name, patterns):
                raise UserError(other)
    if not files and not report.defects:
        report.defects.append("no sequence has a file")
    return files


def _read(path: Path, report: SubjectReport) -> tuple[np.ndarray | None, Geometry | None]:
    """Voxels and grid, as far as they can be read; the grid of a volume with NaN voxels too."""
    with report.noting():
        return read_scan(path)
    try:
        image = read_image(path)
    except UserError:
        return None, None
    shape, affine = image.shape, image.affine
    if len(shape) != 3 or not is_orientation(affine):
        return None, None
    return None, Geometry(shape, affine, orientation_doubt(image.header))


def _digest(volume: np.ndarray) -> str:
    content = np.ascontiguousarray(volume, dtype="<f8").data
    return f"{volume.shape} {hashlib.blake2b(content).hexdigest()}"


def _count(
    reports: Sequence[SubjectReport], value: Callable[[SequenceReport], str]
) -> dict[str, int]:
    """Value → subjects with a sequence of that value, the most frequent first."""
    counter: Counter[str] = Counter()
    for report in reports:
        counter.update({value(sequence) for sequence in report.sequences.values()})
    return dict(counter.most_common())
