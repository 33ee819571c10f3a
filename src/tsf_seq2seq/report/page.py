"""The page itself: sections through templates into index.html, with the files that it needs."""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from tsf_seq2seq.files.writing import write_atomically, write_text
from tsf_seq2seq.report.blocks import Section
from tsf_seq2seq.report.images import colours, signed_colours

TEMPLATES = Path(__file__).parent / "templates"
VIEWER = "niivue.umd.js"
VIEWER_LICENCE = "niivue.LICENSE.txt"


def write_page(
    output: Path, title: str, sections: Sequence[Section], warning: str, viewer: Path | None
) -> Path:
    """Write index.html with styles, scripts and, where given, NiiVue's file `viewer`; its path."""
    copies = {path.name: path for path in (*TEMPLATES.glob("*.css"), *TEMPLATES.glob("*.js"))}
    if viewer is not None:
        copies |= {VIEWER: viewer, VIEWER_LICENCE: TEMPLATES / VIEWER_LICENCE}
    for name, source in copies.items():
        write_atomically(output / name, partial(shutil.copyfile, source))
    write_text(output / "plotly.min.js", get_plotlyjs())
    for name, palette in {"colours": colours(), "signed_colours": signed_colours()}.items():
        ramp = Image.fromarray(palette[None])
        write_atomically(output / f"{name}.png", partial(ramp.save, format="PNG"))
    environment = Environment(
        loader=PackageLoader("tsf_seq2seq.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["json"] = script_json
    text = environment.get_template("page.html").render(
        title=title, sections=sections, warning=warning, viewer=VIEWER if viewer else ""
    )
    path = output / "index.html"
    write_text(path, text)
    return path


def script_json(value: Any) -> Markup:
    """JSON for a <script> element: no name in it can end the element or start a tag.

    Numbers that JSON has no name for become null.
    """
    value = _without_nan(value)
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
