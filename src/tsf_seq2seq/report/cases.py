"""Sections of the chosen cases, synthesized anew: pictures, and the viewer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.evaluation.scores import Score, examined_method
from tsf_seq2seq.explain.tsem import explain, scored_cases
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.report.blocks import Drawn, Section
from tsf_seq2seq.report.case_files import ERROR, CaseFiles, RankedCase, SubjectFiles, write_subject
from tsf_seq2seq.report.images import SHOWN_INTENSITY, Scale, overlay_colours, write_colours
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.tables import group_by

TITLE = "Best, median and worst cases"
PICTURES = {
    "target": ("target", "Real"),
    "synthesis": ("synthesis", "Synthesis of"),
    "error": ("error", "Absolute error of the synthesis of"),
    "tsem": ("TSEM", "TSEM of the synthesis of"),
}
MAPPED = (
    "The network is adapted to a scanner: syntheses and errors are of its mapped output, as the "
    "scores are; TSEM is of its own output, before the map."
)
RANKS = ((), ("only",), ("best", "worst"), ("best", "median", "worst"))


def case_sections(
    subjects: Sequence[SubjectFiles],
    tsem: Scale | None,
    names: Sequence[str],
    adapted: bool = False,
) -> list[Section]:
    """Pictures of the cases, by target and the best first, and the viewer.

    `tsem`: its scale, None of a network without; `adapted`: the syntheses are those of an adapted
    network.
    """
    found = sorted(cases_of(subjects), key=lambda pair: -pair[1].psnr)
    targets = group_by(found, lambda pair: pair[1].target)
    content: dict[str, Any] = {
        "targets": {target: targets[target] for target in names if target in targets},
        "scales": [("error", f"{ERROR.high:g}")],
        "pictures": {name: own for name, own in PICTURES.items() if name != "tsem"},
    }
    text = [
        "By PSNR, over all scored tasks of a target. Each picture is the slice with the largest "
        "lesion, else the middle one; the patient's right is on the left. Error and TSEM in "
        "normalised intensities, whose range is 2."
    ]
    if tsem is not None:
        content["scales"].append(("TSEM", f"{tsem.high:g}"))
        content["pictures"] = PICTURES
    else:
        text.append("The network has no f_A, and so no TSEM.")
    text += [MAPPED] if adapted else []
    words = ["The same cases, slice by slice. Intensities as the network sees them."]
    viewer = Drawn("viewer", manifest(subjects, tsem))
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
    adaptation: Adaptation | None = None,
) -> tuple[list[SubjectFiles], Scale | None]:
    """Write the files of all cases to `output`/cases; also the scale of TSEM in the pictures, None
    of a network without.

    With an `adaptation`, syntheses and errors are those of the mapped output.
    """
    subjects = group_by(ranked, lambda item: item.case.subject.name).values()
    files = []
    for number, own in enumerate(tqdm(subjects, desc="synthesizing cases")):
        tasks = [item.case.task for item in own]
        explained = explain(network, config, own[0].case.subject, tasks, batch_size)
        if adaptation is not None:
            explained = explained.mapped(adaptation, list(config.data.sequences))
        files.append(write_subject(config, explained, own, number, output))
    maps = [(o.shown, c.folder, c.tsem) for o, c in cases_of(files) if c.tsem is not None]
    if not maps:
        return files, None
    limit = max(float(np.percentile(tsem, 99.5)) for *_, tsem in maps)
    scale = Scale(0.0, max(float(f"{limit:.1g}"), 1e-3))
    for shown, folder, tsem in maps:
        write_colours(output / folder / "tsem.png", tsem, scale, overlay=True)
        write_colours(output / folder / "picture_tsem.png", tsem[shown][np.newaxis], scale)
    return files, scale


def manifest(subjects: Sequence[SubjectFiles], tsem: Scale | None) -> dict[str, Any]:
    """What viewer.js reads: every subject's files and tasks."""
    of_subject = ("name", "sequences", "aspect", "slices", "shown", "lesion")
    return {
        "intensity": [SHOWN_INTENSITY.low, SHOWN_INTENSITY.high],
        "colours": overlay_colours(),
        "overlays": ({} if tsem is None else {"tsem": tsem.high}) | {"error": ERROR.high},
        "subjects": [
            {key: getattr(subject, key) for key in of_subject}
            | dict(zip(("depth", "height", "width"), subject.box.shape, strict=True))
            | {"tasks": [_task(case) for case in subject.cases]}
            for subject in subjects
        ],
    }


def _task(case: CaseFiles) -> dict[str, Any]:
    shown = {key: getattr(case, key) for key in ("sources", "target", "rank", "folder")}
    return shown | {"psnr": f"{case.psnr:.1f} dB"}


def cases_of(subjects: Sequence[SubjectFiles]) -> Iterator[tuple[SubjectFiles, CaseFiles]]:
    """Every case with its subject."""
    return ((subject, case) for subject in subjects for case in subject.cases)
