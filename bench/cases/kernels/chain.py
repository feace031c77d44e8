"""A frame's ops one after the other on a GPU, in one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import patchcut_kernels as pk
from patchcut_kernels import cuda

from bench.cases import BenchError, Target
from bench.cases.kernels.duel import DIM, Duel, Side, difference, noisy_clusters
from bench.cases.kernels.nodes import head_weights

SIZE_HW = (480, 640)
CLUSTERS = 2


class _Chain:
    """Features to regions, in memory that is taken once; a label is a region."""

    def __init__(self, n: int) -> None:
        self.weights = head_weights()
        self.grid_hw = (int(n**0.5), int(n**0.5))
        self.stream = cuda.Stream()
        self.features = cuda.to_device(noisy_clusters(n), stream=self.stream)
        self.edges, self.degrees = self._empty(n, n), self._empty(n)
        self.assignment = self._empty(n, CLUSTERS)
        self.labels, self.confidence = self._empty(*SIZE_HW, dtype=np.int32), self._empty(*SIZE_HW)
        self.stats = pk.RegionStats(
            self._empty(CLUSTERS, dtype=np.int64), self._empty(CLUSTERS, 4), self._empty(CLUSTERS), None
        )
        self._workspaces: dict[str, cuda.DeviceArray] = {}
        self.run()
        with cuda.capture(self.stream) as self.graph:
            self.run()

    def _empty(self, *shape: int, dtype: type[Any] = np.float32) -> Any:
        return cuda.empty(shape, dtype, stream=self.stream)

    def _call(self, op: Callable[..., Any], *inputs: Any, **options: Any) -> None:
        name = op.__name__
        op(*inputs, **options, stream=self.stream, workspace=self._workspaces.get(name))
        if name not in self._workspaces:
            self._workspaces[name] = self._empty(cuda.last_workspace_bytes(), dtype=np.uint8)

    def run(self) -> None:
        """Gives the ops to the stream one by one."""
        self._call(pk.affinity, self.features, out=self.edges, return_degrees=self.degrees)
        inputs = (self.features, self.edges, self.weights)
        self._call(pk.gcn_forward, *inputs, degrees=self.degrees, out=self.assignment)
        maps = {"out": self.labels, "confidence": self.confidence}
        pk.upsample_argmax(self.assignment, self.grid_hw, SIZE_HW, stream=self.stream, **maps)
        self._call(pk.region_stats, self.labels, CLUSTERS, confidence=self.confidence, out=self.stats)

    def launch(self) -> None:
        """All of it at once, until it is done."""
        self.graph.launch(self.stream)
        self.stream.synchronize()

    def run_and_wait(self) -> None:
        """One op after the other, until the last is done."""
        self.run()
        self.stream.synchronize()


def _on_the_cpu(n: int) -> Callable[[], Any]:
    features, weights, grid_hw = noisy_clusters(n), head_weights(), (int(n**0.5), int(n**0.5))

    def run() -> Any:
        edges, degrees = pk.affinity(features, return_degrees=True)
        assignment = pk.gcn_forward(features, edges, weights, degrees=degrees)
        labels, confidence = pk.upsample_argmax(assignment, grid_hw, SIZE_HW, confidence=True)
        pk.region_stats(labels, CLUSTERS, confidence=confidence)
        return assignment

    return run


def _chain(n: int) -> Duel:
    if not cuda.is_available():
        raise BenchError(cuda.why_unavailable())
    if cuda.device_name() == "host":
        raise BenchError("the CUDA kernels of this build run on the host, for tests")
    chain, on_the_cpu = _Chain(n), _on_the_cpu(n)
    inside = "affinity, gcn_forward, upsample_argmax, region_stats, and the wait for them"
    return Duel(
        Side("patchcut", chain.launch, f"{inside}, in one graph"),
        (
            Side("patchcut, op by op", chain.run_and_wait, inside),
            Side("patchcut on the CPU", on_the_cpu, inside),
        ),
        {"features": (n, DIM), "label_map": SIZE_HW},
        {"max_abs_difference": difference(chain.assignment.numpy(), on_the_cpu())},
    )


DUELS: dict[str, Callable[[], Duel]] = {
    "cuda chain 256 nodes": lambda: _chain(256),
    "cuda chain 1369 nodes": lambda: _chain(1369),
}
TARGETS = (
    Target("cuda chain 256 nodes", "median_ms", "<=", 0.15, " ms", "affinity to regions, 256 nodes, H100"),
    Target("cuda chain 1369 nodes", "median_ms", "<=", 0.4, " ms", "affinity to regions, 1,369 nodes, H100"),
)
