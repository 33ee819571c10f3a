"""Made-up data sets in every layout: no file is lost, and none is taken for another subject's."""

import fnmatch
import glob
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsf_seq2seq.config import BRATS_SEQUENCES, DataConfig
from tsf_seq2seq.data.discovery import discover
from tsf_seq2seq.data.names import (
    holds_control_signs,
    name_defect,
    names_of_files,
    pattern_expression,
    subject_names,
)
from tsf_seq2seq.data.split_file import read_split
from tsf_seq2seq.data.subjects import find_files
from tsf_seq2seq.errors import UserError

pytestmark = pytest.mark.property

OWN = {"pd": 0, "t1": 1}  # sequences of models with patterns of their own → channel of nnU-Net
# Layout → a scan's path below its site, with the subject, the sequence, and a visit.
BRATS_2021 = "{name}/{name}_{sequence}.nii.gz"
KNOWN = {
    BRATS_2021: {key: key for key in BRATS_SEQUENCES},
    "{name}_{sequence}.nii": {key: key for key in BRATS_SEQUENCES},
    "{name}/{name}-{sequence}.nii.gz": {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"},
    "sub-{label}/anat/sub-{label}_{sequence}.nii.gz": {"t1": "T1w", "t1ce": "ce-gd_T1w"},
    "sub-{label}/ses-2/anat/sub-{label}_ses-2_{sequence}.nii.gz": {"t1": "T1w", "t2": "T2w"},
    "imagesTr/{name}_{sequence}.nii.gz": {"t1": "0001", "flair": "0000"},
}
PATTERNS = [
    "{name}/{sequence}.nii.gz",
    "{name}/{name}_{sequence}.nii.gz",
    "{name}/anat/x_{sequence}.nii.gz",
    "{name}_{sequence}.nii.gz",
    "{sequence}/{name}.nii.gz",
    "scans/{sequence}/{name}/image.nii.gz",
]
DATASET = {"channel_names": {"0": "FLAIR", "1": "T1"}}

names = st.one_of(
    st.sampled_from(["P1", "P10", "p1", "1", "P1_t1", "P1-t1n", "siteA", "a b", "sub-1_ses-2"]),
    st.text("Pp1_-. é北[]!{}^", min_size=1, max_size=6).filter(
        lambda name: name_defect(name) is None and not name.startswith(".")
    ),
)
sites = st.sampled_from(["", "siteA", "siteB", "siteA/ward", "siteB/ward", "P1", "2021/P1"])
trees = st.dictionaries(
    sites, st.dictionaries(names, st.sets(st.integers(0, 3), min_size=1), max_size=4), max_size=4
)


def make(root: Path, files: Iterable[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def decoys(file: str, layout: str) -> list[str]:
    """Files beside a scan that are none."""
    path = PurePosixPath(file)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    others = [f".{path.name}", f"{stem}.json", f"{stem}.nii~"]
    if not layout.endswith("/{name}.nii.gz"):  # where any file is a scan
        others.append(f"{stem}_mask.nii.gz")
    return [
        *(str(path.with_name(name)) for name in others),
        f"derivatives/{file}",
        f".cache/{file}",
    ]


def layout_of(
    tree: Mapping[str, Mapping[str, set[int]]], pattern: str, sequences: Mapping[str, str]
) -> dict[tuple[str, str], set[str]]:
    """(Site, subject) → its files."""
    keys = list(sequences.values())
    made: dict[tuple[str, str], set[str]] = {}
    for site, subjects in tree.items():
        for name, held in subjects.items():
            label = "".join(sign for sign in name if sign.isalnum()) or "x"
            for index in held:
                file = pattern.format(name=name, label=label, sequence=keys[index % len(keys)])
                key = (site, label if "{label}" in pattern else name)
                made.setdefault(key, set()).add(f"{site}/{file}".lstrip("/"))
    return made


def check(root: Path, made: Mapping[tuple[str, str], set[str]], data: DataConfig) -> None:
    """What `discover` finds is what was made, from above and from each of two halves."""
    wanted = {frozenset(str(root / file) for file in files) for files in made.values()}
    tops = sorted({file.split("/")[0] for files in made.values() for file in files})
    whole = discover([root], data)
    again = discover([root, *(root / top for top in tops if (root / top).is_dir()), root], data)
    assert [subject.name for subject in again] == [subject.name for subject in whole]
    halves = (
        discover([root / top for top in tops], data)
        if all((root / top).is_dir() for top in tops)
        else whole
    )
    for subjects in (whole, halves):
        found = [frozenset(map(str, subject.files.values())) for subject in subjects]
        assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))
        assert len({subject.name for subject in subjects}) == len(subjects)
        assert not any(subject.doubles for subject in subjects)
        for subject in subjects:
            last = subject.short_name.rpartition("/")[2]
            assert subject.name.rpartition("/")[2] == last


@given(tree=trees, layout=st.sampled_from(list(KNOWN)))
@example({"siteA": {"patient_1": {0}}, "siteB": {"patient_1": {2}}}, BRATS_2021)
@example({"baseline": {"P1": {0}}, "followup": {"P1": {2}}}, "{name}_{sequence}.nii")
def test_known_layouts(tree, layout):
    made = layout_of(tree, layout, KNOWN[layout])
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = set().union(*made.values())
        make(root, files)
        make(root, (decoy for file in files for decoy in decoys(file, layout)))
        if layout.startswith("imagesTr"):
            for site in tree:
                (root / site).mkdir(parents=True, exist_ok=True)
                (root / site / "dataset.json").write_text(json.dumps(DATASET))
        if files:
            check(root, made, DataConfig())


@given(tree=trees, layout=st.sampled_from(PATTERNS))
@example({"": {"a": {0}}, "a": {"a": {0}}, "b": {"a": {0}}}, "{name}/{sequence}.nii.gz")
def test_own_layouts(tree, layout):
    made = layout_of(tree, layout, {key: key for key in OWN})
    patterns = {key: (layout.replace("{sequence}", key),) for key in OWN}
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = set().union(*made.values())
        make(root, files)
        make(root, (decoy for file in files for decoy in decoys(file, layout)))
        if files:
            check(root, made, DataConfig(sequences=patterns))


@given(
    subjects=st.lists(st.lists(names, min_size=1, max_size=2), max_size=6),
    layout=st.sampled_from(PATTERNS),
)
def test_names_that_find_their_files(subjects, layout):
    """Subjects in the root and in folders that are none: what {name} finds, {name} has found."""
    patterns = {key: (layout.replace("{sequence}", key),) for key in OWN}
    near = {parts[0] for parts in subjects if len(parts) == 1}
    made = {
        "/".join(parts): {
            index: pattern.replace("{name}", "/".join(parts))
            for index, (pattern,) in enumerate(patterns.values())
        }
        for parts in subjects
        if len(parts) == 1 or parts[0] not in near
    }
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = [file for own in made.values() for file in own.values()]
        make(root, files)
        make(root, (decoy for file in files for decoy in decoys(file, layout)))
        assert subject_names(root, patterns) == sorted(made)
        for name, own in made.items():
            wanted = {index: root / file for index, file in own.items()}
            assert find_files(root, name, patterns) == wanted


@given(
    tokens=st.lists(
        st.sampled_from([*"ab1-]!^\\", "*", "**", "?", "[", "[ab]", "[!a]", "[b-a]", "{name}", "/"])
    ),
    path=st.text("ab1-]!^\\[/", max_size=12),
    name=st.text("ab1", min_size=1, max_size=2),
)
def test_patterns_mean_what_they_mean_to_glob(tokens, path, name):
    pattern = "".join(tokens)
    if re.search(r"\[[^/]*\{name\}[^/]*\]", pattern):
        return
    plain = pattern.replace("{name}", glob.escape(name)).split("/")
    parts = path.split("/")
    wanted = len(parts) == len(plain) and all(map(fnmatch.fnmatchcase, parts, plain))
    expression = pattern_expression(pattern, re.escape(name))
    assert (re.fullmatch(expression, path) is not None) == wanted


@given(
    text=st.one_of(
        st.text(),
        st.lists(st.lists(st.text(), max_size=3)).map(
            lambda rows: "\n".join(",".join(row) for row in rows)
        ),
    )
)
def test_splits_hold_names_or_are_refused(text):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "split.csv"
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        try:
            rows = read_split(path, 4)
        except UserError:
            return
        assert rows
        for name, mask, site in rows:
            assert name_defect(name) is None
            assert 1 <= mask <= 15
            assert site is None or (site == site.strip() != "" and not holds_control_signs(site))


@given(paths=st.lists(st.text("ab/_.1", max_size=10)), layout=st.sampled_from(PATTERNS))
def test_names_come_from_the_files(paths, layout):
    """Every name gives one of the paths back."""
    patterns = {key: (layout.replace("{sequence}", key),) for key in OWN}
    made = {path for name in paths for path in (name, layout.format(name=name, sequence="pd"))}
    for name in names_of_files(made, patterns):
        alternatives = [pattern.replace("{name}", name) for (pattern,) in patterns.values()]
        assert made & {*alternatives, *(path.removesuffix(".gz") for path in alternatives)}
