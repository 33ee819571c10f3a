"""How data sets name their files: patterns of the model's own, BraTS, BIDS, nnU-Net."""

import json
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.names import FOLDER, NAME, pattern_expression
from tsf_seq2seq.data.scan_files import ENDING
from tsf_seq2seq.errors import UserError

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
