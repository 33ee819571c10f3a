"""The evaluated window of a subject: what of it is synthesized, and its way back to the grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject, Volumes, check_depth, load_box, load_segmentation
from tsf_seq2seq.data.slices import BACKGROUND, Window, central, central_window, centre_slices
from tsf_seq2seq.data.subjects import find_segmentation
from tsf_seq2seq.errors import UserError


@dataclass(frozen=True)
class SubjectWindow:
    """The box of a subject that is evaluated, in stacks of `height` slices (C)."""

    volumes: Volumes
    height: int

    @property
    def images(self) -> np.ndarray:
        """The box, (S, Z, Y, X)."""
        return self.volumes.images

    @property
    def centres(self) -> np.ndarray:
        """The centre slices of its stacks, (S, Z − C + 1, Y, X)."""
        return centre_slices(self.images, self.height)

    def on_whole_grid(self, output: np.ndarray, outside: float = BACKGROUND) -> np.ndarray:
        """Centre slices (Z − C + 1, Y, X) → the subject's whole grid (z, y, x)."""
        return self.place.into(output, self.volumes.geometry.grid, outside)

    def of_whole_grid(self, whole: np.ndarray) -> np.ndarray:
        """The whole grid (z, y, x) → its centre slices (Z − C + 1, Y, X), a view."""
        return self.place.of(whole)

    @property
    def place(self) -> Window:
        """Where in the whole grid the centre slices lie."""
        box, half = self.volumes.box, self.height // 2
        return Window(slice(box.z.start + half, box.z.stop - half), box.y, box.x)


def load_window(
    config: Config,
    subject: Subject,
    wanted: Sequence[int] | None = None,
    max_stacks: int | None = None,
) -> SubjectWindow:
    """Load a subject's evaluated window (of the sequences `wanted`, else all on disk).

    Raises UserError where a volume can't be used or has too few slices for a stack.
    """
    height = config.data.stack
    volumes = load_box(
        subject,
        lambda grid: evaluated_box(config, grid, max_stacks),
        len(config.data.sequences),
        wanted,
    )
    check_depth(volumes, height)
    return SubjectWindow(volumes, height)


def evaluated_box(config: Config, grid: tuple[int, ...], max_stacks: int | None = None) -> Window:
    """The central crop of a grid's (z, y, x) central slices; with `max_stacks`, of that many stacks
    in the middle of these.
    """
    box = central_window(grid, config.data.slices, config.data.crop)
    if max_stacks is None:
        return box
    middle = central(box.z.stop - box.z.start, max_stacks + config.data.stack - 1)
    return Window(slice(box.z.start + middle.start, box.z.start + middle.stop), box.y, box.x)


def window_labels(config: Config, loaded: SubjectWindow) -> np.ndarray | None:
    """The subject's lesion labels on the window's centre slices, if it has a label map.

    Raises UserError that names the subject where the file can't be used.
    """
    volumes = loaded.volumes
    path = find_segmentation(config.data, volumes.subject.name)
    if path is None:
        return None
    try:
        labels = load_segmentation(path, volumes.geometry)
    except UserError as error:
        raise UserError(f"subject {volumes.subject.name}: {error}") from error
    return centre_slices(volumes.box.of(labels[np.newaxis]), loaded.height)[0]
