"""Where a training run stands, kept in its last.pth."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsf_seq2seq.checkpoints.checkpoint import (
    check_sequences,
    checkpoint_config,
    checkpoint_statistics,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.state_dicts import load_state
from tsf_seq2seq.config import Config, to_mapping
from tsf_seq2seq.data.sampling import Position
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.build import Network


@dataclass
class Progress:
    """Where a run stands: all that resuming needs beside weights and optimizer."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_psnr: float = -np.inf
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    statistics: TrainingStatistics | None = None  # of the training data; checkpoints carry them


def enter_folder(
    folder: Path,
    config: Config,
    network: Network,
    optimizer: torch.optim.Optimizer,
    resume: bool,
) -> Progress:
    """A fresh start, or the state of the folder's last.pth put into network and optimizer."""
    last = folder / "last.pth"
    if not last.exists():
        if resume:
            print(f"{last} does not exist: training starts from the beginning")
        return Progress()
    if not resume:
        raise UserError(f"{folder} holds a run already: --resume goes on, -o names another folder")
    content = read_checkpoint(last)
    if "training" not in content:
        raise UserError(f"{last} holds no training state, so that it can't be resumed")
    before = checkpoint_config(content, last)
    check_sequences(last, before, list(config.data.sequences))
    load_state(network, content["weights"], last)
    _report_changes(before, config)
    state: dict[str, Any] = content["training"]
    optimizer.load_state_dict(state["optimizer"])
    return Progress(
        step=state["step"],
        position=Position(*state["position"]),
        best_psnr=state["best_psnr"],
        seconds=state["seconds"],
        sums=list(state["sums"]),
        statistics=checkpoint_statistics(content, last),
    )


def save_progress(
    path: Path,
    network: Network,
    config: Config,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    state = {
        "optimizer": optimizer.state_dict(),
        "step": progress.step,
        "position": tuple(progress.position),
        "best_psnr": float(progress.best_psnr),
        "seconds": progress.seconds,
        "sums": progress.sums,
    }
    save_checkpoint(path, network, config, state, progress.statistics)


def _report_changes(before: Config, now: Config) -> None:
    old, new = to_mapping(before), to_mapping(now)
    for section in new:
        for key in new[section] or {}:
            was, value = (old[section] or {}).get(key), new[section][key]
            if was != value:
                print(f"resuming with {section}.{key} = {value}, which was {was}")
