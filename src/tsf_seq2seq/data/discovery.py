"""Whose sequences a folder holds: files recognised by the names that data sets give them.

Every NIfTI file's path is compared, from its end, with the patterns of one naming after another,
so that it doesn't matter whether the folder is a subject's or a whole data set.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.names import FOLDER, NAME, names_of_files, pattern_expression
from tsf_seq2seq.data.synthetic import is_synthetic
from tsf_seq2seq.errors import UserError

ENDING = r"\.nii(?:\.gz)?$"
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


@dataclass(frozen=True)
class Naming:
    """How a data set names its files.

    `patterns`: sequence → what a path's end must match, group `name` being the subject's;
    `names`: sequence → the file that it would have, with {name}, where that can be told.
    """

    title: str
    patterns: Mapping[str, re.Pattern[str]]
    names: Mapping[str, str]


@dataclass
class FoundSubject:
    """A subject's files by sequence; `doubles`: what makes them ambiguous.

    `short_name`: what its files call it; `naming`: of the first of its files; `namings`: of each.
    """

    name: str
    naming: Naming
    files: dict[str, Path] = field(default_factory=dict)
    namings: dict[str, Naming] = field(default_factory=dict)
    doubles: list[str] = field(default_factory=list)
    short_name: str = ""

    def __post_init__(self) -> None:
        self.short_name = self.short_name or self.name


def discover(
    folders: Sequence[Path], data: DataConfig, synthetic: bool = False
) -> list[FoundSubject]:
    """Subjects in `folders`, each a subject's own or a data set's, in the order of their names.

    Recognised are, in this order, the patterns of `data.sequences`, BraTS 2021, BraTS 2023 and
    later, BIDS, and nnU-Net with its dataset.json. Images of ours are no scans, unless `synthetic`
    ones are asked for. Raises UserError for a folder that is missing or
    gives no sequence.
    """
    subjects: dict[str, FoundSubject] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        before = len(subjects)
        files = list(_scans(folder, synthetic))
        own = own_namings(data, _name_expression(folder, files, data))
        namings = [*own, *known_namings(data), *nnunet_namings(files, data)]
        for naming in namings:
            _claim(naming, files, subjects)
        if len(subjects) == before:
            titles = ", ".join(dict.fromkeys(naming.title for naming in namings))
            raise UserError(
                f"{folder} holds no file of the sequences {', '.join(data.sequences)} under a "
                f"known name ({titles}); options such as --{next(iter(data.sequences))} FILE take "
                "any file"
            )
    return [subjects[name] for name in sorted(subjects)]


def recognise(path: Path, data: DataConfig) -> tuple[str, Naming] | None:
    """The subject's name that a file's path tells, and its naming."""
    for naming in [*own_namings(data), *known_namings(data), *nnunet_namings([path], data)]:
        for pattern in naming.patterns.values():
            if found := pattern.search(path.absolute().as_posix()):
                return found["name"], naming
    return None


def own_namings(data: DataConfig, name: str = FOLDER) -> list[Naming]:
    """The model's own patterns: the first of every sequence, the second of every sequence, …

    `name`: what {name} stands for, as a regular expression.
    """
    namings = []
    for rank in range(max(len(patterns) for patterns in data.sequences.values())):
        expressions, plain = {}, {}
        for sequence, patterns in data.sequences.items():
            pattern = patterns[min(rank, len(patterns) - 1)] if patterns else ""
            if NAME not in pattern:
                continue
            if rank < len(patterns):
                bare = pattern.removesuffix(".gz").removesuffix(".nii")
                expressions[sequence] = ending_expression(bare, name)
            if not set("*?[") & set(pattern):
                # with its folder only where the file alone doesn't tell the subject
                last = pattern.rpartition("/")[2]
                plain[sequence] = last if NAME in last else pattern
        namings.append(Naming("the model's own patterns", expressions, plain))
    return namings


def known_namings(data: DataConfig) -> list[Naming]:
    """BraTS 2021, BraTS 2023 and later, BIDS, for those of the sequences that they know."""
    known = {name: own for name in data.sequences if (own := canonical_name(name))}
    namings = []
    for title, suffixes in (BRATS_SUFFIXES | {"BIDS": BIDS_SUFFIXES}).items():
        bases = {sequence: f"{NAME}{suffixes[own]}" for sequence, own in known.items()}
        expressions = {sequence: ending_expression(base) for sequence, base in bases.items()}
        if title == "BIDS":
            expressions = {sequence: bids_expression(own) for sequence, own in known.items()}
        plain = {sequence: f"{base}.nii.gz" for sequence, base in bases.items()}
        namings.append(Naming(title, expressions, plain))
    return namings


def nnunet_namings(files: Iterable[Path], data: DataConfig) -> list[Naming]:
    """One for each dataset.json that stands beside files, or one or two folders above them."""
    homes = {parent for path in files for parent in list(path.absolute().parents)[:3]}
    namings = []
    for home in sorted(homes):
        if not (home / "dataset.json").is_file():
            continue
        channels = _channels(home / "dataset.json", data)
        place = re.escape(home.as_posix())
        expressions = {
            sequence: re.compile(f"^{place}/(?:.*/)?(?P<name>[^/]+)_{channel:04d}{ENDING}")
            for sequence, channel in channels.items()
        }
        plain = {s: f"{NAME}_{channel:04d}.nii.gz" for s, channel in channels.items()}
        namings.append(Naming("nnU-Net", expressions, plain))
    return namings


def canonical_name(name: str) -> str | None:
    """t1, t1ce, t2 or flair for one of their many names, else None."""
    letters = "".join(character for character in name.lower() if character.isalnum())
    return next((key for key, others in ALIASES.items() if letters in others), None)


def ending_expression(pattern: str, name: str = FOLDER) -> re.Pattern[str]:
    """A pattern of data.sequences, without .nii.gz, as an expression for the end of a path."""
    return re.compile(f"(?:^|/){pattern_expression(pattern, name)}{ENDING}")


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


def _name_expression(folder: Path, files: Iterable[Path], data: DataConfig) -> str:
    """Any folder or part of a name, or where some are folders in folders, those of the files."""
    paths = (path.relative_to(folder).as_posix() for path in files)
    names = names_of_files(paths, data.sequences)
    return "|".join(map(re.escape, names)) if any("/" in name for name in names) else FOLDER


def _scans(folder: Path, synthetic: bool) -> Iterator[Path]:
    """NIfTI files below a folder, but for hidden ones, derivatives, and what was synthesized
    (unless wanted)."""
    for path in sorted(folder.rglob("*.nii*")):
        inner = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "derivatives" for part in inner):
            continue
        if re.search(ENDING, path.name) and (synthetic or not is_synthetic(path)):
            yield path


def _claim(naming: Naming, files: list[Path], subjects: dict[str, FoundSubject]) -> None:
    """Give the files that a naming recognises to their subjects, and take them off the list."""
    for path in list(files):
        for sequence, pattern in naming.patterns.items():
            found = pattern.search(path.absolute().as_posix())
            if not found:
                continue
            files.remove(path)
            subject = subjects.setdefault(found["name"], FoundSubject(found["name"], naming))
            earlier = subject.files.setdefault(sequence, path)
            first = subject.namings.setdefault(sequence, naming)
            if path.name == f"{earlier.name}.gz" and path.parent == earlier.parent:
                subject.files[sequence] = path
            elif earlier != path and first == naming:
                subject.doubles.append(f"{sequence} may be {earlier} or {path}")
            break


def _channels(path: Path, data: DataConfig) -> dict[str, int]:
    """Sequence of the model → channel, as a dataset.json tells (nnU-Net 2, or 1: modality)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels = content.get("channel_names") or content.get("modality") or {}
        named = {str(name): int(channel) for channel, name in channels.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        raise UserError(f"{path} can't be read: channel_names must name the channels") from None
    return {
        sequence: channel
        for sequence in data.sequences
        for name, channel in named.items()
        if (canonical_name(name) or name) == (canonical_name(sequence) or sequence)
    }
