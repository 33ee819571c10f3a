"""The paper's image metrics (Table 1): PSNR, SSIM and LPIPS of volumes in [-1, 1]."""

import warnings
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tsf_seq2seq.checkpoints.backbones import load_features
from tsf_seq2seq.data.slices import DATA_RANGE

SSIM_WINDOW = 7  # scikit-image's default: a uniform window of 7 × 7 × 7 voxels
LPIPS_MIN_SIZE = 31  # pixels a side, below which AlexNet's second pooling has no output


def psnr(target: np.ndarray, prediction: np.ndarray) -> float:
    """PSNR = 10·log10(2² / mean (target − prediction)²) in dB, of two (Z, Y, X); inf when equal."""
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(target, prediction, data_range=DATA_RANGE))


def ssim(target: np.ndarray, prediction: np.ndarray) -> float:
    """Mean structural similarity of two (Z, Y, X), in 3-d, scikit-image's defaults (Wang 2004).

    nan ("not measurable") when an axis is shorter than the window's 7 voxels.
    """
    if min(target.shape) < SSIM_WINDOW:
        return float("nan")
    return float(structural_similarity(target, prediction, data_range=DATA_RANGE))


class LPIPS:
    """Learned perceptual distance, AlexNet, version 0.1 with its linear layers (Zhang et al. 2018).

    The linear layers come with the `lpips` package, AlexNet's convolutions from
    `backbones.load_features`: nothing is downloaded.
    """

    def __init__(
        self, device: torch.device | str = "cpu", weights: Path | None = None, batch_size: int = 16
    ) -> None:
        """`weights`: a torchvision AlexNet file, None to search; `batch_size`: slices at a time.

        Raises `UserError` when AlexNet's weights are missing or unusable.
        """
        import lpips  # brings torchvision, which takes seconds to import

        features = load_features("alexnet", weights)
        self.device = torch.device(device)
        self.batch_size = batch_size
        # The package draws random convolutions first; the caller's random numbers stay untouched.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses torchvision's old `pretrained=` argument
            network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        for stage in network.net.children():
            for index, module in stage.named_children():
                module.load_state_dict(features[int(index)].state_dict())
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._last: tuple[np.ndarray, int, list[list[Tensor]]] | None = None

    @torch.no_grad()
    def per_slice(self, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """LPIPS of each slice: (N, H, W) and (N, H, W) in [-1, 1] → (N,) float64.

        The paper reports the sum over a volume's slices. nan for slices under 31 × 31 pixels.
        An array must not change between two calls that it is the target of.
        """
        if target.shape != prediction.shape:
            raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ")
        if min(target.shape[1:]) < LPIPS_MIN_SIZE:
            return np.full(len(target), np.nan)
        batches = self._images(prediction).split(self.batch_size)
        distances = [
            self._distance(wanted, self._features(batch))
            for wanted, batch in zip(self._target_features(target), batches, strict=True)
        ]
        return torch.cat(distances).double().cpu().numpy()

    def _target_features(self, target: np.ndarray) -> list[list[Tensor]]:
        """Features of the target's batches, kept until another array comes as target.

        An evaluation compares one target with the output of many tasks and methods.
        """
        if self._last is None or self._last[0] is not target or self._last[1] != self.batch_size:
            batches = self._images(target).split(self.batch_size)
            self._last = target, self.batch_size, [self._features(batch) for batch in batches]
        return self._last[2]

    def _features(self, images: Tensor) -> list[Tensor]:
        """AlexNet's five activations of (N, 1, H, W), each of unit length along its channels."""
        outputs = self._network.net(self._network.scaling_layer(images))
        return [output / (output.norm(dim=1, keepdim=True) + 1e-10) for output in outputs]

    def _distance(self, target: list[Tensor], prediction: list[Tensor]) -> Tensor:
        """Σ_l mean over (H_l, W_l) of w_l · (φ_l(x) − φ_l(x̂))², (N,): Zhang et al. 2018, Eq. 1."""
        terms = [
            layer((a - b) ** 2).mean(dim=(1, 2, 3))
            for layer, a, b in zip(self._network.lins, target, prediction, strict=True)
        ]
        return torch.stack(terms).sum(dim=0)

    def _images(self, slices: np.ndarray) -> Tensor:
        """(N, H, W) → (N, 1, H, W); the network's own normalisation broadcasts it to RGB."""
        array = np.array(slices, dtype=np.float32, order="C")  # a copy: a memory map is read-only
        return torch.from_numpy(array).unsqueeze(1).to(self.device)
