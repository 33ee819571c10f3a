"""One task of a network: all that depends on the task alone is folded into constants."""

import copy

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.attention import AttentionLayer, present_part
from tsf_seq2seq.models.blocks import GeneratedConv, HyperConv
from tsf_seq2seq.models.convlstm import ConvLSTMCell
from tsf_seq2seq.models.fusion import weighted_average
from tsf_seq2seq.models.seq2seq import Seq2Seq
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq
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


class TaskNetwork(nn.Module):
    """A network for one task: HyperConvs are plain convolutions, fusion weights numbers."""

    weights: Tensor

    def __init__(self, network: Seq2Seq | TSFSeq2Seq, task: Task, with_tsem: bool = False) -> None:
        """`network` is left as it is; sources come in the order in which `task` names them.

        Raises ValueError where a Seq2Seq is given several sources or asked for a TSEM.
        """
        super().__init__()
        if isinstance(network, Seq2Seq) and (len(task.sources) > 1 or with_tsem):
            raise ValueError("a stage 1 model (Seq2Seq) takes one source, and has no TSEM")
        self.task, self.with_tsem = task, with_tsem
        self.network = _fold(network, task).requires_grad_(False).eval()
        self.register_buffer("weights", _fusion_weights(network, task))
        self.reduction, self.slices = self._seq2seq.reduction, self._seq2seq.slices

    @property
    def smallest_size(self) -> int:
        """Smallest height and width of images at which every convolution's border fits."""
        kernels = [tensor.shape[-1] for tensor in self.state_dict().values() if tensor.dim() == 4]
        return self.reduction * (max(kernels) // 2 + 1)

    @property
    def _seq2seq(self) -> Seq2Seq:
        return self.network.seq2seq if isinstance(self.network, TSFSeq2Seq) else self.network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Synthesize the target: images (B, n, C, H, W) of the sources, in [-1, 1].

        The sizes H and W are multiples of `reduction`. → (B, C, H, W) in [-1, 1]; with TSEM also
        |output with f_A − output without f_A| of the centre slice, (B, H, W).
        """
        if isinstance(self.network, Seq2Seq):
            return self._decode(self.network.encode(images))  # (B, C, H, W)
        features = self.network.encode(images)  # (B, n, c, H/r, W/r)
        fused = weighted_average(features, self.weights)  # (B, c, H/r, W/r)
        residual = self.network.attention(features, fused, _no_code(images), None)
        refined = self._decode(fused + residual)  # (B, C, H, W)
        if not self.with_tsem:
            return refined
        plain = self._decode(fused)  # (B, C, H, W)
        return refined, (refined - plain)[:, refined.shape[1] // 2].abs()

    def _decode(self, feature: Tensor) -> Tensor:
        (convs,) = self._seq2seq.decoder.generate(_no_code(feature))
        return self._seq2seq.decode(feature, self.task.target, convs=convs).squeeze(1)


@torch.no_grad()
def _fusion_weights(network: Seq2Seq | TSFSeq2Seq, task: Task) -> Tensor:
    """ω (n,) of the task's sources; of a Seq2Seq's only source: 1."""
    if isinstance(network, Seq2Seq):
        return torch.ones(1)
    return network.fusion(network.task_code(*task))[list(task.sources)]


def _no_code(x: Tensor) -> Tensor:
    """What a folded module gets in place of the code that it was folded for."""
    return x.new_empty(0)


@torch.no_grad()
def _fold(network: Seq2Seq | TSFSeq2Seq, task: Task) -> Seq2Seq | TSFSeq2Seq:
    """A copy of `network` in which folded modules stand for those that depend on the task.

    The copying takes them in place of the originals, whose kernels (c_w times larger) are thus
    never held twice.
    """
    seq2seq = network.seq2seq if isinstance(network, TSFSeq2Seq) else network
    style = seq2seq.target_style(task.target)
    folded: dict[int, nn.Module] = {
        id(cell): FoldedCell(cell) for cell in network.modules() if isinstance(cell, ConvLSTMCell)
    }
    folded |= {id(conv): _folded(conv, style) for conv in _hyperconvs(seq2seq.decoder)}
    if isinstance(network, TSFSeq2Seq):
        code = network.task_code(*task)
        folded |= {id(conv): _folded(conv, code) for conv in _hyperconvs(network.attention)}
        first = network.attention.layers[0]
        assert isinstance(first, AttentionLayer)
        sources = torch.as_tensor(task.sources, device=code.device)
        kernel = present_part(first.conv.kernel(code), sources, seq2seq.lstm_channels)
        folded[id(first.conv)] = FoldedConv(GeneratedConv(kernel, first.conv.bias(code)))
    return copy.deepcopy(network, dict(folded))


def _folded(conv: HyperConv, code: Tensor) -> FoldedConv:
    (generated,) = conv.generate(code.unsqueeze(0))
    return FoldedConv(generated)


def _hyperconvs(module: nn.Module) -> list[HyperConv]:
    return [part for part in module.modules() if isinstance(part, HyperConv)]
