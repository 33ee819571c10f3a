"""Quality inside and outside the tumour, from tumour.csv."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tsf_seq2seq.evaluation.statistics import Estimate, bootstrap
from tsf_seq2seq.report import charts
from tsf_seq2seq.report.blocks import Chart, Table
from tsf_seq2seq.tables import interval


@dataclass(frozen=True)
class RegionRow:
    """The columns of tumour.csv that the report shows."""

    name: str
    sources: str
    region: str
    psnr: float
    ssim: float
    mae: float

    @property
    def n_inputs(self) -> int:
        return self.sources.count("+") + 1


def region_estimate(
    rows: Sequence[RegionRow], value: Callable[[RegionRow], float]
) -> tuple[int, Estimate]:
    """Subjects, and mean with interval over them of a value averaged over each one's tasks."""
    subjects: dict[str, list[float]] = {}
    for row in rows:
        if np.isfinite(value(row)):
            subjects.setdefault(row.name, []).append(value(row))
    return len(subjects), bootstrap([float(np.mean(values)) for values in subjects.values()])


def tumour_blocks(rows: Sequence[RegionRow]) -> list[Chart | Table]:
    """A chart of PSNR by region, and the table of all metrics."""
    regions = list(dict.fromkeys(row.region for row in rows))
    counts = sorted({row.n_inputs for row in rows})
    cells, traces = [], []
    for colour, region in enumerate(regions):
        found = []
        for inputs in counts:
            own = [row for row in rows if (row.region, row.n_inputs) == (region, inputs)]
            if not own:
                continue
            subjects, psnr = region_estimate(own, lambda row: row.psnr)
            ssim, mae = (
                region_estimate(own, value)[1]
                for value in (lambda row: row.ssim, lambda row: row.mae)
            )
            found.append((inputs, psnr))
            metrics = [interval(*psnr, ".2f"), interval(*ssim, ".3f"), interval(*mae, ".4f")]
            cells.append([str(inputs), region.replace("_", " "), str(subjects), *metrics])
        means, lows, highs = zip(*(psnr for _, psnr in found), strict=True)
        bars = charts.error_bars(means, lows, highs)
        name = region.replace("_", " ")
        traces.append(charts.line(name, [n for n, _ in found], means, colour, error_y=bars))
    headings = ["inputs", "region", "subjects", "PSNR (dB) [95 %]", "SSIM [95 %]"]
    cells.sort(key=lambda row: int(row[0]))
    table = Table("By region", [*headings, "mean absolute error [95 %]"], cells, labels=2)
    figure = charts.figure(traces, "number of inputs", "PSNR (dB)", xaxis={"dtick": 1})
    words = "PSNR by number of inputs, one line per region; the table below holds the numbers."
    return [Chart("tumour-psnr", "PSNR inside and outside the tumour", words, figure), table]
