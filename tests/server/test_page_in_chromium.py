"""The page in a real Chromium, with a small bundle behind it: what a person does and sees."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut import Result
from patchcut.cli.demo import SAMPLES
from patchcut.output.overlay import TINT, color_of
from tests.browser import drop, overlays, ready, shot, visiting, wait_for_overlay

from .conftest import Served

if TYPE_CHECKING:
    from patchcut_server import Model

TOKEN = "correct-horse-battery-staple"
CLOSE = 24  # grey levels: the screen shows the picture in another size
_SLIDE = """(slider, value) => {
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, ready; whatever it logs fails the test."""
    with visiting(browser, address) as one:
        ready(one)
        yield one


@pytest.fixture
def photo(page: Any, jpeg: bytes) -> Any:
    """The page, with a photo dropped onto it and segmented."""
    drop(page, jpeg, "astronaut.jpg", "image/jpeg")
    wait_for_overlay(page, 0)
    return page


def core(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[h, w] bool, a mask on a picture of another size, without its border."""
    scaled = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.erode(scaled, np.ones((9, 9), np.uint8)) > 0)


def check_overlay(seen: np.ndarray, image: np.ndarray, masks: np.ndarray, colors: list[Any]) -> None:
    """What is on the screen: each mask tinted in its colour, and everything else as it was."""
    scaled = cv2.resize(image, (seen.shape[1], seen.shape[0]), interpolation=cv2.INTER_AREA).astype(float)
    for mask, color in zip(masks, colors, strict=True):
        inside = core(mask, seen.shape)
        tinted = (1 - TINT) * scaled + TINT * np.array(color)
        alike = np.abs(seen - tinted)[inside].max(axis=1) < CLOSE
        assert alike.mean() > 0.4, "captions cover some of it"
        assert (np.abs(seen - scaled)[inside].max(axis=1) < CLOSE).mean() < 0.1
    outside = core(~masks.any(axis=0), seen.shape)
    assert (np.abs(seen - scaled)[outside].max(axis=1) < CLOSE).mean() > 0.85, "the rest is as it was"


def by_label(result: Result) -> list[Any]:
    return [color_of(int(number), "bgr") for number in np.arange(1, len(result) + 1)]


def test_a_dropped_photo_gets_its_overlay(photo: Any, model: Model, image: np.ndarray) -> None:
    result = model.now(image)
    check_overlay(shot(photo), image, result.masks, by_label(result))
    assert photo.locator("#objects li").count() == len(result)
    (took_ms,) = photo.evaluate("performance.getEntriesByName('first overlay').map((one) => one.duration)")
    assert 0 < took_ms < 15_000
    assert photo.inner_text("#latency").endswith(" ms")
    assert photo.inner_text("#status").startswith(f"{len(result)} objects: ")
    label = photo.get_attribute("#stage", "aria-label")
    assert label.startswith("astronaut.jpg: ") and "second" in label
    photo.click("summary")
    assert "backbone" in photo.inner_text("#times")


def test_pictures_come_by_paste_file_and_sample(page: Any, jpeg: bytes) -> None:
    upright = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[:300]
    png = cv2.imencode(".png", upright)[1].tobytes()
    drop(page, png, "image.png", "image/png", how="paste")
    wait_for_overlay(page, 0)
    assert page.evaluate("[stage.width, stage.height]") == [512, 300]
    page.set_input_files("#file", SAMPLES / "chelsea.jpg")
    wait_for_overlay(page, 1)
    assert "chelsea.jpg" in page.get_attribute("#stage", "aria-label")
    page.get_by_role("button", name="Sample: rocket").click()
    wait_for_overlay(page, 2)
    assert page.evaluate("[stage.width, stage.height]") == [640, 427]


def test_a_photo_that_lies_on_its_side_is_turned(page: Any, model: Model, image: np.ndarray) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="writes EXIF")
    made, exif = pillow.fromarray(image[:300, :, ::-1]), pillow.Exif()
    exif[0x0112] = 6  # turn it to the right
    out = io.BytesIO()
    made.save(out, "JPEG", quality=95, exif=exif)
    drop(page, out.getvalue(), "turned.jpg", "image/jpeg")
    wait_for_overlay(page, 0)
    assert page.evaluate("[stage.width, stage.height]") == [300, 512]
    turned = cv2.rotate(image[:300], cv2.ROTATE_90_CLOCKWISE)
    result = model.now(turned)
    check_overlay(shot(page), turned, result.masks, by_label(result))


def test_settings_reach_the_server(photo: Any, model: Model, image: np.ndarray) -> None:
    scores = np.sort(model.now(image).scores)
    limit = float((scores[-1] + scores[-2]) / 2)
    with photo.expect_request("**/v1/segment?*min_score=*"):
        photo.locator("#min_score").evaluate(_SLIDE, limit)
    wait_for_overlay(photo, 1)
    assert photo.locator("#objects li").count() == 1
    assert photo.inner_text("#min_score_value") == f"{limit:.2f}"
    with photo.expect_request("**/v1/segment?*refine=guided*"):
        photo.select_option("#refine", "guided")
    wait_for_overlay(photo, 2)
    with photo.expect_request("**/v1/segment?*head=kmeans*"):
        photo.select_option("#head", "kmeans")
    wait_for_overlay(photo, 3)
    with photo.expect_request("**/v1/segment?*mode=parts*"):
        photo.select_option("#mode", "parts")
    wait_for_overlay(photo, 4)


def test_an_object_is_pointed_at_by_mouse_and_by_keyboard(photo: Any) -> None:
    photo.get_by_role("radio", name="Click an object").check()
    box = photo.locator("#stage").bounding_box()
    with photo.expect_request("**/v1/segment?point=*") as asked:
        photo.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    wait_for_overlay(photo, 1)
    x, y = map(int, asked.value.url.partition("point=")[2].replace("%2C", ",").split(","))
    assert abs(x - 128) <= 2 and abs(y - 256) <= 2
    assert photo.locator("#objects li").count() == 1
    photo.focus("#stage")
    photo.keyboard.press("Shift+ArrowRight")
    with photo.expect_request("**/v1/segment?point=*&point=*") as asked:
        photo.keyboard.press("Enter")
    wait_for_overlay(photo, 2)
    assert "point=286%2C256" in asked.value.url
    photo.keyboard.press("Escape")  # takes the last one back
    wait_for_overlay(photo, 3)
    photo.get_by_role("radio", name="Draw a box").check()
    with photo.expect_request("**/v1/segment?*box=*") as asked:
        photo.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
        photo.mouse.down()
        photo.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.9, steps=3)
        photo.mouse.up()
    wait_for_overlay(photo, 4)
    numbers = asked.value.url.partition("box=")[2].replace("%2C", ",").split(",")
    assert np.abs(np.array(numbers, int) - [102, 102, 410, 461]).max() <= 2
    photo.get_by_role("radio", name="Find all").check()
    wait_for_overlay(photo, 5)
    assert photo.locator("#objects li").count() > 2


def test_a_thing_is_shown_in_a_box_and_named(browser: Any, naming: Served, jpeg: bytes) -> None:
    with visiting(browser, f"http://{naming.url}/") as page:
        ready(page)
        drop(page, jpeg, "astronaut.jpg", "image/jpeg")
        wait_for_overlay(page, 0)
        assert page.locator("#objects li").count() == 0, "nothing has a name yet"
        page.get_by_role("radio", name="Show and name").check()
        box = page.locator("#stage").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.05)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.95, steps=3)
        page.mouse.up()
        page.get_by_label("New name").fill("suit")
        with page.expect_request("**/v1/concepts?*") as asked:
            page.get_by_role("button", name="Add").click()
        wait_for_overlay(page, 1)
        assert "name=suit&box=" in asked.value.url
        assert page.inner_text("#objects li:first-child .label") == "suit"
        page.get_by_label("Show only").fill("mug")
        assert page.locator("#objects li").count() == 0
        page.get_by_label("Show only").fill("mug, suit")
        assert page.locator("#objects li").count() > 0
        page.get_by_role("button", name="Forget suit").click()
        wait_for_overlay(page, 2)
        assert page.locator("#objects li").count() == 0


def saved(page: Any, name: str) -> tuple[str, bytes]:
    with page.expect_download() as got:
        page.get_by_role("button", name=name).click()
    return got.value.suggested_filename, Path(got.value.path()).read_bytes()


def test_what_is_saved_is_what_was_found(photo: Any, model: Model, image: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="the reader is pycocotools")
    result = model.now(image)
    photo.locator("#objects button").last.click()  # leaves the last one out
    masks = result.masks[:-1]
    name, data = saved(photo, "COCO JSON")
    told = json.loads(data)
    assert name == "astronaut-coco.json" and told["images"][0]["file_name"] == "astronaut.jpg"
    assert [one["name"] for one in told["categories"]] == list(result.labels[1:])
    np.testing.assert_array_equal([coco.decode(one["segmentation"]) for one in told["annotations"]], masks)
    for one, own in zip(told["annotations"], result.to_coco(), strict=False):
        assert one == own
    name, data = saved(photo, "Cut-out")
    cut = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    whole = masks.any(axis=0)
    assert name == "astronaut-cutout.png" and cut.shape == (512, 512, 4)
    assert (cut[core(whole, cut.shape), 3] == 255).all() and (cut[core(~whole, cut.shape), 3] == 0).all()
    assert np.abs(cut[..., :3][core(whole, cut.shape)].astype(int) - image[core(whole, cut.shape)]).mean() < 2
    name, data = saved(photo, "Overlay")
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    check_overlay(drawn, image, masks, by_label(result)[:-1])


def film(folder: Path, image: np.ndarray) -> Path:
    """A film of 40 frames of 256 x 192 in which a photo moves."""
    av = pytest.importorskip("av", reason="needs patchcut[video]")
    path = folder / "film.webm"
    with av.open(path, "w") as out:
        stream = out.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for i in range(40):
            frame = np.ascontiguousarray(np.roll(image, 2 * i, axis=1)[:192, :256])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        out.mux(stream.encode())
    return path


def test_an_object_of_a_video_is_followed(page: Any, tmp_path: Path, image: np.ndarray) -> None:
    page.set_input_files("#file", film(tmp_path, image))
    wait_for_overlay(page, 2)
    assert page.inner_text("#latency").endswith(" a second")
    assert page.evaluate("[stage.width, stage.height]") == [256, 192]
    several = page.locator("#objects li").count()
    assert several >= 2
    page.get_by_role("button", name="Pause").click()
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#objects li:only-child")
    assert page.inner_text("#objects .label") == "object 1"
    page.get_by_role("button", name="Play").click()
    wait_for_overlay(page, overlays(page) + 3)
    assert page.locator("#objects li").count() <= 1
    page.get_by_role("radio", name="Find all").check()
    page.wait_for_selector("#objects li:nth-child(2)")
    page.get_by_role("button", name="Close").click()
    assert page.is_hidden("#player")


def test_a_camera_is_shown_and_gives_a_photo(page: Any) -> None:
    page.get_by_role("button", name="Camera").click()
    wait_for_overlay(page, 2)
    assert page.is_hidden("#seek")
    before = overlays(page)
    page.get_by_role("button", name="Take photo").click()
    wait_for_overlay(page, before)
    assert page.is_hidden("#player") and "photo.jpg" in page.get_attribute("#stage", "aria-label")


def test_what_goes_wrong_is_said_in_one_line(browser: Any, address: str, page: Any) -> None:
    drop(page, b"no picture", "letter.txt", "text/plain")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem") == "letter.txt is no picture that this browser can read."
    assert page.get_attribute("#problem", "role") == "alert"
    drop(page, (SAMPLES / "coffee.jpg").read_bytes(), "coffee.jpg", "image/jpeg")
    wait_for_overlay(page, 0)
    assert page.is_hidden("#problem"), "it is over with the next picture"
    with visiting(browser, address, allowed=("Failed to load resource",)) as alone:
        ready(alone)
        alone.route("**/v1/segment*", lambda route: route.abort())
        drop(alone, (SAMPLES / "coffee.jpg").read_bytes(), "coffee.jpg", "image/jpeg")
        alone.wait_for_selector("#problem:not([hidden])")
        assert alone.inner_text("#problem") == "The server does not answer. Is it still running?"


def test_a_token_is_asked_for_and_kept(browser: Any, serve: Callable[..., Served], jpeg: bytes) -> None:
    guarded = serve(token=TOKEN)
    with visiting(browser, f"http://{guarded.url}/", allowed=("401",)) as page:
        page.get_by_label("Token", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-wrong:not([hidden])")
        page.get_by_label("Token", exact=True).fill(TOKEN)
        page.keyboard.press("Enter")
        ready(page)
        drop(page, jpeg, "astronaut.jpg", "image/jpeg")
        wait_for_overlay(page, 0)
        page.get_by_role("button", name="Camera").click()
        wait_for_overlay(page, 2)
        assert TOKEN not in page.url
        page.reload()
        ready(page)
        assert not page.is_visible("#ask-token")
