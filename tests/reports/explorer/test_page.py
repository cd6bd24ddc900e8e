"""The explorer in a real browser."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from explorer_client import TOKEN, picture_of, served

from tellapart.reports.explorer import items, server

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser():
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    flags = ["--no-sandbox", "--enable-unsafe-swiftshader"]
    with play.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield found
        found.close()


@pytest.fixture
def page(browser, port):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    made = context.new_page()
    made.troubles = []
    made.on("pageerror", lambda error: made.troubles.append(str(error)))
    made.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
    made.wait_for_selector("html[data-ready]")
    yield made
    context.close()


def place_of(page, row):
    x, y = page.evaluate("(row) => tellapart.screenOf(row)", row)
    box = page.locator("#field").bounding_box()
    return box["x"] + x, box["y"] + y


def artefacts(tmp_path):
    folder = Path(os.environ.get("TELLAPART_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_map_in_a_browser(page, opened, tmp_path):
    assert page.url.endswith("/")
    assert page.locator("#legend button").all_inner_texts() == [str(c) for c in range(10)]
    far = int(np.abs(opened.pca).sum(1).argmax())  # a point by itself
    before = place_of(page, far)
    page.mouse.move(*before)
    page.wait_for_selector("#tip img")
    assert page.evaluate("tellapart.hovered") == far
    for _ in range(3):
        page.mouse.wheel(0, -120)
    page.wait_for_timeout(600)
    assert page.evaluate("tellapart.view.zoom") > 1.5
    assert place_of(page, far) == pytest.approx(before, abs=2)  # the wheel zooms around the pointer
    page.mouse.click(*place_of(page, far))
    page.wait_for_selector("#item .tile")
    assert opened.source.ids[far] in page.locator("#item").inner_text()
    assert page.locator("#item .tile").count() == items.NEIGHBOURS
    page.screenshot(path=artefacts(tmp_path) / "explorer-map.png")
    page.locator("#item .tile").first.click()
    page.wait_for_timeout(400)
    assert opened.source.ids[far] not in page.locator("#item h2 + div b").first.inner_text()
    assert not page.troubles


def test_keys_move_zoom_and_take(page):
    page.locator("#field").focus()
    before = page.evaluate("tellapart.view")
    for key in ("+", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_timeout(600)
    after = page.evaluate("tellapart.view")
    assert after["zoom"] > before["zoom"]
    assert after["x"] > before["x"]
    assert after["y"] > before["y"]
    page.keyboard.press("Enter")
    page.wait_for_selector("#item .tile")
    page.keyboard.press("v")
    page.wait_for_selector("#export-text")
    assert 0 < len(page.evaluate("tellapart.selected")) < 1797
    page.keyboard.press("Escape")
    assert page.evaluate("tellapart.selected") == []
    page.locator("#tab-map").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#scores table")
    assert page.locator("#tab-scores").get_attribute("aria-selected") == "true"


def test_a_lasso_selects_and_exports(page, opened, tmp_path):
    box = page.locator("#field").bounding_box()
    corners = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)]
    spots = [(box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in corners]
    page.keyboard.down("Shift")
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector("#export-text")
    rows = page.evaluate("tellapart.selected")
    points = page.evaluate("(rows) => rows.map(tellapart.screenOf)", list(range(1797)))
    wide, high = box["width"], box["height"]
    inside = [i for i, (x, y) in enumerate(points) if 0.3 < x / wide < 0.7 and 0.3 < y / high < 0.7]
    assert rows == inside
    assert f"{len(rows):,} selected" in page.locator("#selection").inner_text()
    for button, name in (("#export-text", "list.txt"), ("#export-json", "list.json")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / name)
    ids = [opened.source.ids[r] for r in rows]
    assert (tmp_path / "list.txt").read_text().split() == ids
    assert json.loads((tmp_path / "list.json").read_text())["ids"] == ids


def test_a_dropped_file_is_searched_for_and_a_bad_one_explained(page, opened, tmp_path):
    (tmp_path / "query.png").write_bytes(picture_of(opened, 9))
    page.set_input_files("#file", tmp_path / "query.png")
    page.wait_for_selector("#item .tile")
    assert page.locator("#item .tile").first.get_attribute("data-row") == "9"
    drop = """(bytes) => { const held = new DataTransfer();
      held.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
      const about = { dataTransfer: held, bubbles: true, cancelable: true };
      document.body.dispatchEvent(new DragEvent("drop", about)); }"""
    page.evaluate(drop, list(picture_of(opened, 20)))
    page.wait_for_selector('#item .tile[data-row="20"]')
    page.evaluate(drop, list(b"not a picture"))
    page.wait_for_selector("#trouble:not([hidden])")
    assert "not an image" in page.locator("#trouble").inner_text()


def test_tabs_colours_and_a_phone_in_the_dark(page, tmp_path):
    folder = artefacts(tmp_path)
    page.select_option("#colour", "outlier")
    page.wait_for_selector("#legend .ramp")
    page.click("#tab-training")
    page.wait_for_selector("#training .level", state="attached")
    assert "chance" in page.locator("#training svg").first.inner_html()
    page.click("#tab-findings")
    page.wait_for_selector("#findings .tile")
    page.screenshot(path=folder / "explorer-findings.png")
    page.locator("#findings .tile").first.click()
    page.wait_for_selector("#item .tile")
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(400)
    field, side = page.locator("#field").bounding_box(), page.locator("#side").bounding_box()
    assert side["y"] >= field["y"] + field["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=folder / "explorer-phone.png")
    assert not page.troubles


@pytest.mark.parametrize("way", ["webgl", "canvas"])
def test_both_ways_to_draw_show_the_same_points(browser, port, opened, way):
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}#{way}")
    page.wait_for_selector("html[data-ready]")
    if page.evaluate("tellapart.painter") != way:
        pytest.skip("this browser has no WebGL")
    box = page.locator("#field").bounding_box()
    drawn = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")).astype(int)
    for row in np.abs(opened.pca).sum(1).argsort()[-5:].tolist():  # those by themselves
        x, y = page.evaluate("(row) => tellapart.screenOf(row)", row)
        near = drawn[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert np.abs(near - drawn[5, 5]).max() > 60
    page.close()


def test_the_file_of_the_browser_option_opens_the_page(browser, opened):
    with (
        served(opened) as number,
        server.opening_page(f"http://127.0.0.1:{number}/", TOKEN) as file,
    ):
        page = browser.new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        assert page.url == f"http://127.0.0.1:{number}/"
        page.close()
