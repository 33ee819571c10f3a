"""What a report is made of: sections of charts, tables and other blocks; templates draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
class Group:
    """Charts side by side where the page is wide enough."""

    kind: ClassVar[str] = "group"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Facts:
    """Terms and what they are here."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Matrix:
    """The task matrix: rows of source sets, columns of targets; see `task_matrix`."""

    kind: ClassVar[str] = "matrix"
    content: Mapping[str, Any]


@dataclass(frozen=True)
class CasePicture:
    """An image file of the report, with words for who can't see it; its size in pixels."""

    path: str
    title: str
    alternative: str
    width: int
    height: int


@dataclass(frozen=True)
class ShownCase:
    """A case in pictures."""

    title: str
    caption: str
    pictures: Sequence[CasePicture]


@dataclass(frozen=True)
class Cases:
    """Best, median and worst case of every target, and what the colours of their maps mean."""

    kind: ClassVar[str] = "cases"
    targets: Mapping[str, Sequence[ShownCase]]
    scales: Sequence[tuple[str, str]]  # map, its upper end in words


@dataclass(frozen=True)
class Viewer:
    """The volumes to look through: the manifest that viewer.js reads."""

    kind: ClassVar[str] = "viewer"
    manifest: Mapping[str, Any]


Block = Table | Chart | Group | Facts | Matrix | Cases | Viewer


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
    files: Sequence[str] = field(default_factory=tuple)
