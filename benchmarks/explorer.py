"""The page of `tellapart explore` in headless Chromium: the first map, and frames/s while zooming.

Without a graphics card the page chooses its plain canvas ("as chosen"). Beside it stand "WebGL"
(forced: SwiftShader draws the points on the CPU) and "all SwiftShader" (as chosen, but the browser
composes the page with it too). The vectors are random, 64 wide; PCA is stored before the page is
opened, as it is from the second visit on.

`pip install 'tellapart[test]'` and Chromium at /usr/bin/chromium.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import median, write
from playwright.sync_api import Browser, sync_playwright

from tellapart import api
from tellapart.data import ImageSource, Pixels
from tellapart.embeddings import Embeddings
from tellapart.embeddings.collection import Collection
from tellapart.reports.explorer import State, application
from tellapart.reports.explorer.server import listening, uvicorn_server
from tellapart.runtime.console import Console
from tellapart.training.loading import Loaded

DEFAULT = ("--no-sandbox", "--enable-unsafe-swiftshader")
WAYS = {
    "as chosen": (DEFAULT, ""),
    "WebGL": (DEFAULT, "#webgl"),
    "all SwiftShader": ((*DEFAULT, "--use-gl=angle", "--use-angle=swiftshader"), ""),
}
COUNTS = (10_000, 70_000, 100_000)
VISITS, SECONDS = 3, 2.0
ZOOM = """(seconds) => new Promise((done) => {
  const first = tellapart.frames, began = performance.now();
  const turn = () => {
    const passed = (performance.now() - began) / 1000;
    if (passed > seconds) return done((tellapart.frames - first) / passed);
    tellapart.zoom(Math.sin(passed * 4) > 0 ? 1.04 : 1 / 1.04);
    requestAnimationFrame(turn);
  };
  requestAnimationFrame(turn);
})"""


def main() -> None:
    """Both figures for each number of points and each way to draw."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        run = Path(folder) / "run"
        api.train("instdisc", data="digits", out=run, epochs=1, console=Console(quiet=True))
        loaded = api.load(run)
        for count in COUNTS:
            for kept in ("not kept", "kept"):
                began = time.perf_counter()
                state = random_state(loaded, count, Path(folder))
                rows[f"{count:,} points: opened, PCA {kept}, s"] = round(
                    time.perf_counter() - began, 2
                )
            for way, (flags, part) in WAYS.items():
                browser = play.chromium.launch(
                    executable_path="/usr/bin/chromium", args=list(flags)
                )
                visits = [visit(browser, state, part) for _ in range(VISITS)]
                browser.close()
                rows[f"{count:,} points, {way}: first map, s"] = round(
                    median([v[0] for v in visits]) / 1000, 2
                )
                rows[f"{count:,} points, {way}: frames/s"] = round(
                    median([v[1] for v in visits]), 1
                )
    rows["visits"], rows["threads"] = VISITS, os.environ.get("OMP_NUM_THREADS", "all")
    write("explorer", rows)


def random_state(loaded: Loaded, count: int, folder: Path) -> State:
    """Random vectors in ten overlapping clusters, with pictures of noise."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, count)
    vectors = (
        random.standard_normal((count, 64), np.float32)
        + 2 * random.standard_normal((10, 64), np.float32)[labels]
    )
    ids = [f"{i:05d}.png" for i in range(count)]
    source = ImageSource(
        name="random", all_ids=ids, all_labels=labels, classes=[str(c) for c in range(10)],
        parts={}, fingerprint=f"random-{count}", image_size=8,
        pixels=Pixels.of(random.integers(0, 256, (count, 8, 8, 1), np.uint8)),
    )  # fmt: skip
    items = Embeddings(vectors, ids, labels)
    return State(Collection(str(folder), source, items, loaded.encoder, loaded.run, folder))


def visit(browser: Browser, state: State, part: str) -> tuple[float, float]:
    """Milliseconds from the click to the first map by the browser's clock, and frames/s."""
    with listening("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        server = uvicorn_server(application(state, token="benchmark", port=port))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"http://127.0.0.1:{port}/?token=benchmark{part}")
        page.wait_for_selector("html[data-ready]")
        found = page.evaluate("tellapart.firstPaintMs"), page.evaluate(ZOOM, SECONDS)
        page.context.close()
        server.should_exit = True
        thread.join()
    return found


if __name__ == "__main__":
    main()
