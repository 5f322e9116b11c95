"""The pages in Chromium, with its script and without, at the width of a desk and of a phone."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.serve.fake import FakeEngine, png
from tests.serve.test_batches import HEADER, _zip

from tenfold.serve.app import create_app
from tenfold.serve.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Relative luminance and contrast as WCAG 2 defines them, of every text against the ground it stands on.
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 10.3 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const speaks = (e) => e.checkVisibility() && !e.closest(".unseen, .skip")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter(speaks).map((e) => {
    const [high, low] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    return [(high + 0.05) / (low + 0.05), e.tagName, e.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
}"""
NAMELESS = """() => [...document.querySelectorAll("main :is(input:not([type=hidden]), select, button, img)")]
  .filter((e) => e.checkVisibility() && !e.labels?.length && !e.getAttribute("aria-label") && !e.alt)
  .filter((e) => e.tagName !== "BUTTON" || !e.textContent.trim()).map((e) => e.outerHTML)"""
SMALLEST_LETTERS = """() => Math.min(99, ...[...document.querySelectorAll("input:not([type=hidden]), select")]
  .map((e) => parseFloat(getComputedStyle(e).fontSize)))"""
DROP = """() => {
  const data = new DataTransfer();
  data.items.add(new File(["x"], "scan.dcm"));
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(drop);
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the fake engine, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(FakeEngine(), Settings(log=tmp_path_factory.mktemp("log"), port=port, rate=10_000))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page on which anything that the browser complains about is a failure."""
    context = chromium.new_context(viewport=DESK)
    context.set_default_timeout(10_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    yield page
    context.close()
    assert not complaints


def picture(name: str = "film.png", seed: int = 0) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": png(seed=seed)}


def test_from_upload_to_heat_map(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name="New case").first.click()
    page.set_input_files("input[name='file.film']", picture())
    page.wait_for_function("document.querySelector('.chosen canvas')?.width > 0")
    assert "film.png" in page.inner_text(".chosen")
    page.fill("input[name='cell.labs.crp']", "400")
    page.keyboard.press("Tab")
    assert "outside what the study saw" in page.inner_text(".said")
    page.get_by_role("button", name="Get the answer").click()
    page.wait_for_url("**/results/*")
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")

    heat = page.locator("img.heat")
    page.get_by_label("Strength").fill("40")
    assert heat.evaluate("(e) => getComputedStyle(e).opacity") == "0.4"
    page.get_by_label("Heat map", exact=True).uncheck()
    assert heat.evaluate("(e) => getComputedStyle(e).visibility") == "hidden"
    # a wider opacity shows the map again
    page.get_by_label("Strength").fill("60")
    assert heat.evaluate("(e) => getComputedStyle(e).visibility") == "visible"


def test_prevalence_live_is_what_the_server_says(page: Any, address: str) -> None:
    page.goto(f"{address}/models/pneumonia")
    page.get_by_role("button", name="A simulated child").click()
    page.wait_for_url("**/results/*")
    outs = "[...document.querySelectorAll('[data-out]')].map((e) => e.textContent.trim())"
    for percent in ("3", "12.5", "80"):
        page.fill("input[name=prevalence]", percent)
        live = page.evaluate(outs)
        there = page.url.split("?")[0]
        page.goto(f"{there}?prevalence={percent}")
        assert page.evaluate(outs) == live


def test_pictures_add_up_and_can_be_removed(page: Any, address: str) -> None:
    page.goto(f"{address}/models/lymph-nodes")
    field = "input[name='file.b_mode']"
    for i in range(4):
        page.set_input_files(field, picture(f"{i}.png", i))
    assert page.locator(".chosen li").count() == 3
    assert "Only 3 files" in page.inner_text("[data-complaint]:visible")
    page.get_by_role("button", name="Remove 1.png").click()
    assert page.evaluate(f'[...document.querySelector("{field}").files].map((f) => f.name)') == ["0.png", "2.png"]
    page.get_by_role("button", name="Get the answer").click()
    page.wait_for_url("**/results/*")
    assert page.locator("img.heat").count() == 2


def test_a_dropped_file_is_taken(page: Any, address: str) -> None:
    page.goto(f"{address}/models/pneumonia")
    page.evaluate(DROP)
    page.wait_for_selector(".chosen .page")
    assert "DICOM" in page.inner_text(".chosen")


def test_a_file_name_is_no_markup(page: Any, address: str) -> None:
    page.goto(f"{address}/models/pneumonia")
    page.set_input_files("input[name='file.film']", picture("<img src=x onerror=alert(1)>.png"))
    assert page.locator(".chosen img").count() == 0
    page.get_by_role("button", name="Get the answer").click()
    page.wait_for_url("**/results/*")
    assert "<img src=x onerror=alert(1)>.png" in page.inner_text("main")


def test_a_batch_is_watched_without_reloading(page: Any, address: str) -> None:
    page.goto(f"{address}/models/pneumonia/batch")
    table = HEADER + "".join(f"P-{i},a.png,{i},,\n" for i in range(5)) + "P-9,bad.png,,,\n"
    page.set_input_files("#table", {"name": "t.csv", "mimeType": "text/csv", "buffer": table.encode()})
    archive = _zip({"a.png": png(), "bad.png": b"bad"})
    page.set_input_files("#files", {"name": "f.zip", "mimeType": "application/zip", "buffer": archive})
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("text=Download as CSV")
    assert page.locator(".many tbody tr").count() == 6
    assert "6 of 6 cases answered, 5 with a result" in page.inner_text("[role=status]")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert Path(download.value.path()).read_text("utf-8-sig").startswith("case,result,decision")


def test_without_its_script_everything_works(chromium: Any, address: str) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport=DESK)
    page = context.new_page()
    page.goto(f"{address}/models/pneumonia")
    page.set_input_files("input[name='file.film']", picture())
    page.get_by_role("button", name="Get the answer").click()
    page.wait_for_url("**/results/*")
    page.get_by_label("Heat map", exact=True).uncheck()
    assert page.locator("img.heat").is_hidden()
    assert page.get_by_label("Strength").is_hidden()
    page.get_by_label("How common is it here?").fill("10")
    page.get_by_role("button", name="Work out").click()
    assert "27 %" in page.inner_text("[data-out=ppv]")
    page.get_by_role("link", name="Change this case").click()
    assert "Keep film.png" in page.inner_text("main")
    context.close()


def test_keyboard_alone_is_enough(page: Any, address: str) -> None:
    page.goto(f"{address}/models/pneumonia")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    wanted = ["file.film", "cell.labs.crp", "cell.labs.sex", "cell.labs.fever", "case", "Get the answer"]
    assert [name for name in seen if name in wanted] == wanted


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk light", "phone dark"])
def test_every_page_fits_is_labelled_and_has_contrast(chromium: Any, address: str, size: Any, scheme: str) -> None:
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    paths = [
        "/",
        "/about",
        "/nothing",
        *(f"/models/lymph-nodes{p}" for p in ("", "/card", "/batch")),
        "/models/pneumonia",
    ]
    for path in [*paths, "a result", "several pictures", "no result"]:
        if path.startswith("/"):
            page.goto(address + path)
        elif path == "several pictures":
            page.goto(f"{address}/models/lymph-nodes")
            for view, k in (("b_mode", 3), ("cdfi", 1), ("elastography", 1)):
                page.set_input_files(f"input[name='file.{view}']", [picture(f"{i}.png", i) for i in range(k)])
            page.get_by_role("button", name="Get the answer").click()
        else:
            page.goto(f"{address}/models/pneumonia")
            data = png() if path == "a result" else b"bad"
            page.set_input_files("input[name='file.film']", picture() | {"buffer": data})
            page.fill("input[name='cell.labs.crp']", "88")
            page.get_by_role("button", name="Get the answer").click()
        if not path.startswith("/"):
            page.wait_for_url(re.compile("/results/"))
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate(NAMELESS) == [], path
        assert page.evaluate(SMALLEST_LETTERS) >= 16, path
    context.close()


def test_a_result_prints_on_at_most_two_pages(chromium: Any, address: str) -> None:
    context = chromium.new_context(viewport=DESK, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{address}/models/pneumonia")
    page.get_by_role("button", name="A simulated child").click()
    page.wait_for_url("**/results/*")
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert 1 <= len(pages) <= 2
    page.emulate_media(media="print")
    assert page.locator("header.top").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert "weights abababab" in page.inner_text("main")
    context.close()
