"""The evaluated window of a subject, and its way back to the subject's grid."""

from pathlib import Path

import numpy as np
import pytest
from conftest import sequence_file

from tsf_seq2seq.config import Config, load_config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.synthesis.windows import load_window


@pytest.fixture
def subject(tiny_dataset: Path) -> Subject:
    return Subject("Tiny_00003", (0,), {0: sequence_file(tiny_dataset, 3, "t1")})


def test_window_and_back(tiny_config: Path, subject: Subject):
    loaded = load_window(load_config(tiny_config), subject)  # 16 × 16 of 20 × 24, 12 slices
    assert loaded.images.shape == (4, 12, 16, 16)
    np.testing.assert_array_equal(loaded.centres, loaded.images[:, 1:11])
    whole = loaded.on_whole_grid(loaded.centres[0], outside=5)
    assert whole.shape == (12, 20, 24)
    np.testing.assert_array_equal(whole[1:11, 2:18, 4:20], loaded.centres[0])
    assert (whole == 5).sum() == whole.size - loaded.centres[0].size


def test_max_stacks_are_the_central_ones(tiny_config: Path, subject: Subject):
    config: Config = load_config(tiny_config)
    whole, quick = load_window(config, subject), load_window(config, subject, max_stacks=4)
    np.testing.assert_array_equal(quick.centres, whole.centres[:, 3:7])
    for loaded in (whole, quick):
        again = loaded.of_whole_grid(loaded.on_whole_grid(loaded.centres[0]))
        np.testing.assert_array_equal(again, loaded.centres[0])


def test_too_few_slices(tiny_config: Path, subject: Subject):
    with pytest.raises(UserError, match="Tiny_00003 has 2 axial slices, but a stack needs 3"):
        load_window(load_config(tiny_config, ["data.slices=2"]), subject)
