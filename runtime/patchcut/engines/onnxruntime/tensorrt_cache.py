"""Where the TensorRT provider keeps what it has built: a folder a graph, weights, GPU and versions.

The provider names its files by the graph's structure alone, and writes them in place.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchcut_kernels import cuda

from patchcut.cache_folder import cache_folder
from patchcut.errors import EngineError

_logger = logging.getLogger("patchcut")


@dataclass(frozen=True)
class TensorrtCache:
    """The folder of one graph on this machine, which is there whole or not at all."""

    folder: Path

    @classmethod
    def of(cls, onnxruntime: Any, graph: bytes) -> TensorrtCache | None:
        """That of a graph with its weights on this GPU; None where nothing is kept."""
        root = cache_folder("onnxruntime-tensorrt")
        if root is None:
            return None
        digest = hashlib.sha256(graph)
        digest.update("\n".join(_machine(onnxruntime)).encode())
        return cls(root / digest.hexdigest()[:32])

    @contextmanager
    def entry(self) -> Iterator[Path]:
        """The folder to give to the provider; another process that wants it waits until it is whole.

        Raises:
            EngineError: it cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock = self.folder.with_suffix(".lock").open("w")
        except OSError as error:
            what = f"cannot write {self.folder.parent}: {error.strerror}"
            raise EngineError("engine", what, "name another folder in PATCHCUT_CACHE, or off") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.folder.is_dir():
                fcntl.flock(lock, fcntl.LOCK_UN)
                yield self.folder
                return
            what = "[engine] TensorRT builds an engine, which takes minutes, and keeps it in %s"
            _logger.warning(what, self.folder)
            building = Path(tempfile.mkdtemp(prefix="building-", dir=self.folder.parent))
            try:
                yield building
                building.rename(self.folder)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise


def _machine(onnxruntime: Any) -> list[str]:
    """What an engine is built for, besides its graph: the GPU, and the versions of what built it."""
    gpu = ["no kernels for CUDA"]
    if cuda.is_available():
        gpu = [cuda.device_name(), str(cuda.compute_capability()), *_versions()]
    return [onnxruntime.__version__, *gpu]


def _versions() -> list[str]:
    """Versions of the driver and of TensorRT as their libraries tell them; those of which none is found."""
    found = []
    for library, function in (("libcuda.so.1", "cuDriverGetVersion"), ("libnvinfer.so.10", "")):
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            found.append(f"no {library}")
            continue
        version = ctypes.c_int()
        if function:
            getattr(loaded, function)(ctypes.byref(version))
        else:
            version = ctypes.c_int(loaded.getInferLibVersion())
        found.append(f"{library} {version.value}")
    return found
