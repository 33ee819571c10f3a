"""Places of an imputation's files: one for each subject and target, inside the output folder."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.data.namings import BIDS_SUFFIXES, canonical_name
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import is_inside

# Kinds of images, beside contributions.
IMAGE, TSEM, EXPECTED_ERROR, LOWER, UPPER = (
    "image",
    "TSEM",
    "expected error",
    "lower bound",
    "upper bound",
)
REMEDY = "rename one, or impute them into folders of their own"


def contribution_kind(source: str) -> str:
    """The kind of image that shows what a source contributes."""
    return f"contribution of {source}"


class Paths(NamedTuple):
    """Where an imputation goes: its image and sidecar; `maps`: kind → file of what may lie beside
    the image, such as TSEM; in BIDS each of these has a sidecar, too: `map_sidecars`."""

    image: Path
    sidecar: Path
    maps: Mapping[str, Path]
    map_sidecars: Mapping[str, Path]

    @property
    def images(self) -> dict[str, Path]:
        """Kind → file of all images."""
        return {IMAGE: self.image, **self.maps}

    @property
    def sidecars(self) -> dict[str, Path]:
        """Kind → file of their sidecars, where they have one."""
        return {IMAGE: self.sidecar, **self.map_sidecars}

    @property
    def all(self) -> list[Path]:
        return [*self.images.values(), *self.sidecars.values()]


Wanted = Sequence[tuple[FoundSubject, Mapping[str, Paths]]]  # subjects, files of each target


def check_places(folder: Path, wanted: Wanted) -> None:
    """UserError unless each file has a place inside `folder` that it shares with none.

    Places that differ by case only are one: on many disks they are. No file lies where another
    needs a folder.
    """
    files = [
        (number, target, path)
        for number, (_, places) in enumerate(wanted)
        for target, paths in places.items()
        for path in paths.all
    ]
    inside: set[Path] = set()
    owners: dict[str, tuple[int, str]] = {}
    for number, target, path in files:
        name = wanted[number][0].name
        if "\0" in path.name or not (path.parent in inside or _leads_inside(path, folder)):
            raise UserError(f"subject {name}: {path} for {target} lies outside of {folder}")
        inside.add(path.parent)
        _check_owner(owners.setdefault(_key(path), (number, target)), number, target, path, wanted)
    above = {path.parent: (number, target) for number, target, path in files}
    for lowest, (number, target) in above.items():
        for needed in (lowest, *lowest.parents):
            if (owner := owners.get(_key(needed))) is not None:
                _check_owner(owner, number, target, needed, wanted)


def check_labels(subjects: Iterable[FoundSubject]) -> None:
    """UserError where BIDS labels would make one patient, or one session, of two."""
    patients: dict[str, tuple[str, str]] = {}
    sessions: dict[str, tuple[str, str]] = {}
    for subject in subjects:
        patient, labels = _bids_labels(subject)
        whole = "/".join(labels)
        for label, own, known in (
            (labels[0], patient, patients),
            (whole, subject.name, sessions),
        ):
            first, name = known.setdefault(_key(label), (own, subject.name))
            if first != own:
                raise UserError(
                    f"subjects {name} and {subject.name} would both be {label} in BIDS: {REMEDY}"
                )


def bids_name(subject: FoundSubject, target: str, kind: str) -> str:
    """A derivative's path without its ending, such as sub-1/anat/sub-1_desc-synth_T2w.

    UserError where name or target leaves nothing for a label.
    """
    _, labels = _bids_labels(subject)
    canonical = canonical_name(target)
    ending = BIDS_SUFFIXES[canonical] if canonical else f"_{_label(target, target)}"
    entities, _, suffix = f"{'_'.join(labels)}{ending}".rpartition("_")
    return f"{'/'.join(labels)}/anat/{entities}_desc-{_alphanumeric(kind)}_{suffix}"


def _bids_labels(subject: FoundSubject) -> tuple[str, list[str]]:
    """The patient's name, and labels: sub-… and, where a name such as sub-1_ses-2 or 1/2 tells a
    session, ses-…."""
    own = subject.short_name
    above = subject.name.removesuffix(own)
    if found := re.fullmatch(r"(sub-([^/_]+))(?:[_/]ses-([^/_]+))?", own):
        patient, label, session = found.groups()
    else:
        patient, _, rest = own.partition("/")
        label = _label(patient, subject.name)
        session = _label(rest, subject.name) if rest else None
    labels = [f"sub-{_alphanumeric(above)}{label}"]
    return above + patient, [*labels, f"ses-{session}"] if session else labels


def _label(text: str, name: str) -> str:
    """What of a text may stand in a label; UserError that names whose it is where nothing may."""
    if not (label := _alphanumeric(text)):
        raise UserError(f"{name} gives no BIDS label: {text!r} holds neither letters nor digits")
    return label


def _alphanumeric(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _leads_inside(path: Path, folder: Path) -> bool:
    if "\0" in str(path) or not path.is_relative_to(folder):
        return False
    return ".." not in path.parts[len(folder.parts) :] and is_inside(path, folder)


def _check_owner(
    owner: tuple[int, str], number: int, target: str, path: Path, wanted: Wanted
) -> None:
    """UserError unless a place's owner (subject's number, target) is the one that is given."""
    if owner != (number, target):
        first, name = wanted[owner[0]][0].name, wanted[number][0].name
        raise UserError(
            f"{owner[1]} of subject {first} and {target} of subject {name} would share {path}: "
            f"{REMEDY}"
        )


def _key(path: Path | str) -> str:
    """The same for paths that a disk may take for one: in other case, or other forms of Unicode."""
    plain = unicodedata.normalize("NFD", str(path)).casefold()
    return unicodedata.normalize("NFD", plain)
