"""Adapted networks: maps of other subjects' windows, fitted and applied as by hand."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES

from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import AVERAGE, FULL
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.adapted import AdaptedSynthesizer, MappedSynthesizer, references_by_site
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of, map_terms, slab_moments
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.polynomials import Moments, products
from tsf_seq2seq.synthesis.synthesizers import NetworkSynthesizer
from tsf_seq2seq.synthesis.windows import SubjectWindow, load_window
from tsf_seq2seq.tasks import Task

ONE, TWO = Task((2,), 0), Task((0, 2), 3)  # t2 → t1, t1+t2 → flair
LINEAR = (0.1, 0.2, 0.0, 0.5, *(0.0,) * 6)  # 0.1 + 0.2 t1 + 0.5 f
MADE = Adaptation((), {"t1+t2:flair": ContrastMap(LINEAR, (0.0,) * 100, True, 1.0)}, {})


@pytest.fixture
def config(tiny_config: Path, two_sites: Path) -> Config:
    return load_config(tiny_config)


@pytest.fixture
def subjects(config: Config) -> list[Subject]:
    return find_subjects(config.data, config.data.test)


@pytest.fixture
def plain(config: Config) -> NetworkSynthesizer:
    return NetworkSynthesizer("net", build_network(config), [FULL], 5)


@pytest.fixture
def single(tiny_stage1: Path, two_sites: Path) -> NetworkSynthesizer:
    """A Seq2Seq's whole network, which takes one source."""
    return NetworkSynthesizer("single", build_network(load_config(tiny_stage1)), [FULL], 5)


def adapted(plain, config: Config, counts, references: Sequence[Subject], **options):
    """The first subject's references are the same as everyone's."""
    return AdaptedSynthesizer(plain, config, counts, lambda _: references, **options)


def images_of(window: SubjectWindow, plain: NetworkSynthesizer, task: Task) -> list[np.ndarray]:
    """The window's variables of a map: sources, and the network's output where there is one."""
    outputs = plain.predict(window, [task])
    return [*window.centres[list(task.sources)], *outputs.values()]


def moments_of(config, plain, subject: Subject, task: Task, uses_output=True) -> list[Moments]:
    window = load_window(config, subject)
    sources, target = window.centres[list(task.sources)], window.centres[task.target]
    output = plain.predict(window, [task])[plain.names[0], task] if uses_output else None
    return slab_moments(sources, output, target, brain_of(sources))


def polynomial(images: Sequence[np.ndarray], coefficients, n_sources: int) -> np.ndarray:
    """β · φ of images (Z, Y, X), clipped; −1 where no source is above it."""
    values = np.asarray(images, dtype=np.float64)
    terms = products(values, map_terms(len(values)))
    image = np.tensordot(coefficients, terms, 1).clip(-1, 1)
    image[~(values[:n_sources] > -1).any(axis=0)] = -1
    return image


def least_squares(config, plain, references, task: Task, chosen: Callable) -> np.ndarray:
    """By lstsq of the target on the chosen terms, over the brains of all references; 0 elsewhere.

    `chosen` says by a term's factors whether it counts.
    """
    designs, targets = [], []
    for subject in references:
        window = load_window(config, subject)
        images = np.asarray(images_of(window, plain, task), dtype=np.float64)
        brain = (images[: len(task.sources)] > -1).any(axis=0)
        designs.append(products(images[:, brain], map_terms(len(images))))
        targets.append(window.centres[task.target][brain])
    design, terms = np.concatenate(designs, axis=1), map_terms(len(task.sources) + len(plain.names))
    rows, found = [i for i, term in enumerate(terms) if chosen(term)], np.zeros(len(terms))
    found[rows] = np.linalg.lstsq(design[rows].T, np.concatenate(targets), rcond=None)[0]
    return found


# --- the adapted network


def test_names(plain, config):
    one = adapted(plain, config, [0, 1, 4], [])
    assert one.names == ["net", "net + 0", "net + 1", "net + 4"]
    one.beside = True
    rivals = ("net, gain and offset + {}", "quadratic_regression + {}")
    assert one.names == [
        *("net", "net + 0", "net + 1", "net + 4", "net, background set"),
        *(rival.format(n) for n in (1, 4) for rival in rivals),
    ]


def test_n_references_give_the_map_that_is_fitted_on_them(plain, config, subjects):
    """As `fit_map` fits the first n windows; the subject's image by the formula."""
    tested, *references = subjects[:3]
    window = load_window(config, tested)
    outputs = adapted(plain, config, [1, 2], references).predict(window, [ONE, TWO])
    assert set(outputs) == {(m, t) for m in ("net", "net + 1", "net + 2") for t in (ONE, TWO)}
    alone = plain.predict(window, [ONE, TWO])
    for task in (ONE, TWO):
        np.testing.assert_array_equal(outputs["net", task], alone["net", task])
        images = images_of(window, plain, task)
        found = []
        for n in (1, 2):
            slabs = {s.name: moments_of(config, plain, s, task) for s in references[:n]}
            fitted = fit_map(slabs, uses_output=True)
            wanted = polynomial(images, fitted.coefficients, len(task.sources))
            found.append(outputs[f"net + {n}", task])
            np.testing.assert_allclose(found[-1], wanted, atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 0.01


def test_no_references_give_the_prior(plain, config, subjects):
    """Of the task that it has a map for; of another the network's output, with its background."""
    window = load_window(config, subjects[0])
    one = adapted(plain, config, [0], [], prior=MADE)
    outputs = one.predict(window, [ONE, TWO])
    (first, second, output) = images_of(window, plain, TWO)
    wanted = (0.1 + 0.2 * first + 0.5 * output).clip(-1, 1)
    wanted[np.maximum(first, second) <= -1] = -1
    np.testing.assert_allclose(outputs["net + 0", TWO], wanted, atol=1e-6)
    source, output = images_of(window, plain, ONE)
    np.testing.assert_array_equal(outputs["net + 0", ONE], np.where(source > -1, output, -1))
    assert (outputs["net + 0", ONE] != output).any()


def test_maps_are_shrunk_towards_the_prior(plain, config, subjects):
    window, references = load_window(config, subjects[0]), subjects[1:2]
    known = fit_map({"v": moments_of(config, plain, subjects[4], TWO)}, uses_output=True)
    prior = Adaptation((), {"t1+t2:flair": known}, {})
    own = {"r": moments_of(config, plain, references[0], TWO)}
    fitted = fit_map(own, True, known.prior)
    assert fitted.strength != fit_map(own, True).strength
    outputs = adapted(plain, config, [0, 1], references, prior=prior).predict(window, [TWO])
    images = images_of(window, plain, TWO)
    for n, one in enumerate((known, fitted)):
        wanted = polynomial(images, one.coefficients, 2)
        np.testing.assert_allclose(outputs[f"net + {n}", TWO], wanted, atol=1e-5)


def test_what_else_the_references_give(plain, config, subjects):
    """Gain and offset, and the quadratic regression, by numpy's least squares."""
    window, references = load_window(config, subjects[0]), subjects[1:3]
    one = adapted(plain, config, [0, 1, 2], references, prior=MADE, beside=True)
    outputs = one.predict(window, [TWO])
    assert {method for method, _ in outputs} == set(one.names)
    images = images_of(window, plain, TWO)
    background = outputs["net, background set", TWO]
    np.testing.assert_array_equal(background, polynomial(images, [0, 0, 0, 1, *(0,) * 6], 2))
    choices = {
        "net, gain and offset": lambda term: term in ((), (2,)),
        "quadratic_regression": lambda term: 2 not in term,
    }
    for name, chosen in choices.items():
        for n in (1, 2):
            beta = least_squares(config, plain, references[:n], TWO, chosen)
            found = outputs[f"{name} + {n}", TWO]
            np.testing.assert_allclose(found, polynomial(images, beta, 2), atol=1e-4)


def test_a_reference_is_put_through_the_network_once(plain, config, subjects, monkeypatch):
    looked, real = [], NetworkSynthesizer.predict

    def predict(self, loaded, tasks):
        looked.append((loaded.volumes.subject.name, tuple(tasks)))
        return real(self, loaded, tasks)

    monkeypatch.setattr(NetworkSynthesizer, "predict", predict)
    one = adapted(plain, config, [0, 1, 2], subjects[2:5])
    a, b = (load_window(config, subject) for subject in subjects[:2])
    first = one.predict(a, [ONE])
    one.predict(b, [ONE])
    assert looked == [
        *((f"Tiny_0000{number}", (ONE,)) for number in (0, 2, 3)),  # the third isn't needed
        ("Tiny_00001", (ONE,)),
    ]
    looked.clear()
    again = one.predict(a, [ONE, TWO])
    assert looked == [
        ("Tiny_00000", (ONE, TWO)),
        *((f"Tiny_0000{number}", (TWO,)) for number in (2, 3)),
    ]
    for key, output in first.items():
        np.testing.assert_allclose(again[key], output, atol=1e-5)


def test_what_the_network_cannot_do_is_made_of_the_sources_alone(single, config, subjects):
    """Without the network's output there is no gain, and nothing that a prior of it could map."""
    window, references = load_window(config, subjects[0]), subjects[1:3]
    one = adapted(single, config, [0, 2], references, prior=MADE, beside=True)
    outputs = one.predict(window, [TWO])
    assert set(outputs) == {("single + 2", TWO), ("quadratic_regression + 2", TWO)}
    own = {s.name: moments_of(config, single, s, TWO, uses_output=False) for s in references}
    fitted, images = fit_map(own, uses_output=False), window.centres[[0, 2]]
    for output in outputs.values():
        np.testing.assert_allclose(output, polynomial(images, fitted.coefficients, 2), atol=1e-5)
    rows = {method for method, _ in one.predict(window, [ONE])}
    assert rows == set(one.names)


def test_the_average_of_single_sources_is_adapted(single, config, subjects):
    plain = NetworkSynthesizer("single", single.network, [AVERAGE], 5)
    window, references = load_window(config, subjects[0]), subjects[1:2]
    outputs = adapted(plain, config, [1], references).predict(window, [TWO])
    own = {"r": moments_of(config, plain, references[0], TWO)}
    fitted = fit_map(own, uses_output=True)
    images = [*window.centres[[0, 2]], outputs["single_average", TWO]]
    wanted = polynomial(images, fitted.coefficients, 2)
    np.testing.assert_allclose(outputs["single_average + 1", TWO], wanted, atol=1e-5)


# --- an adapted checkpoint's own maps


def test_maps_of_a_checkpoint_take_the_outputs_place(plain, config, subjects):
    """Where it has one of the task; other methods, and other tasks, stay the network's."""
    plain = NetworkSynthesizer("net", plain.network, [FULL, "without_attention"], 5)
    window = load_window(config, subjects[0])
    one = MappedSynthesizer(plain, MADE, SEQUENCES)
    assert one.names == ["net", "net_without_attention"]
    outputs, before = one.predict(window, [ONE, TWO]), plain.predict(window, [ONE, TWO])
    assert outputs.keys() == before.keys()
    images = [*window.centres[[0, 2]], before["net", TWO]]
    wanted = polynomial(images, LINEAR, 2)
    np.testing.assert_allclose(outputs.pop(("net", TWO)), wanted, atol=1e-6)
    for key, output in outputs.items():
        np.testing.assert_array_equal(output, before[key])


def test_the_network_without_its_map_is_a_method_beside(plain, config, subjects):
    window = load_window(config, subjects[0])
    one = MappedSynthesizer(plain, MADE, SEQUENCES, beside=True)
    assert one.names == ["net", "net_without_map"]
    outputs, before = one.predict(window, [TWO]), plain.predict(window, [TWO])
    assert list(outputs) == [("net", TWO), ("net_without_map", TWO)]
    np.testing.assert_array_equal(outputs["net_without_map", TWO], before["net", TWO])
    assert (outputs["net", TWO] != before["net", TWO]).any()


def test_a_map_of_the_sources_alone_needs_no_output(single, config, subjects):
    known = np.array([0.1, 0.4, 0.3, 0.0, 0.2, 0.0])
    maps = {"t1+t2:flair": ContrastMap(tuple(known), (0.0,) * 36, False, 1.0)}
    window = load_window(config, subjects[0])
    outputs = MappedSynthesizer(single, Adaptation((), maps, {}), SEQUENCES).predict(window, [TWO])
    wanted = polynomial(window.centres[[0, 2]], known, 2)
    np.testing.assert_allclose(outputs["single", TWO], wanted, atol=1e-6)
    assert MappedSynthesizer(single, MADE, SEQUENCES).predict(window, [TWO]) == {}


# --- who serves as reference


def crowd(*sites: str | None) -> list[Subject]:
    """Complete subjects s0, s1, … of these sites."""
    files = dict.fromkeys(range(4), Path("x"))
    return [Subject(f"s{i}", (0,), files, site=site) for i, site in enumerate(sites)]


def chosen_names(pool, subjects, number: int, seed: int = 0) -> dict[str, list[str]]:
    found = references_by_site(pool, subjects, number, 4, seed)
    return {name: [one.name for one in own] for name, own in found.items()}


def test_references_are_other_complete_subjects_of_the_site():
    pool = crowd(*"aabbabaa")
    incomplete = Subject("s8", (0,), {0: Path("x"), 1: Path("x"), 3: Path("x")}, site="a")
    found = chosen_names([*pool, incomplete], [*pool[:3], incomplete], 2)
    assert list(found) == ["s0", "s1", "s2", "s8"]
    of_a = {"s0", "s1", "s4", "s6", "s7"}
    for name in ("s0", "s1", "s8"):
        assert set(found[name]) <= of_a - {name}
        assert len(set(found[name])) == 2
    assert set(found["s2"]) == {"s3", "s5"}
    every = chosen_names([*pool, incomplete], [incomplete], 5)
    assert set(every["s8"]) == of_a
    assert set(chosen_names([*pool, incomplete], pool[:1], 4)["s0"]) == of_a - {"s0"}
    with pytest.raises(UserError, match="its site a has 4 other subjects with all sequences, but"):
        chosen_names([*pool, incomplete], pool[:1], 5)


def test_fewer_references_are_the_first_of_more():
    pool = crowd(*"a" * 12)
    drawn = [chosen_names(pool, pool, number) for number in range(12)]
    for fewer, more in pairwise(drawn):
        assert all(more[name][:-1] == fewer[name] for name in more)


def test_references_depend_on_seed_and_name_alone():
    pool = crowd(*"a" * 12)
    found = chosen_names(pool, pool, 4)
    assert chosen_names(pool[::-1], pool[:2], 4) == {name: found[name] for name in ("s0", "s1")}
    assert chosen_names(pool, pool, 4, seed=1) != found
    orders = [tuple(own) for own in chosen_names(pool, pool, 11).values()]
    assert len(set(orders)) == 12


@pytest.mark.parametrize(
    ("site", "number", "message"),
    [
        (
            None,
            1,
            "subject s3 has no site: adaptation to others of its site needs the split file's third "
            "column",
        ),
        (
            "a",
            4,
            "subject s3: its site a has 3 other subjects with all sequences, but 4 are asked for",
        ),
        (
            "c",
            1,
            "subject s3: its site c has 0 other subjects with all sequences, but 1 are asked for",
        ),
    ],
)
def test_too_few_references(site, number, message):
    pool = crowd("a", "a", "a", site, "b")
    with pytest.raises(UserError) as error:
        references_by_site(pool, pool[3:], number, 4, 0)
    assert str(error.value) == message
