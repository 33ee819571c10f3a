"""A case's files: pictures, slice strips and small volumes of one subject and its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import Window, bounding_box
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.explain.differentiation import lesion_mask, slice_to_show
from tsf_seq2seq.explain.tsem import Case, Explained
from tsf_seq2seq.report.case_maps import ERROR, ERROR_OVERLAY, stored_range
from tsf_seq2seq.report.images import (
    INTENSITY,
    Scale,
    cropped_affine,
    write_colours,
    write_grey,
    write_quantised,
)
from tsf_seq2seq.tasks import Task, needed_sequences

CASES_FOLDER = "cases"
STRIP_SLICES = 24
MARGIN = 2  # voxels around the brain


class RankedCase(NamedTuple):
    """A case, its place among its target's ("best", "median" or "worst"), and its PSNR there."""

    rank: str
    psnr: float
    case: Case


@dataclass
class CaseFiles:
    """A case, the folder of its files relative to the page, and its maps on the strip's slices, by
    the names of their files."""

    rank: str
    sources: list[str]
    target: str
    psnr: float
    folder: str
    maps: dict[str, np.ndarray]  # (N, Y, X) each

    @property
    def pictures(self) -> list[str]:
        """What there is a picture of, by the name of its file."""
        return ["target", "synthesis", ERROR_OVERLAY, *self.maps]


@dataclass
class SubjectFiles:
    """A subject's volumes and strips, cropped to its brain, and its cases."""

    name: str
    sequences: dict[str, str]  # sequence → its files' path without suffix
    box: Window
    affine: np.ndarray  # of the box
    slices: list[int]  # of the box, in strips
    shown: int  # the strip's slice that pictures show
    aspect: float  # width / height of a slice in mm
    lesion: str | None  # path of the lesion mask's files without suffix
    cases: list[CaseFiles]


def strip_slices(depth: int, shown: int) -> list[int]:
    """At most 24 evenly spaced slices of `depth`, and the slice `shown`."""
    spaced = np.linspace(0, depth - 1, min(depth, STRIP_SLICES)).round().astype(int)
    return sorted({*spaced.tolist(), shown})


def write_subject(
    config: Config,
    explained: Explained,
    maps: Mapping[Task, Mapping[str, np.ndarray]],
    ranked: Sequence[RankedCase],
    number: int,
    output: Path,
) -> SubjectFiles:
    """The subject's sequences that its tasks need, and its cases with their maps (Z, Y, X)."""
    loaded, names = explained.loaded, list(config.data.sequences)
    needed = needed_sequences(explained.maps.syntheses)
    box = bounding_box(brain_mask(loaded.centres[needed]), MARGIN)
    lesion = lesion_mask(config, loaded)
    inside = None if lesion is None or not box.of(lesion).any() else box.of(lesion)
    shown = slice_to_show(inside, box.shape[0])
    slices = strip_slices(box.shape[0], shown)
    whole = loaded.place
    start = whole.z.start + box.z.start, whole.y.start + box.y.start, whole.x.start + box.x.start
    affine = cropped_affine(loaded.volumes.geometry, start)
    folder = f"{CASES_FOLDER}/{number + 1:02d}"
    paths = {names[index]: f"{folder}/sequence_{index + 1}" for index in needed}
    for index in needed:
        _write(output / paths[names[index]], box.of(loaded.centres[index]), affine, slices)
    mask = None
    if inside is not None:
        mask, strip = f"{folder}/lesion", inside[slices] * 0.6
        write_quantised(output / f"{mask}.nii.gz", inside, affine, Scale(0, 255))
        write_colours(output / f"{mask}.png", strip, Scale(0, 1), overlay=True)
    width, height = (np.linalg.norm(affine[:3, i]) * box.shape[2 - i] for i in (0, 1))  # mm
    name, aspect = loaded.volumes.subject.name, float(width / height)
    files = SubjectFiles(name, paths, box, affine, slices, slices.index(shown), aspect, mask, [])
    for count, item in enumerate(ranked, start=1):
        place = f"{folder}/task_{count:02d}"
        own = maps[item.case.task]
        files.cases.append(_write_case(explained, own, item, names, files, output, place))
    return files


def _write(
    path: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    slices: Sequence[int],
    content: str | None = None,
) -> None:
    """An intensity volume: `path` with .nii.gz, and its strip with .png; `content` of synthetic
    ones."""
    write_quantised(path.with_name(path.name + ".nii.gz"), volume, affine, INTENSITY, content)
    write_grey(path.with_name(path.name + ".png"), volume[list(slices)])


def _write_case(
    explained: Explained,
    maps: Mapping[str, np.ndarray],
    item: RankedCase,
    names: Sequence[str],
    subject: SubjectFiles,
    output: Path,
    place: str,
) -> CaseFiles:
    """Synthesis, error and maps as volumes; strips and pictures of all but the maps, whose scales
    are not known before all cases are."""
    task, box, folder = item.case.task, subject.box, output / place
    target = box.of(explained.loaded.centres[task.target])
    synthesis = box.of(explained.maps.syntheses[task])
    error = np.abs(synthesis - target)
    name, affine = names[task.target], subject.affine
    _write(folder / "synthesis", synthesis, affine, subject.slices, name)
    write_quantised(folder / "error.nii.gz", error, affine, ERROR, f"error of {name}")
    for own, volume in maps.items():
        path, content = folder / f"{own}.nii.gz", f"{own} of {name}"
        write_quantised(path, box.of(volume), affine, stored_range(own), content)
    write_colours(folder / "error.png", error[subject.slices], ERROR, overlay=True)
    shown = slice(subject.slices[subject.shown], subject.slices[subject.shown] + 1)
    write_grey(folder / "picture_target.png", target[shown])
    write_grey(folder / "picture_synthesis.png", synthesis[shown])
    write_colours(folder / "picture_error.png", error[shown], ERROR)
    sources = [names[i] for i in sorted(task.sources)]
    strips = {own: box.of(volume)[subject.slices] for own, volume in maps.items()}
    return CaseFiles(item.rank, sources, names[task.target], item.psnr, place, strips)
