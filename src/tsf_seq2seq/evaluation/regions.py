"""Where in the brain: tumour, its enhancing part, the rim around it, healthy tissue."""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import binary_dilation

from tsf_seq2seq.data.slices import BACKGROUND

ENHANCING = (3, 4)  # labels of BraTS 2023 and of BraTS 2021
RIM = 3  # voxels
Regions = Mapping[str, np.ndarray]  # name → mask (Z, Y, X)


def brain_mask(sequences: np.ndarray) -> np.ndarray:
    """Where any of the sequences (S, Z, Y, X) in [-1, 1] is above background."""
    return np.any(sequences > BACKGROUND, axis=0)


def tumour_regions(brain: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """`brain`, and with labels (Z, Y, X) `whole_tumour` (any label), `enhancing_tumour` (BraTS's
    labels 3 and 4) and `healthy` (the rest of the brain). Regions without voxels are left out.
    """
    regions = {"brain": brain}
    if labels is not None:
        tumour = labels > 0
        regions |= {
            "whole_tumour": tumour,
            "enhancing_tumour": np.isin(labels, ENHANCING),
            "healthy": brain & ~tumour,
        }
    return {name: mask for name, mask in regions.items() if mask.any()}


def error_regions(brain: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """`brain`, and with labels (Z, Y, X) the brain's parts `tumour`, `rim` (healthy tissue up to 3
    voxels from the tumour, in all directions) and `healthy` (outside the tumour, rim included).
    """
    regions = {"brain": brain}
    if labels is not None:
        tumour = labels > 0
        around = binary_dilation(tumour, np.ones((3, 3, 3), bool), iterations=RIM)
        regions |= {
            "tumour": brain & tumour,
            "rim": brain & around & ~tumour,
            "healthy": brain & ~tumour,
        }
    return {name: mask for name, mask in regions.items() if mask.any()}
