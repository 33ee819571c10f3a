"""Our checkpoint files: settings and weights, and in `last.pth` all that resuming needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsf_seq2seq.checkpoints import published
from tsf_seq2seq.checkpoints.portable import is_portable, read_portable
from tsf_seq2seq.checkpoints.state_dicts import check_tensors, is_finite, load_state, read_file
from tsf_seq2seq.config import BRATS_SEQUENCES, Config, config_from_mapping, to_mapping
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.fingerprint import sha256
from tsf_seq2seq.files.writing import write_atomically
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.models.build import build_network
from tsf_seq2seq.models.seq2seq import Seq2Seq, Seq2SeqConfig
from tsf_seq2seq.models.tsf_seq2seq import TSFSeq2Seq
from tsf_seq2seq.settings import parse
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.error_map import ErrorMap, StoredErrorMap
from tsf_seq2seq.tasks import Task, all_tasks, task_key

FORMAT = "tsf-seq2seq checkpoint"
VERSION = 2
STATISTICS, PRIOR, ADAPTATION = "statistics", "prior", "adaptation"  # keys of what is optional
ERROR_MAP_KEY = "error_map"  # another; its weights stand among the network's, behind ERROR_WEIGHTS
ERROR_WEIGHTS = "error_map."
PROBE_BYTES = 2**20
READABLE = (1, 2)  # version 1 had other keys in its settings, which migration.py knows


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a checkpoint carries beside weights and settings, None where it doesn't.

    `statistics`: of the training data; `prior`: maps fitted on validation subjects, as training
    leaves them; `adaptation`: maps fitted on subjects of the scanner that the checkpoint was
    adapted to; `error_map`: an estimator of the network's errors, where one was trained.
    """

    statistics: TrainingStatistics | None = None
    prior: Adaptation | None = field(default=None, repr=False)
    adaptation: Adaptation | None = field(default=None, repr=False)
    error_map: ErrorMap | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Model(Extras):
    """A trained network, and what its checkpoint says of it; `sha256`: of that, hexadecimal."""

    network: SynthesisNetwork = field(repr=False)
    config: Config = field(repr=False)
    path: Path
    sha256: str

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences that the network knows, in its order."""
        return tuple(self.config.data.sequences)

    def task(self, sources: Iterable[str], target: str) -> Task:
        """The task of these sequences, which the network must know."""
        indices = sorted(map(self.sequences.index, sources))
        return Task(tuple(indices), self.sequences.index(target))


def save_checkpoint(
    path: Path,
    network: SynthesisNetwork,
    config: Config,
    training: Mapping[str, Any] | None = None,
    statistics: TrainingStatistics | None = None,
    prior: Adaptation | None = None,
    adaptation: Adaptation | None = None,
    error_map: ErrorMap | None = None,
) -> None:
    """Write weights and settings, `training` state, data `statistics` and maps where given.

    All or nothing. Raises UserError for weights that are NaN or infinite: they couldn't be loaded.
    """
    weights = dict(network.state_dict())
    if error_map is not None:
        own = error_map.estimator.state_dict()
        weights |= {f"{ERROR_WEIGHTS}{key}": value for key, value in own.items()}
    for key, value in weights.items():
        if not is_finite(value):
            raise UserError(f"{path} was not written: {key} holds NaN or infinite values")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_mapping(config),
        "weights": weights,
    }
    if training is not None:
        content["training"] = dict(training)
    for key, value in ((STATISTICS, statistics), (PRIOR, prior), (ADAPTATION, adaptation)):
        if value is not None:
            content[key] = to_mapping(value)
    if error_map is not None:
        content[ERROR_MAP_KEY] = to_mapping(
            StoredErrorMap(error_map.settings, error_map.calibration, error_map.network_sha256)
        )

    def save(temporary: Path) -> None:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # so torch reports a full disk, without saying so
            with open(temporary, "ab", buffering=0) as file:
                file.write(bytes(PROBE_BYTES))  # the system's own reason, if it has one
            raise OSError(str(error).splitlines()[0]) from error

    write_atomically(path, save)


def save_model(path: Path, model: Model) -> None:
    """Write a model, with all that it carries, as `save_checkpoint` does."""
    extras = {own.name: getattr(model, own.name) for own in fields(Extras)}
    save_checkpoint(path, model.network, model.config, **extras)


def load_model(path: Path | str, device: str | torch.device = "cpu") -> SynthesisNetwork:
    """The network of a checkpoint or portable model, in evaluation mode on `device`."""
    network, _ = load_model_and_config(Path(path))
    return network.to(device).eval()


def load_model_and_config(path: Path) -> tuple[SynthesisNetwork, Config]:
    """The network of one of our checkpoints, and the experiment it comes from."""
    return _rebuild(read_checkpoint(path), path)


def open_model(path: Path | str, device: str | torch.device = "cpu") -> Model:
    """The network of one of our checkpoints, in evaluation mode on `device`, with its origin."""
    path = Path(path)
    content = read_checkpoint(path)
    network, config = _rebuild(content, path)
    network = network.to(device).eval()
    extras = _extras_of(content, network, config, path)
    return Model(network, config, path, sha256(path), **vars(extras))


def checkpoint_extras(path: Path, network: SynthesisNetwork) -> Extras:
    """What a weights file carries beside its network's weights; nothing where it is the
    authors'."""
    content = _read(path)
    if not is_checkpoint(content):
        return Extras()
    content = _checked(content, path)
    return _extras_of(content, network, checkpoint_config(content, path), path)


def checkpoint_adaptation(path: Path) -> Adaptation | None:
    """The maps that a weights file was adapted by; None where it is the authors', or has none."""
    return _maps_in(path, ADAPTATION)


def checkpoint_prior(path: Path, network: str) -> Adaptation | None:
    """The maps of validation subjects in a weights file; None where it is the authors', has none,
    or is of another network than the one of that name."""
    return _maps_in(path, PRIOR, network)


def _maps_in(path: Path, key: str, network: str | None = None) -> Adaptation | None:
    content = _read(path)
    if not is_checkpoint(content):
        return None
    content = _checked(content, path)
    config = checkpoint_config(content, path)
    if network not in (None, config.network.name):
        return None
    return _maps_of(content, key, path, config)


def _extras_of(
    content: Mapping[str, Any], network: SynthesisNetwork, config: Config, path: Path
) -> Extras:
    """All of them, the error map where the network is."""
    return Extras(
        statistics=checkpoint_statistics(content, path),
        prior=_maps_of(content, PRIOR, path, config),
        adaptation=_maps_of(content, ADAPTATION, path, config),
        error_map=_error_map_of(content, network, path),
    )


def _rebuild(content: Mapping[str, Any], path: Path) -> tuple[SynthesisNetwork, Config]:
    config = checkpoint_config(content, path)
    try:
        network = build_network(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    load_state(network, _network_weights(content["weights"]), path)
    return network, config


def _network_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that aren't an error map's."""
    return {key: own for key, own in weights.items() if not key.startswith(ERROR_WEIGHTS)}


def _error_map_of(
    content: Mapping[str, Any], network: SynthesisNetwork, path: Path
) -> ErrorMap | None:
    """The error map of a checkpoint, where it carries one, on the network's device in evaluation
    mode; UserError where it is damaged."""
    if ERROR_MAP_KEY not in content:
        return None
    stored = parse(StoredErrorMap, content[ERROR_MAP_KEY], str(path), f"{ERROR_MAP_KEY}.")
    estimator = stored.settings.build(network.n_sequences, network.slices)
    weights = {
        key.removeprefix(ERROR_WEIGHTS): own
        for key, own in content["weights"].items()
        if key.startswith(ERROR_WEIGHTS)
    }
    load_state(estimator, weights, path)
    estimator.to(next(network.parameters()).device).eval()
    return ErrorMap(stored.settings, estimator, stored.calibration, stored.network_sha256)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of one of our checkpoints, either file of a portable model included."""
    return _checked(_read(path), path)


def _read(path: Path) -> Any:
    return read_portable(path) if is_portable(path) else read_file(path)


def _checked(content: Any, path: Path) -> dict[str, Any]:
    if not is_checkpoint(content):
        raise UserError(
            f"{path} is not a checkpoint of this software; for the authors' weights give their "
            "settings too, or import them with src/convert/import_published.py"
        )
    version = content.get("version")
    if type(version) is not int or version not in READABLE:
        raise UserError(
            f"{path} has format version {version!r}, but this software reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    if not isinstance(content.get("config"), dict):
        raise UserError(f"{path} is damaged: it holds no settings")
    check_tensors(content.get("weights"), path)
    return content


def is_checkpoint(content: Any) -> bool:
    """Whether it is the content of one of our checkpoints."""
    stated = content.get("format") if isinstance(content, dict) else None
    return isinstance(stated, str) and stated == FORMAT


def checkpoint_config(content: Mapping[str, Any], path: Path) -> Config:
    """The experiment that a checkpoint comes from; UserError where its settings are damaged."""
    try:
        return config_from_mapping(content["config"], str(path))
    except RecursionError:
        raise UserError(f"{path} is damaged: its settings are nested too deeply") from None


def checkpoint_statistics(content: Mapping[str, Any], path: Path) -> TrainingStatistics | None:
    """Statistics of the training data, where a checkpoint carries them."""
    if STATISTICS not in content:
        return None
    return parse(TrainingStatistics, content[STATISTICS], str(path), f"{STATISTICS}.")


def _maps_of(content: Mapping[str, Any], key: str, path: Path, config: Config) -> Adaptation | None:
    """Maps of a checkpoint, where it carries some; UserError where they don't fit its sequences."""
    if key not in content:
        return None
    found = parse(Adaptation, content[key], str(path), f"{key}.")
    names = list(config.data.sequences)
    known = {task_key(task, names): task for task in all_tasks(len(names))}
    for name, own in found.maps.items():
        task = known.get(name)
        if task is None or own.n_variables != len(task.sources) + own.uses_output:
            raise UserError(f"{path}: {key}.maps has '{name}', which is no map of a task")
    return found


def load_seq2seq_weights(network: Seq2Seq, path: Path, names: Sequence[str]) -> None:
    """Stage 1 weights into `network`, from our checkpoint (either stage) or the authors' file.

    `names`: the sequences, in order, as the network is to know them; a checkpoint that knows others
    is a UserError, as is one of another architecture.
    """
    state = _state_of(path, names)
    if published.is_published_seq2seq(state):
        if list(names) != list(BRATS_SEQUENCES):
            print(
                f"{path} was trained on {', '.join(BRATS_SEQUENCES)}; here its sequences are, in "
                f"that order, {', '.join(names)}"
            )
        state = published.seq2seq_names(state)
    elif published.is_published_tsf(state):
        raise UserError(f"{path} holds TSF weights alone, but stage 1 weights are needed here")
    else:  # of stage 2 its Seq2Seq alone
        own = {key: value for key, value in state.items() if key.startswith("seq2seq.")}
        state = {key.removeprefix("seq2seq."): value for key, value in (own or state).items()}
    load_state(network, state, path)


def load_weights(
    network: SynthesisNetwork, path: Path, seq2seq: Path | None, names: Sequence[str]
) -> None:
    """Weights into `network`: our checkpoint alone, or the authors' files.

    Those of TSF need the `seq2seq` weights that belong to them. `names` as in
    `load_seq2seq_weights`.
    """
    if isinstance(network, Seq2Seq):
        return load_seq2seq_weights(network, path, names)
    state = _state_of(path, names)
    if not (isinstance(network, TSFSeq2Seq) and published.is_published_tsf(state)):
        return load_state(network, state, path)
    if seq2seq is None:
        raise UserError(f"{path} holds TSF weights alone: give its Seq2Seq weights with -m")
    load_seq2seq_weights(network.seq2seq, seq2seq, names)
    load_state(network, published.tsf_names(state), path, besides="seq2seq.")


def stage1_config(config: Config) -> Config:
    """The experiment with its Seq2Seq alone, where it is stage 2's.

    UserError where the experiment's network has none.
    """
    settings = config.network
    if not isinstance(settings, Seq2SeqConfig):
        raise UserError(f"network {settings.name} has no Seq2Seq of single sources")
    plain = {field.name: getattr(settings, field.name) for field in fields(Seq2SeqConfig)}
    return replace(config, network=Seq2SeqConfig(**plain | {"name": "seq2seq"}))


def load_seq2seq(path: Path, config: Config) -> Seq2Seq:
    """The experiment's Seq2Seq, that of stage 2 included, with the weights of `path`."""
    network = build_network(stage1_config(config))
    assert isinstance(network, Seq2Seq)
    load_seq2seq_weights(network, path, list(config.data.sequences))
    return network


def _state_of(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    content = _read(path)
    if not is_checkpoint(content):
        return check_tensors(content, path)
    content = _checked(content, path)
    check_sequences(path, checkpoint_config(content, path), names)
    return _network_weights(content["weights"])


def check_sequences(path: Path, config: Config, names: Sequence[str]) -> None:
    """UserError unless the checkpoint of `config` knows the sequences `names`, in that order."""
    known = list(config.data.sequences)
    if known != list(names):
        raise UserError(
            f"{path} knows the sequences {', '.join(known)}, but the settings name "
            f"{', '.join(names)} (data.sequences)"
        )
