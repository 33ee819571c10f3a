"""How good saved predictions are in tumour and healthy tissue, and from slice to slice."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log10, nan
from pathlib import Path
from typing import ClassVar

import numpy as np
from skimage.metrics import structural_similarity
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject, check_same_grid
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.data.slices import DATA_RANGE
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.brasyn import brasyn_ssim
from tsf_seq2seq.evaluation.metrics import SSIM_WINDOW
from tsf_seq2seq.evaluation.protocol import IDENTITY
from tsf_seq2seq.evaluation.record import Entry, differing, read_entries
from tsf_seq2seq.evaluation.regions import brain_mask, tumour_regions
from tsf_seq2seq.evaluation.scores import (
    PSNR,
    SSIM,
    Metric,
    Score,
    check_known,
    prediction_path,
    read_scores,
)
from tsf_seq2seq.evaluation.statistics import Means, means_of, means_table
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window, window_labels
from tsf_seq2seq.tables import Table, group_by
from tsf_seq2seq.tasks import n_inputs

REGION_METRICS = (
    *(PSNR, SSIM),
    Metric("mae", -1, "MAE", 4),
    Metric("brasyn_ssim", 1, "BraSyn's SSIM", 4),
    Metric("slice_difference", 0, "slice to slice", 4),
    Metric("slice_difference_target", 0, "slice to slice, target", 4),
)


@dataclass(frozen=True)
class RegionScore:
    """A synthesized volume in one region of the evaluated window: a row of tumour.csv.

    psnr in dB, ssim (mean of scikit-image's map) and mae of normalised intensities (range 2);
    brasyn_ssim for `whole_tumour` (the tumour's mask) and `healthy` (all but the tumour, background
    included), else nan; mean absolute differences between neighbouring slices, of the synthesis
    and of the target, over the voxels whose neighbour is in the region, too.
    """

    LABELS: ClassVar[int] = 5
    name: str
    sources: str
    target: str
    method: str
    region: str
    voxels: int
    psnr: float
    ssim: float
    mae: float
    brasyn_ssim: float
    slice_difference: float
    slice_difference_target: float


def region_psnr(target: np.ndarray, synthesis: np.ndarray, mask: np.ndarray) -> float:
    """PSNR = 10·log10(2² / mean (target − synthesis)²) in dB over a mask; inf when equal."""
    error = float(np.square(target[mask] - synthesis[mask], dtype=np.float64).mean())
    return 10 * log10(DATA_RANGE**2 / error) if error > 0 else inf


def ssim_map(target: np.ndarray, synthesis: np.ndarray) -> np.ndarray:
    """SSIM of each voxel (Z, Y, X), scikit-image's defaults in 3-d; nan under 7 voxels an axis."""
    if min(target.shape) < SSIM_WINDOW:
        return np.full(target.shape, nan)
    full: np.ndarray = structural_similarity(target, synthesis, data_range=DATA_RANGE, full=True)[1]
    return full


def slice_difference(volume: np.ndarray, mask: np.ndarray) -> float:
    """mean |x[z + 1] − x[z]| over the pairs of neighbours that are both in the mask; nan if none.

    A synthesis slice by slice that flickers has more of it than its target, a blurred one less.
    """
    pairs = mask[1:] & mask[:-1]
    return float(np.abs(np.diff(volume, axis=0))[pairs].mean()) if pairs.any() else nan


def predictions_of(folder: Path) -> tuple[list[Score], int | None]:
    """The scores of an evaluation's saved predictions, and its limit of slices.

    Raises UserError where the folder holds no evaluation, or one without predictions.
    """
    path = folder / IDENTITY
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
        first, slices = identity["methods"][0], identity["max_slices"]
        if not isinstance(first, str) or not isinstance(slices, int | None):
            raise TypeError
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"{folder} is no folder of an evaluation: {path} can't be read") from None
    scores = [score for score in read_scores(folder / "metrics.csv") if score.method == first]
    saved = [score for score in scores if prediction_path(folder, *score.volume).exists()]
    if not saved:
        raise UserError(f"{folder} has no predictions: evaluate without --no-predictions")
    return saved, slices


def score_regions(config: Config, subjects: Iterable[Subject], folder: Path) -> list[RegionScore]:
    """Every saved prediction of the `subjects` in an evaluation's folder, region by region.

    Raises UserError where there are none, one isn't on its subject's grid, or a subject's scans or
    predictions have changed since it was evaluated.
    """
    saved, max_slices = predictions_of(folder)
    of_subject = group_by(saved, lambda score: score.name)
    scored = [subject for subject in subjects if subject.name in of_subject]
    if not scored:
        raise UserError(f"{folder} has no predictions of the subjects in {config.data.test}")
    names = list(config.data.sequences)
    check_known(folder / "metrics.csv", saved, names)
    record = read_entries(folder / IDENTITY)
    rows: list[RegionScore] = []
    for subject in tqdm(scored, unit="subject", desc="scoring"):
        loaded = load_window(config, subject, max_stacks=max_slices)
        regions = tumour_regions(brain_mask(loaded.centres), window_labels(config, loaded))
        for score in of_subject[subject.name]:
            target = loaded.centres[names.index(score.target)]
            synthesis = _read_prediction(prediction_path(folder, *score.volume), loaded)
            rows += _score(score, target, synthesis, regions, loaded)
        if subject.name in record:
            _check_current(folder, subject, names, record[subject.name])
    return rows


def _check_current(folder: Path, subject: Subject, names: Sequence[str], entry: Entry) -> None:
    """UserError unless a subject's scans and predictions are those that its scores are of."""
    if entry.results is None:
        raise UserError(f"subject {subject.name} is being evaluated, or was left unfinished")
    scans = {name: content for name, content in entry.made_from.items() if name in names}
    now = {name: subject.fingerprint(names.index(name)) for name in scans}
    files = {str(folder / file): content for file, content in (entry.files or {}).items()}
    there = {file: fingerprint(Path(file)) for file in files if Path(file).exists()}
    for changed in (*differing(scans, now), *differing({**files, **there}, files)):
        raise UserError(
            f"subject {subject.name}: {changed} is not as it was evaluated: evaluate it again"
        )


def region_means(rows: Sequence[RegionScore]) -> list[Means]:
    """(number of inputs, region) → means of `REGION_METRICS`."""
    return means_of(
        rows, lambda row: (n_inputs(row.sources), row.region.replace("_", " ")), REGION_METRICS
    )


def region_table(means: Sequence[Means]) -> Table:
    """One row per number of inputs and region."""
    caption = (
        "Regions, with the mean absolute error (MAE), and the mean absolute difference from slice "
        "to slice"
    )
    return means_table(caption, ["inputs", "region"], means, REGION_METRICS)


def _score(
    score: Score,
    target: np.ndarray,
    synthesis: np.ndarray,
    regions: dict[str, np.ndarray],
    loaded: SubjectWindow,
) -> list[RegionScore]:
    """One prediction in every region."""
    similarity = ssim_map(target, synthesis)
    challenge: dict[str, float] = {}
    if "whole_tumour" in regions:
        # Both with background outside the evaluated window: nothing was synthesized there.
        real, made = (loaded.on_whole_grid(volume) for volume in (target, synthesis))
        tumour = loaded.on_whole_grid(regions["whole_tumour"], outside=0) > 0
        challenge["whole_tumour"] = brasyn_ssim(real, made, tumour)
        challenge["healthy"] = brasyn_ssim(real, made, ~tumour)
    return [
        RegionScore(
            *(score.name, score.sources, score.target, score.method, region, int(mask.sum())),
            region_psnr(target, synthesis, mask),
            float(similarity[mask].mean()),
            float(np.abs(target - synthesis)[mask].mean()),
            challenge.get(region, nan),
            slice_difference(synthesis, mask),
            slice_difference(target, mask),
        )
        for region, mask in regions.items()
    ]


def _read_prediction(path: Path, loaded: SubjectWindow) -> np.ndarray:
    """A saved prediction's centre slices (Z − C + 1, Y, X)."""
    voxels, geometry = read_volume(path)
    wanted = loaded.volumes.geometry
    if geometry.shape != wanted.shape:
        raise UserError(f"{path} has shape {geometry.shape}, but its subject {wanted.shape}")
    check_same_grid(wanted, geometry, f"subject {loaded.volumes.subject.name}", str(path))
    return loaded.of_whole_grid(geometry.to_network(voxels)).astype(np.float32)
