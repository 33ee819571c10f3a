"""Finding the subjects of a data set: in its store, or their files by pattern."""

import glob
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, warn_of_doubt
from tsf_seq2seq.data.names import NAME, Patterns, alternatives, pattern_expression
from tsf_seq2seq.data.scan_files import conversion, scan_defect
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.data.store import open_store
from tsf_seq2seq.data.store_index import SCRIPT, file_states, is_current
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import mask_to_sequences


def find_subjects(data: DataConfig, split: Path) -> list[Subject]:
    """Subjects of a split: of the store where data.store names one, else with their files.

    Raises UserError where the root or a subject's folder is missing, a sequence that the mask names
    is missing, two subjects have a file in common, and where the original files of a stored subject
    are in reach but have changed.
    """
    store = open_store(data)
    if store is None:
        check_root(data)
    rows = read_split(split, len(data.sequences))
    if store is None:
        subjects = [find_subject(data, *row) for row in rows]
        check_apart({subject.name: subject.files for subject in subjects})
        return subjects
    found = [store.subject(*row) for row in rows]
    for name, _, _ in rows:
        states = file_states(data, find_files(data.root, name, data.sequences))
        if states and not is_current(store.entry(name), states):
            raise UserError(
                f"subject {name}: its files in {data.root} have changed since the store "
                f"{store.path} was made; {SCRIPT} brings it up to date"
            )
        warn_of_doubt(name, store.entry(name).doubt)
    return found


def check_root(data: DataConfig) -> None:
    """UserError unless the data set's folder is there."""
    if not data.root.is_dir():
        raise UserError(f"data.root {data.root} is not a folder")


def find_subject(data: DataConfig, name: str, mask: int, site: str | None = None) -> Subject:
    """A subject with its files; UserError where a sequence that the mask names has none."""
    names = list(data.sequences)
    files = find_files(data.root, name, data.sequences)
    available = mask_to_sequences(mask, len(names))
    for i in available:
        if i not in files:
            raise UserError(f"subject {name}: {missing_file(data, name, mask, names[i])}")
    return Subject(name, available, files, site=site)


def missing_file(data: DataConfig, name: str, mask: int, sequence: str) -> str:
    """What is wrong where a subject's mask names a sequence that has no file."""
    patterns = data.sequences[sequence]
    tried = ", ".join(p.replace(NAME, name) for p in patterns)
    other = other_format_of(data.root, name, patterns)
    return (
        f"{sequence} is named by its mask {mask} but has no file in {data.root} (tried {tried})"
        f"{f'; {other}' if other else ''}"
    )


def other_format_of(root: Path, name: str, patterns: Sequence[str]) -> str | None:
    """Of a subject's file that would match but for its format, how to make NIfTI of it."""
    bare = (pattern.removesuffix(".gz").removesuffix(".nii") for pattern in patterns)
    found = (path for pattern in bare for path in sorted(_matches(root, name, f"{pattern}.*")))
    return next(filter(None, map(conversion, found)), None)


def find_files(root: Path, name: str, patterns: Patterns) -> dict[int, Path]:
    """File of each sequence that is there: the first pattern that matches (`.nii.gz` or `.nii`).

    Raises UserError where a pattern matches several files or what is no file, and where two
    sequences have the same one.
    """
    files: dict[int, str] = {}
    for index, candidates in enumerate(patterns.values()):
        for pattern in alternatives(candidates):
            found = _matches(root, name, pattern)
            if len(found) > 1:
                raise UserError(
                    f"subject {name}: pattern {pattern} matches several files, such as "
                    f"{found[0]} and {found[1]}"
                )
            if found:
                if defect := scan_defect(found[0]):
                    raise UserError(f"subject {name}: {found[0]} {defect}")
                files[index] = found[0]
                break
    if len(set(files.values())) < len(files):
        twice = next(path for path in files.values() if list(files.values()).count(path) > 1)
        sequences = (key for index, key in enumerate(patterns) if files.get(index) == twice)
        raise UserError(f"subject {name}: {' and '.join(sequences)} have the same file {twice}")
    return {index: Path(path) for index, path in files.items()}


def check_apart(subjects: Mapping[str, Mapping[int, Path]]) -> None:
    """UserError unless each of the files (name → index → file) is one subject's alone."""
    owners: dict[str, str] = {}
    for name, files in subjects.items():
        for path in files.values():
            owner = owners.setdefault(str(path), name)
            if owner != name:
                raise UserError(
                    f"subjects {owner} and {name} have the same file {path}: the patterns of "
                    "data.sequences must find the files of one subject alone"
                )


def find_segmentation(data: DataConfig, name: str) -> Path | None:
    """A subject's label map, if it has one."""
    return find_files(data.root, name, {"segmentation": data.segmentation}).get(0)


def _matches(root: Path, name: str, pattern: str) -> list[str]:
    """Paths that a pattern finds for a subject, in order."""
    if not set("*?[") & set(pattern):
        path = os.path.join(root, pattern.replace(NAME, name))
        return [path] if os.path.lexists(path) else []
    place = Path(glob.escape(str(root)), pattern.replace(NAME, glob.escape(name)))
    found = sorted(glob.glob(str(place)))
    # A * beside the name doesn't go on with its number: P10_t1 is not of P1.
    before = r"(?<!\d)" if f"*{NAME}" in pattern and name[0].isdecimal() else ""
    after = r"(?!\d)" if f"{NAME}*" in pattern and name[-1].isdecimal() else ""
    if found and (before or after):
        whole = pattern_expression(posixpath.normpath(pattern), before + re.escape(name) + after)
        found = [path for path in found if re.search(f"(?:^|/){whole}$", path)]
    return found
