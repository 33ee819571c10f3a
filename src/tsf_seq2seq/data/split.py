"""Seeded splits of a data set into training, validation and test subjects."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from tsf_seq2seq.data.names import Patterns, subject_names
from tsf_seq2seq.data.split_file import SplitRow
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
    site: str | None = None,
    test_sites: Sequence[str] = (),
) -> dict[Path, int]:
    """Write train.csv, valid.csv and test.csv of the subjects under `root`; path → subjects in it.

    Subjects are those with at least two sequences on disk. Time points of one patient stay
    in one part: `patient` is a regular expression whose first group is, in a subject's name, the
    patient. `site` is one for the site, which becomes the third column; subjects of `test_sites`
    are those to test on, and the first two shares divide the others. Raises UserError where there
    are too few subjects or the arguments make no sense.
    """
    _check_shares(shares, test_sites)
    subjects = find_usable_subjects(root, patterns)
    sites = {} if site is None else find_sites(list(subjects), site)
    _check_test_sites(root, test_sites, sites)
    patients = group_by_patient(list(subjects), patient)
    rng = np.random.default_rng(seed)
    drawn = [patients[i] for i in rng.permutation(len(patients))]
    rest, tested = separate(drawn, sites, test_sites)
    if tested:
        shares = (*shares[:2], 0)
    if len(rest) < sum(share > 0 for share in shares):
        hint = "; are its folders no patients? --patient '(.*)' takes each subject as one"
        raise UserError(
            f"{root} holds {len(rest)} patients{' of other sites' if tested else ''}, too few for "
            f"a split{hint if len(subjects) > len(patients) else ''}"
        )
    train, valid, test = divide(rest, shares)
    parts = (train, valid, [*test, *chain.from_iterable(tested)])
    rows = {
        output / f"{part}.csv": draw_masks(names, subjects, len(patterns), rng)
        for part, names in zip(PARTS, parts, strict=True)
    }
    with claimed(output):
        write_texts(output, {path.name: _split_text(own, sites) for path, own in rows.items()})
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
    expression = _expression(patient, "patient")

    def patient_of(name: str) -> str:
        return _found(expression, name) or name.rpartition("/")[0] or name

    return list(group_by(names, patient_of).values())


def find_sites(names: Sequence[str], site: str) -> dict[str, str]:
    """Name → what the first group of the regular expression `site` finds in all of the name.

    UserError where it is none, has no group, or where that finds nothing in a name.
    """
    expression = _expression(site, "site")
    sites = {name: _found(expression, name).strip() for name in names}
    for name, found in sites.items():
        if not found:
            raise UserError(f"subject {name}: --site '{site}' finds no site in its name")
    return sites


def separate(
    patients: Sequence[list[str]], sites: Mapping[str, str], test_sites: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Patients of other sites, and those of the sites to test on; `sites`: name → site.

    UserError where a patient was scanned at both.
    """
    rest: list[list[str]] = []
    tested: list[list[str]] = []
    for names in patients:
        there = [name for name in names if sites.get(name) in test_sites]
        if there and len(there) < len(names):
            other = next(name for name in names if name not in there)
            raise UserError(
                f"subjects {there[0]} and {other} are of one patient, who can't be both tested on, "
                f"as --test-sites {sites[there[0]]} wants, and trained on"
            )
        (tested if there else rest).append(names)
    return rest, tested


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


def _check_shares(shares: Sequence[float], test_sites: Sequence[str]) -> None:
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise UserError(f"shares must be three numbers from 0, not {list(shares)}")
    if test_sites and not sum(shares[:2]):
        raise UserError(
            f"the first two shares must not both be 0 with --test-sites, as in {list(shares)}"
        )


def _check_test_sites(root: Path, test_sites: Sequence[str], sites: Mapping[str, str]) -> None:
    """UserError unless each of them is a site; `sites`: name → site, empty without --site."""
    if test_sites and not sites:
        raise UserError("--test-sites needs --site, which tells the site of each subject")
    known = sorted(set(sites.values()))
    for site in test_sites:
        if site not in known:
            raise UserError(f"--test-sites {site} is no site of {root}, but {', '.join(known)} are")


def _expression(text: str, what: str) -> re.Pattern[str]:
    """A regular expression whose first group names the patient or site; UserError for others."""
    try:
        expression = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"'{text}' is no regular expression: {error}") from None
    if not expression.groups:
        raise UserError(f"'{text}' has no group (in parentheses) that names the {what}")
    return expression


def _found(expression: re.Pattern[str], name: str) -> str:
    """What the first group finds in all of a name, empty where it finds nothing."""
    match = expression.fullmatch(name)
    return (match[1] or "") if match else ""


def _split_text(rows: Sequence[tuple[str, int]], sites: Mapping[str, str]) -> str:
    """A split CSV, with the sites (by name) where there are some."""
    if not sites:
        return table_text(SplitRow._fields[:2], rows)
    return table_text(SplitRow._fields, (SplitRow(*row, sites[row[0]]) for row in rows))
