"""The page's files, what the model offers, concepts that are shown, and objects that are pointed at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut.cli.demo import SAMPLES
from patchcut.output.overlay import PALETTE_RGB
from patchcut_server.pages import PAGE, page_files

from .conftest import Served, wait_for

if TYPE_CHECKING:
    from patchcut_server import Model

TOKEN = "correct-horse-battery-staple"


def test_the_page_is_served_with_a_strict_policy(serve: Callable[..., Served]) -> None:
    guarded = serve(token=TOKEN)
    page = guarded.ask("GET", "/")
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    for name in page_files():
        assert guarded.ask("GET", f"/page/{name}").status == 200, name
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert guarded.ask("GET", "/page/app.js").headers["content-type"].startswith("text/javascript")
    for foreign in ("", "no.js", "index.html", "../pages.py", "%2e%2e/pages.py", "__init__.py"):
        assert guarded.ask("GET", f"/page/{foreign}").status == 404, foreign
    assert guarded.ask("GET", "/v1/model").status == 401, "only the page's files need no token"


def test_the_page_names_nobody_else() -> None:
    for path in PAGE.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//\w+\.\w+/|innerHTML|\beval\(| style=| on\w+=", text), path.name
        assert len(text.splitlines()) <= 350


def test_the_page_loads_what_is_there_and_all_of_it() -> None:
    texts = {path.name: path.read_text("utf-8") for path in PAGE.iterdir()}
    wanted = set(re.findall(r'"page/([\w.]+)"', texts["index.html"]))
    for name, text in texts.items():
        if name.endswith(".js"):
            wanted |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert wanted == texts.keys() - {"index.html"}


def test_elements_that_the_modules_look_for_are_in_the_page() -> None:
    ids = re.findall(r'\bid="([\w-]+)"', (PAGE / "index.html").read_text("utf-8"))
    assert len(ids) == len(set(ids))
    for path in PAGE.glob("*.js"):
        assert set(re.findall(r'\bat\("([\w-]+)"\)', path.read_text("utf-8"))) <= set(ids), path.name


def test_colours_are_those_of_overlays() -> None:
    (palette,) = re.findall(r"PALETTE = \[(.*?)\];", (PAGE / "draw.js").read_text("utf-8"), re.S)
    found = [tuple(map(int, one)) for one in re.findall(r"\[(\d+), (\d+), (\d+)\]", palette)]
    assert tuple(found) == PALETTE_RGB


def test_what_the_model_offers(served: Served, model: Model) -> None:
    told = served.ask("GET", "/v1/model").said
    assert told["name"] == "toy" and told["head"] == "gnn" and told["mode"] == "foreground"
    assert [one["name"] for one in told["heads"]] == ["gnn", "gnn-fit", "cc", "ncut", "kmeans"]
    assert told["concepts"] is None, "it has no features that tell what things are"
    assert told["max_pixels"] == model.settings.max_pixels
    for one in told["heads"]:
        data = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
        assert served.segment(data, f"?head={one['name']}").status == 200


def test_a_thing_is_shown_named_and_forgotten(naming: Served, jpeg: bytes) -> None:
    assert naming.ask("GET", "/v1/model").said["concepts"] == []
    shown = naming.ask("POST", "/v1/concepts?name=astronaut&box=20,20,480,512", jpeg)
    assert shown.status == 200 and shown.said["concepts"] == ["astronaut"]
    coffee = (SAMPLES / "coffee.jpg").read_bytes()
    assert naming.ask("POST", "/v1/concepts?name=cup", coffee).said["concepts"] == ["astronaut", "cup"]
    assert naming.ask("GET", "/v1/model").said["concepts"] == ["astronaut", "cup"]
    for query in ("?head=concepts", "?head=concepts&min_score=0.1", ""):
        said = naming.segment(jpeg, query).said
        assert said["regions"][0]["label"] == "astronaut"
    for query, words in (
        ("name=cup", '[concepts] has a concept "cup" already'),
        ("name=", "[name] must have 1 to 64 letters, got 0"),
        ("name=a&box=1,2", "[box] must be X0,Y0,X1,Y1 in pixels, got '1,2'"),
        ("name=a&box=9000,9000,9999,9999", "[box]"),
        ("name=a&colour=red", "[query] has 'colour', which is none of name, box"),
    ):
        reply = naming.ask("POST", f"/v1/concepts?{query}", jpeg)
        assert reply.status == 400 and reply.said["error"].startswith(words), reply.said
    assert naming.ask("POST", "/v1/concepts?name=a", b"no picture").status == 415
    assert naming.ask("DELETE", "/v1/concepts?name=cup").said["concepts"] == ["astronaut"]
    assert naming.ask("DELETE", "/v1/concepts?name=cup").status == 400
    assert naming.ask("DELETE", "/v1/concepts?name=astronaut").said["concepts"] == []


def test_there_is_nothing_to_name_without_the_features(served: Served, jpeg: bytes) -> None:
    reply = served.ask("POST", "/v1/concepts?name=a", jpeg)
    assert reply.status == 400 and "semantic" in reply.said["error"]


def test_what_is_pointed_at_in_a_stream_is_followed(served: Served, image: np.ndarray) -> None:
    websockets: Any = pytest.importorskip("websockets.sync.client", reason="needs patchcut[server]")
    frame = cv2.imencode(".png", image[:256, :256])[1].tobytes()

    def ask(wire: Any, *sent: object) -> Any:
        for one in sent:
            wire.send(one if isinstance(one, bytes) else json.dumps(one))
        return json.loads(wire.recv(timeout=30))

    with websockets.connect(f"ws://{served.url}/v1/stream?track=pointed", open_timeout=30) as wire:
        assert ask(wire, frame)["regions"] == [], "nothing is pointed at yet"
        assert ask(wire, {"point": [128, 128], "name": "suit"}) == {"added": 1}
        told = ask(wire, frame)
        assert [(one["track_id"], one["label"]) for one in told["regions"]] == [(1, "suit")]
        assert told["lost"] == []
        assert ask(wire, {"box": [0, 0, 60, 60]}) == {"added": 2}
        assert {one["track_id"] for one in ask(wire, frame)["regions"]} == {1, 2}
        for wrong, words in (
            ({"point": [999, 9]}, "[point] must lie on the frame, 256x256"),
            ({"point": [1]}, "[point] "),
            ({"box": "all"}, "[box] "),
            ({"remove": 7}, "[remove] there is no object 7"),
            ({"remove": "1"}, "[remove] must be the id of an object"),
            ({"point": [1, 1], "box": [0, 0, 9, 9]}, "[prompt] must be an object of JSON with one of"),
            ({"point": [1, 1], "size": 3}, "[prompt] has no 'size'"),
            ({"point": [1, 1], "name": "x" * 65}, "[name] must be a text of at most 64 letters"),
            ([], "[prompt]"),
        ):
            assert words.rstrip(" ") in ask(wire, wrong)["error"], wrong
        assert ask(wire, {"remove": 1}) == {"removed": 1}
        assert [one["track_id"] for one in ask(wire, frame)["regions"]] == [2]
    wait_for(lambda: served.service.backend.streams.open_now == 0)


def test_a_stream_that_points_is_refused_what_it_cannot_have(served: Served) -> None:
    websockets: Any = pytest.importorskip("websockets.sync.client", reason="needs patchcut[server]")
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    for query in ("track=some", "track=pointed&mode=parts"):
        with pytest.raises(InvalidStatus, match="400"):
            websockets.connect(f"ws://{served.url}/v1/stream?{query}", open_timeout=30)
    with websockets.connect(f"ws://{served.url}/v1/stream", open_timeout=30) as wire:
        wire.send('{"point": [1, 1]}')
        with pytest.raises(ConnectionClosed, match="track=pointed"):
            wire.recv(timeout=30)
