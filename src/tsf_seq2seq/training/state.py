"""Where a training run stands, kept in its last.pth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

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
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.training.objectives import NETWORK


@dataclass
class TrainingState:
    """Where a run stands: all that resuming needs beside weights and optimizers."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_psnr: float = -np.inf
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of loss and terms since the last log row
    statistics: TrainingStatistics | None = None  # of the training data; checkpoints carry them


@dataclass(frozen=True)
class Trained:
    """What a run changes: the network, its optimizers, and modules that they train beside it."""

    network: SynthesisNetwork
    optimizers: Mapping[str, torch.optim.Optimizer]
    companions: Mapping[str, nn.Module]


def enter_folder(folder: Path, config: Config, trained: Trained, resume: bool) -> TrainingState:
    """A fresh start, or the state of the folder's last.pth put into what is trained."""
    last = folder / "last.pth"
    if not last.exists():
        if resume:
            print(f"{last} does not exist: training starts from the beginning")
        return TrainingState()
    if not resume:
        raise UserError(f"{folder} holds a run already: --resume goes on, -o names another folder")
    content = read_checkpoint(last)
    if "training" not in content:
        raise UserError(f"{last} holds no training state, so that it can't be resumed")
    before = checkpoint_config(content, last)
    check_sequences(last, before, list(config.data.sequences))
    load_state(trained.network, content["weights"], last)
    _report_changes(before, config)
    state = _as_now(content["training"])
    for kind, own in (("optimizers", trained.optimizers), ("companions", trained.companions)):
        if set(state[kind]) != set(own):
            raise UserError(f"{last} is of a run with the {kind} {', '.join(state[kind])}")
    for name, optimizer in trained.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    for name, companion in trained.companions.items():
        load_state(companion, state["companions"][name], last)
    return TrainingState(
        step=state["step"],
        position=Position(*state["position"]),
        best_psnr=state["best_psnr"],
        seconds=state["seconds"],
        sums=dict(state["sums"]),
        statistics=checkpoint_statistics(content, last),
    )


def save_state(path: Path, config: Config, trained: Trained, state: TrainingState) -> None:
    """Write a checkpoint from which the run can go on."""
    content = {
        "optimizers": {name: one.state_dict() for name, one in trained.optimizers.items()},
        "companions": {name: one.state_dict() for name, one in trained.companions.items()},
        "step": state.step,
        "position": tuple(state.position),
        "best_psnr": float(state.best_psnr),
        "seconds": state.seconds,
        "sums": state.sums,
    }
    save_checkpoint(path, trained.network, config, content, state.statistics)


def _as_now(state: Mapping[str, Any]) -> dict[str, Any]:
    """A training state with today's keys; once there was one optimizer and a list of sums."""
    if "optimizers" in state:
        return dict(state)
    names = ("loss", "reconstruction", "perceptual", "cycle")
    sums = dict(zip(names, state["sums"], strict=True))
    return {**state, "optimizers": {NETWORK: state["optimizer"]}, "companions": {}, "sums": sums}


def _report_changes(before: Config, now: Config) -> None:
    old, new = to_mapping(before), to_mapping(now)
    for section in new:
        for key, value in new[section].items():
            was = old[section].get(key)
            if was != value:
                print(f"resuming with {section}.{key} = {value}, which was {was}")
