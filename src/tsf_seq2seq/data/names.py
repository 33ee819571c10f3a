"""Names of the subjects that a data set's file patterns find on disk."""

import fnmatch
import glob
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tsf_seq2seq.errors import UserError

Patterns = Mapping[str, Sequence[str]]  # sequence → file patterns, the first that finds counts
NAME = "{name}"
FOLDER = "[^/]+"  # a name, or a part of it
PARTS_OF_PATTERN = re.compile(r"(\{name\}|\*+|\?|\[!?\]?[^]]*\])")
CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control signs, bytes that are no UTF-8, line ends


def subject_names(root: Path, patterns: Patterns) -> list[str]:
    """What {name} stands for in the files of `root`, in order (`names_of_files`).

    Raises UserError for one that no split CSV can hold (`name_defect`).
    """
    found = (
        path
        for pattern in _patterns_with_name(patterns)
        for wildcard in ("*", "*/*")
        for path in glob.iglob(pattern.replace(NAME, wildcard), root_dir=root)
    )
    names = names_of_files(found, patterns)
    for name in names:
        if defect := name_defect(name):
            raise UserError(f"{root} holds a subject called '{name}', but a name {defect}")
    return names


def names_of_files(paths: Iterable[str], patterns: Patterns) -> list[str]:
    """What {name} stands for in paths relative to the data set's root, in order.

    A folder, or part of a file's name; where a folder is no subject itself also a folder within it,
    such as patient1/visit2. Derivatives (BIDS) are no subjects.
    """
    files = set(paths)

    def names(expression: str) -> set[str]:
        """{name}s that match the expression."""
        wholes = [
            re.compile(pattern_expression(pattern, expression))
            for pattern in _patterns_with_name(patterns)
        ]
        matches = (whole.fullmatch(file) for whole in wholes for file in files)
        return {found["name"] for found in matches if found}

    near, below = names(FOLDER), names(f"{FOLDER}/{FOLDER}")
    within = {name for name in below if name.split("/")[0] not in near | {"derivatives"}}
    return sorted(near | within)


def holds_control_signs(text: str) -> bool:
    return any(unicodedata.category(sign) in CONTROL for sign in text)


def name_defect(name: str) -> str | None:
    """The rule that a subject's name breaks, as a sentence's end, or None.

    A name becomes part of paths, within the data set and within folders of results.
    """
    if holds_control_signs(name):
        return "can't hold control characters or bytes that are no UTF-8"
    if set("*?") & set(name):
        return "can't hold the wildcards * and ?"
    if name != name.strip():
        return "can't begin or end with a space"
    if {"", ".", ".."} & set(name.split("/")):
        return "must be a folder or folders such as patient1/visit2, without / at its ends, . or .."
    return None


def alternatives(patterns: Sequence[str]) -> list[str]:
    """A sequence's patterns in their order, then those of .nii.gz files for .nii files."""
    return [
        *patterns,
        *(pattern.removesuffix(".gz") for pattern in patterns if pattern.endswith(".gz")),
    ]


def pattern_expression(pattern: str, name: str = FOLDER) -> str:
    """A file pattern as a regular expression: {name} becomes the group `name`.

    Whatever the pattern, matching takes no more than polynomial time: what can match in one way
    only is never tried in others (`(?>…)`).
    """
    folders, named = [], False
    for part in pattern.split("/"):
        free = NAME in part and not named
        folders.append(_part_expression(part, name, named))
        named = named or free
        if not free and len(folders) <= pattern.count("/"):  # an ending follows the last one
            folders[-1] = f"(?>{folders[-1]})"
    return "/".join(folders)


def _part_expression(part: str, name: str, named: bool) -> str:
    """Of what stands between slashes; `named`: {name} has stood before."""
    done, star, rest = "", "", ""  # rest: what follows the star, up to now
    for token in PARTS_OF_PATTERN.split(part):
        if token.startswith("*"):
            # of what follows a star, the first occurrence leaves the next one all that others would
            done += f"(?>[^/]*?{rest})" if star else rest
            star, rest = "[^/]*", ""
            continue
        rest += _token_expression(token, name, named)
        if token == NAME and not named:  # of any length: the star before it must give way
            done, star, rest, named = f"{done}{star}{rest}", "", "", True
    return f"{done}{star}{rest}"


def _token_expression(token: str, name: str, named: bool) -> str:
    if token == NAME:
        return "(?P=name)" if named else f"(?P<name>{name})"
    if token == "?":
        return "[^/]"
    if token.startswith("["):
        return f"(?!/){fnmatch.translate(token)[:-2]}"  # what glob makes of it, without its \\Z
    return re.escape(token)


def _patterns_with_name(patterns: Patterns) -> list[str]:
    every = (pattern for own in patterns.values() for pattern in alternatives(own))
    return [pattern for pattern in every if NAME in pattern]
