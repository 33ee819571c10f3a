"""The plain formulation of training and synthesis, against which the library is measured.

The same mathematics and weights, written as one naturally would: every output is a full forward
pass, the ConvLSTM's whole kernel runs over a zero state, absent sources are zeros in the
attention's input, and the perceptual network is an ordinary network whose parameters collect
gradients.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.blocks import Decoder, HyperConv, activation, feature_norm, reflect_pad
from tsf_seq2seq.models.convlstm import ConvLSTM
from tsf_seq2seq.tasks import Task
from tsf_seq2seq.training.perceptual import PerceptualLoss


def convlstm(lstm: ConvLSTM, x: Tensor) -> Tensor:
    """Last layer's output (B, c, h, w) for one time step, from an explicit zero state."""
    for cell in lstm.cells:
        h = c = x.new_zeros(x.shape[0], cell.c_hidden, *x.shape[2:])
        i, f, o, g = cell.conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        x = torch.sigmoid(o) * torch.tanh(c)
    return x


def encode(network: Seq2Seq, image: Tensor) -> Tensor:
    return convlstm(network.encoder_lstm, network.encoder(image))


def hyperconv(conv: HyperConv, x: Tensor, style: Tensor) -> Tensor:
    return conv(reflect_pad(x, conv.kernels.shape[2]), style)


def decoder(network: Decoder, x: Tensor, style: Tensor) -> Tensor:
    for block in network.residual_blocks:
        r = activation(feature_norm(hyperconv(block.conv1, x, style), network.norm))
        x = x + feature_norm(hyperconv(block.conv2, r, style), network.norm)
    for conv in network.upsampling:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = activation(feature_norm(hyperconv(conv, x, style), network.norm))
    return torch.tanh(hyperconv(network.output, x, style))


def decode(network: Seq2Seq, feature: Tensor, target: int) -> Tensor:
    x = convlstm(network.decoder_lstm, feature)
    return decoder(network.decoder, x, network.target_style(target))


def seq2seq(network: Seq2Seq, image: Tensor, target: int) -> Tensor:
    """image (B, C, H, W) → (B, C, H, W)."""
    return decode(network, encode(network, image), target)


def tsf(
    network: TSFSeq2Seq, images: Tensor, sources: Sequence[int], target: int, attention: bool
) -> Tensor:
    """images (B, S, C, H, W) → (B, C, H, W)."""
    with torch.no_grad():
        encoded = {source: encode(network.seq2seq, images[:, source]) for source in sources}
    absent = torch.zeros_like(next(iter(encoded.values())))
    features = torch.stack(
        [encoded.get(source, absent) for source in range(network.n_sequences)], dim=1
    )
    code = network.task_code(sources, target)
    fused = torch.einsum("n,bnchw->bchw", network.fusion(code), features)
    if attention:
        everything = torch.arange(network.n_sequences, device=images.device)
        fused = fused + network.attention(features, fused, code, everything)
    return decode(network.seq2seq, fused, target)


def smooth_l1(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([F.smooth_l1_loss(output, wanted) for output, wanted in pairs]).sum()


def perceptual(loss: PerceptualLoss | None, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    if loss is None:
        return pairs[0][0].new_zeros(())
    features = [(loss.features_of(output), loss.features_of(wanted)) for output, wanted in pairs]
    terms = [F.mse_loss(a, b) for pair in features for a, b in zip(*pair, strict=True)]
    return torch.stack(terms).sum()


def seq2seq_loss(
    network: Seq2Seq, images: Tensor, task: Task, loss: PerceptualLoss | None
) -> dict[str, Tensor]:
    """Stage 1's loss terms by three full forward passes."""
    (source,), target = task
    given, wanted = images[:, source], images[:, target]
    synthesized = seq2seq(network, given, target)
    reconstructed = seq2seq(network, given, source)
    cycle = F.smooth_l1_loss(seq2seq(network, synthesized, source), given)
    pairs = [(synthesized, wanted), (reconstructed, given)]
    return {
        "reconstruction": smooth_l1(pairs),
        "perceptual": perceptual(loss, pairs),
        "cycle": cycle,
    }


def tsf_loss(
    network: TSFSeq2Seq,
    images: Tensor,
    task: Task,
    loss: PerceptualLoss | None,
    skip_attention: bool = False,
) -> dict[str, Tensor]:
    """Stage 2's loss terms by three full forward passes."""
    first = task.sources[0]
    given, wanted = images[:, first], images[:, task.target]
    plain = tsf(network, images, task.sources, task.target, attention=False)
    refined = tsf(network, images, task.sources, task.target, attention=True)
    reconstructed = tsf(network, images, task.sources, first, attention=not skip_attention)
    pairs = [(plain, wanted), (refined, wanted), (reconstructed, given)]
    return {"reconstruction": smooth_l1(pairs), "perceptual": perceptual(loss, pairs)}
