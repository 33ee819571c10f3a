"""Sections of the chosen cases, synthesized anew: pictures, and the viewer."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tsf_seq2seq.checkpoints.checkpoint import Extras
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.evaluation.scores import Score, examined_method
from tsf_seq2seq.explain.tsem import explain, scored_cases
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.report.blocks import Drawn, Section
from tsf_seq2seq.report.case_files import CaseFiles, RankedCase, SubjectFiles, write_subject
from tsf_seq2seq.report.case_maps import (
    ERROR_OVERLAY,
    EXPECTED_MAP,
    TSEM_MAP,
    Overlay,
    case_maps,
    overlays_of,
)
from tsf_seq2seq.report.images import (
    SHOWN_INTENSITY,
    overlay_colours,
    signed_overlay_colours,
    write_colours,
    write_signed,
)
from tsf_seq2seq.synthesis.error_map import with_error_map
from tsf_seq2seq.tables import group_by

TITLE = "Best, median and worst cases"
PICTURES = {"target": ("target", "Real"), "synthesis": ("synthesis", "Synthesis of")}
MAP_WORDS = {  # what pictures of maps show
    ERROR_OVERLAY: "Absolute error of the synthesis of",
    TSEM_MAP: "TSEM of the synthesis of",
    EXPECTED_MAP: "Expected error of the synthesis of",
}
MAPPED = (
    "The network is adapted to a scanner: syntheses and errors are of its mapped output, as the "
    "scores are; TSEM is of its own output, before the map."
)
NOTHING_ADDED = (
    "What each source adds is shown of cases with two sources and more, where the network can do "
    "without each and its checkpoint keeps the training data's mean intensities: here of none."
)
RANKS = ((), ("only",), ("best", "worst"), ("best", "median", "worst"))


def case_sections(
    subjects: Sequence[SubjectFiles],
    overlays: Mapping[str, Overlay],
    names: Sequence[str],
    adapted: bool = False,
) -> list[Section]:
    """Pictures of the cases, by target and the best first, and the viewer with its `overlays`.

    `adapted`: the syntheses are those of an adapted network.
    """
    found = sorted(cases_of(subjects), key=lambda pair: -pair[1].psnr)
    targets = group_by(found, lambda pair: pair[1].target)
    scales = {
        "contribution" if own.signed else own.title: (f"{own.scale.high:g}", own.signed)
        for own in overlays.values()
    }
    pictures = {
        name: (own.title, MAP_WORDS.get(name, f"{own.title.capitalize()} to the synthesis of"))
        for name, own in overlays.items()
    }
    content: dict[str, Any] = {
        "targets": {target: targets[target] for target in names if target in targets},
        "scales": [(title, *own) for title, own in scales.items()],
        "pictures": PICTURES | pictures,
    }
    text = [
        "By PSNR, over all scored tasks of a target. Each picture is the slice with the largest "
        "lesion, else the middle one; the patient's right is on the left. Errors and maps in "
        "normalised intensities, whose range is 2."
    ]
    if TSEM_MAP not in overlays:
        text.append("The network has no f_A, and so no TSEM.")
    if any(own.signed for own in overlays.values()):
        text.append(
            "What a source adds: its Shapley value over the sets of the case's sources; with the "
            "training data's mean brain intensity these add up to the synthesis. Red is brighter, "
            "blue darker."
        )
    else:
        text.append(NOTHING_ADDED)
    text += [MAPPED] if adapted else []
    words = ["The same cases, slice by slice. Intensities as the network sees them."]
    viewer = Drawn("viewer", manifest(subjects, overlays))
    return [
        Section("cases", TITLE, text, [Drawn("cases", content)], files=["metrics.csv"]),
        Section("viewer", "Look through the volumes", words, [viewer]),
    ]


def missing_cases(reason: str) -> Section:
    """In place of the cases, why there are none."""
    return Section("cases", TITLE, note=f"Left out: {reason}.")


def rank_cases(
    scores: Sequence[Score],
    subjects: Sequence[Subject],
    names: Sequence[str],
    method: str | None = None,
) -> list[RankedCase]:
    """Best, median and worst case of `method` (else the first) by PSNR of every target."""
    ranked = []
    method = examined_method(scores, method)
    for target in names:
        own = [s for s in scores if (s.target, s.method) == (target, method)]
        values = {(s.name, s.sources): s.psnr for s in own}
        cases = scored_cases(own, subjects, (), names, 3, method)
        for rank, case in zip(RANKS[len(cases)], cases, strict=True):
            psnr = values[case.subject.name, case.task.label(names)[0]]
            ranked.append(RankedCase(rank, psnr, case))
    return ranked


def write_cases(
    network: SynthesisNetwork,
    config: Config,
    ranked: Sequence[RankedCase],
    batch_size: int,
    output: Path,
    extras: Extras,
) -> tuple[list[SubjectFiles], dict[str, Overlay]]:
    """Write the files of all cases to `output`/cases; also the overlays that there are.

    With an adaptation, syntheses and errors are those of the mapped output; maps are always of
    the network's own.
    """
    names, adaptation = list(config.data.sequences), extras.adaptation
    means = (extras.statistics.means if extras.statistics else None) or {}
    levels = {names.index(name): own for name, own in means.items() if name in names}
    judged = with_error_map(network, extras.error_map)
    subjects = group_by(ranked, lambda item: item.case.subject.name).values()
    files = []
    for number, own in enumerate(tqdm(subjects, desc="synthesizing cases")):
        tasks = [item.case.task for item in own]
        explained = explain(judged, config, own[0].case.subject, tasks, batch_size)
        maps = case_maps(network, explained, batch_size, extras.error_map, levels)
        if adaptation is not None:
            explained = explained.mapped(adaptation, names)
        files.append(write_subject(config, explained, maps, own, number, output))
    strips = [item for _, case in cases_of(files) for item in case.maps.items()]
    overlays = overlays_of(strips, names)
    for subject, case in cases_of(files):
        for name, strip in case.maps.items():
            _, scale, signed = overlays[name]
            paint = write_signed if signed else write_colours
            paint(output / case.folder / f"{name}.png", strip, scale, overlay=True)
            picture = strip[subject.shown : subject.shown + 1]
            paint(output / case.folder / f"picture_{name}.png", picture, scale)
    return files, overlays


def manifest(subjects: Sequence[SubjectFiles], overlays: Mapping[str, Overlay]) -> dict[str, Any]:
    """What viewer.js reads: every subject's files and tasks."""
    of_subject = ("name", "sequences", "aspect", "slices", "shown", "lesion")
    return {
        "intensity": [SHOWN_INTENSITY.low, SHOWN_INTENSITY.high],
        "colours": overlay_colours(),
        "signed_colours": signed_overlay_colours(),
        "overlays": {
            name: {"title": own.title, "high": own.scale.high, "signed": own.signed}
            for name, own in overlays.items()
        },
        "subjects": [
            {key: getattr(subject, key) for key in of_subject}
            | dict(zip(("depth", "height", "width"), subject.box.shape, strict=True))
            | {"tasks": [_task(case) for case in subject.cases]}
            for subject in subjects
        ],
    }


def _task(case: CaseFiles) -> dict[str, Any]:
    shown = {key: getattr(case, key) for key in ("sources", "target", "rank", "folder")}
    return shown | {"psnr": f"{case.psnr:.1f} dB", "overlays": [ERROR_OVERLAY, *case.maps]}


def cases_of(subjects: Sequence[SubjectFiles]) -> Iterator[tuple[SubjectFiles, CaseFiles]]:
    """Every case with its subject."""
    return ((subject, case) for subject in subjects for case in subject.cases)
