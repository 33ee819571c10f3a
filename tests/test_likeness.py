"""Whether references are like a subject: quantiles by hand, and what says how much is usual."""

import numpy as np
import pytest

from tsf_seq2seq.synthesis.likeness import (
    QUANTILE_LEVELS,
    Difference,
    Histogram,
    differences,
    distance,
    histogram,
    usual_distance,
)

OF_A_SITE = "90 % of the pairs of one site in training"
OF_ANY = "median of the pairs in training, of any scanners"
AMONG_REFERENCES = "the farthest two references"


def shape(name: str, site: str | None = None, **levels: float) -> Histogram:
    """A subject each of whose sequences is of one intensity: distances are differences of these."""
    quantiles = {sequence: (level,) * 19 for sequence, level in levels.items()}
    return Histogram(name, quantiles, site)


def test_quantiles_of_the_brain_by_hand():
    """Of 21 intensities 0, 0.01, … 0.2 the quantiles at 5 %, 10 %, … 95 % are 0.01, … 0.19."""
    brain = np.linspace(0, 0.2, 21)
    image = np.full((4, 5, 6), -1.0)
    image.flat[:105:5] = brain[::-1]
    found = histogram("a", {"t1": image, "t2": image + 0.5 * (image > -1)}, "site")
    assert (found.name, found.site) == ("a", "site")
    np.testing.assert_allclose(QUANTILE_LEVELS, np.arange(1, 20) / 20)
    np.testing.assert_allclose(found.quantiles["t1"], np.arange(1, 20) / 100, atol=1e-12)
    np.testing.assert_allclose(found.quantiles["t2"], np.arange(1, 20) / 100 + 0.5, atol=1e-12)


def test_quantiles_know_neither_place_nor_background():
    rng = np.random.default_rng(0)
    brain = rng.uniform(-0.9, 0.9, 60)
    wide, flat = np.full((3, 10, 10), -1.0), np.full((1, 8, 9), -1.0)
    np.put(wide, rng.permutation(300)[:60], brain)
    np.put(flat, rng.permutation(72)[:60], brain)
    assert histogram("a", {"t1": wide}) == histogram("a", {"t1": flat})


def test_a_sequence_without_a_brain_is_left_out():
    images = {"t1": np.full((2, 3, 3), -1.0), "t2": np.zeros((2, 3, 3))}
    assert histogram("a", images).quantiles == {"t2": (0.0,) * 19}


def test_distance_by_hand():
    """Quantiles of which ten differ by 0.38, nine by −0.19: (3.8 + 1.71) / 19 = 0.29."""
    a = Histogram("a", {"t1": (0.0,) * 19, "t2": (0.0,) * 19})
    b = Histogram("b", {"t1": (0.38,) * 10 + (-0.19,) * 9, "t2": (1.0,) * 19})
    assert distance(a, b, "t1") == distance(b, a, "t1") == pytest.approx(0.29)
    assert distance(a, b, "t2") == 1


def test_usual_is_what_subjects_of_one_site_are():
    """Of site x, three subjects at 0, 1, 4, with distances 1, 3, 4; of y two, with 0.5; of z one,
    far away; two tell no site, and make no pair. 90 % of 0.5, 1, 3, 4: between 3 and 4, at 3.7."""
    training = [
        *(shape(f"x{level}", "x", t1=level) for level in (0.0, 1.0, 4.0)),
        *(shape(f"y{level}", "y", t1=level) for level in (9.0, 9.5)),
        shape("z", "z", t1=50.0),
        *(shape(f"?{level}", None, t1=level) for level in (70.0, 90.0)),
    ]
    found, of = usual_distance("t1", [shape(name, t1=0.0) for name in "abc"], training)
    assert found == pytest.approx(3.7)
    assert of == OF_A_SITE


@pytest.mark.parametrize("sites", [(None, None, None, None), ("a", "b", "c", None)])
def test_usual_without_two_of_a_site_is_the_median(sites):
    """Subjects at 0, 1, 3, 8: distances 1, 2, 3, 5, 7, 8 with the median 4."""
    levels = (0.0, 1.0, 3.0, 8.0)
    training = [shape(f"s{v}", site, t1=v) for v, site in zip(levels, sites, strict=True)]
    references = [shape(f"r{v}", t1=v) for v in (0.0, 0.0, 9.0)]
    assert usual_distance("t1", references, training) == (4, OF_ANY)


def test_only_training_subjects_that_have_the_sequence_count():
    """The site's two have t2 alone; of t1 three others tell, at 0, 1, 5: 1, 4, 5."""
    training = [shape(f"x{i}", "x", t2=float(i)) for i in range(2)]
    training += [shape(f"s{v}", t1=v) for v in (0.0, 1.0, 5.0)]
    assert usual_distance("t1", [], training) == (4, OF_ANY)
    assert usual_distance("t2", [], training) == (1, OF_A_SITE)


@pytest.mark.parametrize("n_training", [0, 2])
def test_usual_of_three_references_is_their_largest_distance(n_training):
    """Two training subjects of unknown sites are too few for a median."""
    training = [shape(f"s{i}", t1=float(i)) for i in range(n_training)]
    references = [shape(f"r{v}", t1=v) for v in (0.0, 0.25, 1.0)]
    assert usual_distance("t1", references, training) == (1, AMONG_REFERENCES)
    assert usual_distance("t1", references[:2], training) == (None, "nothing to compare with")


def test_the_farthest_reference_counts():
    """Those at 0.1, 0.3 and −0.4 of a subject at 0: 0.4, of usually 0.7."""
    references = [shape(f"r{v}", t1=v) for v in (0.1, 0.3, -0.4)]
    (found,) = differences(shape("s", t1=0.0), references)
    assert (found.sequence, found.reference) == ("t1", "r-0.4")
    assert found.distance == pytest.approx(0.4)
    assert found.usual == pytest.approx(0.7)
    assert found.of == AMONG_REFERENCES
    assert found.is_alike
    (found,) = differences(shape("s", t1=0.5), references)
    assert found.distance == pytest.approx(0.9)
    assert not found.is_alike


def test_sequences_that_a_reference_lacks():
    """Only the other one is compared in them; what no reference has isn't compared at all."""
    references = [shape("far", t1=1.0), shape("near", t1=0.1, t2=0.2)]
    found = differences(shape("s", t1=0.0, t2=0.0, flair=0.0), references)
    assert [(f.sequence, f.reference, f.distance) for f in found] == [
        ("t1", "far", 1.0),
        ("t2", "near", pytest.approx(0.2)),
    ]
    assert differences(shape("s", pd=0.0), references) == []


def test_the_training_subjects_are_asked_first():
    training = [shape(f"x{i}", "x", t1=0.1 * i) for i in range(2)]
    references = [shape(f"r{v}", t1=v) for v in (0.0, 0.5, 1.0)]
    (found,) = differences(shape("s", t1=0.5), references, training)
    assert (found.usual, found.of) == (pytest.approx(0.1), OF_A_SITE)
    assert not found.is_alike


def test_alike_up_to_what_is_usual():
    assert Difference("t1", "r", 0.25, 0.25, OF_ANY).is_alike
    assert not Difference("t1", "r", 0.2501, 0.25, OF_ANY).is_alike
    assert Difference("t1", "r", 2.0, None, "nothing to compare with").is_alike


def test_the_warning_names_all():
    assert Difference("t1ce", "sub-7", 0.4567, 0.1234, OF_A_SITE).text() == (
        "t1ce differs from that of reference sub-7 by 0.457 (mean difference of brain quantiles, "
        "range 2), more than the usual 0.123 (90 % of the pairs of one site in training): a "
        "reference of another scanner or protocol makes the synthesis worse"
    )
