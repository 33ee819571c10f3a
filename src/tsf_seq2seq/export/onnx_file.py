"""One task of a network as a single ONNX file."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsf_seq2seq import __version__
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.export.task_network import TaskNetwork, TaskOutputs
from tsf_seq2seq.files.writing import write_atomically
from tsf_seq2seq.models.base import FULL, WITHOUT_ATTENTION, SynthesisNetwork
from tsf_seq2seq.models.error_estimator import ERROR_SCALE
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.contrast_map import ContrastMap, brain_of
from tsf_seq2seq.synthesis.error_map import ErrorMap, with_error_map
from tsf_seq2seq.tasks import Task

TOLERANCE = 1e-4  # of what onnxruntime may differ from PyTorch, as `largest_difference` has it
LARGEST_FILE = 2**31 - 2**20  # bytes; protobuf holds 2 GiB
INTENSITY_RULE = (
    "x = clip(v, 0, m) / m * 2 - 1, m = 2 * 99th percentile of all voxels of the volume"
)


def find_task(sources: Sequence[str], target: str, names: Sequence[str]) -> Task:
    """The task that sequence names stand for, its sources in the order given.

    A target among the sources is a reconstruction, which networks are trained for too. Raises
    UserError for an unknown sequence, a source named twice, or none.
    """
    for name in (*sources, target):
        if name not in names:
            raise UserError(f"sequence '{name}' is unknown; the model knows {', '.join(names)}")
    if len(set(sources)) < len(sources) or not sources:
        raise UserError(f"sources must be named once each, not {','.join(sources) or 'none'}")
    return Task(tuple(names.index(name) for name in sources), names.index(target))


def export_onnx(
    path: Path,
    network: SynthesisNetwork,
    task: Task,
    names: Sequence[str],
    with_tsem: bool = False,
    statistics: TrainingStatistics | None = None,
    adaptation: Adaptation | None = None,
    error_map: ErrorMap | None = None,
) -> float | None:
    """Write `task` of a network on the CPU that knows the sequences `names`, all or nothing.

    Input `images` (B, n, C, H, W), float32 in [-1, 1], the sources in the task's order; output
    `image` (B, C, H, W), with TSEM `tsem` and with an error map `error`, (B, H, W) each. B, H and W
    are free, H and W multiples of a number that the file names. The file's metadata hold what a
    user must know, the training data's `statistics` included where there are any. With an
    `adaptation`, `image` is what its map of the task makes of the network's output; UserError where
    it has none, or with an error map, which doesn't speak of that. Returns the largest difference
    between onnxruntime and PyTorch, None without onnxruntime; above 1e-4 it is a UserError, and no
    file is left.
    """
    if not (_installed("onnx") and _installed("onnxscript")):
        raise UserError("ONNX export needs the packages onnx and onnxscript (the extra [onnx])")
    fitted = adaptation.map_of(task, names) if adaptation else None
    if adaptation and fitted is None:
        sources, target = task.label(names)
        raise UserError(f"the checkpoint is adapted, but has no map for {sources} → {target}")
    if fitted and error_map:
        raise UserError(
            "the checkpoint is adapted: its error map is of the network's own output, not of what "
            "the adaptation makes of it"
        )
    try:
        folded = TaskNetwork(network, task, TaskOutputs(with_tsem, fitted, error_map))
    except ValueError as error:
        raise UserError(str(error)) from error
    size = sum(tensor.nbytes for tensor in folded.state_dict().values())
    if size > LARGEST_FILE:
        raise UserError(f"{path} would need {size / 1e9:.1f} GB, but an ONNX file holds 2 GB")
    program = _to_program(folded)
    program.model.metadata_props.update(_metadata(folded, names, statistics, adaptation))
    if error_map is not None:
        program.model.metadata_props.update(_error_metadata(error_map))
    difference = None

    def save_checked(temporary: Path) -> None:
        nonlocal difference
        with _quiet():
            program.save(temporary, external_data=False)
        if not _installed("onnxruntime"):
            return
        difference = largest_difference(temporary, network, folded)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path} was not kept: onnxruntime's outputs differ from PyTorch's by "
                f"{difference:.1e}, more than {TOLERANCE:.0e}"
            )

    write_atomically(path, save_checked)
    return difference


def largest_difference(path: Path, network: SynthesisNetwork, folded: TaskNetwork) -> float:
    """Largest difference between onnxruntime's outputs and those of `network` itself.

    In intensities of range 2, but relative to values beyond 1: an expected error has no bound.
    Over two batches of random images, one of a usual size and both of others than the example's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    differences = []
    usual = 192 // folded.smallest_size + 1
    for batch, rows, columns in ((1, usual, usual - 1), (3, 1, 4)):
        images = _random_images(folded, batch, rows, columns)
        actual = session.run(None, {"images": images.numpy()})
        wanted = task_outputs(network, images, folded.task, folded.outputs)
        for found, tensor in zip(actual, wanted, strict=True):
            values = tensor.numpy()
            differences.append((np.abs(found - values) / np.abs(values).clip(1)).max())
    return float(np.max(differences))  # nan where there is one


@torch.no_grad()
def task_outputs(
    network: SynthesisNetwork, images: Tensor, task: Task, wanted: TaskOutputs
) -> tuple[Tensor, ...]:
    """What `network`, with nothing folded, makes of images (B, n, C, H, W) of the sources."""
    batch, _, *slices = images.shape
    everything = images.new_full((batch, network.n_sequences, *slices), BACKGROUND)
    everything[:, list(task.sources)] = images
    variants = [FULL]
    variants += [WITHOUT_ATTENTION] if wanted.tsem else []
    variants += [ERROR_SCALE] if wanted.error_map else []
    judged = with_error_map(network, wanted.error_map)
    found = {variant: own for variant, _, own in judged.synthesize(everything, [task], variants)}
    image, middle = found[FULL], network.slices // 2
    outputs = [_mapped(wanted.fitted, images, task, image) if wanted.fitted else image]
    if wanted.tsem:
        outputs.append((image - found[WITHOUT_ATTENTION])[:, middle].abs())  # (B, H, W)
    if wanted.error_map:
        scale = found[ERROR_SCALE][:, middle].numpy()  # (B, H, W)
        outputs.append(torch.from_numpy(wanted.error_map.expected_error(scale)))
    return tuple(outputs)


def _mapped(fitted: ContrastMap, images: Tensor, task: Task, output: Tensor) -> Tensor:
    """What the map makes of an output (B, C, H, W), in numpy."""
    order = sorted(range(len(task.sources)), key=lambda i: task.sources[i])
    sources = images[:, order].swapaxes(0, 1).numpy()  # (n, B, C, H, W)
    return torch.from_numpy(fitted(sources, output.numpy(), brain_of(sources)))


def _random_images(network: TaskNetwork, batch: int, rows: int, columns: int) -> Tensor:
    """Images (B, n, C, H, W): uniform in [-1, 1] beside a half of background.

    `rows` and `columns`: H and W in multiples of the smallest size.
    """
    size = network.smallest_size
    shape = (batch, len(network.task.sources), network.slices, rows * size, columns * size)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[..., : shape[-1] // 2] = BACKGROUND
    return images


def _to_program(network: TaskNetwork) -> Any:
    """torch's ONNX program with free batch and image size, bare of traces of this machine."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    r, smallest = network.size_multiple, network.smallest_size // network.size_multiple
    height, width = (
        torch.export.Dim(f"feature_{axis}", min=smallest) for axis in ("height", "width")
    )
    axes = {
        0: torch.export.Dim("batch", min=1),
        3: r * height if r > 1 else height,
        4: r * width if r > 1 else width,
    }
    with _quiet():
        program = torch.onnx.export(
            network,
            (_random_images(network, 2, 2, 3),),
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["images"],
            output_names=network.outputs.names,
            dynamic_shapes={"images": axes},
            custom_translation_table={torch.ops.aten.instance_norm.default: _instance_norm},
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return program


def _instance_norm(x: Any, *_: Any, eps: float = 1e-5, **__: Any) -> Any:
    """(x − mean) / √(variance + eps) over (H, W), in ONNX operators.

    Means are taken over W, then H: onnxruntime's sums over a whole image, in InstanceNormalization
    too, lose so much to rounding on an even background that outputs would be off by 2e-4.
    """
    from onnxscript import opset18

    op: Any = opset18  # its types refuse lists of axes

    def mean(values: Any) -> Any:
        return op.ReduceMean(op.ReduceMean(values, [3]), [2])

    centred = op.Sub(x, mean(x))
    variance = mean(op.Mul(centred, centred))
    return op.Div(centred, op.Sqrt(op.Add(variance, eps)))


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _metadata(
    network: TaskNetwork,
    names: Sequence[str],
    statistics: TrainingStatistics | None,
    adaptation: Adaptation | None,
) -> dict[str, str]:
    """What a user of the file must know, as text; with `statistics` what is usual, too."""
    target = names[network.task.target]
    facts = {
        "sequences": ",".join(names),
        "sources": ",".join(names[i] for i in network.task.sources),
        "target": target,
        "slices": str(network.slices),
        "size_multiple": str(network.size_multiple),
        "intensity": INTENSITY_RULE,
        "orientation": "axes z, y, x of a volume in LPS voxel order; slices neighbour along z",
        "software": f"tsf-seq2seq {__version__}",
        "license": "MIT for the software; the data's terms may bind the weights",
        "use": "research use only, not for clinical decisions",
    }
    if statistics is not None:
        facts["voxel_size"] = "{:g},{:g} (y, x in mm)".format(*statistics.spacing)
    maxima, origin = statistics.maxima if statistics else {}, "training data"
    if adaptation is not None:
        maxima, origin = adaptation.maxima, "references"
        facts["references"] = ", ".join(reference.name for reference in adaptation.references)
    if target in maxima:
        facts["target_maximum"] = (
            f"{maxima[target]:g} (median m of {target} in the {origin}: "
            "intensity = (x + 1) / 2 * m)"
        )
    return facts


def _error_metadata(error_map: ErrorMap) -> dict[str, str]:
    """What the output `error` means, as text."""
    facts = {"error": "expected absolute error of the centre slice, in intensities of range 2"}
    calibration = error_map.calibration
    if calibration is None:
        return facts | {"error_calibration": "none"}
    facts["error_calibration"] = f"{calibration.subjects} subjects"
    for alpha, factor in calibration.factors.items():
        if factor is not None:
            facts[f"error_band_{alpha}"] = (
                f"{factor / calibration.expected:g} (all but {alpha} of a brain lies within so "
                "many times the expected error)"
            )
    return facts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints, warnings and log lines from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
