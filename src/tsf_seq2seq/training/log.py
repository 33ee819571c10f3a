"""What a training run leaves to look at: log.csv, curves.png, TensorBoard scalars and images."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tsf_seq2seq.figures import plot_curves
from tsf_seq2seq.files.writing import write_atomically
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.tasks import Task


class TrainingLog:
    """Rows of log.csv are means over the steps since the row before: of `loss`, the weighted total,
    and of its unweighted terms. Rows of validations hold the PSNR in dB instead."""

    def __init__(self, folder: Path, step: int, terms: Sequence[str]) -> None:
        """Go on in `folder` after `step`; what was logged past it (by a killed run) is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / "log.csv"
        self.columns = ["step", "epoch", "lr", "loss", *terms, "validation_psnr", "seconds"]
        logged = read_log(self.path) if step and self.path.exists() else []
        rows = [row for row in logged if int(row["step"]) <= step]
        write_atomically(self.path, lambda temporary: _write_rows(temporary, self.columns, rows))
        self.file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115  (kept open)
        self.writer = csv.DictWriter(self.file, self.columns)
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def training(
        self, step: int, epoch: int, lr: float, means: Mapping[str, float], seconds: float
    ) -> None:
        """Log the mean loss and terms."""
        self._write({"step": step, "epoch": epoch, "lr": lr, **means, "seconds": round(seconds, 1)})
        for name, value in means.items():
            self.tensorboard.add_scalar(f"train/{name}", value, step)
        self.tensorboard.add_scalar("train/lr", lr, step)

    def validation(self, step: int, psnr: float, seconds: float) -> None:
        """Log a validation and bring curves.png up to date."""
        self._write({"step": step, "validation_psnr": psnr, "seconds": round(seconds, 1)})
        self.tensorboard.add_scalar("validation/psnr", psnr, step)
        self.flush()
        plot_curves(read_log(self.path), self.folder / "curves.png")

    def images(
        self, step: int, network: SynthesisNetwork, images: Tensor, available: Sequence[int]
    ) -> None:
        """Real sequences of images (1, S, C, H, W), below each its synthesis from the others."""
        grid = synthesis_grid(network, images, available)
        self.tensorboard.add_image("crop", grid, step, dataformats="HW")

    def flush(self) -> None:
        self.file.flush()
        self.tensorboard.flush()

    def close(self) -> None:
        self.file.close()
        self.tensorboard.close()

    def _write(self, row: dict[str, float]) -> None:
        self.writer.writerow(row)


class NoLog:
    """The log of a process that leaves logging to another one."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log.csv; a line that a killed run left unfinished is left out."""
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["seconds"]]


@torch.no_grad()
def synthesis_grid(
    network: SynthesisNetwork, images: Tensor, available: Sequence[int]
) -> np.ndarray:
    """Centre slices, (2·H, S·W) in [0, 1]: real sequences above, syntheses below.

    Sources are all available sequences but the target, or for a network that takes one only, the
    one before it; the target itself where it is the only one.
    """
    count = images.shape[1]
    outputs = []
    for target in range(count):
        before = sorted(available, key=lambda i: (target - 1 - i) % count)
        task = Task(tuple(i for i in before if i != target) or (target,), target)
        if not network.accepts(task):
            task = Task((before[0],), target)
        outputs.append(network(images, [i in task.sources for i in range(count)], target))
    rows = torch.stack([images[0], torch.cat(outputs)])  # (2, S, C, H, W)
    centre = rows[:, :, rows.shape[2] // 2]  # (2, S, H, W)
    grid = centre.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return (grid / 2 + 0.5).clamp(0, 1).float().cpu().numpy()


def _write_rows(path: Path, columns: Sequence[str], rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
