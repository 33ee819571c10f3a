"""Error maps: bands by hand and in simulation, the estimator, its checkpoints, the script."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SEQUENCES, TINY_UNET, blob, save_nifti, sequence_file, tiny_yaml
from scipy.stats import spearmanr
from torch import nn

from tsf_seq2seq import impute
from tsf_seq2seq.checkpoints.checkpoint import (
    load_model,
    open_model,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.portable import save_portable
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_error_map
from tsf_seq2seq.cli.trust import check_error_estimates
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.nifti import Geometry, read_volume
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.explain import error_estimation
from tsf_seq2seq.explain.error_estimation import ErrorMapRow
from tsf_seq2seq.explain.error_summary import error_map_table
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.models.error_estimator import (
    ERROR_SCALE,
    USUAL_LOG_SCALE,
    ErrorEstimator,
    ErrorEstimatorConfig,
    JudgedNetwork,
)
from tsf_seq2seq.synthesis.error_map import (
    Calibration,
    ErrorMap,
    brain_psnr,
    plain_psnr,
    with_error_map,
)
from tsf_seq2seq.synthesis.risk_control import (
    RATIO_EDGES,
    Ratios,
    fewest_subjects,
    margin,
    smallest_factor,
)
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.error_map_fit import Seen, calibration_of

TASK = Task((0, 2), 3)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def estimator_of(reduction: int = 2) -> ErrorEstimator:
    """With noise on all weights: an untrained one gives the same everywhere."""
    estimator = ErrorEstimatorConfig((4, 8), 1, reduction).build(4, 3).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return estimator


class Copy(SynthesisNetwork):
    """The first source."""

    def __init__(self) -> None:
        super().__init__()
        self.n_sequences, self.slices, self.size_multiple = 4, 3, 1
        self.place = nn.Linear(1, 1)

    def forward(self, images, available, target):
        return images[:, self.sources_of(available)[0]]


# --- bands


def subject(*tasks: list[float]) -> Ratios:
    """Of ratios |error| / scale, a list a task."""
    own = Ratios.none()
    for ratios in tasks:
        own.add(np.array(ratios), np.ones(len(ratios)))
    return own


def test_a_subject_s_risk_is_the_mean_over_its_tasks():
    own = subject([0.5, 1.5, 2.5, 3.5], [0.5, 0.5])
    for edge, risk in ((1.0, (3 / 4 + 0) / 2), (2.0, (2 / 4) / 2), (3.0, (1 / 4) / 2), (4.0, 0)):
        assert own.risk[np.searchsorted(RATIO_EDGES, edge)] == pytest.approx(risk)


def test_the_smallest_factor_by_hand():
    """Nine subjects whose every voxel is off by its number: with α = 0.2, (Σ R + 1) / 10 ≤ 0.2
    allows one of them outside, so that λ covers the eighth; with 0.1 none."""
    nine = [subject([float(number)]) for number in range(1, 10)]
    for alpha, covered in ((0.2, 8), (0.1, 9), (0.5, 5)):
        found = smallest_factor(nine, alpha)
        assert covered <= found < covered * 1.0101


def test_too_few_subjects():
    assert [fewest_subjects(alpha) for alpha in (0.1, 0.2, 0.5)] == [9, 4, 1]
    assert smallest_factor([subject([1.0])] * 8, 0.1) is None
    assert smallest_factor([subject([1.0])] * 9, 0.1) is not None
    assert smallest_factor([subject([1e6])] * 9, 0.1) is None  # no edge is as wide


def test_coverage_of_simulated_subjects():
    """1,000 times 20 subjects and a further one, whose errors are larger or smaller as a whole:
    the mean share outside is at most α, and no more than 1 / (n + 1) below it."""
    rng, n, voxels, outside = np.random.default_rng(0), 20, 200, []
    for _ in range(1000):
        width = np.exp(0.4 * rng.standard_normal(n + 1))[:, None]
        errors = np.abs(rng.laplace(0, width, (n + 1, voxels)))
        factor = smallest_factor([subject(own) for own in errors[:n]], 0.2)
        outside.append(np.mean(errors[n] > factor))
    mean, deviation = np.mean(outside), np.std(outside) / np.sqrt(1000)
    assert mean < 0.2 + 2.6 * deviation  # 99 %
    assert mean > 0.2 - 1 / (n + 1) - 2.6 * deviation


def test_margin_by_hand():
    """Of nine scores the 9th for 0.1, ⌈10 · 0.9⌉, the 8th for 0.2."""
    scores = [3.0, 1, 2, 9, 8, 7, 4, 5, 6]
    assert (margin(scores, 0.1), margin(scores, 0.2)) == (9, 8)
    assert margin(scores[:8], 0.1) is None


def test_what_scales_mean():
    """Errors half as large as their scales; PSNR true to the scales but for 1 dB, of another task
    for 3.5 dB, of which 8 subjects can tell half."""
    seen = []
    for number in range(9):
        own = Seen(str(number), subject([0.5]), error=50.0, scale=100.0)
        by_scale, told = 20.0 + number, 20.0 + number + 20 * np.log10(2)
        own.psnr = {"t1:t2": (by_scale, told + 1)}
        if number > 0:
            own.psnr["t1:flair"] = by_scale, told + 3.5
        seen.append(own)
    found = calibration_of(seen, separate=True)
    assert (found.subjects, found.expected) == (9, 0.5)
    assert found.psnr_offset == pytest.approx(1)
    assert found.psnr_offsets == pytest.approx({"t1:t2": 1, "t1:flair": 1 + 2.5 / 2})
    assert found.psnr_margins["0.1"] == pytest.approx(2.5 * (1 - 7 / 15))  # by others
    assert 0.5 <= found.factors["0.1"] < 0.506


def test_expected_psnr_of_laplace_errors():
    error = np.abs(np.random.default_rng(0).laplace(0, 0.05, 200_000))
    assert plain_psnr(np.full(10, 0.05)) == pytest.approx(brain_psnr(error), abs=0.05)


# --- the estimator


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_an_untrained_estimator_gives_the_usual_error(reduction):
    estimator = ErrorEstimatorConfig(reduction=reduction).build(4, 3)
    assert estimator.size_multiple == 4 * reduction
    scale = estimator(images(2, 4, 3, 13, 18), images(2, 3, 13, 18), TASK)
    assert scale.shape == (2, 13, 18)
    assert (scale == USUAL_LOG_SCALE).all()


@pytest.mark.parametrize("reduction", [1, 2])
def test_what_the_estimator_looks_at(reduction):
    """Sources, output and task; not the absent sequences, nor the target."""
    given, output = images(1, 4, 3, 16, 16), images(1, 3, 16, 16)
    estimator = estimator_of(reduction)
    scale = estimator(given, output, TASK)
    absent = given.clone()
    absent[:, [1, 3]] = torch.nan
    assert torch.equal(scale, estimator(absent, output, TASK))
    for other in (
        estimator(given.flip(-1), output, TASK),
        estimator(given, -output, TASK),
        estimator(given, output, Task((0, 2), 1)),
        estimator(given, output, Task((0, 1, 2), 3)),
    ):
        assert (other - scale).abs().max() > 1e-4


@pytest.mark.parametrize("reduction", [1, 2])
def test_every_voxel_has_a_scale_of_its_own(reduction):
    """One voxel of the sources changes the scale there most, also beside it within r × r."""
    given, output = images(1, 4, 3, 16, 16), images(1, 3, 16, 16)
    estimator, changed = estimator_of(reduction), given.clone()
    changed[:, 0, 1, 8, 9] += 0.5
    change = (estimator(changed, output, TASK) - estimator(given, output, TASK))[0].abs()
    assert change[8, 9] > 0
    assert change[8, 9] != change[8, 8]
    assert change[4:13, 4:14].max() > 3 * change[0].max()


def test_a_judged_network_gives_outputs_and_scales_in_one_pass():
    network, estimator, given = Copy(), estimator_of(), images(2, 4, 3, 16, 16)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    both = JudgedNetwork(network, estimator)
    tasks = [TASK, Task((1,), 0)]
    with torch.no_grad():
        found = {(v, t): own for v, t, own in both.synthesize(given, tasks, (FULL, ERROR_SCALE))}
        assert len(calls) == 2
        for task in tasks:
            output = given[:, task.sources[0]]
            assert torch.equal(found[FULL, task], output)
            scale = estimator(given, output, task).exp()
            assert torch.equal(found[ERROR_SCALE, task][:, 1], scale)
        only = list(both.synthesize(given, [TASK], (ERROR_SCALE,)))
    assert [variant for variant, *_ in only] == [ERROR_SCALE]


# --- the script, and checkpoints


@pytest.fixture
def splits(tiny_dataset):
    """Twelve subjects: 0 and 1 trained the network, 4 to 6 are to fit on, 7 to 15 to calibrate."""
    for number in range(4, 16):
        for index, sequence in enumerate(SEQUENCES):
            save_nifti(sequence_file(tiny_dataset, number, sequence), blob(10 * number + index))
    for name, numbers in {"fit": range(4, 7), "calibrate": range(7, 16)}.items():
        text = "".join(f"{sequence_file(tiny_dataset, i, 't1').parent.name},8\n" for i in numbers)
        (tiny_dataset / f"{name}.csv").write_text(text)
    return tiny_dataset


@pytest.fixture
def run(script, checkpoint, tmp_path):
    options = ("-l", checkpoint, "-o", tmp_path / "with.pth", "--steps", 3)
    return lambda *more: script(train_error_map, *options, *more)


def test_script(run, splits, checkpoint, tmp_path):
    """The network stays as it is; a second run gives the same."""
    options = ("--fit", splits / "fit.csv", "--calibrate", splits / "calibrate.csv")
    outcome = run(*options)
    assert outcome.code == 0, outcome.err
    before, model = open_model(checkpoint), open_model(tmp_path / "with.pth")
    for key, value in before.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[key])
    assert model.statistics == before.statistics
    calibration = model.error_map.calibration
    assert (calibration.subjects, calibration.separate) == (9, True)
    assert (calibration.slices, model.error_map.network_sha256) == (12, before.sha256)
    assert model.error_map.settings.reduction == 1
    assert calibration.factors["0.1"] >= calibration.factors["0.2"] > 0
    assert "Calibration on 9 subjects, that the estimator didn't see" in outcome.out
    content = read_checkpoint(tmp_path / "with.pth")
    assert run(*options).code == 0
    again = read_checkpoint(tmp_path / "with.pth")
    assert content["error_map"] == again["error_map"]
    assert all(torch.equal(own, again["weights"][key]) for key, own in content["weights"].items())


def test_half_resolution(run, splits, tmp_path):
    """The first checkpoints with an error map don't say what theirs is."""
    assert run("--fit", splits / "fit.csv", "--half-resolution").code == 0
    assert open_model(tmp_path / "with.pth").error_map.settings.reduction == 2
    content = read_checkpoint(tmp_path / "with.pth")
    del content["error_map"]["settings"]["reduction"]
    torch.save(content, tmp_path / "first.pth")
    assert open_model(tmp_path / "first.pth").error_map.estimator.reduction == 2


def test_cross_fitting(run, splits, tmp_path):
    """Three subjects are enough for no band."""
    outcome = run("--fit", splits / "fit.csv")
    assert outcome.code == 0, outcome.err
    calibration = open_model(tmp_path / "with.pth").error_map.calibration
    assert (calibration.subjects, calibration.separate) == (3, False)
    assert calibration.factors == {"0.1": None, "0.2": None}
    assert "too few subjects for a band of all but 0.1: it takes 9" in outcome.out


def test_one_subject(run, tmp_path):
    """data.valid's; what it trained it can't judge."""
    outcome = run()
    assert outcome.code == 0, outcome.err
    assert open_model(tmp_path / "with.pth").error_map.calibration is None
    assert "one subject can't calibrate" in outcome.out


def test_training_brings_scales_to_the_errors(run, splits, tmp_path):
    """Those of an untrained network are far from usual ones."""
    distances = []
    for steps in (1, 60):
        assert run("--fit", splits / "fit.csv", "--steps", steps).code == 0
        expected = open_model(tmp_path / "with.pth").error_map.calibration.expected
        distances.append(abs(np.log(expected)))
    assert distances[1] < distances[0] / 2


def test_safetensors(run, splits, tmp_path):
    assert run("--fit", splits / "fit.csv").code == 0
    content = read_checkpoint(tmp_path / "with.pth")
    save_portable(tmp_path / "with.safetensors", content)
    one, other = (open_model(tmp_path / f"with.{end}").error_map for end in ("pth", "safetensors"))
    assert one.calibration == other.calibration
    pairs = zip(one.estimator.parameters(), other.estimator.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert load_model(tmp_path / "with.safetensors") is not None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.update(error_map=3), "'error_map' must be a mapping"),
        (lambda c: c["error_map"]["calibration"].update(expected=-1), "a factor must be above 0"),
        (lambda c: c["weights"].popitem(), "of another architecture"),
        (lambda c: c["error_map"]["settings"].update(channels=[4, 4]), "of another architecture"),
    ],
)
def test_damaged(run, splits, tmp_path, damage, words):
    assert run("--fit", splits / "fit.csv").code == 0
    content = read_checkpoint(tmp_path / "with.pth")
    damage(content)
    torch.save(content, tmp_path / "damaged.pth")
    with pytest.raises(UserError, match=words):
        open_model(tmp_path / "damaged.pth")


def test_mistakes(run, script, splits, checkpoint, tmp_path):
    both = ("--fit", splits / "fit.csv", "--calibrate", splits / "fit.csv")
    assert "has Tiny_00004, which is trained on, too" in run(*both).error
    assert "does not exist" in run("--fit", splits / "no.csv").error
    outcome = script(train_error_map, "-l", checkpoint, "-o", tmp_path / "folder")
    assert outcome.error == "-o must end in .pth, not folder"
    assert not (tmp_path / "with.pth").exists()


def test_expected_errors_are_multiples_of_scales():
    settings = ErrorEstimatorConfig((4,))
    calibration = Calibration(9, True, 2.0, {"0.1": 3.0}, 0.5, {"0.1": None}, {"t1:t2": 0.75})
    found = ErrorMap(settings, settings.build(4, 3), calibration)
    scale = np.full(5, 0.01, np.float32)
    np.testing.assert_allclose(found.expected_error(scale), 0.02)
    for task, offset in (("t1:t2", 0.75), ("t1:flair", 0.5)):  # the other one wasn't seen
        expected = plain_psnr(np.array([0.02])) + offset
        assert found.expected_psnr(scale, task) == pytest.approx(expected)


# --- against the error


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_error_estimation(run, script, splits, tmp_path):
    """The error map is one of the estimators; its bands and PSNR are looked at, too."""
    options = ("--fit", splits / "fit.csv", "--calibrate", splits / "calibrate.csv")
    assert run(*options).code == 0
    chosen = ("--tasks", "t1+t2:flair", "t1:flair")
    out = ("-l", tmp_path / "with.pth", "-o", tmp_path / "out")
    outcome = script(check_error_estimates, *out, *chosen)
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "out/error_estimation.csv")
    found = [row["estimator"] for row in rows if row["sources"] == "t1+t2"]
    assert found == ["error_map", "tsem", "gradient", "disagreement", "floor"]
    model = open_model(tmp_path / "with.pth")
    (subject,) = find_subjects(model.config.data, model.config.data.test)
    loaded, task = load_window(model.config, subject), Task((0, 2), 3)
    blocks = stacks(loaded.images, 3)
    judged_network = with_error_map(model.network, model.error_map)
    outputs = run_stacks(judged_network, blocks, [task], 8, (FULL, ERROR_SCALE), centre=True)
    brain = brain_mask(loaded.centres)
    error = np.abs(outputs[FULL, task] - loaded.centres[3])[brain]
    scale = outputs[ERROR_SCALE, task][brain]
    (row,) = [r for r in rows_of(tmp_path / "out/error_map.csv") if r["sources"] == "t1+t2"]
    factor = model.error_map.calibration.factors["0.1"]
    assert float(row["within_90"]) == pytest.approx(np.mean(error <= factor * scale), abs=1e-4)
    assert float(row["psnr"]) == pytest.approx(brain_psnr(error), abs=1e-3)
    assert float(row["expected_psnr"]) == pytest.approx(
        model.error_map.expected_psnr(scale, "t1+t2:flair"), abs=1e-3
    )
    (own,) = [r for r in rows if (r["sources"], r["estimator"]) == ("t1+t2", "error_map")]
    assert float(own["spearman"]) == pytest.approx(spearmanr(scale, error).statistic, abs=1e-3)
    assert "The error map: the share of the brain within its bands" in outcome.out


def test_expected_psnr_over_tasks_and_within_one():
    """Tasks 10 dB apart go the right way, the subjects of each the wrong one."""
    rows = [
        ErrorMapRow(str(n), "t1", target, base + n, base - n, 5.0, 0.9, 0.8)
        for target, base in (("t2", 20.0), ("flair", 30.0))
        for n in range(3)
    ]
    table = error_map_table(rows)
    cells = dict(zip(table.headings, table.rows[-1], strict=True))
    wanted = spearmanr([r.expected_psnr for r in rows], [r.psnr for r in rows]).statistic
    assert wanted > 0.5
    assert cells["expected and true PSNR"] == pytest.approx(wanted)
    assert (cells["of a task"], cells["apart (dB)"]) == (-1, 2)


def test_networks_without_tsem_are_looked_at(script, tiny_dataset, tmp_path):
    path = tmp_path / "unet.yaml"
    path.write_text(tiny_yaml(TINY_UNET, tiny_dataset, tmp_path / "run"))
    config = load_config(path)
    save_checkpoint(tmp_path / "unet.pth", build_network(config), config)
    out = ("-l", tmp_path / "unet.pth", "-o", tmp_path / "out", "--tasks", "t1+t2:flair")
    outcome = script(check_error_estimates, *out)
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "out/error_estimation.csv")
    assert [row["estimator"] for row in rows] == ["gradient", "disagreement"]
    assert not (tmp_path / "out/error_map.csv").exists()


def test_blocks_of_a_cubic_centimetre():
    """Voxels of 5 × 5 × 10 mm (x, y, z): blocks of 2 × 2 × 1; of one only a quarter is brain."""
    brain = np.ones((2, 4, 4), bool)
    brain[1, 2:, 2:] = [[True, False], [False, False]]
    numbers = error_estimation._blocks(brain, Geometry((4, 4, 2), np.diag([-5.0, -5, 10, 1])))
    whole = np.full(brain.shape, -2)
    whole[brain] = numbers
    assert whole[1, 2, 2] == -1
    for z, y, x in itertools.product(range(2), (0, 2), (0, 2)):
        if (z, y, x) != (1, 2, 2):
            assert len(set(whole[z, y : y + 2, x : x + 2].ravel())) == 1
    assert len(set(numbers)) == 7 + 1
    values = np.zeros(brain.shape)
    values[0, :2, :2] = [[1, 2], [3, 6]]
    means = error_estimation._block_means(values[brain], numbers)
    assert sorted(means) == [*[0] * 6, 3]


# --- imputation


@pytest.fixture
def with_map(run, splits, tmp_path):
    """A checkpoint whose error map nine subjects calibrated."""
    options = ("--fit", splits / "fit.csv", "--calibrate", splits / "calibrate.csv")
    assert run(*options).code == 0
    return tmp_path / "with.pth"


def test_imputes(script, with_map, tiny_dataset, tmp_path):
    """The image is as without error map; the error is the scale's multiple, the bounds lie around
    the image, all on its grid."""
    sequence_file(tiny_dataset, 0, "flair").unlink()
    patient, out, stem = tiny_dataset / "Tiny_00000", tmp_path / "out", "Tiny_00000_flair"
    arguments = (patient, "-l", with_map, "-o", out)
    assert script(impute_sequences, *arguments).code == 0
    assert {path.name for path in out.iterdir()} == {
        f"{stem}_{kind}" for kind in ("synth.nii.gz", "synth.json", "tsem.nii.gz", "error.nii.gz")
    }
    outcome = script(impute_sequences, *arguments, "--interval")
    assert "made again: it was made without interval" in outcome.out
    assert "dB expected in the brain" in outcome.out
    assert "flair is done already" in script(impute_sequences, *arguments).out
    image, error, lower, upper = (
        read_volume(out / f"{stem}_{kind}.nii.gz")[0]
        for kind in ("synth", "error", "lower", "upper")
    )
    model = open_model(with_map)
    files = {name: sequence_file(tiny_dataset, 0, name) for name in SEQUENCES[:3]}
    plain = replace(model, error_map=None)
    np.testing.assert_array_equal(image, impute(files, plain, "flair").image.get_fdata())
    brain = np.any([blob(index) > 0 for index in range(3)], axis=0)
    assert (error[brain] > 0).all()
    assert (error[~brain] == 0).all()
    calibration = model.error_map.calibration
    width = calibration.factors["0.1"] / calibration.expected * error
    np.testing.assert_allclose(upper - image, width, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(lower, (image - width).clip(min=0), rtol=1e-4, atol=1e-2)
    told = json.loads((out / f"{stem}_synth.json").read_text())["ErrorMap"]
    assert told["MeanExpectedError"] == pytest.approx(error[brain].mean(), rel=1e-5)
    assert told["CalibrationSubjects"] == 9
    maximum = impute(files, plain, "flair").intensity_maximum
    brain[..., [0, -1]] = False  # no centre of a stack, so that evaluation doesn't see it
    assert told["ExpectedPSNR"] == pytest.approx(
        plain_psnr(error[brain] * 2 / maximum) + calibration.psnr_offsets["t1+t1ce+t2:flair"],
        abs=1e-3,
    )


def test_images_without_bounds(script, run, checkpoint, with_map, splits, tiny_dataset, tmp_path):
    sequence_file(tiny_dataset, 0, "flair").unlink()
    arguments = (tiny_dataset / "Tiny_00000", "-o", tmp_path / "out", "--interval", "-l")
    assert "has no error map" in script(impute_sequences, *arguments, checkpoint).error
    like = ("--like", tiny_dataset / "Tiny_00001")
    error = script(impute_sequences, *arguments, with_map, *like).error
    assert error.startswith("an adapted image has no bounds")
    assert run("--fit", splits / "fit.csv").code == 0
    error = script(impute_sequences, *arguments, with_map).error
    assert "has no bounds: 3 subjects calibrated it, which are too few" in error
