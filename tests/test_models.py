"""The networks: formulas computed by hand, invariances, odd sizes, refused inputs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq, UNet
from tsf_seq2seq.models.attention import ChannelAttention, SpatialAttention
from tsf_seq2seq.models.blocks import Conv, ConvLayer, Encoder, HyperConv, ResidualBlock
from tsf_seq2seq.models.convlstm import ConvLSTM, ConvLSTMCell
from tsf_seq2seq.models.fusion import masked_weights
from tsf_seq2seq.models.scales import TaskResidualBlock, fill_absent
from tsf_seq2seq.tasks import Task, all_tasks


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


def tiny_unet(n_sequences: int = 4) -> UNet:
    """In evaluation mode, its zero layers drawn at random, as if it were trained."""
    torch.manual_seed(0)
    network = UNet(n_sequences, 3, (4, 8, 8), blocks=1, norm="instance").eval()
    for module in network.modules():
        if isinstance(module, nn.Linear) or module is network.last:
            nn.init.normal_(module.weight, std=0.1)
    return network


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


MULTI_INPUT = pytest.mark.parametrize("make", [tiny_tsf, tiny_unet])


@MULTI_INPUT
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 7.0])
@torch.no_grad()
def test_absent_pixels_have_no_influence(make, rubbish):
    network = make()
    given = images(1, 4, 3, 16, 12)
    other = given.clone()
    other[:, [1, 3]] = rubbish
    available = [True, False, True, False]
    assert torch.equal(network(given, available, 1), network(other, available, 1))


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 7.0])
@torch.no_grad()
def test_absent_pixels_have_no_influence_on_tsem(rubbish):
    network = tiny_tsf(layers=2)
    given = images(1, 4, 3, 16, 12)
    other = given.clone()
    other[:, [1, 3]] = rubbish
    available = [True, False, True, False]
    assert torch.equal(
        network.enhanced_map(given, available, 1), network.enhanced_map(other, available, 1)
    )


@MULTI_INPUT
@torch.no_grad()
def test_present_pixels_have_influence(make):
    network = make()
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


@MULTI_INPUT
@torch.no_grad()
def test_batch_equals_samples_one_by_one(make):
    network = make()
    given, available = images(3, 4, 3, 16, 12), [True, True, False, True]
    together = network(given, available, 2)
    for i in range(3):
        close(together[i], network(given[i : i + 1], available, 2)[0])


@torch.no_grad()
def test_batch_of_one_source_equals_samples_one_by_one():
    network, given = tiny_tsf(), images(3, 4, 3, 16, 12)
    single = network.seq2seq.translate(given[:, :1], 2)
    assert single.shape == (3, 1, 3, 16, 12)
    close(single[1], network.seq2seq.translate(given[1:2, :1], 2)[0])


@torch.no_grad()
def test_seq2seq_decodes_the_fused_feature_of_one_source_without_attention():
    network = tiny_tsf()
    given = images(1, 4, 3, 16, 12)
    available = [False, True, False, False]
    alone = network(given, available, 3, attention=False)
    close(alone, network.seq2seq(given, available, 3))
    close(alone, network.seq2seq.translate(given[:, 1:2], 3)[:, 0])


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


# --- all tasks at once


@torch.no_grad()
def test_all_tasks_of_tsf_as_one_by_one():
    network, given = tiny_tsf(), images(2, 4, 3, 15, 12)
    outputs = list(network.synthesize(given, all_tasks(4), network.variants))
    assert {(variant, task) for variant, task, _ in outputs} == {
        (variant, task) for variant in ("full", "without_attention") for task in all_tasks(4)
    }
    for variant, task, output in outputs:
        attention = variant == "full"
        close(output, network(given, flags(task.sources, 4), task.target, attention))


@torch.no_grad()
def test_the_average_is_that_of_single_sources():
    network, given = tiny_seq2seq(), images(2, 4, 3, 16, 12)
    alone = [network(given, flags([source], 4), 2) for source in range(4)]
    task = Task((0, 1, 3), 2)
    ((_, _, average),) = network.synthesize(given, [task], ["average"])
    close(average, (alone[0] + alone[1] + alone[3]) / 3)
    outputs = network.synthesize(given, [Task((i,), 2) for i in range(4)])
    for wanted, (_, _, output) in zip(alone, outputs, strict=True):
        close(output, wanted)
    assert network.accepts(task, "average")
    assert not network.accepts(task)


@torch.no_grad()
def test_kernels_are_generated_together():
    """Those of each target as its HyperConvs generate them alone, in autocast's precision."""
    network = tiny_seq2seq()
    first, second, again = network.decoder_convs(3, 0, 3)
    assert again is first
    (block,) = network.decoder.residual_blocks
    (layer,) = network.decoder.upsampling
    for convs, target in ((first, 3), (second, 0)):
        style = network.target_style(target)
        ours = (*convs.blocks[0], *convs.upsampling, convs.output)
        hyperconvs = (block.conv1, block.conv2, layer, network.decoder.output)
        for conv, hyperconv in zip(ours, hyperconvs, strict=True):
            close(conv.kernel, hyperconv.kernel(style), 1e-6)
            close(conv.bias, hyperconv.bias(style), 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        (convs,) = network.decoder_convs(3)
    assert convs.output.kernel.dtype == torch.bfloat16


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
    alone = [True, False, False, False]
    close(seq2seq(given, alone, 1), seq2seq(padded, alone, 1)[..., :33, :29])


@torch.no_grad()
def test_unet_of_odd_sizes_is_padded_by_reflection_and_cut():
    network = tiny_unet()
    given, available = images(1, 4, 3, 33, 29), [True, False, True, True]
    padded = F.pad(given.flatten(0, 1), (0, 3, 0, 3), mode="reflect").unflatten(0, (1, 4))
    close(network(given, available, 1), network(padded, available, 1)[..., :33, :29])


@MULTI_INPUT
@pytest.mark.parametrize("n_sequences", [2, 5, 8])
@torch.no_grad()
def test_other_numbers_of_sequences(make, n_sequences):
    network = make(n_sequences)
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
    output = tiny_seq2seq().translate(images(1, 2, 3, 16, 12), 0, n_out=2)
    assert output.shape == (1, 2, 3, 16, 12)


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


def test_absent_sequences_are_filled_and_it_is_said_what_is_there():
    given, available = images(2, 4, 3, 5, 6), torch.tensor([1.0, 0, 1, 0])
    filled = fill_absent(given, available)
    assert filled.shape == (2, 4 * 3 + 4, 5, 6)
    slices, planes = filled[:, :12].unflatten(1, (4, 3)), filled[:, 12:]
    assert torch.equal(slices[:, [0, 2]], given[:, [0, 2]])
    assert (slices[:, [1, 3]] == -1).all()
    assert torch.equal(planes, available[:, None, None].expand(2, 4, 5, 6))


def test_task_residual_block_by_hand():
    block, code = TaskResidualBlock(4, 6, "instance"), torch.tensor([1.0, 0, 1, 0, 1, 0])
    nn.init.normal_(block.film.weight)
    x = images(2, 4, 6, 5)
    gain, offset = (block.film.weight @ code).view(2, 4, 1, 1)
    r = F.leaky_relu((1 + gain) * F.instance_norm(block.conv1(x)) + offset, 0.2)
    close(block(x, code), x + block.conv2(r))


def test_unet_leaves_the_range_in_training_only():
    network, given = tiny_unet(), images(1, 4, 3, 16, 12)
    nn.init.zeros_(network.last.weight)
    nn.init.constant_(network.last.bias, 3.0)  # above background, -1
    assert (network(given, [True] * 4, 0) == 1).all()
    assert (network.train()(given, [True] * 4, 0) == 2).all()


# --- initial weights


def test_an_untrained_unet_gives_background():
    torch.manual_seed(0)
    network = UNet(4, 3, (4, 8), blocks=1, norm="instance")
    assert (network(images(1, 4, 3, 16, 12), [True, False, True, False], 1) == -1).all()


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
    output = network.translate(images(1, 1, 3, 16, 16), 0)
    close(output, torch.full((1, 1, 3, 16, 16), -0.95), 1e-5)


@torch.no_grad()
def test_start_at_background_with_initial_kernels():
    torch.manual_seed(0)
    network = tiny_seq2seq()
    network.decoder.start_at_background()
    output = network.translate(images(1, 1, 3, 16, 16), 0)
    assert output.median().item() == pytest.approx(-0.95, abs=0.03)


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
    for network in (tiny_tsf(), tiny_unet()):
        with pytest.raises(ValueError, match=part):
            network(images(1, 4, 3, 16, 12), available, target)
    with pytest.raises(ValueError, match=part):
        tiny_tsf().fusion_weights(available, target)


def test_a_seq2seq_takes_one_source():
    with pytest.raises(ValueError, match="a Seq2Seq takes one source, not 2"):
        tiny_seq2seq()(images(1, 4, 3, 16, 12), [True, True, False, False], 2)


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
