"""Where in the brain: tumour, its enhancing part, the rim around it, healthy tissue."""

import numpy as np
from scipy.ndimage import binary_dilation

from tsf_seq2seq.data.slices import BACKGROUND

ENHANCING = (3, 4)  # labels of BraTS 2023 and of BraTS 2021
RIM = 3  # voxels


def brain_mask(sequences: np.ndarray) -> np.ndarray:
    """Where any of the sequences (S, Z, Y, X) in [-1, 1] is above background."""
    return np.any(sequences > BACKGROUND, axis=0)


def tumour_regions(brain: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """`brain`, and with labels (Z, Y, X) `whole_tumour` (any label), `enhancing_tumour` (BraTS's
    labels 3 and 4) and `healthy` (the rest of the brain). Regions without voxels are left out.
    """
    if labels is None:
        return _present(brain=brain)
    whole, enhancing = labels > 0, np.isin(labels, ENHANCING)
    healthy = brain & ~whole
    return _present(brain=brain, whole_tumour=whole, enhancing_tumour=enhancing, healthy=healthy)


def error_regions(brain: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """`brain`, and with labels (Z, Y, X) the brain's parts `tumour`, `rim` (healthy tissue up to 3
    voxels from the tumour, in all directions) and `healthy` (outside the tumour, rim included).
    """
    if labels is None:
        return _present(brain=brain)
    tumour = labels > 0
    around = binary_dilation(tumour, np.ones((3, 3, 3), bool), iterations=RIM)
    healthy = brain & ~tumour
    return _present(brain=brain, tumour=brain & tumour, rim=healthy & around, healthy=healthy)


def _present(**regions: np.ndarray) -> dict[str, np.ndarray]:
    return {name: mask for name, mask in regions.items() if mask.any()}
