"""A compiled graph of OpenVINO, bound to memory of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import FeatureSetSpec
from patchcut.engines.base import EngineFacts
from patchcut.engines.processes import outlive_forks
from patchcut.errors import EngineError


class OpenVinoEngine:
    """A backbone in OpenVINO, whose frames are computed one by one or, for throughput, beside each other.

    The graph takes one frame, so that a frame's features are the same bits in every batch. Each frame of a
    batch has a request that reads and writes its own rows of the batch's arrays, without a copy.

    Args:
        openvino: the module.
        compiled: the graph, for images [1, 3, Sh, Sw].
        facts: what it is.
        outputs: the feature sets, in the order in which they are wanted.
    """

    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        facts: EngineFacts,
        outputs: Mapping[str, FeatureSetSpec],
    ) -> None:
        self.facts = facts
        self._openvino = openvino
        self._compiled = compiled
        self._outputs = outputs
        self._bind(1)
        outlive_forks(self)

    def images(self, batch: int) -> npt.NDArray[np.float32]:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        if batch != self._batch:
            self._bind(batch)
        return self._images

    def run(self, batch: int) -> Mapping[str, npt.NDArray[np.float32]]:
        """Feature set → [batch, rows, d] float32, as in `Engine`.

        Raises:
            EngineError: OpenVINO failed; its own message is kept.
        """
        self.images(batch)
        with ExitStack() as begun:  # waits for each, also where one fails: none may write after the end
            for frame in range(batch):
                self.start(frame)
                if self.facts.beside:
                    begun.callback(self.wait, frame)
                else:
                    self.wait(frame)
        return self._features

    def start(self, frame: int) -> None:
        """Begins the run of one frame, as in `BesideEngine`."""
        with self._explained():
            self._requests[frame].start_async()

    def wait(self, frame: int) -> Mapping[str, npt.NDArray[np.float32]]:
        """Feature set → [1, rows, d] float32 of a frame that was started, as in `BesideEngine`."""
        with self._explained():
            self._requests[frame].wait()
        return {name: array[frame : frame + 1] for name, array in self._features.items()}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a plain RuntimeError, whatever it is about
            what = f"openvino failed to run {self.facts.graph.file}: {error}"
            raise EngineError("engine", what, "try another precision or device") from error

    def _bind(self, batch: int) -> None:
        """Makes the memory of a batch and the requests of its frames."""
        graph = self.facts.graph
        self._batch = batch
        self._images = np.zeros((batch, 3, *graph.size_hw), np.float32)
        self._features = {
            name: np.zeros((batch, one.rows(graph.grid_hw), one.dim), np.float32)
            for name, one in self._outputs.items()
        }
        self._requests = [self._request(frame) for frame in range(batch)]

    def _request(self, frame: int) -> Any:
        request = self._compiled.create_infer_request()
        request.set_tensor("image", self._tensor(self._images[frame : frame + 1]))
        for name, one in self._outputs.items():
            request.set_tensor(one.output, self._tensor(self._features[name][frame : frame + 1]))
        return request

    def _tensor(self, array: npt.NDArray[np.float32]) -> Any:
        return self._openvino.Tensor(array, shared_memory=True)
