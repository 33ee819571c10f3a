"""The phantom's sequences, and how a scanner acquires them.

Times are in milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.phantom.equations import double_nulling_times, nulling_time
from tsf_seq2seq.phantom.tissues import THREE_TESLA, FieldStrength

SEQUENCES = ("t1", "t1ce", "t2", "flair")
FURTHER_SEQUENCES = ("pd", "t1ir", "dir", "t2star")

Range = tuple[float, float]  # within which a setting is drawn, uniformly

# Noise, and grey level of the brain's median, that scanners' own are multiples of.
USUAL = {
    "t1": (0.022, 600.0),
    "t1ce": (0.022, 800.0),
    "t2": (0.035, 500.0),
    "flair": (0.032, 600.0),
    "pd": (0.022, 700.0),
    "t1ir": (0.025, 500.0),
    "dir": (0.05, 400.0),
    "t2star": (0.03, 500.0),
}


@dataclass(frozen=True)
class Acquisition:
    """How one sequence was acquired on one scanner."""

    tr: float  # ms
    te: float  # ms
    gadolinium: bool
    blur_mm: tuple[float, float, float]  # standard deviation of the point spread
    noise: float  # standard deviation in each channel, over the brain's median signal
    brain_median: float  # grey level of the brain's median in the file
    bias: float  # standard deviation of the logarithm of the coil's sensitivity
    ti: float | None = None  # ms; None for spin echo without inversion
    second_ti: float | None = None  # ms, of a double inversion
    flip_angle: float | None = None  # degrees, of a gradient echo; None for spin echo
    curve: float = 1.0  # exponent of grey levels over the brain's median


@dataclass(frozen=True)
class Times:
    """Between what a sequence's settings lie."""

    tr: Range  # ms
    te: Range  # ms
    ti: Range = (0.0, 0.0)  # ms; of flair relative to the time at which CSF gives no signal
    flip_angle: Range = (0.0, 0.0)  # degrees


@dataclass(frozen=True)
class Variety:
    """Between what the settings of several scanners lie."""

    times: Mapping[str, Times]
    in_plane: Range  # mm, standard deviation of the point spread
    thin: Range  # mm, the same across slices
    thick: Range  # mm, the same across those of T2 and FLAIR
    noise: Range  # relative to USUAL
    level: Range  # relative to USUAL
    bias: Range


OF_SUBJECTS = Variety(
    {
        "t1": Times((480, 750), (8, 14)),
        "t1ce": Times((480, 700), (8, 14)),
        "t2": Times((5000, 7500), (95, 120)),
        "flair": Times((8000, 10000), (95, 140), ti=(0.94, 1.02)),
        "pd": Times((3000, 4500), (10, 20)),
        "t1ir": Times((2000, 2400), (4, 10), ti=(880, 1000)),
        "dir": Times((7500, 10000), (20, 60)),
        "t2star": Times((500, 800), (18, 26), flip_angle=(15, 25)),
    },
    in_plane=(0.4, 0.7),
    thin=(0.5, 0.9),
    thick=(0.6, 1.4),
    noise=(0.7, 1.4),
    level=(0.6, 1.6),
    bias=(0.08, 0.16),
)


def draw_protocols(
    rng: np.random.Generator, variety: Variety = OF_SUBJECTS, field: FieldStrength = THREE_TESLA
) -> dict[str, Acquisition]:
    """Draw one scanner's settings of the SEQUENCES."""
    times = variety.times
    flair_tr = rng.uniform(*times["flair"].tr)
    csf_null = nulling_time(field.tissues["csf"].t1, flair_tr)
    drawn: dict[str, tuple[float, ...]] = {  # TR, TE, TI
        name: (rng.uniform(*times[name].tr), rng.uniform(*times[name].te))
        for name in SEQUENCES
        if name != "flair"
    }
    flair_te, share = rng.uniform(*times["flair"].te), rng.uniform(*times["flair"].ti)
    drawn["flair"] = (flair_tr, flair_te, csf_null * share)
    return {
        name: _draw_acquisition(rng, name, variety, field, *values)
        for name, values in drawn.items()
    }


def draw_further_protocol(
    rng: np.random.Generator,
    sequence: str,
    variety: Variety = OF_SUBJECTS,
    field: FieldStrength = THREE_TESLA,
) -> Acquisition:
    """Draw one scanner's settings of one of the FURTHER_SEQUENCES.

    pd: spin echo of long TR and short TE; t1ir: inversion recovery with CSF near its null; dir:
    double inversion that nulls CSF and white matter; t2star: spoiled gradient echo of long TE.
    """
    times = variety.times[sequence]
    tr, te = rng.uniform(*times.tr), rng.uniform(*times.te)
    ti = second_ti = flip_angle = None
    if sequence == "t1ir":
        ti = rng.uniform(*times.ti)
    elif sequence == "dir":
        ti, second_ti = double_nulling_times(field.tissues["wm"].t1, field.tissues["csf"].t1, tr)
    elif sequence == "t2star":
        flip_angle = rng.uniform(*times.flip_angle)
    return _draw_acquisition(rng, sequence, variety, field, tr, te, ti, second_ti, flip_angle)


def _draw_acquisition(
    rng: np.random.Generator,
    sequence: str,
    variety: Variety,
    field: FieldStrength,
    tr: float,
    te: float,
    ti: float | None = None,
    second_ti: float | None = None,
    flip_angle: float | None = None,
) -> Acquisition:
    """The rest of a scanner's settings; slices are thicker in T2 and FLAIR."""
    in_plane, thin, thick = (
        rng.uniform(*extent) for extent in (variety.in_plane, variety.thin, variety.thick)
    )
    noise, level = USUAL[sequence]
    return Acquisition(
        tr,
        te,
        sequence == "t1ce",
        (in_plane, in_plane, thick if sequence in ("t2", "flair") else thin),
        noise * field.noise * rng.uniform(*variety.noise),
        level * rng.uniform(*variety.level),
        rng.uniform(*variety.bias),
        ti,
        second_ti,
        flip_angle,
    )
