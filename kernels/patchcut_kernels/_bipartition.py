"""Patch features to one object and the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _cut_graph, _launch
from ._arrays import Array

_OP = "bipartition"


@dataclass(frozen=True, eq=False)
class Bipartition:
    """One object and the rest; a batch is one more dimension in front.

    Args:
        mask: [h, w] bool, the patches of the object.
        seed: [] int32, its patch that is farthest from the cut, y * w + x.
        vector: [n] float32, what was cut: the first of `NCut.vectors`.
    """

    mask: npt.NDArray[np.bool_]
    seed: npt.NDArray[np.int32]
    vector: npt.NDArray[np.float32]


def bipartition(
    features: Array,
    grid_hw: tuple[int, int],
    *,
    precomputed: bool = False,
    threshold: float | None = 0.2,
    binary: bool = True,
    floor: float = 1e-5,
    offset: float = 1.0,
    connected: bool = True,
    iterations: int = 10,
    tolerance: float = 0.0,
    start: Array | None = None,
    seed: int = 0,
    out: Bipartition | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> Bipartition:
    """The patches of the most salient object, by the normalised cut of their graph in two.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite, n = h w at least 2; with `precomputed` the
            weights, as for `ncut`.
        grid_hw: rows and columns of the patch grid.
        precomputed: as for `ncut`.
        threshold: as for `ncut`.
        binary: as for `ncut`.
        floor: as for `ncut`.
        offset: as for `ncut`.
        connected: keep only the patches that are joined to the seed by neighbours left, right, above, below;
            False for the whole side.
        iterations: see `ncut`.
        tolerance: see `ncut`.
        start: [n] or [b, n] float32, such as `vector` of the frame before; see `ncut`.
        seed: 0 to 2^64 - 1; draws the vectors that the iterations start from.
        out: contiguous arrays to write; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        Bipartition. Where the smallest eigenvalue is not a single one (all patches are alike, or there are
        more than two groups without an edge between them) any vector of its space cuts as well as another;
        which one is taken, and so the mask, then depends on the instruction set and the device.
    Raises:
        TypeError: "[bipartition] features must be float32 or float16, got float64".
        ValueError: "[bipartition] grid_hw must hold 6 patches, got (2, 2)".
    The first vector of `ncut`, cut at its mean; the seed is the entry of largest magnitude, the object the
    side where it is. TokenCut (2202.11539), section 3.2, with its graph and its values of threshold and floor
    unless told otherwise.
    Examples:
        >>> features = np.float32([[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> pk.bipartition(features, (2, 2)).mask.tolist()
        [[False, False], [False, True]]
    """
    graph = _cut_graph.checked(
        _OP,
        features,
        precomputed=precomputed,
        threshold=threshold,
        binary=binary,
        floor=floor,
        offset=offset,
    )
    *batch, n, d = graph.rows.shape
    height, width = _checks.pair_hw(_OP, "grid_hw", grid_hw)
    if height * width != n:
        raise ValueError(f"[{_OP}] grid_hw must hold {n} patches, got {(height, width)}")
    iterations = _checks.integer(_OP, "iterations", iterations, 1, 2**63 - 1)
    tolerance = _cut_graph.checked_tolerance(_OP, tolerance)
    if start is not None:
        start = _checks.array(_OP, "start", start, np.float32, ("[n]", "[b, n]"))
        _checks.shape(_OP, "start", start, (*batch, n))
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    launch = _launch.prepare(_OP, stream, workspace, features=graph.rows, start=start)
    specs = {
        "mask": (np.bool_, (*batch, height, width)),
        "seed": (np.int32, tuple(batch)),
        "vector": (np.float32, (*batch, n)),
    }
    result = _checks.outputs(_OP, out, Bipartition, launch, specs, graph.rows, start)
    items = math.prod(batch)
    _C.bipartition(
        _checks.native(_OP, "features", graph.rows, items, n, d),
        graph.kind,
        graph.threshold,
        graph.floor,
        graph.offset,
        iterations,
        seed,
        tolerance,
        bool(connected),
        _checks.native(_OP, "start", start, items, n),
        _checks.native(_OP, "out.mask", result.mask, items, height, width),
        _checks.native(_OP, "out.seed", result.seed, items),
        _checks.native(_OP, "out.vector", result.vector, items, n),
        launch.context,
    )
    return result if out is None else out
