"""Sites of the phantom: scanners that keep their protocol for every subject, each its own.

Times are in milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsf_seq2seq.phantom.protocols import (
    FURTHER_SEQUENCES,
    Acquisition,
    Times,
    Variety,
    draw_further_protocol,
    draw_protocols,
)
from tsf_seq2seq.phantom.tissues import FIELD_STRENGTHS, FieldStrength

STREAM = 1_000_000  # keeps a site's random numbers apart from those of subjects and their sequences

# Wider than OF_SUBJECTS, as between hospitals: T1 by spin echo of short to long TR, T2 and FLAIR
# from moderately to heavily T2-weighted, the FLAIR's CSF not always at its null. Ellingson et al.,
# Neuro Oncol 2015, recommend ranges for brain tumours; hospitals go beyond them. These are choices,
# not statistics of scanners.
OF_SITES = Variety(
    {
        "t1": Times((400, 900), (8, 20)),
        "t1ce": Times((400, 900), (8, 20)),
        "t2": Times((3000, 8000), (80, 125)),
        "flair": Times((7000, 11000), (90, 150), ti=(0.90, 1.04)),
        "pd": Times((2200, 5000), (10, 30)),
        "t1ir": Times((1900, 2600), (4, 14), ti=(880, 1040)),
        "dir": Times((6500, 11000), (20, 80)),
        "t2star": Times((400, 1000), (14, 32), flip_angle=(12, 30)),
    },
    in_plane=(0.3, 0.9),
    thin=(0.4, 1.1),
    thick=(0.5, 1.8),
    noise=(0.6, 1.3),
    level=(0.4, 2.5),
    bias=(0.05, 0.20),
)


@dataclass(frozen=True)
class Site:
    """A scanner, and its settings of every sequence."""

    field: FieldStrength
    protocols: Mapping[str, Acquisition]

    def draw_acquisitions(
        self, rng: np.random.Generator, sequences: Sequence[str]
    ) -> dict[str, Acquisition]:
        """Settings for one subject: times, flip angle and point spread are the site's own.

        Noise and bias differ from it by up to 5 %, as heads load a coil differently, the file's
        grey levels by up to 10 %, as the receiver's gain is set for each.
        """
        return {name: _vary(rng, self.protocols[name]) for name in sequences}


def draw_site(seed: int, number: int) -> Site:
    """Site `number` (≥ 0) of a seed's data sets, however many sites and subjects they have."""
    rng = np.random.default_rng([seed, number, STREAM])
    field = FIELD_STRENGTHS[rng.integers(len(FIELD_STRENGTHS))]
    protocols = draw_protocols(rng, OF_SITES, field)
    for name in FURTHER_SEQUENCES:
        protocols[name] = draw_further_protocol(rng, name, OF_SITES, field)
    return Site(field, protocols)


def _vary(rng: np.random.Generator, usual: Acquisition) -> Acquisition:
    return replace(
        usual,
        noise=usual.noise * rng.uniform(0.95, 1.05),
        bias=usual.bias * rng.uniform(0.95, 1.05),
        brain_median=usual.brain_median * rng.uniform(0.9, 1.1),
    )
