"""The maps that lie over a case's synthesis: TSEM, the expected error, what each source adds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.evaluation.regions import brain_mask
from tsf_seq2seq.explain.contribution_maps import can_be_explained, explain_contributions
from tsf_seq2seq.explain.tsem import Explained
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.report.images import Scale
from tsf_seq2seq.synthesis.error_map import ErrorMap
from tsf_seq2seq.tasks import Task

TSEM_MAP, EXPECTED_MAP, ERROR_OVERLAY = "tsem", "expected_error", "error"
ADDED_MAP = "contribution"  # and a number
ERROR = Scale(0.0, 0.5)
ADDED = Scale(-0.5, 0.5)  # of contributions, which are signed
SHOWN_SHARE = 99.5  # percentile of a kind of maps that becomes the end of its colours


class Overlay(NamedTuple):
    """A kind of maps: what it is called, and the values at the ends of its colours; with `signed`
    ones 0 is in the middle."""

    title: str
    scale: Scale
    signed: bool = False


def contribution_map_name(index: int) -> str:
    """Files of what the sequence of that index adds."""
    return f"{ADDED_MAP}_{index + 1}"


def stored_range(name: str) -> Scale:
    """What the volumes of a kind of maps hold."""
    return ADDED if name.startswith(ADDED_MAP) else ERROR


def case_maps(
    network: SynthesisNetwork,
    explained: Explained,
    batch_size: int,
    error_map: ErrorMap | None,
    means: Mapping[int, float],
) -> dict[Task, dict[str, np.ndarray]]:
    """Each task's maps (Z − C + 1, Y, X) by the names of their files, normalised intensities.

    TSEM and expected errors of networks that have them; contributions of two sources and more,
    where the network can do without each and `means` (index of a sequence → its mean brain
    intensity) has the target's.
    """
    tasks, window = list(explained.maps.syntheses), explained.loaded.images
    maps = {task: dict[str, np.ndarray]() for task in tasks}
    for task, tsem in explained.maps.tsem.items():
        maps[task][TSEM_MAP] = tsem
    if error_map is not None:
        for task, scale in explained.maps.scales.items():
            brain = brain_mask(explained.loaded.centres[list(task.sources)])
            maps[task][EXPECTED_MAP] = np.where(brain, error_map.expected_error(scale), 0)
    several = [task for task in tasks if len(task.sources) > 1 and task.target in means]
    if can_be_explained(network, several):
        for task in several:
            brain = brain_mask(explained.loaded.centres[list(task.sources)])
            empty = np.where(brain, np.float32(means[task.target]), np.float32(BACKGROUND))
            found = explain_contributions(network, window, [task], batch_size, {task.target: empty})
            for source, added in next(iter(found)).contributions.items():
                maps[task][contribution_map_name(source)] = added
    return maps


def overlays_of(maps: Iterable[tuple[str, np.ndarray]], names: Sequence[str]) -> dict[str, Overlay]:
    """Of all maps (file's name, values) of a report: each kind's colours, in the order in which
    readers meet them; all contributions have the same."""
    found: dict[str, list[np.ndarray]] = {}
    for name, values in maps:
        found.setdefault(name, []).append(values)
    overlays = {}
    if TSEM_MAP in found:
        overlays[TSEM_MAP] = Overlay("TSEM", Scale(0.0, _limit(found[TSEM_MAP], 1e-3)))
    overlays[ERROR_OVERLAY] = Overlay("error", ERROR)
    if EXPECTED_MAP in found:
        overlays[EXPECTED_MAP] = Overlay("expected error", ERROR)
    own = {contribution_map_name(index): name for index, name in enumerate(names)}
    added = {name: title for name, title in own.items() if name in found}
    if added:
        limit = _limit([np.abs(one) for name in added for one in found[name]], 1e-2)
        scale = Scale(-limit, limit)
        overlays |= {name: Overlay(f"what {own} adds", scale, True) for name, own in added.items()}
    return overlays


def _limit(maps: Sequence[np.ndarray], least: float) -> float:
    """The largest of the maps' high percentiles, to one digit."""
    limit = max(float(np.percentile(values, SHOWN_SHARE)) for values in maps)
    return max(float(f"{limit:.1g}"), least)
