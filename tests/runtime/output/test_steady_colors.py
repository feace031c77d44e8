from __future__ import annotations

import numpy as np
import pytest
from patchcut import Result
from patchcut.output.overlay import color_of
from patchcut.output.steady_colors import SteadyColors

from tests.runtime.results import boxes_result

Box = tuple[int, int, int, int]


def at(*boxes: Box, name: str = "walk.mp4", size_hw: tuple[int, int] = (200, 400)) -> Result:
    """Regions in boxes, best first."""
    return boxes_result(boxes, size_hw, name=name)


def person(x: int) -> Box:
    return (x, 20, x + 60, 180)


def test_objects_keep_their_colours_when_their_ranks_change() -> None:
    colors = SteadyColors()
    assert colors(at(person(10), person(200))) == [1, 2]
    assert colors(at(person(210), person(20))) == [2, 1]
    assert colors(at(person(30), person(220))) == [1, 2]


def test_a_new_object_has_a_colour_of_its_own() -> None:
    colors = SteadyColors()
    colors(at(person(10), person(200)))
    assert colors(at(person(300), person(10), person(205))) == [3, 1, 2]
    assert colors(at(person(300), person(10))) == [3, 1], "one has gone"
    assert colors(at(person(10), person(120), person(300))) == [1, 2, 3], "its colour is free again"


def test_where_one_becomes_two_the_larger_overlap_keeps_the_colour() -> None:
    colors = SteadyColors()
    colors(at((10, 10, 210, 180)))
    assert colors(at((160, 10, 210, 180), (10, 10, 150, 180))) == [2, 1]
    assert colors(at((10, 10, 210, 180))) == [1], "and two become one"


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("", ""), ("a.mp4", "b.mp4")])
def test_photos_and_other_videos_begin_anew(names: tuple[str, str]) -> None:
    colors = SteadyColors()
    colors(at(person(10), person(200), name=names[0]))
    assert colors(at(person(200), person(10), name=names[1])) == [1, 2]


def test_a_size_that_changes_begins_anew() -> None:
    colors = SteadyColors()
    colors(at(person(10), person(200)))
    assert colors(at((200, 20, 260, 90), (10, 20, 70, 90), size_hw=(100, 400))) == [1, 2]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 3000), (2000, 3), (1080, 1920)])
def test_frames_of_any_size(size_hw: tuple[int, int]) -> None:
    colors, height, width = SteadyColors(), *size_hw
    for _ in range(2):
        assert colors(at((0, 0, width, height), size_hw=size_hw)) == [1]
    assert colors(at(size_hw=size_hw)) == []


def test_many_regions_have_numbers_of_their_own() -> None:
    rng, colors = np.random.default_rng(0), SteadyColors()
    for _ in range(20):
        corners = rng.integers(0, 170, (60, 2))
        numbers = colors(at(*((int(x), int(y), int(x) + 30, int(y) + 30) for x, y in corners)))
        assert len(set(numbers)) == 60 and min(numbers) == 1


def test_an_overlay_is_drawn_in_them() -> None:
    result = at(person(10), person(200))
    frame = np.full((200, 400, 3), 100, np.uint8)
    overlay = result.overlay(frame, colors=[5, 1])
    for x, number in ((40, 5), (230, 1)):
        tinted = 100 * 0.55 + np.array(color_of(number, "bgr")) * 0.45
        np.testing.assert_allclose(overlay[100, x], tinted, atol=1)
