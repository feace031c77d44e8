"""Bodies that no honest client sends, made from seeds: cut, flipped, grown and mixed."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # [H, W, 3]
Request = tuple[str, bytes, dict[str, str]]  # path, body, headers


_SUFFIXES = tuple(
    f".{kind}" for kind in ("jpg", "png", "webp", "bmp", "ppm", "tif", "gif", "hdr", "jp2", "avif", "ras")
)


def seeds(image: Image) -> list[bytes]:
    """Small pictures of each kind that OpenCV writes here."""
    small = np.ascontiguousarray(image[::16, ::16])
    found = []
    for suffix in _SUFFIXES:
        floats = suffix in (".hdr", ".pfm")
        try:
            ok, data = cv2.imencode(suffix, small.astype(np.float32) if floats else small)
        except cv2.error:
            continue
        if ok:
            found.append(data.tobytes())
    return found


def requests(image: Image, count: int, model: str, seed: int = 0) -> Iterator[Request]:
    """So many requests to a server of a model."""
    pictures = seeds(image)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        path, body, headers = _KINDS[number % len(_KINDS)](rng, pictures)
        yield path.replace("MODEL", model), body, headers


_NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")


def mangled(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes that are cut, flipped, doubled, or have numbers that are as large as can be."""
    body = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not body:
            break
        at = int(rng.integers(len(body)))
        how = int(rng.integers(5))
        if how == 0:
            body[at] ^= 1 << int(rng.integers(8))
        elif how == 1:
            del body[at : at + int(rng.integers(1, 64))]
        elif how == 2:
            body[at : at + 4] = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
        elif how == 3:
            body[at:at] = rng.bytes(int(rng.integers(1, 200)))
        else:
            body = body[:at]
    return bytes(body)


def _picture(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    output = rng.choice(["json", "labels", "overlay", "cutout"])
    return f"/v1/segment?output={output}", mangled(rng, pictures[int(rng.integers(len(pictures)))]), {}


def _form(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    data = pictures[int(rng.integers(len(pictures)))]
    head = b'Content-Disposition: form-data; name="image"; filename="a"'
    form = b"--b\r\n" + head + b"\r\n\r\n" + data + b"\r\n--b--\r\n"
    path = "/v1/segment" if rng.integers(4) else "/v1/concepts?name=x&box=0,0,9,9"
    return path, mangled(rng, form), {"Content-Type": "multipart/form-data; boundary=b"}


def _query(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    letters = np.frombuffer(b"abcdefghij=&%:,;.+-0123456789_[]{}\"'", np.uint8)
    names = [
        "min_score",
        "head",
        "mode",
        "parts",
        "refine",
        "single",
        "nothing_below",
        "concepts",
        "point",
        "box",
        "x",
    ]
    values = [
        "9" * 400,
        *["1", "-1", "nan", "1e999", "true", "gnn", "cc", "kmeans", "scene", "%00", "1,2", "1,2,3,4"],
    ]
    words = [f"{rng.choice(names)}={rng.choice(values)}" for _ in range(int(rng.integers(1, 4)))]
    words.append(bytes(rng.choice(letters, int(rng.integers(0, 12)))).decode())
    return "/v1/segment?" + "&".join(words), pictures[int(rng.integers(len(pictures)))], {}


def _json(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    values, shape = list(range(12)), [2, 2, 3]
    odd: list[Any] = [None, -1, 0, 1e308, True, "x", [], {}, [[]], 1 << 70, "image", shape, values]
    tensor: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": shape, "data": values}
    said: dict[str, Any] = {"inputs": [tensor], "parameters": {"color": "rgb"}}
    said["outputs"] = [{"name": "boxes"}]
    for _ in range(int(rng.integers(1, 4))):
        place = tensor if rng.integers(2) else said
        place[str(rng.choice([*place, "id", "parameters", "more"]))] = odd[int(rng.integers(len(odd)))]
    data = json.dumps(said).encode()
    return "/v2/models/MODEL/infer", mangled(rng, data) if rng.integers(3) == 0 else data, {}


def _binary(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    picture = pictures[int(rng.integers(len(pictures)))]
    tail = struct.pack("<I", len(picture)) + picture
    size = {"binary_data_size": len(tail)}
    tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = rng.choice([str(len(head)), str(len(head) + 1), "0", "-1", "x", "9" * 20])
    body = head + mangled(rng, tail) if rng.integers(2) else mangled(rng, head + tail)
    return "/v2/models/MODEL/infer", body, {"Inference-Header-Content-Length": str(length)}


def _packed(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    data = gzip.compress(pictures[int(rng.integers(len(pictures)))], 1)
    packing = str(rng.choice(["gzip", "deflate", "br", "GZIP", "gzip, gzip"]))
    return "/v1/segment", mangled(rng, data) if rng.integers(2) else data, {"Content-Encoding": packing}


def _path(rng: np.random.Generator, pictures: list[bytes]) -> Request:
    paths = ["/v2/models/" + "a" * 3000, "/v2/models/MODEL/versions/x/infer"]
    paths += [
        "/v2/models/%2e%2e/infer",
        "/v2/models//infer",
        "/v1/segment/",
        "/%00",
        "//",
        "/v1/../v2",
        "/",
        "/page/app.js",
        "/v1/model",
        "/v1/concepts",
    ]
    return str(rng.choice(paths)), rng.bytes(40), {"Accept": "\xff;q=" + "9" * 50}


_KINDS = (_picture, _form, _query, _json, _binary, _packed, _picture, _path)
