"""What a report is made of: sections of charts, tables and other blocks; templates draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tsf_seq2seq.tables import Table


@dataclass(frozen=True)
class Chart:
    """A Plotly figure ({data, layout}), what it shows in words, and its numbers."""

    kind: ClassVar[str] = "chart"
    identifier: str
    title: str
    alternative: str
    figure: Mapping[str, Any]
    numbers: Table | None = None


@dataclass(frozen=True)
class Drawn:
    """What the template of this name draws.

    `group`: charts side by side where the page is wide enough; `choice`: the one of several charts
    that is chosen; `facts`: terms and what they are
    here; `matrix`: of `task_matrix`; `cases`: of `case_sections`; `viewer`: the manifest that
    viewer.js reads.
    """

    kind: str
    content: Any


Block = Table | Chart | Drawn


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    `text`: paragraphs above the blocks; `note`: one line on what is missing and which command makes
    it; `files`: what its numbers come from, in the page's folder data/.
    """

    identifier: str
    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    note: str = ""
    files: Sequence[str] = ()
