"""A session of ONNX Runtime, bound to memory of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from patchcut_kernels import cuda

from patchcut.bundle import FeatureSetSpec
from patchcut.engines.base import EngineFacts
from patchcut.errors import EngineError
from patchcut.features import Array, to_host

# How ONNX Runtime says that the system gave it no memory or no thread.
_LACKS = re.compile(
    r"bad_?alloc|bad allocation|allocate memory|out of memory|pthread_create|Resource temporarily",
    re.IGNORECASE,
)


class OnnxRuntimeEngine:
    """A backbone in ONNX Runtime.

    With CUDA its memory lies on the GPU, and all is done in the order of `stream`; without one, as where the
    kernels were built without CUDA, it lies on the host and ONNX Runtime copies.

    Args:
        session: made by `open_engine`.
        run_options: of each run.
        facts: what it is.
        outputs: the feature sets, in the order in which they are wanted.
        tensors: kept here: the session reads external initializers where they lie.
        stream: where its memory lies on a GPU.
        at_once: whether the images of a batch are one run. Where each is a run, its features are the same
            bits in every batch, also in a graph that rounds by the range of all it is given, and no more
            memory is taken than for one; on two CPU cores a run of 8 was no faster than 8 runs. With
            `facts.beside` as many of such runs go on at the same time as there are threads.
    """

    def __init__(
        self,
        session: Any,
        run_options: Any,
        facts: EngineFacts,
        outputs: Mapping[str, FeatureSetSpec],
        tensors: Mapping[str, Any],
        stream: cuda.Stream | None,
        *,
        at_once: bool,
    ) -> None:
        self.facts = facts
        self._session = session
        self._run_options = run_options
        self._outputs = outputs
        self._tensors = tensors
        self._stream = stream
        self._at_once = at_once
        self._workers = ThreadPoolExecutor(facts.threads, "patchcut-onnxruntime") if facts.beside else None
        self._runs: dict[int, Future[None]] = {}
        self._bind(1)

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        if batch != self._batch:
            self._bind(batch)
        return self._images

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, rows, d] float32, as in `Engine`.

        Raises:
            EngineError: ONNX Runtime failed; its own message is kept.
        """
        self.images(batch)
        with ExitStack() as begun:  # waits for each, also where one fails: none may write after the end
            for i, binding in enumerate(self._bindings):
                if self._workers is None or batch == 1:
                    self._run(binding)
                else:
                    self.start(i)
                    begun.callback(self.wait, i)
        return self._features

    def start(self, frame: int) -> None:
        """Begins the run of one frame, as in `BesideEngine`."""
        assert self._workers is not None
        self._runs[frame] = self._workers.submit(self._run, self._bindings[frame])

    def wait(self, frame: int) -> Mapping[str, Array]:
        """Feature set → [1, rows, d] float32 of a frame that was started, as in `BesideEngine`."""
        self._runs[frame].result()
        return {name: to_host(array)[frame : frame + 1] for name, array in self._features.items()}

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            what = f"onnxruntime failed to run {self.facts.graph.file}: {error}"
            raise EngineError("engine", what, remedy(error, "try another precision or device")) from error

    def _bind(self, batch: int) -> None:
        """Makes the memory of a batch, and tells the session of it."""
        graph = self.facts.graph
        self._batch = batch
        self._images = self._memory((batch, 3, *graph.size_hw))
        shapes = {name: (batch, one.rows(graph.grid_hw), one.dim) for name, one in self._outputs.items()}
        self._features = {name: self._memory(shape) for name, shape in shapes.items()}
        each = batch if self._at_once else 1
        self._bindings = [self._binding(first, each) for first in range(0, batch, each)]

    def _binding(self, first: int, count: int) -> Any:
        """`count` images from the first on, and their features."""
        binding = self._session.io_binding()
        binding.bind_input("image", *_location(self._images, first, count))
        for name, one in self._outputs.items():
            binding.bind_output(one.output, *_location(self._features[name], first, count))
        return binding

    def _memory(self, shape: tuple[int, ...]) -> Array:
        if self._stream is None:
            return np.zeros(shape, np.float32)
        return cuda.to_device(np.zeros(shape, np.float32), stream=self._stream)


def remedy(error: Exception, otherwise: str = "") -> str:
    """What helps against a failure: other limits, where the system gave too little."""
    lacks = isinstance(error, MemoryError) or _LACKS.search(str(error))
    return "allow this process more memory or threads, or pass threads=1" if lacks else otherwise


def _location(
    array: Array, first: int, count: int
) -> tuple[str, int, type[np.float32], tuple[int, ...], int]:
    """Where rows of an array lie, as ONNX Runtime's bindings are told it."""
    shape = (count, *array.shape[1:])
    skipped = first * array.nbytes // array.shape[0]
    if isinstance(array, cuda.DeviceArray):
        return "cuda", array.device, np.float32, shape, array.pointer + skipped
    return "cpu", 0, np.float32, shape, array.ctypes.data + skipped
