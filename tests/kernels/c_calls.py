"""For each function of the C face one call that it takes, from which tests make those that it must refuse."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .c_header import parse_header

INCLUDE = Path(__file__).parents[2] / "kernels/include/patchcut"
HEADER = parse_header(INCLUDE / "patchcut.h")
CUDA_HEADER = parse_header(INCLUDE / "cuda.h")
NAN, TOO_LARGE = float("nan"), 2**62


@dataclass
class Call:
    """Arguments by name; the context is left out.

    Args:
        arguments: arrays, structs, numbers.
        optional: arrays that may be null.
        bad: values that are refused, by the name of an argument or of a field of a struct. Null arrays, sizes
            that are negative or overflow and unknown dtypes are tried of every function, and need no entry.
        counts: int64 numbers that are no size of an array and may be large.
        in_place: (output, input) that may be one array.
        tag: in its errors where that is not the function's own name.
        kept: what the structs point to.
    """

    arguments: dict[str, Any]
    optional: tuple[str, ...] = ()
    bad: dict[str, list[Any]] = field(default_factory=dict)
    counts: tuple[str, ...] = ()
    in_place: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    kept: Any = None


def struct(name: str, **values: Any) -> ctypes.Structure:
    """patchcut_<name> with the header's defaults, where it has them, and `values`."""
    defaults = HEADER.defaults.get(f"PATCHCUT_{name.removesuffix('_params').upper()}_DEFAULTS", ())
    kind = HEADER.structs[f"patchcut_{name}"]
    made = kind()
    for (field_name, ctype), value in zip(kind._fields_, defaults, strict=False):
        setattr(made, field_name, value if ctype is ctypes.c_float else int(value))
    for field_name, value in values.items():
        setattr(made, field_name, value)
    return made


def empty(*shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    return np.empty(shape, dtype)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def label_map() -> np.ndarray:
    """[2, 4, 5] in [0, 2]"""
    return np.random.default_rng(5).integers(0, 3, (2, 4, 5)).astype(np.int32)


FEATURES = {"features": normal(2, 6, 3), "dtype": 0, "batch": 2, "n": 6, "d": 3}
MAP_SIZES = {"batch": 2, "height": 4, "width": 5}


def affinity() -> Call:
    result = {"affinity": empty(2, 6, 6), "affinity_dtype": 0, "degrees": empty(2, 6)}
    return Call(
        {**FEATURES, "params": struct("affinity_params"), **result},
        optional=("degrees",),
        bad={"d": [0], "kind": [-1, 2], "mode": [-1, 2], "threshold": [-0.1, NAN], "alpha": [0, NAN, 1e-45]},
    )


def assign() -> Call:
    result = {"labels": empty(2, 6, dtype=np.int32), "similarity": empty(2, 6), "assignment": empty(2, 6, 3)}
    return Call(
        {**FEATURES, "prototypes": normal(3, 3), "c": 3, "temperature": 0.1, **result},
        optional=("assignment",),
        bad={"d": [0], "c": [0], "temperature": [0, -1, NAN, 1e-45]},
    )


def connected_components() -> Call:
    maps = {name: empty(2, 4, 5, dtype=np.int32) for name in ("ids", "kept_labels")}
    result = {**maps, "counts": empty(2, dtype=np.int32)}
    return Call(
        {"label_map": label_map(), **MAP_SIZES, "connectivity": 8, "min_area": 1, **result},
        optional=("kept_labels",),
        bad={"connectivity": [0, 6, -8], "min_area": [0]},
        counts=("min_area",),
        in_place=(("ids", "label_map"), ("kept_labels", "label_map")),
    )


def correlation_cluster() -> Call:
    result = {
        "labels": empty(2, 6, dtype=np.int32),
        "counts": empty(2, dtype=np.int32),
        "objectives": empty(2),
    }
    params = struct("correlation_cluster_params")
    return Call(
        {"affinity": normal(2, 6, 6), "dtype": 0, "batch": 2, "n": 6, "params": params, **result},
        bad={"n": [0, 2**31], "max_clusters": [0, -1]},
    )


class Gcn:
    """Weights of one graph layer and one linear layer."""

    def __init__(self, d: int, k: int) -> None:
        self.arrays = [np.ones(size, np.float32) for size in (d * d, d, d * k, k, d, d)]
        theta, bias, weight, last, shift, scale = (array.ctypes.data for array in self.arrays)
        self.layer = struct("gcn_layer", theta=theta, bias=bias, inputs=d, outputs=d)
        self.linear = struct("linear_layer", weight=weight, bias=last, inputs=d, outputs=k)
        self.weights = struct(
            "gcn_weights",
            d=d,
            shift=shift,
            scale=scale,
            layers=ctypes.addressof(self.layer),
            layer_count=1,
            mlp=ctypes.addressof(self.linear),
            mlp_count=1,
            temperature=1,
        )


def gcn_create() -> Call:
    gcn = Gcn(3, 2)
    return Call(
        {"weights": gcn.weights, "gcn": np.zeros(1, np.uintp)},
        bad={
            "d": [0, 4],
            "shift": [None],
            "scale": [None],
            "layers": [None],
            "layer_count": [-1],
            "mlp": [None],
            "mlp_count": [0, -1],
            "temperature": [0, NAN, 1e-45],
        },
        kept=gcn,
    )


def gcn_forward() -> Call:
    """`gcn` is for who makes the call to fill in: what gcn_create makes of its own call."""
    graph = {
        "affinity": np.ones((2, 6, 6), np.float32),
        "affinity_dtype": 0,
        "degrees": np.full((2, 6), 6, np.float32),
    }
    return Call({**FEATURES, **graph, "gcn": None, "assignment": empty(2, 6, 2)}, optional=("degrees",))


def gnn_fit() -> Call:
    ones = np.full(64 * 64, 0.1, np.float32)  # as large as the largest
    names = ("theta", "theta_bias", "hidden", "hidden_bias", "logits", "logits_bias")
    weights = struct("gnn_fit_weights", **dict.fromkeys(names, ones.ctypes.data))
    return Call(
        {
            **FEATURES,
            "affinity": np.ones((2, 6, 6), np.float32),
            "affinity_dtype": 0,
            "k": 2,
            "weights": weights,
            "params": struct("gnn_fit_params", steps=3),
            "assignment": empty(2, 6, 2),
            "losses": empty(2, 3),
            "fitted": empty(2, 4 * 64 + 65 * 32 + 33 * 2),
        },
        optional=("weights", "fitted"),
        bad={
            **{key: [None] for key in names},
            **{key: [0] for key in ("n", "d")},
            "k": [0, 65537],
            **{key: [0, -1, 65537, TOO_LARGE] for key in ("steps", "graph_width", "hidden_width")},
            "loss": [-1, 2],
            "learning_rate": [0, -1, NAN],
            "dropout": [-0.1, 1, NAN],
            "tolerance": [-1, NAN],
        },
        kept=ones,
    )


def bilateral_solver() -> Call:
    frames = np.random.default_rng(5).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    maps = {"maps": normal(2, 4, 5), "confidence": np.ones((2, 4, 5), np.float32)}
    return Call(
        {
            "frames": frames,
            **maps,
            **MAP_SIZES,
            "params": struct("bilateral_solver_params"),
            "out": empty(2, 4, 5),
        },
        bad={
            **{f"sigma_{axis}": [0.5, -1, NAN, np.inf] for axis in ("spatial", "luma", "chroma")},
            "smoothness": [-1, NAN, np.inf],
            "color": [-1, 2],
            **{key: [-1, -(2**63), 65537] for key in ("iterations", "bistochastic_iterations")},
        },
        in_place=(("out", "maps"), ("out", "confidence")),
    )


GUIDED_BAD = {
    "radius": [0, -1, 65537],
    "eps": [0, -1, NAN, 1e-10, 1e38],
    "subsample": [0, -1, 65537],
}


def guided_refine() -> Call:
    frames = np.random.default_rng(5).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    params = struct("guided_refine_params")
    maps = {"maps": normal(2, 3, 4, 5), "k": 3, "out": empty(2, 3, 4, 5)}
    return Call({"frames": frames, **MAP_SIZES, "params": params, **maps}, bad=GUIDED_BAD)


def guided_refine_labels() -> Call:
    call = guided_refine()
    maps = {"label_maps": label_map(), "count": 3, "out": empty(2, 4, 5, dtype=np.int32)}
    bad = {**GUIDED_BAD, "count": [-1, 2**31]}
    return Call({**call.arguments, **maps}, bad=bad, tag="guided_refine")


def kmeans() -> Call:
    points = {"points": FEATURES["features"], "dtype": 0, "batch": 2, "n": 6, "d": 3}
    result = {"labels": empty(2, 6, dtype=np.int32), "centroids": empty(2, 2, 3), "inertia": empty(2)}
    return Call(
        {**points, "k": 2, "init": normal(2, 2, 3), "params": struct("kmeans_params"), **result},
        optional=("init",),
        bad={
            **{key: [0] for key in ("n", "d")},
            "k": [0, 7],
            "metric": [-1, 2],
            "iterations": [0, -1, 65537],
            "restarts": [0, -1, 2, 65537],
        },
    )


def kmeans_sums() -> Call:
    points = {"points": FEATURES["features"][0], "dtype": 0, "n": 6, "d": 3}
    of_points = {"labels": empty(6, dtype=np.int32), "distances": empty(6)}
    of_clusters = {"sums": empty(2, 3, dtype=np.float64), "counts": empty(2, dtype=np.int64)}
    result = {**of_points, **of_clusters, "inertia": empty(1, dtype=np.float64)}
    return Call(
        {**points, "centroids": normal(2, 3), "k": 2, "params": struct("kmeans_sums_params"), **result},
        optional=("sums",),
        bad={"d": [0], "k": [0], "metric": [-1, 2]},
    )


def cosegment() -> Call:
    features = {"features": FEATURES["features"].reshape(12, 3), "dtype": 0, "n": 12, "d": 3, "k": 2}
    given = {"offsets": np.int64([0, 5, 12]), "weights": np.linspace(0, 1, 12, dtype=np.float32)}
    result = {"scores": empty(12), "seeds": empty(2, dtype=np.int32), "embedding": empty(3)}
    return Call({**features, **given, **result}, optional=("offsets", "weights"), bad={"d": [0]})


CUT_BAD = {
    "d": [0],
    "graph": [-1, 4, 0],  # 0 is an affinity: d is not n
    "threshold": [-0.1, NAN],
    "floor": [-0.1, 1, NAN],
    "offset": [-1, NAN],
    "iterations": [0, -1],
    "tolerance": [-1, NAN],
}


def bipartition() -> Call:
    sizes = {"dtype": 0, "batch": 2, "grid_height": 2, "grid_width": 3, "d": 3}
    result = {
        "masks": empty(2, 2, 3, dtype=np.uint8),
        "seeds": empty(2, dtype=np.int32),
        "vectors": empty(2, 6),
    }
    inputs = {"features": FEATURES["features"], "start": normal(2, 6), "params": struct("ncut_params")}
    return Call({**inputs, **sizes, "connected": 1, **result}, optional=("start", "vectors"), bad=CUT_BAD)


def ncut() -> Call:
    sizes = {"dtype": 0, "batch": 2, "n": 6, "d": 3, "k": 2}
    result = {"eigenvalues": empty(2, 2), "vectors": empty(2, 6, 2), "residuals": empty(2, 2)}
    result["products"] = empty(2, dtype=np.int32)
    inputs = {"features": FEATURES["features"], "start": normal(2, 6, 2), "params": struct("ncut_params")}
    return Call(
        {**inputs, **sizes, **result},
        optional=("start", "products"),
        bad={**CUT_BAD, "k": [0, 6], "n": [0, 1, 2]},
    )


def preprocess() -> Call:
    frames = np.random.default_rng(5).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    content = {"height": 3, "width": 3, "content_height": 3, "content_width": 3}
    params = struct("preprocess_params", **content)
    return Call(
        {
            "frames": frames,
            **MAP_SIZES,
            "strides": np.array(frames.strides),
            "params": params,
            "images": empty(2, 3, 3, 3),
            "dtype": 0,
        },
        bad={
            **{key: [0, -1, 4, TOO_LARGE] for key in ("content_height", "content_width")},
            **{key: [-1, 3, TOO_LARGE] for key in ("top", "left")},
            "color": [-1, 3, 2],  # NV12 of odd sizes is none
            "scale": [(1.0, NAN, 1.0), (2e36, 1.0, 1.0)],
            "offset": [(0.0, 0.0, -float("inf"))],
        },
    )


def propagate() -> Call:
    sizes = {"batch": 2, "slots": 3, "frames": 2, "grid_height": 2, "grid_width": 3, "d": 3, "c": 4}
    return Call(
        {
            "features": FEATURES["features"],
            "dtype": 0,
            "memory": normal(2, 3, 6, 3),
            "memory_dtype": 0,
            "values": normal(2, 3, 6, 4),
            **sizes,
            "params": struct("propagate_params"),
            "out": empty(2, 6, 4),
        },
        bad={
            "d": [0],
            "slots": [0, 1],
            "frames": [0, 4],
            "radius": [-1, -(2**63)],
            "topk": [0, -1, 65, TOO_LARGE],
            "temperature": [0, -1, NAN, 1e-45],
        },
    )


def region_stats() -> Call:
    result = {
        "area": empty(2, 2, dtype=np.int64),
        "boxes_xyxy": empty(2, 2, 4),
        "mean_confidence": empty(2, 2),
        "label": empty(2, 2, dtype=np.int32),
    }
    maps = {"ids": label_map(), "label_map": label_map(), "confidence": np.ones((2, 4, 5), np.float32)}
    return Call(
        {**maps, **MAP_SIZES, "count": 2, **result},
        optional=("mean_confidence", "label"),
        bad={"count": [1, 65537]},
    )


def relabel() -> Call:
    table = {"table": np.arange(3, dtype=np.int32), "count": 3}
    return Call(
        {"labels": label_map(), **MAP_SIZES, **table, "out": empty(2, 4, 5, dtype=np.int32)},
        bad={"count": [0, 2]},
        in_place=(("out", "labels"),),
    )


def rle_decode() -> Call:
    runs = {"runs": np.array([20, 3, 17], np.uint32), "offsets": np.array([0, 1, 3])}
    return Call(
        {**runs, **MAP_SIZES, "capacity": 3, "masks": empty(2, 4, 5, dtype=np.uint8)},
        bad={
            "capacity": [2],
            "height": [5],
            "width": [4],
            "offsets": [np.array(offsets) for offsets in ([0, 3, 1], [-1, 1, 3], [0, -1, 3])],
        },
    )


def rle_encode() -> Call:
    runs = {"capacity": 42, "runs": empty(42, dtype=np.uint32), "offsets": empty(3, dtype=np.int64)}
    return Call({"masks": (label_map() == 1).astype(np.uint8), **MAP_SIZES, **runs})


def rle_encode_ids() -> Call:
    runs = {"capacity": 84, "runs": empty(84, dtype=np.uint32), "offsets": empty(5, dtype=np.int64)}
    return Call(
        {"ids": label_map(), **MAP_SIZES, "count": 2, **runs}, bad={"count": [1, 65537]}, tag="rle_encode"
    )


def rle_read_text() -> Call:
    result = {"runs": empty(3, dtype=np.uint32), "count": empty(1, dtype=np.int64)}
    bad = [b"~~~", b"PPP", b"   "]
    return Call({"text": b"345", "length": 3, **result}, bad={"text": bad}, tag="rle_decode")


def rle_write_text() -> Call:
    result = {"text": empty(21, dtype=np.uint8), "length": empty(1, dtype=np.int64)}
    return Call({"runs": np.array([3, 4, 5], np.uint32), "count": 3, **result}, tag="rle_encode")


def upsample_argmax() -> Call:
    sizes = {"batch": 2, "grid_height": 2, "grid_width": 3, "k": 3, "height": 4, "width": 5}
    result = {"labels": empty(2, 4, 5, dtype=np.int32), "confidence": empty(2, 4, 5)}
    return Call(
        {"assignment": FEATURES["features"], **sizes, **result},
        optional=("confidence",),
        bad={key: [0] for key in ("grid_height", "grid_width", "k")},
    )


CALLS: dict[str, Callable[[], Call]] = {
    function.__name__: function
    for function in (
        affinity,
        assign,
        bilateral_solver,
        bipartition,
        connected_components,
        correlation_cluster,
        cosegment,
        gcn_create,
        gcn_forward,
        gnn_fit,
        guided_refine,
        guided_refine_labels,
        kmeans,
        kmeans_sums,
        ncut,
        preprocess,
        propagate,
        region_stats,
        relabel,
        rle_decode,
        rle_encode,
        rle_encode_ids,
        rle_read_text,
        rle_write_text,
        upsample_argmax,
    )
}
