"""How many damaged inputs the verdict beside an imputed image catches, at how many false alarms.

Each subject of a split is imputed as it is, and with one of its sources damaged in turn: taken from
the next subject, shifted by about 5 mm, with its contrast upside down, at half the resolution,
noisy; from one, two and three sources. Writes corrupted_inputs.csv, one row an imputation, and
prints and writes the table. Subject by subject target and damaged source change in turn.
"""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
from scipy.ndimage import shift, zoom
from tqdm import tqdm

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import Model, open_model
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.files.writing import write_text
from tsf_seq2seq.tables import group_by, markdown, rows_text
from tsf_seq2seq.tasks import n_inputs

SHIFT_MM = 5.0
NOISE = 0.1  # standard deviation, as a share of the brain's 99th percentile
CLEAN, OTHER = "as they are", "of another subject"
Damage = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """One imputation: a row of corrupted_inputs.csv; `share`: of subjects like those of the
    calibration that lie further out; `reason`: the statistic that lies furthest out."""

    LABELS: ClassVar[int] = 5
    name: str
    sources: str
    target: str
    damage: str
    damaged: str
    outside: int
    share: float
    expected_psnr: float
    reason: str


def shifted(voxels: np.ndarray, spacing: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Along the first axis of the file, by whole voxels: interpolation would blur."""
    return shift(voxels, (int(SHIFT_MM / spacing[0] + 0.5), 0, 0), order=0)


def upside_down(voxels: np.ndarray, _: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """What was brightest in the brain is darkest, and the other way round."""
    inside = voxels[brain]
    return np.where(brain, inside.max() + inside.min() - voxels, 0)


def half_resolution(voxels: np.ndarray, _: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Every second voxel of a linear interpolation, and back."""
    small = zoom(voxels, 0.5, order=1)
    large = zoom(small, np.divide(voxels.shape, small.shape), order=1)
    return np.where(brain, large, 0)


def noisy(voxels: np.ndarray, _: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Gaussian noise, the same for the same image."""
    sigma = NOISE * np.percentile(voxels[brain], 99)
    noise = np.random.default_rng(0).normal(0, sigma, voxels.shape)
    return np.where(brain, (voxels + noise).clip(min=0), 0)


DAMAGES: dict[str, Damage] = {
    "shifted by about 5 mm": shifted,
    "contrast upside down": upside_down,
    "half resolution": half_resolution,
    "noisy": noisy,
}


def damaged_image(path: Path, damage: Damage) -> nib.Nifti1Image:
    """A scan with its voxels damaged, on its own grid."""
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    spacing = np.asarray(image.header.get_zooms()[:3], float)
    changed = damage(voxels, spacing, voxels > 0).astype(np.float32)
    return nib.Nifti1Image(changed, image.affine)


def examine(model: Model, subjects: list[Subject]) -> list[Row]:
    """Every subject with every damage and number of sources."""
    rows, names = [], list(model.sequences)
    for place, subject in enumerate(tqdm(subjects, unit="subject")):
        target = place % len(names)
        others = [i for i in range(len(names)) if i != target]
        first = others[(place // len(names)) % len(others)]
        files = {names[i]: subject.files[i] for i in others}
        other = subjects[(place + 1) % len(subjects)].files[first]
        given = {CLEAN: files[names[first]], OTHER: other}
        given |= {kind: damaged_image(given[CLEAN], own) for kind, own in DAMAGES.items()}
        rest = [i for i in others if i != first]
        for count in range(len(rest) + 1):
            sources = [names[i] for i in sorted([first, *rest[:count]])]
            for kind, image in given.items():
                images = {name: files[name] for name in sources} | {names[first]: image}
                found = impute(images, model, names[target], resample=kind == OTHER).error_map
                assert found is not None
                if found.verdict is None:
                    raise UserError(f"{model.path}: too few subjects calibrated its error map")
                reasons = found.verdict.reasons
                rows.append(
                    Row(
                        *(subject.name, "+".join(sources), names[target], kind, names[first]),
                        int(found.verdict.outside),
                        found.verdict.share,
                        found.psnr,
                        reasons[0].name if reasons else "",
                    )
                )
    return rows


def table(rows: list[Row]) -> str:
    """What is caught of each damage, by the number of sources, and the usual reason."""
    counts = sorted({n_inputs(row.sources) for row in rows})
    lines = [["one source", *(f"caught of {n} inputs" for n in counts), "usual reason"]]
    for kind, own in group_by(rows, lambda row: row.damage).items():
        cells = []
        for count in counts:
            these = [row.outside for row in own if n_inputs(row.sources) == count]
            cells.append(f"{sum(these)} of {len(these)}")
        reasons = Counter(row.reason.partition(": ")[2] for row in own if row.outside)
        lines.append([kind, *cells, reasons.most_common(1)[0][0] if reasons else ""])
    return markdown(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-l", "--load", type=Path, required=True, help="checkpoint with error map")
    parser.add_argument("-r", "--root", type=Path, required=True, help="data set")
    parser.add_argument("--split", type=Path, required=True, metavar="CSV", help="subjects")
    parser.add_argument("--subjects", type=int, help="only so many")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    model = open_model(arguments.load)
    if model.error_map is None:
        raise UserError(f"{arguments.load} has no error map")
    data = dataclasses.replace(model.config.data, root=arguments.root)
    subjects = find_subjects(data, arguments.split)
    whole = [one for one in subjects if len(one.on_disk) == len(model.sequences)]
    rows = examine(model, whole[: arguments.subjects])
    write_text(arguments.output / "corrupted_inputs.csv", rows_text(Row, rows))
    write_text(arguments.output / "corrupted_inputs.md", table(rows))
    print(table(rows))


if __name__ == "__main__":
    run_script(main)
