"""The validation score that chooses the best weights."""

from collections.abc import Sequence

import numpy as np

from tsf_seq2seq.architecture import Network
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.slices import central, central_window, stacks
from tsf_seq2seq.data.store import open_store
from tsf_seq2seq.data.subjects import Subject, SubjectCache, check_depth
from tsf_seq2seq.metrics import psnr
from tsf_seq2seq.prediction import synthesize
from tsf_seq2seq.stages import Stage

VALIDATION_BATCH = 8  # stacks that pass the network together


class Validator:
    """Mean PSNR over subjects and the stage's tasks, on the central stacks and crop.

    PSNR takes all slices of the block of stacks, data range 2 (the paper's choice of the best
    weights).
    """

    def __init__(self, subjects: Sequence[Subject], stage: Stage, config: Config) -> None:
        self.subjects, self.stage, self.config = subjects, stage, config
        data, store = config.data, open_store(config.data)
        self.cache = SubjectCache(
            data.slices, len(data.sequences), data.cache_gb, store.load if store else None
        )

    def __call__(self, network: Network) -> float:
        data, height = self.config.data, self.config.seq2seq.slices
        values = []
        for subject in self.subjects:
            volumes = self.cache.load(subject)
            check_depth(volumes, height)
            images = volumes.images
            window = central_window(images.shape[1:], data.slices, data.crop)
            blocks = stacks(window.of(images), height)
            blocks = blocks[:, central(blocks.shape[1], data.validation_stacks)]  # (S, N, C, H, W)
            tasks = self.stage.validation_tasks(subject)
            outputs = synthesize(network, blocks, tasks, VALIDATION_BATCH)
            values += [psnr(blocks[task.target], outputs[task]) for task in tasks]
        network.train()
        return float(np.mean(values))
