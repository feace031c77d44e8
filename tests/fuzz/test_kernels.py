"""Every op through Python, under arguments of any kind: a call ends in a result, or an error saying why."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest

CALLS_OF_EACH = 600
SPECIAL = [0.0, 1e-45, -1e-39, 1e-30, 1e-23, 1.0, 255.0, 1e19, 1e30, -1e38, 3.4e38, np.nan, np.inf, -np.inf]
NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -0.5, 1e-45, 1e-9, 1e38, 1e300, math.nan, math.inf, -math.inf),
    *(True, None, "3", b"3", [3], (2, 3), 1j, np.int8(3), np.uint64(3), np.float16(0.5), np.float64(2.0)),
]
DTYPES = [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, ">f4", "c8", "O"]


def misaligned(array: np.ndarray) -> np.ndarray:
    shifted = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def read_only(array: np.ndarray) -> np.ndarray:
    view = array[...]
    view.flags.writeable = False
    return view


class Maker:
    """Arguments of one call: mostly as they should be, each sometimes not."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numpy = np.random.default_rng(rng.getrandbits(64))
        self.chance = rng.choice([0.0, 0.1, 0.4])  # that an argument is wrong
        self.finite = True  # whether all arrays are

    def size(self, most: int = 9) -> int:
        return self.rng.choice([0, 1, 1, 2, 3, most]) if self.wrong() else self.rng.randint(1, most)

    def wrong(self) -> bool:
        return self.rng.random() < self.chance

    def number(self, *good: Any) -> Any:
        return self.rng.choice(NUMBERS) if self.wrong() else self.rng.choice(good)

    def word(self, *good: str) -> Any:
        return self.rng.choice(["", "x", None, 3, ["ncut"]]) if self.wrong() else self.rng.choice(good)

    def pair(self, height: int, width: int) -> Any:
        return (self.number(height), self.number(width)) if self.wrong() else (height, width)

    def floats(self, *shape: int, half: bool = False, least: float = -2.0, most: float = 2.0) -> Any:
        values = self.numpy.uniform(least, most, shape)
        if self.wrong() and values.size:
            for _ in range(self.rng.choice([1, values.size])):
                values.flat[self.rng.randrange(values.size)] = self.rng.choice(SPECIAL)
        elif self.wrong():
            values *= self.rng.choice([1e-44, 1e-39, 1e-30, 1e-22, 1e15, 1e37])
        with np.errstate(over="ignore"):
            array = values.astype(np.float16 if half and self.rng.random() < 0.3 else np.float32)
        self.finite &= bool(np.isfinite(array).all())
        return self.lay(array)

    def integers(self, high: int, *shape: int) -> Any:
        values = self.numpy.integers(0, high + 1, shape).astype(np.int32)
        if self.wrong() and values.size:
            values.flat[self.rng.randrange(values.size)] = self.rng.choice(
                [-(2**31), -1, high + 1, 2**31 - 1]
            )
        return self.lay(values)

    def frames(self, *shape: int) -> Any:
        return self.lay(self.numpy.integers(0, 256, shape).astype(np.uint8))

    def bools(self, *shape: int) -> Any:
        return self.lay(self.numpy.random(shape) < 0.5)

    def lay(self, array: np.ndarray) -> Any:
        """The array in another way in memory, or another array, or none."""
        if not self.wrong():
            return array
        with np.errstate(all="ignore"):
            return self.rng.choice(
                [
                    lambda: np.asfortranarray(array),
                    lambda: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array,
                    lambda: array[::-1] if array.ndim else array,
                    lambda: misaligned(array),
                    lambda: read_only(array),
                    lambda: array.astype(self.rng.choice(DTYPES)),
                    lambda: self.rng.choice([array[..., None], array.ravel(), array[None]]),
                    lambda: self.rng.choice([None, 3, "array", array.tolist(), object(), np.ndarray]),
                ]
            )()

    def output(self, dtype: type[np.generic], shape: tuple[int, ...], *inputs: Any) -> Any:
        """None, or an array to write: as it should be, of another kind, or in the memory of an input."""
        if self.rng.random() < 0.5:
            return None
        good = np.empty(shape, dtype)
        if not self.wrong():
            return good
        for value in inputs:
            if isinstance(value, np.ndarray) and self.rng.random() < 0.5:
                return value if value.dtype == good.dtype else self.over(value, good)
        return self.lay(good)

    @staticmethod
    def over(value: np.ndarray, good: np.ndarray) -> np.ndarray:
        """An array like `good` that begins where `value` does, as far as there is memory."""
        if value.nbytes < good.nbytes or not value.flags.c_contiguous or not value.flags.writeable:
            return good
        return value.reshape(-1).view(np.uint8)[: good.nbytes].view(good.dtype).reshape(good.shape)

    def batch(self) -> tuple[int, ...]:
        return () if self.rng.random() < 0.6 else (self.size(3),)


def affinity(m: Maker) -> Any:
    n, batch = m.size(40), m.batch()
    x = m.floats(*batch, n, m.size(20), half=True)
    out = m.output(np.float32, (*batch, n, n), x)
    degrees = m.rng.choice([False, True, m.output(np.float32, (*batch, n), x, out)])
    options = {"kind": m.word("cosine", "dot"), "mode": m.word("ncut", "cc"), "threshold": m.number(0.0, 0.3)}
    return pk.affinity(x, **options, alpha=m.number(3.0, 1.0), out=out, return_degrees=degrees)


def assign(m: Maker) -> Any:
    d, batch = m.size(20), m.batch()
    temperature = m.rng.choice([None, m.number(0.1, 1.0)])
    return pk.assign(
        m.floats(*batch, m.size(40), d, half=True), m.floats(m.size(5), d), temperature=temperature
    )


def bilateral_solver(m: Maker) -> Any:
    shape = (*m.batch(), m.size(12), m.size(12))
    maps = m.floats(*shape), m.floats(*shape, least=0.0)
    sigmas = {f"sigma_{axis}": m.number(4.0, 1.0, 30.0) for axis in ("spatial", "luma", "chroma")}
    rounds = {"iterations": m.number(5, 25), "bistochastic_iterations": m.number(3, 10)}
    out = m.output(np.float32, shape, *maps)
    options = {"smoothness": m.number(256.0, 1.0), "color": m.word("bgr", "rgb"), "out": out}
    return pk.bilateral_solver(m.frames(*shape, 3), *maps, **sigmas, **rounds, **options)


def cut_options(m: Maker) -> dict[str, Any]:
    return {
        "threshold": m.number(0.2, 0.0, None),
        "floor": m.number(1e-5, 0.0),
        "offset": m.number(1.0, 0.5),
        "iterations": m.number(1, 10),
        "tolerance": m.number(0.0, 1e-3),
        "seed": m.number(0, 2**64 - 1),
    }


def bipartition(m: Maker) -> Any:
    h, w, batch = m.size(6), m.size(6), m.batch()
    weights = m.rng.random() < 0.2
    x = m.floats(*batch, h * w, h * w if weights else m.size(20), half=True, least=0.0 if weights else -2.0)
    out = None
    if m.rng.random() < 0.3:
        seed = m.output(np.int32, batch, x)
        mask = m.output(np.bool_, (*batch, h, w), x, seed)
        vector = m.output(np.float32, (*batch, h * w), x, seed)
        arrays = (mask, seed, vector)
        out = m.number(None) if any(one is None for one in arrays) else pk.Bipartition(*arrays)
    binary, connected = m.rng.random() < 0.5, m.rng.random() < 0.5
    options = {**cut_options(m), "binary": binary, "connected": connected, "out": out}
    return pk.bipartition(x, m.pair(h, w), precomputed=weights, **options)


def connected_components(m: Maker) -> Any:
    shape = (*m.batch(), m.size(20), m.size(20))
    labels = m.integers(2, *shape)
    out = m.output(np.int32, shape, labels)
    kept = m.output(np.int32, shape, labels, out)
    settings = {"connectivity": m.number(4, 8), "min_area": m.number(1, 3)}
    return pk.connected_components(labels, **settings, out=out, labels_out=kept)


def correlation_cluster(m: Maker) -> Any:
    n = m.size(12)
    signed = m.floats(*m.batch(), n, m.size(12) if m.wrong() else n, half=True)
    return pk.correlation_cluster(signed, max_clusters=m.number(64, 1, 3), seed=m.number(0, 5))


def gcn_forward(m: Maker) -> Any:
    n, d, k, batch = m.size(12), m.rng.randint(1, 9), m.rng.randint(1, 4), m.batch()
    layers = [pk.GcnLayer(m.floats(d, d), m.rng.choice([None, m.floats(d, d)]), m.floats(d))]
    options = {"normalize": m.rng.random() < 0.5, "temperature": m.number(1.0, 0.1)}
    layers = layers if m.rng.random() < 0.7 else []
    mlp = [pk.LinearLayer(m.floats(d, k), m.floats(k))]
    weights = pk.GcnWeights(shift=m.floats(d), scale=m.floats(d), layers=layers, mlp=mlp, **options)
    graph = m.floats(*batch, n, n, half=True, least=0.0)
    out = m.output(np.float32, (*batch, n, k), graph)
    return pk.gcn_forward(m.floats(*batch, n, d, half=True), graph if layers else None, weights, out=out)


def gnn_fit(m: Maker) -> Any:
    n, batch = m.size(12), m.batch()
    loss = m.word("ncut", "cc")
    graph = m.floats(*batch, n, n, half=True, least=0.0 if loss == "ncut" else -1.0)
    rates = {"learning_rate": m.number(1e-3, 0.1), "dropout": m.number(0.0, 0.25), "seed": m.number(0, 1)}
    rates |= {"tolerance": m.number(0.0, 1e-2), "weights": m.rng.random() < 0.5}
    x = m.floats(*batch, n, m.size(12), half=True)
    return pk.gnn_fit(x, graph, m.number(1, 2, 3), loss=loss, steps=m.number(1, 3), **rates)


def guided_refine(m: Maker) -> Any:
    batch, h, w = m.batch(), m.size(20), m.size(20)
    labels = m.rng.random() < 0.4
    shape = (*batch, h, w) if labels or m.rng.random() < 0.5 else (*batch, m.size(3), h, w)
    maps = m.integers(3, *shape) if labels else m.floats(*shape)
    out = m.output(np.int32 if labels else np.float32, shape, maps)
    options = {"subsample": m.number(1, 2, 3), "count": m.number(None, 4), "out": out}
    return pk.guided_refine(
        m.frames(*batch, h, w, 3), maps, m.number(1, 2, 8), m.number(1e-3, 1.0), **options
    )


def cosegment(m: Maker) -> Any:
    k, n, d, options = m.size(5), m.size(30), m.size(9), {}
    shape: tuple[int, ...] = (k, n)
    if m.rng.random() < 0.5:
        shape, starts = (n,), [0, *sorted(m.rng.randint(0, n) for _ in range(k - 1)), n]
        if m.wrong():
            starts[m.rng.randrange(len(starts))] = m.rng.choice([-(2**63), -1, n + 1, 2**62])
        options["offsets"] = m.lay(np.array(starts, np.int64))
    if m.rng.random() < 0.5:
        options["weights"] = m.floats(*shape, least=0.0, most=1.0)
    return pk.cosegment(m.floats(*shape, d, half=True), **options)


def kmeans(m: Maker) -> Any:
    n, d, batch = m.size(40), m.size(9), m.batch()
    k = m.number(*range(1, max(n, 1) + 1))
    init = m.floats(*batch, k, d) if isinstance(k, int) and 0 < k < 50 and m.wrong() else "k-means++"
    options = {
        "metric": m.word("euclidean", "cosine"),
        "iterations": m.number(1, 100),
        "seed": m.number(0, 9),
    }
    return pk.kmeans(m.floats(*batch, n, d, half=True), k, restarts=m.number(1, 2), init=init, **options)


def kmeans_sums(m: Maker) -> Any:
    n, d, k = m.size(90), m.size(9), m.size(40)
    options = {"metric": m.word("euclidean", "cosine"), "sums": m.rng.random() < 0.8}
    return pk.kmeans_sums(m.floats(n, d, half=True), m.floats(k, d), **options)


def ncut(m: Maker) -> Any:
    n, batch, weights = m.size(20), m.batch(), m.rng.random() < 0.2
    x = m.floats(*batch, n, n if weights else m.size(9), half=True, least=0.0 if weights else -2.0)
    k, options = m.number(1, 2, 3), cut_options(m)
    if isinstance(k, int) and 0 < k < 50 and m.rng.random() < 0.5:
        options["start"] = m.floats(*batch, n, k)
    return pk.ncut(x, k, precomputed=weights, binary=m.rng.random() < 0.5, **options)


def preprocess(m: Maker) -> Any:
    h, w, batch = m.size(20), m.size(20), m.batch()
    color = m.word("bgr", "rgb", "nv12")
    frames = m.frames(*batch, h * 3, 2 * w) if color == "nv12" else m.frames(*batch, h, w, 3)
    size = m.pair(m.rng.randint(1, 12), m.rng.randint(1, 12))
    dtype = m.rng.choice([np.float32, np.float16])
    means = [m.number(0.5, 0.0) for _ in range(3)], [m.number(0.2, 1.0) for _ in range(3)]
    out = m.output(dtype, (*batch, 3, 8, 8), frames)
    size = (8, 8) if out is not None else size
    return pk.preprocess(
        frames, size, *means, color=color, fit=m.word("stretch", "letterbox"), dtype=dtype, out=out
    )


def propagate(m: Maker) -> Any:
    h, w, d, slots, batch = m.size(6), m.size(6), m.size(20), m.size(3), m.batch()
    x, memory = m.floats(*batch, h * w, d, half=True), m.floats(*batch, slots, h * w, d, half=True)
    values = m.floats(*batch, slots, h * w, m.size(5))
    out = m.output(np.float32, (*batch, h * w, values.shape[-1] if hasattr(values, "shape") else 1), values)
    options = {"radius": m.number(0, 1, 12), "topk": m.number(1, 5, 64), "temperature": m.number(0.1, 1.0)}
    return pk.propagate(x, memory, values, m.pair(h, w), frames=m.number(None, slots), **options, out=out)


def region_stats(m: Maker) -> Any:
    shape = (*m.batch(), m.size(12), m.size(12))
    options = {"label_map": m.integers(3, *shape), "confidence": m.floats(*shape)}
    given = {name: value for name, value in options.items() if m.rng.random() < 0.5}
    return pk.region_stats(m.integers(4, *shape), m.number(4, 9), **given)


def relabel(m: Maker) -> Any:
    shape = (*m.batch(), m.size(12), m.size(12))
    labels = m.integers(3, *shape)
    return pk.relabel(
        labels, m.integers(9, m.number(4, 9) if not m.chance else 4), out=m.output(np.int32, shape, labels)
    )


def rle_decode(m: Maker) -> Any:
    rles = pk.rle_encode(np.atleast_3d(m.numpy.random((m.size(3), m.size(9), m.size(9))) < 0.5))
    for rle in rles if m.chance else ():
        if m.wrong():
            rle["size"] = m.rng.choice(
                [rle["size"], [m.number(1), m.number(2)], m.number((2, 3)), [2**15, 2**15]]
            )
        if m.wrong():
            text = bytes(m.rng.randrange(256) for _ in range(m.rng.randrange(9)))
            runs = [m.number(5, 0) for _ in range(m.rng.randrange(5))]
            rle["counts"] = m.rng.choice(
                [text, text.decode("latin1"), runs, m.number(b"22"), rle["counts"] + b"0"]
            )
    if m.wrong():
        count = m.size(3)
        offsets = m.lay(np.array([m.rng.choice([0, 1, 3, -1, 2**62]) for _ in range(count)], np.int64))
        return pk.rle_decode(pk.RunLengths(m.pair(2, 3), m.lay(np.uint32([1, 5, 6])), offsets))
    return pk.rle_decode(m.rng.choice([rles, rles[0] if rles else rles, m.number(rles)]))


def rle_encode(m: Maker) -> Any:
    shape = (*m.batch(), m.size(12), m.size(12))
    compressed = m.rng.random() < 0.5
    if m.rng.random() < 0.5:
        return pk.rle_encode(m.integers(4, *shape), m.number(4, 9), compressed=compressed)
    masks, out = m.bools(*shape), None
    if m.rng.random() < 0.3:
        runs, offsets = (
            m.output(np.uint32, (50,), masks),
            m.output(np.int64, (math.prod(shape[:-2]) + 1,), masks),
        )
        out = pk.RunLengths(shape[-2:], runs, offsets)
    return pk.rle_encode(masks, compressed=compressed, out=out)


def upsample_argmax(m: Maker) -> Any:
    h, w, batch = m.size(5), m.size(5), m.batch()
    size = (m.rng.randint(1, 12), m.rng.randint(1, 12))
    x = m.floats(*batch, h * w, m.size(5))
    out = m.output(np.int32, (*batch, *size), x)
    confidence = m.rng.choice([False, True, m.output(np.float32, (*batch, *size), x, out)])
    return pk.upsample_argmax(x, m.pair(h, w), m.pair(*size), out=out, confidence=confidence)


OPS: list[Callable[[Maker], Any]] = [
    affinity,
    assign,
    bilateral_solver,
    bipartition,
    connected_components,
    correlation_cluster,
    cosegment,
    gcn_forward,
    gnn_fit,
    guided_refine,
    kmeans,
    kmeans_sums,
    ncut,
    preprocess,
    propagate,
    region_stats,
    relabel,
    rle_decode,
    rle_encode,
    upsample_argmax,
]


def arrays_of(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if is_dataclass(value):
        return [array for each in fields(value) for array in arrays_of(getattr(value, each.name))]
    return [array for item in value for array in arrays_of(item)] if isinstance(value, tuple) else []


def run(op: Callable[[Maker], Any], maker: Maker) -> bool:
    """Whether the op took its arguments; finite ones then lead to finite results."""
    try:
        result = op(maker)
    except MemoryError:
        return False
    except (ValueError, TypeError) as error:
        # An op's own words; numpy's where an array cannot even be made.
        assert re.match(r"\[\w+\] .", str(error)) or not isinstance(error, ValueError), repr(error)
        return False
    if maker.finite:
        for array in arrays_of(result):
            assert array.dtype.kind != "f" or np.isfinite(array).all()
    return True


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_calls(op: Callable[[Maker], Any]) -> None:
    rng = random.Random(f"arguments of {op.__name__}")
    taken, calls, slowest = 0, 0, 0.0
    for _ in range(CALLS_OF_EACH):
        begin = time.monotonic()
        taken += run(op, Maker(rng))
        calls += 1
        slowest = max(slowest, time.monotonic() - begin)
    assert calls == CALLS_OF_EACH
    assert calls / 5 < taken < calls  # neither is all of it refused nor all taken
    assert slowest < 5


def test_there_are_enough_calls() -> None:
    ops = {name for name in pk.__all__ if callable(getattr(pk.reference, name, None))}
    assert ops == {op.__name__ for op in OPS} | {"letterbox_xyxy"} & ops
    assert len(OPS) * CALLS_OF_EACH >= 10_000
