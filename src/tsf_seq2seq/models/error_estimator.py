"""An estimator of how far a synthesis is off, voxel by voxel, for the outputs of any network."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.models.base import FULL, SynthesisNetwork, code_of, reflect_to_multiple
from tsf_seq2seq.models.blocks import Conv
from tsf_seq2seq.models.scales import Stage, ascend, descend, fill_absent
from tsf_seq2seq.settings import setting
from tsf_seq2seq.tasks import Task

ERROR_SCALE = "error_scale"  # the variant of a judged network that is no image
USUAL_LOG_SCALE = -2.5  # logarithm of a usual error, which an untrained estimator gives everywhere
LARGEST_CHANGE = 6.0  # of that logarithm, smoothly, so that no training is stuck beyond it


@dataclass(frozen=True)
class ErrorEstimatorConfig:
    """Architecture of the estimator of errors."""

    channels: tuple[int, ...] = setting((16, 32, 64), "channels per scale, the finest one first", 1)
    residual_blocks: int = setting(1, "residual blocks per scale, on either way", 1)
    # The first checkpoints with an estimator don't say it: theirs is 2.
    reduction: int = setting(2, "how many times coarser than the images the finest scale is", 1)

    def build(self, n_sequences: int, slices: int) -> "ErrorEstimator":
        return ErrorEstimator(n_sequences, slices, self)


class ErrorEstimator(nn.Module):
    """A U-Net on the sources and the synthesis, told the task → the scale of a Laplace
    distribution of the error of the centre slice.

    With a reduction r it works on images r times coarser, of which each r × r voxels are channels:
    with 2 faster than with 1 and nearly as good, since scales of neighbouring errors are alike.
    Kendall and Gal, "What uncertainties do we need in Bayesian deep learning for computer vision?",
    NeurIPS 2017; the image itself is another network's.
    """

    def __init__(self, n_sequences: int, slices: int, settings: ErrorEstimatorConfig) -> None:
        super().__init__()
        self.n_sequences, self.slices = n_sequences, slices
        channels, blocks = settings.channels, settings.residual_blocks
        self.reduction = settings.reduction
        self.size_multiple = self.reduction * 2 ** (len(channels) - 1)
        together = self.reduction**2
        code, pairs = 2 * n_sequences, list(itertools.pairwise(channels))
        self.first = Conv(together * (n_sequences * (slices + 1) + slices), channels[0], 3)
        self.down = nn.ModuleList(Stage(c, blocks, code, "instance") for c in channels)
        self.shrink = nn.ModuleList(Conv(fine, coarse, 3, 2) for fine, coarse in pairs)
        self.enlarge = nn.ModuleList(Conv(coarse, fine, 3) for fine, coarse in pairs)
        self.up = nn.ModuleList(Stage(c, blocks, code, "instance") for c in channels[:-1])
        self.last = Conv(channels[0], together, 3)
        nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor, output: Tensor, task: Task) -> Tensor:
        """images (B, S, C, H, W), of which the task's sources are read, and the network's output
        (B, C, H, W), all in [-1, 1] → logarithm of the scale (B, H, W)."""
        code = code_of(task, self.n_sequences, images.device)
        height, width = images.shape[-2:]
        seen = fill_absent(images, code[: self.n_sequences])  # (B, S·C + S, H, W)
        x = reflect_to_multiple(torch.cat([seen, output], dim=1), self.size_multiple)
        x = self.first(F.pixel_unshuffle(x, self.reduction))  # (B, c, H'/r, W'/r)
        features = descend(x, code, self.down, self.shrink)
        x = self.last(ascend(features, code, self.up, self.enlarge))  # (B, r², H'/r, W'/r)
        x = F.pixel_shuffle(x, self.reduction)  # (B, 1, H', W')
        change = LARGEST_CHANGE * torch.tanh(x[:, 0, :height, :width] / LARGEST_CHANGE)
        return USUAL_LOG_SCALE + change


class JudgedNetwork(SynthesisNetwork):
    """A network whose outputs an estimator judges in the same pass.

    Of the variant ERROR_SCALE an output (B, C, H, W) is the scale of the centre slice's errors, C
    times the same, in the images' intensities.
    """

    def __init__(
        self, network: SynthesisNetwork, estimator: ErrorEstimator, judged: str = FULL
    ) -> None:
        """`judged`: the variant of the network that is looked at."""
        super().__init__()
        self.network, self.estimator, self.judged = network, estimator, judged
        self.n_sequences, self.slices = network.n_sequences, network.slices
        self.size_multiple = network.size_multiple
        self.variants = (*network.variants, ERROR_SCALE)  # type: ignore[misc]

    def accepts(self, task: Task, variant: str = FULL) -> bool:
        return self.network.accepts(task, self.judged if variant == ERROR_SCALE else variant)

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As the network does, and after each judged output its scale, where that is wanted."""
        wanted = dict.fromkeys(v for v in variants if v != ERROR_SCALE)
        asked = wanted | ({self.judged: None} if ERROR_SCALE in variants else {})
        for variant, task, output in self.network.synthesize(images, tasks, list(asked)):
            if variant in wanted:
                yield variant, task, output
            if variant == self.judged and ERROR_SCALE in variants:
                scale = self.estimator(images, output, task).exp()  # (B, H, W)
                yield ERROR_SCALE, task, scale[:, None].expand_as(output)
