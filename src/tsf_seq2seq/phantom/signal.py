"""The phantom's MR signal: from tissue fractions to grey levels, with bias, blur and noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tsf_seq2seq.phantom.anatomy import Anatomy
from tsf_seq2seq.phantom.equations import (
    double_inversion_recovery,
    gradient_echo,
    inversion_recovery,
    rician,
    shortened_t1,
    shortened_t2,
    spin_echo,
)
from tsf_seq2seq.phantom.fields import Array, Grid, random_field
from tsf_seq2seq.phantom.protocols import Acquisition
from tsf_seq2seq.phantom.tissues import THREE_TESLA, FieldStrength, Tissue


@dataclass(frozen=True)
class Relaxation:
    """Proton density, T1 and T2 (ms) of one tissue in each brain voxel."""

    pd: Array
    t1: Array
    t2: Array


@dataclass(frozen=True)
class Patient:
    """What a subject's tissues show to MRI; arrays list the brain's voxels."""

    field: FieldStrength  # in which it lies
    relaxation: dict[str, Relaxation]  # by tissue
    uptake: Array  # of contrast agent, relative to the tissue's


def draw_patient(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, field: FieldStrength = THREE_TESLA
) -> Patient:
    """Draw one subject's relaxation times and uptake of contrast agent."""
    texture = [
        np.float32(0.9) * random_field(rng, grid, 11.0)[anatomy.mask]
        + np.float32(0.45) * random_field(rng, grid, 3.5)[anatomy.mask]
        for _ in range(3)
    ]
    relaxation = {
        name: _draw_relaxation(rng, tissue, texture) for name, tissue in field.tissues.items()
    }
    uptake = np.exp(np.float32(0.35) * random_field(rng, grid, 7.0)[anatomy.mask])
    uptake *= np.float32(math.exp(rng.normal(0, 0.2)))
    return Patient(field, relaxation, uptake)


def _draw_relaxation(rng: np.random.Generator, tissue: Tissue, texture: list[Array]) -> Relaxation:
    """PD, T1 and T2: mean·exp(subject + texture); proton density and T1 vary less than T2."""
    own = rng.normal(0, tissue.subject_cv, 3)
    means = (tissue.pd, tissue.t1, tissue.t2)
    weights = (0.35, 0.9, 1.0)
    maps = (
        (mean * np.exp(w * (o + tissue.texture_cv * field))).astype(np.float32)
        for mean, w, o, field in zip(means, weights, own, texture, strict=True)
    )
    return Relaxation(*maps)


def simulate_sequence(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, patient: Patient, protocol: Acquisition
) -> Array:
    """A sequence without noise, blurred and shaded: grey levels over the crop, 0 outside the brain.

    The blur is normalised by the blurred mask, as the skull is stripped only afterwards.
    """
    ideal = np.zeros_like(patient.uptake)
    for name, fraction in anatomy.fractions.items():
        ideal += fraction * tissue_signal(name, patient, protocol)
    mask = anatomy.mask
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = np.abs(ideal)
    voxel_variance = (grid.spacing**2 - 1) / 12  # a larger voxel averages over its own width
    sigma = [math.sqrt(mm**2 + voxel_variance) / grid.spacing for mm in protocol.blur_mm]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=3.0)
    blurred = ndimage.gaussian_filter(volume, sigma, truncate=3.0)
    shading = np.exp(np.float32(protocol.bias) * random_field(rng, grid, 70.0)[mask])
    shaded = blurred[mask] / weight[mask] * shading
    volume[mask] = shaded * np.float32(protocol.brain_median / np.median(shaded))
    if protocol.curve != 1:
        level = np.float32(protocol.brain_median)
        volume[mask] = level * (volume[mask] / level) ** np.float32(protocol.curve)
    return volume


def tissue_signal(name: str, patient: Patient, protocol: Acquisition) -> Array:
    """The signal, with its sign, that each brain voxel would give if it held tissue `name` only."""
    tissue, constants = patient.relaxation[name], patient.field.tissues[name]
    t1, tr, te = tissue.t1, protocol.tr, protocol.te
    if protocol.gadolinium:
        concentration = np.float32(constants.gadolinium) * patient.uptake
        t1 = shortened_t1(t1, concentration, patient.field.gadolinium_r1)
    if protocol.flip_angle is not None:
        t2_star = shortened_t2(tissue.t2, constants.r2_prime)
        return gradient_echo(tissue.pd, t1, t2_star, tr, te, protocol.flip_angle)
    if protocol.ti is None:
        return spin_echo(tissue.pd, t1, tissue.t2, tr, te)
    if protocol.second_ti is None:
        return inversion_recovery(tissue.pd, t1, tissue.t2, tr, te, protocol.ti)
    return double_inversion_recovery(
        tissue.pd, t1, tissue.t2, tr, te, protocol.ti, protocol.second_ti
    )


def add_noise(
    rng: np.random.Generator, volume: Array, mask: NDArray[np.bool_], protocol: Acquisition
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
