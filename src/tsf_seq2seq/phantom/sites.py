"""Sites of the phantom: scanners that keep their protocol for every subject, each its own; and
scanners beyond any hospital's, to pre-train on.

Times are in milliseconds.
"""

import math
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

# They keep the random numbers of a site, and of a scanner of any contrast, apart from those of
# subjects and their sequences.
STREAM, ANY_STREAM = 1_000_000, 1_000_001

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

# Wider than hospitals' on either side, so that a real scanner's contrasts lie among these. T1 is
# prepared by an inversion in INVERTED of them, as MPRAGE is; relaxation times differ from the
# tissues' by ANY_CV times what they do between subjects, and grey levels pass through curves: what
# the signal equations leave out (magnetisation transfer, other read-outs, filters) varies, too.
OF_ANY = Variety(
    dict(OF_SITES.times)
    | {
        "t1": Times((300, 1100), (5, 25)),
        "t1ce": Times((300, 1100), (5, 25)),
        "t2": Times((2500, 9000), (70, 140)),
        "flair": Times((6000, 12000), (80, 170), ti=(0.85, 1.08)),
    },
    in_plane=(0.3, 1.0),
    thin=(0.4, 1.4),
    thick=(0.5, 2.2),
    noise=(0.4, 1.5),
    level=(0.4, 2.5),
    bias=(0.03, 0.25),
)
INVERTED = 0.4
INVERSION = Times((1800, 2600), (2, 6), ti=(850, 1150))
ANY_CV = 2.0
CURVE_SD = 0.25  # of the exponent's logarithm


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
    return Site(field, _draw_every_protocol(rng, OF_SITES, field))


def draw_any_scanner(seed: int, index: int) -> Site:
    """A scanner of subject `index` (≥ 0) alone, whose contrasts may lie beyond any hospital's."""
    rng = np.random.default_rng([seed, index, ANY_STREAM])
    field = FIELD_STRENGTHS[rng.integers(len(FIELD_STRENGTHS))]
    tissues = {
        name: replace(tissue, subject_cv=ANY_CV * tissue.subject_cv)
        for name, tissue in field.tissues.items()
    }
    field = replace(field, tissues=tissues)
    protocols = _draw_every_protocol(rng, OF_ANY, field)
    for name in ("t1", "t1ce"):
        if rng.random() < INVERTED:
            tr, te, ti = (rng.uniform(*of) for of in (INVERSION.tr, INVERSION.te, INVERSION.ti))
            protocols[name] = replace(protocols[name], tr=tr, te=te, ti=ti)
    curved = {
        name: replace(protocol, curve=math.exp(rng.normal(0, CURVE_SD)))
        for name, protocol in protocols.items()
    }
    return Site(field, curved)


def _draw_every_protocol(
    rng: np.random.Generator, variety: Variety, field: FieldStrength
) -> dict[str, Acquisition]:
    """A scanner's settings of all sequences that there are."""
    protocols = draw_protocols(rng, variety, field)
    for name in FURTHER_SEQUENCES:
        protocols[name] = draw_further_protocol(rng, name, variety, field)
    return protocols


def _vary(rng: np.random.Generator, usual: Acquisition) -> Acquisition:
    return replace(
        usual,
        noise=usual.noise * rng.uniform(0.95, 1.05),
        bias=usual.bias * rng.uniform(0.95, 1.05),
        brain_median=usual.brain_median * rng.uniform(0.9, 1.1),
    )
