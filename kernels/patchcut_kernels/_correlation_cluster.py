"""Signed affinities to clusters, whose number is found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _place
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
    """The partition of a signed graph that keeps most weight within its clusters.

    Args:
        affinity: [n, n] or [b, n, n] float32 or float16, finite, n at least 1, above 0 where two nodes belong
            together: `affinity(..., mode="cc")`. The weight of a pair is the mean of its two entries, and the
            diagonal has no meaning.
        max_clusters: at most so many are found, at least 1; time and memory grow with it.
        seed: of the orders in which nodes are taken up, 0 to 2^64 - 1; equal seeds give equal labels on every
            device.
        out: contiguous arrays to write; returned.
        workspace: [bytes] uint8 on CUDA, for what the op keeps meanwhile; taken from the stream's pool where
            None. One that is too small is an error that says how much is needed.
        stream: where the arrays lie on CUDA: a stream of any library or its handle; None for the stream that
            the arrays name, else the legacy default stream.
    Returns:
        CorrelationClustering.
    Raises:
        TypeError: "[correlation_cluster] affinity must be float32 or float16, got float64".
        ValueError: "[correlation_cluster] affinity must be square, got shape (4, 3)".
    Maximises sum_{i<j} W_ij [l_i = l_j], the correlation clustering of Bansal, Blum and Chawla (2004); with
    one-hot rows S the loss -Tr(S^T W S) of DeepCut (2212.05853), section 3.2, is -(2 objective + Tr(W)). From
    several starts (nodes taken up greedily in different orders, and one cluster) nodes move in the chains of
    Fiduccia and Mattheyses (1982) and clusters merge until nothing gains; the best is kept. Bagon and Galun
    (1112.2903) describe the problem at this scale.
    """
    edges = _checks.floats(_OP, "affinity", affinity, ("[n, n]", "[b, n, n]"))
    *batch, n, columns = edges.shape
    if n != columns or n == 0:
        wanted = "square" if n != columns else "of at least one node"
        raise ValueError(f"[{_OP}] affinity must be {wanted}, got shape {edges.shape}")
    max_clusters = _checks.integer(_OP, "max_clusters", max_clusters, 1, 2**31 - 1)
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    place = _place.place(_OP, stream, workspace, affinity=edges)
    given = _checks.record(_OP, out, CorrelationClustering)
    labels = _checks.output(_OP, "out.labels", given.get("labels"), np.int32, (*batch, n), place)
    k = _checks.output(_OP, "out.k", given.get("k"), np.int32, tuple(batch), place)
    objective = _checks.output(_OP, "out.objective", given.get("objective"), np.float32, tuple(batch), place)
    for result in (labels, k, objective):
        _checks.disjoint(_OP, result, edges)
    items = math.prod(batch)
    _C.correlation_cluster(
        _checks.native(_OP, "affinity", edges, items, n, n),
        max_clusters,
        seed,
        _checks.native(_OP, "out.labels", labels, items, n),
        _checks.native(_OP, "out.k", k, items),
        _checks.native(_OP, "out.objective", objective, items),
        place.context,
    )
    return CorrelationClustering(labels, k, objective) if out is None else out
