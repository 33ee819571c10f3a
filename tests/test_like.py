"""Imputation adapted to references: the map as by hand, in their intensities, and what is told."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import LPS_AFFINE, SEQUENCES, TINY_SHAPE, blob, sequence_file
from test_impute import OBLIQUE, turned

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import Model, open_model, save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.files.fingerprint import fingerprint
from tsf_seq2seq.imputation import Imputation, impute_targets, references
from tsf_seq2seq.imputation.references import References
from tsf_seq2seq.imputation.slices import synthesize_grid
from tsf_seq2seq.imputation.sources import load_sources
from tsf_seq2seq.models import build_network
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, map_terms, slab_moments
from tsf_seq2seq.synthesis.likeness import Histogram
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.polynomials import products

Images = Mapping[str, object]
T1_T2 = ("t1", "t2")


@pytest.fixture
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


def files_of(root: Path, number: int, *names: str) -> dict[str, Path]:
    return {name: sequence_file(root, number, name) for name in names or SEQUENCES}


def images_of(number: int, affine: np.ndarray = LPS_AFFINE) -> dict[str, nib.Nifti1Image]:
    """The tiny data set's subject as images, which have no files."""
    return {
        name: nib.Nifti1Image(blob(10 * number + index), affine)
        for index, name in enumerate(SEQUENCES)
    }


def seen(model: Model, given: Images, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Sources (n, Z, Y, X) in the sequences' order, and the network's output from them."""
    sources = load_sources(given)
    task = model.task(given, target)
    slices, _ = synthesize_grid(model, sources, [task], "fp32", 4)
    stack = [sources.images[name] for name in SEQUENCES if name in sources.images]
    return np.stack(stack), slices[task].image


def fit_by_hand(
    model: Model, subjects: list[Images], sources: tuple[str, ...], target: str, **prior
) -> ContrastMap:
    """The map of references: least squares over the voxels of their sources' brains."""
    moments = {}
    for number, given in enumerate(subjects):
        stack, output = seen(model, {name: given[name] for name in sources}, target)
        wanted = load_sources({target: given[target]}).images[target]
        moments[str(number)] = slab_moments(stack, output, wanted, (stack > -1).any(axis=0))
    return fit_map(moments, True, **prior)


def mapped(model: Model, fitted: ContrastMap, given: Images, target: str) -> np.ndarray:
    """What a map makes of a subject, (x, y, z) in [-1, 1]; nan outside the brain."""
    stack, output = seen(model, given, target)
    variables = np.array([*stack, output], dtype=np.float64)
    terms = products(variables, map_terms(len(variables)))
    image = np.tensordot(fitted.coefficients, terms, 1).clip(-1, 1)
    return np.where((stack > -1).any(axis=0), image, np.nan).T


def check_image(found: Imputation, wanted: np.ndarray, maximum: float) -> None:
    """The image is (wanted + 1) / 2 · maximum in the brain, and exactly 0 outside."""
    voxels, inside = found.image.get_fdata(), np.isfinite(wanted)
    assert found.intensity_maximum == pytest.approx(maximum)
    assert 0 < inside.mean() < 1
    assert (voxels[~inside] == 0).all()
    scaled = (wanted[inside] + 1) / 2 * maximum
    np.testing.assert_allclose(voxels[inside], scaled, atol=1e-4 * maximum)


def maxima_of(numbers: tuple[int, ...], sequence: str) -> list[float]:
    index = SEQUENCES.index(sequence)
    return [2 * np.percentile(blob(10 * number + index), 99) for number in numbers]


# --- what it is


@pytest.mark.parametrize("kind", ["folders", "data set", "files", "paths", "images"])
def test_the_map_of_two_references_as_by_hand(model, tiny_dataset, tmp_path, kind):
    """However they are given; intensities are those of their median."""
    folders = [tiny_dataset / f"Tiny_0000{number}" for number in (1, 2)]
    data_set = tmp_path / "scanner"
    if kind == "data set":
        data_set.mkdir()
        for folder in folders:
            folder.rename(data_set / folder.name)
    given = {
        "folders": folders,
        "data set": [str(data_set)],
        "files": [file for n in (1, 2) for file in files_of(tiny_dataset, n).values()],
        "paths": [files_of(tiny_dataset, 1), files_of(tiny_dataset, 2)],
        "images": [images_of(1), images_of(2)],
    }
    subject = files_of(tiny_dataset, 0, *T1_T2)
    found = impute(subject, model, "flair", like=given[kind])
    fitted = fit_by_hand(model, [images_of(1), images_of(2)], T1_T2, "flair")
    median = np.mean(maxima_of((1, 2), "flair"))
    check_image(found, mapped(model, fitted, subject, "flair"), median)
    assert found.intensity_scale == "median of flair in the references"
    assert found.adapted is not None
    np.testing.assert_allclose(found.adapted.fitted.coefficients, fitted.coefficients, atol=1e-9)
    numbered = kind in ("paths", "images")
    names = ["1", "2"] if numbered else ["Tiny_00001", "Tiny_00002"]
    assert list(found.adapted.references) == names
    root = data_set if kind == "data set" else tiny_dataset
    for number, prints in zip((1, 2), found.adapted.references.values(), strict=True):
        files = {} if kind == "images" else files_of(root, number)
        assert prints == {name: fingerprint(path) for name, path in files.items()}


def test_one_reference_needs_no_list(model, tiny_dataset):
    subject, folder = files_of(tiny_dataset, 0, *T1_T2), tiny_dataset / "Tiny_00001"
    wanted = impute(subject, model, "flair", like=[folder]).image.get_fdata()
    for like in (folder, str(folder), files_of(tiny_dataset, 1)):
        found = impute(subject, model, "flair", like=like).image.get_fdata()
        np.testing.assert_array_equal(found, wanted)


def test_tsem_and_fusion_weights_stay_the_networks(model, tiny_dataset):
    subject = files_of(tiny_dataset, 0, *T1_T2)
    plain = impute(subject, model, "flair")
    found = impute(subject, model, "flair", like=[tiny_dataset / "Tiny_00001"])
    assert plain.adapted is None
    assert np.abs(plain.image.get_fdata() - found.image.get_fdata()).max() > 10
    np.testing.assert_array_equal(plain.tsem.get_fdata(), found.tsem.get_fdata())
    assert (plain.mean_tsem, plain.fusion_weights) == (found.mean_tsem, found.fusion_weights)


def test_what_is_told_of_the_map(model, tiny_dataset):
    """Shares sum to one; the departure is the root mean square of what it changed in the brain."""
    subject = files_of(tiny_dataset, 0, *T1_T2)
    found = impute(subject, model, "flair", like=[tiny_dataset / "Tiny_00001"]).adapted
    assert list(found.shares) == ["t1", "t2", "output"]
    assert sum(found.shares.values()) == pytest.approx(1)
    stack, output = seen(model, subject, "flair")
    change = mapped(model, found.fitted, subject, "flair").T - output
    assert found.departure == pytest.approx(np.sqrt(np.nanmean(change**2)), rel=1e-4)
    assert [(one.sequence, one.reference) for one in found.differences] == [
        ("t1", "Tiny_00001"),
        ("t2", "Tiny_00001"),
    ]
    levels = np.arange(1, 20) / 20
    for one, image, index in zip(found.differences, stack, (0, 2), strict=True):
        voxels = blob(10 + index).astype(float)
        other = (voxels / np.percentile(voxels, 99) - 1).clip(-1, 1)
        quantiles = [np.quantile(v[v > -1], levels) for v in (image, other)]
        assert one.distance == pytest.approx(np.abs(np.subtract(*quantiles)).mean(), abs=1e-5)


def test_the_map_is_shrunk_towards_the_checkpoints(model, tiny_dataset):
    subject = files_of(tiny_dataset, 0, *T1_T2)
    known = fit_by_hand(model, [images_of(3)], T1_T2, "flair")
    prior = Adaptation((), {"t1+t2:flair": known}, {"flair": 5.0})
    fitted = fit_by_hand(model, [images_of(1)], T1_T2, "flair", prior=known.prior)
    assert fitted != fit_by_hand(model, [images_of(1)], T1_T2, "flair")
    with_prior = replace(model, prior=prior)
    found = impute(subject, with_prior, "flair", like=[tiny_dataset / "Tiny_00001"])
    np.testing.assert_allclose(found.adapted.fitted.coefficients, fitted.coefficients, atol=1e-9)
    (maximum,) = maxima_of((1,), "flair")
    check_image(found, mapped(model, fitted, subject, "flair"), maximum)
    assert impute(subject, with_prior, "flair").adapted is None  # it adapts nothing by itself


def test_the_order_does_not_count(model, tiny_dataset):
    """Of references, and of the sources, of which the first gives the grid alone."""
    subject = files_of(tiny_dataset, 0)
    folders = [tiny_dataset / f"Tiny_0000{number}" for number in (1, 2, 3)]
    found = impute(subject, model, "flair", ["t1", "t1ce"], like=folders)
    for like, sources in ((folders[::-1], ["t1", "t1ce"]), (folders, ["t1ce", "t1"])):
        other = impute(subject, model, "flair", sources, like=like)
        assert other.adapted.fitted == found.adapted.fitted
        np.testing.assert_array_equal(other.image.get_fdata(), found.image.get_fdata())


def test_a_reference_in_another_orientation_gives_the_same_map(model):
    subject = {name: images_of(0, OBLIQUE)[name] for name in T1_T2}
    reference = images_of(1, OBLIQUE)
    found = impute(subject, model, "flair", like=[reference])
    for order, flips in (((2, 0, 1), (True, False, True)), ((1, 0, 2), (False, True, True))):
        other = {name: turned(image, order, flips) for name, image in reference.items()}
        again = impute(subject, model, "flair", like=[other])
        assert again.adapted.fitted == found.adapted.fitted
        np.testing.assert_array_equal(again.image.get_fdata(), found.image.get_fdata())


def test_a_reference_on_a_grid_of_its_own(model, tiny_dataset):
    """Its images need only lie on each other."""
    affine, shape = np.diag([-1.05, -1.1, 2.0, 1.0]), (30, 17, 9)
    other = {
        name: nib.Nifti1Image(blob(70 + index, shape), affine)
        for index, name in enumerate(SEQUENCES)
    }
    subject = files_of(tiny_dataset, 0, *T1_T2)
    found = impute(subject, model, "flair", like=[other])
    fitted = fit_by_hand(model, [other], T1_T2, "flair")
    maximum = 2 * np.percentile(blob(73, shape), 99)
    check_image(found, mapped(model, fitted, subject, "flair"), maximum)


def test_a_seq2seq_takes_the_references_single_source(tiny_stage1, tiny_dataset, tmp_path):
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "one.pth", build_network(config), config)
    model = open_model(tmp_path / "one.pth")
    found = impute(
        files_of(tiny_dataset, 0, *T1_T2), model, "flair", like=[files_of(tiny_dataset, 1)]
    )
    assert found.warnings == ("a seq2seq checkpoint takes one source: t1 was used, of t1, t2",)
    fitted = fit_by_hand(model, [images_of(1)], ("t1",), "flair")
    subject = files_of(tiny_dataset, 0, "t1")
    check_image(found, mapped(model, fitted, subject, "flair"), *maxima_of((1,), "flair"))


def test_references_are_put_through_the_network_once(model, tiny_dataset, monkeypatch):
    """For all targets together, and for whoever comes next with the same sources."""
    calls, real = [], references.synthesize_grid

    def synthesize(model, sources, tasks, *rest, **options):
        calls.append((list(sources.images), [model.sequences[task.target] for task in tasks]))
        return real(model, sources, tasks, *rest, **options)

    monkeypatch.setattr(references, "synthesize_grid", synthesize)
    like = References(model, {"r": files_of(tiny_dataset, 1), "s": images_of(2)})
    for number in (0, 3):
        given = files_of(tiny_dataset, number, *T1_T2)
        found = impute_targets(given, model, ["t1ce", "flair"], like=like)
        for target in ("t1ce", "flair"):
            alone = impute(given, model, target, like=[images_of(1), images_of(2)])
            np.testing.assert_allclose(
                found[target].image.get_fdata(), alone.image.get_fdata(), atol=0.1
            )
    own = [call for call in calls if len(call[1]) == 2]
    assert own == [(list(T1_T2), ["t1ce", "flair"])] * 2


def test_targets_have_references_of_their_own(model, tiny_dataset):
    """Of several at once, each is told by whom it was adapted: as of that target alone."""
    first, second = images_of(1), images_of(2)
    del first["flair"], second["t1ce"]
    noise = np.random.default_rng(0).integers(1, 50, TINY_SHAPE).astype(np.int16)
    second["t1"] = nib.Nifti1Image(blob(20) + noise, LPS_AFFINE)  # gives a warning
    like = [first, second, images_of(3)]
    given = files_of(tiny_dataset, 0, *T1_T2)
    together = impute_targets(given, model, ["t1ce", "flair"], like=like)
    for target, number in (("t1ce", 1), ("flair", 2)):
        found, alone = together[target], impute(given, model, target, like=like)
        assert list(found.adapted.references) == [str(number), "3"]
        assert found.adapted.references == alone.adapted.references
        assert found.adapted.differences == alone.adapted.differences
        assert found.warnings == alone.warnings
        assert found.intensity_maximum == alone.intensity_maximum
    assert together["t1ce"].warnings == ()
    assert together["flair"].warnings[0].startswith("reference 2: t1 (the t1 image) looks")


# --- whether they are alike


def gamma(voxels: np.ndarray, power: float) -> np.ndarray:
    """The same range, other quantiles."""
    largest = voxels.max()
    return (largest * (voxels / largest) ** power).astype(np.int16)


def patients(*powers: float) -> list[dict[str, nib.Nifti1Image]]:
    """Of one anatomy, each with another gamma of t1."""
    found = []
    for power in powers:
        images = images_of(1)
        images["t1"] = nib.Nifti1Image(gamma(blob(10), power), LPS_AFFINE)
        found.append(images)
    return found


def test_a_subject_that_differs_is_warned_of(model):
    """By more than three references do among each other; of two, nothing says what is usual."""
    like = patients(1.0, 1.02, 1.04)
    (subject,) = patients(0.4)
    given = {"t1": subject["t1"], "t2": subject["t2"]}
    (warning,) = impute(given, model, "flair", like=like).warnings
    assert warning.startswith("t1 differs from that of reference 3 by 0.")
    assert "(the farthest two references): a reference of another scanner" in warning
    assert impute(given, model, "flair", like=like[:2]).warnings == ()
    (subject,) = patients(1.02)
    assert impute({"t1": subject["t1"]}, model, "flair", like=like).warnings == ()


def test_training_subjects_say_how_much_is_usual(model):
    """Two of a site whose quantiles are a hair apart, or far."""
    given = {"t1": images_of(0)["t1"]}
    for gap, is_warned in ((0.001, True), (1.0, False)):
        shapes = tuple(Histogram(f"h{i}", {"t1": (i * gap,) * 19}, "s") for i in range(2))
        known = Adaptation((), {}, {}, shapes)
        found = impute(given, replace(model, prior=known), "flair", like=[images_of(1)])
        (difference,) = found.adapted.differences
        assert difference.usual == pytest.approx(gap)
        assert difference.of == "90 % of the pairs of one site in training"
        assert found.warnings == ((difference.text(),) if is_warned else ())


def test_doubts_about_references_are_told(model):
    """Noise that fills its box is no brain: said of reference and subject apart."""
    noise = np.random.default_rng(0).integers(1, 50, TINY_SHAPE).astype(np.int16)
    like = images_of(1) | {"t1": nib.Nifti1Image(blob(10) + noise, LPS_AFFINE)}
    given = {"t1": images_of(0)["t1"]}
    found = impute(given, model, "flair", like=[like])
    assert len(found.warnings) == 1
    start = "reference 1: t1 (the t1 image) looks as if it was not skull-stripped: "
    assert found.warnings[0].startswith(start)
    assert found.skull_stripped
