"""What is done to outputs in the end: flip, neighbours, map, background and clip, as by hand."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import TINY_TSF, made_window, sequence_file
from torch import nn

from tsf_seq2seq.checkpoints.checkpoint import (
    checkpoint_prior,
    open_model,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.cli.arguments import script_parser
from tsf_seq2seq.cli.evaluate import evaluate_networks, evaluate_seq2seq, evaluate_tsf_seq2seq
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.config import EvaluationConfig, config_from_mapping, load_config, to_mapping
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.evaluation.scores import read_scores
from tsf_seq2seq.imputation import impute
from tsf_seq2seq.models import build_network
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, SynthesisNetwork
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import write_report
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.adapted import (
    AdaptedSynthesizer,
    MappedSynthesizer,
    references_by_site,
    window_moments,
)
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of
from tsf_seq2seq.synthesis.finish import (
    Finish,
    chosen_steps,
    finish_line,
    image_finish,
    network_finish,
    run_averaged,
)
from tsf_seq2seq.synthesis.map_fits import fit_map
from tsf_seq2seq.synthesis.synthesizers import (
    BASELINES,
    BaselineSynthesizer,
    NetworkSynthesizer,
)
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task

ALL = ("flip", "neighbours", "map", "background", "clip")
TASK, NAMES = Task((0, 2), 3), ("t1", "t1ce", "t2", "flair")  # t1+t2 → flair
LINEAR = ContrastMap((0.1, 0.2, 0.0, 0.5, *(0.0,) * 6), (0.0,) * 100, True, 1.0)
MAPS = Adaptation((), {"t1+t2:flair": LINEAR}, {"flair": 900.0})  # 0.1 + 0.2 t1 + 0.5 f


class Ramp(SynthesisNetwork):
    """Slice k of a stack: weight k times the first source, plus `slope` · x at column x."""

    n_sequences, slices, size_multiple = 4, 3, 1

    def __init__(self, weights=(1.0, 2.0, 6.0), slope=1.0) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.slope = slope

    def forward(self, images, available, target):
        first = images[:, self.sources_of(available)[0]]
        return self.weights[:, None, None] * first + self.slope * torch.arange(images.shape[-1])


@pytest.fixture
def images() -> np.ndarray:
    """Six slices of four sequences, a fifth of them background, (S, Z, Y, X)."""
    values = np.random.default_rng(0).uniform(-1, 1, (4, 6, 4, 5)).astype(np.float32)
    values[:, :, 0] = -1
    return values


def averaged(network, images, *steps, batch_size=2) -> np.ndarray:
    """The centre slices (Z − 2, Y, X) of TASK."""
    blocks = stacks(images, 3)
    return run_averaged(network, blocks, [TASK], batch_size, [FULL], steps)[1][TASK]


# --- flip and neighbours


def test_nothing_is_averaged_without_a_step(images):
    network, blocks = Ramp(), stacks(images, 3)
    plain, mean = run_averaged(network, blocks, [TASK], 2, [FULL], ("map", "background", "clip"))
    assert mean[TASK] is plain[FULL, TASK]
    np.testing.assert_array_equal(mean[TASK], 2 * images[0, 1:-1] + np.arange(5, dtype=np.float32))


def test_flip_is_the_mean_of_both_passes(images):
    """x becomes (x + 4 − x) / 2 = 2; what depends on the image stays."""
    found = averaged(Ramp(), images, "flip")
    np.testing.assert_allclose(found, 2 * images[0, 1:-1] + 2, atol=1e-6)


def test_flip_changes_nothing_where_the_network_flips_with_its_input(images):
    found = averaged(Ramp(slope=0.0), images, "flip")
    np.testing.assert_array_equal(found, 2 * images[0, 1:-1])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_neighbours_are_the_mean_over_stacks(images, batch_size):
    """Of weights 1, 2, 6: at the first slice those of stack 0 (2) and 1 (1), at the last of 2 (6)
    and 3 (2)."""
    found = averaged(Ramp(slope=0.0), images, "neighbours", batch_size=batch_size)
    weights = np.array([1.5, 3, 3, 4], dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(found, weights * images[0, 1:-1], atol=1e-6)
    one = averaged(Ramp(slope=0.0), images[:, :3], "neighbours")
    np.testing.assert_array_equal(one, 2 * images[0, 1:2])  # a single stack


def test_of_a_real_network_by_a_slow_loop(reference_model, expected):
    """Both together: the mean over stacks and both ways round."""
    parts = expected["images"][:, :, 0]
    window = np.concatenate([parts[:, 0], parts[:, 1]], axis=1)  # (4, 6, H, W)
    available, predicted = [True, False, True, False], [[] for _ in range(6)]
    for start in range(4):
        block = torch.from_numpy(window[None, :, start : start + 3].copy())
        with torch.inference_mode():
            plain = reference_model(block, available, 3)[0]
            flipped = reference_model(block.flip(-1), available, 3)[0].flip(-1)
        for k in range(3):
            predicted[start + k] += [plain[k].numpy(), flipped[k].numpy()]
    wanted = np.stack([np.mean(own, axis=0) for own in predicted[1:5]])
    assert [len(own) for own in predicted[1:5]] == [4, 6, 6, 4]
    heard = []
    blocks = stacks(window, 3)
    variants = [FULL, WITHOUT_ATTENTION]
    outputs, found = run_averaged(
        *(reference_model, blocks, [TASK], 3, variants, ("flip", "neighbours")),
        progress=lambda done, total: heard.append((done, total)),
    )
    np.testing.assert_allclose(found[TASK], wanted, atol=5e-5)
    assert heard == [(3, 8), (4, 8), (7, 8), (8, 8)]
    alone, _ = run_averaged(reference_model, blocks, [TASK], 3, variants, ())
    for key, output in alone.items():  # the plain ones are what they would be alone
        np.testing.assert_array_equal(outputs[key], output)


# --- map, background and clip


def test_background_and_clip_by_hand():
    sources = np.full((2, 1, 1, 4), -1, dtype=np.float32)
    sources[0, ..., 1], sources[1, ..., 2] = 0.5, -0.5
    output = np.array([0.3, 1.7, -2.0, 0.2], dtype=np.float32).reshape(1, 1, 4)
    brain = brain_of(sources)
    for steps, wanted in {
        (): [0.3, 1.7, -2.0, 0.2],
        ("background",): [-1, 1.7, -2.0, -1],
        ("clip",): [0.3, 1, -1, 0.2],
        ("background", "clip"): [-1, 1, -1, -1],
    }.items():
        finish = Finish(steps)
        found = finish(TASK, sources, output, brain)
        np.testing.assert_array_equal(found.ravel(), np.float32(wanted))
        np.testing.assert_array_equal(finish(TASK, sources, found, brain), found)
        assert found.dtype == np.float32
    np.testing.assert_array_equal(output.ravel(), np.float32([0.3, 1.7, -2.0, 0.2]))


def test_the_prior_maps_its_tasks_alone(images):
    sources, output = images[[0, 2]], images[1]
    finish, brain = Finish(("map",), MAPS, NAMES), brain_of(images[[0, 2]])
    wanted = np.where(brain, 0.1 + 0.2 * images[0] + 0.5 * output, -1).clip(-1, 1)
    np.testing.assert_allclose(finish(TASK, sources, output, brain), wanted, atol=1e-6)
    assert finish(Task((0, 2), 1), sources, output, brain) is output


# --- which steps


def test_steps_are_done_in_their_own_order():
    assert EvaluationConfig(("clip", "map", "flip")).finish == ("flip", "map", "clip")
    assert chosen_steps(["clip", "flip"], EvaluationConfig()) == ("flip", "clip")
    assert chosen_steps(None, EvaluationConfig(("clip",))) == ("clip",)
    assert chosen_steps([], EvaluationConfig(("clip",))) == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[flip, sharpen]", "'evaluation.finish' must be one of flip, .*, clip, not 'sharpen'"),
        ("[clip, flip, clip]", "evaluation: finish names clip more than once; it takes flip, "),
        ("3", "'evaluation.finish' must be a list of values, each one of flip, neighbours"),
    ],
)
def test_what_settings_refuse(tiny_config, value, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny_config, [f"evaluation.finish={value}"])


def test_what_the_command_line_refuses(capsys):
    parser = script_parser("", [], ["finish"])
    assert parser.parse_args([]).finish is None
    assert parser.parse_args(["--finish"]).finish == []
    with pytest.raises(SystemExit):
        parser.parse_args(["--finish", "sharpen"])
    assert "invalid choice: 'sharpen'" in capsys.readouterr().err
    with pytest.raises(UserError, match="--finish: evaluation: finish names clip more than once"):
        chosen_steps(["clip", "clip"], EvaluationConfig())


def test_settings_in_checkpoints(tiny_config, tmp_path):
    """They come back; settings of before, which have no such section, say none."""
    config = load_config(tiny_config, ["evaluation.finish=[clip, flip]"])
    save_checkpoint(tmp_path / "net.pth", build_network(config), config)
    assert open_model(tmp_path / "net.pth").config == config
    before = to_mapping(config)
    assert before.pop("evaluation") == {"finish": ["flip", "clip"]}
    assert config_from_mapping(before, "checkpoint").evaluation.finish == ()


def test_the_map_that_is_missing():
    settings, path = EvaluationConfig(ALL), Path("best.pth")
    full = network_finish(None, settings, MAPS, NAMES, path)
    assert full == Finish(ALL, MAPS, NAMES)
    without = Finish(("flip", "neighbours", "background", "clip"), None, NAMES)
    assert network_finish(None, settings, None, NAMES, path) == without
    assert network_finish(ALL, settings, MAPS, NAMES, path, replaced=True) == without
    with pytest.raises(UserError, match=r"^best\.pth carries no map of validation subjects"):
        network_finish(["map"], settings, None, NAMES, path)
    assert network_finish([], settings, MAPS, NAMES, path) is None
    assert network_finish(["map"], settings, MAPS, NAMES, path, replaced=True) is None
    assert image_finish(ALL) == Finish(("background", "clip"))
    assert image_finish(("flip", "map")) is None


def test_what_a_file_knows_of_another_network(stage_2, tmp_path):
    """Stage 2's maps are none of its Seq2Seq."""
    model = open_model(stage_2)
    save_checkpoint(tmp_path / "net.pth", model.network, model.config, prior=MAPS)
    assert checkpoint_prior(tmp_path / "net.pth", "tsf_seq2seq") == MAPS
    assert checkpoint_prior(tmp_path / "net.pth", "seq2seq") is None
    assert checkpoint_prior(stage_2, "tsf_seq2seq") is None


def test_the_line():
    assert finish_line({}) == ""
    assert finish_line({"tsf": ["flip", "clip"]}) == "finished: flip, clip"
    more = {"tsf": ["flip", "clip"], "unet": ["flip", "clip"], "a": ["clip"], "b": ["clip"]}
    assert finish_line(more) == "finished: flip, clip (a, b: clip)"


# --- methods


def test_methods_of_a_network(reference_model, images):
    """The whole network is finished, wherever it stands; an ablation isn't."""
    finish = Finish(("background", "clip"))
    both = NetworkSynthesizer("net", reference_model, [WITHOUT_ATTENTION, FULL], 4, finish)
    assert both.names == ["net_without_attention", "net", "net, finished"]
    assert both.finished == {"net": ("background", "clip")}
    alone = NetworkSynthesizer("net", reference_model, [WITHOUT_ATTENTION], 4, finish)
    assert (alone.names, alone.main, alone.finished) == (
        ["net_without_attention"],
        "net_without_attention",
        {},
    )
    window = made_window(np.pad(images, ((0, 0), (0, 0), (0, 4), (0, 3)), constant_values=-1))
    outputs, centres = both.predict(window, [TASK]), window.centres
    plain = NetworkSynthesizer("net", reference_model, [WITHOUT_ATTENTION, FULL], 4)
    for key, output in plain.predict(window, [TASK]).items():
        np.testing.assert_array_equal(outputs[key], output)
    wanted = np.where(brain_of(centres[[0, 2]]), outputs["net", TASK].clip(-1, 1), -1)
    np.testing.assert_array_equal(outputs["net, finished", TASK], wanted)


def test_a_single_source_network_s_average_is_finished(reference_model, images):
    network, one = reference_model.seq2seq, Task((3,), 0)
    method = NetworkSynthesizer("s", network, ["full", "average"], 4, Finish(("flip",)))
    assert method.names == ["s", "s_average", "s, finished"]
    window = made_window(np.pad(images, ((0, 0), (0, 0), (0, 4), (0, 3))))
    assert ("s, finished", TASK) not in method.predict(window, [one, TASK])
    method = NetworkSynthesizer("s", network, ["average"], 4, Finish(("flip",)))
    found = method.predict(window, [one, TASK])
    flipped = made_window(np.ascontiguousarray(window.images[..., ::-1]))
    other = method.predict(flipped, [TASK])["s_average", TASK][..., ::-1]
    wanted = (found["s_average", TASK] + other) / 2
    np.testing.assert_allclose(found["s_average, finished", TASK], wanted, atol=5e-5)


def test_a_baseline_is_finished_without_a_network(images):
    model = BASELINES["mean_image"](4).fit([images])
    method = BaselineSynthesizer("mean_image", model, 1, Finish(("background",)))
    found = method.predict(made_window(images, height=1), [TASK])
    assert list(found) == [("mean_image", TASK), ("mean_image, finished", TASK)]
    np.testing.assert_array_equal(found["mean_image", TASK], images[3])
    wanted = np.where(brain_of(images[[0, 2]]), images[3], -1)
    np.testing.assert_array_equal(found["mean_image, finished", TASK], wanted)


def test_a_checkpoint_s_own_maps_are_of_the_finished_output(images):
    plain = NetworkSynthesizer("net", Ramp(), [FULL], 4, Finish(("flip",)))
    window = made_window(images / 10)
    before = plain.predict(window, [TASK])
    after = MappedSynthesizer(plain, MAPS, NAMES, beside=True).predict(window, [TASK])
    sources = window.centres[[0, 2]]
    for name in ("net", "net, finished"):
        wanted = LINEAR(sources, before[name, TASK], brain_of(sources))
        np.testing.assert_array_equal(after[name, TASK], wanted)
    np.testing.assert_array_equal(after["net_without_map", TASK], before["net", TASK])


# --- scripts


@pytest.fixture
def save(save_network):
    """save(folder, steps, maps…): an untrained network in its folder, whose settings ask for the
    steps."""

    def save(folder: str, steps=(), **maps: Adaptation) -> Path:
        asked = f"evaluation: {{finish: [{', '.join(steps)}]}}"
        return save_network(folder, f"{TINY_TSF}\n{asked}\n", **maps)

    return save


@pytest.fixture
def run(script, tmp_path, only_scores):
    """run(main, checkpoints, options…) into `out`, without LPIPS and pictures."""

    def run(files, *options: object, main=evaluate_networks, output: str = "out"):
        return script(main, "-l", *files, "-o", tmp_path / output, *options)

    return run


def methods_in(folder: Path) -> list[str]:
    return list(dict.fromkeys(score.method for score in read_scores(folder / "metrics.csv")))


def test_tables_and_record_say_the_steps(save, run, tmp_path):
    path = save("net", prior=MAPS)
    arguments = ([path], "--baselines", "quadratic_regression", "--no-predictions")
    outcome = run(*arguments, "--finish", *ALL[::-1])
    assert outcome.code == 0, outcome.err
    line = f"finished: {', '.join(ALL)} (quadratic_regression: background, clip)"
    assert f"\n{line}\n" in outcome.out
    out = tmp_path / "out"
    assert f"\n\n{line}\n\n## By number" in (out / "table.md").read_text()
    identity = json.loads((out / "evaluation.json").read_text())
    assert identity["finish"] == {"net": [*ALL], "quadratic_regression": ["background", "clip"]}
    names = ["net", "net, finished", "quadratic_regression", "quadratic_regression, finished"]
    assert identity["methods"] == methods_in(out) == names
    page = write_report(Inputs(evaluation=out), None, tmp_path / "report", ["make"], "Report")
    assert page.read_text().count(f"Finished{line.removeprefix('finished')}.") == 3

    model = open_model(path)
    subject = find_subjects(model.config.data, model.config.data.test)[0]
    finish = Finish(ALL, MAPS, NAMES)
    window = load_window(model.config, subject)
    one = NetworkSynthesizer("net", model.network, [FULL], 8, finish)
    outputs = one.predict(window, [TASK])
    found = [s.psnr for s in read_scores(out / "metrics.csv") if s.volume[0] == subject.name]
    wanted = [psnr(window.centres[3], outputs[name, TASK]) for name in names[:2]]
    assert set(np.round(wanted, 6)) < set(np.round(found, 6))

    assert "evaluation.json differs in methods, finish)" in run(*arguments).error
    assert run(*arguments, output="plain").code == 0
    rows = [repr(s) for s in read_scores(out / "metrics.csv") if "finished" not in s.method]
    assert [repr(s) for s in read_scores(tmp_path / "plain" / "metrics.csv")] == rows
    assert "finish" not in json.loads((tmp_path / "plain" / "evaluation.json").read_text())
    assert "finished" not in (tmp_path / "plain" / "table.md").read_text()


def test_what_the_settings_ask_for(save, run, tmp_path):
    """A map that isn't there is left out, and an empty --finish leaves out all."""
    path = save("net", ALL)
    outcome = run([path])
    assert "\nfinished: flip, neighbours, background, clip\n" in outcome.out
    assert methods_in(tmp_path / "out") == ["net", "net, finished"]
    assert len(list((tmp_path / "out" / "predict").iterdir())) == 13  # the first method's
    assert run([path], "--finish", output="plain").code == 0
    assert methods_in(tmp_path / "plain") == ["net"]
    assert run([path], "--finish", "map", output="none").error.startswith(
        f"{path} carries no map of validation subjects, which --finish map asks for"
    )
    outcome = run([path], "--finish", "clip", "--names", "mean_image, finished", output="none")
    assert "two methods would be called mean_image, finished" in outcome.error


def test_the_papers_scripts(save, run, tmp_path):
    path = save("net", prior=MAPS)
    paper = {"main": evaluate_tsf_seq2seq, "output": "paper"}
    options = ["-m", path, "--methods", "tsf_without_attention", "tsf", "seq2seq_average"]
    outcome = run([path], *options, "--finish", "clip", "map", **paper)
    assert "differs" not in outcome.out
    assert "carries no map" in outcome.error  # none of the Seq2Seq in it
    outcome = run([path], *options, "--finish", "clip", "background", **paper)
    assert "\nfinished: background, clip\n" in outcome.out
    assert methods_in(tmp_path / "paper") == [
        *("tsf_without_attention", "tsf", "tsf, finished"),
        *("seq2seq_average", "seq2seq_average, finished"),
    ]
    outcome = run([path], "--methods", "tsf_without_attention", "--finish", "clip", **paper)
    assert "--finish clip: there is nothing to finish so among" in outcome.error
    single = {"main": evaluate_seq2seq, "output": "single"}
    outcome = run([path], "--finish", "flip", "--max-subjects", 1, **single)
    assert "\nfinished: flip\n" in outcome.out
    assert "\nfinished: flip\n" in (tmp_path / "single" / "table.md").read_text()
    assert methods_in(tmp_path / "single") == ["seq2seq", "seq2seq, finished"]


def test_a_site_s_maps_are_of_the_finished_output(save, run, tmp_path):
    """`map`, which --like 0 is, is left out."""
    path = save("net", ALL, prior=MAPS)
    outcome = run([path], "--like", 0, 1, "--no-predictions")
    assert "\nfinished: flip, neighbours, background, clip\n" in outcome.out
    names = ["net", "net, finished", "net, finished + 0", "net, finished + 1"]
    assert methods_in(tmp_path / "out") == names
    assert '\n"net, finished",1,2,psnr,' in (tmp_path / "out" / "adaptation.csv").read_text()
    model = open_model(path)
    subjects = find_subjects(model.config.data, model.config.data.test)
    drawn = references_by_site(subjects, subjects, 1, 4, 0)
    finish = network_finish(ALL, EvaluationConfig(), MAPS, NAMES, path, replaced=True)
    plain = NetworkSynthesizer("net", model.network, [FULL], 8, finish)
    one = AdaptedSynthesizer(plain, model.config, [1], lambda s: drawn[s.name], MAPS)
    window = load_window(model.config, subjects[0])
    found = one.predict(window, [TASK])
    (reference,) = drawn[subjects[0].name]
    moments = window_moments(plain, load_window(model.config, reference), [TASK])[TASK]
    sources = window.centres[[0, 2]]
    fitted = fit_map({reference.name: moments}, True, LINEAR.prior)
    wanted = fitted(sources, found["net, finished", TASK], brain_of(sources))
    np.testing.assert_array_equal(found["net, finished + 1", TASK], wanted)


# --- imputation


def sources_of(root: Path, *names: str) -> dict[str, Path]:
    return {name: sequence_file(root, 3, name) for name in names}


def normalised(image, found) -> np.ndarray:
    """An imputed image on the network's scale, (x, y, z)."""
    return image.get_fdata() / found.intensity_maximum * 2 - 1


def test_imputed_images_are_finished(save, two_sites):
    """Steps by steps from the plain one; TSEM stays the network's."""
    model, given = (
        open_model(save("net", ("clip", "map"), prior=MAPS)),
        sources_of(two_sites, "t1", "t2"),
    )
    plain = impute(given, model, "flair", finish=[])
    usual, clipped = (impute(given, model, "flair", finish=f) for f in (None, ["clip"]))
    assert (plain.finish, usual.finish, clipped.finish) == ((), ("map", "clip"), ("clip",))
    value = normalised(plain.image, plain)
    np.testing.assert_allclose(normalised(clipped.image, clipped), value.clip(-1, 1), atol=1e-5)
    scans = [nib.load(path).get_fdata() for path in given.values()]
    brain = (scans[0] > 0) | (scans[1] > 0)
    first = scans[0] / (2 * np.percentile(scans[0], 99)) * 2 - 1
    wanted = np.where(brain, 0.1 + 0.2 * first.clip(-1, 1) + 0.5 * value, -1).clip(-1, 1)
    np.testing.assert_allclose(normalised(usual.image, usual), wanted, atol=2e-3)
    assert usual.intensity_maximum == plain.intensity_maximum
    all_steps = impute(given, model, "flair", finish=ALL)
    assert np.abs(all_steps.image.get_fdata() - usual.image.get_fdata()).max() > 1e-3
    for found in (usual, all_steps):
        np.testing.assert_array_equal(found.tsem.get_fdata(), plain.tsem.get_fdata())
    with pytest.raises(UserError, match=r"--finish: 'evaluation\.finish' must be one of"):
        impute(given, model, "flair", finish=["sharpen"])


def test_an_adaptation_takes_the_maps_place(save, two_sites):
    """The maps of references, or of the checkpoint itself, of the finished output."""
    given, like = sources_of(two_sites, "t1", "t2"), [two_sites / "Tiny_00004"]
    model = open_model(save("net", prior=MAPS))
    found = impute(given, model, "flair", finish=["map", "clip"], like=like)
    assert found.finish == ("clip",)
    assert found.adapted is not None
    adapted = open_model(save("adapted", ("map",), adaptation=MAPS))
    found = impute(given, adapted, "flair")
    assert (found.finish, found.adapted.fitted) == ((), LINEAR)


def test_sidecars_say_the_steps(save, script, two_sites, tmp_path):
    """What was made with other steps is made again."""
    path, out = save("net", ("clip",)), tmp_path / "out"
    files = [x for n, p in sources_of(two_sites, "t1", "t2").items() for x in (f"--{n}", p)]
    arguments = [*files, "-l", path, "-o", out, "--target", "flair"]

    def record() -> object:
        (sidecar,) = out.glob("*_flair_synth.json")
        return json.loads(sidecar.read_text())["Finish"]

    assert script(impute_sequences, *arguments, "--finish").code == 0
    assert record() is None
    outcome = script(impute_sequences, *arguments)
    assert "flair is made again: it was made without finish" in outcome.out + str(outcome.err)
    assert record() == ["clip"]
    outcome = script(impute_sequences, *arguments, "--finish", "clip")
    assert "flair is done already" in outcome.out + str(outcome.err)
    outcome = script(impute_sequences, *arguments, "--finish", "flip", "neighbours")
    assert "flair is made again: it was finished by clip" in outcome.out + str(outcome.err)
    assert record() == ["flip", "neighbours"]
    assert "carries no map" in script(impute_sequences, *arguments, "--finish", "map").error


def test_sidecars_of_before_are_still_true(save, script, two_sites, tmp_path):
    path, out = save("net"), tmp_path / "out"
    files = [x for n, p in sources_of(two_sites, "t1", "t2").items() for x in (f"--{n}", p)]
    arguments = [*files, "-l", path, "-o", out, "--target", "flair"]
    script(impute_sequences, *arguments)
    (sidecar,) = out.glob("*_flair_synth.json")
    before = json.loads(sidecar.read_text())
    assert before.pop("Finish") is None
    sidecar.write_text(json.dumps(before))
    outcome = script(impute_sequences, *arguments)
    assert "flair is done already" in outcome.out + str(outcome.err)
    assert "evaluation" in read_checkpoint(path)["config"]
