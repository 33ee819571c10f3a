"""MR signal of the phantom: spin-echo and inversion-recovery equations, bias, blur and noise.

Times are in milliseconds, concentrations in mmol/L; the field strength is 3 T.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tsf_seq2seq.data.phantom_anatomy import Anatomy
from tsf_seq2seq.data.phantom_fields import Array, Grid, random_field

Value = TypeVar("Value", float, NDArray[np.float32])

SEQUENCES = ("t1", "t1ce", "t2", "flair")
GADOLINIUM_R1 = 3.7e-3  # L/mmol/ms, gadopentetate in plasma at 3 T: Rohrer, Invest Radiol 2005


@dataclass(frozen=True)
class Tissue:
    """What a tissue shows to MRI, and how much it varies (coefficients of variation)."""

    pd: float  # proton density, relative to water
    t1: float  # ms
    t2: float  # ms
    subject_cv: float  # between subjects
    texture_cv: float  # within a subject, smooth in space
    gadolinium: float  # mmol/L some minutes after injection


# WM, GM: Wansapura et al., JMRI 1999 (T1, 3 T) and Stanisz et al., MRM 2005 (T2, 3 T); proton
# density: Tofts, Quantitative MRI of the Brain, 2003. CSF: Rooney et al., MRM 2007 (T1); its T2 is
# about 2 s. Venous blood: Lu et al., MRM 2004 (T1) and Zhao et al., MRM 2007 (T2). Studies of
# tumour and oedema scatter widely: T1 after de Blank et al., Pediatr Neurosurg 2019, T2 after Oh
# et al., JMRI 2005, both rounded. Necrosis, gadolinium and the coefficients of variation are
# choices that look right beside BraTS scans, not measurements.
TISSUES: Mapping[str, Tissue] = {
    "wm": Tissue(0.70, 832.0, 69.0, 0.04, 0.075, 0.01),
    "gm": Tissue(0.82, 1331.0, 99.0, 0.04, 0.085, 0.02),
    "csf": Tissue(1.00, 4300.0, 1800.0, 0.03, 0.04, 0.0),
    "vessel": Tissue(0.80, 1600.0, 50.0, 0.10, 0.10, 2.0),
    "necrosis": Tissue(0.93, 2400.0, 260.0, 0.15, 0.16, 0.01),
    "rim": Tissue(0.84, 1800.0, 130.0, 0.10, 0.10, 0.45),
    "oedema": Tissue(0.86, 1350.0, 175.0, 0.10, 0.12, 0.01),
}


@dataclass(frozen=True)
class Protocol:
    """How one sequence was acquired on one scanner."""

    tr: float  # ms
    te: float  # ms
    ti: float | None  # ms; None for spin echo without inversion
    gadolinium: bool
    blur_mm: tuple[float, float, float]  # standard deviation of the point spread
    noise: float  # standard deviation in each channel, over the brain's median signal
    brain_median: float  # grey level of the brain's median in the file
    bias: float  # standard deviation of the logarithm of the coil's sensitivity


@dataclass(frozen=True)
class Relaxation:
    """Proton density, T1 and T2 (ms) of one tissue in each brain voxel."""

    pd: Array
    t1: Array
    t2: Array


def spin_echo(pd: Value, t1: Value, t2: Value, tr: float, te: float) -> Value:
    """S = PD·(1 − exp(−TR/T1))·exp(−TE/T2): spin echo, TE ≪ TR (Haacke, MRI, 1999, ch. 8)."""
    signal: Value = pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)
    return signal


def inversion_recovery(pd: Value, t1: Value, t2: Value, tr: float, te: float, ti: float) -> Value:
    """S = PD·(1 − 2·exp(−TI/T1) + exp(−TR/T1))·exp(−TE/T2), signed (Haacke, MRI, 1999, ch. 8)."""
    signal: Value = pd * (1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)
    return signal


def nulling_time(t1: float, tr: float) -> float:
    """TI = T1·(ln 2 − ln(1 + exp(−TR/T1))): the inversion time at which T1 gives no signal."""
    return t1 * (math.log(2) - math.log1p(math.exp(-tr / t1)))


def shortened_t1(t1: Value, concentration: Value, relaxivity: float = GADOLINIUM_R1) -> Value:
    """1/T1' = 1/T1 + r1·C: contrast agent of C mmol/L (Solomon–Bloembergen, fast exchange)."""
    shortened: Any = 1 / (1 / t1 + relaxivity * concentration)
    return shortened


def rician(signal: Array, real: Array, imaginary: Array) -> Array:
    """M = √((S + n₁)² + n₂²): magnitude of a noisy complex signal (Gudbjartsson, MRM 1995)."""
    return np.hypot(signal + real, imaginary)


def draw_protocols(rng: np.random.Generator) -> dict[str, Protocol]:
    """Draw one subject's scanner settings, as they vary between hospitals."""
    flair_tr = rng.uniform(8000, 10000)
    csf_null = nulling_time(TISSUES["csf"].t1, flair_tr)
    timing: dict[str, tuple[float, float, float | None]] = {
        "t1": (rng.uniform(480, 750), rng.uniform(8, 14), None),
        "t1ce": (rng.uniform(480, 700), rng.uniform(8, 14), None),
        "t2": (rng.uniform(5000, 7500), rng.uniform(95, 120), None),
        "flair": (flair_tr, rng.uniform(95, 140), csf_null * rng.uniform(0.94, 1.02)),
    }
    noise = {"t1": 0.022, "t1ce": 0.022, "t2": 0.035, "flair": 0.032}
    level = {"t1": 600.0, "t1ce": 800.0, "t2": 500.0, "flair": 600.0}
    return {
        name: Protocol(
            tr,
            te,
            ti,
            name == "t1ce",
            _draw_blur(rng, name),
            noise[name] * rng.uniform(0.7, 1.4),
            level[name] * rng.uniform(0.6, 1.6),
            rng.uniform(0.08, 0.16),
        )
        for name, (tr, te, ti) in timing.items()
    }


def _draw_blur(rng: np.random.Generator, sequence: str) -> tuple[float, float, float]:
    """In-plane point spread, and slices that are thicker in T2 and FLAIR."""
    in_plane, through = rng.uniform(0.4, 0.7), rng.uniform(0.5, 0.9)
    thick = rng.uniform(0.6, 1.4)
    if sequence in ("t2", "flair"):
        through = thick
    return (in_plane, in_plane, through)


def draw_relaxation(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy
) -> dict[str, Relaxation]:
    """Draw each tissue's PD, T1 and T2: a subject's own mean times independent textures."""
    texture = [
        np.float32(0.9) * random_field(rng, grid, 11.0)[anatomy.mask]
        + np.float32(0.45) * random_field(rng, grid, 3.5)[anatomy.mask]
        for _ in range(3)
    ]
    return {
        name: Relaxation(*_draw_parameters(rng, tissue, texture))
        for name, tissue in TISSUES.items()
    }


def _draw_parameters(
    rng: np.random.Generator, tissue: Tissue, texture: list[Array]
) -> tuple[Array, Array, Array]:
    """Mean·exp(subject + texture); proton density and T1 vary less than T2."""
    own = rng.normal(0, tissue.subject_cv, 3)
    means = (tissue.pd, tissue.t1, tissue.t2)
    weights = (0.35, 0.9, 1.0)
    maps = [
        (mean * np.exp(w * (o + tissue.texture_cv * field))).astype(np.float32)
        for mean, w, o, field in zip(means, weights, own, texture, strict=True)
    ]
    return maps[0], maps[1], maps[2]


def simulate_scan(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, protocols: dict[str, Protocol]
) -> dict[str, Array]:
    """Simulate all sequences without noise: grey levels over the crop, 0 outside the brain."""
    relaxation = draw_relaxation(rng, grid, anatomy)
    uptake = np.exp(np.float32(0.35) * random_field(rng, grid, 7.0)[anatomy.mask])
    uptake *= np.float32(math.exp(rng.normal(0, 0.2)))
    return {
        name: acquire(
            rng, grid, anatomy, ideal_signal(anatomy, relaxation, uptake, protocol), protocol
        )
        for name, protocol in protocols.items()
    }


def ideal_signal(
    anatomy: Anatomy, relaxation: dict[str, Relaxation], uptake: Array, protocol: Protocol
) -> Array:
    """|Σ_k f_k·S_k| over the tissues k of each brain voxel, f_k their fractions."""
    total = np.zeros_like(uptake)
    for name, fraction in anatomy.fractions.items():
        tissue = relaxation[name]
        t1 = tissue.t1
        if protocol.gadolinium:
            t1 = shortened_t1(t1, np.float32(TISSUES[name].gadolinium) * uptake)
        if protocol.ti is None:
            signal = spin_echo(tissue.pd, t1, tissue.t2, protocol.tr, protocol.te)
        else:
            signal = inversion_recovery(
                tissue.pd, t1, tissue.t2, protocol.tr, protocol.te, protocol.ti
            )
        total += fraction * signal
    return np.abs(total)


def acquire(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, ideal: Array, protocol: Protocol
) -> Array:
    """Blur and shade an ideal signal; returns grey levels over the crop, free of noise.

    The blur is normalised by the blurred mask, as the skull is stripped only afterwards.
    """
    mask = anatomy.mask
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = ideal
    voxel_variance = (grid.spacing**2 - 1) / 12  # a larger voxel averages over its own width
    sigma = [math.sqrt(mm**2 + voxel_variance) / grid.spacing for mm in protocol.blur_mm]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=3.0)
    blurred = ndimage.gaussian_filter(volume, sigma, truncate=3.0)
    shading = np.exp(np.float32(protocol.bias) * random_field(rng, grid, 70.0)[mask])
    shaded = blurred[mask] / weight[mask] * shading
    volume[mask] = shaded * np.float32(protocol.brain_median / np.median(shaded))
    return volume


def add_noise(
    rng: np.random.Generator, volume: Array, mask: NDArray[np.bool_], protocol: Protocol
) -> Array:
    """Rician noise of the protocol's strength in every brain voxel."""
    voxels = volume[mask]
    real, imaginary = (
        np.float32(protocol.noise * protocol.brain_median)
        * rng.standard_normal(voxels.size, dtype=np.float32)
        for _ in range(2)
    )
    noisy = np.zeros_like(volume)
    noisy[mask] = rician(voxels, real, imaginary)
    return noisy
