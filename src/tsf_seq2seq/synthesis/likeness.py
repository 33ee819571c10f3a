"""Whether a reference is like a subject: the histograms of their sequences' brains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tsf_seq2seq.data.slices import BACKGROUND

QUANTILE_LEVELS = np.linspace(0.05, 0.95, 19)
ALIKE = 0.9  # share of the pairs of one site that count as alike


@dataclass(frozen=True)
class Histogram:
    """A subject's brain: sequence → 5 %, 10 %, … 95 % quantiles of its voxels above background, in
    normalised intensities (range 2). ValueError for another number of them."""

    name: str
    quantiles: dict[str, tuple[float, ...]]
    site: str | None = None

    def __post_init__(self) -> None:
        for values in self.quantiles.values():
            if len(values) != len(QUANTILE_LEVELS):
                raise ValueError(f"quantiles must be {len(QUANTILE_LEVELS)}, not {len(values)}")


@dataclass(frozen=True)
class Difference:
    """How far a sequence of a subject is from the reference that it is farthest from.

    `distance`: the mean absolute difference of their quantiles (range 2); `usual`: the largest that
    counts as alike, None where nothing says so; `of`: what says so.
    """

    sequence: str
    reference: str
    distance: float
    usual: float | None
    of: str

    @property
    def is_alike(self) -> bool:
        return self.usual is None or self.distance <= self.usual

    def text(self) -> str:
        """The warning, in a sentence."""
        return (
            f"{self.sequence} differs from that of reference {self.reference} by "
            f"{self.distance:.3f} (mean difference of brain quantiles, range 2), more than the "
            f"usual {self.usual or 0:.3f} ({self.of}): a reference of another scanner or protocol "
            "makes the synthesis worse"
        )


def histogram(name: str, images: Mapping[str, np.ndarray], site: str | None = None) -> Histogram:
    """Of images in [-1, 1], sequence → array; a sequence without a brain is left out."""
    brains = {key: image[image > BACKGROUND] for key, image in images.items()}
    quantiles = {
        key: tuple(float(q) for q in np.quantile(brain, QUANTILE_LEVELS))
        for key, brain in brains.items()
        if brain.size
    }
    return Histogram(name, quantiles, site)


def distance(a: Histogram, b: Histogram, sequence: str) -> float:
    """Mean absolute difference of the quantiles of a sequence that both have."""
    return float(np.abs(np.subtract(a.quantiles[sequence], b.quantiles[sequence])).mean())


def differences(
    subject: Histogram, references: Sequence[Histogram], training: Sequence[Histogram] = ()
) -> list[Difference]:
    """Of each of the subject's sequences that a reference has.

    What is usual, the `training` subjects say, else the references among each other.
    """
    found = []
    for sequence in subject.quantiles:
        having = [other for other in references if sequence in other.quantiles]
        if having:
            farthest = max(having, key=lambda other: distance(subject, other, sequence))
            usual, of = usual_distance(sequence, having, training)
            own = distance(subject, farthest, sequence)
            found.append(Difference(sequence, farthest.name, own, usual, of))
    return found


def usual_distance(
    sequence: str, references: Sequence[Histogram], training: Sequence[Histogram]
) -> tuple[float | None, str]:
    """The largest distance that counts as alike, and what says so.

    90 % of the pairs of training subjects of one site are as near; where no two are of one site,
    half of the pairs of different ones are: what is of one scanner should be nearer than that.
    Where there are no training subjects, the farthest two of three or more references.
    """
    known = [one for one in training if sequence in one.quantiles]
    pairs = list(combinations(known, 2))
    within = [pair for pair in pairs if pair[0].site is not None and pair[0].site == pair[1].site]
    if within:
        distances = [distance(*pair, sequence) for pair in within]
        return float(np.quantile(distances, ALIKE)), "90 % of the pairs of one site in training"
    if len(known) > 2:
        distances = [distance(*pair, sequence) for pair in pairs]
        return float(np.median(distances)), "median of the pairs in training, of any scanners"
    if len(references) > 2:
        distances = [distance(*pair, sequence) for pair in combinations(references, 2)]
        return max(distances), "the farthest two references"
    return None, "nothing to compare with"
