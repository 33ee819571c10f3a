"""The evaluated window of a subject: what of it is synthesized, and its way back to the grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import BACKGROUND, Window, central, central_window, centre_slices
from tsf_seq2seq.data.subjects import Subject, Volumes, check_depth, load_subject


@dataclass(frozen=True)
class SubjectWindow:
    """A subject's volumes, and the box of them that is evaluated.

    `images` (S, Z, Y, X): the box; `centres` (S, Z − C + 1, Y, X): the centre slices of its stacks.
    """

    volumes: Volumes
    window: Window
    images: np.ndarray
    centres: np.ndarray

    def on_whole_grid(self, output: np.ndarray, outside: float = BACKGROUND) -> np.ndarray:
        """Centre slices (Z − C + 1, Y, X) → the subject's whole grid (z, y, x)."""
        shape = self.volumes.images.shape[1:]
        half = (self.images.shape[1] - len(output)) // 2
        z = slice(self.window.z.start + half, self.window.z.stop - half)
        depth = self.volumes.geometry.lps().shape[2]
        whole = np.full((depth, *shape[1:]), outside, dtype=np.float32)
        inner = Window(z, self.window.y, self.window.x)
        whole[self.volumes.slices] = inner.into(output, shape, outside)
        return whole


def load_window(
    config: Config,
    subject: Subject,
    wanted: Sequence[int] | None = None,
    max_stacks: int | None = None,
) -> SubjectWindow:
    """Load a subject (the sequences `wanted`, else all on disk) and take its evaluated window.

    That is the central crop of the central slices; with `max_stacks`, of that many stacks. Raises
    UserError where a volume can't be used or has too few slices for a stack.
    """
    height, slices = config.seq2seq.slices, config.data.slices
    volumes = load_subject(subject, slices, len(config.data.sequences), wanted)
    check_depth(volumes, height)
    shape = volumes.images.shape[1:]
    if max_stacks is not None:
        depth = central(shape[0], slices)
        slices = min(depth.stop - depth.start, max_stacks + height - 1)
    window = central_window(shape, slices, config.data.crop)
    images = window.of(volumes.images)
    return SubjectWindow(volumes, window, images, centre_slices(images, height))
