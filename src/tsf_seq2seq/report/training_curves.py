"""Training curves of both stages, from log.csv."""

from collections.abc import Mapping, Sequence

import numpy as np

from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Drawn

POINTS = 400  # at most, of a curve

Log = Sequence[Mapping[str, str]]


def training_charts(logs: Mapping[str, Log]) -> Drawn:
    """Loss (logarithmic, if always above zero) and validation PSNR over steps, a line a stage."""
    found = []
    for column, title in (("loss", "Training loss"), ("validation_psnr", "Validation PSNR (dB)")):
        traces = []
        for colour, (stage, log) in enumerate(logs.items()):
            steps, values = curve(log, column)
            if steps:
                mode = "lines" if len(steps) > 40 else "lines+markers"
                traces.append(charts.line(stage, steps, values, colour, mode=mode))
        if traces:
            above = all(value > 0 for trace in traces for value in trace["y"])
            axis = {"type": "log"} if column == "loss" and above else {}
            figure = charts.figure(traces, "step", title, yaxis=axis)
            alternative = f"{title} over training steps of {' and '.join(logs)}."
            found.append(Chart(f"training-{column}", title, alternative, figure))
    return Drawn("group", found)


def curve(log: Log, column: str) -> tuple[list[float], list[float]]:
    """Steps and values of a column's rows; long curves as the means of equal blocks of rows."""
    pairs = [(float(row["step"]), float(row[column])) for row in log if row[column]]
    if not pairs:
        return [], []
    blocks = np.array_split(np.array(pairs), min(POINTS, len(pairs)))
    steps, values = np.transpose([block.mean(axis=0) for block in blocks])
    return steps.tolist(), values.tolist()
