"""A store whose index was changed anyhow opens and gives its volumes, or is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SEQUENCES, blob, save_nifti
from hypothesis import given
from hypothesis import strategies as st

from tsf_seq2seq.config import DataConfig
from tsf_seq2seq.data.loading import load_subject
from tsf_seq2seq.data.prepare import STORED, fill_store, verify
from tsf_seq2seq.data.store import VolumeStore
from tsf_seq2seq.errors import UserError

pytestmark = pytest.mark.property

SHAPE = (7, 6, 5)
NAMES = ("a", "b")
ENTRY = ("file", "crc32", "dtype", "sequences", "shape", "affine", "box", "doubt")
SEQUENCE = ("file", "bytes", "mtime_us", "maximum", "grid")
PLACES = st.one_of(
    st.sampled_from([("version",), ("sequences",), ("subjects",), ("crc32",)]),
    st.tuples(st.just("subjects"), st.sampled_from(NAMES)),
    st.tuples(st.just("subjects"), st.sampled_from(NAMES), st.sampled_from(ENTRY)),
    st.tuples(st.just("subjects"), st.just("a"), st.just("shape"), st.integers(0, 2)),
    st.tuples(
        *(st.just("subjects"), st.just("a"), st.just("box"), st.integers(0, 2), st.integers(0, 1))
    ),
    st.tuples(
        *(st.just("subjects"), st.just("a"), st.just("affine")),
        *(st.integers(0, 3), st.integers(0, 3)),
    ),
    st.tuples(
        *(st.just("subjects"), st.just("a"), st.just("sequences"), st.sampled_from(SEQUENCES)),
        st.sampled_from(SEQUENCE),
    ),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["a.b2nd", "b.b2nd", "../a.b2nd", "int16", "float64", "00000000"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*SEQUENCES, *NAMES, "shape", "affine"]), inner)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Two subjects, of one of which the whole grid is stored."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(NAMES):
        for index, sequence in enumerate(SEQUENCES):
            voxels = blob(10 * number + index, SHAPE) + np.int16(number)
            save_nifti(root / name / f"{name}_{sequence}.nii.gz", voxels)
    data = DataConfig(root=root)
    assert dict(fill_store(data, {"a": 15, "b": 15}, root / "store")) == dict.fromkeys("ab", STORED)
    (root / "sound.json").write_bytes((root / "store" / "index.json").read_bytes())
    return root / "store"


def sound(store: Path) -> str:
    return (store.parent / "sound.json").read_text()


def images(store: Path) -> dict[str, np.ndarray]:
    """Every subject's, as far as the store says; UserError."""
    opened = VolumeStore(store)
    return {name: load_subject(opened.subject(name), 4, 4).images for name in opened.names}


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 8), st.binary(max_size=8)),
        min_size=1,
        max_size=3,
    )
)
def test_any_text(store, changes):
    """Its checksum tells every change of the text that changes what it says."""
    (store / "index.json").write_text(sound(store))
    wanted = images(store)
    content = sound(store).encode()
    for place, length, piece in changes:
        place %= len(content) + 1
        content = content[:place] + piece + content[place + length :]
    (store / "index.json").write_bytes(content)
    try:
        found = images(store)
    except UserError as error:
        said = str(error)
    else:
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        return
    assert str(store) in said


@given(changes=st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=2))
def test_any_value(store, changes):
    """Even where no checksum tells it: no other error, and no volume off its range."""
    values = json.loads(sound(store)) | {"crc32": None}
    for place, value in changes:
        inner = values
        for key in place[:-1]:
            try:
                inner = inner[key]
            except (KeyError, IndexError, TypeError):
                break
        if isinstance(inner, dict) or (isinstance(inner, list) and place[-1] in range(len(inner))):
            inner[place[-1]] = value
    (store / "index.json").write_text(json.dumps(values))
    try:
        found = images(store)
        outcomes = dict(verify(VolumeStore(store)))
    except UserError as error:
        said = str(error)
    else:
        assert outcomes.keys() == found.keys()
        for volume in found.values():
            assert volume.dtype == np.float32
            assert -1 <= volume.min() <= volume.max() <= 1
        return
    assert str(store) in said
