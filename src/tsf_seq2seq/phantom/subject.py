"""The phantom data set: real anatomy (MNI152) with simulated contrasts, in BraTS 2021 layout."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tsf_seq2seq.data.nifti import write_voxels
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import LOCK, claimed
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.phantom.anatomy import Anatomy, simulate_anatomy
from tsf_seq2seq.phantom.fields import Array, Grid, make_grid
from tsf_seq2seq.phantom.protocols import (
    FURTHER_SEQUENCES,
    SEQUENCES,
    Acquisition,
    draw_further_protocol,
    draw_protocols,
)
from tsf_seq2seq.phantom.signal import add_noise, draw_patient, simulate_sequence
from tsf_seq2seq.phantom.sites import draw_any_scanner, draw_site
from tsf_seq2seq.phantom.tissues import THREE_TESLA
from tsf_seq2seq.processes import map_in_processes

SETTINGS_FILE = "phantom.json"
SHAPES = {1.0: (240, 240, 155), 2.0: (120, 120, 78)}  # voxels, by spacing in mm


@dataclass(frozen=True)
class PhantomSubject:
    """One simulated patient; all arrays are (x, y, z) in LPS voxel order."""

    volumes: dict[str, NDArray[np.int16]]  # sequence -> grey levels, 0 outside the brain, else ≥ 1
    noise_free: dict[str, NDArray[np.int16]]  # the same before noise was added
    segmentation: NDArray[np.int16]  # 0, 1 necrotic core, 2 oedema, 4 enhancing tumour
    affine: NDArray[np.float64]  # voxel index -> mm (RAS+), 4 × 4


def simulate_subject(
    seed: int,
    index: int,
    spacing: float = 1.0,
    sequences: Sequence[str] = SEQUENCES,
    sites: int | None = None,
    any_contrast: bool = False,
) -> PhantomSubject:
    """Simulate subject `index` (≥ 0) of a data set; the same arguments give the same arrays.

    `spacing`: voxel size, 1 mm (240 × 240 × 155) or 2 mm (120 × 120 × 78), on which anatomy and
    protocol don't depend; `sequences`: of SEQUENCES and FURTHER_SEQUENCES, none of which depends on
    what others are made; `sites`: how many scanners take turns (`draw_site`), instead of one of its
    own; `any_contrast`: its own is one beyond any hospital's (`draw_any_scanner`). Raises UserError
    for a negative seed or index, no site, sites of any contrast, another spacing, or a sequence
    that isn't known or stands twice.
    """
    _check_request(seed, index, spacing, sequences, sites, any_contrast)
    grid = make_grid(SHAPES[spacing], spacing)
    site = None if sites is None else draw_site(seed, index % sites)
    if any_contrast:
        site = draw_any_scanner(seed, index)
    rng = np.random.default_rng([seed, index])
    anatomy = simulate_anatomy(rng, grid)
    protocols = site.draw_acquisitions(rng, SEQUENCES) if site else draw_protocols(rng)
    patient = draw_patient(rng, grid, anatomy, site.field if site else THREE_TESLA)
    clean: dict[str, Array] = {}
    noisy: dict[str, Array] = {}

    def acquire_all(rng: np.random.Generator, protocols: dict[str, Acquisition]) -> None:
        for name, protocol in protocols.items():
            clean[name] = simulate_sequence(rng, grid, anatomy, patient, protocol)
        for name, protocol in protocols.items():
            noisy[name] = add_noise(rng, clean[name], anatomy.mask, protocol)

    acquire_all(rng, protocols)
    for number, name in enumerate(FURTHER_SEQUENCES):
        if name in sequences:
            own = np.random.default_rng([seed, index, number])
            if site:
                acquire_all(own, site.draw_acquisitions(own, [name]))
            else:
                acquire_all(own, {name: draw_further_protocol(own, name)})
    return PhantomSubject(
        volumes={name: _grey_levels(noisy[name], anatomy, grid) for name in sequences},
        noise_free={name: _grey_levels(clean[name], anatomy, grid) for name in sequences},
        segmentation=_uncrop(anatomy.segmentation.astype(np.int16), grid),
        affine=brats_affine(spacing),
    )


def brats_affine(spacing: float) -> NDArray[np.float64]:
    """BraTS 2021's affine at 1 mm; larger voxels start at the same corner of the volume."""
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    corner = (spacing - 1) / 2
    affine[:3, 3] = (-corner, 239 - corner, corner)
    return affine


def write_phantom_dataset(
    root: Path,
    subjects: int,
    seed: int = 0,
    spacing: float = 1.0,
    noise_free: bool = False,
    processes: int = 1,
    first: int = 0,
    sequences: Sequence[str] = SEQUENCES,
    sites: int | None = None,
    any_contrast: bool = False,
) -> list[str]:
    """Simulate subjects and write them as `<root>/<name>/<name>_<sequence>.nii.gz`; their names.

    `root`: made if absent, else empty, or of an interrupted run of the same settings, which goes
    on; `subjects`: how many, from index `first` on; `noise_free`: also write
    `<name>_<sequence>_noisefree.nii.gz`; `processes`: subjects at once; with `sites`, a name begins
    with its own, Site1_ for index 0. The rest as
    `simulate_subject` takes it; the same seed gives the same bytes. Raises UserError if the folder
    holds anything else, or as `simulate_subject` does.
    """
    _check_request(seed, first, spacing, sequences, sites, any_contrast)
    settings: dict[str, Any] = {
        "seed": seed,
        "spacing_mm": spacing,
        "sequences": list(sequences),
        "noise_free": noise_free,
    }
    if sites is not None:
        settings["sites"] = sites
    if any_contrast:
        settings["any_contrast"] = True
    write = partial(_write_subject, root, seed, spacing, noise_free, sequences, sites, any_contrast)
    with claimed(root):
        _enter(root, json.dumps(settings) + "\n")
        done = map_in_processes(processes, write, range(first, first + subjects))
        return list(tqdm(done, total=subjects, desc="simulating", unit="subject"))


def _enter(root: Path, settings: str) -> None:
    """Note the settings in the folder; UserError unless it is empty or of these settings."""
    path = root / SETTINGS_FILE
    if {found.name for found in root.iterdir()} <= {LOCK}:
        write_text(path, settings)
    elif not path.is_file():
        raise UserError(f"{root} exists and isn't an empty folder; name a new one.")
    elif path.read_text(encoding="utf-8", errors="replace") != settings:
        raise UserError(f"{root} holds phantoms of other settings ({path}); name a new folder.")


def _write_subject(
    root: Path,
    seed: int,
    spacing: float,
    noise_free: bool,
    sequences: Sequence[str],
    sites: int | None,
    any_contrast: bool,
    index: int,
) -> str:
    """Simulate and write a subject whose files aren't all there; its name."""
    name = f"Phantom_{index:05d}"
    if sites is not None:
        name = f"Site{index % sites + 1}_{name}"
    suffixes = [*sequences, *(f"{key}_noisefree" for key in sequences if noise_free), "seg"]
    paths = {suffix: root / name / f"{name}_{suffix}.nii.gz" for suffix in suffixes}
    if all(path.is_file() for path in paths.values()):
        return name
    subject = simulate_subject(seed, index, spacing, sequences, sites, any_contrast)
    images = {**subject.volumes, "seg": subject.segmentation}
    if noise_free:
        images |= {f"{key}_noisefree": volume for key, volume in subject.noise_free.items()}
    for suffix, path in paths.items():
        write_voxels(path, images[suffix], subject.affine)
    return name


def _grey_levels(volume: Array, anatomy: Anatomy, grid: Grid) -> NDArray[np.int16]:
    """Round to int16; brain voxels are at least 1, so that 0 means background."""
    levels = np.rint(volume).clip(1, np.iinfo(np.int16).max) * anatomy.mask
    return _uncrop(levels.astype(np.int16), grid)


def _uncrop(volume: NDArray[np.int16], grid: Grid) -> NDArray[np.int16]:
    whole = np.zeros(grid.shape, np.int16)
    whole[grid.crop] = volume
    return whole


def _check_request(
    seed: int,
    index: int,
    spacing: float,
    sequences: Sequence[str],
    sites: int | None,
    any_contrast: bool,
) -> None:
    if seed < 0 or index < 0:
        raise UserError(f"seed and subject index must be 0 or more, got {seed} and {index}.")
    if sites is not None and sites < 1:
        raise UserError(f"there must be 1 site or more, got {sites}.")
    if sites is not None and any_contrast:
        raise UserError("a site keeps its contrasts: ask for sites or for any contrast, not both.")
    if spacing not in SHAPES:
        raise UserError(f"spacing must be 1 or 2 mm, got {spacing}.")
    known = (*SEQUENCES, *FURTHER_SEQUENCES)
    unknown = [name for name in sequences if name not in known]
    if unknown or not sequences or len(set(sequences)) < len(sequences):
        raise UserError(
            f"sequences must be some of {', '.join(known)}, each once, got {' '.join(sequences)}."
        )
