"""Parameters: defaults, what they choose, what is refused, and the file that lists them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import OptionError, Settings
from patchcut_ros.loop import LIVE
from patchcut_ros.parameters import PARAMETERS, read_parameters

PACKAGE = Path(__file__).parents[2] / "runtime/patchcut_ros"


def test_the_defaults_are_those_of_the_settings_and_of_a_live_stream() -> None:
    for values in ({}, {one.name: one.default for one in PARAMETERS}):
        chosen = read_parameters(values)
        assert chosen.settings == Settings() and chosen.stream == LIVE
        assert (chosen.image_transport, chosen.warn_after) == ("raw", 5.0)


def test_every_setting_is_a_parameter() -> None:
    wanted = {one.name for one in fields(Settings) if one.metadata["on_command_line"]} - {"throughput"}
    assert wanted <= {one.name for one in PARAMETERS}
    assert all(type(one.default) in (str, int, float, bool) and one.description for one in PARAMETERS)


def test_parameters_reach_what_they_are_named_after() -> None:
    chosen = read_parameters(
        {
            "head": "cc:alpha=5",
            "mode": "scene",
            "size": 448,
            "nothing_below": 0.0,
            "min_score": np.float64(0.25),
            "single": True,
            "threads": 2,
            "track": False,
            "max_fps": 10.0,
            "reuse_below": 0.0,
            "image_transport": "compressed",
        }
    )
    settings, stream = chosen.settings, chosen.stream
    assert (settings.head, settings.mode, settings.size, settings.threads) == ("cc:alpha=5", "scene", 448, 2)
    assert (settings.nothing_below, settings.min_score, settings.single) == (0.0, 0.25, True)
    assert (stream.track, stream.max_fps, stream.reuse_below, stream.queue) == (False, 10.0, 0.0, 0)
    assert chosen.image_transport == "compressed"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nonsense": 1}, "[nonsense] is no parameter; there are image_transport, bundle"),
        ({"mode": "objects"}, '[mode] must be one of "foreground", "parts", "scene", got \'objects\''),
        ({"size": -1}, "[size] must be a whole number from 1 to 65536, got -1"),
        ({"size": 1.5}, "[size] must be a whole number"),
        ({"threads": 257}, "[threads] must be a whole number from 1 to 256"),
        ({"threads": False}, "[threads] must be a whole number from 1 to 256, got False"),
        ({"nothing_below": 2.0}, "[nothing_below] must be a number from 0 to 1, got 2"),
        ({"min_score": -1.0}, "[min_score] must be a number from 0 to 1, got -1"),
        ({"single": "yes"}, "[single] must be True or False, got 'yes'"),
        ({"bundle": ""}, "[bundle] must be a bundle's name or path"),
        ({"head": "cc:nonsense=1"}, "nonsense"),
        ({"value_range": "9:1"}, "[value_range] must be auto or LO:HI"),
        ({"max_fps": -3.0}, "[max_fps] must be a number"),
        ({"reuse_below": 300.0}, "[reuse_below] must be a number from 0 to 255"),
        ({"image_transport": "theora"}, '[image_transport] must be one of "raw", "compressed"'),
        ({"warn_after": 0.0}, "[warn_after] must be a number from 0.1 to 3600"),
        ({"parts": "kmeans:k=3"}, '[parts] needs the mode "parts" or "scene"'),
        ({"mode": None}, "[mode] must be one of"),
        ({"track": 3}, "[track] must be True or False, got 3"),
    ],
)
def test_what_is_refused_is_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_parameters(values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_file_lists_every_parameter_with_its_default() -> None:
    yaml = pytest.importorskip("ruamel.yaml", reason="comes with rosbags")
    held = yaml.YAML(typ="safe").load((PACKAGE / "config/patchcut.yaml").read_text("utf-8"))
    listed = held["/**"]["ros__parameters"]
    assert listed == {one.name: one.default for one in PARAMETERS}
    assert {name: type(value) for name, value in listed.items()} == {
        one.name: type(one.default) for one in PARAMETERS
    }


def test_the_page_names_every_parameter() -> None:
    page = (PACKAGE.parents[1] / "docs/ros.md").read_text("utf-8")
    assert [one.name for one in PARAMETERS if f"`{one.name}`" not in page] == []
