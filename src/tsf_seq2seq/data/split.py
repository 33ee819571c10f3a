"""Seeded splits of a data set into training, validation and test subjects."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tsf_seq2seq.data.names import Patterns, subject_names
from tsf_seq2seq.data.subjects import check_apart, find_files
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.files.writing import write_texts
from tsf_seq2seq.tables import group_by, table_text
from tsf_seq2seq.tasks import sequences_to_mask

PARTS = ("train", "valid", "test")
BRATS_PATIENT = r"(BraTS-[A-Za-z]+-\d+)-\d+"  # BraTS 2023 and later, before the time point


def write_split(
    root: Path,
    patterns: Patterns,
    output: Path,
    shares: Sequence[float],
    seed: int,
    patient: str = BRATS_PATIENT,
) -> dict[Path, int]:
    """Write train.csv, valid.csv and test.csv of the subjects under `root`; path → subjects in it.

    Subjects are those with at least two sequences on disk. Time points of one patient stay
    in one part: `patient` is a regular expression whose first group is, in a subject's name, the
    patient. Raises UserError where there are too few subjects or the arguments make no sense.
    """
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise UserError(f"shares must be three numbers from 0, not {list(shares)}")
    subjects = find_usable_subjects(root, patterns)
    patients = group_by_patient(list(subjects), patient)
    if len(patients) < sum(share > 0 for share in shares):
        hint = "; are its folders no patients? --patient '(.*)' takes each subject as one"
        raise UserError(
            f"{root} holds {len(patients)} patients, too few for a split"
            f"{hint if len(subjects) > len(patients) else ''}"
        )
    rng = np.random.default_rng(seed)
    parts = divide([patients[i] for i in rng.permutation(len(patients))], shares)
    rows = {
        output / f"{part}.csv": draw_masks(names, subjects, len(patterns), rng)
        for part, names in zip(PARTS, parts, strict=True)
    }
    with claimed(output):
        columns = ("name", "mask")
        write_texts(output, {path.name: table_text(columns, own) for path, own in rows.items()})
    return {path: len(own) for path, own in rows.items()}


def find_usable_subjects(root: Path, patterns: Patterns) -> dict[str, tuple[int, ...]]:
    """Name → sequences on disk, for every subject of `root` with at least two."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    names = subject_names(root, patterns)
    found = {name: find_files(root, name, patterns) for name in names}
    check_apart(found)
    usable = {name: tuple(sorted(files)) for name, files in found.items() if len(files) >= 2}
    if not usable:
        raise UserError(
            f"{root} has no subject with two sequences or more; data.sequences expects "
            f"files such as {next(iter(patterns.values()))[0]}"
        )
    return usable


def group_by_patient(names: Sequence[str], patient: str = BRATS_PATIENT) -> list[list[str]]:
    """Names of one patient together.

    The patient of a name in which the group finds nothing is the folder that it names, as in
    patient1/visit2, or itself. UserError where it is no regular expression with a group.
    """
    try:
        expression = re.compile(patient)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"'{patient}' is no regular expression: {error}") from None
    if not expression.groups:
        raise UserError(f"'{patient}' has no group (in parentheses) that names the patient")

    def patient_of(name: str) -> str:
        match = expression.fullmatch(name)
        found = match[1] if match else None
        return found or name.rpartition("/")[0] or name

    return list(group_by(names, patient_of).values())


def divide(patients: Sequence[list[str]], shares: Sequence[float]) -> list[list[str]]:
    """Names of consecutive patients per part; a part with a share gets one patient at least."""
    wanted = np.array(shares, dtype=float) / sum(shares)
    counts = np.floor(wanted * len(patients)).astype(int)
    counts = np.maximum(counts, wanted > 0)
    counts[np.argmax(counts)] += len(patients) - counts.sum()
    ends = np.cumsum(counts)
    return [
        [name for patient in patients[end - count : end] for name in patient]
        for end, count in zip(ends, counts, strict=True)
    ]


def draw_masks(
    names: Sequence[str],
    subjects: Mapping[str, tuple[int, ...]],
    n_sequences: int,
    rng: np.random.Generator,
) -> list[tuple[str, int]]:
    """A mask per name: every pattern that leaves out a sequence in equal shares, random order.

    A subject that lacks sequences on disk keeps those of its pattern that it has; one of its own
    where these are none, all but one of its own where they are all: one is left to be synthesized.
    """
    patterns = np.arange(1, 2**n_sequences - 1)
    rounds = max(1, -(-len(names) // len(patterns)))
    masks = np.concatenate([rng.permutation(patterns) for _ in range(rounds)])[: len(names)]
    rows = []
    for name, mask in zip(names, masks.tolist(), strict=True):
        on_disk = sequences_to_mask(subjects[name], n_sequences)
        one = sequences_to_mask([int(rng.choice(subjects[name]))], n_sequences)
        kept = mask & on_disk
        if kept in (0, on_disk):
            kept ^= one  # neither none nor all
        rows.append((name, kept))
    return rows
