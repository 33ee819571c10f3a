"""The moving average of a network's weights over the steps of its training."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

WEIGHT_AVERAGE = "weight_average"  # among a training state's modules


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network (`.module`) which `update_parameters` makes an average of weights.

    After step n it keeps min(decay, (1 + n)/(10 + n)) of itself and takes the rest from the
    network, so that the first, random weights are soon forgotten. Buffers are copied.
    """

    def average(own: Sequence[Tensor], current: Sequence[Tensor], n: Tensor | int) -> None:
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(kept)(own, current, n)

    return AveragedModel(network, multi_avg_fn=average).requires_grad_(False)
