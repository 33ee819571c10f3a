"""Maps of a checkpoint that were damaged: refused in a sentence that names file and key."""

from pathlib import Path

import pytest
import torch

from tsf_seq2seq.checkpoints.checkpoint import open_model, read_checkpoint, save_checkpoint
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap
from tsf_seq2seq.synthesis.likeness import Histogram


def drop_a_number(maps: dict) -> None:
    maps["t1:t2"]["coefficients"] = maps["t1:t2"]["coefficients"][:5]


def drop_a_term(maps: dict) -> None:
    maps["t1:t2"]["coefficients"] = (0.0,) * 5
    maps["t1:t2"]["metric"] = (0.0,) * 25


def with_nan(maps: dict) -> None:
    maps["t1:t2"]["coefficients"] = (float("nan"), *(0.0,) * 5)


def of_the_sources(maps: dict) -> None:
    maps["t1:t2"]["uses_output"] = False


def no_task(maps: dict) -> None:
    maps["t1:t1"] = maps.pop("t1:t2")


def unknown_sequence(maps: dict) -> None:
    maps["t1:pd"] = maps.pop("t1:t2")


def another_task(maps: dict) -> None:
    maps["t1+flair:t2"] = maps.pop("t1:t2")


def no_maps(maps: dict) -> None:
    maps.clear()


def no_numbers(maps: dict) -> None:
    del maps["t1:t2"]["metric"]


DAMAGES = [
    (drop_a_number, "{key}.maps.t1:t2: metric must have 25 numbers, not 36"),
    (drop_a_term, "{key}.maps.t1:t2: coefficients can't be 5"),
    (with_nan, "'{key}.maps.t1:t2.coefficients' must be a number, not nan"),
    (of_the_sources, "{key}.maps has 't1:t2', which is no map of a task"),
    (no_task, "{key}.maps has 't1:t1', which is no map of a task"),
    (unknown_sequence, "{key}.maps has 't1:pd', which is no map of a task"),
    (another_task, "{key}.maps has 't1+flair:t2', which is no map of a task"),
    (no_maps, "'{key}.maps' must be a mapping of names, not {{}}"),
    (no_numbers, "key '{key}.maps.t1:t2.metric' is missing"),
]
MADE = Adaptation(
    (),
    {"t1:t2": ContrastMap((0.0, 0.0, 1.0, 0.0, 0.0, 0.0), (0.0,) * 36, True, 1.0)},
    {"t2": 900.0},
    (Histogram("a", {"t1": (0.0,) * 19}),),
)


@pytest.mark.parametrize("key", ["prior", "adaptation"])
def test_damaged_maps_are_told(checkpoint, key, tmp_path):
    """By the file and the key, whichever of the two it is."""
    model, path = open_model(checkpoint), tmp_path / "damaged.pth"
    save_checkpoint(path, model.network, model.config, **{key: MADE})
    assert getattr(open_model(path), key) == MADE
    for damage, message in DAMAGES:
        content = read_checkpoint(path)
        damage(content[key]["maps"])
        check_refused(content, tmp_path / "other.pth", message.format(key=key))
    for part, value, message in (
        ("maxima", {"t2": 0.0}, f"{key}: maxima must be above 0, not 0"),
        ("histograms", [{"name": "a", "quantiles": {"t1": [0.0] * 18}}], "quantiles must be 19, "),
        ("references", [{"name": "a"}], f"key '{key}.references.fingerprints' is missing"),
        ("colour", 1, f"unknown key '{key}.colour'"),
    ):
        content = read_checkpoint(path)
        content[key][part] = value
        check_refused(content, tmp_path / "other.pth", message)
    content = read_checkpoint(path)
    content[key] = [1, 2]
    check_refused(content, tmp_path / "other.pth", f"'{key}' must be a mapping of keys")


def check_refused(content: dict, path: Path, message: str) -> None:
    torch.save(content, path)
    with pytest.raises(UserError) as error:
        open_model(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
