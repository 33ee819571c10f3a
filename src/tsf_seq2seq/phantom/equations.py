"""MR signal equations of the phantom, and the times at which an inversion nulls a tissue.

Times are in milliseconds, rates in 1/ms, concentrations in mmol/L.
"""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from tsf_seq2seq.phantom.fields import Array

Value = TypeVar("Value", float, NDArray[np.float32])


def spin_echo(pd: Value, t1: Value, t2: Value, tr: float, te: float) -> Value:
    """S = PD·(1 − exp(−TR/T1))·exp(−TE/T2): spin echo, TE ≪ TR (Haacke, MRI, 1999, ch. 8)."""
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def inversion_recovery(pd: Value, t1: Value, t2: Value, tr: float, te: float, ti: float) -> Value:
    """S = PD·(1 − 2·exp(−TI/T1) + exp(−TR/T1))·exp(−TE/T2), signed (Haacke, MRI, 1999, ch. 8)."""
    return pd * (1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def nulling_time(t1: float, tr: float) -> float:
    """TI = T1·(ln 2 − ln(1 + exp(−TR/T1))): the inversion time at which T1 gives no signal."""
    return t1 * (math.log(2) - math.log1p(math.exp(-tr / t1)))


def shortened_t1(t1: Value, concentration: Value, relaxivity: float) -> Value:
    """1/T1' = 1/T1 + r1·C: contrast agent of C mmol/L and r1 in L/mmol/ms (Solomon–Bloembergen,
    fast exchange)."""
    shortened: Any = 1 / (1 / t1 + relaxivity * concentration)
    return shortened


def rician(signal: Array, real: Array, imaginary: Array) -> Array:
    """M = √((S + n₁)² + n₂²): magnitude of a noisy complex signal (Gudbjartsson, MRM 1995)."""
    return np.hypot(signal + real, imaginary)


def double_inversion_recovery(
    pd: Value, t1: Value, t2: Value, tr: float, te: float, ti: float, second_ti: float
) -> Value:
    """S = PD·(1 − 2·exp(−TI₂/T1) + 2·exp(−(TI₁+TI₂)/T1) − exp(−TR/T1))·exp(−TE/T2), signed.

    TI₁ from the first inversion to the second, TI₂ from there to the excitation (Redpath and Smith,
    Br J Radiol 1994).
    """
    recovered = 1 - 2 * np.exp(-second_ti / t1) + 2 * np.exp(-(ti + second_ti) / t1)
    return pd * (recovered - np.exp(-tr / t1)) * np.exp(-te / t2)


def gradient_echo(
    pd: Value, t1: Value, t2_star: Value, tr: float, te: float, flip_angle: float
) -> Value:
    """S = PD·sin α·(1 − E)/(1 − E·cos α)·exp(−TE/T2*), E = exp(−TR/T1), α in degrees: spoiled
    gradient echo (Haacke, MRI, 1999, ch. 18)."""
    angle, decay = math.radians(flip_angle), np.exp(-tr / t1)
    steady = math.sin(angle) * (1 - decay) / (1 - decay * math.cos(angle))
    return pd * steady * np.exp(-te / t2_star)


def shortened_t2(t2: Value, rate: float) -> Value:
    """1/T2* = 1/T2 + R2': a gradient echo decays faster where the field is uneven."""
    shortened: Any = 1 / (1 / t2 + rate)
    return shortened


def double_nulling_times(first_t1: float, second_t1: float, tr: float) -> tuple[float, float]:
    """TI₁ and TI₂ at which a double inversion leaves no signal of two T1, `first_t1` the shorter.

    The shorter one's null gives TI₁ + TI₂ for each TI₂; along it the longer one's signal changes
    its sign once.
    """

    def total(second_ti: float) -> float:
        left = (math.exp(-tr / first_t1) + 2 * math.exp(-second_ti / first_t1) - 1) / 2
        return -first_t1 * math.log(left)

    def signal(second_ti: float) -> float:
        ti = total(second_ti) - second_ti
        return double_inversion_recovery(1.0, second_t1, 1.0, tr, 0.0, ti, second_ti)

    latest = nulling_time(first_t1, tr)  # there TI₁ + TI₂ is all of TR
    second_ti = brentq(signal, 0.0, latest * (1 - 1e-9))
    return total(second_ti) - second_ti, second_ti
