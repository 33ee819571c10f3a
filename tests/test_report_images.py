"""The report's pictures, strips and small volumes against the arrays they show."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import SEQUENCES
from PIL import Image
from report_page import Page, evaluation, halved, made_up_scores, tiny_experiment

from tsf_seq2seq.checkpoints.checkpoint import Extras
from tsf_seq2seq.data.nifti import Geometry, read_volume
from tsf_seq2seq.data.slices import Window, bounding_box
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.explain.tsem import Case, explain
from tsf_seq2seq.models.error_estimator import USUAL_LOG_SCALE, ErrorEstimatorConfig
from tsf_seq2seq.report.case_files import RankedCase, strip_slices
from tsf_seq2seq.report.case_maps import case_maps, contribution_map_name
from tsf_seq2seq.report.cases import case_sections, manifest, rank_cases, write_cases
from tsf_seq2seq.report.images import (
    INTENSITY,
    Scale,
    colours,
    cropped_affine,
    overlay_colours,
    signed_colours,
    signed_overlay_colours,
    write_colours,
    write_grey,
    write_quantised,
    write_signed,
)
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import write_report
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.error_map import ErrorMap, with_error_map
from tsf_seq2seq.tasks import Task


def test_quantised_volume_gives_its_values_back(tmp_path):
    volume = np.random.default_rng(0).uniform(-1, 1, (3, 4, 5))
    affine = np.array([[-2.0, 0, 0, 90], [0, -1, 0, 80], [0, 0, 3, -70], [0, 0, 0, 1]])
    write_quantised(tmp_path / "v.nii.gz", volume, affine, INTENSITY)
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, affine)
    np.testing.assert_allclose(image.get_fdata().transpose(2, 1, 0), volume, atol=1.001 / 255)


def test_scale_by_hand():
    values = Scale(0.0, 0.5).quantise(np.array([-1, 0, 0.25, 0.5, 3]))
    assert values.tolist() == [0, 0, 128, 255, 255]


def test_bounding_box_by_hand():
    mask = np.zeros((9, 8, 7), bool)
    mask[4:6, 3, 1] = True
    box = bounding_box(mask, 2)
    assert box == Window(slice(2, 8), slice(1, 6), slice(0, 4))
    assert box.shape == (6, 5, 4)
    assert box.of(mask).sum() == 2
    assert bounding_box(np.zeros((2, 3, 4), bool), 2).shape == (2, 3, 4)


def test_affine_of_a_crop():
    """Of a file in RAS order: LPS's first voxel is its last in x and y."""
    geometry = Geometry((10, 20, 30), np.diag([1.0, 2.0, 3.0, 1.0]))
    affine = cropped_affine(geometry, (5, 4, 2))
    first = affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(first[:3], [9 - 2, 2 * (19 - 4), 3 * 5])
    np.testing.assert_allclose(np.diag(affine), [-1, -2, 3, 1])


def test_strip_holds_the_slice_shown():
    assert strip_slices(5, 2) == [0, 1, 2, 3, 4]
    assert len(strip_slices(126, 61)) in (24, 25)
    assert {0, 61, 125} <= set(strip_slices(126, 61))


def test_grey_strip(tmp_path):
    slices = np.stack([np.full((3, 2), value) for value in (-1.0, 0.25, 1.0, -0.375)])
    write_grey(tmp_path / "strip.png", slices)
    pixels = np.asarray(Image.open(tmp_path / "strip.png"))
    assert pixels.shape == (3, 8)
    assert pixels[0].tolist() == [0, 0, 255, 255, 255, 255, 128, 128]


def test_colour_strip(tmp_path):
    """Square-root scale; an overlay's zero lets all through, its largest value nothing."""
    slices = np.array([[[0.0, 0.125, 0.5]]])
    for overlay in (False, True):
        write_colours(tmp_path / "map.png", slices, Scale(0, 0.5), overlay)
        pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGBA"))[0]
        np.testing.assert_array_equal(pixels[:, :3], colours()[[0, 128, 255]])
        assert pixels[:, 3].tolist() == ([0, 255, 255] if overlay else [255, 255, 255])


def test_overlay_colours_are_those_of_the_strips():
    """At a quarter of the range the square root is a half."""
    nodes = overlay_colours()
    assert nodes["I"] == sorted(set(nodes["I"]))
    assert (nodes["I"][0], nodes["I"][8], nodes["I"][-1]) == (0, 64, 255)
    assert [nodes[part][8] for part in "RGB"] == colours()[128].tolist()
    assert (nodes["A"][0], nodes["A"][8], nodes["A"][-1]) == (0, 255, 255)


def test_signed_strip(tmp_path):
    """Signed square-root scale, clear in the middle; NiiVue's nodes have the same colours."""
    slices = np.array([[[-0.5, -0.125, 0.0, 0.125, 0.6]]])
    write_signed(tmp_path / "map.png", slices, Scale(-0.5, 0.5), overlay=True)
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGBA"))[0]
    np.testing.assert_array_equal(pixels[:, :3], signed_colours()[[0, 64, 128, 191, 255]])
    assert pixels[[0, -1], 3].tolist() == [255, 255]
    assert pixels[2, 3] < 5
    assert pixels[0, 2] > pixels[0, 0]  # blue
    assert pixels[-1, 0] > pixels[-1, 2]  # red
    for name, place in {"above": 255, "below": 0}.items():
        nodes = signed_overlay_colours()[name]
        assert nodes["I"] == sorted(set(nodes["I"]))
        assert (nodes["A"][0], nodes["A"][-1]) == (0, 255)
        assert [nodes[part][-1] for part in "RGB"] == signed_colours()[place].tolist()
        assert min(nodes[part][0] for part in "RGB") > 240  # white about 0


@pytest.fixture
def written(tmp_path: Path, tiny_config: Path):
    """Files of the tiny experiment's cases."""
    experiment = tiny_experiment(tiny_config)
    config = experiment.config
    subjects = find_subjects(config.data, config.data.test)
    ranked = rank_cases(made_up_scores([s.name for s in subjects]), subjects, SEQUENCES)
    files, scale = write_cases(experiment.network, config, ranked, 4, tmp_path / "report", Extras())
    return experiment, subjects, files, scale, tmp_path / "report"


def test_case_volumes_are_the_networks(written):
    """Where their affine places them on the subject's grid: the sequence, synthesis and maps."""
    experiment, subjects, files, _, folder = written
    by_name = {subject.name: subject for subject in subjects}
    compared = 0
    for subject in files:
        for case in subject.cases:
            sources = tuple(SEQUENCES.index(name) for name in case.sources)
            task = Task(sources, SEQUENCES.index(case.target))
            explained = explain(
                experiment.network, experiment.config, by_name[subject.name], [task], 4
            )
            synthesis, tsem = explained.maps.syntheses[task], explained.maps.tsem[task]
            target = explained.loaded.centres[task.target]
            geometry = explained.loaded.volumes.geometry
            arrays = {"synthesis": synthesis, "tsem": tsem, "error": np.abs(synthesis - target)}
            paths = {name: f"{case.folder}/{name}" for name in arrays}
            arrays["target"], paths["target"] = target, subject.sequences[case.target]
            for name, array in arrays.items():
                whole = geometry.to_file(explained.loaded.on_whole_grid(array, outside=0))
                voxels, cropped = read_volume(folder / f"{paths[name]}.nii.gz")
                to_whole = np.linalg.inv(geometry.affine) @ cropped.affine
                start = np.rint(to_whole[:3, 3]).astype(int)
                part = tuple(slice(a, a + n) for a, n in zip(start, voxels.shape, strict=True))
                clipped = (
                    whole[part] if name in ("synthesis", "target") else whole[part].clip(0, 0.5)
                )
                np.testing.assert_allclose(voxels, clipped, atol=0.0041)
                compared += 1
    assert compared == 4 * 12


def test_mapped_cases(tiny_config, tmp_path):
    """Where the map f / 2 is there, half the output on the brain; TSEM is the network's own."""
    experiment = tiny_experiment(tiny_config)
    config, names = experiment.config, list(experiment.config.data.sequences)
    subject = find_subjects(config.data, config.data.test)[0]
    task, other = Task((0, 1), 3), Task((0,), 2)
    adaptation = Adaptation((), {"t1+t1ce:flair": halved(3)}, {})
    plain = explain(experiment.network, config, subject, [task, other], 4)
    mapped = plain.mapped(adaptation, names)
    brain = np.any(plain.loaded.centres[:2] > -1, axis=0)
    output, synthesis = plain.maps.syntheses[task], mapped.maps.syntheses[task]
    np.testing.assert_allclose(synthesis[brain], output[brain] / 2, atol=1e-6)
    assert (synthesis[~brain] == -1).all()
    np.testing.assert_array_equal(mapped.maps.tsem[task], plain.maps.tsem[task])
    np.testing.assert_array_equal(mapped.maps.syntheses[other], plain.maps.syntheses[other])

    ranked = [RankedCase("only", 20.0, Case(subject, task))]
    extras = Extras(adaptation=adaptation)
    (files,), _ = write_cases(experiment.network, config, ranked, 4, tmp_path, extras)
    target = plain.loaded.centres[task.target]
    for name, array in {"synthesis": synthesis, "error": np.abs(synthesis - target)}.items():
        voxels, _ = read_volume(tmp_path / files.cases[0].folder / f"{name}.nii.gz")
        wanted = files.box.of(array).clip(-1, 0.5 if name == "error" else 1)
        np.testing.assert_allclose(np.sort(voxels, None), np.sort(wanted, None), atol=0.0041)


def test_maps_of_cases(tiny_config, tmp_path):
    """Contributions add up, with the mean that stands for no source, to the synthesis; expected
    errors are the estimator's; all are named to the viewer, with a picture each."""
    experiment, settings = tiny_experiment(tiny_config), ErrorEstimatorConfig((4,))
    network, config = experiment.network, experiment.config
    error_map = ErrorMap(settings, settings.build(4, network.slices).eval())
    subject = find_subjects(config.data, config.data.test)[0]
    ranked = [
        RankedCase("best", 21.0, Case(subject, Task((0, 1, 2), 3))),
        RankedCase("worst", 20.0, Case(subject, Task((2,), 3))),
    ]
    means = {"flair": 0.125}
    extras = Extras(statistics=TrainingStatistics({}, (2.0, 2.0), means), error_map=error_map)
    (files,), overlays = write_cases(network, config, ranked, 4, tmp_path, extras)
    several, single = files.cases
    added = [contribution_map_name(index) for index in range(3)]
    assert list(several.maps) == ["tsem", "expected_error", *added]
    assert list(single.maps) == ["tsem", "expected_error"]
    assert [own.title for own in overlays.values()] == [
        *("TSEM", "error", "expected error"),
        *(f"what {name} adds" for name in SEQUENCES[:3]),
    ]

    def voxels(name):
        return read_volume(tmp_path / several.folder / f"{name}.nii.gz")[0]

    total = means["flair"] + sum(map(voxels, added))
    brain = np.any(
        [read_volume(tmp_path / f"{files.sequences[n]}.nii.gz")[0] > -1 for n in SEQUENCES[:3]], 0
    )
    inside = brain & np.all([np.abs(voxels(name)) < 0.49 for name in added], axis=0)
    assert inside.sum() > 100
    np.testing.assert_allclose(total[inside], voxels("synthesis")[inside], atol=0.0121)
    expected = voxels("expected_error")
    np.testing.assert_allclose(expected[brain], np.exp(USUAL_LOG_SCALE), atol=0.0011)
    judged = with_error_map(network, error_map)
    several_sources = explain(judged, config, subject, [ranked[0].case.task], 4)
    (maps,) = case_maps(network, several_sources, 4, error_map, {}).values()
    outside = (several_sources.loaded.centres[:3] == -1).all(axis=0)
    assert outside.any()
    assert (maps["expected_error"][outside] == 0).all()
    content = manifest([files], overlays)
    assert [task["overlays"] for task in content["subjects"][0]["tasks"]] == [
        ["error", "tsem", "expected_error", *added],
        ["error", "tsem", "expected_error"],
    ]
    told, untold = (
        " ".join(case_sections([files], own, SEQUENCES)[0].text)
        for own in (overlays, {"error": overlays["error"]})
    )
    assert "its Shapley value" in told
    assert "here of none" in untold
    assert "here of none" not in told
    for case in files.cases:
        for name in case.pictures:
            assert (tmp_path / case.folder / f"picture_{name}.png").is_file()


def test_manifest_names_files_that_exist(written):
    _, _, files, scale, folder = written
    content = manifest(files, scale)
    highs = {name: own["high"] for name, own in content["overlays"].items()}
    assert highs == {"tsem": scale["tsem"].scale.high, "error": 0.5}
    assert sum(len(subject["tasks"]) for subject in content["subjects"]) == 12
    for subject in content["subjects"]:
        assert subject["lesion"] is None  # the tiny subjects have no label map
        paths = [*subject["sequences"].values()]
        for task in subject["tasks"]:
            assert {*task["sources"], task["target"]} <= set(subject["sequences"])
            paths += [f"{task['folder']}/{name}" for name in ("synthesis", "tsem", "error")]
        for path in paths:
            assert nib.load(folder / f"{path}.nii.gz").shape[::-1] == (
                subject["depth"],
                subject["height"],
                subject["width"],
            )
            strip = Image.open(folder / f"{path}.png")
            assert strip.size == (subject["width"] * len(subject["slices"]), subject["height"])


def test_pictures_on_the_page(tmp_path, tiny_config):
    """Target, synthesis, error, TSEM of 12 cases; alternative texts name subject and slice."""
    experiment = tiny_experiment(tiny_config)
    scores = made_up_scores(["Tiny_00003", "Tiny_00002"])
    inputs = Inputs(evaluation=evaluation(tmp_path / "e", scores))
    page = Page(write_report(inputs, experiment, tmp_path / "report", ["x"], "title"))
    pictures = [
        own for tag, own in page.attributes if tag == "img" and "picture" in str(own["src"])
    ]
    assert len(pictures) == 4 * 12
    for picture in pictures:
        assert (tmp_path / "report" / str(picture["src"])).is_file()
        assert "subject Tiny_0000" in str(picture["alt"])
        assert "axial slice" in str(picture["alt"])
    best = max((s for s in scores if (s.target, s.method) == ("t1", "tsf")), key=lambda s: s.psnr)
    sources = best.sources.replace("+", " + ")
    assert f"{best.name}, {sources} → t1, {best.psnr:.2f} dB" in page.text  # as in metrics.csv
    assert page.text.count("Best:") == page.text.count("Worst:") == 4


def test_lesions_are_shown(tmp_path, tiny_config):
    """Their slice is the one in the pictures."""
    experiment = tiny_experiment(tiny_config)
    root = experiment.config.data.root
    labels = np.zeros((24, 20, 12), np.uint8)
    labels[10:14, 8:12, 7] = 1
    for name in ("Tiny_00002", "Tiny_00003"):
        image = nib.Nifti1Image(labels, np.diag([-1.0, -1.0, 1.0, 1.0]))
        nib.save(image, root / name / f"{name}_seg.nii.gz")
    subjects = find_subjects(experiment.config.data, experiment.config.data.test)
    ranked = rank_cases(made_up_scores([s.name for s in subjects]), subjects, SEQUENCES)
    files, _ = write_cases(
        experiment.network, experiment.config, ranked, 4, tmp_path / "report", Extras()
    )
    for subject in files:
        lesion = nib.load(tmp_path / "report" / f"{subject.lesion}.nii.gz").get_fdata()
        assert lesion.sum() == 16
        assert lesion[..., subject.slices[subject.shown]].sum() == 16
