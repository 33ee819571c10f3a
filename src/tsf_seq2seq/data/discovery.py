"""Whose sequences a folder holds: files recognised by the names that data sets give them.

Every NIfTI file's path is compared, from its end, with the patterns of one naming after another,
so that it doesn't matter whether the folder is a subject's or a whole data set. The same name in
another folder is another subject.
"""

import json
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.names import FOLDER, NAME, names_of_files, pattern_expression
from tsf_seq2seq.data.scan_files import ENDING, NamedFile, conversion, named_files, other_format
from tsf_seq2seq.data.synthetic import is_synthetic
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.tables import group_by

# Other names of the four sequences, as letters and digits in lower case.
ALIASES = {
    "t1": ("t1", "t1w", "t1n", "t1native", "t1pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post", "t1contrast", "ce", "ct1", "t1wce", "t1cw"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "fla", "t2flair", "fl"),
}
BRATS_SUFFIXES = {
    "BraTS 2021": {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair"},
    "BraTS 2023 and later": {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f"},
}
BIDS_SUFFIXES = {"t1": "_T1w", "t1ce": "_ce-gadolinium_T1w", "t2": "_T2w", "flair": "_FLAIR"}


class Recognised(NamedTuple):
    """What a path tells: its sequence, its subject's name, and the folder that its naming starts
    from (`home`); `own`: the name's last part and the folder that are this subject's alone."""

    sequence: str
    name: str
    home: str
    own: tuple[str, str]


@dataclass(frozen=True)
class Naming:
    """How a data set names its files.

    `patterns`: sequence → what a path's end must match, group `name` being the subject's;
    `names`: sequence → the file that it would have, with {name}, where that can be told;
    `by_folder`: whether {name} is first of all a folder, which holds all of the subject's files;
    `place`: the folder below which it holds; `only`: the names that there are, if they are known.
    """

    title: str
    patterns: Mapping[str, re.Pattern[str]]
    names: Mapping[str, str]
    by_folder: bool = False
    place: str = ""
    only: AbstractSet[str] | None = None

    def recognise(self, path: str) -> Recognised | None:
        """What an absolute path tells, if it is named so."""
        if not path.startswith(self.place):
            return None
        for sequence, pattern in self.patterns.items():
            found = pattern.search(path)
            if found and (self.only is None or found["name"] in self.only):
                name, home = found["name"], path[: found.start()]
                folder, _, last = f"{home}/{name}".rpartition("/")
                own = (last, f"{home}/{name}" if self.by_folder else folder)
                return Recognised(sequence, name, home, own)
        return None


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


def recognise(path: Path, data: DataConfig) -> tuple[str, Naming] | None:
    """The subject's name that a file's path tells, and its naming."""
    text = os.path.abspath(path)
    for naming in [*own_namings(data), *known_namings(data), *nnunet_namings([text], data)]:
        if found := naming.recognise(text):
            return found.name, naming
    return None


def own_namings(
    data: DataConfig, name: str = FOLDER, only: AbstractSet[str] | None = None
) -> list[Naming]:
    """The model's own patterns: the first of every sequence, the second of every sequence, …

    `name`: what {name} stands for, as a regular expression; `only`: its values, if they are known.
    """
    every = [pattern for patterns in data.sequences.values() for pattern in patterns]
    by_folder = all(pattern.startswith(f"{NAME}/") for pattern in every if NAME in pattern)
    namings = []
    for rank in range(max(len(patterns) for patterns in data.sequences.values())):
        expressions, plain = {}, {}
        for sequence, patterns in data.sequences.items():
            pattern = patterns[min(rank, len(patterns) - 1)] if patterns else ""
            if NAME not in pattern:
                continue
            if rank < len(patterns):
                expressions[sequence] = ending_expression(pattern, name)
            if not set("*?[") & set(pattern):
                plain[sequence] = pattern
        # with their folders only where the files alone don't tell subject and sequence
        short = {sequence: pattern.rpartition("/")[2] for sequence, pattern in plain.items()}
        if len(set(short.values())) == len(short):
            plain |= {sequence: last for sequence, last in short.items() if NAME in last}
        title = "the model's own patterns"
        namings.append(Naming(title, expressions, plain, by_folder, only=only))
    return namings


def known_namings(data: DataConfig) -> list[Naming]:
    """BraTS 2021, BraTS 2023 and later, BIDS, for those of the sequences that they know."""
    known = {name: own for name in data.sequences if (own := canonical_name(name))}
    namings = []
    for title, suffixes in (BRATS_SUFFIXES | {"BIDS": BIDS_SUFFIXES}).items():
        plain = {s: f"{NAME}{suffixes[own]}.nii.gz" for s, own in known.items()}
        expressions = {sequence: ending_expression(file) for sequence, file in plain.items()}
        if title == "BIDS":
            expressions = {sequence: bids_expression(own) for sequence, own in known.items()}
        namings.append(Naming(title, expressions, plain))
    return namings


def nnunet_namings(files: Iterable[str], data: DataConfig) -> list[Naming]:
    """One for each dataset.json that stands beside files, or one or two folders above them."""
    homes = {posixpath.dirname(path) for path in files}
    for _ in range(2):
        homes |= {posixpath.dirname(home) for home in homes}
    namings = []
    for home in sorted(homes):
        if not os.path.isfile(f"{home}/dataset.json"):
            continue
        channels = _channels(Path(home, "dataset.json"), data)
        plain = {s: f"{NAME}_{channel:04d}.nii.gz" for s, channel in channels.items()}
        expressions = {sequence: ending_expression(file) for sequence, file in plain.items()}
        namings.append(Naming("nnU-Net", expressions, plain, place=f"{home.rstrip('/')}/"))
    return namings


def canonical_name(name: str) -> str | None:
    """t1, t1ce, t2 or flair for one of their many names, else None."""
    letters = "".join(character for character in name.lower() if character.isalnum())
    return next((key for key, others in ALIASES.items() if letters in others), None)


def ending_expression(pattern: str, name: str = FOLDER) -> re.Pattern[str]:
    """A file pattern as an expression for the end of a path, packed (.nii.gz) or not."""
    bare = posixpath.normpath(pattern).removesuffix(".gz").removesuffix(".nii")
    ending = ENDING if re.search(ENDING, pattern) else rf"(?:{ENDING}|$)"
    return re.compile(f"(?:^|/){pattern_expression(bare, name)}{ending}")


def bids_expression(canonical: str) -> re.Pattern[str]:
    """sub-*/[ses-*/]anat/sub-*[_ses-*][_entity-*]_suffix; the contrast agent's entity is ce."""
    entity = r"(?:_[a-z]+-[^/_]+)"
    special = {"t1": r"(?:_(?!ce-)[a-z]+-[^/_]+)*", "t1ce": f"{entity}*?_ce-[^/_]+{entity}*"}
    entities = special.get(canonical, f"{entity}*")
    suffix = BIDS_SUFFIXES[canonical].rpartition("_")[2]
    name = r"(?P<name>sub-[^/_]+(?:_ses-[^/_]+)?)"
    return re.compile(f"/anat/{name}{entities}_{suffix}{ENDING}")


def stem(path: Path) -> str:
    """A NIfTI file's name without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


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


def _channels(path: Path, data: DataConfig) -> dict[str, int]:
    """Sequence of the model → channel, as a dataset.json tells (nnU-Net 2, or 1: modality)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels = content.get("channel_names") or content.get("modality") or {}
        named = {str(name): int(channel) for channel, name in channels.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path} can't be read: channel_names must name the channels") from None
    return {
        sequence: channel
        for sequence in data.sequences
        for name, channel in named.items()
        if (canonical_name(name) or name) == (canonical_name(sequence) or sequence)
    }
