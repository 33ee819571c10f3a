"""What a training run leaves to look at: log.csv, curves.png, TensorBoard scalars and images."""

import csv
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.figures import plot_curves
from tsf_seq2seq.files.writing import refusals_told, write_text
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.tasks import Task

NEEDED = ("step", "loss", "validation_psnr", "seconds")  # columns of every log.csv


class TrainingLog:
    """Rows of log.csv are means over the steps since the row before: of `loss`, the weighted total,
    and of its unweighted terms. Rows of validations hold the PSNR in dB instead.

    All that writes raises UserError where the disk refuses.
    """

    def __init__(self, folder: Path, step: int, terms: Sequence[str]) -> None:
        """Go on in `folder` after `step`; what was logged past it (by a killed run) is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path, self.events = folder, folder / "log.csv", folder / "tensorboard"
        self.columns = ["step", "epoch", "lr", "loss", *terms, "validation_psnr", "seconds"]
        logged = _read_former(self.path) if step and self.path.exists() else []
        self.rows = [row for row in logged if int(row["step"]) <= step]
        header = {name: name for name in self.columns}
        write_text(self.path, _as_csv(self.columns, [header, *self.rows]))
        with refusals_told(self.events):
            self.tensorboard = SummaryWriter(str(self.events), purge_step=step + 1)

    def training(
        self, step: int, epoch: int, lr: float, means: Mapping[str, float], seconds: float
    ) -> None:
        """Log the mean loss and terms."""
        self._write({"step": step, "epoch": epoch, "lr": lr, **means, "seconds": round(seconds, 1)})
        with refusals_told(self.events):
            for name, value in means.items():
                self.tensorboard.add_scalar(f"train/{name}", value, step)
            self.tensorboard.add_scalar("train/lr", lr, step)

    def validation(self, step: int, psnr: float, seconds: float) -> None:
        """Log a validation and bring curves.png up to date."""
        self._write({"step": step, "validation_psnr": psnr, "seconds": round(seconds, 1)})
        with refusals_told(self.events):
            self.tensorboard.add_scalar("validation/psnr", psnr, step)
        self.flush()
        plot_curves(self.rows, self.folder / "curves.png")

    def images(
        self, step: int, network: SynthesisNetwork, images: Tensor, available: Sequence[int]
    ) -> None:
        """Real sequences of images (1, S, C, H, W), below each its synthesis from the others."""
        grid = synthesis_grid(network, images, available)
        with refusals_told(self.events):
            self.tensorboard.add_image("crop", grid, step, dataformats="HW")

    def flush(self) -> None:
        """Wait for TensorBoard's files; what its thread could not write is told here."""
        with refusals_told(self.events):
            self.tensorboard.flush()

    def close(self) -> None:
        with refusals_told(self.events):
            self.tensorboard.close()

    def _write(self, values: Mapping[str, float]) -> None:
        row = {name: str(values.get(name, "")) for name in self.columns}
        self.rows.append(row)
        with refusals_told(self.path), open(self.path, "a", newline="", encoding="utf-8") as file:
            file.write(_as_csv(self.columns, [row]))


class NoLog:
    """The log of a process that leaves logging to another one."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@contextmanager
def writers_thread_quiet() -> Iterator[None]:
    """Within it, errors of TensorBoard's thread aren't printed: the next call of it raises them."""
    usual = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            usual(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log.csv; a last line that a killed run left unfinished is left out.

    Raises UserError, with file and line, for what is no such table.
    """
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is not a file")
    try:
        text = path.read_bytes().decode("utf-8")
        whole = text[: text.rfind("\n") + 1]
        reader = csv.reader(io.StringIO(whole, newline=""), strict=True)
        lines = [(reader.line_num, values) for values in reader if values]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged or no log of a training: {error}") from None
    columns = lines[0][1] if lines else []
    for name in (*NEEDED, *columns):
        if columns.count(name) != 1:
            raise UserError(f"{path}, line 1: column '{name}' stands {columns.count(name)} times")
    return [_checked_row(columns, values, f"{path}, line {line}") for line, values in lines[1:]]


def _read_former(path: Path) -> list[dict[str, str]]:
    try:
        return read_log(path)
    except UserError as error:
        raise UserError(f"{error}; without the file, the run goes on with a new one") from None


def _checked_row(columns: Sequence[str], values: Sequence[str], place: str) -> dict[str, str]:
    if len(values) != len(columns):
        raise UserError(f"{place}: {len(values)} values for {len(columns)} columns")
    row = dict(zip(columns, values, strict=True))
    for name, value in row.items():
        if name == "step":
            wanted, right = "a whole number", value.isascii() and value.isdigit()
        else:
            wanted, right = "a number", _is_number(value) or (not value and name != "seconds")
        if not right:
            raise UserError(f"{place}: '{name}' must be {wanted}, not '{value[:40]}'")
    return row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@torch.no_grad()
def synthesis_grid(
    network: SynthesisNetwork, images: Tensor, available: Sequence[int]
) -> np.ndarray:
    """Centre slices, (2·H, S·W) in [0, 1]: real sequences above, syntheses below.

    Sources are all available sequences but the target, or as many of those before it as the network
    takes; the target itself where it is the only one. Background where it takes none of these.
    """
    count, training = images.shape[1], network.training
    network.eval()  # in training a look at it would change what BatchNorm keeps
    outputs = []
    for target in range(count):
        before = sorted(available, key=lambda i: (target - 1 - i) % count)
        others = [i for i in before if i != target] or [target]
        parts = (Task(tuple(others[:n]), target) for n in range(len(others), 0, -1))
        task = next((task for task in parts if network.accepts(task)), None)
        if task is None:
            outputs.append(torch.full_like(images[:, target], BACKGROUND))
            continue
        outputs.append(network(images, [i in task.sources for i in range(count)], target))
    network.train(training)
    rows = torch.stack([images[0], torch.cat(outputs)])  # (2, S, C, H, W)
    centre = rows[:, :, rows.shape[2] // 2]  # (2, S, H, W)
    grid = centre.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return (grid / 2 + 0.5).clamp(0, 1).float().cpu().numpy()


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Lines of log.csv, with CRLF."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, extrasaction="ignore").writerows(rows)
    return text.getvalue()
