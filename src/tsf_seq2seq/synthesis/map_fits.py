"""Fits of contrast maps: shrunk least squares, and what they are to be compared with."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tsf_seq2seq.synthesis.contrast_map import ContrastMap, map_terms, n_variables_of
from tsf_seq2seq.synthesis.polynomials import Moments, Prior, Term, sum_of

# How many references the prior counts for: what is tried. Infinite: the references count for none.
STRENGTHS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)


def fit_map(
    references: Mapping[str, Sequence[Moments]], uses_output: bool, prior: Prior | None = None
) -> ContrastMap:
    """The map of references (name → moments of its slabs), whatever their order.

    Shrunk towards the `prior`, else towards output = f (without f, towards nothing). How strongly:
    as gives the least error on references left out, one by one, or on slabs of an only one.
    """
    slabs = [references[name] for name in sorted(references)]
    total = sum_of([part for own in slabs for part in own])
    if prior is None and uses_output:  # the references' own voxels say what a change matters
        prior = Prior(_of_output_alone(total), total.metric)
    groups = [sum_of(own) for own in slabs] if len(slabs) > 1 else slabs[0]
    strength, gain = 0.0, None
    if prior is not None:
        voxels = total.voxels / len(slabs)
        strength, error = choose_strength(groups, prior, voxels, len(slabs) == 1)
        gain = _gain_db(groups, error) if uses_output else None
    coefficients = total.fit(prior, _voxels(strength, total.voxels / len(slabs)))
    return ContrastMap(
        tuple(coefficients.tolist()),
        tuple(total.metric.ravel().tolist()),
        uses_output,
        total.voxels,
        float(strength) if np.isfinite(strength) else None,
        gain,
    )


def choose_strength(
    groups: Sequence[Moments], prior: Prior, voxels_of_reference: float, one_subject: bool = False
) -> tuple[float, float]:
    """The strength (in references) of the least mean squared error on groups left out, and its
    error; of equal ones the greatest.

    Groups of `one_subject` are more alike than subjects are: of them, the greatest strength whose
    error exceeds the least by no more than the standard error of the difference. A group of fewer
    voxels than there are coefficients judges nothing; infinite where fewer than two are left.
    """
    groups = [group for group in groups if group.voxels >= len(prior.coefficients)]
    if len(groups) < 2:
        return np.inf, np.nan
    total, errors = sum_of(groups).gram, np.empty((len(STRENGTHS), len(groups)))
    for row, strength in enumerate(STRENGTHS):
        for column, group in enumerate(groups):
            rest = Moments(total - group.gram)
            found = rest.fit(prior, _voxels(strength, voxels_of_reference))
            errors[row, column] = group.error(found)
    means = np.average(errors, axis=1, weights=[group.voxels for group in groups])
    best = len(means) - 1 - int(np.argmin(means[::-1]))
    if one_subject:
        differences = errors - errors[best]
        tolerated = differences.std(axis=1, ddof=1) / np.sqrt(len(groups))
        best = int(np.flatnonzero(means - means[best] <= tolerated)[-1])
    return STRENGTHS[best], float(means[best])


def _voxels(strength: float, voxels_of_reference: float) -> float:
    """λ: in voxels what `strength` says in references."""
    return strength * voxels_of_reference if np.isfinite(strength) else np.inf


def _gain_db(groups: Sequence[Moments], error: float) -> float | None:
    """10 log₁₀ of the mean squared error of output = f over `error`; None where either is none."""
    plain = sum_of(groups)
    before = plain.error(_of_output_alone(plain))
    return float(10 * np.log10(before / error)) if error > 0 and before > 0 else None


def _of_output_alone(moments: Moments) -> np.ndarray:
    """Coefficients of output = f."""
    return np.array(identity_map(n_variables_of(len(moments.gram) - 1)).coefficients)


def identity_map(n_variables: int) -> ContrastMap:
    """Output = f, the last variable, with the background set and values clipped as by any map."""
    terms = map_terms(n_variables)
    coefficients = tuple(float(term == (n_variables - 1,)) for term in terms)
    return ContrastMap(coefficients, tuple(np.eye(len(terms)).ravel().tolist()), True, 0.0)


def gain_and_offset(moments: Moments) -> ContrastMap:
    """Least squares of the target on [1, f]."""
    last = n_variables_of(len(moments.gram) - 1) - 1
    return _fit_terms(moments, True, lambda term: term in ((), (last,)))


def regression_map(moments: Moments, uses_output: bool) -> ContrastMap:
    """Least squares of the target on the sources and their products alone."""
    last = n_variables_of(len(moments.gram) - 1) - 1
    return _fit_terms(moments, uses_output, lambda term: not (uses_output and last in term))


def _fit_terms(moments: Moments, uses_output: bool, chosen: Callable[[Term], bool]) -> ContrastMap:
    """The map of least squares whose other coefficients are 0."""
    terms = map_terms(n_variables_of(len(moments.gram) - 1))
    rows = [row for row, term in enumerate(terms) if chosen(term)]
    coefficients = np.zeros(len(terms))
    coefficients[rows] = moments.of(rows).fit()
    metric = tuple(moments.metric.ravel().tolist())
    return ContrastMap(tuple(coefficients.tolist()), metric, uses_output, moments.voxels)
