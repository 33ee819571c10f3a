"""Contrast maps: recovered by hand, shrunk by the formula, the same in any order."""

import numpy as np
import pytest
from conftest import made_window

from tsf_seq2seq.synthesis.adapted import task_moments
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of, map_terms, slab_moments
from tsf_seq2seq.synthesis.map_fits import (
    STRENGTHS,
    choose_strength,
    fit_map,
    gain_and_offset,
    identity_map,
    regression_map,
)
from tsf_seq2seq.synthesis.polynomials import Moments, Prior, products, sum_of
from tsf_seq2seq.tasks import Task

SHAPE = (6, 8, 7)
# of 1, a, b, f, aa, ab, af, bb, bf, ff
KNOWN = np.array([0.05, 0.2, -0.1, 0.4, 0.1, -0.2, 0.15, 0.05, 0.1, -0.3])


def made(seed: int, known: np.ndarray = KNOWN, noise: float = 0.0) -> tuple[np.ndarray, ...]:
    """Sources (2, Z, Y, X), a network's output and a target that `known` makes of them."""
    rng = np.random.default_rng(seed)
    sources = rng.uniform(-0.8, 0.8, (2, *SHAPE)).astype(np.float32)
    output = rng.uniform(-0.8, 0.8, SHAPE).astype(np.float32)
    images = np.stack([*sources, output]).reshape(3, -1).astype(np.float64)
    target = (known @ products(images, map_terms(3))).reshape(SHAPE)
    return sources, output, (target + noise * rng.standard_normal(SHAPE)).astype(np.float32)


def moments(seed: int, known: np.ndarray = KNOWN, noise: float = 0.0) -> list[Moments]:
    sources, output, target = made(seed, known, noise)
    return slab_moments(sources, output, target, brain_of(sources))


def test_terms_in_their_order():
    assert map_terms(2) == [(), (0,), (1,), (0, 0), (0, 1), (1, 1)]
    assert len(map_terms(4)) == 15


def test_a_known_quadratic_map_is_recovered_exactly():
    """From one reference and from two; on another subject the map gives its target."""
    for references in ({"a": moments(0)}, {"a": moments(0), "b": moments(1)}):
        found = fit_map(references, uses_output=True)
        np.testing.assert_allclose(found.coefficients, KNOWN, atol=1e-6)
        assert found.strength == 0
        sources, output, target = made(2)
        np.testing.assert_allclose(found(sources, output, brain_of(sources)), target, atol=1e-6)


def test_one_voxel_tells_nothing():
    sources, output, target = made(0)
    brain = np.zeros(SHAPE, bool)
    brain[2, 3, 4] = True
    found = fit_map({"a": slab_moments(sources, output, target, brain)}, uses_output=True)
    assert found.strength is None
    assert found.gain_db is None
    assert found.coefficients == identity_map(3).coefficients
    image = found(sources, output, np.ones(SHAPE, bool))
    np.testing.assert_array_equal(image, output)


@pytest.mark.parametrize("strength", [0.25, 1.0, 4.0])
def test_the_weight_of_the_references_by_hand(strength):
    """β = β₀ + w (β_LS − β₀), w = g / (g + λ p) along each axis of an orthogonal design."""
    design = np.diag([2.0, 3.0, 1.0])  # g = 4, 9, 1
    target = np.array([2.0, 6.0, -1.0])  # β_LS = 1, 2, −1
    rows = np.concatenate([design, target[np.newaxis]])
    prior = Prior(np.array([0.5, 0.0, 1.0]), np.diag([1.0, 0.5, 2.0]))
    found = Moments(rows @ rows.T).fit(prior, strength)
    weights = np.array([4, 9, 1]) / (np.array([4, 9, 1]) + strength * np.array([1, 0.5, 2]))
    wanted = prior.coefficients + weights * (np.array([1, 2, -1]) - prior.coefficients)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_prior_counts_for_so_many_references():
    """Of two references and their own metric, a prior of strength s weighs s against 2."""
    total = sum_of([*moments(0, noise=0.3), *moments(1, noise=0.3)])
    prior = Prior(np.array(identity_map(3).coefficients), total.metric)
    free = total.fit()
    for strength in (0.5, 2.0):
        found = total.fit(prior, strength * total.voxels / 2)
        wanted = prior.coefficients + 2 / (2 + strength) * (free - prior.coefficients)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_what_no_voxel_tells_stays_at_the_prior():
    """f is the first source here: whether it or the source explains the target can't be told."""
    sources, _, _ = made(0)
    parts = slab_moments(sources, sources[0], 0.5 * sources[0], brain_of(sources))
    total = sum_of(parts)
    prior = Prior(np.array(identity_map(3).coefficients), np.eye(10))
    found = total.fit(prior)
    np.testing.assert_allclose(found[[1, 3]], [-0.25, 0.75], atol=1e-9)  # the least change
    np.testing.assert_allclose(total.error(found), 0, atol=1e-12)


def test_the_strength_is_chosen_on_references_left_out():
    """References that agree are followed; where each says something else, the prior is."""
    agreeing = [sum_of(moments(seed)) for seed in range(3)]
    rng = np.random.default_rng(0)
    differing = [sum_of(moments(seed, KNOWN * rng.normal(0, 9, 10))) for seed in range(3)]
    prior = Prior(np.array(identity_map(3).coefficients), sum_of(agreeing).metric)
    voxels = agreeing[0].voxels
    assert choose_strength(agreeing, prior, voxels)[0] == 0
    strength, error = choose_strength(differing, prior, voxels)
    assert strength > 0
    for other in STRENGTHS:  # by hand: fitted on two, judged on the third
        errors = []
        for index, group in enumerate(differing):
            rest = sum_of([g for i, g in enumerate(differing) if i != index])
            errors.append(group.error(rest.fit(prior, other * voxels if other else 0.0)))
        assert error <= np.mean(errors) * (1 + 1e-9)


def test_slabs_of_an_only_reference_choose_more_carefully():
    """The greatest strength that is worse than the best by less than it varies between slabs."""
    parts, total = moments(0, noise=0.5), sum_of(moments(0, noise=0.5))
    prior = Prior(np.array(identity_map(3).coefficients), total.metric)
    least = choose_strength(parts, prior, total.voxels)
    careful = choose_strength(parts, prior, total.voxels, one_subject=True)
    errors = {}
    for strength in STRENGTHS:
        pull = strength * total.voxels if strength else 0.0
        fits = [Moments(total.gram - part.gram).fit(prior, pull) for part in parts]
        errors[strength] = np.array([p.error(f) for p, f in zip(parts, fits, strict=True)])
    excess = {s: own - errors[least[0]] for s, own in errors.items()}
    allowed = [s for s, own in excess.items() if own.mean() <= own.std(ddof=1) / np.sqrt(8)]
    assert careful[0] == max(allowed) >= least[0]
    assert careful[1] == pytest.approx(errors[careful[0]].mean())
    assert fit_map({"a": parts}, True).strength == careful[0]


def test_the_order_of_references_does_not_count():
    references = {name: moments(seed, noise=0.2) for seed, name in enumerate("abc")}
    turned = {name: references[name] for name in "cab"}
    assert fit_map(references, True) == fit_map(turned, True)


def test_the_gain_is_that_on_slabs_left_out():
    sources, output, target = made(0, noise=0.1)
    parts = slab_moments(sources, output, target, brain_of(sources))
    found = fit_map({"a": parts}, uses_output=True)
    total, errors = sum_of(parts), []
    for part in parts:
        prior = Prior(np.array(identity_map(3).coefficients), total.metric)
        rest = Moments(total.gram - part.gram)
        errors.append(part.error(rest.fit(prior, (found.strength or 0) * total.voxels)))
    plain = np.mean((target - output) ** 2)
    sizes = [part.voxels for part in parts]
    wanted = 10 * np.log10(plain / np.average(errors, weights=sizes))
    assert found.gain_db == pytest.approx(wanted, abs=1e-4)


def test_background_stays_and_values_are_clipped():
    sources, output, _ = made(0)
    sources[:, 0] = -1  # no source is above the background there
    sources[0, 1] = -1  # one is
    brain = brain_of(sources)
    assert not brain[0].any()
    assert brain[1].all()
    bright = ContrastMap((5.0, *(0.0,) * 9), (0.0,) * 100, True, 1.0)
    image = bright(sources, output, brain)
    assert (image[0] == -1).all()
    assert (image[1:] == 1).all()
    assert image.dtype == np.float32


def test_without_a_network_the_map_is_the_quadratic_regression():
    known = np.array([0.05, 0.2, -0.1, 0.1, -0.2, 0.15])
    sources, _, _ = made(0)
    flat = sources.reshape(2, -1).astype(np.float64)
    target = (known @ products(flat, map_terms(2))).reshape(SHAPE).astype(np.float32)
    found = fit_map({"a": slab_moments(sources, None, target, brain_of(sources))}, False)
    np.testing.assert_allclose(found.coefficients, known, atol=1e-6)
    assert (found.strength, found.gain_db) == (0, None)
    np.testing.assert_allclose(found(sources, None, brain_of(sources)), target, atol=1e-6)


def test_what_maps_are_compared_with():
    total = sum_of(moments(0, noise=0.1))
    sources, output, target = made(0, noise=0.1)
    gain = gain_and_offset(total)
    slope, offset = np.polyfit(output.ravel().astype(np.float64), target.ravel(), 1)
    np.testing.assert_allclose(np.array(gain.coefficients)[[0, 3]], [offset, slope], atol=1e-6)
    assert np.count_nonzero(gain.coefficients) == 2
    quadratic = np.array(regression_map(total, uses_output=True).coefficients)
    assert (quadratic[[3, 6, 8, 9]] == 0).all()
    flat = sources.reshape(2, -1).astype(np.float64)
    design = products(flat, map_terms(2))
    wanted = np.linalg.lstsq(design.T, target.ravel().astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(quadratic[[0, 1, 2, 4, 5, 7]], wanted, atol=1e-6)


def test_shares_of_the_variance_by_hand():
    """Independent variables: 0.5 a + f gives 0.25 var(a) and var(f); products are halved."""
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 1.0], (2, 200_000))
    gram = products(values, map_terms(2)) @ products(values, map_terms(2)).T
    metric = tuple((gram / gram[0, 0]).ravel())
    linear = ContrastMap((0.3, 0.5, 1.0, 0.0, 0.0, 0.0), metric, True, 1.0)
    np.testing.assert_allclose(linear.shares(), [0.2, 0.8], atol=0.01)
    crossed = ContrastMap((0.3, 0.0, 0.0, 0.0, 1.0, 0.0), metric, True, 1.0)
    np.testing.assert_allclose(crossed.shares(), [0.5, 0.5], atol=1e-9)
    assert (ContrastMap((1.0, *(0.0,) * 5), metric, True, 1.0).shares() == 0).all()


def test_moments_of_a_task_take_its_sources_brain():
    window = made_window(np.full((3, *SHAPE), -1, np.float32))
    window.images[0, :2], window.images[1, 1:3], window.images[2] = 0.5, 0.25, 0.1
    parts = task_moments(window.images, None, Task((0, 1), 2))
    assert sum_of(parts).voxels == 3 * 8 * 7
    assert sum_of(task_moments(window.images, None, Task((1,), 2))).voxels == 2 * 8 * 7
    assert len(parts) == 8


@pytest.mark.parametrize(("coefficients", "metric"), [((1.0,) * 5, (0.0,) * 25), ((1.0,) * 6, ())])
def test_maps_of_wrong_sizes_are_refused(coefficients, metric):
    with pytest.raises(ValueError, match=r"coefficients|metric"):
        ContrastMap(coefficients, metric, True, 1.0)
