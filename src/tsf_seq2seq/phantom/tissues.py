"""The phantom's tissues at the two field strengths of clinical scanners.

Times are in milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True)
class FieldStrength:
    """What depends on the magnet."""

    tesla: float
    tissues: Mapping[str, Tissue]
    gadolinium_r1: float  # L/mmol/ms, of the contrast agent
    noise: float  # relative to 3 T


# WM, GM: Wansapura et al., JMRI 1999 (T1, 3 T) and Stanisz et al., MRM 2005 (T2, 3 T); proton
# density: Tofts, Quantitative MRI of the Brain, 2003. CSF: Rooney et al., MRM 2007 (T1); its T2 is
# about 2 s. Venous blood: Lu et al., MRM 2004 (T1) and Zhao et al., MRM 2007 (T2). Studies of
# tumour and oedema scatter widely: T1 after de Blank et al., Pediatr Neurosurg 2019, T2 after Oh
# et al., JMRI 2005, both rounded. R2' of WM and GM gives T2* after Peters et al., MRI 2007 (3 T).
# Necrosis, gadolinium, the other R2' and the coefficients of variation are choices that look right
# beside real scans, not measurements. Gadopentetate in plasma: Rohrer et al., Invest Radiol 2005.
THREE_TESLA = FieldStrength(
    3.0,
    {
        "wm": Tissue(0.70, 832.0, 69.0, 0.04, 0.075, 0.01, 0.0043),
        "gm": Tissue(0.82, 1331.0, 99.0, 0.04, 0.085, 0.02, 0.0051),
        "csf": Tissue(1.00, 4300.0, 1800.0, 0.03, 0.04, 0.0, 0.001),
        "vessel": Tissue(0.80, 1600.0, 50.0, 0.10, 0.10, 2.0, 0.027),
        "necrosis": Tissue(0.93, 2400.0, 260.0, 0.15, 0.16, 0.01, 0.006),
        "rim": Tissue(0.84, 1800.0, 130.0, 0.10, 0.10, 0.45, 0.01),
        "oedema": Tissue(0.86, 1350.0, 175.0, 0.10, 0.12, 0.01, 0.004),
    },
    gadolinium_r1=3.7e-3,
    noise=1.0,
)

# WM, GM: Wright et al., MAGMA 2008 (T1) and Stanisz et al., MRM 2005 (T2). CSF: its T1 does not
# depend on the field (Rooney et al., MRM 2007). Blood: Stanisz et al. (T1) and Wright et al., JMRI
# 1991 (T2, venous, rounded). Lesions: T1 falls with the cube root of the field (Bottomley et al.,
# Med Phys 1984), less so in necrosis, which is mostly water; T2 as above, which Oh et al. measured
# at 1.5 T. R2' is half as large, in proportion to the field (Peters et al., MRI 2007). Noise: half
# the polarisation, of which longer scans give back a part. The rest doesn't depend on the field.
ONE_AND_A_HALF_TESLA = FieldStrength(
    1.5,
    {
        "wm": Tissue(0.70, 646.0, 72.0, 0.04, 0.075, 0.01, 0.0021),
        "gm": Tissue(0.82, 1197.0, 95.0, 0.04, 0.085, 0.02, 0.0026),
        "csf": Tissue(1.00, 4300.0, 1800.0, 0.03, 0.04, 0.0, 0.0005),
        "vessel": Tissue(0.80, 1441.0, 110.0, 0.10, 0.10, 2.0, 0.0135),
        "necrosis": Tissue(0.93, 2150.0, 260.0, 0.15, 0.16, 0.01, 0.003),
        "rim": Tissue(0.84, 1430.0, 130.0, 0.10, 0.10, 0.45, 0.005),
        "oedema": Tissue(0.86, 1070.0, 175.0, 0.10, 0.12, 0.01, 0.002),
    },
    gadolinium_r1=4.1e-3,
    noise=1.4,
)
FIELD_STRENGTHS = (ONE_AND_A_HALF_TESLA, THREE_TESLA)
