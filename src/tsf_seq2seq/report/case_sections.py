"""Sections of the chosen cases: pictures, and the viewer."""

from collections.abc import Sequence

from tsf_seq2seq.report.blocks import CasePicture, Cases, Section, ShownCase, Viewer
from tsf_seq2seq.report.case_files import ERROR, CaseFiles, SubjectFiles
from tsf_seq2seq.report.cases import cases_of, manifest
from tsf_seq2seq.report.images import Scale

TITLE = "Best, median and worst cases"
PICTURES = {
    "target": ("target", "Real"),
    "synthesis": ("synthesis", "Synthesis of"),
    "error": ("error", "Absolute error of the synthesis of"),
    "tsem": ("TSEM", "TSEM of the synthesis of"),
}


def case_sections(
    subjects: Sequence[SubjectFiles], tsem: Scale, names: Sequence[str]
) -> list[Section]:
    """Pictures of the cases, the best first, and the viewer."""
    found = sorted(cases_of(subjects), key=lambda pair: -pair[1].psnr)
    targets: dict[str, list[ShownCase]] = {}
    for subject, case in sorted(found, key=lambda pair: names.index(pair[1].target)):
        targets.setdefault(case.target, []).append(_shown(subject, case))
    scales = [("error", f"{ERROR.high:g}"), ("TSEM", f"{tsem.high:g}")]
    text = [
        "By PSNR of the network with f_A, over all scored tasks of a target. Each picture is the "
        "slice with the largest lesion, else the middle one; the patient's right is on the left. "
        "Error and TSEM in normalised intensities, whose range is 2."
    ]
    words = ["The same cases, slice by slice. Intensities as the network sees them."]
    return [
        Section("cases", TITLE, text, [Cases(targets, scales)], files=["metrics.csv"]),
        Section("viewer", "Look through the volumes", words, [Viewer(manifest(subjects, tsem))]),
    ]


def missing_cases(reason: str) -> Section:
    """In place of the cases, why there are none."""
    return Section("cases", TITLE, note=f"Left out: {reason}.")


def _shown(subject: SubjectFiles, case: CaseFiles) -> ShownCase:
    slice_number = subject.slices[subject.shown] + 1
    where = f"{case.target}, subject {subject.name}, axial slice {slice_number}"
    size = subject.box.shape[2], round(subject.box.shape[2] / subject.aspect)
    pictures = [
        CasePicture(f"{case.folder}/picture_{name}.png", title, f"{words} {where}", *size)
        for name, (title, words) in PICTURES.items()
    ]
    sources = " + ".join(case.sources)
    caption = f"{subject.name}, {sources} → {case.target}, {case.psnr:.2f} dB"
    return ShownCase(f"{case.rank.capitalize()}:", caption, pictures)
