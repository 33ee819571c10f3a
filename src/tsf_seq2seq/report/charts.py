"""Plotly figures as plain mappings; charts.js gives them the colours of the page's theme."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LEGEND_ROW = 20  # pixels
FEW = 4  # names that a legend has room for as it is
PATTERNS = ("", "/", ".", "\\", "x", "-", "+", "|")


def line(
    name: str, x: Sequence[Any], y: Sequence[float], colour: int, **more: Any
) -> dict[str, Any]:
    """Points joined by a line; colour, dash and symbol tell lines apart."""
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x)}
    trace |= {"y": numbers(y), "meta": {"colour": colour}}
    trace["line"] = {"dash": DASHES[colour % len(DASHES)], "width": 2}
    trace["marker"] = {"symbol": SYMBOLS[colour % len(SYMBOLS)], "size": 8}
    return trace | more


def error_bars(means: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> dict[str, Any]:
    """Plotly's error bars of confidence intervals; none where an interval isn't known."""
    above, below = (np.nan_to_num(side).tolist() for side in (highs - means, means - lows))
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 4}


def bars(name: str, x: Sequence[Any], y: Sequence[Any], colour: int, **more: Any) -> dict[str, Any]:
    """Bars; colour and hatching tell them apart."""
    pattern = {"shape": PATTERNS[colour % len(PATTERNS)], "size": 7, "solidity": 0.3}
    pattern["fillmode"] = "overlay"
    trace = {"type": "bar", "name": name, "x": list(x), "y": list(y)}
    return trace | {"meta": {"colour": colour}, "marker": {"pattern": pattern}} | more


def figure(
    traces: Sequence[Mapping[str, Any]], x: str, y: str, height: int = 340, **layout: Any
) -> dict[str, Any]:
    """A figure with titled axes, its legend on top."""
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "dragmode": False,
        "hovermode": "closest",
    }
    for key, value in layout.items():
        base[key] = base[key] | value if isinstance(base.get(key), dict) else value
    return {"data": list(traces), "layout": base}


def room_for_names(count: int) -> dict[str, Any]:
    """Of a narrow figure's layout, whose legend has a row a name: as much of the figure is left for
    the lines of many as for those of few."""
    if count <= FEW:
        return {}
    rows = {"maxheight": LEGEND_ROW * (count + 1)}  # else half of the figure, and it scrolls
    return {"height": 340 + LEGEND_ROW * (count - FEW), "legend": rows}


def numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Values for JSON, which has no nan: None instead."""
    return [float(value) if isfinite(value) else None for value in values]
