"""Who uses the page without a mouse, without seeing it, on a small screen, or without movement."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from tests.browser import drop, ready, visiting, wait_for_overlay

# WCAG 2.1, 1.4.3: text against what is behind it; large text and bold text of 14 pt may have 3.
LEAST_CONTRAST = 4.5
_CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    if (element.closest(":disabled, .hidden-text, .skip, noscript")) continue;
    const [a, b] = [parse(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""


def with_photo(page: Any, jpeg: bytes) -> None:
    ready(page)
    drop(page, jpeg, "astronaut.jpg", "image/jpeg")
    wait_for_overlay(page, 0)


def test_everything_has_a_name_and_is_reached_by_tab(browser: Any, address: str, jpeg: bytes) -> None:
    with visiting(browser, address) as page:
        with_photo(page, jpeg)
        tree = page.locator("body").aria_snapshot()
        for said in (
            'link "Skip to the picture"',
            'heading "patchcut" [level=1]',
            'button "Open photo or video"',
            'button "Sample: coffee"',
            'application "astronaut.jpg: ',
            'radio "Find all" [checked]',
            "status:",
            'combobox "Head"',
            'slider "Least score"',
            'button "1: second, score ',
            'button "COCO JSON"',
        ):
            assert said in tree, tree
        for unnamed in ("button\n", "textbox\n", "combobox\n", "slider\n", "img\n"):
            assert f"- {unnamed}" not in tree, f"one without a name: {tree}"
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
            if reached[-1] == "save-coco":
                break
        order = ("skip", "open", "stage", "head", "min_score", "save-overlay", "save-coco")
        at = [reached.index(name) for name in order]
        assert at == sorted(at), reached
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, address: str, jpeg: bytes, scheme: str) -> None:
    with visiting(browser, address, color_scheme=scheme) as page:
        with_photo(page, jpeg)
        contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 25
    assert [one for one in contrasts if one[0] < LEAST_CONTRAST and one[1] not in "123456789"] == []


def test_a_small_screen_shows_all_of_it(browser: Any, address: str, jpeg: bytes) -> None:
    with visiting(browser, address, viewport={"width": 360, "height": 740}) as page:
        with_photo(page, jpeg)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        stage = page.locator("#stage").bounding_box()
        assert stage["width"] > 250 and stage["y"] < 400


def test_nothing_moves_where_that_is_wanted(browser: Any, address: str) -> None:
    with visiting(browser, address, reduced_motion="reduce") as page:
        ready(page)
        names = page.evaluate(
            "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one, '::after').animationName)"
        )
        assert set(names) == {"none"}
