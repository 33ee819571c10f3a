"""The phantom's tissues, its sequences, and how a scanner acquires them.

Times are in milliseconds; the field strength is 3 T.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.phantom.equations import double_nulling_times, nulling_time

SEQUENCES = ("t1", "t1ce", "t2", "flair")
FURTHER_SEQUENCES = ("pd", "t1ir", "dir", "t2star")


@dataclass(frozen=True)
class Tissue:
    """What a tissue shows to MRI, and how much it varies (coefficients of variation)."""

    pd: float  # proton density, relative to water
    t1: float  # ms
    t2: float  # ms
    subject_cv: float  # between subjects
    texture_cv: float  # within a subject, smooth in space
    gadolinium: float  # mmol/L some minutes after injection
    r2_prime: float  # 1/ms, what an uneven field adds to 1/T2 in a gradient echo


# WM, GM: Wansapura et al., JMRI 1999 (T1, 3 T) and Stanisz et al., MRM 2005 (T2, 3 T); proton
# density: Tofts, Quantitative MRI of the Brain, 2003. CSF: Rooney et al., MRM 2007 (T1); its T2 is
# about 2 s. Venous blood: Lu et al., MRM 2004 (T1) and Zhao et al., MRM 2007 (T2). Studies of
# tumour and oedema scatter widely: T1 after de Blank et al., Pediatr Neurosurg 2019, T2 after Oh
# et al., JMRI 2005, both rounded. R2' of WM and GM gives T2* after Peters et al., MRI 2007 (3 T).
# Necrosis, gadolinium, the other R2' and the coefficients of variation are choices that look right
# beside real scans, not measurements.
TISSUES: Mapping[str, Tissue] = {
    "wm": Tissue(0.70, 832.0, 69.0, 0.04, 0.075, 0.01, 0.0043),
    "gm": Tissue(0.82, 1331.0, 99.0, 0.04, 0.085, 0.02, 0.0051),
    "csf": Tissue(1.00, 4300.0, 1800.0, 0.03, 0.04, 0.0, 0.001),
    "vessel": Tissue(0.80, 1600.0, 50.0, 0.10, 0.10, 2.0, 0.027),
    "necrosis": Tissue(0.93, 2400.0, 260.0, 0.15, 0.16, 0.01, 0.006),
    "rim": Tissue(0.84, 1800.0, 130.0, 0.10, 0.10, 0.45, 0.01),
    "oedema": Tissue(0.86, 1350.0, 175.0, 0.10, 0.12, 0.01, 0.004),
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


def draw_protocols(rng: np.random.Generator) -> dict[str, Acquisition]:
    """Draw one subject's scanner settings, as they vary between hospitals."""
    flair_tr = rng.uniform(8000, 10000)
    csf_null = nulling_time(TISSUES["csf"].t1, flair_tr)
    settings: dict[str, tuple[float, ...]] = {  # TR, TE, noise, grey level, TI
        "t1": (rng.uniform(480, 750), rng.uniform(8, 14), 0.022, 600.0),
        "t1ce": (rng.uniform(480, 700), rng.uniform(8, 14), 0.022, 800.0),
        "t2": (rng.uniform(5000, 7500), rng.uniform(95, 120), 0.035, 500.0),
        "flair": (flair_tr, rng.uniform(95, 140), 0.032, 600.0, csf_null * rng.uniform(0.94, 1.02)),
    }
    return {name: _draw_acquisition(rng, name, *values) for name, values in settings.items()}


def _draw_acquisition(
    rng: np.random.Generator,
    sequence: str,
    tr: float,
    te: float,
    noise: float,
    level: float,
    ti: float | None = None,
    second_ti: float | None = None,
    flip_angle: float | None = None,
) -> Acquisition:
    """Settings around a usual noise and grey level; slices are thicker in T2 and FLAIR."""
    in_plane, thin, thick = rng.uniform(0.4, 0.7), rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.4)
    return Acquisition(
        tr,
        te,
        sequence == "t1ce",
        (in_plane, in_plane, thick if sequence in ("t2", "flair") else thin),
        noise * rng.uniform(0.7, 1.4),
        level * rng.uniform(0.6, 1.6),
        rng.uniform(0.08, 0.16),
        ti,
        second_ti,
        flip_angle,
    )


def draw_further_protocol(rng: np.random.Generator, sequence: str) -> Acquisition:
    """Draw one subject's settings of one of the FURTHER_SEQUENCES.

    pd: spin echo of long TR and short TE; t1ir: inversion recovery with CSF near its null; dir:
    double inversion that nulls CSF and white matter; t2star: spoiled gradient echo of long TE.
    """
    ti = second_ti = flip_angle = None
    if sequence == "pd":
        tr, te, noise, level = rng.uniform(3000, 4500), rng.uniform(10, 20), 0.022, 700.0
    elif sequence == "t1ir":
        tr, te, noise, level = rng.uniform(2000, 2400), rng.uniform(4, 10), 0.025, 500.0
        ti = rng.uniform(880, 1000)
    elif sequence == "dir":
        tr, te, noise, level = rng.uniform(7500, 10000), rng.uniform(20, 60), 0.05, 400.0
        ti, second_ti = double_nulling_times(TISSUES["wm"].t1, TISSUES["csf"].t1, tr)
    else:
        tr, te, noise, level = rng.uniform(500, 800), rng.uniform(18, 26), 0.03, 500.0
        flip_angle = rng.uniform(15, 25)
    return _draw_acquisition(rng, sequence, tr, te, noise, level, ti, second_ti, flip_angle)
