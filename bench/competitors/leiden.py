"""Correlation clustering by the Leiden algorithm, which takes negative weights."""

from __future__ import annotations

from collections.abc import Callable

import igraph
import leidenalg
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]


def make_partition(affinity: npt.NDArray[np.float32]) -> Callable[[], Labels]:
    """Partition of the signed affinity [n, n], from an edge list that is made here, as a function.

    The constant Potts model at resolution 0 is the sum of weights within clusters (Traag, Van Dooren and
    Nesterov 2011; Traag, Waltman and van Eck 2019).
    """
    graph = igraph.Graph.Full(len(affinity))
    weights = affinity[np.triu_indices(len(affinity), 1)].tolist()

    def partition() -> Labels:
        found = leidenalg.find_partition(
            graph,
            leidenalg.CPMVertexPartition,
            weights=weights,
            resolution_parameter=0,
            n_iterations=-1,  # until it gains no more
            seed=0,
        )
        return np.array(found.membership, np.int32)

    return partition
