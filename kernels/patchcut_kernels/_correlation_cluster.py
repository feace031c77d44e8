"""Signed affinities to clusters, whose number is found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "correlation_cluster"


@dataclass(frozen=True, eq=False)
class CorrelationClustering:
    """n nodes in k clusters; a batch is one more dimension in front.

    Args:
        labels: [n] int32 in [0, k), numbered by their first nodes.
        k: [] int32, how many clusters were found.
        objective: [] float32, the weights of pairs within clusters, added up; larger is better.
    """

    labels: npt.NDArray[np.int32]
    k: npt.NDArray[np.int32]
    objective: npt.NDArray[np.float32]


def correlation_cluster(
    affinity: Array,
    *,
    max_clusters: int = 64,
    seed: int = 0,
    out: CorrelationClustering | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> CorrelationClustering:
    """The partition of a signed graph that keeps the largest weight within its clusters.

    Args:
        affinity: [n, n] or [b, n, n] float32 or float16, finite, n at least 1, above 0 where two nodes belong
            together: `affinity(..., mode="cc")`. The weight of a pair is the mean of its two entries, and the
            diagonal has no meaning.
        max_clusters: the largest number of clusters to find, at least 1; time and memory grow with it.
        seed: 0 to 2^64 - 1, for the random orders in which nodes are visited; equal seeds give equal labels
            on every device.
        out: contiguous arrays to write; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        CorrelationClustering.
    Raises:
        TypeError: "[correlation_cluster] affinity must be float32 or float16, got float64".
        ValueError: "[correlation_cluster] affinity must be square, got shape (4, 3)".
        ValueError: "[correlation_cluster] affinity overflows: ...", where the objective leaves float32; the
            sum of a pair's two entries must not either.
    Maximises sum_{i<j} W_ij [l_i = l_j], the correlation clustering of Bansal, Blum and Chawla (2004); with
    one-hot rows S the loss -Tr(S^T W S) of DeepCut (2212.05853), section 3.2, is -(2 objective + Tr(W)). From
    several starts (nodes taken up greedily in different orders, and one cluster) nodes move in the chains of
    Fiduccia and Mattheyses (1982) and clusters merge until nothing gains; the best is kept. Bagon and Galun
    (1112.2903) describe the problem at this scale.
    Examples:
        >>> signed = np.float32([[0, 1, -1], [1, 0, -1], [-1, -1, 0]])
        >>> pk.correlation_cluster(signed).labels.tolist()
        [0, 0, 1]
    """
    edges = _checks.floats(_OP, "affinity", affinity, ("[n, n]", "[b, n, n]"))
    *batch, n, columns = edges.shape
    if n != columns or n == 0:
        wanted = "square" if n != columns else "of at least one node"
        raise ValueError(f"[{_OP}] affinity must be {wanted}, got shape {edges.shape}")
    max_clusters = _checks.integer(_OP, "max_clusters", max_clusters, 1, 2**31 - 1)
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    launch = _launch.prepare(_OP, stream, workspace, affinity=edges)
    specs = {
        "labels": (np.int32, (*batch, n)),
        "k": (np.int32, tuple(batch)),
        "objective": (np.float32, tuple(batch)),
    }
    result = _checks.outputs(_OP, out, CorrelationClustering, launch, specs, edges)
    items = math.prod(batch)
    _C.correlation_cluster(
        _checks.native(_OP, "affinity", edges, items, n, n),
        max_clusters,
        seed,
        _checks.native(_OP, "out.labels", result.labels, items, n),
        _checks.native(_OP, "out.k", result.k, items),
        _checks.native(_OP, "out.objective", result.objective, items),
        launch.context,
    )
    return result if out is None else out
