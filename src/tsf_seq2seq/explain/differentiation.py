"""Imaging-differentiation maps: where no sequence gives the target (Seq2Seq, 2302.00517)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.nifti import write_volume
from tsf_seq2seq.data.slices import centre_slices, stacks
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import check_distinct_files
from tsf_seq2seq.explain.seq2seq_figures import plot_differentiation
from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window, window_labels
from tsf_seq2seq.tasks import translation_pairs


def differentiation_maps(
    network: SynthesisNetwork, window: np.ndarray, batch_size: int
) -> np.ndarray:
    """M_d(j) = Σ_i |synthesis(i → j) − x_j| / S over all sources i, j itself included.

    Window (S, Z, Y, X) in [-1, 1] of all sequences → (S, Z − C + 1, Y, X) in [0, 2]: the centre
    slices of its stacks of C slices.
    """
    targets, blocks = centre_slices(window, network.slices), stacks(window, network.slices)
    tasks = translation_pairs(range(len(window)))
    outputs = run_stacks(network, blocks, tasks, batch_size, centre=True)
    maps = np.zeros_like(targets)
    for task in tasks:
        maps[task.target] += np.abs(outputs[FULL, task] - targets[task.target])
    return maps / len(window)


def write_differentiation(
    network: SynthesisNetwork,
    config: Config,
    subjects: Sequence[Subject],
    batch_size: int,
    output: Path,
) -> None:
    """Write each subject's maps, `<name>_<target>_differentiation.nii.gz`, and its figure.

    The maps lie on the subject's grid, in units of the normalised intensities (range 2), 0 outside
    the evaluated window.
    """
    names = list(config.data.sequences)
    stems = {subject.name: subject.name.replace("/", "_") for subject in subjects}
    check_distinct_files((name, f"{stem}_differentiation.pdf") for name, stem in stems.items())
    for subject in tqdm(subjects, unit="subject", desc="mapping"):
        loaded = load_window(config, subject)
        maps = differentiation_maps(network, loaded.images, batch_size)
        stem = stems[subject.name]
        for target, values in zip(names, maps, strict=True):
            path = output / f"{stem}_{target}_differentiation.nii.gz"
            whole, title = loaded.on_whole_grid(values, outside=0), f"M_d of {target}"
            write_volume(path, whole, loaded.volumes.geometry, title)
        shown, outline = shown_slice(config, loaded)
        targets = loaded.centres[:, shown]
        figure = output / f"{stem}_differentiation"
        plot_differentiation(names, targets, maps[:, shown], outline, subject.name, figure)


def complete_subjects(
    subjects: Sequence[Subject], n_sequences: int, wanted: Sequence[str] | None = None
) -> list[Subject]:
    """Those (of the names `wanted`) with all sequences on disk; UserError where none are left."""
    known = {subject.name: subject for subject in subjects}
    names = list(known) if wanted is None else list(dict.fromkeys(wanted))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"subject {unknown[0]} is not in the test split")
    complete = [known[name] for name in names if len(known[name].on_disk) == n_sequences]
    if not complete:
        raise UserError(
            f"none of the {len(names)} subjects has all {n_sequences} sequences on disk"
        )
    return complete


def shown_slice(config: Config, loaded: SubjectWindow) -> tuple[int, np.ndarray | None]:
    """The centre slice that a figure shows, and the lesion (Y, X) on it, None without one."""
    lesion = lesion_mask(config, loaded)
    z = slice_to_show(lesion, loaded.centres.shape[1])
    return z, None if lesion is None or not lesion[z].any() else lesion[z]


def slice_to_show(lesion: np.ndarray | None, depth: int) -> int:
    """The slice of a lesion mask (z, y, x) with its largest area; the middle one without lesion."""
    if lesion is None or not lesion.any():
        return depth // 2
    return int(lesion.sum(axis=(1, 2)).argmax())


def lesion_mask(config: Config, loaded: SubjectWindow) -> np.ndarray | None:
    """The subject's lesion mask on the window's centre slices, if it has a label map."""
    labels = window_labels(config, loaded)
    return None if labels is None else labels > 0
