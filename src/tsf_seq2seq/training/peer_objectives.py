"""What the trainings of the comparison methods optimize, each in its authors' order of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import AllToAll, PairFamily, TwoSourceFamily, member_name
from tsf_seq2seq.peers.blocks import draw_weights, patch_gan
from tsf_seq2seq.peers.diamond_gan import DiamondGAN, diamond_discriminator
from tsf_seq2seq.peers.hi_net import hi_net_discriminator
from tsf_seq2seq.peers.mm_gan import mm_gan_discriminator
from tsf_seq2seq.peers.resvit import ResViT
from tsf_seq2seq.settings import setting
from tsf_seq2seq.tasks import Task, sample_missing_task
from tsf_seq2seq.training.adversarial import (
    DISCRIMINATOR,
    AdversarialObjective,
    ImagePool,
    cross_entropy,
    frozen,
    least_squares,
    linear_decay,
    mean_absolute,
)

if TYPE_CHECKING:
    import numpy as np

    from tsf_seq2seq.config import Config, TrainConfig
    from tsf_seq2seq.data.loading import Subject
    from tsf_seq2seq.data.sampling import Crop

Judgement = Callable[[Tensor, float], Tensor]
RES_CNN = 2 / 3  # of a ResViT's training
EPOCHS = 60  # of MM-GAN's published training
REAL = 0.95  # what DiamondGAN's discriminators are to call real


def judged(score: Judgement, real: Tensor, fake: Tensor) -> Tensor:
    """½ (score(D(real), 1) + score(D(fake), 0)): a discriminator's loss of its scores."""
    return (score(real, 1.0) + score(fake, 0.0)) / 2


@dataclass(frozen=True)
class ConditionalLoss:
    """Weights of Pix2Pix's and ResViT's loss terms."""

    discriminator: float = setting(1.0, "weight of the discriminator's own loss", 0)
    adversarial: float = setting(1.0, "weight of what the discriminator says of the output", 0)
    l1: float = setting(100.0, "weight of the mean absolute error", 0)


class ConditionalObjective(AdversarialObjective):
    """A discriminator that sees the sources beside the image, and steps first, on one output."""

    terms = ("discriminator", "adversarial", "l1")
    weights = ConditionalLoss
    constant = 0.5
    discriminator_first = True
    score: Judgement

    def example(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor, nn.Module]:
        """What the network is given, what it makes of it, what it should, (B, c, H, W) each, and
        who judges it."""
        raise NotImplementedError

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        score = type(self).score
        if name == DISCRIMINATOR:
            self.made = given, output, wanted, judge = self.example(crop)
            real = judge(torch.cat([given, wanted], dim=1))
            fake = judge(torch.cat([given, output.detach()], dim=1))
            return {"discriminator": judged(score, real, fake)}
        (given, output, wanted, judge), self.made = self.made, None
        with frozen(judge):
            adversarial = score(judge(torch.cat([given, output], dim=1)), 1.0)
            return {"adversarial": adversarial, "l1": mean_absolute(output, wanted)}


class Pix2PixObjective(ConditionalObjective):
    """Isola et al. 2017: cross-entropy, and 100 times the mean absolute error."""

    title = "Pix2Pix"
    score = staticmethod(cross_entropy)
    network: PairFamily

    @staticmethod
    def sample_task(available: Sequence[int], rng: np.random.Generator) -> Task:
        """A source and another sequence as target."""
        return _sample_of(available, rng, 1)

    def new_discriminator(self) -> nn.Module:
        channels = self.network.judge_channels
        judges = {
            name: patch_gan(2 * self.network.slices, channels) for name in self.network.members
        }
        return draw_weights(nn.ModuleDict(judges))

    def example(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor, nn.Module]:
        (source, *_), target = crop.task
        judge = self.discriminator[member_name(Task((source,), target))]  # type: ignore[index]
        output = self.network.translate(crop.inputs, source, target)
        return crop.inputs[:, source], output, crop.images[:, target], judge


class ResViTObjective(ConditionalObjective):
    """Dalmaz et al. 2022: least squares, and 100 times the mean absolute error of all sequences,
    available ones too.

    Published as 100 epochs of a Res-CNN and 50 of the whole at 5 times the rate, either of which
    falls to zero along a line from its middle on; here they are parts of one run.
    """

    title = "ResViT"
    score = staticmethod(least_squares)
    sample_task = staticmethod(sample_missing_task)
    network: ResViT

    def begin(self, train: TrainConfig, step: int) -> None:
        self.network.complete.fill_(step >= RES_CNN * train.steps)

    def learning_rate(self, train: TrainConfig, epoch: int, step: int) -> float:
        done = step / train.steps
        if done < RES_CNN:
            return linear_decay(train.lr, done / RES_CNN, self.constant)
        return linear_decay(5 * train.lr, (done - RES_CNN) / (1 - RES_CNN), self.constant)

    def new_discriminator(self) -> nn.Module:
        size = self.network.n_sequences * self.network.slices
        return draw_weights(patch_gan(2 * size, self.network.judge_channels))

    def example(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor, nn.Module]:
        sources, network = crop.task.sources, self.network
        known = list(crop.available)  # of these subjects; the others can't be compared
        outputs = network.all_outputs(crop.inputs, sources)  # (B, S, C, H, W)
        outputs = torch.stack(
            [
                outputs[:, i] if i in known else crop.images[:, i]
                for i in range(network.n_sequences)
            ],
            dim=1,
        )
        given = network.given(crop.inputs, sources)
        stacks = (images.flatten(1, 2) for images in (given, outputs, crop.images))
        return *stacks, self.discriminator  # type: ignore[return-value]


@dataclass(frozen=True)
class MMGANLoss:
    """Weights of MM-GAN's loss terms."""

    discriminator: float = setting(1.0, "weight of the discriminator's own loss", 0)
    adversarial: float = setting(0.1, "weight of what the discriminator says of the output", 0)
    l1: float = setting(0.9, "weight of the mean absolute error", 0)


class MMGANObjective(AdversarialObjective):
    """Sharma and Hamarneh 2020: all missing sequences at once.

    Available ones are put into the output before it is judged; the discriminator, which sees all
    images beside the real ones, has a map for each sequence and is to call only missing ones false.
    """

    title = "MM-GAN"
    terms = ("discriminator", "adversarial", "l1")
    weights = MMGANLoss
    sample_task = staticmethod(sample_missing_task)
    network: AllToAll

    @classmethod
    def task_at(cls, available: Sequence[int], rng: np.random.Generator, done: float) -> Task:
        """Published as epochs of 60: up to the 10th one sequence is missing, up to the 20th two at
        most, up to the 30th three, then any number."""
        most = 1 + sum(done >= epoch / EPOCHS for epoch in (11, 21, 31))
        target, *others = (int(i) for i in rng.permutation(available))
        fewest = max(1, len(available) - most)
        return Task(tuple(others[: int(rng.integers(fewest, len(others) + 1))]), target)

    def new_discriminator(self) -> nn.Module:
        size = self.network.n_sequences * self.network.slices
        return draw_weights(mm_gan_discriminator(2 * size, size, self.network.judge_channels))

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        missing = _missing(crop)
        real = crop.images.flatten(1, 2)  # (B, S·C, H, W)
        if name == DISCRIMINATOR:
            with torch.no_grad():
                candidate = self._completed(crop)
            label = torch.ones(crop.images.shape[1:3], device=real.device)  # (S, C)
            label[missing] = 0
            scores = [
                self.discriminator(torch.cat([own, real], dim=1)) for own in (real, candidate)
            ]
            true = least_squares(scores[0], 1.0)
            return {"discriminator": (true + least_squares(scores[1], label.view(-1, 1, 1))) / 2}
        candidate = self._completed(crop)
        with frozen(self.discriminator):
            scores = self.discriminator(torch.cat([candidate, real], dim=1))
            made = candidate.view_as(crop.images)[:, missing]
            error = mean_absolute(made, crop.images[:, missing])
            return {"adversarial": least_squares(scores, 1.0), "l1": error}

    def _completed(self, crop: Crop) -> Tensor:
        """What is missing from the network, the rest from the subject: (B, S·C, H, W)."""
        outputs, missing = self.network.all_outputs(crop.inputs, crop.task.sources), _missing(crop)
        parts = [
            outputs[:, i] if i in missing else crop.images[:, i] for i in range(outputs.shape[1])
        ]
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class HiNetLoss:
    """Weights of Hi-Net's loss terms."""

    discriminator: float = setting(1.0, "weight of the discriminator's own loss", 0)
    adversarial: float = setting(1.0, "weight of what the discriminator says of the output", 0)
    l1: float = setting(100.0, "weight of the mean absolute error", 0)
    reconstruction: float = setting(20.0, "weight of the sources' mean absolute errors", 0)


class TwoSourceObjective(AdversarialObjective):
    """A member of a family of two sources; its discriminator sees the image alone, steps second,
    and is shown the output that the network had before its step."""

    constant = 0.25
    smallest_crop = 48  # of which the discriminator leaves one patch
    fewest_sequences = 3
    network: TwoSourceFamily

    @staticmethod
    def sample_task(available: Sequence[int], rng: np.random.Generator) -> Task:
        """Two sources and another sequence as target."""
        return _sample_of(available, rng, 2)

    @staticmethod
    def validation_tasks(subject: Subject) -> list[Task]:
        """Every two available sequences → each missing one that is on disk."""
        tasks = (
            Task((a, b), target)
            for a in subject.available
            for b in subject.available
            if a < b
            for target in subject.missing_targets
        )
        return list(tasks)

    def judge_of(self, task: Task) -> nn.Module:
        return self.discriminator[member_name(task)]  # type: ignore[index]

    def outputs(self, crop: Crop) -> tuple[Tensor, ...]:
        """What the network makes of a crop; the target is kept for the discriminator."""
        outputs = self.network.outputs(crop.inputs, crop.task)
        self.made = outputs[0].detach()
        return outputs

    def judged(self, crop: Crop, output: Tensor) -> Tensor:
        """The discriminator's loss."""
        judge = self.judge_of(crop.task)
        return judged(least_squares, judge(crop.images[:, crop.task.target]), judge(output))


class HiNetObjective(TwoSourceObjective):
    """Zhou et al. 2020: least squares, 100 times the target's mean absolute error, 20 times the
    reconstructed sources'."""

    title = "Hi-Net"
    terms = ("discriminator", "adversarial", "l1", "reconstruction")
    weights = HiNetLoss

    def new_discriminator(self) -> nn.Module:
        return _judges(self.network, first_normed=False)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        if name == DISCRIMINATOR:
            return {"discriminator": self.judged(crop, self.made)}
        output, *again = self.outputs(crop)
        judge = self.judge_of(crop.task)
        sources = [crop.images[:, i] for i in sorted(crop.task.sources)]
        errors = [mean_absolute(*pair) for pair in zip(again, sources, strict=True)]
        with frozen(judge):
            return {
                "adversarial": least_squares(judge(output), 1.0),
                "l1": mean_absolute(output, crop.images[:, crop.task.target]),
                "reconstruction": torch.stack(errors).sum(),
            }


@dataclass(frozen=True)
class MMgSNLoss:
    """Weights of MMgSN-Net's loss terms."""

    discriminator: float = setting(1.0, "weight of the discriminator's own loss", 0)
    adversarial: float = setting(1.0, "weight of what the discriminator says of the output", 0)
    l1: float = setting(100.0, "weight of the mean absolute error", 0)
    leak: float = setting(0.0, "weight of the discriminator's loss in the network's step", 0)


class MMgSNObjective(TwoSourceObjective):
    """Li et al. 2022: least squares, and 100 times the mean absolute error.

    The published code doesn't detach the output from the discriminator's loss, whose gradient then
    reaches the network, too: `leak` 1. That draws the discriminator's opinion to 2/3 instead of 1.
    """

    title = "MMgSN-Net"
    terms = ("discriminator", "adversarial", "l1", "leak")
    weights = MMgSNLoss

    def new_discriminator(self) -> nn.Module:
        return _judges(self.network, first_normed=True)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        if name == DISCRIMINATOR:
            return {"discriminator": self.judged(crop, self.made)}
        (output,) = self.outputs(crop)
        judge = self.judge_of(crop.task)
        with frozen(judge):
            terms = {
                "adversarial": least_squares(judge(output), 1.0),
                "l1": mean_absolute(output, crop.images[:, crop.task.target]),
            }
            if self.loss.leak:
                terms["leak"] = self.judged(crop, output)
        return terms


@dataclass(frozen=True)
class DiamondGANLoss:
    """Weights of DiamondGAN's loss terms."""

    discriminator: float = setting(1.0, "weight of the discriminators' own loss", 0)
    adversarial: float = setting(1.0, "weight of what the discriminators say of both outputs", 0)
    cycle: float = setting(8.0, "weight of the mean absolute errors of sources and target, back", 0)
    paired: float = setting(8.0, "weight of the target's mean absolute error; published: 0", 0)


class DiamondGANObjective(AdversarialObjective):
    """Li et al. 2019: there and back again from either side, and least squares with labels of 0.95.

    The published loss knows of no pairs, although its images are pairs; `paired` 0 is that one.
    """

    title = "DiamondGAN"
    terms = ("discriminator", "adversarial", "cycle", "paired")
    weights = DiamondGANLoss
    discriminator_first = True
    sample_task = staticmethod(sample_missing_task)
    network: DiamondGAN

    def new_discriminator(self) -> nn.Module:
        network, pools = self.network, nn.ModuleDict()
        sizes = {"target": network.slices, "sources": network.n_sequences * network.slices}
        judges = {
            side: diamond_discriminator(size, network.judge_channels)
            for side, size in sizes.items()
        }
        return nn.ModuleDict({**judges, "pools": pools})

    def configure(self, config: Config) -> None:
        """Pools of 25 images, for crops of this experiment's size."""
        network, size = self.network, config.data.crop
        pools = self.discriminator["pools"]  # type: ignore[index]
        pools["target"] = ImagePool(network.slices, *size)
        pools["sources"] = ImagePool(network.n_sequences * network.slices, *size)

    def losses(self, name: str, crop: Crop) -> dict[str, Tensor]:
        if name == DISCRIMINATOR:
            return {"discriminator": self._discriminators(crop)}
        (real, fake), self.made = self.made, None
        network, task, judges = self.network, crop.task, self.discriminator
        back = {
            "sources": network.translate(fake["target"], task, back=True),
            "target": network.translate(fake["sources"], task),
        }
        with frozen(judges):
            scores = [
                least_squares(judges[side](fake[side]), REAL)  # type: ignore[index]
                for side in fake
            ]
        errors = [mean_absolute(back[side], real[side]) for side in back]
        return {
            "adversarial": torch.stack(scores).sum(),
            "cycle": torch.stack(errors).sum(),
            "paired": mean_absolute(fake["target"], real["target"]),
        }

    def _discriminators(self, crop: Crop) -> Tensor:
        network, task = self.network, crop.task
        stack, wanted = network.given(crop.inputs, task.sources).flatten(1, 2), crop.images
        real = {"sources": stack, "target": wanted[:, task.target]}
        fake = {
            "sources": network.translate(real["target"], task, back=True),
            "target": network.translate(real["sources"], task),
        }
        self.made = real, fake
        losses = []
        for side in real:
            judge, pools = self.discriminator[side], self.discriminator["pools"]  # type: ignore[index]
            shown = fake[side].detach()
            shown = pools[side](shown) if side in pools else shown
            losses += [least_squares(judge(real[side]), REAL), least_squares(judge(shown), 0.0)]
        return torch.stack(losses).sum() / 2


def _judges(network: TwoSourceFamily, first_normed: bool) -> nn.Module:
    """A discriminator for each of a family's members."""
    judges = {
        name: hi_net_discriminator(network.slices, network.judge_channels, first_normed)
        for name in network.members
    }
    return draw_weights(nn.ModuleDict(judges))


def _missing(crop: Crop) -> list[int]:
    """What these subjects have and the task doesn't give."""
    return [i for i in crop.available if i not in crop.task.sources]


def _sample_of(available: Sequence[int], rng: np.random.Generator, n_sources: int) -> Task:
    """So many sources and another target, of the available sequences."""
    *sources, target = (int(i) for i in rng.permutation(available)[: n_sources + 1])
    return Task(tuple(sources), target)
