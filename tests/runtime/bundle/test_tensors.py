from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from patchcut.bundle.tensors import dump_tensors, load_tensors
from safetensors.numpy import load, save

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def packed(header: Any, numbers: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def entry(**change: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **change}}


def test_tensors_are_those_that_the_package_reads() -> None:
    rng = np.random.default_rng(0)
    tensors = {
        f"{dtype} {i}": rng.integers(0, 2, shape).astype(dtype)
        for i, shape in enumerate([(), (0,), (3,), (2, 3), (1, 2, 1, 4)])
        for dtype in DTYPES
    }
    data = save(tensors, metadata={"made": "here"})
    ours, theirs = load_tensors(data), load(data)
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == tensors[name].dtype and tensor.flags.writeable and tensor.flags.aligned
        np.testing.assert_array_equal(tensor, theirs[name], strict=True)


def test_tensors_outlive_the_bytes_and_each_other() -> None:
    data = packed(entry() | {"b": entry()["a"]}, np.arange(4, dtype="<f4").tobytes())
    read = load_tensors(data)
    read["a"][:] = 7
    np.testing.assert_array_equal(read["b"], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\xff" * 64,
        (1 << 40).to_bytes(8, "little"),
        packed(b"{"),
        packed(b"[" * 100_000),
        packed(b"\xff"),
        packed([1]),
        packed({"a": 1}),
        packed({"a": {}}),
        packed(entry(more=1)),
        packed(entry(dtype="BF16")),
        packed(entry(dtype=[])),
        packed(entry(shape=[2, -2])),
        packed(entry(shape=[2, 2.0])),
        packed(entry(shape=[2, True])),
        packed(entry(shape="ab")),
        packed(entry(shape=[1] * 40)),
        packed(entry(shape=[1 << 61, 1 << 61])),
        packed(entry(shape=[0, 1 << 61, 1 << 61])),
        packed(entry(data_offsets=[0, 15])),
        packed(entry(data_offsets=[16, 0])),
        packed(entry(data_offsets=[-16, 0])),
        packed(entry(data_offsets=[56, 72])),
        packed(entry(data_offsets=[0])),
        packed(entry(data_offsets=None)),
    ],
)
def test_what_is_no_safetensors_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|has no dtype|is of type|has the shape|does not lie"):
        load_tensors(data)


def test_what_is_written_are_the_bytes_of_the_package() -> None:
    rng = np.random.default_rng(0)
    tensors = {f"{dtype}.{i}": rng.integers(0, 2, (i, 2)).astype(dtype) for dtype in DTYPES for i in (0, 3)}
    tensors["turned"] = np.asfortranarray(rng.random((4, 2), np.float32))
    data = dump_tensors(tensors)
    assert load(data).keys() == tensors.keys()
    for name, tensor in load(data).items():
        np.testing.assert_array_equal(tensor, tensors[name], strict=True)
    same_type = {name: one for name, one in tensors.items() if one.dtype == np.float32}
    made = {name: np.ascontiguousarray(one) for name, one in same_type.items()}
    assert dump_tensors(same_type) == save(made)


def test_numbers_that_safetensors_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="x is of type complex64"):
        dump_tensors({"x": np.zeros(2, np.complex64)})
