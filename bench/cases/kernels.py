"""Each op beside what one would use in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
class Duel:
    """One op and its neighbour on the same input.

    Attributes:
        ours, theirs: do the work once.
        neighbour: its name.
        inside: what each clock holds, ours first.
        shapes: of the input and the output.
        quality: how far the two agree.
    """

    ours: Callable[[], object]
    theirs: Callable[[], object]
    neighbour: str
    inside: tuple[str, str]
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
        contenders = (Contender("patchcut", duel.ours), Contender(duel.neighbour, duel.theirs))
        times = interleave(contenders, options.repeats or REPEATS)
        ours, theirs = times["patchcut"], times[duel.neighbour]
        metrics = {"times_as_fast": theirs.median_ms / ours.median_ms}
        yield Outcome(case, "patchcut", duel.inside[0], ours, duel.shapes, duel.dtype, duel.quality, metrics)
        yield Outcome(case, duel.neighbour, duel.inside[1], theirs, duel.shapes, duel.dtype)


def _affinity(n: int) -> Duel:
    features = _features(n)
    out, product = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = np.maximum(unit @ unit.T, 0)
    return Duel(
        lambda: pk.affinity(features, out=out, return_degrees=True),
        lambda: np.matmul(features, features.T, out=product),
        "numpy F @ F.T",
        ("norms, cosines, threshold and degrees", "the matrix product alone"),
        {"features": features.shape, "affinity": out.shape},
        {"max_abs_difference": _difference(pk.affinity(features), expected)},
    )


def _preprocess(frame_hw: tuple[int, int], size: int) -> Duel:
    frame = subjects.frame(frame_hw)
    out = np.empty((3, size, size), np.float32)
    scale = (1 / (255 * np.array(_STD))).astype(np.float32)
    offset = (-np.array(_MEAN) / _STD).astype(np.float32)

    def theirs() -> Array:
        resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)[..., ::-1]
        return np.ascontiguousarray((resized * scale + offset).transpose(2, 0, 1))

    def ours() -> Array:
        return pk.preprocess(frame, size, _MEAN, _STD, out=out)

    return Duel(
        ours,
        theirs,
        "cv2.resize, numpy",
        ("resize, RGB, normalise, planes", "INTER_AREA, RGB, normalise, planes"),
        {"frame": frame.shape, "image": out.shape},
        {"max_abs_difference": _difference(ours(), theirs())},
    )


def _gcn_forward(n: int) -> Duel:
    from bench.competitors.dense_gcn import make_forward

    features, weights = _features(n), _weights()
    affinity, degrees = pk.affinity(features, return_degrees=True)
    forward = make_forward(weights)
    out = np.empty((n, weights.k), np.float32)

    def ours() -> Array:
        return pk.gcn_forward(features, affinity, weights, degrees=degrees, out=out)

    return Duel(
        ours,
        lambda: forward(features, affinity),
        "torch, dense",
        ("one forward pass, degrees known", "one forward pass"),
        {"features": features.shape, "affinity": affinity.shape, "assignment": out.shape},
        {"max_abs_difference": _difference(ours(), forward(features, affinity))},
    )


def _upsample_argmax(columns: int, grid_hw: tuple[int, int], size_hw: tuple[int, int]) -> Duel:
    assignment = _assignment(columns, grid_hw)
    out = np.empty(size_hw, np.int32)
    planes = [np.ascontiguousarray(column.reshape(grid_hw)) for column in assignment.T]

    def ours() -> npt.NDArray[np.int32]:
        return pk.upsample_argmax(assignment, grid_hw, size_hw, out=out)

    def theirs() -> npt.NDArray[np.intp]:
        labels: npt.NDArray[np.intp] = np.argmax([cv2.resize(p, size_hw[::-1]) for p in planes], axis=0)
        return labels

    return Duel(
        ours,
        theirs,
        "cv2.resize, numpy",
        ("label map", "one resize a column, argmax"),
        {"assignment": assignment.shape, "label_map": size_hw},
        {"label_agreement": float((ours() == theirs()).mean())},
    )


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
        ours,
        theirs,
        "cv2.connectedComponentsWithStats",
        ("ids, areas and boxes", "ids, areas, boxes and centroids"),
        {"label_map": size_hw},
        {"same_components": float(same)},
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
    "upsample_argmax 2 of 16x16 to 640x480": lambda: _upsample_argmax(2, (16, 16), subjects.VGA_HW),
    "upsample_argmax 8 of 28x28 to 1920x1080": lambda: _upsample_argmax(8, (28, 28), subjects.FULL_HD_HW),
    "connected_components 640x480": lambda: _connected_components(subjects.VGA_HW),
    "connected_components 1920x1080": lambda: _connected_components(subjects.FULL_HD_HW),
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
