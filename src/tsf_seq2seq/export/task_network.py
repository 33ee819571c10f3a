"""One task of a network: all that depends on the task alone is folded into constants."""

import copy
from dataclasses import dataclass
from math import lcm

import torch
from torch import Tensor, nn

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.models.attention import AttentionLayer, present_part
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, SynthesisNetwork
from tsf_seq2seq.models.blocks import GeneratedConv, HyperConv
from tsf_seq2seq.models.convlstm import ConvLSTMCell
from tsf_seq2seq.models.fusion import weighted_average
from tsf_seq2seq.models.seq2seq import Seq2Seq
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq
from tsf_seq2seq.synthesis.contrast_map import ContrastMap
from tsf_seq2seq.synthesis.error_map import ErrorMap
from tsf_seq2seq.tasks import Task


class FoldedConv(HyperConv):
    """A HyperConv for one code: kernel (c_out, c_in, k, k) and bias (c_out,) are constants."""

    folded_kernel: Tensor
    folded_bias: Tensor | None

    def __init__(self, conv: GeneratedConv) -> None:
        nn.Module.__init__(self)
        self.register_buffer("folded_kernel", conv.kernel)
        self.register_buffer("folded_bias", conv.bias)

    def kernel(self, code: Tensor) -> Tensor:
        return self.folded_kernel

    def bias(self, code: Tensor) -> Tensor | None:
        return self.folded_bias

    def generate(self, codes: Tensor) -> list[GeneratedConv]:
        return [GeneratedConv(self.folded_kernel, self.folded_bias)]


class FoldedCell(ConvLSTMCell):
    """A ConvLSTM cell of which only the part remains that a single time step uses."""

    folded_kernel: Tensor
    folded_bias: Tensor

    def __init__(self, cell: ConvLSTMCell) -> None:
        nn.Module.__init__(self)
        kernel, bias = cell.first_step_conv()
        self.register_buffer("folded_kernel", kernel)
        self.register_buffer("folded_bias", bias)

    def first_step_conv(self) -> tuple[Tensor, Tensor]:
        return self.folded_kernel, self.folded_bias


class MapLayer(nn.Module):
    """A contrast map on tensors: β · φ of sources and output, background outside the brain."""

    linear: Tensor
    products: Tensor

    def __init__(self, fitted: ContrastMap, task: Task) -> None:
        """Sources come in the order in which `task` names them; the map knows them sorted."""
        super().__init__()
        self.constant, linear, products = fitted.parts
        self.uses_output = fitted.uses_output
        self.order = sorted(range(len(task.sources)), key=lambda i: task.sources[i])
        self.register_buffer("linear", torch.from_numpy(linear.copy()))
        self.register_buffer("products", torch.from_numpy(products))

    def forward(self, images: Tensor, output: Tensor) -> Tensor:
        """Images (B, n, C, H, W) and the network's output (B, C, H, W) → (B, C, H, W)."""
        variables = [images[:, i] for i in self.order] + ([output] if self.uses_output else [])
        found = torch.full_like(output, float(self.constant))
        for i, variable in enumerate(variables):
            slope = self.linear[i].expand_as(variable)
            for j in range(i, len(variables)):
                slope = slope + self.products[i, j] * variables[j]
            found = found + variable * slope
        brain = images.amax(dim=1) > BACKGROUND
        return torch.where(brain, found.clamp(-1, 1), torch.full_like(found, BACKGROUND))


class ErrorLayer(nn.Module):
    """What an output of one task is expected to be off by, in one pass over sources and output."""

    def __init__(self, error_map: ErrorMap, task: Task) -> None:
        super().__init__()
        self.task = task
        self.factor = error_map.calibration.expected if error_map.calibration else 1.0
        self.estimator = copy.deepcopy(error_map.estimator).requires_grad_(False).eval()
        self.size_multiple = self.estimator.size_multiple

    def forward(self, images: Tensor, output: Tensor) -> Tensor:
        """Images (B, S, C, H, W) and output (B, C, H, W) → expected error (B, H, W)."""
        return self.factor * self.estimator(images, output, self.task).exp()


@dataclass(frozen=True)
class TaskOutputs:
    """What is wanted of a task: the image, or what the map `fitted` makes of the network's; `tsem`,
    and what an `error_map` expects the network's own image to be off by, where wanted."""

    tsem: bool = False
    fitted: ContrastMap | None = None
    error_map: ErrorMap | None = None

    @property
    def names(self) -> list[str]:
        """Of the outputs, in their order."""
        wanted = {"image": True, "tsem": self.tsem, "error": self.error_map is not None}
        return [name for name, given in wanted.items() if given]


class TaskNetwork(nn.Module):
    """A network for one task, whose codes and fusion weights are numbers: what ONNX files hold."""

    weights: Tensor

    def __init__(
        self,
        network: SynthesisNetwork,
        task: Task,
        outputs: TaskOutputs = TaskOutputs(),
    ) -> None:
        """`network` is left as it is; sources come in the order in which `task` names them.

        Raises ValueError where the network can't do the task, or has no TSEM though asked for.
        """
        super().__init__()
        if not network.accepts(task):
            raise ValueError(f"a {type(network).__name__} takes one source")
        if outputs.tsem and WITHOUT_ATTENTION not in network.variants:
            raise ValueError(f"a {type(network).__name__} has no TSEM")
        self.task, self.outputs = task, outputs
        self.network = _fold(network, task).requires_grad_(False).eval()
        self.error = ErrorLayer(outputs.error_map, task) if outputs.error_map else None
        self.slices, self.size_multiple = network.slices, network.size_multiple
        if self.error is not None:
            self.size_multiple = lcm(self.size_multiple, self.error.size_multiple)
        self.register_buffer("weights", _source_weights(network, task))
        self.map = MapLayer(outputs.fitted, task) if outputs.fitted else None

    @property
    def smallest_size(self) -> int:
        """Smallest height and width of images at which every convolution's border fits."""
        kernels = [tensor.shape[-1] for tensor in self.state_dict().values() if tensor.dim() == 4]
        return self.size_multiple * (max(kernels) // 2 + 1)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Synthesize the target: images (B, n, C, H, W) of the sources, in [-1, 1].

        The sizes H and W are multiples of `size_multiple`. → (B, C, H, W) in [-1, 1]; with TSEM
        also |output with f_A − output without f_A| of the centre slice, (B, H, W); with an error
        map also the expected absolute error of the centre slice of the network's own output.
        """
        output, *further = self._outputs(images)
        if self.error is not None:
            further.append(self.error(self._all_sequences(images), output))
        image = output if self.map is None else self.map(images, output)
        return (image, *further) if further else image

    def _outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The network's own."""
        network = self.network
        if isinstance(network, Seq2Seq):
            return (self._decode(network, network.encode(images)),)  # (B, C, H, W)
        if not isinstance(network, TSFSeq2Seq):
            variants = network.variants if self.outputs.tsem else (FULL,)
            stacks = self._all_sequences(images)
            found = [image for *_, image in network.synthesize(stacks, [self.task], variants)]
            return _with_tsem(*found)
        features = network.encode(images)  # (B, n, c, H/r, W/r)
        fused = weighted_average(features, self.weights)  # (B, c, H/r, W/r)
        residual = network.attention(features, fused, _no_code(images), None)
        refined = self._decode(network.seq2seq, fused + residual)  # (B, C, H, W)
        if not self.outputs.tsem:
            return (refined,)
        return _with_tsem(refined, self._decode(network.seq2seq, fused))

    def _decode(self, seq2seq: Seq2Seq, feature: Tensor) -> Tensor:
        (convs,) = seq2seq.decoder.generate(_no_code(feature))
        size = [side * seq2seq.size_multiple for side in feature.shape[-2:]]
        return seq2seq.decode(feature, convs, size).squeeze(1)

    def _all_sequences(self, images: Tensor) -> Tensor:
        """The sources' images (B, n, C, H, W) in their places, the rest at background."""
        absent = torch.full_like(images[:, 0], BACKGROUND)
        places = dict(zip(self.task.sources, images.unbind(dim=1), strict=True))
        indices = range(self.network.n_sequences)
        return torch.stack([places.get(i, absent) for i in indices], dim=1)


def _with_tsem(refined: Tensor, plain: Tensor | None = None) -> tuple[Tensor, ...]:
    """The output (B, C, H, W), and where there is one without f_A, TSEM of the centre slice."""
    if plain is None:
        return (refined,)
    return refined, (refined - plain)[:, refined.shape[1] // 2].abs()  # (B, H, W)


def _available(network: SynthesisNetwork, task: Task) -> list[bool]:
    return [index in task.sources for index in range(network.n_sequences)]


@torch.no_grad()
def _source_weights(network: SynthesisNetwork, task: Task) -> Tensor:
    """ω (n,) of the task's sources; ones for a network without fusion weights."""
    weights = network.fusion_weights(_available(network, task), task.target)
    return torch.ones(len(task.sources)) if weights is None else weights[list(task.sources)]


def _no_code(x: Tensor) -> Tensor:
    """What a folded module gets in place of the code that it was folded for."""
    return x.new_empty(0)


@torch.no_grad()
def _fold(network: SynthesisNetwork, task: Task) -> SynthesisNetwork:
    """A copy of `network` in which folded modules stand for those that depend on the task.

    The copying takes them in place of the originals, whose kernels (c_w times larger) are thus
    never held twice.
    """
    seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
    if not isinstance(seq2seq, Seq2Seq):
        return copy.deepcopy(network)
    style = seq2seq.target_style(task.target)
    folded: dict[int, nn.Module] = {
        id(cell): FoldedCell(cell) for cell in network.modules() if isinstance(cell, ConvLSTMCell)
    }
    folded |= _folded_convs(seq2seq.decoder, style)
    if isinstance(network, TSFSeq2Seq):
        code = network.task_code(*task)
        folded |= _folded_convs(network.attention, code)
        first = network.attention.layers[0]
        assert isinstance(first, AttentionLayer)
        sources = torch.as_tensor(task.sources, device=code.device)
        kernel = present_part(first.conv.kernel(code), sources, seq2seq.lstm_channels)
        folded[id(first.conv)] = FoldedConv(GeneratedConv(kernel, first.conv.bias(code)))
    return copy.deepcopy(network, dict(folded))


def _folded_convs(module: nn.Module, code: Tensor) -> dict[int, nn.Module]:
    """The id of each HyperConv in `module` → the convolution that it is for `code`."""
    convs = [part for part in module.modules() if isinstance(part, HyperConv)]
    return {id(conv): FoldedConv(*conv.generate(code.unsqueeze(0))) for conv in convs}
