"""The networks: formulas computed by hand, invariances, odd sizes, refused inputs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.models.attention import ChannelAttention, SpatialAttention
from tsf_seq2seq.models.blocks import Conv, ConvLayer, Encoder, HyperConv, ResidualBlock
from tsf_seq2seq.models.convlstm import ConvLSTM, ConvLSTMCell
from tsf_seq2seq.models.fusion import masked_weights
from tsf_seq2seq.tasks import all_tasks


def tiny_seq2seq(n_sequences: int = 4, **changes) -> Seq2Seq:
    settings = {
        "n_sequences": n_sequences,
        "slices": 3,
        "sequence_code": 8,
        "n_kernels": 2,
        "encoder": (ConvLayer(4, 3), ConvLayer(16, 3, 2)),
        "encoder_residual_blocks": 1,
        "lstm_channels": 16,
        "lstm_layers": 1,
        "decoder": (ConvLayer(4, 3), ConvLayer(3, 3)),
        "decoder_residual_blocks": 1,
    }
    return Seq2Seq(**{**settings, **changes})


def tiny_tsf(n_sequences: int = 4, layers: int = 1, norm: str = "none") -> TSFSeq2Seq:
    torch.manual_seed(0)
    return TSFSeq2Seq(tiny_seq2seq(n_sequences), (ConvLayer(16, 3),) * layers, 2, norm).eval()


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def close(actual: torch.Tensor, wanted: torch.Tensor, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(actual.detach(), wanted.detach(), rtol=0, atol=atol)


def flags(sources, n_sequences: int) -> list[bool]:
    return [i in sources for i in range(n_sequences)]


# --- fusion weights


@pytest.mark.parametrize("n_sequences", [2, 3, 4, 5])
def test_fusion_weights_sum_to_one(n_sequences):
    network = tiny_tsf(n_sequences)
    for task in all_tasks(n_sequences):
        available = torch.tensor(flags(task.sources, n_sequences))
        weights = network.fusion_weights(available, task.target)
        assert weights.sum().item() == pytest.approx(1, abs=1e-6)
        assert (weights[~available] == 0).all()
        assert (weights[available] > 0).all()


def test_fusion_weights_by_hand():
    logits = torch.log(torch.tensor([1.0, 2.0, 5.0]))  # softmax: 1/8, 2/8, 5/8
    weights = masked_weights(logits, torch.tensor([1.0, 0.0, 1.0]))
    total = 1 / 8 + 5 / 8 + 2e-5
    close(weights, torch.tensor([(1 / 8 + 1e-5) / total, 0, (5 / 8 + 1e-5) / total]), 1e-7)


def test_one_source_has_the_whole_weight():
    assert tiny_tsf().fusion_weights([False, False, True, False], 0).tolist() == [0, 0, 1, 0]


def test_fused_feature_is_the_weighted_sum():
    network = tiny_tsf()
    features = images(2, 3, 16, 4, 5)
    weights = network.fusion_weights([True, False, True, True], 1)
    fused = network.fuse(features, (0, 2, 3), 1)
    wanted = weights[0] * features[:, 0] + weights[2] * features[:, 1] + weights[3] * features[:, 2]
    close(fused, wanted)


def test_task_code():
    assert tiny_tsf().task_code((0, 3), 1).tolist() == [1, 0, 0, 1, 0, 1, 0, 0]


# --- invariances


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 7.0])
@torch.no_grad()
def test_absent_pixels_have_no_influence(rubbish):
    network = tiny_tsf(layers=2)
    given = images(1, 4, 3, 16, 12)
    other = given.clone()
    other[:, [1, 3]] = rubbish
    available = [True, False, True, False]
    assert torch.equal(network(given, available, 1), network(other, available, 1))
    assert torch.equal(
        network.enhanced_map(given, available, 1), network.enhanced_map(other, available, 1)
    )


@torch.no_grad()
def test_present_pixels_have_influence():
    network = tiny_tsf()
    given = images(1, 4, 3, 16, 12)
    other = given.clone()
    other[:, 2] *= -1
    available = [True, False, True, False]
    assert (network(given, available, 1) - network(other, available, 1)).abs().max() > 1e-3


@torch.no_grad()
def test_absent_features_count_as_zeros_in_the_attention():
    network = tiny_tsf(layers=2)
    features, fused = images(1, 4, 16, 6, 6), images(1, 16, 6, 6, seed=1)
    features[:, [0, 3]] = 0
    code = network.task_code((1, 2), 0)
    present = network.attention(features[:, [1, 2]], fused, code, torch.tensor([1, 2]))
    close(present, network.attention(features, fused, code, torch.arange(4)))


@torch.no_grad()
def test_batch_equals_samples_one_by_one():
    network = tiny_tsf()
    given, available = images(3, 4, 3, 16, 12), [True, True, False, True]
    together = network(given, available, 2)
    for i in range(3):
        close(together[i], network(given[i : i + 1], available, 2)[0])
    single = network.seq2seq(given[:, :1], 2)
    assert single.shape == (3, 1, 3, 16, 12)
    close(single[1], network.seq2seq(given[1:2, :1], 2)[0])


@torch.no_grad()
def test_seq2seq_decodes_the_fused_feature_of_one_source_without_attention():
    network = tiny_tsf()
    given = images(1, 4, 3, 16, 12)
    alone = network(given, [False, True, False, False], 3, attention=False)
    close(alone, network.seq2seq(given[:, 1:2], 3)[:, 0])


@torch.no_grad()
def test_enhanced_map_is_the_difference_of_the_centre_slices():
    network = tiny_tsf()
    given, available = images(2, 4, 3, 15, 12), [True, True, False, True]
    refined = network(given, available, 2)
    plain = network(given, available, 2, attention=False)
    enhanced = network.enhanced_map(given, available, 2)
    assert enhanced.shape == (2, 15, 12)
    close(enhanced, (refined - plain)[:, 1].abs())
    assert enhanced.max() > 1e-4


# --- sizes


@torch.no_grad()
def test_odd_sizes_are_padded_by_reflection_and_cut():
    encoder = (ConvLayer(4, 3), ConvLayer(8, 3, 2), ConvLayer(16, 3, 2))
    decoder = (ConvLayer(8, 3), ConvLayer(4, 3), ConvLayer(3, 3))
    torch.manual_seed(0)
    seq2seq = tiny_seq2seq(encoder=encoder, decoder=decoder)
    network = TSFSeq2Seq(seq2seq, (ConvLayer(16, 3),), 2)
    given, available = images(1, 4, 3, 33, 29), [True, False, True, True]
    output = network(given, available, 1)
    assert output.shape == (1, 3, 33, 29)
    padded = F.pad(given.flatten(0, 1), (0, 3, 0, 3), mode="reflect").unflatten(0, (1, 4))
    assert torch.equal(padded[..., 33, :29], given[..., 31, :])
    close(output, network(padded, available, 1)[..., :33, :29])
    close(seq2seq(given[:, :1], 1), seq2seq(padded[:, :1], 1)[..., :33, :29])


@pytest.mark.parametrize("n_sequences", [2, 5, 8])
@torch.no_grad()
def test_other_numbers_of_sequences(n_sequences):
    network = tiny_tsf(n_sequences)
    available = [i != 0 for i in range(n_sequences)]
    output = network(images(1, n_sequences, 3, 16, 12), available, 0)
    assert output.shape == (1, 3, 16, 12)
    assert output.abs().max() <= 1


@pytest.mark.parametrize("norm", ["none", "instance"])
@torch.no_grad()
def test_several_attention_layers(norm):
    features, fused = images(1, 4, 16, 6, 5), images(1, 16, 6, 5, seed=1)
    network = tiny_tsf(layers=3, norm=norm)
    code, present = network.task_code(range(4), 0), torch.arange(4)
    residual = network.attention(features, fused, code, present)
    x, r = fused, features.flatten(1, 2)
    for layer in network.attention.layers:
        x = x + layer(r, code)
        r = x
    close(residual, x - fused)


@torch.no_grad()
def test_two_steps_in_two_steps_out():
    assert tiny_seq2seq()(images(1, 2, 3, 16, 12), 0, n_out=2).shape == (1, 2, 3, 16, 12)


@torch.no_grad()
def test_bfloat16_autocast_is_close():
    network = tiny_tsf()
    given, available = images(1, 4, 3, 16, 16), [True, True, False, True]
    wanted = network(given, available, 2)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(given, available, 2)
        weights = network.fusion_weights(available, 2)
    close(output.float(), wanted, atol=0.1)
    assert weights.dtype == torch.float32
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)


# --- building blocks


def lstm_step(cell: ConvLSTMCell, x, h, c):
    """The full kernel over [x, h], gates i, f, o, g."""
    gates = F.conv2d(torch.cat([x, h], 1), cell.conv.weight, cell.conv.bias, padding=1)
    i, f, o, g = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.fixture
def cell() -> ConvLSTMCell:
    torch.manual_seed(0)
    cell = ConvLSTMCell(3, 5)
    nn.init.normal_(cell.conv.bias)
    return cell


def test_first_convlstm_step(cell):
    x, zeros = images(2, 3, 6, 7), torch.zeros(2, 5, 6, 7)
    gradients = []
    for h, c in (cell(x, None), lstm_step(cell, x, zeros, zeros)):
        cell.zero_grad()
        (h.sum() + (c**2).sum()).backward()
        gradients.append((h, c, cell.conv.weight.grad.clone(), cell.conv.bias.grad.clone()))
    for ours, full in zip(*gradients, strict=True):
        close(ours, full, 1e-4)


def test_two_convlstm_steps(cell):
    lstm = ConvLSTM(3, 5, 1)
    lstm.cells[0] = cell
    x, zeros = images(1, 2, 3, 6, 7), torch.zeros(1, 5, 6, 7)
    h1, c1 = lstm_step(cell, x[:, 0], zeros, zeros)
    h2, _ = lstm_step(cell, x[:, 1], h1, c1)
    close(lstm(x), torch.stack([h1, h2], dim=1))


def test_convlstm_layers_feed_each_other():
    lstm = ConvLSTM(3, 5, 2)
    x = images(1, 2, 3, 6, 7)
    one, two = ConvLSTM(3, 5, 1), ConvLSTM(5, 5, 1)
    one.cells[0], two.cells[0] = lstm.cells
    close(lstm(x), two(one(x)))


@pytest.mark.parametrize("bias", [True, False])
def test_hyperconv_is_a_sum_over_kernels(bias):
    conv = HyperConv(3, 4, 3, code_length=5, n_kernels=6, bias=bias)
    if bias:
        nn.init.normal_(conv.biases)
    x, code = images(2, 3, 8, 7), images(5, seed=1)
    kernel_shares = conv.kernel_mixture.weight @ code + conv.kernel_mixture.bias
    wanted = 0
    for k in range(6):
        wanted = wanted + kernel_shares[k] * F.conv2d(x, conv.kernels[..., k])
    if bias:
        bias_shares = conv.bias_mixture.weight @ code + conv.bias_mixture.bias
        wanted = wanted + (conv.biases @ bias_shares).view(1, 4, 1, 1)
    close(conv(x, code), wanted)
    assert conv(x, code).shape == (2, 4, 6, 5)


def test_convolutions_reflect():
    conv = Conv(1, 1, 3)
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 0] = 1  # takes the left neighbour
    row = torch.tensor([[[[1.0, 2, 3], [1, 2, 3]]]])
    assert conv(row)[0, 0, 0].tolist() == [2, 1, 2]


def test_residual_block_adds_to_its_input():
    block = ResidualBlock(4, "instance")
    nn.init.zeros_(block.conv2.weight)
    x = images(1, 4, 6, 6)
    assert torch.equal(block(x), x)


def test_encoder_halves_and_normalises():
    encoder = Encoder(3, (ConvLayer(4, 3), ConvLayer(8, 3, 2)), 0, "instance")
    with torch.no_grad():
        before = encoder.convs[1](
            F.leaky_relu(F.instance_norm(encoder.convs[0](images(1, 3, 8, 8))), 0.2)
        )
        close(encoder(images(1, 3, 8, 8)), F.leaky_relu(F.instance_norm(before), 0.2))
    assert before.shape == (1, 8, 4, 4)


@torch.no_grad()
def test_attention_maps_lie_between_zero_and_one():
    r, code = images(2, 16, 6, 5), images(8, seed=1)
    channel, spatial = ChannelAttention(16, 8, 2)(r, code), SpatialAttention(8, 2)(r, code)
    assert channel.shape == (2, 16, 1, 1)
    assert spatial.shape == (2, 1, 6, 5)
    for attention in (channel, spatial):
        assert 0 < attention.min() <= attention.max() < 1
    nothing = torch.zeros(1, 16, 6, 5)  # no bias: σ(0)
    assert (SpatialAttention(8, 2)(nothing, code) == 0.5).all()


# --- initial weights


def test_initial_biases():
    network = tiny_tsf()
    biases = {name: p for name, p in network.named_parameters() if name.endswith("bias")}
    seq2seq = {name for name in biases if name.startswith("seq2seq.")}
    assert {"seq2seq.style.bias", "seq2seq.decoder.output.kernel_mixture.bias"} <= seq2seq
    assert all((biases[name] == 0).all() for name in seq2seq)
    linear = {name for name in biases if name not in seq2seq}
    assert "fusion.linear.bias" in linear
    assert all((biases[name] != 0).all() for name in linear)
    assert all((p == 0).all() for name, p in network.named_parameters() if name.endswith(".biases"))


def test_initial_kernels_are_kaiming_normal():
    torch.manual_seed(0)
    conv, hyper = Conv(32, 64, 3), HyperConv(32, 64, 3, 8, 4)
    assert conv.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert hyper.kernels.std().item() == pytest.approx((2 / (32 * 9 * 4)) ** 0.5, rel=0.05)


@torch.no_grad()
def test_start_at_background():
    network = tiny_seq2seq()
    network.decoder.start_at_background()
    for target in range(4):
        bias = network.decoder.output.bias(network.target_style(target))
        close(torch.tanh(bias), torch.full((3,), -0.95), 1e-5)
    network.decoder.output.kernels.zero_()
    close(network(images(1, 1, 3, 16, 16), 0), torch.full((1, 1, 3, 16, 16), -0.95), 1e-5)


@torch.no_grad()
def test_start_at_background_with_initial_kernels():
    torch.manual_seed(0)
    network = tiny_seq2seq()
    network.decoder.start_at_background()
    assert network(images(1, 1, 3, 16, 16), 0).median().item() == pytest.approx(-0.95, abs=0.03)


# --- refused


@pytest.mark.parametrize(
    ("available", "target", "part"),
    [
        ([False] * 4, 0, "no source sequence is available"),
        ([True] * 3, 0, "availability of 4 sequences needed"),
        ([True] * 5, 0, "availability of 4 sequences needed"),
        ([True] * 4, 4, "target must be 0 to 3, not 4"),
        ([True] * 4, -1, "target must be 0 to 3, not -1"),
    ],
)
def test_impossible_tasks(available, target, part):
    network = tiny_tsf()
    with pytest.raises(ValueError, match=part):
        network(images(1, 4, 3, 16, 12), available, target)
    with pytest.raises(ValueError, match=part):
        network.fusion_weights(available, target)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"n_sequences": 9}, "sequence_code must be at least 9, the number of sequences, not 8"),
        ({"slices": 5}, "the decoder's last layer must give the 5 slices, not 3"),
        (
            {"encoder": (ConvLayer(16, 3),)},
            "strides reduce by 1, but 2 decoder layers enlarge by 2",
        ),
    ],
)
def test_plans_that_do_not_fit(changes, part):
    with pytest.raises(ValueError, match=part):
        tiny_seq2seq(**changes)


@pytest.mark.parametrize("layer", [ConvLayer(8, 3), ConvLayer(16, 3, 2)])
def test_attention_layers_must_keep_the_feature(layer):
    with pytest.raises(ValueError, match="must keep the feature's 16 channels and its size"):
        TSFSeq2Seq(tiny_seq2seq(), (layer,), 2)


def test_kept_kernels_follow_the_weights(reference_model, expected):
    """Kernels generated without gradients are kept, but never past a change of the weights."""
    seq2seq = reference_model.seq2seq
    images = torch.from_numpy(expected["images"][0])
    with torch.no_grad():
        first = seq2seq(images, 1)
        assert seq2seq.decoder_convs(1)[0] is seq2seq.decoder_convs(1)[0]
        assert torch.equal(seq2seq(images, 1), first)
        seq2seq.style.bias.add_(0.5)
        changed = seq2seq(images, 1)
    assert not torch.allclose(changed, first, atol=1e-3)
    torch.testing.assert_close(changed, seq2seq(images, 1), rtol=0, atol=1e-6)  # with gradients
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert seq2seq.decoder_convs(1)[0][0].kernel.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(seq2seq(images, 1), changed)
