"""Charts of what an error map is worth: how much its bands hold, and the PSNR that it expects."""

from collections.abc import Sequence

import numpy as np

from tsf_seq2seq.explain.error_estimation import ErrorMapRow
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart
from tsf_seq2seq.tables import group_by
from tsf_seq2seq.tasks import n_inputs

WANTED = 0.9  # of the brain, within a band


def coverage_chart(rows: Sequence[ErrorMapRow]) -> Chart:
    """Share of each subject's brain within the bands for 90 %, by target, mean over its tasks."""
    subjects, traces = list(dict.fromkeys(row.name for row in rows)), []
    for colour, (target, own) in enumerate(group_by(rows, lambda row: row.target).items()):
        means = group_by(own, lambda row: row.name)
        shares = [float(np.mean([row.within_90 for row in means[name]])) for name in means]
        traces.append(charts.line(f"→ {target}", list(means), shares, colour, mode="markers"))
    wanted = [WANTED] * len(subjects)
    traces.append(charts.line("wanted", subjects, wanted, len(traces), mode="lines"))
    least = min([WANTED, *(share for trace in traces for share in trace["y"])])
    axis = {"range": [max(0, least - 0.1), 1.01]}  # markers at 1 are whole
    return Chart(
        "coverage",
        "How much of each brain lies within the bands for 90 %",
        "Points: for each subject and target, the share of the brain's voxels whose true intensity "
        "lies within the band, mean over tasks; the line is at 90 %, which is promised on average "
        "over subjects.",
        charts.figure(traces, "subject", "share within the band", 380, yaxis=axis),
    )


def expected_psnr_chart(rows: Sequence[ErrorMapRow]) -> Chart:
    """Expected against true PSNR of every volume, by the number of inputs."""
    traces = []
    groups = group_by(rows, lambda row: n_inputs(row.sources))
    for colour, (count, own) in enumerate(sorted(groups.items())):
        expected, true = [row.expected_psnr for row in own], [row.psnr for row in own]
        name = f"{count} {'input' if count == 1 else 'inputs'}"
        traces.append(charts.line(name, expected, true, colour, mode="markers"))
    values = [value for row in rows for value in (row.expected_psnr, row.psnr)]
    ends = [min(values), max(values)]
    traces.append(charts.line("as expected", ends, ends, len(traces), mode="lines"))
    return Chart(
        "expected-psnr",
        "The PSNR that is expected, and the true one",
        "Points: volumes, true PSNR in the brain over the one that the error map expects, which "
        "knows no target; on the line they are equal.",
        charts.figure(traces, "expected PSNR (dB)", "true PSNR (dB)", 420),
    )
