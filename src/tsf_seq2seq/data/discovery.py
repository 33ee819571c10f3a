"""Whose sequences a folder holds: files recognised by the names that data sets give them.

Every NIfTI file's path is compared, from its end, with the patterns of one naming after another,
so that it doesn't matter whether the folder is a subject's or a whole data set. The same name in
another folder is another subject.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.names import FOLDER, names_of_files
from tsf_seq2seq.data.namings import Naming, known_namings, nnunet_namings, own_namings
from tsf_seq2seq.data.scan_files import (
    NamedFile,
    conversion,
    named_files,
    other_format,
    scan_defect,
)
from tsf_seq2seq.data.synthetic import is_synthetic
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.tables import group_by


@dataclass
class FoundSubject:
    """A subject's files by sequence; `doubles`: what makes them ambiguous, or useless.

    `name`: unlike that of any other subject found with it; `short_name`: what its files call it;
    `home`: the folder that its naming starts from; `naming`: of the first of its files; `namings`:
    of each.
    """

    name: str
    naming: Naming
    files: dict[str, Path] = field(default_factory=dict)
    namings: dict[str, Naming] = field(default_factory=dict)
    doubles: list[str] = field(default_factory=list)
    short_name: str = ""
    home: str = ""

    def __post_init__(self) -> None:
        self.short_name = self.short_name or self.name


Subjects = dict[tuple[str, str], FoundSubject]  # by Recognised.own


def discover(
    folders: Sequence[Path], data: DataConfig, synthetic: bool = False
) -> list[FoundSubject]:
    """Subjects in `folders`, each a subject's own or a data set's, in the order of their names.

    Recognised are, in this order, the patterns of `data.sequences`, BraTS 2021, BraTS 2023 and
    later, BIDS, and nnU-Net with its dataset.json. A folder that is named twice, or lies in another
    one, counts once. Scans of other formats are told on standard error. Images of ours are
    no scans, unless `synthetic` ones are asked for. Raises UserError for a folder that is missing
    or gives no sequence.
    """
    held = _held(folders, synthetic)
    files = [file for own in held.values() for file in own]
    names = {name for folder, own in held.items() for name in _names_below(folder, own, data)}
    nested = {name for name in names if "/" in name}
    namings = [
        *(own_namings(data, f"{FOLDER}/{FOLDER}", nested) if nested else ()),
        *own_namings(data),
        *known_namings(data),
        *nnunet_namings((file.text for file in files), data),
    ]
    subjects: Subjects = {}
    rest = [file for file in files if file.is_nifti]
    for naming in namings:
        rest = _claim(naming, rest, subjects)
    nameless = {file.text for file in rest}
    for folder, own in held.items():
        if all(file.text in nameless or not file.is_nifti for file in own):
            raise _nothing_found(folder, namings, data)
    _tell_left_out([file for file in files if not file.is_nifti], namings, subjects)
    _name_apart(subjects)
    return sorted(subjects.values(), key=lambda subject: subject.name)


def discover_files(files: Sequence[Path], data: DataConfig) -> list[FoundSubject]:
    """Whose files these are, by their names; UserError for one that tells no sequence."""
    named = [NamedFile(path, os.path.abspath(path), scan_defect(path), True) for path in files]
    namings = [*own_namings(data), *known_namings(data)]
    namings += nnunet_namings([file.text for file in named], data)
    subjects: Subjects = {}
    rest = named
    for naming in namings:
        rest = _claim(naming, rest, subjects)
    if rest:
        titles = ", ".join(dict.fromkeys(naming.title for naming in namings))
        raise UserError(
            f"{rest[0].path} doesn't tell its sequence by a known name ({titles}): give its "
            "subject's folder"
        )
    _name_apart(subjects)
    return sorted(subjects.values(), key=lambda subject: subject.name)


def _held(folders: Sequence[Path], synthetic: bool) -> dict[Path, list[NamedFile]]:
    """Folder → what in it is named as scans are, each file in one folder only.

    Without synthetic images, unless these are asked for.
    """
    seen: set[tuple[int, int]] = set()
    held = {}
    outer_first = sorted(folders, key=lambda folder: os.path.realpath(folder).count("/"))
    for folder in outer_first:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        before = len(seen)
        files = named_files(folder, seen)
        if len(seen) > before:
            held[folder] = [
                file
                for file in files
                if synthetic or file.defect or not file.is_nifti or not is_synthetic(file.path)
            ]
    return held


def _names_below(folder: Path, files: Iterable[NamedFile], data: DataConfig) -> list[str]:
    """Names that the model's own patterns find in a folder, as in a data set."""
    start = len(os.path.abspath(folder).rstrip("/")) + 1
    return names_of_files((f.text[start:] for f in files if f.is_nifti), data.sequences)


def _nothing_found(folder: Path, namings: Iterable[Naming], data: DataConfig) -> UserError:
    titles = ", ".join(dict.fromkeys(naming.title for naming in namings))
    other = other_format(folder)
    return UserError(
        f"{folder} holds no file of the sequences {', '.join(data.sequences)} under a known name "
        f"({titles}); options such as --{next(iter(data.sequences))} FILE take any file"
        f"{f'; {other}' if other else ''}"
    )


def _claim(naming: Naming, files: Iterable[NamedFile], subjects: Subjects) -> list[NamedFile]:
    """Give the files that a naming recognises to their subjects; the others."""
    rest = []
    for file in files:
        found = naming.recognise(file.text)
        if found is None:
            rest.append(file)
            continue
        subject = subjects.get(found.own)
        if subject is None:
            subject = subjects[found.own] = FoundSubject(found.name, naming, home=found.home)
        if file.defect is not None:
            subject.doubles.append(f"{file.path} {file.defect}")
            continue
        earlier = subject.files.setdefault(found.sequence, file.path)
        first = subject.namings.setdefault(found.sequence, naming)
        if file.path.name == f"{earlier.name}.gz" and file.path.parent == earlier.parent:
            subject.files[found.sequence] = file.path
        elif earlier != file.path and first is naming:
            subject.doubles.append(f"{found.sequence} may be {earlier} or {file.path}")
    return rest


def _tell_left_out(
    files: Iterable[NamedFile], namings: Iterable[Naming], subjects: Subjects
) -> None:
    """Say which scans are of another format, where there is no NIfTI file of the sequence."""
    left_out: dict[tuple[tuple[str, str], str], Path] = {}
    for file in files:
        found = next(filter(None, (naming.recognise(file.text) for naming in namings)), None)
        if found and not (found.own in subjects and found.sequence in subjects[found.own].files):
            left_out.setdefault((found.own, found.sequence), file.path)
    if left_out:
        count = f" ({len(left_out)} such files are left out)" if len(left_out) > 1 else ""
        first = printable(str(conversion(next(iter(left_out.values())))))
        print(f"warning: {first}{count}", file=sys.stderr)


def _name_apart(subjects: Subjects) -> None:
    """Where a name stands for several subjects, put the folders before it that tell them apart."""
    for group in group_by(subjects.items(), lambda item: item[0][0]).values():
        names = [subject.name for _, subject in group]
        if len(set(names)) == len(names):
            continue
        homes = [subject.home for _, subject in group]
        lasts, places = zip(*(own for own, _ in group), strict=True)
        shorter = [_above(home, name) for home, name in zip(homes, names, strict=True)]
        tries = ((shorter, names), (homes, names), (places, lasts))  # the last tell apart always
        apart = next(found for folders, own in tries if (found := _with_folders(folders, own)))
        for (_, subject), name in zip(group, apart, strict=True):
            subject.name = name


def _above(home: str, name: str) -> str:
    """A folder, or the one above it where it is the subject's own: sub-1/ses-2 of sub-1_ses-2."""
    for depth in (1, 2):
        above, *own = home.rsplit("/", depth)
        if "_".join(own) == name:
            return above
    return home


def _with_folders(folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names with as few of their folders before them as tell them apart; none where all don't."""
    common = os.path.commonpath([folder or "/" for folder in folders])
    parts = [[part for part in folder[len(common) :].split("/") if part] for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        pairs = zip(parts, names, strict=True)
        apart = ["/".join([*own[:depth], name]) for own, name in pairs]
        if len(set(apart)) == len(apart):
            return apart
    return []
