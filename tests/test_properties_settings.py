"""Whatever stands in settings, they give a Config or a UserError that names the place."""

import pytest
from conftest import TINY_TSF, tiny_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tsf_seq2seq.config import Config, config_from_mapping, load_config, to_mapping
from tsf_seq2seq.config_layers import override
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.yaml_text import parse_yaml

pytestmark = pytest.mark.property

TEXT = tiny_yaml(TINY_TSF, "data/tiny", "runs/tiny")
SOUND = to_mapping(config_from_mapping(parse_yaml(TEXT), "settings"))
SECTIONS = ("network", "loss", "data", "perceptual", "train")
KEYS = [(section, key) for section in SECTIONS for key in SOUND[section]]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, 10**18, -1, 0, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1e3", "1e999", "9" * 400, "\0", "\ud800", "../x", "/", "seq2seq", "unet"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
# What YAML gives meaning to.
FRAGMENTS = (
    *("yes", "no", "~", "null", "2001-99-99", "1:30", "0x1F", "0b2", "1_0", ".inf", ".nan", "1e9"),
    *("!!bool x", "!!float x", "!!int ''", "!!set {a}", "!!binary x", "!!python/name:os.x", "!x"),
    *("&a", "*a", "<<: *a", "<<:", "? ", ": ", "- ", "[", "]", "{", "}", "'", '"', "|", ">", "#"),
    *("%", "---", "...", "\n", "\t", "\0", "\ufeff", "\x1b", "é", "base: x.yaml\n", "=", "9" * 50),
)


def check(config) -> None:
    """It is the Config of its own plain values."""
    assert isinstance(config, Config)
    assert config_from_mapping(to_mapping(config), "settings") == config


def said_of(values) -> str | None:
    """What is said against settings; None of those that are taken, and hold."""
    try:
        config = config_from_mapping(values, "the settings")
    except UserError as error:
        return str(error)
    check(config)
    return None


@given(place=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key(place, value):
    section, key = place
    said = said_of(SOUND | {section: SOUND[section] | {key: value}})
    if said is not None:
        assert said.startswith("the settings: ")
        assert section in said
        assert len(said) < 1500


@given(section=st.sampled_from([*SECTIONS, "seq2seq", "fusion", "base"]), value=VALUES)
def test_any_section(section, value):
    said = said_of(SOUND | {section: value})
    if said is not None:
        assert said.startswith("the settings: ")
        assert section in said


@given(
    cuts=st.lists(
        st.tuples(
            st.integers(0, len(TEXT)), st.integers(0, 12), st.sampled_from(FRAGMENTS) | st.text()
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_text(tmp_path_factory, cuts):
    """Pieces of a sound YAML replaced by others."""
    text = TEXT
    for place, length, piece in cuts:
        text = text[:place] + piece + text[place + length :]
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config = load_config(path)
    except UserError as error:
        said = str(error)
    else:
        check(config)
        return
    assert str(path) in said
    assert "\n" not in said


@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    try:
        load_config(path)
    except UserError as error:
        said = str(error)
    else:
        return
    assert str(path) in said


@given(key=st.sampled_from([f"{a}.{b}" for a, b in KEYS]) | st.text(), value=st.text())
@example("network.kernels", "1e9")
@example("train.seed", "9" * 5000)
@example("train.seed", "0x" + "f" * 5000)
def test_any_override(key, value):
    try:
        values = override(SOUND, [f"{key}={value}"])
        config = config_from_mapping(values, "the settings")
    except UserError as error:
        said = str(error)
    else:
        check(config)
        return
    assert said.startswith(("--set", "the settings: "))
