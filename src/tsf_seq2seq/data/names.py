"""Names of the subjects that a data set's file patterns find on disk."""

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

NAME = "{name}"
FOLDER = "[^/]+"  # a name, or a part of it
WILDCARDS = {"*": "[^/]*", "?": "[^/]"}


def subject_names(root: Path, patterns: Iterable[str]) -> list[str]:
    """What {name} stands for in the files of `root`, in order.

    A folder, or part of a file's name; where a folder is no subject itself also a folder within it,
    such as patient1/visit2. Derivatives (BIDS) are no subjects.
    """
    patterns = [pattern for pattern in patterns if NAME in pattern]
    near = set(_found(root, patterns, "*", FOLDER))
    below = set(_found(root, patterns, "*/*", f"{FOLDER}/{FOLDER}"))
    below = {name for name in below if name.split("/")[0] not in near | {"derivatives"}}
    return sorted(near | below)


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


def _found(root: Path, patterns: Iterable[str], wildcard: str, name: str) -> Iterator[str]:
    for pattern in patterns:
        for variant in dict.fromkeys((pattern, pattern.removesuffix(".gz"))):
            expression = re.compile(pattern_expression(variant, name))
            for path in glob.iglob(variant.replace(NAME, wildcard), root_dir=root):
                if found := expression.fullmatch(path):
                    yield found["name"]
