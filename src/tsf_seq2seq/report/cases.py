"""Chosen cases, synthesized anew: pictures, slice strips and small volumes to look through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.data.subjects import Subject
from tsf_seq2seq.differentiation import lesion_mask, slice_to_show
from tsf_seq2seq.metrics import psnr
from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.report.images import (
    INTENSITY,
    SHOWN_INTENSITY,
    Box,
    Scale,
    bounding_box,
    cropped_affine,
    write_colours,
    write_grey,
    write_quantised,
)
from tsf_seq2seq.scores import Score
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.tsem import Case, Explained, explain, scored_cases

FOLDER = "cases"
STRIP_SLICES = 24
MARGIN = 2  # voxels around the brain
ERROR = Scale(0.0, 0.5)
RANKS = ((), ("only",), ("best", "worst"), ("best", "median", "worst"))


class RankedCase(NamedTuple):
    """A case and its place among its target's: "best", "median" or "worst"."""

    rank: str
    case: Case


@dataclass
class CaseFiles:
    """A case, the folder of its files relative to the page, and TSEM on the strip's slices."""

    rank: str
    sources: list[str]
    target: str
    psnr: float
    folder: str
    tsem: np.ndarray  # (N, Y, X)


@dataclass
class SubjectFiles:
    """A subject's volumes and strips, cropped to its brain, and its cases."""

    name: str
    sequences: dict[str, str]  # sequence → its files' path without suffix
    box: Box
    slices: list[int]  # of the box, in strips
    shown: int  # the strip's slice that pictures show
    aspect: float  # width / height of a slice in mm
    lesion: str | None  # path of the lesion mask's files without suffix
    cases: list[CaseFiles]


def rank_cases(
    scores: Sequence[Score], subjects: Sequence[Subject], names: Sequence[str]
) -> list[RankedCase]:
    """Best, median and worst case by PSNR of every target."""
    ranked = []
    for target in range(len(names)):
        own = [score for score in scores if score.target == names[target]]
        cases = scored_cases(own, subjects, (), names, 3)
        ranked += [RankedCase(*pair) for pair in zip(RANKS[len(cases)], cases, strict=True)]
    return ranked


def write_cases(
    network: TSFSeq2Seq,
    config: Config,
    ranked: Sequence[RankedCase],
    batch_size: int,
    output: Path,
) -> tuple[list[SubjectFiles], Scale]:
    """Write the files of all cases to `output`/cases; also the scale of TSEM in the pictures."""
    subjects = {item.case.subject.name: item.case.subject for item in ranked}
    files = []
    for number, (name, subject) in enumerate(tqdm(subjects.items(), desc="synthesizing cases")):
        own = [item for item in ranked if item.case.subject.name == name]
        tasks = list(dict.fromkeys(item.case.task for item in own))
        explained = explain(network, config, subject, tasks, batch_size)
        files.append(_write_subject(config, explained, own, number, output))
    limit = max(float(np.percentile(case.tsem, 99.5)) for _, case in cases_of(files))
    scale = Scale(0.0, max(float(f"{limit:.1g}"), 1e-3))
    for owner, case in cases_of(files):
        write_colours(output / case.folder / "tsem.png", case.tsem, scale, overlay=True)
        one = case.tsem[owner.shown][np.newaxis]
        write_colours(output / case.folder / "picture_tsem.png", one, scale)
    return files, scale


def strip_slices(depth: int, shown: int) -> list[int]:
    """At most 24 evenly spaced slices of `depth`, and the slice `shown`."""
    spaced = np.linspace(0, depth - 1, min(depth, STRIP_SLICES)).round().astype(int)
    return sorted({*spaced.tolist(), shown})


def _write_subject(
    config: Config, explained: Explained, ranked: Sequence[RankedCase], number: int, output: Path
) -> SubjectFiles:
    """The subject's sequences that its tasks need, and its cases."""
    loaded, names = explained.loaded, list(config.data.sequences)
    tasks = list(explained.maps)
    needed = sorted({index for task in tasks for index in (*task.sources, task.target)})
    box = bounding_box(np.any(loaded.centres[needed] > BACKGROUND, axis=0), MARGIN)
    lesion = lesion_mask(config, loaded)
    inside = None if lesion is None else box.of(lesion)
    shown = slice_to_show(inside, box.shape[0])
    slices = strip_slices(box.shape[0], shown)
    affine = cropped_affine(loaded.volumes.geometry, _grid_start(explained, box))
    width, height = (np.linalg.norm(affine[:3, axis]) * box.shape[2 - axis] for axis in (0, 1))
    folder = f"{FOLDER}/{number + 1:02d}"
    paths = {}
    for index in needed:
        paths[names[index]] = f"{folder}/sequence_{index + 1}"
        volume = box.of(loaded.centres[index])
        _write(output / paths[names[index]], volume, affine, slices)
    if inside is not None and inside.any():
        _write_lesion(output / folder / "lesion", inside, affine, slices)
    files = SubjectFiles(
        loaded.volumes.subject.name,
        paths,
        box,
        slices,
        slices.index(shown),
        float(width / height),
        f"{folder}/lesion" if inside is not None and inside.any() else None,
        [],
    )
    for count, item in enumerate(ranked, start=1):
        place = f"{folder}/task_{count:02d}"
        _write_pictures(explained, item.case.task, box, shown, output / place)
        files.cases.append(_write_case(explained, item, names, files, affine, output, place))
    return files


def _grid_start(explained: Explained, box: Box) -> tuple[int, int, int]:
    """The box's first voxel (z, y, x) on the subject's whole grid in LPS order."""
    loaded = explained.loaded
    half = (loaded.images.shape[1] - loaded.centres.shape[1]) // 2
    first = loaded.volumes.slices.start + loaded.window.z.start + half
    z, y, x = box.start
    return first + z, loaded.window.y.start + y, loaded.window.x.start + x


def _write(path: Path, volume: np.ndarray, affine: np.ndarray, slices: Sequence[int]) -> None:
    """An intensity volume: `path` with .nii.gz, and its strip with .png."""
    write_quantised(path.with_name(path.name + ".nii.gz"), volume, affine, INTENSITY)
    write_grey(path.with_name(path.name + ".png"), volume[list(slices)])


def _write_lesion(path: Path, mask: np.ndarray, affine: np.ndarray, slices: Sequence[int]) -> None:
    write_quantised(path.with_name("lesion.nii.gz"), mask, affine, Scale(0, 255))
    write_colours(path.with_name("lesion.png"), mask[list(slices)] * 0.6, Scale(0, 1), overlay=True)


def _write_case(
    explained: Explained,
    item: RankedCase,
    names: Sequence[str],
    subject: SubjectFiles,
    affine: np.ndarray,
    output: Path,
    place: str,
) -> CaseFiles:
    """Synthesis, TSEM and error as volumes, and strips of all but TSEM, whose scale is not known
    before all cases are."""
    task, slices = item.case.task, subject.slices
    synthesis, tsem = explained.maps[task]
    wanted = explained.loaded.centres[task.target]
    error = np.abs(synthesis - wanted)
    box, folder = subject.box, output / place
    _write(folder / "synthesis", box.of(synthesis), affine, slices)
    write_quantised(folder / "error.nii.gz", box.of(error), affine, ERROR)
    write_quantised(folder / "tsem.nii.gz", box.of(tsem), affine, ERROR)
    write_colours(folder / "error.png", box.of(error)[slices], ERROR, overlay=True)
    return CaseFiles(
        item.rank,
        [names[i] for i in sorted(task.sources)],
        names[task.target],
        psnr(wanted, synthesis),
        place,
        box.of(tsem)[slices],
    )


def _write_pictures(explained: Explained, task: Task, box: Box, shown: int, folder: Path) -> None:
    """Target, synthesis and error of the slice shown, a PNG each."""
    synthesis, _ = explained.maps[task]
    wanted = explained.loaded.centres[task.target]
    for name, volume in (("target", wanted), ("synthesis", synthesis)):
        write_grey(folder / f"picture_{name}.png", box.of(volume)[shown][np.newaxis])
    error = box.of(np.abs(synthesis - wanted))[shown][np.newaxis]
    write_colours(folder / "picture_error.png", error, ERROR)


def manifest(subjects: Sequence[SubjectFiles], tsem: Scale) -> dict[str, Any]:
    """What viewer.js reads: every subject's files and tasks."""
    return {
        "intensity": [SHOWN_INTENSITY.low, SHOWN_INTENSITY.high],
        "overlays": {"tsem": tsem.high, "error": ERROR.high},
        "subjects": [
            {
                "name": subject.name,
                "sequences": subject.sequences,
                "depth": subject.box.shape[0],
                "width": subject.box.shape[2],
                "height": subject.box.shape[1],
                "aspect": subject.aspect,
                "slices": subject.slices,
                "shown": subject.shown,
                "lesion": subject.lesion,
                "tasks": [_task_entry(case) for case in subject.cases],
            }
            for subject in subjects
        ],
    }


def _task_entry(case: CaseFiles) -> dict[str, Any]:
    return {
        "sources": case.sources,
        "target": case.target,
        "rank": case.rank,
        "psnr": f"{case.psnr:.1f} dB",
        "folder": case.folder,
    }


def cases_of(subjects: Sequence[SubjectFiles]) -> Iterator[tuple[SubjectFiles, CaseFiles]]:
    """Every case with its subject."""
    return ((subject, case) for subject in subjects for case in subject.cases)
