"""Each op beside the fastest thing one would use in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench import machine, subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "each op beside its natural neighbour, at the sizes of real frames"
REPEATS = 40
TARGETS: tuple[Target, ...] = ()

Array = npt.NDArray[np.float32]

_DIM = 384
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Side:
    """One way to do the work: who, once, and what its clock holds."""

    name: str
    call: Callable[[], object]
    inside: str


@dataclass(frozen=True)
class Duel:
    """One op and its neighbours on the same input.

    Attributes:
        ours: patchcut.
        neighbours: the first is the one that `times_as_fast` compares with.
        shapes: of the input and the output.
        quality: how far patchcut and the first neighbour agree.
    """

    ours: Side
    neighbours: tuple[Side, ...]
    shapes: dict[str, tuple[int, ...]]
    quality: dict[str, float] = field(default_factory=dict)
    dtype: str = "float32"


def run(options: Options) -> Iterator[Outcome]:
    """A duel a case; both sides keep their output memory where they can."""
    try:
        import torch  # noqa: F401 - gcn_forward's neighbour
    except ImportError:
        raise BenchError("kernels needs torch: pip install -e '.[dev]'") from None
    machine.set_threads(options.threads)  # again: torch is loaded now
    for case, make in _DUELS.items():
        duel = make()
        sides = (duel.ours, *duel.neighbours)
        times = interleave([Contender(side.name, side.call) for side in sides], options.repeats or REPEATS)
        ours, first = (times[side.name] for side in sides[:2])
        metrics = {"times_as_fast": first.median_ms / ours.median_ms}
        for side in sides:
            told = (duel.quality, metrics) if side is duel.ours else ({}, {})
            yield Outcome(case, side.name, side.inside, times[side.name], duel.shapes, duel.dtype, *told)


def _affinity(n: int) -> Duel:
    features = _features(n)
    out, product = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = np.maximum(unit @ unit.T, 0)
    return Duel(
        Side(
            "patchcut",
            lambda: pk.affinity(features, out=out, return_degrees=True),
            "norms, cosines, threshold and degrees",
        ),
        (Side("numpy F @ F.T", lambda: np.matmul(features, features.T, out=product), "the product alone"),),
        {"features": features.shape, "affinity": out.shape},
        {"max_abs_difference": _difference(pk.affinity(features), expected)},
    )


def _preprocess(frame_hw: tuple[int, int], size: int) -> Duel:
    frame = subjects.frame(frame_hw)
    out = np.empty((3, size, size), np.float32)
    params = cv2.dnn.Image2BlobParams()
    params.scalefactor = (*(1 / (255 * np.array(_STD))), 0)
    params.mean = (*(255 * np.array(_MEAN)), 0)
    params.swapRB = True
    params.size = (size, size)

    def area() -> Array:
        resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.dnn.blobFromImageWithParams(resized, params), np.float32)

    def bilinear() -> Array:
        return np.asarray(cv2.dnn.blobFromImageWithParams(frame, params), np.float32)

    def ours() -> Array:
        return pk.preprocess(frame, size, _MEAN, _STD, out=out)

    return Duel(
        Side("patchcut", ours, "antialiased resize, RGB, normalise, planes"),
        (
            Side("cv2.resize, cv2.dnn blob", area, "INTER_AREA resize, RGB, normalise, planes"),
            Side("cv2.dnn blob alone", bilinear, "the same with its own resize, which does not antialias"),
        ),
        {"frame": frame.shape, "image": out.shape},
        {"max_abs_difference": _difference(ours(), area()[0])},
    )


def _gcn_forward(n: int) -> Duel:
    from bench.competitors.dense_gcn import make_forward

    features, weights = _features(n), _weights()
    affinity, degrees = pk.affinity(features, return_degrees=True)
    forward = make_forward(weights)
    out = np.empty((n, weights.k), np.float32)

    def ours() -> Array:
        return pk.gcn_forward(features, affinity, weights, degrees=degrees, out=out)

    def theirs() -> Array:
        return forward(features, affinity, degrees)

    return Duel(
        Side("patchcut", ours, "one forward pass, degrees known"),
        (Side("torch, dense", theirs, "one forward pass, degrees known"),),
        {"features": features.shape, "affinity": affinity.shape, "assignment": out.shape},
        {"max_abs_difference": _difference(ours(), theirs())},
    )


def _upsample_argmax(
    columns: int, grid_hw: tuple[int, int], size_hw: tuple[int, int], *, confidence: bool
) -> Duel:
    """With its confidence, into memory that is kept, is how every frame uses it."""
    assignment = _assignment(columns, grid_hw)
    out, certainty = np.empty(size_hw, np.int32), np.empty(size_hw, np.float32)
    planes = [np.ascontiguousarray(column.reshape(grid_hw)) for column in assignment.T]

    def ours() -> object:
        if confidence:
            return pk.upsample_argmax(assignment, grid_hw, size_hw, out=out, confidence=certainty)
        return pk.upsample_argmax(assignment, grid_hw, size_hw, out=out)

    if columns == 2:
        theirs = partial(_resize_foreground, planes[1], size_hw, certainty if confidence else None)
        inside = "resize of one column, compare: a mask of 8 bits"
    else:
        theirs = partial(_resize_columns, planes, size_hw)
        inside = "resize of each column, running maximum: labels of 8 bits and confidence"
    told = " and confidence" if confidence else ""
    ours()
    return Duel(
        Side("patchcut", ours, f"label map of 32 bits{told}"),
        (Side("cv2.resize, numpy", theirs, inside + (told if columns == 2 else "")),),
        {"assignment": assignment.shape, "label_map": size_hw},
        {"label_agreement": float((out == theirs()[0]).mean())},
    )


def _resize_foreground(plane: Array, size_hw: tuple[int, int], out: Array | None) -> tuple[Any, Any]:
    """(mask, confidence in `out` or None) of the second of two columns; the first is 1 minus it."""
    foreground = np.asarray(cv2.resize(plane, size_hw[::-1]), np.float32)
    mask = foreground > 0.5
    if out is not None:
        np.subtract(1, foreground, out=out)
        np.maximum(foreground, out, out=out)
    return mask, out


def _resize_columns(planes: list[Array], size_hw: tuple[int, int]) -> tuple[Any, Any]:
    """(labels, confidence); numpy.argmax over stacked columns takes five times as long."""
    best = cv2.resize(planes[0], size_hw[::-1])
    labels = np.zeros(size_hw, np.uint8)
    for label, plane in enumerate(planes[1:], 1):
        values = cv2.resize(plane, size_hw[::-1])
        mask = cv2.compare(values, best, cv2.CMP_GT)
        cv2.copyTo(np.full(size_hw, label, np.uint8), mask, labels)
        cv2.max(values, best, best)
    return labels, best


def _connected_components(size_hw: tuple[int, int]) -> Duel:
    grid_hw = (28, 28)
    label_map = pk.upsample_argmax(_assignment(2, grid_hw), grid_hw, size_hw)
    binary = label_map.astype(np.uint8)
    out = np.empty(size_hw, np.int32)

    def ours() -> tuple[int, pk.RegionStats]:
        ids, count = pk.connected_components(label_map, out=out)
        return count, pk.region_stats(ids, count)

    def theirs() -> Any:
        return cv2.connectedComponentsWithStats(binary, connectivity=8)

    same = np.array_equal(np.sort(ours()[1].area), np.sort(theirs()[2][1:, cv2.CC_STAT_AREA]))
    return Duel(
        Side("patchcut", ours, "ids, areas and boxes"),
        (Side("cv2.connectedComponentsWithStats", theirs, "ids, areas, boxes and centroids"),),
        {"label_map": size_hw},
        {"same_components": float(same)},
        "int32",
    )


def _relabel(size_hw: tuple[int, int]) -> Duel:
    rng = np.random.default_rng(0)
    table = rng.permutation(64).astype(np.int32)
    ids = np.sort(rng.integers(0, 64, size_hw).astype(np.int32), axis=1)  # runs, as components are
    ours_out, theirs_out = np.empty_like(ids), np.empty_like(ids)

    def ours() -> npt.NDArray[np.int32]:
        return pk.relabel(ids, table, out=ours_out)

    def theirs() -> npt.NDArray[np.int32]:
        return np.take(table, ids, out=theirs_out, mode="clip")

    return Duel(
        Side("patchcut", ours, "bounds checked, table applied"),
        (Side("numpy take", theirs, "bounds clipped, table applied"),),
        {"labels": size_hw},
        {"max_abs_difference": _difference(ours(), theirs())},
        "int32",
    )


_DUELS: dict[str, Callable[[], Duel]] = {
    "affinity 256x384": lambda: _affinity(256),
    "affinity 784x384": lambda: _affinity(784),
    "affinity 1369x384": lambda: _affinity(1369),
    "preprocess 640x480 to 224": lambda: _preprocess(subjects.VGA_HW, 224),
    "preprocess 1920x1080 to 448": lambda: _preprocess(subjects.FULL_HD_HW, 448),
    "gcn_forward 256 nodes": lambda: _gcn_forward(256),
    "gcn_forward 784 nodes": lambda: _gcn_forward(784),
    **{
        f"upsample_argmax {columns} of {side}x{side} to {hw[1]}x{hw[0]}{told}": partial(
            _upsample_argmax, columns, (side, side), hw, confidence=confidence
        )
        for columns, side, hw in ((2, 16, subjects.VGA_HW), (8, 28, subjects.FULL_HD_HW))
        for told, confidence in (("", False), (" with confidence", True))
    },
    "connected_components 640x480": lambda: _connected_components(subjects.VGA_HW),
    "connected_components 1920x1080": lambda: _connected_components(subjects.FULL_HD_HW),
    "relabel 1920x1080": lambda: _relabel(subjects.FULL_HD_HW),
}
CASES = tuple(_DUELS)


def _features(n: int) -> Array:
    """[n, 384] float32, three noisy clusters: an affinity that is neither empty nor full."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, _DIM))
    noisy = centres[rng.integers(0, 3, n)] + 0.7 * rng.standard_normal((n, _DIM))
    features: Array = noisy.astype(np.float32)
    return features


def _weights() -> pk.GcnWeights:
    """The embedded head's widths, random values."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> Array:
        values: Array = rng.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        return values

    layer = pk.GcnLayer(matrix(_DIM, 64), matrix(_DIM, 64), matrix(64))
    mlp = (pk.LinearLayer(matrix(64, 32), matrix(32)), pk.LinearLayer(matrix(32, 2), matrix(2)))
    return pk.GcnWeights(
        True, np.zeros(_DIM, np.float32), np.full(_DIM, 20, np.float32), (layer,), mlp, temperature=1.0
    )


def _assignment(columns: int, grid_hw: tuple[int, int]) -> Array:
    """[n, k] float32, smooth blobs as a head gives them."""
    rng = np.random.default_rng(0)
    height, width = grid_hw
    coarse = rng.standard_normal((height // 4 + 1, width // 4 + 1, columns))
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    logits = 2 * np.asarray(smooth).reshape(-1, columns)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    assignment: Array = (exponents / exponents.sum(1, keepdims=True)).astype(np.float32)
    return assignment


def _difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(np.abs(a - b).max())
