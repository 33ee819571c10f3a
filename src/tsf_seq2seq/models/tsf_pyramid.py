"""TSF-Pyramid: task-specific fusion at every scale, on top of a regression at every voxel.

Of TSF-Seq2Seq (arXiv 2307.00885) it has the sources encoded one by one, the fusion weights ω, the
residual f_A and with it the ablation and TSEM, and the normalised features, which no scanner's
brightness misleads. Absolute intensities reach the output through the regression.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, Availability, SynthesisNetwork
from tsf_seq2seq.models.blocks import Conv, Norm, feature_norm
from tsf_seq2seq.models.fusion import FusionWeights, weighted_average
from tsf_seq2seq.models.regression_head import RegressionHead, set_index
from tsf_seq2seq.models.scales import Stage, ascend, descend, fill_absent
from tsf_seq2seq.settings import NetworkSettings, setting
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import Task

USUAL_ERROR = 0.02  # mean squared error of a regression in the brain, where no data have told it


@dataclass(frozen=True)
class TSFPyramidConfig(NetworkSettings):
    """Architecture of TSF-Pyramid; what can be switched off is there for ablations."""

    name: str = setting("tsf_pyramid", "which network")
    channels: tuple[int, ...] = setting(
        (32, 64, 128, 256), "channels per scale, each half as large", 1
    )
    residual_blocks: int = setting(2, "residual blocks per scale, on either way", 1)
    norm: Literal["branch", "everywhere", "none"] = setting(
        "everywhere", "what is normalised: all, as in the paper, or residual branches, or nothing"
    )
    regression: bool = setting(True, "whether the output starts from a regression at every voxel")
    joint: bool = setting(True, "whether the sources are encoded together, too, which gives f_A")
    weights_per_scale: bool = setting(True, "whether every scale has fusion weights ω of its own")

    def build(self, n_sequences: int, stack: int) -> "TSFPyramid":
        scales = self.channels, self.residual_blocks, self.norm
        options = self.regression, self.joint, self.weights_per_scale
        return TSFPyramid(n_sequences, stack, *scales, *options)


class NormalisedConv(Conv):
    """A convolution followed by InstanceNorm, as the paper's networks have it."""

    def forward(self, x: Tensor) -> Tensor:
        return feature_norm(super().forward(x), "instance")


class ScaleEncoder(nn.Module):
    """Images (B, c_in, H, W) → features of every scale, (B, c, H/r, W/r) each."""

    def __init__(
        self, c_in: int, channels: Sequence[int], blocks: int, code_length: int, norm: str
    ) -> None:
        super().__init__()
        conv, branch = _kinds(norm)
        self.first = conv(c_in, channels[0], 3)
        self.stages = nn.ModuleList(Stage(c, blocks, code_length, branch) for c in channels)
        self.shrink = nn.ModuleList(
            conv(fine, coarse, 3, 2) for fine, coarse in itertools.pairwise(channels)
        )

    def forward(self, x: Tensor, code: Tensor) -> list[Tensor]:
        return descend(self.first(x), code, self.stages, self.shrink)


class ScaleDecoder(nn.Module):
    """Features of every scale → images (B, c_out, H, W) of a target; an untrained one gives zero.

    Each target has a last layer of its own: what is bright in T2 is dark in T1, and a code that
    only scales residual branches is slow to turn a sign.
    """

    def __init__(
        self, n_sequences: int, c_out: int, channels: Sequence[int], blocks: int, norm: str
    ) -> None:
        super().__init__()
        conv, branch = _kinds(norm)
        code_length = 2 * n_sequences
        self.coarsest = Stage(channels[-1], blocks, code_length, branch)
        self.enlarge = nn.ModuleList(
            conv(coarse, fine, 3) for fine, coarse in itertools.pairwise(channels)
        )
        self.stages = nn.ModuleList(Stage(c, blocks, code_length, branch) for c in channels[:-1])
        last = [Conv(channels[0], c_out, 3) for _ in range(n_sequences)]
        for layer in last:
            nn.init.zeros_(layer.weight)
        self.last = nn.ModuleList(last)

    def forward(self, features: Sequence[Tensor], code: Tensor, target: int) -> Tensor:
        """`features` from the full resolution on, `code` (2S,) of the task, its `target`."""
        *skips, coarsest = features
        features = [*skips, self.coarsest(coarsest, code)]
        return self.last[target](ascend(features, code, self.stages, self.enlarge))


class TSFPyramid(SynthesisNetwork):
    """regression(sources) + decoder(Σ ω_i encoder(source_i) + f_A), with ω and f_A at every scale.

    f_A is what a second encoder makes of all sources at once: the one place where features of one
    source meet those of another before the decoder.
    """

    variants = (FULL, WITHOUT_ATTENTION)
    regression_errors: Tensor  # (2^S, S): of each set of sources and target, a mean squared error

    def __init__(
        self,
        n_sequences: int,
        slices: int,
        channels: tuple[int, ...],
        blocks: int,
        norm: str = "everywhere",
        regression: bool = True,
        joint: bool = True,
        weights_per_scale: bool = True,
    ) -> None:
        """`channels`: of each scale, the full resolution first; `blocks`: per scale and way."""
        super().__init__()
        self.n_sequences, self.slices = n_sequences, slices
        self.size_multiple = 2 ** (len(channels) - 1)
        self.regression = RegressionHead(n_sequences) if regression else None
        self.encoder = ScaleEncoder(slices, channels, blocks, n_sequences, norm)
        self.joint_encoder = (
            ScaleEncoder(n_sequences * (slices + 1), channels, blocks, n_sequences, norm)
            if joint
            else None
        )
        n_weights = len(channels) if weights_per_scale else 1
        self.fusion = nn.ModuleList(FusionWeights(n_sequences) for _ in range(n_weights))
        self.decoder = ScaleDecoder(n_sequences, slices, channels, blocks, norm)
        unknown = torch.full((2**n_sequences, n_sequences), USUAL_ERROR)
        self.register_buffer("regression_errors", unknown)

    def forward(
        self, images: Tensor, available: Availability, target: int, attention: bool = True
    ) -> Tensor:
        """Synthesize sequence `target` from the available ones.

        images (B, S, C, H, W) in [-1, 1], available (S,) bool → (B, C, H, W), background where all
        sources are. In [-1, 1] where the network is in evaluation mode; in training what is beyond
        counts as error. Pixels of absent sequences are never read.
        """
        sources = self.sources_of(available)
        features = {i: self.encode(images, i) for i in sources}
        residual = self.encode_jointly(images, sources) if attention else []
        task = Task(tuple(sources), target)
        ((_, output),) = self.outputs_of(features, residual, images, task)
        return output  # (B, C, H, W)

    def encode(self, images: Tensor, source: int) -> list[Tensor]:
        """One source by itself: features of every scale, (B, c, H'/r, W'/r) each."""
        return self.encoder(self.pad(images[:, source]), self._code([source]))

    def encode_jointly(self, images: Tensor, sources: Sequence[int]) -> list[Tensor]:
        """f_A of every scale, (B, c, H'/r, W'/r) each: all sources at once; none without it."""
        if self.joint_encoder is None:
            return []
        code = self._code(sources)  # the availability (S,)
        filled = fill_absent(images, code)  # (B, S·C + S, H, W)
        return self.joint_encoder(self.pad(filled), code)

    def fuse(
        self, features: Mapping[int, list[Tensor]], sources: Sequence[int], target: int
    ) -> list[Tensor]:
        """f̂ = Σ ω_i f_i at every scale, (B, c, H'/r, W'/r) each; `features` of each source."""
        code = self.task_code(sources, target)  # (2S,)
        weights = [fusion(code) for fusion in self.fusion]  # (S,) each
        fused = []
        for scale in range(len(features[sources[0]])):
            of_scale = weights[scale if len(weights) > 1 else 0]
            parts = torch.stack([features[i][scale] for i in sources], dim=1)
            fused.append(weighted_average(parts, of_scale[list(sources)]))
        return fused

    def decode(
        self, features: Sequence[Tensor], images: Tensor, sources: Sequence[int], target: int
    ) -> Tensor:
        """Fused features → the regression of the sources' images and what is added to it."""
        code = self.task_code(sources, target)  # (2S,)
        refinement = self.decoder(features, code, target)  # (B, C, H', W')
        refinement = refinement[..., : images.shape[-2], : images.shape[-1]].float()
        base = self.base(images, sources, target)
        outside = (images[:, list(sources)] <= BACKGROUND).all(dim=1)  # (B, C, H, W)
        output = torch.where(outside, BACKGROUND, base + refinement)
        return output if self.training else output.clamp(-1, 1)

    def base(self, images: Tensor, sources: Sequence[int], target: int) -> Tensor:
        """What the output starts from, (B, C, H, W): the regression, or background."""
        if self.regression is None:
            return torch.full_like(images[:, 0], BACKGROUND)
        return self.regression(images, sources, target)

    def synthesize(
        self, images: Tensor, tasks: Sequence[Task], variants: Sequence[str] = (FULL,)
    ) -> Iterator[tuple[str, Task, Tensor]]:
        """As every network does it; each source is encoded once, each set of sources, too."""
        features = {i: self.encode(images, i) for i in {i for task in tasks for i in task.sources}}
        for sources, members in group_by(tasks, _sorted_sources).items():
            residual = self.encode_jointly(images, sources) if FULL in variants else []
            for task in members:
                for variant, output in self.outputs_of(features, residual, images, task, variants):
                    yield variant, task, output

    def outputs_of(
        self,
        features: Mapping[int, list[Tensor]],
        residual: Sequence[Tensor],
        images: Tensor,
        task: Task,
        variants: Sequence[str] = (FULL,),
    ) -> Iterator[tuple[str, Tensor]]:
        """Variants of a task, (B, C, H, W) each, from what is encoded: each source, and f_A."""
        fused = self.fuse(features, *task)  # per scale (B, c, H'/r, W'/r)
        for variant in variants:
            full = variant == FULL and residual  # f̂ + f_A; f̂ where there is no f_A
            used = [a + b for a, b in zip(fused, residual, strict=True)] if full else fused
            yield variant, self.decode(used, images, *task)

    def scale_weights(self, available: Availability, target: int) -> Tensor:
        """Fusion weights ω of every scale, (scales, S), the full resolution first; rows sum to one.

        One row for all scales where the network has the same ω at each.
        """
        code = self.task_code(self.sources_of(available), target)
        return torch.stack([fusion(code) for fusion in self.fusion])

    def fusion_weights(self, available: Availability, target: int) -> Tensor:
        """Fusion weights ω (S,) of a task, their mean over the scales, which sum to one."""
        return self.scale_weights(available, target).mean(dim=0)

    def regression_error(self, sources: Sequence[int], target: int) -> Tensor:
        """Mean squared error of the closed-form regression of a task on its training data, ()."""
        return self.regression_errors[set_index(sources), target]

    @torch.no_grad()
    def set_regression_error(self, task: Task, error: float) -> None:
        """What training measures a task's errors against; at least 40 dB, for data without any."""
        self.regression_errors[set_index(task.sources), task.target] = max(error, 4e-4)

    @property
    def regression_head(self) -> RegressionHead | None:
        return self.regression

    def _code(self, sources: Sequence[int]) -> Tensor:
        """Ones at the sources, (S,)."""
        code = torch.zeros(self.n_sequences, device=next(self.parameters()).device)
        code[list(sources)] = 1
        return code


def _kinds(norm: str) -> tuple[type[Conv], Norm]:
    """The convolutions between blocks, and the normalisation of residual branches."""
    return (NormalisedConv if norm == "everywhere" else Conv), (
        "none" if norm == "none" else "instance"
    )


def _sorted_sources(task: Task) -> tuple[int, ...]:
    return tuple(sorted(task.sources))
