"""The report in a browser (Debian's Chromium): it draws, reacts, and asks no other machine."""

import functools
import http.server
import io
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, SEQUENCES
from PIL import Image
from report_page import evaluation, made_up_scores, tiny_experiment, training_run

from tsf_seq2seq.checkpoints.checkpoint import Extras
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.models.error_estimator import ErrorEstimatorConfig
from tsf_seq2seq.report.inputs import Inputs
from tsf_seq2seq.report.report import write_report
from tsf_seq2seq.synthesis.error_map import ErrorMap

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NIIVUE = REPOSITORY / ".venv" / "viewer" / "niivue.umd.js"
FLAGS = "--headless --no-sandbox --disable-quic --use-gl=angle --use-angle=swiftshader"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
needs_niivue = pytest.mark.skipif(not NIIVUE.is_file(), reason="make viewer was not run")
VIEWERS = [pytest.param(False, id="strips"), pytest.param(True, id="niivue", marks=needs_niivue)]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        flags = [*FLAGS.split(), "--enable-unsafe-swiftshader"]
        running = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


class Visit:
    """A page that is open, with all that it complained of or asked for."""

    def __init__(self, browser: Any, address: str, width: int = 1280, theme: str = "light") -> None:
        viewport = {"width": width, "height": 900}
        self.page = browser.new_page(viewport=viewport, color_scheme=theme)
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.settle()

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def settle(self) -> None:
        """Wait until the viewer shows what was asked for, and is drawn."""
        if self.page.locator(".viewer").count():
            self.page.wait_for_selector('.viewer[aria-busy="false"]')
        self.page.wait_for_timeout(300)

    def choose(self, name: str, index: int) -> None:
        self.page.locator(f'.viewer [data-choice="{name}"]').select_option(index=index)
        self.page.wait_for_timeout(100)
        self.settle()

    def overlay(self, name: str) -> None:
        self.page.locator(f'.viewer input[value="{name}"]').check()
        self.settle()

    def panels(self) -> np.ndarray:
        """What the viewer's last panel, the synthesis, looks like: (H, W, 3)."""
        picture = self.page.locator(".panels figure").last.locator("canvas, .strip").first
        picture.scroll_into_view_if_needed()
        self.page.wait_for_timeout(200)  # charts and pictures that came near are drawn
        return np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB"), float)

    def check(self, host: str) -> None:
        """No complaint, and no request that leaves `host`."""
        assert self.complaints == []
        assert self.requests
        inside = (host, "data:", "blob:")
        assert [own for own in self.requests if not own.startswith(inside)] == []


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two pictures are of other sizes, or differ by more than rounding."""
    return a.shape != b.shape or float(np.abs(a - b).mean()) > 0.5


@pytest.fixture
def folder(request, tmp_path: Path, tiny_config: Path) -> Path:
    """A tiny report with cases; with NiiVue where the parameter says so."""
    scores = made_up_scores(["Tiny_00003", "Tiny_00002"])
    inputs = Inputs(
        evaluation=evaluation(tmp_path / "e", scores), stage1=training_run(tmp_path / "s")
    )
    settings = ErrorEstimatorConfig((4,))
    error_map = ErrorMap(settings, settings.build(4, 3).eval())
    statistics = TrainingStatistics({}, (2.0, 2.0), dict.fromkeys(SEQUENCES, -0.2))
    extras = Extras(statistics=statistics, error_map=error_map)
    experiment = replace(tiny_experiment(tiny_config), extras=extras)
    viewer = NIIVUE if getattr(request, "param", False) else None
    write_report(inputs, experiment, tmp_path / "report", ["x"], "title", viewer)
    return tmp_path / "report"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize("folder", VIEWERS, indirect=True)
def test_viewer_follows_every_control(browser, folder, address):
    visit = Visit(browser, address)
    named = visit.page.locator(".mode").inner_text()
    assert ("NiiVue:" in named) == (folder / "niivue.umd.js").exists()
    first = visit.panels()
    assert first.std() > 10  # not an empty picture
    assert not differ(first, visit.panels())

    visit.overlay("error")
    error = visit.panels()
    assert differ(error, first)
    visit.overlay("tsem")
    tsem = visit.panels()
    assert differ(tsem, first)
    assert differ(tsem, error)
    slider = visit.page.locator('[data-choice="opacity"]')
    slider.fill("0")
    visit.settle()
    assert not differ(visit.panels(), first)
    visit.overlay("none")

    visit.page.locator(".panels").focus()
    visit.page.keyboard.press("PageDown")
    visit.settle()
    lower = visit.panels()
    assert differ(lower, first)
    visit.page.locator(".panels figure").first.hover()
    for _ in range(5):
        visit.page.mouse.wheel(0, -100)
    visit.settle()
    assert not differ(visit.panels(), first)

    visit.choose("task", 1)
    other_task = visit.panels()
    assert differ(other_task, first)
    visit.choose("task", 0)
    visit.choose("subject", 1)
    assert differ(visit.panels(), first)
    visit.check(address)


@pytest.mark.parametrize("folder", VIEWERS, indirect=True)
def test_overlays_are_those_of_the_task(browser, folder, address):
    """What each source adds, of tasks of several; each overlay is another picture."""
    visit = Visit(browser, address)
    tasks = visit.page.locator('.viewer [data-choice="task"] option').all_inner_texts()
    several = next(index for index, label in enumerate(tasks) if " + " in label)
    visit.choose("task", several)
    sources = tasks[several].split(" → ")[0].split(" + ")
    labels = visit.page.locator(".viewer [data-overlay]:visible").all_inner_texts()
    added = [f"what {name} adds" for name in sources]
    assert [label.strip() for label in labels] == ["TSEM", "error", "expected error", *added]
    pictures = [visit.panels()]
    for name in ("expected_error", f"contribution_{SEQUENCES.index(sources[0]) + 1}"):
        visit.overlay(name)
        pictures.append(visit.panels())
        assert all(differ(pictures[-1], other) for other in pictures[:-1])
    coloured = pictures[-1]
    assert np.abs(coloured[..., 0] - coloured[..., 2]).max() > 30  # red and blue
    single = next((index for index, label in enumerate(tasks) if " + " not in label), None)
    if single is not None:
        visit.choose("task", single)
        assert visit.page.locator('.viewer [value="none"]').is_checked()
    visit.check(address)


def test_number_of_panels_is_that_of_the_task(browser, folder, address):
    visit = Visit(browser, address)
    tasks = visit.page.locator('.viewer [data-choice="task"] option').all_inner_texts()
    for index, label in enumerate(tasks):
        visit.choose("task", index)
        sources = label.split(" → ")[0].split(" + ")
        titles = visit.page.locator(".panels figcaption").all_inner_texts()
        assert titles[:-2] == [f"source {name}" for name in sources]
        assert titles[-2].startswith("target ")
    visit.check(address)


@pytest.mark.parametrize("folder", VIEWERS, indirect=True)
def test_page_from_disk(browser, folder):
    """Charts and strips work without a server, with or without NiiVue."""
    visit = Visit(browser, f"file://{folder}/index.html")
    assert "http.server" in visit.page.locator(".mode").inner_text()
    first = visit.panels()
    visit.overlay("error")
    assert differ(visit.panels(), first)
    visit.page.locator(".plot").first.scroll_into_view_if_needed()
    visit.page.wait_for_selector(".plot .main-svg")
    visit.check("file://")


def test_charts_draw_and_follow_the_theme(browser, folder, address):
    visit = Visit(browser, address)
    for plot in visit.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    visit.settle()
    assert visit.page.locator(".plot .main-svg").count() >= visit.page.locator(".plot").count()
    colour = "document.querySelector('.plot .scatterlayer path.js-line').style.stroke"
    light = visit.page.evaluate(colour)
    visit.page.emulate_media(color_scheme="dark")
    visit.settle()
    assert visit.page.evaluate(colour) != light
    visit.check(address)


def test_task_matrix_speaks_on_focus_and_pointing(browser, folder, address):
    visit = Visit(browser, address)
    detail = visit.page.locator(".matrix .detail")
    cells = visit.page.locator(".matrix tbody tr").first.locator("td")
    cells.nth(0).focus()
    assert detail.inner_text() == "t1 → t1: not scored"
    visit.page.keyboard.press("ArrowRight")
    assert detail.inner_text().startswith("t1 → t1ce, tsf: PSNR (dB) ")
    assert cells.nth(1).inner_text() in detail.inner_text()
    cells.nth(3).hover()
    assert detail.inner_text().startswith("t1 → flair, tsf: PSNR (dB) ")
    before = cells.nth(1).inner_text()
    visit.page.locator('.matrix [data-choice="metric"]').select_option("ssim")
    assert cells.nth(1).inner_text() != before
    assert 0 < float(cells.nth(1).inner_text()) < 1
    visit.check(address)


def test_one_chart_of_a_choice_is_shown(browser, tmp_path):
    scores = made_up_scores(["a", "b"], methods=("tsf", "tsf + 0", "tsf + 1"))
    inputs = Inputs(evaluation=evaluation(tmp_path / "e", scores))
    page = write_report(inputs, None, tmp_path / "report", ["x"], "title")
    visit = Visit(browser, f"file://{page}")
    charts = visit.page.locator(".choice .chart")
    assert charts.count() == 3
    for index in (0, 2, 1, 0):
        visit.page.locator(".choice select").select_option(index=index)
        shown = [place for place in range(3) if charts.nth(place).is_visible()]
        assert shown == [index]
        charts.nth(index).scroll_into_view_if_needed()
        drawn = charts.nth(index).locator(".main-svg").first
        drawn.wait_for()
        width = charts.nth(index).bounding_box()["width"]
        assert 0.9 * width < drawn.bounding_box()["width"] <= width
    visit.check("file://")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_never_scrolls_sideways(browser, folder, address, width, theme):
    visit = Visit(browser, address, width, theme)
    for section in visit.page.locator("section").all():
        section.scroll_into_view_if_needed()
    visit.settle()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in background.strip("rgb()").split(",")])
    assert (brightness > 128) == (theme == "light")
    visit.check(address)
