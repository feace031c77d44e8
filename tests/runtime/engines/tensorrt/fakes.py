"""TensorRT as it would be on a machine with a GPU: it builds nothing, and onnxruntime computes for it.

What it is asked is checked as TensorRT's documents say, or kept for a test to look at. Memory is that of the
host, or of CUDA that the host runs; with `give` work is done in the order of a stream.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patchcut import Settings, open_bundle
from patchcut.engines import Engine as OpenEngine
from patchcut.engines import open_engine
from patchcut.engines.tensorrt import gpus, memory
from patchcut.engines.tensorrt.gpus import Gpu
from patchcut_kernels import cuda

from tests.host_layer import HostCuda

Give = Callable[[int, Callable[[], None]], None]
VERSION = "10.3.0"
DRIVER = "540.4.0, CUDA 12.6"
PLAN = b"plan of "


class Logger:
    ERROR = 1

    def __init__(self) -> None:
        self.is_whole = True

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class ProgressMonitor:
    def __init__(self) -> None:
        self.is_whole = True


class Pool:
    WORKSPACE, TACTIC_DRAM = "workspace", "tactic_dram"


class Strategy:
    USER_MANAGED = "user managed"


class Flag:
    STRONGLY_TYPED = 1
    TF32 = "tf32"


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"x"


class Config:
    """A builder's configuration; the attributes that are set on it stay."""

    def __init__(self, fake: FakeTensorRt) -> None:
        self.fake = fake
        self.flags = {Flag.TF32}
        self.limits: dict[str, int] = {}
        self.profiles: list[Any] = []
        self.progress_monitor: Any = None
        self.timing_cache: TimingCache | None = None

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> TimingCache | None:
        return TimingCache(data) if data in (b"", *self.fake.timings) else None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timing_cache = cache
        self.fake.timing_caches.append(cache.data)
        return True


class Profile:
    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes = (name, least, usual, most)


class Parser:
    def __init__(self, network: Any, logger: Logger) -> None:
        assert logger.is_whole
        self.network = network
        self.num_errors = 0

    def parse(self, graph: bytes) -> bool:
        import onnx

        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model)
        if any(one.data_location for one in model.graph.initializer):
            return False  # nothing lies outside of the bytes
        self.network.graph = graph
        axes = model.graph.input[0].type.tensor_type.shape.dim
        self.network.shape = tuple(axis.dim_value or -1 for axis in axes)
        return True

    def get_error(self, index: int) -> Any:
        raise AssertionError(index)


class Network:
    graph = b""
    shape: tuple[int, ...] = ()

    def get_input(self, index: int) -> Any:
        assert index == 0
        return SimpleNamespace(shape=self.shape)


class Builder:
    def __init__(self, fake: FakeTensorRt, logger: Logger) -> None:
        assert logger.is_whole
        self.fake = fake
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << Flag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> Config:
        return Config(self.fake)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self.fake.configs.append(config)
        if self.fake.failure:
            self.logger.log(Logger.ERROR, self.fake.failure)
            return None
        if not self._progress(config.progress_monitor):
            return None
        most = config.profiles[0].shapes[3][0]
        return PLAN + f"{most}\n".encode() + network.graph

    def _progress(self, monitor: Any) -> bool:
        """Tells of phases from another thread, as TensorRT may; False where it was told to stop."""
        done = []

        def phases() -> None:
            monitor.phase_start("Building", None, 2)
            monitor.phase_start("within", "Building", 5)
            for step in range(2):
                self.fake.building()
                if not monitor.step_complete("Building", step):
                    return
            monitor.phase_finish("within")
            monitor.phase_finish("Building")
            done.append(True)

        thread = threading.Thread(target=phases)
        thread.start()
        thread.join()
        return bool(done)


class Runtime:
    def __init__(self, fake: FakeTensorRt, logger: Logger) -> None:
        self.fake, self.logger = fake, logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(PLAN):
            self.logger.log(Logger.ERROR, "Serialization assertion failed\nmagic number does not match")
            return None
        most, _, graph = plan[len(PLAN) :].partition(b"\n")
        return Engine(self.fake, self.logger, int(most), graph)


class Engine:
    device_memory_size_v2 = 1000

    def __init__(self, fake: FakeTensorRt, logger: Logger, most: int, graph: bytes) -> None:
        import onnxruntime

        self.fake, self.logger, self.most = fake, logger, most
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == Strategy.USER_MANAGED
        return Context(self)

    def get_tensor_dtype(self, name: str) -> str:
        assert name in {one.name for one in (*self.session.get_inputs(), *self.session.get_outputs())}
        return "float32"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("image", 0)
        return [(1,), (1,), (self.most,)]


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.memory = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0 or self.engine.fake.give is None
        assert size == Engine.device_memory_size_v2
        self.memory = memory

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "image" and not self.shape, "a graph may hold what the context was"
        self.shape = shape
        return 1 <= shape[0] <= self.engine.most

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory
        if self.engine.fake.waits:
            try:
                cuda.Stream.of("tensorrt", 0, stream).synchronize()
            except RuntimeError as error:
                self.engine.logger.log(Logger.ERROR, str(error))
                return False
        self.engine.fake.executed += 1
        give = self.engine.fake.give
        if give is None:
            self._compute()
        else:
            give(stream, self._compute)
        return True

    def _compute(self) -> None:
        self.engine.fake.computed += 1
        image = _memory(self.addresses["image"], self.shape)
        names = [one.name for one in self.engine.session.get_outputs()]
        for name, made in zip(names, self.engine.session.run(names, {"image": image}), strict=True):
            np.copyto(_memory(self.addresses[name], made.shape), made)


class HostBuffer:
    """[max_batch, ...] float32 in host memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.whole = np.zeros(shape, np.float32)
        self.pointer = self.whole.ctypes.data

    def array(self, batch: int) -> np.ndarray:
        return self.whole[:batch]

    def upload(self, batch: int) -> None:
        pass

    def download(self, batch: int) -> None:
        pass


class HostMemory:
    """Memory of a GPU where the kernels were built without CUDA."""

    stream = 0

    def __init__(self, driver: str) -> None:
        self.driver = driver

    def gpu(self) -> Gpu:
        major, minor = cuda.compute_capability(0)
        return Gpu(cuda.device_name(0), f"{major}.{minor}", self.driver)

    def buffer(self, shape: tuple[int, ...]) -> HostBuffer:
        return HostBuffer(shape)

    def scratch(self, nbytes: int) -> HostBuffer:
        return HostBuffer((nbytes,))

    def finish(self) -> None:
        pass


def _memory(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)


class FakeTensorRt(SimpleNamespace):
    """The module `tensorrt`.

    Attributes:
        give: does work in the order of a stream; None does it at once.
        configs: the configuration of each build.
        timings: contents of timing caches that it knows.
        timing_caches: those that it was given.
        failure: what it says when a build fails; "" lets it succeed.
        building: is called in each step of a build.
        waits: whether it waits for the GPU within each run, which no graph of CUDA can hold.
        executed, computed: how often work was queued, and done.
    """

    def __init__(self, give: Give | None = None) -> None:
        super().__init__(
            __version__=VERSION,
            __spec__=ModuleSpec("tensorrt", None),
            ILogger=Logger,
            IProgressMonitor=ProgressMonitor,
            MemoryPoolType=Pool,
            BuilderFlag=Flag,
            NetworkDefinitionCreationFlag=Flag,
            ExecutionContextAllocationStrategy=Strategy,
            OnnxParser=Parser,
            Builder=lambda logger: Builder(self, logger),
            Runtime=lambda logger: Runtime(self, logger),
            float32="float32",
        )
        self.give = give
        self.configs: list[Config] = []
        self.timings: list[bytes] = []
        self.timing_caches: list[bytes] = []
        self.failure = ""
        self.building: Callable[[], None] = lambda: None
        self.waits = False
        self.executed = self.computed = 0


class FakeContext:
    depth = 0

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1


class FakePyCuda(ModuleType):
    """pycuda.driver on memory of the host; each call needs the context, as pycuda's do."""

    def __init__(self, context: FakeContext, stream: int = 0) -> None:
        super().__init__("pycuda.driver")
        self.context = context
        self.stream = stream
        self.copied: list[tuple[str, int]] = []
        self.allocations: list[np.ndarray] = []
        self.memcpy_htod_async = self._copy("up")
        self.memcpy_dtoh_async = self._copy("down")

    def Stream(self) -> Any:
        assert self.context.depth
        return SimpleNamespace(handle=self.stream, synchronize=lambda: None)

    def Device(self, index: int) -> Any:
        return SimpleNamespace(name=lambda: "Orin", compute_capability=lambda: (8, 7))

    def mem_alloc(self, nbytes: int) -> int:
        assert self.context.depth
        self.allocations.append(np.full(nbytes + 256, 255, np.uint8))
        return -(-self.allocations[-1].ctypes.data // 256) * 256

    def memset_d8(self, to: int, value: int, count: int) -> None:
        ctypes.memset(to, value, count)

    def pagelocked_zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def _copy(self, direction: str) -> Callable[[Any, Any, Any], None]:
        def copy(to: Any, source: Any, stream: Any) -> None:
            assert self.context.depth
            host = source if direction == "up" else to
            self.copied.append((direction, host.nbytes))
            ctypes.memmove(*(x if isinstance(x, int) else x.ctypes.data for x in (to, source)), host.nbytes)

        return copy


def install(patch: pytest.MonkeyPatch, host: HostCuda | None) -> FakeTensorRt:
    """TensorRT and a GPU for a test: CUDA that the host runs, or else the host's memory."""
    fake = FakeTensorRt(None if host is None else host.call)
    if host is None:
        patch.setattr(memory, "KernelMemory", HostMemory)
    patch.setattr(cuda, "device_name", lambda device=0: "host")
    patch.setattr(cuda, "compute_capability", lambda device=0: (8, 7))
    patch.setitem(sys.modules, "tensorrt", fake)  # type: ignore[arg-type]
    patch.setattr(memory, "driver_version", lambda: DRIVER)
    return fake


def no_driver(patch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    patch.setattr(memory, "driver_version", gpus.driver_version)
    patch.setattr(gpus, "ctypes", SimpleNamespace(CDLL=missing))


def opened(path: Path, sets: Any = ("key",), **settings: Any) -> OpenEngine:
    with open_bundle(path) as bundle:
        backbone = bundle.spec.backbone
        wanted = {name: backbone.features[name] for name in sets}
        chosen = Settings(**{"engine": "tensorrt", "precision": "fp32", **settings})
        return open_engine(bundle, backbone.model_copy(update={"features": wanted}), chosen)
