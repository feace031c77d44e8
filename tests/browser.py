"""A real Chromium for tests of the page: what it logs, and whom it asks, is looked at."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

# Without a sandbox, as root needs it; a camera that shows a moving test picture, and nobody is asked for it.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
WAIT_MS = 180_000
_DROP = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const how = { bubbles: true, cancelable: true };
  const event = %s;
  document.getElementById("drop").dispatchEvent(event);
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright; skips where it or Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of patchcut[dev]")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs the program chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Any, url: str, *, allowed: Sequence[str] = (), **chosen: Any) -> Iterator[Any]:
    """The page at an address; fails at the end for what it logged, or asked of others.

    Args:
        allowed: parts of messages that are expected.
        chosen: as `browser.new_context` takes it.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **chosen})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert [one for one in wrong if not any(part in one for part in allowed)] == []
    schemes = (url, url.replace("http://", "ws://"), "blob:", "data:")
    assert [one for one in asked if not one.startswith(schemes)] == [], "it asks nobody but its own server"


def ready(page: Any) -> None:
    """Waits until the page has its engine, and nothing is being segmented."""
    page.wait_for_selector("html[data-state=ready]", state="attached")


def overlays(page: Any) -> int:
    """How many overlays the page has shown."""
    return int(page.evaluate("document.documentElement.dataset.overlays ?? 0"))


def wait_for_overlay(page: Any, before: int) -> None:
    """Waits until there is one more overlay than there was, and the page rests."""
    while overlays(page) <= before:
        page.wait_for_timeout(20)
    ready(page)


def drop(page: Any, data: bytes, name: str, kind: str, how: str = "drop") -> None:
    """Drops a file onto the page, or pastes it."""
    event = {
        "drop": 'new DragEvent("drop", { ...how, dataTransfer: transfer })',
        "paste": 'new ClipboardEvent("paste", { ...how, clipboardData: transfer })',
    }[how]
    page.evaluate(_DROP % event, [base64.b64encode(data).decode(), name, kind])


def shot(page: Any, selector: str = "#stage") -> np.ndarray:
    """[h, w, 3] uint8 BGR, what an element looks like on the screen."""
    data = page.locator(selector).screenshot()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image)
