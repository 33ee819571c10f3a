"""Where a training run stands, kept in its last.pth."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsf_seq2seq.checkpoints.checkpoint import (
    check_sequences,
    checkpoint_config,
    checkpoint_statistics,
    read_checkpoint,
    save_checkpoint,
)
from tsf_seq2seq.checkpoints.state_dicts import check_tensors, check_type, load_state
from tsf_seq2seq.config import Config, TrainConfig, to_mapping
from tsf_seq2seq.data.sampling import Position
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.settings import parse, setting
from tsf_seq2seq.training.objectives import NETWORK, Objective

PROBE_SHAPE = (2, 3)  # of the parameter on which an optimizer shows what it keeps


@dataclass
class TrainingState:
    """Where a run stands: all that resuming needs beside weights and optimizers."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_psnr: float = -math.inf
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of loss and terms since the last log row
    data: dict[str, dict[str, str]] | None = None  # digests of each split's subjects
    statistics: TrainingStatistics | None = None  # of the training data; checkpoints carry them


@dataclass(frozen=True)
class Trained:
    """What a run changes: the network, its optimizers, and modules that they train beside it.

    `kept`: what each optimizer keeps of a parameter of PROBE_SHAPE, by its names.
    """

    network: SynthesisNetwork
    optimizers: Mapping[str, torch.optim.Optimizer]
    companions: Mapping[str, nn.Module]
    kept: Mapping[str, Mapping[str, Any]]


def enter_folder(folder: Path, config: Config, trained: Trained, resume: bool) -> TrainingState:
    """A fresh start, or the state of the folder's last.pth put into what is trained.

    Raises UserError, which names file and key, for a last.pth that is damaged or of another run.
    """
    _check_places(folder)
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
    saved = _as_now(_mapping(content["training"], "training", last), last)
    optimizers = _of_the_same(saved, "optimizers", trained.optimizers, last)
    for name, optimizer in trained.optimizers.items():
        place = f"training.optimizers.{name}"
        state = _optimizer_state(optimizers[name], optimizer, trained.kept[name], place, last)
        _check_count(len(state["state"]), saved, name, last)
        optimizer.load_state_dict(state)
    companions = _of_the_same(saved, "companions", trained.companions, last)
    for name, companion in trained.companions.items():
        origin = f"{last}: training.companions.{name}"
        load_state(companion, check_tensors(companions[name], origin), origin)
    return _state(saved, checkpoint_statistics(content, last), last)


def save_state(path: Path, config: Config, trained: Trained, state: TrainingState) -> None:
    """Write a checkpoint from which the run can go on."""
    optimizers = {name: one.state_dict() for name, one in trained.optimizers.items()}
    content = {
        "optimizers": optimizers,
        "kept_parameters": {name: len(one["state"]) for name, one in optimizers.items()},
        "companions": {name: one.state_dict() for name, one in trained.companions.items()},
        "step": state.step,
        "position": tuple(state.position),
        "best_psnr": float(state.best_psnr),
        "seconds": state.seconds,
        "sums": state.sums,
    }
    if state.data is not None:
        content["data"] = state.data
    save_checkpoint(path, trained.network, config, content, state.statistics)


def kept_of_a_parameter(objective: Objective, name: str, train: TrainConfig) -> dict[str, Any]:
    """What the optimizer `name` keeps of a parameter after a step, tried on one of PROBE_SHAPE."""
    probe = nn.Parameter(torch.zeros(PROBE_SHAPE))
    probe.grad = torch.zeros(PROBE_SHAPE)
    optimizer = objective.optimizer(name, [probe], train)
    optimizer.step()
    return dict(optimizer.state[probe])


@dataclass(frozen=True)
class _Numbers:
    """The plain part of a training state, as last.pth holds it."""

    step: int = setting(MISSING, "steps done", 0)
    position: tuple[int, int, int] = setting(MISSING, "place in the stream of crops", 0)
    seconds: float = setting(MISSING, "time of all steps", 0)
    best_psnr: float | None = setting(MISSING, "of the best weights, dB; None without a validation")
    sums: dict[str, float] | None = setting(MISSING, "of loss and terms; None for none")
    data: dict[str, dict[str, str]] | None = setting(None, "digests of each split's subjects")


def _state(
    saved: Mapping[str, Any], statistics: TrainingStatistics | None, last: Path
) -> TrainingState:
    values = {field.name: saved[field.name] for field in fields(_Numbers) if field.name in saved}
    if isinstance(values.get("best_psnr"), float) and values["best_psnr"] == -math.inf:
        values["best_psnr"] = None  # settings are finite, and mappings not empty
    if isinstance(values.get("sums"), dict) and not values["sums"]:
        values["sums"] = None
    numbers = parse(_Numbers, values, str(last), "training.")
    return TrainingState(
        step=numbers.step,
        position=Position(*numbers.position),
        best_psnr=-math.inf if numbers.best_psnr is None else numbers.best_psnr,
        seconds=numbers.seconds,
        sums=numbers.sums or {},
        data=numbers.data,
        statistics=statistics,
    )


def _optimizer_state(
    saved: Any, optimizer: torch.optim.Optimizer, kept: Mapping[str, Any], place: str, last: Path
) -> dict[str, Any]:
    """The saved state as the optimizer takes it; the settings of its groups stay the run's own."""
    groups = optimizer.state_dict()["param_groups"]
    found = _mapping(saved, place, last)
    before = found.get("param_groups")
    if not isinstance(before, list) or [_indices(group) for group in before] != [
        group["params"] for group in groups
    ]:
        raise UserError(f"{last}: {place}.param_groups is not of this run's parameters")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = _mapping(found.get("state"), f"{place}.state", last)
    for index, values in state.items():
        key = f"{place}.state.{index}"
        if type(index) is not int or not 0 <= index < len(parameters):
            raise UserError(f"{last}: {key} is of no parameter of this run")
        if set(_mapping(values, key, last)) != set(kept):
            names = ", ".join(map(str, values)) or "nothing"
            raise UserError(f"{last}: {key} must hold {', '.join(kept)}, not {names}")
        for name, like in kept.items():
            _check_kept(values[name], like, parameters[index], f"{key}.{name}", last)
    return {"state": state, "param_groups": groups}


def _check_kept(value: Any, like: Any, parameter: Tensor, key: str, last: Path) -> None:
    """UserError unless what an optimizer kept of a parameter is as what it keeps of the probe."""
    if type(value) is not type(like):
        raise UserError(f"{last}: {key} must be {type(like).__name__}, not {type(value).__name__}")
    if isinstance(like, Tensor):
        shape = parameter.shape if like.shape == PROBE_SHAPE else like.shape
        if value.shape != shape:
            raise UserError(f"{last}: {key} is {tuple(value.shape)} instead of {tuple(shape)}")
        check_type(value, like, key, last)
        if value.isnan().any():
            raise UserError(f"{last} is damaged: {key} holds NaN")


def _check_count(count: int, saved: Mapping[str, Any], name: str, last: Path) -> None:
    """UserError where an optimizer's state has lost parameters (files of former runs don't say)."""
    expected = saved.get("kept_parameters")
    if expected is not None:
        expected = _mapping(expected, "training.kept_parameters", last).get(name)
        if type(expected) is not int or expected != count:
            raise UserError(
                f"{last}: training.optimizers.{name}.state is of {count} parameters, but "
                f"training.kept_parameters says {expected!r}"
            )


def _indices(group: Any) -> list[int] | None:
    """Numbers of a saved group's parameters."""
    indices = group.get("params") if isinstance(group, dict) else None
    if isinstance(indices, list) and all(type(index) is int for index in indices):
        return indices
    return None


def _of_the_same(
    saved: Mapping[str, Any], kind: str, own: Mapping[str, Any], last: Path
) -> Mapping[str, Any]:
    """The section `kind`; UserError unless it has the names of this run's own."""
    section = _mapping(saved.get(kind), f"training.{kind}", last)
    if set(section) != set(own):
        names = ", ".join(map(str, section)) or "none"
        wanted = ", ".join(own) or "none"
        raise UserError(f"{last} is of a run with the {kind} {names}, where this one has {wanted}")
    return section


def _mapping(value: Any, key: str, last: Path) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{last}: '{key}' must be a mapping of keys, not {type(value).__name__}")
    return value


def _check_places(folder: Path) -> None:
    """UserError where a folder, or the like, stands where the run writes a file."""
    for name in ("last.pth", "best.pth", "log.csv", "curves.png"):
        path = folder / name
        if path.exists() and not path.is_file():
            raise UserError(f"{path} must be a file: the run writes one there")
    path = folder / "tensorboard"
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} must be a folder: the run writes one there")


def _as_now(state: Mapping[str, Any], last: Path) -> Mapping[str, Any]:
    """A training state with today's keys; once there was one optimizer and a list of sums."""
    if "optimizer" not in state or "optimizers" in state:
        return state
    names, sums = ("loss", "reconstruction", "perceptual", "cycle"), state.get("sums")
    if not isinstance(sums, list) or len(sums) != len(names):
        raise UserError(f"{last}: 'training.sums' must be {len(names)} numbers")
    section = {"optimizers": {NETWORK: state["optimizer"]}, "companions": {}}
    return {**state, **section, "sums": dict(zip(names, sums, strict=True))}


def _report_changes(before: Config, now: Config) -> None:
    old, new = to_mapping(before), to_mapping(now)
    for section in new:
        for key, value in new[section].items():
            was = old[section].get(key)
            if was != value:
                print(f"resuming with {section}.{key} = {value}, which was {was}")
