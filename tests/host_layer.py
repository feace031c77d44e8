"""What the host layer of a PATCHCUT_CUDA=HOST build (tests/host_cuda) tells tests, and does for them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class HostCuda:
    """The functions that the library exports for tests in such a build alone."""

    def __init__(self) -> None:
        from patchcut_kernels import _C

        self._library = ctypes.CDLL(str(Path(_C.__file__).with_name("libpatchcut.so")))
        self._kept: list[object] = []

    def copies(self) -> dict[str, int]:
        """How many copies were done until now "up", "down" and on the "device", by graphs, too."""
        counts = (ctypes.c_int64 * 3)()
        self._library.patchcut_host_cuda_copies(counts)
        return dict(zip(("up", "down", "device"), counts, strict=True))

    def call(self, stream: int, function: Callable[[], None]) -> None:
        """Calls a function in the order of a stream, and in each launch of a graph that captures it."""
        pointer = ctypes.CFUNCTYPE(None)(function)
        self._kept.append(pointer)
        self._library.patchcut_host_cuda_call(ctypes.c_void_p(stream), pointer)

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """The copies of a block, by direction, known at its end."""
        before, made = self.copies(), {}
        yield made
        made |= {direction: count - before[direction] for direction, count in self.copies().items()}
