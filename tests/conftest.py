"""Reference arrays and small networks that several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tsf_seq2seq.models import TSFSeq2Seq
from tsf_seq2seq.published import load_published

REFERENCE = Path(__file__).parent / "reference"
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    """Arrays that the authors' implementation gave for the small random model."""
    return dict(np.load(REFERENCE / "model" / "expected.npz"))


@pytest.fixture
def reference_model() -> TSFSeq2Seq:
    """The small random model, from its published-style YAML and state dicts."""
    folder = REFERENCE / "model"
    model = load_published(folder / "config.yaml", folder / "seq2seq.pth", folder / "tsf.pth")
    assert isinstance(model, TSFSeq2Seq)
    return model
