"""A tumour segmentation network from MONAI, trained on real sequences: a user of synthetic ones."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.slices import stacks
from tsf_seq2seq.data.subjects import find_segmentation
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.regions import ENHANCING
from tsf_seq2seq.files.writing import write_atomically
from tsf_seq2seq.models.base import seeded
from tsf_seq2seq.synthesis.windows import load_window, window_labels
from tsf_seq2seq.training.objectives import one_cycle_learning_rate

CORE = (1, *ENHANCING)  # labels of necrosis, and of enhancing tumour in BraTS 2023 and 2021
REGIONS = ("whole tumour", "tumour core", "enhancing tumour")
FEATURES = (16, 16, 32, 64, 128, 16)  # channels of MONAI's BasicUNet, per scale and of the last
SIZE_MULTIPLE = 16
STEPS_A_VISIT = 4
WITH_TUMOUR = 0.7  # share of the slices of a step that show some
LEARNING_RATE = 2e-3


def region_masks(labels: np.ndarray) -> np.ndarray:
    """Labels (…) of BraTS 2021 or 2023 → whole tumour, core and enhancing tumour, (3, …) bool."""
    return np.stack([labels > 0, np.isin(labels, CORE), np.isin(labels, ENHANCING)])


def check_monai() -> None:
    """UserError where MONAI isn't installed."""
    if importlib.util.find_spec("monai") is None:
        raise UserError('segmentation needs MONAI: pip install "monai>=1.4"')


def new_segmenter(n_sequences: int, stack: int) -> nn.Module:
    """An untrained network: (B, S·C, H, W) in [-1, 1], where 16 divides H and W → logits
    (B, 3, H, W) of the regions in the centre slice."""
    from monai.networks.nets import BasicUNet

    network: nn.Module = BasicUNet(2, n_sequences * stack, len(REGIONS), FEATURES)
    return network


def train_segmenter(
    config: Config,
    subjects: Sequence[Subject],
    path: Path,
    steps: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """A segmenter trained on the real sequences of subjects with labels; kept in `path`, and taken
    from there where that is of the same subjects, steps and seed.

    A step sees `batch_size` slices of one subject, which is read for STEPS_A_VISIT steps; which
    subject comes from (seed, visit), which slices from (seed, step).
    """
    from monai.losses import DiceLoss

    names, stack = list(config.data.sequences), config.data.stack
    made_of = {
        "subjects": [subject.name for subject in subjects],
        "sequences": names,
        **{"stack": stack, "steps": steps, "batch_size": batch_size, "seed": seed},
    }
    with seeded(seed):
        network = new_segmenter(len(names), stack).to(device)
    if path.is_file():
        content = torch.load(path, weights_only=True)
        if content["made_of"] == made_of:
            network.load_state_dict(content["weights"])
            return network.eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    dice, entropy = DiceLoss(sigmoid=True), nn.BCEWithLogitsLoss()
    for step in tqdm(range(steps), unit="step", desc="training the segmenter"):
        if step % STEPS_A_VISIT == 0:
            rng = np.random.default_rng([seed, step // STEPS_A_VISIT, 1])
            visited = _read(config, subjects[int(rng.integers(len(subjects)))])
        images, masks = _some_slices(*visited, batch_size, np.random.default_rng([seed, step]))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle_learning_rate(LEARNING_RATE, step / steps, warm_up=0.05)
        logits = network(images.to(device))
        loss = dice(logits, masks.to(device)) + entropy(logits, masks.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    content = {"made_of": made_of, "weights": network.state_dict()}
    write_atomically(path, lambda temporary: torch.save(content, temporary))
    return network.eval()


def labelled(config: Config, subjects: Sequence[Subject], what: Path) -> list[Subject]:
    """The subjects with all sequences and a label map; UserError where there are none."""
    n = len(config.data.sequences)
    found = [
        subject
        for subject in subjects
        if len(subject.on_disk) == n and find_segmentation(config.data, subject.name) is not None
    ]
    if not found:
        raise UserError(f"{what}: no subject has all {n} sequences and a label map")
    return found


def segment(network: nn.Module, images: np.ndarray, stack: int, batch_size: int) -> np.ndarray:
    """Images (S, Z, Y, X) in [-1, 1] → regions (3, Z − C + 1, Y, X), bool, of the centre slices."""
    device, blocks = next(network.parameters()).device, stacks(images, stack)  # (S, N, C, Y, X)
    parts = []
    with torch.inference_mode():
        for start in range(0, blocks.shape[1], batch_size):
            batch = _as_input(blocks[:, start : start + batch_size]).to(device)
            height, width = batch.shape[-2:]
            logits = network(_padded(batch))[..., :height, :width]
            parts.append((logits > 0).cpu().numpy())
    return np.concatenate(parts).swapaxes(0, 1)


def _read(config: Config, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """A subject's stacks (S, N, C, Y, X) and the regions in their centre slices, (3, N, Y, X)."""
    loaded = load_window(config, subject)
    labels: Any = window_labels(config, loaded)
    return stacks(loaded.images, loaded.height), region_masks(labels)


def _some_slices(
    blocks: np.ndarray, masks: np.ndarray, batch_size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random ones, flipped left-right by chance: (B, S·C, H, W), (B, 3, H, W)."""
    with_tumour = np.flatnonzero(masks[0].any(axis=(1, 2)))
    all_slices = np.arange(masks.shape[1])
    places = [
        rng.choice(with_tumour if len(with_tumour) and rng.random() < WITH_TUMOUR else all_slices)
        for _ in range(batch_size)
    ]
    images = _padded(_as_input(blocks[:, places]))
    wanted = torch.from_numpy(masks[:, places].swapaxes(0, 1).astype(np.float32))
    wanted = _padded(wanted, 0)
    if rng.random() < 0.5:
        images, wanted = images.flip(-1), wanted.flip(-1)
    return images, wanted


def _as_input(blocks: np.ndarray) -> Tensor:
    """(S, N, C, H, W) → (N, S·C, H, W)."""
    return torch.from_numpy(blocks.swapaxes(0, 1).copy()).flatten(1, 2)


def _padded(images: Tensor, value: float = -1) -> Tensor:
    """With background at right and bottom until 16 divides H and W, twice at least (a single
    feature has no variance)."""
    bottom, right = (
        max(2 * SIZE_MULTIPLE, size + -size % SIZE_MULTIPLE) - size for size in images.shape[-2:]
    )
    return nn.functional.pad(images, (0, right, 0, bottom), value=value)
