"""The wire format by itself: what was written is read, and nothing else."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from hypothesis import given, settings
from hypothesis import strategies as st
from patchcut_server import tensors
from patchcut_server.refusals import Refusal
from patchcut_server.tensors import read_request, write_response

DTYPES = {"UINT8": np.uint8, "UINT16": np.uint16, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}


@settings(deadline=None, max_examples=60)
@given(
    datatype=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(st.integers(0, 4), max_size=4),
    seed=st.integers(0, 9),
    binary=st.booleans(),
)
def test_what_is_written_can_be_read(datatype: str, shape: list[int], seed: int, binary: bool) -> None:
    array = np.random.default_rng(seed).integers(0, 200, shape).astype(DTYPES[datatype])
    body, length = write_response(
        {}, {"x": (datatype, array), "t": ("BYTES", [b"a", b"", b"bc"])}, {"t": binary, "x": binary}
    )
    head = json.loads(body[:length])
    request = json.dumps({"inputs": head["outputs"]}).encode()
    tail = b"" if length is None else body[length:]
    asked = read_request(request + tail, str(len(request)) if binary else None, ["y"])
    np.testing.assert_array_equal(asked.inputs["x"], array)
    assert asked.inputs["x"].dtype == array.dtype and asked.inputs["t"] == [b"a", b"", b"bc"]  # type: ignore[union-attr]


X = {"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], r"\[body\] must be a JSON object"),
        ({}, r"\[inputs\] must be a list of 1 to 16"),
        ({"inputs": [X] * 17}, r"\[inputs\] must be a list"),
        ({"inputs": [X, X]}, r"\[inputs\] has 'x' twice"),
        ({"inputs": [3]}, r"\[inputs\] must be a JSON object"),
        ({"inputs": [{**X, "name": 3}]}, r"\[inputs\] must have a name"),
        ({"inputs": [{**X, "datatype": "FP64"}]}, r"\[input x\] must be of UINT8"),
        ({"inputs": [{**X, "datatype": ["INT32"]}]}, r"\[input x\] must be of UINT8"),
        ({"inputs": [{**X, "shape": [3]}]}, r"has 3 values, got 2"),
        ({"inputs": [{**X, "shape": [-2]}]}, "negative or too large"),
        ({"inputs": [{**X, "shape": [1 << 20, 1 << 20]}]}, "negative or too large"),
        ({"inputs": [{**X, "shape": [True, 2]}]}, "at most 8 whole numbers"),
        ({"inputs": [{**X, "shape": "22"}]}, "at most 8 whole numbers"),
        ({"inputs": [{**X, "data": [1, 1.5]}]}, "no such number"),
        ({"inputs": [{**X, "data": [1, True]}]}, "no such number"),
        ({"inputs": [{**X, "data": [1, 1 << 40]}]}, "too large"),
        ({"inputs": [{**X, "data": [1, [2]]}]}, "no such number"),
        ({"inputs": [{**X, "data": {}}]}, "has no data"),
        ({"inputs": [{**X, "datatype": "BYTES"}]}, "texts in JSON"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, "and 0 bytes are left"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": -1}}]}, "binary_data_size -1"),
        ({"inputs": [{**X, "parameters": []}]}, "must be a JSON object"),
        ({"inputs": [X], "id": 3}, r"\[id\]"),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, r"\[outputs\] must be of y, got 'z'"),
        ({"inputs": [X], "outputs": {"name": "y"}}, r"\[outputs\] must be a list"),
        ({"inputs": [X], "parameters": 1}, r"\[parameters\] must be a JSON object"),
    ],
)
def test_what_is_wrong_is_named(said: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        read_request(json.dumps(said).encode(), None, ["y"])
    assert refused.value.status == 400


def test_deep_json_and_wrong_lengths() -> None:
    for body, length in (
        (b"[" * 100_000, None),
        (b'{"inputs": ' + b"[" * 100_000, None),
        (b"{}", "3"),
        (b"{}", "-1"),
        (b"{}", "9" * 30),
        (b"{}", "\u0663"),
    ):
        with pytest.raises(Refusal, match=r"\[(body|inputs|Inference-Header-Content-Length)\]"):
            read_request(body, length, ["y"])


def test_what_is_too_large_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MOST_IN_JSON", 5)
    outputs = {"x": ("INT32", np.arange(6, dtype=np.int32))}
    with pytest.raises(Refusal, match=r"\[output x\] has 6 values, more than .* as binary data"):
        write_response({}, outputs, {"x": False})
    body, length = write_response({}, outputs, {"x": True})
    assert body[length:] == outputs["x"][1].tobytes()


def test_bytes_whose_lengths_lie() -> None:
    tensor = {"name": "t", "shape": [2], "datatype": "BYTES"}
    for tail in (struct.pack("<I", 99) + b"a", struct.pack("<I", 1) + b"a", b"\1\0\0\0a" * 3, b""):
        said = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}).encode()
        with pytest.raises(Refusal, match="must be 2 elements"):
            read_request(said + tail, str(len(said)), ["y"])
    said = json.dumps({"inputs": [X]}).encode()
    with pytest.raises(Refusal, match="has 3 bytes more"):
        read_request(said + b"abc", str(len(said)), ["y"])
