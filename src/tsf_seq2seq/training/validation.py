"""The validation score that chooses the best weights."""

from collections.abc import Sequence

import numpy as np

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject, SubjectCache, check_depth
from tsf_seq2seq.data.slices import central, central_window, stacks
from tsf_seq2seq.distributed import ALONE, Processes
from tsf_seq2seq.evaluation.metrics import psnr
from tsf_seq2seq.models.build import Network
from tsf_seq2seq.synthesis.stacks import synthesize
from tsf_seq2seq.training.objectives import Stage

VALIDATION_BATCH = 8  # stacks that pass the network together


class Validator:
    """Mean PSNR over subjects and the stage's tasks, on the central stacks and crop.

    PSNR takes all slices of the block of stacks, data range 2 (the paper's choice of the best
    weights). Each of several processes looks at its share of the subjects.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        stage: Stage,
        config: Config,
        processes: Processes = ALONE,
    ) -> None:
        self.subjects, self.stage, self.config = subjects, stage, config
        self.processes = processes
        data = config.data
        self.cache = SubjectCache(data.slices, len(data.sequences), data.cache_gb)

    def __call__(self, network: Network) -> float:
        own = [self._values(network, subject) for subject in self.processes.share(self.subjects)]
        network.train()
        values = self.processes.gather_shares(own)
        return float(np.mean([value for of_subject in values for value in of_subject]))

    def _values(self, network: Network, subject: Subject) -> list[float]:
        """PSNR of each of the subject's tasks."""
        data, height = self.config.data, self.config.seq2seq.slices
        tasks = self.stage.validation_tasks(subject)
        if not tasks:
            return []
        volumes = self.cache.load(subject)
        check_depth(volumes, height)
        images = volumes.images
        window = central_window(images.shape[1:], data.slices, data.crop)
        blocks = stacks(window.of(images), height)
        blocks = blocks[:, central(blocks.shape[1], data.validation_stacks)]  # (S, N, C, H, W)
        outputs = synthesize(network, blocks, tasks, VALIDATION_BATCH)
        return [psnr(blocks[task.target], outputs[task]) for task in tasks]
