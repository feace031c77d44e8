"""Memory and a stream of the GPU for an engine: from our kernels, or from pycuda."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from patchcut_kernels import cuda

from patchcut.engines.tensorrt.gpus import Gpu, driver_version
from patchcut.engines.tensorrt.options import VARIABLE
from patchcut.errors import EngineError, install_hint
from patchcut.features import Array

DEVICE = 0


class Scratch(Protocol):
    """Device memory without a shape."""

    @property
    def pointer(self) -> int: ...


class Buffer(Protocol):
    """Device memory of [max_batch, ...] float32, and the array that callers see of it."""

    @property
    def pointer(self) -> int: ...

    def array(self, batch: int) -> Array:
        """The first `batch` of it, on the device, or in host memory that is copied."""
        ...

    def upload(self, batch: int) -> None:
        """Queues the copy of host memory to the device, if there is one."""
        ...

    def download(self, batch: int) -> None:
        """Queues the copy of the device to host memory, if there is one."""
        ...


class GpuMemory(Protocol):
    """What an engine takes of the GPU; all of it is used in the order of one stream."""

    @property
    def stream(self) -> int:
        """The cudaStream_t."""
        ...

    def gpu(self) -> Gpu: ...

    def buffer(self, shape: tuple[int, ...]) -> Buffer: ...

    def scratch(self, nbytes: int) -> Scratch: ...

    def finish(self) -> None:
        """Waits for the stream where callers see host memory, which must be ready."""
        ...


def open_memory(kind: str) -> GpuMemory:
    """Memory of the GPU by "kernels" or "pycuda".

    Raises:
        EngineError: there is no GPU, the kernels were built without CUDA, or pycuda is missing.
    """
    driver = driver_version()
    return PyCudaMemory(driver) if kind == "pycuda" else KernelMemory(driver)


class KernelMemory:
    """By `patchcut_kernels.cuda`: frames and features stay on the device."""

    def __init__(self, driver: str) -> None:
        if not cuda.is_available():
            remedy = f"build the kernels with PATCHCUT_CUDA=ON, or {install_hint('pycuda')}"
            remedy += f" and set {VARIABLE}=memory=pycuda"
            raise EngineError("device", cuda.why_unavailable(), remedy)
        self._driver = driver
        self._stream = cuda.Stream(DEVICE)

    @property
    def stream(self) -> int:
        return self._stream.handle

    def gpu(self) -> Gpu:
        major, minor = cuda.compute_capability(DEVICE)
        return Gpu(cuda.device_name(DEVICE), f"{major}.{minor}", self._driver)

    def buffer(self, shape: tuple[int, ...]) -> Buffer:
        return _DeviceBuffer(cuda.to_device(np.zeros(shape, np.float32), stream=self._stream))

    def scratch(self, nbytes: int) -> Scratch:
        return cuda.empty((max(nbytes, 1),), np.uint8, stream=self._stream)

    def finish(self) -> None:
        """Nothing to wait for: arrays name their stream."""


class _DeviceBuffer:
    def __init__(self, whole: cuda.DeviceArray) -> None:
        self._whole = whole
        self.pointer = whole.pointer

    def array(self, batch: int) -> Array:
        whole = self._whole
        shape = (batch, *whole.shape[1:])
        return cuda.DeviceArray(
            whole.pointer, shape, whole.dtype, device=whole.device, stream=whole.stream, owner=whole
        )

    def upload(self, batch: int) -> None:
        """Nothing: callers write on the device."""

    def download(self, batch: int) -> None:
        """Nothing: callers read on the device."""


class PyCudaMemory:
    """By pycuda, in the GPU's primary context, which TensorRT uses, too.

    Frames and features stay on the device where the kernels were built with CUDA. Where they were not, they
    lie in page-locked host memory, and each run copies the images up and the features down.
    """

    def __init__(self, driver: str) -> None:
        try:
            self._driver = import_module("pycuda.driver")
            self._context = import_module("pycuda.autoprimaryctx").context
        except Exception as error:  # it raises what it likes where a library or the GPU is missing
            raise EngineError("device", f"pycuda cannot be used: {error}", install_hint("pycuda")) from error
        self._version = driver
        with self._current():
            self._stream = self._driver.Stream()

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def gpu(self) -> Gpu:
        device = self._driver.Device(DEVICE)
        major, minor = device.compute_capability()
        return Gpu(str(device.name()), f"{major}.{minor}", self._version)

    def buffer(self, shape: tuple[int, ...]) -> Buffer:
        nbytes = 4 * int(np.prod(shape))
        with self._current():
            memory = self._driver.mem_alloc(nbytes)
            self._driver.memset_d8(memory, 0, nbytes)
            if not cuda.is_available():
                host = self._driver.pagelocked_zeros(shape, np.float32)
                return _CopiedBuffer(self, memory, host)
        stream = cuda.Stream.of("tensorrt", DEVICE, self._stream)
        whole = cuda.DeviceArray(int(memory), shape, np.float32, device=DEVICE, stream=stream, owner=memory)
        return _DeviceBuffer(whole)

    def scratch(self, nbytes: int) -> Scratch:
        with self._current():
            return _Allocation(self._driver.mem_alloc(max(nbytes, 1)))

    def finish(self) -> None:
        if not cuda.is_available():
            with self._current():
                self._stream.synchronize()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """A block in which the primary context is this thread's."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def copy_up(self, to: Any, host: Any) -> None:
        """Queues a copy from page-locked memory."""
        with self._current():
            self._driver.memcpy_htod_async(to, host, self._stream)

    def copy_down(self, host: Any, source: Any) -> None:
        """Queues a copy into page-locked memory."""
        with self._current():
            self._driver.memcpy_dtoh_async(host, source, self._stream)


class _Allocation:
    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.pointer = int(memory)


class _CopiedBuffer:
    def __init__(self, gpu: PyCudaMemory, memory: Any, host: Any) -> None:
        self._gpu = gpu
        self._memory = memory
        self._host = host
        self.pointer = int(memory)

    def array(self, batch: int) -> Array:
        first: Array = self._host[:batch]
        return first

    def upload(self, batch: int) -> None:
        self._gpu.copy_up(self._memory, self._host[:batch])

    def download(self, batch: int) -> None:
        self._gpu.copy_down(self._host[:batch], self._memory)
