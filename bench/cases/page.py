"""The page in Chromium: the first overlay after a drop, and the model inside the browser beside a call."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import patchcut
from patchcut.cli.demo import SAMPLES
from patchcut.sources.photos import read_photo

from bench.cases import BenchError, Options, Target
from bench.cases.serve import CALLED, SERVED, serving
from bench.harness import Times
from bench.rows import Outcome

TITLE = "the page in Chromium, on this machine"
PICTURE_HW = (480, 640)
CASES = ("first overlay", "in the browser")
REPEATS = 10
TARGETS = (
    Target(CASES[0], "p50_ms", "<=", 1500, " ms", "from the drop of a JPEG of 640x480 to its overlay, p50"),
    Target(CASES[1], "over_native", "<=", 5, "", "a photo's steps in the browser / a call's, p50"),
)
ALONE = f"{SERVED}, without a server"
RUNTIME = "onnxruntime-web, WebAssembly"
PACKAGE = "PATCHCUT_ONNXRUNTIME_WEB"
_WAIT_MS = 600_000
_DROP = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
  const how = { bubbles: true, cancelable: true, dataTransfer: transfer };
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", how));
}"""


def run(options: Options) -> Iterator[Outcome]:
    """Needs the extras server and dev, the program chromium, and for the second case the npm package."""
    program = shutil.which("chromium")
    if program is None:
        raise BenchError("page needs the program chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BenchError(f"page needs playwright ({error})") from error
    image = cv2.resize(read_photo(SAMPLES / "coffee.jpg"), PICTURE_HW[::-1])
    jpeg = base64.b64encode(cv2.imencode(".jpg", image)[1].tobytes()).decode()
    repeats = options.repeats or REPEATS
    settings = options.settings
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with serving(settings) as served:
            times = Times(tuple(_overlays(browser, f"http://127.0.0.1:{served.port}/", jpeg, repeats)))
        inside = "from the drop of a JPEG of 640x480 on a fresh page to its overlay on the screen"
        precision = patchcut.load(settings=settings).describe().precision
        yield _outcome(options, CASES[0], SERVED, inside, times, {"p50_ms": times.median_ms}, precision)
        segmenter = patchcut.load(settings=replace(settings, precision="fp32", engine="onnxruntime"))
        with _exported(options) as address:
            times = Times(tuple(_overlays(browser, address, jpeg, repeats)))
            # In turns: what else the machine does is in both.
            steps = zip(
                _steps(browser, address, jpeg, repeats), _called(segmenter, image, repeats), strict=True
            )
            own, called = (Times(each) for each in zip(*steps, strict=True))
        browser.close()
    alone = f"the same, on a folder of `patchcut export web`: {RUNTIME}"
    yield _outcome(options, CASES[0], ALONE, alone, times, {"p50_ms": times.median_ms})
    runs = f"resizing, model and masks of a photo on a page that had one before: {RUNTIME}"
    over = {"over_native": own.median_ms / called.median_ms, "p50_ms": own.median_ms}
    yield _outcome(options, CASES[1], SERVED, runs, own, over)
    yield _outcome(options, CASES[1], CALLED, "the same steps of `seg(frame)`: its timings_ms", called, {})


def _overlays(browser: Any, address: str, jpeg: str, repeats: int) -> Iterator[float]:
    """Milliseconds from a drop to its overlay, each on a page that has just been opened."""
    for _ in range(repeats):
        page = _opened(browser, address)
        page.evaluate(_DROP, jpeg)
        page.wait_for_selector("html[data-overlays]", state="attached")
        yield float(page.evaluate("performance.getEntriesByName('first overlay')[0].duration"))
        page.close()


def _steps(browser: Any, address: str, jpeg: str, repeats: int) -> Iterator[float]:
    """Milliseconds of the steps that the page tells of each photo, after one that is not counted."""
    page = _opened(browser, address)
    for number in range(repeats + 1):
        page.evaluate(_DROP, jpeg)
        page.wait_for_selector(f"html[data-overlays='{number + 1}']", state="attached")
        if number:
            yield sum(float(told.split()[0]) for told in page.locator("#times td").all_text_contents())
    page.close()


def _opened(browser: Any, address: str) -> Any:
    page = browser.new_page()
    page.set_default_timeout(_WAIT_MS)
    page.goto(address)
    page.wait_for_selector("html[data-state=ready]", state="attached")
    return page


def _called(segmenter: patchcut.Segmenter, image: Any, repeats: int) -> Iterator[float]:
    segmenter(image)
    for _ in range(repeats):
        yield sum(segmenter(image).timings_ms.values())


@contextmanager
def _exported(options: Options) -> Iterator[str]:
    """The address of the bundle's folder, given out by Python's own server of files.

    Raises:
        BenchError: the npm package is not named.
    """
    named = os.environ.get(PACKAGE)
    if not named:
        raise BenchError(f"the second case of page needs {PACKAGE}=the .tgz of npm pack onnxruntime-web")
    from patchcut.bundle import open_bundle
    from patchcut_export.fused.plan import FusedPlan
    from patchcut_export.web.folder import write_folder

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "web"
        with open_bundle(options.bundle) as bundle:
            write_folder(
                out,
                bundle,
                FusedPlan(size=options.settings.size, packed=True),
                Path(named),
                lambda line: None,
            )
        handler = functools.partial(_Files, directory=str(out))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass


def _outcome(
    options: Options,
    case: str,
    contender: str,
    inside: str,
    times: Times,
    metrics: dict[str, float],
    precision: str = "fp32",
) -> Outcome:
    shapes: dict[str, tuple[int, ...]] = {"frame": (*PICTURE_HW, 3)}
    return Outcome(case, contender, inside, times, shapes, precision, metrics=metrics, bundle=options.bundle)
