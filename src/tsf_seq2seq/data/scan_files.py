"""Scans as files: what a folder holds, what only looks like one, and formats other than NIfTI."""

import os
import re
import shlex
import stat
import sys
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tsf_seq2seq.errors import UserError, printable

ENDING = r"\.nii(?:\.gz)?$"
FREESURFER = "mri_convert"
NIBABEL = "python -c 'import sys, nibabel as n; n.save(n.load(sys.argv[1]), sys.argv[2])'"
ITK = "python -c 'import sys, SimpleITK as s; s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])'"
# Ending → the command that, with the names of such a file and of a new one, makes NIfTI of it.
OTHER_FORMATS = dict.fromkeys((".mgz", ".mgh"), FREESURFER)
OTHER_FORMATS |= dict.fromkeys((".img", ".hdr"), NIBABEL)
OTHER_FORMATS |= dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), ITK)
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
DICOM_MARK, DICOM_OFFSET = b"DICM", 128
LOOKED_AT = 1000  # files at most, in search of DICOM
KINDS = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}


class NamedFile(NamedTuple):
    """What is named as scans are: NIfTI, another format, or with a `defect` (`scan_defect`).

    `text`: the absolute path for expressions, with / between folders; ends in .nii or .nii.gz.
    """

    path: Path
    text: str
    defect: str | None
    is_nifti: bool


def named_files(folder: Path, seen: set[tuple[int, int]]) -> list[NamedFile]:
    """All below a folder that is named as scans are, by path, but for hidden ones and derivatives.

    Links to folders are followed, and no folder is entered twice, by whatever ways it is reached:
    `seen` keeps those that were. Folders that can't be read are told on standard error; UserError
    where `folder` itself can't be.
    """
    found: list[NamedFile] = []
    top = os.path.abspath(folder)
    places, links = [top], list[str]()  # links last: a folder's own name counts
    while places or links:
        for entry in _members(places.pop() if places else links.pop(0), top, seen):
            ending = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or entry.name == "derivatives":
                continue
            if is_nifti := re.search(ENDING, entry.name) is not None:
                text = entry.path
            elif _is_folder(entry):
                (links if entry.is_symlink() else places).append(entry.path)
                continue
            elif ending in OTHER_FORMATS:
                text = f"{entry.path[: -len(ending)]}.nii.gz"
            else:
                continue
            path = folder / entry.path[len(top) :].lstrip("/")
            found.append(NamedFile(path, text, _defect(entry), is_nifti))
    return sorted(found, key=lambda file: file.text)


def scan_defect(path: Path | str) -> str | None:
    """What is wrong with a scan's path where no file can be read, as a sentence's end, or None."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is a link that leads nowhere" if os.path.islink(path) else "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        return f"can't be read: {error}"
    if stat.S_ISREG(mode):
        return None
    kind = next((kind for kind, is_one in KINDS.items() if is_one(mode)), "a device")
    return f"is {kind}, not a file"


def conversion(path: Path | str) -> str | None:
    """That a file is of another format, and the command that makes NIfTI of it; None for others."""
    base, ending = os.path.splitext(path)
    command = OTHER_FORMATS.get(ending.lower())
    if command is None:
        return None
    files = (shlex.quote(name) for name in (str(path), f"{base}.nii.gz"))
    return f"{path} is no NIfTI, which this makes of it: {command} {' '.join(files)}"


def other_format(folder: Path) -> str | None:
    """Of the first scan of another format below a folder what `conversion` says, or of DICOM."""
    files = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    for path in islice(files, LOOKED_AT):
        if text := conversion(path):
            return text
        if _is_dicom(path):
            source = shlex.quote(os.path.dirname(path))
            return f"{path} is DICOM, which this makes NIfTI of: dcm2niix -z y -o FOLDER {source}"
    return None


def _members(place: str, top: str, seen: set[tuple[int, int]]) -> list["os.DirEntry[str]"]:
    """What a folder holds, unless it was seen before."""
    try:
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in seen:
            return []
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        text = f"{place} can't be read: {error.strerror}"
        if place == top:
            raise UserError(text) from None
        print(f"warning: {printable(text)}; what it holds is left out", file=sys.stderr)
        return []


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _defect(entry: "os.DirEntry[str]") -> str | None:
    """`scan_defect`, without asking the file system again where it has told already."""
    return None if entry.is_file(follow_symlinks=False) else scan_defect(entry.path)


def _is_dicom(path: str) -> bool:
    if path.lower().endswith(DICOM_ENDINGS):
        return True
    if re.search("[a-zA-Z]", os.path.splitext(path)[1]) or scan_defect(path):
        return False  # scanners' own names end in numbers, if in anything
    try:
        with open(path, "rb") as file:
            file.seek(DICOM_OFFSET)
            return file.read(len(DICOM_MARK)) == DICOM_MARK
    except OSError:
        return False
