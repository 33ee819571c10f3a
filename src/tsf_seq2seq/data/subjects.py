"""Finding the subjects of a data set: in its store, or their files by pattern."""

import glob
from pathlib import Path

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import Subject, warn_of_doubts
from tsf_seq2seq.data.names import Patterns, alternatives
from tsf_seq2seq.data.nifti import doubt_of_file
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.data.store import open_store
from tsf_seq2seq.data.store_index import SCRIPT, file_states, is_current
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.tasks import mask_to_sequences


def find_subjects(data: DataConfig, split: Path) -> list[Subject]:
    """Subjects of a split: of the store where data.store names one, else with their files.

    Raises UserError where the root or a subject's folder is missing, a sequence that the mask names
    is missing, and where the original files of a stored subject are in reach but have changed.
    Warns of subjects whose orientation is in doubt.
    """
    store = open_store(data)
    if store is None:
        check_root(data)
    rows = read_split(split, len(data.sequences))
    if store is None:
        found = [find_subject(data, name, mask) for name, mask in rows]
        # A subject's first file speaks for all: loading refuses others that tell more or less.
        files = {subject.name: next(iter(subject.files.values())) for subject in found}
        doubts = {name: doubt for name, path in files.items() if (doubt := doubt_of_file(path))}
        warn_of_doubts(doubts, len(rows), split)
        return found
    found = [store.subject(name, mask) for name, mask in rows]
    for name, _ in rows:
        states = file_states(data, find_files(data.root, name, data.sequences))
        if states and not is_current(store.entry(name), states):
            raise UserError(
                f"subject {name}: its files in {data.root} have changed since the store "
                f"{store.path} was made; {SCRIPT} brings it up to date"
            )
    doubts = {name: doubt for name, _ in rows if (doubt := store.entry(name).doubt)}
    warn_of_doubts(doubts, len(rows), split)
    return found


def check_root(data: DataConfig) -> None:
    """UserError unless the data set's folder is there."""
    if not data.root.is_dir():
        raise UserError(f"data.root {data.root} is not a folder")


def find_subject(data: DataConfig, name: str, mask: int) -> Subject:
    """A subject with its files; UserError where a sequence that the mask names has none."""
    names = list(data.sequences)
    files = find_files(data.root, name, data.sequences)
    available = mask_to_sequences(mask, len(names))
    for i in available:
        if i not in files:
            raise UserError(f"subject {name}: {missing_file(data, name, mask, names[i])}")
    return Subject(name, available, files)


def missing_file(data: DataConfig, name: str, mask: int, sequence: str) -> str:
    """What is wrong where a subject's mask names a sequence that has no file."""
    tried = ", ".join(p.replace("{name}", name) for p in data.sequences[sequence])
    return f"{sequence} is named by its mask {mask} but has no file in {data.root} (tried {tried})"


def find_files(root: Path, name: str, patterns: Patterns) -> dict[int, Path]:
    """File of each sequence that is there: the first pattern that matches (`.nii.gz` or `.nii`).

    Raises UserError where a pattern matches several files.
    """
    files = {}
    for index, candidates in enumerate(patterns.values()):
        for pattern in alternatives(candidates):
            place = Path(glob.escape(str(root)), pattern.replace("{name}", glob.escape(name)))
            found = sorted(glob.glob(str(place)))
            if len(found) > 1:
                raise UserError(
                    f"subject {name}: pattern {pattern} matches several files, such as "
                    f"{found[0]} and {found[1]}"
                )
            if found:
                files[index] = Path(found[0])
                break
    return files


def find_segmentation(data: DataConfig, name: str) -> Path | None:
    """A subject's label map, if it has one."""
    return find_files(data.root, name, {"segmentation": data.segmentation}).get(0)
