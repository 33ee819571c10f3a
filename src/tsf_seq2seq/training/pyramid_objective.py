"""What the training of TSF-Pyramid optimizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsf_seq2seq.models.base import FULL
from tsf_seq2seq.models.tsf_pyramid import TSFPyramid
from tsf_seq2seq.settings import setting
from tsf_seq2seq.tasks import Task, sample_missing_task
from tsf_seq2seq.training.mapped_error import mapped_error
from tsf_seq2seq.training.objectives import Objective, one_cycle_learning_rate, perceptual_term

if TYPE_CHECKING:  # so that steps run without the packages that read images
    from tsf_seq2seq.config import Config, TrainConfig
    from tsf_seq2seq.data.loading import Subject
    from tsf_seq2seq.data.sampling import Crop


@dataclass(frozen=True)
class PyramidLoss:
    """Weights of TSF-Pyramid's loss terms."""

    mse: float = setting(1.0, "weight of the squared error, relative to the regression's", 0)
    mapped: float = setting(1.0, "weight of the same after the best contrast map of each output", 0)
    log_mse: float = setting(0.0, "weight of the logarithm of each output's mean squared error", 0)
    l1: float = setting(0.0, "weight of the mean absolute error", 0)
    perceptual: float = setting(0.0, "weight of the perceptual term", 0)


class PyramidObjective(Objective):
    """All targets outside the sources, from one encoding of them; on heads, one without f_A, too.

    A squared error counts relative to that of the regression of the same task, so that tasks count
    alike, as in the score, but not subjects: log MSE, the score itself, spends itself on subjects
    that are fitted anyway. "mapped" is the same of what a contrast map of the sample can't mend: it
    asks for the anatomy, whatever the scanner made of it.
    AdamW; the rate rises over the first 5 % of the steps, then falls along a cosine.
    """

    title = "TSF-Pyramid"
    some_rest = True  # the last layers of a step's sources
    terms = ("mse", "mapped", "log_mse", "l1", "perceptual")
    weights = PyramidLoss
    sample_task = staticmethod(sample_missing_task)
    network: TSFPyramid

    def prepare(self, config: Config, subjects: Sequence[Subject]) -> None:
        """Fit the regression that the output starts from, also of a network that is trained on.

        Weights from elsewhere bring the regression of other scanners, or of phantoms.
        """
        from tsf_seq2seq.training.regression_start import fit_regression

        fit_regression(self.network, config, subjects)

    def optimizer(
        self, name: str, parameters: list[nn.Parameter], train: TrainConfig
    ) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=train.lr)

    def learning_rate(self, train: TrainConfig, epoch: int, step: int) -> float:
        return one_cycle_learning_rate(train.lr, step / train.steps, warm_up=0.05)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        sources, first = crop.task
        targets = [first, *(i for i in crop.available if i not in (*sources, first))]
        network, images = self.network, crop.inputs
        features = {i: network.encode(images, i) for i in sources}
        residual = network.encode_jointly(images, sorted(sources))  # f_A
        comparisons, usual = [], []
        for target in targets:
            variants = network.variants if crop.coin and target == first else (FULL,)
            task = Task(sources, target)
            made = network.outputs_of(features, residual, images, task, variants)
            outputs = [image for _, image in made]
            comparisons.append((crop.images[:, target], outputs))
            usual += [network.regression_error(sources, target)] * len(outputs)
        pairs = [(wanted, image) for wanted, outputs in comparisons for image in outputs]
        errors = [image - wanted for wanted, image in pairs]
        return {
            "mse": relative_mse(errors, usual),
            "mapped": self._mapped(images[:, sorted(sources)], pairs, usual),
            "log_mse": torch.stack([log_mse(error) for error in errors]).mean(),
            "l1": torch.stack([error.abs().mean() for error in errors]).mean(),
            "perceptual": perceptual_term(self.perceptual, comparisons) / len(errors),
        }

    def _mapped(
        self, sources: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], usual: Sequence[Tensor]
    ) -> Tensor:
        if not self.loss.mapped:
            return sources.new_zeros(())
        left = [mapped_error(image, sources, wanted) for wanted, image in pairs]
        return relative_mse(left, usual)


def relative_mse(errors: Sequence[Tensor], usual: Sequence[Tensor]) -> Tensor:
    """Mean of mean squared error over what is `usual`, a scalar each; errors (B, C, H, W)."""
    relative = [error.square().mean() / own for error, own in zip(errors, usual, strict=True)]
    return torch.stack(relative).mean()


def log_mse(error: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over samples of ln(mean squared error + floor); error (B, C, H, W).

    The floor, 46 dB, keeps a crop of almost nothing from counting without limit.
    """
    return (error.square().mean(dim=(1, 2, 3)) + floor).log().mean()
