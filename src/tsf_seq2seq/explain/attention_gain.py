"""How much of what the network gains comes through the attention residual f_A."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from tsf_seq2seq.evaluation.scores import Score
from tsf_seq2seq.evaluation.statistics import bootstrap
from tsf_seq2seq.explain.contribution import SIGNS
from tsf_seq2seq.explain.source_values import EMPTY, FULL, PLAIN, Key, score_table
from tsf_seq2seq.tables import interval, markdown, number


@dataclass(frozen=True)
class AttentionGain:
    """What f_A brings on a task, mean over subjects: a row of attention_gain.csv.

    `gain`: tsf − tsf_without_attention with its 95 % interval, positive where f_A helps (LPIPS's
    sign is turned); `wins`: share of subjects where it does; `of_total`: the gain as a share of
    what the network gains over the training subjects' mean image, nan where that wasn't scored.
    """

    sources: str
    target: str
    metric: str
    subjects: int
    gain: float
    low: float
    high: float
    wins: float
    of_total: float


def attention_gains(scores: Sequence[Score]) -> list[AttentionGain]:
    """Per metric and task, over the subjects that have scores with and without f_A."""
    gains = []
    names = list(dict.fromkeys(score.name for score in scores))
    tasks = dict.fromkeys((s.sources, s.target) for s in scores if s.method == PLAIN)
    for metric, sign in SIGNS.items():
        table = score_table(scores, metric)
        for sources, target in tasks:
            task = frozenset(sources.split("+"))
            of_method = {FULL: task, PLAIN: task, EMPTY: frozenset[str]()}
            full, plain, empty = (
                np.array([table.get(Key(method, name, own, target), nan) for name in names])
                for method, own in of_method.items()
            )
            both = np.isfinite(full - plain)
            if not both.any():
                continue
            differences = sign * (full - plain)[both]
            total = sign * float((full - empty)[both].mean())
            mean = bootstrap(differences)
            wins, share = float((differences > 0).mean()), mean.mean / total if total else nan
            counted = metric, len(differences)
            gains.append(AttentionGain(sources, target, *counted, *mean, wins, share))
    return gains


def attention_gain_markdown(gains: Sequence[AttentionGain]) -> str:
    """One row a task: gains in PSNR, SSIM, LPIPS, and PSNR's share of the whole gain."""
    rows = [["sources", "target", "subjects", "PSNR (dB)", "helps in", "of the gain over the mean"]]
    rows[0] += ["SSIM", "LPIPS (turned)"]
    tasks: dict[tuple[str, str], dict[str, AttentionGain]] = {}
    for gain in gains:
        tasks.setdefault((gain.sources, gain.target), {})[gain.metric] = gain
    for task, found in tasks.items():
        psnr, others = found.get("psnr"), [found.get("ssim"), found.get("lpips")]
        cells = ["–"] * 4
        if psnr is not None:
            cells = [str(psnr.subjects), interval(psnr.gain, psnr.low, psnr.high, "+.2f")]
            cells += [f"{psnr.wins:.0%}", number(psnr.of_total, ".1%")]
        for other, style in zip(others, ("+.4f", "+.3f"), strict=True):
            cells.append("–" if other is None else number(other.gain, style))
        rows.append([*task, *cells])
    return markdown(rows)
