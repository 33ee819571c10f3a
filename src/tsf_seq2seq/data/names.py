"""Names of the subjects that a data set's file patterns find on disk."""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Patterns = Mapping[str, Sequence[str]]  # sequence → file patterns, the first that finds counts
NAME = "{name}"
FOLDER = "[^/]+"  # a name, or a part of it
WILDCARDS = {"*": "[^/]*", "?": "[^/]"}


def subject_names(root: Path, patterns: Patterns) -> list[str]:
    """What {name} stands for in the files of `root`, in order (`names_of_files`)."""
    found = (
        path
        for pattern in _patterns_with_name(patterns)
        for wildcard in ("*", "*/*")
        for path in glob.iglob(pattern.replace(NAME, wildcard), root_dir=root)
    )
    return names_of_files(found, patterns)


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


def alternatives(patterns: Sequence[str]) -> list[str]:
    """A sequence's patterns in their order, then those of .nii.gz files for .nii files."""
    return [
        *patterns,
        *(pattern.removesuffix(".gz") for pattern in patterns if pattern.endswith(".gz")),
    ]


def pattern_expression(pattern: str, name: str = FOLDER) -> str:
    """A file pattern as a regular expression: {name} becomes the group `name`."""
    expression, named = "", False
    for part in re.split(r"(\{name\}|\*|\?|\[[^]]+\])", pattern):
        if part == NAME:
            expression += "(?P=name)" if named else f"(?P<name>{name})"
            named = True
        elif part.startswith("["):
            expression += f"[^{part[2:]}" if part[1] == "!" else part
        else:
            expression += WILDCARDS.get(part, re.escape(part))
    return expression


def _patterns_with_name(patterns: Patterns) -> list[str]:
    every = (pattern for own in patterns.values() for pattern in alternatives(own))
    return [pattern for pattern in every if NAME in pattern]
