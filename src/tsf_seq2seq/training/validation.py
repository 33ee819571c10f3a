"""The validation score that chooses the best weights."""

from collections.abc import Sequence

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject, SubjectCache, check_depth
from tsf_seq2seq.data.slices import central, central_window, stacks
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.models.base import FULL, SynthesisNetwork
from tsf_seq2seq.synthesis.stacks import run_stacks
from tsf_seq2seq.training.objectives import Objective

VALIDATION_BATCH = 8  # stacks that pass the network together


class Validator:
    """Mean PSNR over subjects and the objective's tasks, on the central stacks and crop.

    PSNR takes all slices of the block of stacks, data range 2 (the paper's choice of the best
    weights). Each of several processes looks at its share of the subjects.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        objective: Objective,
        config: Config,
        processes: Processes = ALONE,
    ) -> None:
        self.subjects, self.objective, self.config = subjects, objective, config
        self.processes = processes
        data = config.data
        self.cache = SubjectCache(data.slices, len(data.sequences), data.cache_gb)

    def __call__(self, network: SynthesisNetwork) -> float:
        own = [self._values(network, subject) for subject in self.processes.share(self.subjects)]
        network.train()
        values = self.processes.gather_shares(own)
        return float(np.mean([value for of_subject in values for value in of_subject]))

    def _values(self, network: SynthesisNetwork, subject: Subject) -> list[float]:
        """PSNR of each of the subject's tasks."""
        data = self.config.data
        tasks = self.objective.validation_tasks(subject)
        if not tasks:
            return []
        volumes = self.cache.load(subject)
        check_depth(volumes, data.stack)
        images = volumes.images
        window = central_window(images.shape[1:], data.slices, data.crop)
        blocks = stacks(window.of(images), data.stack)
        blocks = blocks[:, central(blocks.shape[1], data.validation_stacks)]  # (S, N, C, H, W)
        outputs = run_stacks(network, blocks, tasks, VALIDATION_BATCH)
        return [psnr(blocks[task.target], outputs[FULL, task]) for task in tasks]
