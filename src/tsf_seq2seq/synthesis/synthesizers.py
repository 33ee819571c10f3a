"""What synthesizes: trained networks, their ablation, and baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import centre_slices, stacks
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import Seq2Seq, TSFSeq2Seq
from tsf_seq2seq.synthesis.baselines import MeanImage, PolynomialRegression
from tsf_seq2seq.synthesis.stacks import Features, decode_task, run_stacks
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import Task

TSF_METHODS = ("tsf", "tsf_without_attention")
BASELINES: dict[str, Callable[[int], PolynomialRegression | MeanImage]] = {
    "linear_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=1),
    "quadratic_regression": lambda n_sequences: PolynomialRegression(n_sequences, degree=2),
    "mean_image": lambda n_sequences: MeanImage(),
}
Outputs = dict[tuple[str, Task], np.ndarray]


class Methods(Protocol):
    """One or several methods that share work."""

    @property
    def names(self) -> Sequence[str]: ...

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> Outputs:
        """Window (S, Z, Y, X) → (method, task): centre slices (Z − C + 1, Y, X)."""
        ...


class NetworkMethods:
    """Methods of one network: each source is encoded once, `batch_size` stacks at a time."""

    def __init__(
        self,
        network: Seq2Seq | TSFSeq2Seq,
        decoders: Mapping[str, Callable[[Features, Task, Sequence[int]], Tensor]],
        slices: int,
        batch_size: int,
    ) -> None:
        self.network, self.decoders = network, decoders
        self.names = list(decoders)
        self.slices, self.batch_size = slices, batch_size

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> Outputs:
        def decode(features: Features) -> Outputs:
            size = window.shape[-2:]
            outputs = {}
            for name, decoder in self.decoders.items():
                for task in tasks:
                    image = decoder(features, task, size)  # (N, C, H, W)
                    outputs[name, task] = image[:, self.slices // 2].float().cpu().numpy()
            return outputs

        sources = {source for task in tasks for source in task.sources}
        return run_stacks(
            self.network, stacks(window, self.slices), sources, self.batch_size, decode
        )


def tsf_methods(
    network: TSFSeq2Seq, names: Sequence[str], slices: int, batch_size: int
) -> NetworkMethods:
    """`tsf`, `tsf_without_attention` or both."""
    attention = {"tsf": True, "tsf_without_attention": False}
    decoders = {
        name: lambda features, task, size, with_attention=attention[name]: decode_task(
            network, features, task, size, with_attention
        )
        for name in names
    }
    return NetworkMethods(network, decoders, slices, batch_size)


def seq2seq_method(network: Seq2Seq, slices: int, batch_size: int) -> NetworkMethods:
    """`seq2seq`: single-source synthesis."""
    return NetworkMethods(
        network,
        {"seq2seq": lambda features, task, size: decode_task(network, features, task, size)},
        slices,
        batch_size,
    )


class Seq2SeqAverage:
    """`seq2seq_average`: the mean of the single-source outputs of a stage 1 model.

    (The paper's Seq2Seq (Average); that it averages images is our reading.)
    """

    names = ("seq2seq_average",)

    def __init__(self, network: Seq2Seq, slices: int, batch_size: int) -> None:
        self.single = seq2seq_method(network, slices, batch_size)

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> Outputs:
        pairs = {Task((source,), task.target) for task in tasks for source in task.sources}
        outputs = self.single.predict(window, sorted(pairs))
        return {
            ("seq2seq_average", task): np.mean(
                [outputs["seq2seq", Task((source,), task.target)] for source in task.sources],
                axis=0,
            )
            for task in tasks
        }


class BaselineMethod:
    """A baseline without network, on the centre slices of the stacks."""

    def __init__(self, name: str, model: PolynomialRegression | MeanImage, slices: int) -> None:
        self.names, self.model, self.slices = (name,), model, slices

    def predict(self, window: np.ndarray, tasks: Sequence[Task]) -> Outputs:
        centres = centre_slices(window, self.slices)
        return {(self.names[0], task): self.model.predict(centres, task) for task in tasks}


def fit_baselines(config: Config, names: Sequence[str], tasks: Iterable[Task]) -> list[Methods]:
    """The baselines among `names`, fitted on the training subjects' sequences on disk.

    Raises UserError where no training subject has the sequences of one of the `tasks`.
    """
    sequences, height = list(config.data.sequences), config.seq2seq.slices
    models = {name: make(len(sequences)) for name, make in BASELINES.items() if name in names}
    if not models:
        return []
    for subject in tqdm(find_subjects(config.data, config.data.train), desc="fitting baselines"):
        centres = load_window(config, subject).centres
        for model in models.values():
            model.fit([centres], subject.on_disk)
    for task in tasks:
        for name, model in models.items():
            if not model.covers(task):
                sources, target = task.label(sequences)
                raise UserError(
                    f"{config.data.train}: no subject has the sequences to fit {name} for "
                    f"{sources} → {target}; leave it out of --methods"
                )
    return [BaselineMethod(name, model, height) for name, model in models.items()]
