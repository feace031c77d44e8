"""A backbone in TensorRT: finds its engine or builds it, and runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from patchcut_kernels import cuda

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.cache_folder import cache_folder
from patchcut.engines.backbone_graph import read_graph
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.choice import is_refused
from patchcut.engines.processes import outlive_forks
from patchcut.engines.tensorrt.builder import INPUT, build, check_operators, rtx_capability
from patchcut.engines.tensorrt.engine_cache import BuiltEngine, EngineCache, EngineKey
from patchcut.engines.tensorrt.gpus import Gpu
from patchcut.engines.tensorrt.memory import Buffer, GpuMemory, open_memory
from patchcut.engines.tensorrt.options import TensorRtOptions
from patchcut.engines.tensorrt.package import Package, import_package, quiet
from patchcut.engines.tensorrt.progress import LoadProgress, Say, Step
from patchcut.errors import BundleError, EngineError
from patchcut.features import Array
from patchcut.settings import Settings

# int8 of a ViT is hardly faster than fp16 on a GPU, 1.15 times on an Orin Nano, and further from fp32.
PREFERRED: tuple[Precision, ...] = ("fp16", "bf16", "int8-qdq", "fp32", "int8")

_SPARE_BYTES = 64 << 20  # an engine's kernels, beside its weights


@dataclass(frozen=True)
class _Batch:
    """What runs a number of frames: a context that is told of it once, and what callers see.

    A graph of CUDA holds what a context was when it was captured, and no context may change after that.
    """

    context: Any
    images: Array
    features: dict[str, Array]


class TensorRtEngine:
    """A backbone in TensorRT, with memory for `max_batch` frames; all of it is done in one stream's order."""

    def __init__(
        self, package: Package, engine: Any, memory: GpuMemory, facts: EngineFacts, backbone: BackboneSpec
    ) -> None:
        self.facts = facts
        self._package = package  # its logger must outlive the engine
        self._engine = engine
        self._memory = memory
        graph, most = facts.graph, facts.max_batch
        self._outputs = {name: one.output for name, one in backbone.features.items()}
        self._image = memory.buffer((most, 3, *graph.size_hw))
        self._sets: dict[str, Buffer] = {
            name: memory.buffer((most, one.rows(graph.grid_hw), one.dim))
            for name, one in backbone.features.items()
        }
        # Contexts take turns, so that all of them compute in the same memory.
        self._scratch_bytes = int(engine.device_memory_size_v2)
        self._scratch = memory.scratch(self._scratch_bytes)
        self._batches: dict[int, _Batch] = {}
        outlive_forks(self)
        self.run(1)  # what is done once is done before the first frame

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        return self._batch(batch).images

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, rows, d] float32, as in `Engine`; queued on the stream of the arrays.

        Raises:
            EngineError: TensorRT failed; its own message is kept.
        """
        bound = self._batch(batch)
        self._image.upload(batch)
        if not bound.context.execute_async_v3(self._memory.stream):
            raise self._failure("failed to run")
        for buffer in self._sets.values():
            buffer.download(batch)
        self._memory.finish()
        return bound.features

    @property
    def capturable(self) -> bool:
        """Whether frames and features stay on the GPU, as in `CapturableEngine`."""
        return isinstance(self.images(1), cuda.DeviceArray)

    def capture(self, work: Callable[[], None]) -> cuda.Launchable:
        """`work` as one graph of CUDA, as in `CapturableEngine`.

        Raises:
            EngineError, RuntimeError: such as where TensorRT waits for the GPU within a network.
        """
        stream = cast("cuda.DeviceArray", self.images(1)).stream
        assert stream is not None
        with cuda.graph_memory(stream), cuda.capture(stream) as graph:
            work()
        return graph

    def _batch(self, batch: int) -> _Batch:
        """What runs so many frames, made when it is asked for first."""
        if batch not in self._batches:
            self._batches[batch] = _Batch(
                self._new_context(batch),
                self._image.array(batch),
                {name: buffer.array(batch) for name, buffer in self._sets.items()},
            )
        return self._batches[batch]

    def _new_context(self, batch: int) -> Any:
        strategy = self._package.module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise self._failure("cannot run", "free memory of the GPU")
        context.set_device_memory(self._scratch.pointer, self._scratch_bytes)
        context.set_tensor_address(INPUT, self._image.pointer)
        for name, output in self._outputs.items():
            context.set_tensor_address(output, self._sets[name].pointer)
        if not context.set_input_shape(INPUT, (batch, 3, *self.facts.graph.size_hw)):
            raise self._failure(f"takes 1 to {self.facts.max_batch} frames, not {batch}, of")
        return context

    def _failure(self, what: str, remedy: str = "") -> EngineError:
        said = self._package.last_error("it does not say why")
        return EngineError("engine", f"{self._package} {what} {self.facts.graph.file}: {said}", remedy)


@dataclass(frozen=True)
class _Task:
    """An engine that is wanted: of which graph, for what, and where it is kept."""

    bundle: Bundle
    backbone: BackboneSpec
    graph: GraphSpec
    package: Package
    key: EngineKey
    cache: EngineCache | None  # None where nothing is kept

    @property
    def weights_bytes(self) -> int:
        """Size of the weights' file, which those of the engine come near."""
        weights = self.backbone.weights
        return 0 if weights is None else self.bundle.spec.files[weights].bytes


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> TensorRtEngine:
    """A backbone of the bundle in TensorRT, from the cache of engines, or built now with a warning.

    Raises:
        EngineError: TensorRT, the GPU or its driver is missing, or TensorRT does not take the graph.
        OptionError: the bundle has no graph of the size or precision asked for.
        BundleError: the graph or its weights are not what `bundle.json` says.
        OutputError: the engine that was built cannot be written.
    """
    if settings.device not in ("auto", "cuda"):
        what = f'tensorrt runs on an NVIDIA GPU, got device="{settings.device}"'
        raise EngineError("device", what, 'pass device="cuda", or another engine')
    options = TensorRtOptions.from_environment()
    graph = _graph(backbone, settings)
    package = import_package(options.flavour)
    memory = open_memory(options.memory)
    folder = cache_folder("tensorrt")
    cache = None if folder is None else EngineCache(folder)
    task = _task(bundle, backbone, graph, options, package, memory.gpu(), cache)
    built = None if cache is None else cache.read(task.key)
    if built is None:
        progress = LoadProgress()
        progress.say("builds an engine now, once, for minutes; `patchcut export engine` does it beforehand")
        built = _build(task, progress.say, progress.step)
    engine = _deserialized(task, built)
    facts = EngineFacts(
        name="tensorrt",
        provider=f"{package} ({memory.gpu().name})",
        device="cuda",
        graph=task.graph,
        precision=task.graph.precision,
        weights=built.weights,
        threads=1,
        max_batch=int(engine.get_tensor_profile_shape(INPUT, 0)[2][0]),
    )
    return TensorRtEngine(package, engine, memory, facts, backbone)


def build_engine(
    bundle: Bundle,
    backbone: BackboneSpec,
    settings: Settings,
    options: TensorRtOptions,
    folder: Path,
    *,
    capability: str = "",
    say: Say,
    step: Step,
) -> Path:
    """Builds an engine into a folder, unless it is there; the path of its file.

    Args:
        backbone: one of the bundle's, with the feature sets that are wanted.
        settings: their size and precision are heeded.
        capability: such as "8.9", to build for GPUs of it without having one; "" is the GPU of this machine.
        say: is told in a line what is done.
        step: is told of the phases of a build.
    Raises:
        EngineError: as `open_engine`; or only TensorRT for RTX builds for other GPUs.
        OptionError, BundleError, OutputError: as `open_engine`.
    """
    graph = _graph(backbone, settings)
    flavour = "tensorrt-rtx" if capability and options.flavour == "auto" else options.flavour
    package = import_package(flavour)
    if not capability:
        gpu = open_memory(options.memory).gpu()
    elif package.is_rtx:
        gpu = Gpu("", capability, "")
    else:
        what = "tensorrt builds for the GPU that it runs on alone; only tensorrt-rtx builds for another"
        raise EngineError("capability", what, "leave --capability out, or run this on the device")
    cache = EngineCache(folder)
    task = _task(bundle, backbone, graph, options, package, gpu, cache)
    if cache.read(task.key) is None:
        _build(task, say, step)
    else:
        say(f"{cache.path(task.key)} is there already")
    return cache.path(task.key)


def _graph(backbone: BackboneSpec, settings: Settings) -> GraphSpec:
    """The graph of the settings; without a precision the best that the bundle's report does not refuse."""
    height, _ = choose_graph(backbone, replace(settings, precision="auto"), PREFERRED).size_hw
    fitting = [one for one in PREFERRED if not is_refused(backbone, one, height)]
    held = {graph.precision for graph in backbone.graphs if graph.size_hw[0] == height}
    return choose_graph(backbone, settings, fitting if held.intersection(fitting) else PREFERRED)


def _task(
    bundle: Bundle,
    backbone: BackboneSpec,
    graph: GraphSpec,
    options: TensorRtOptions,
    package: Package,
    gpu: Gpu,
    cache: EngineCache | None,
) -> _Task:
    if package.is_rtx:  # its engines fit every GPU of a compute capability, and finish on the device
        rtx_capability(package, gpu.capability)
        gpu = Gpu("", gpu.capability, "")
    files, weights = bundle.spec.files, backbone.weights
    key = EngineKey(
        graph=graph.file,
        flavour=package.flavour,
        version=package.version,
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
        graph_sha256=files[graph.file].sha256,
        weights_sha256=files[weights].sha256 if weights and graph.initializers else "",
        outputs=tuple(one.output for one in backbone.features.values()),
        max_batch=options.max_batch,
        workspace_bytes=options.workspace_bytes(portable=package.is_rtx),
        few_memory=options.spares_memory(portable=package.is_rtx),
    )
    return _Task(bundle, backbone, graph, package, key, cache)


def _build(task: _Task, say: Say, step: Step) -> BuiltEngine:
    """Builds an engine and keeps it; another process that builds the same is waited for."""
    key, cache = task.key, task.cache
    if cache is None:
        return _built(task, b"", say, step)[0]
    with cache.alone(key, say):
        if (found := cache.read(key)) is not None:
            return found
        if reason := cache.why_not(key):
            say(reason)
        size = task.bundle.spec.files[key.graph].bytes + task.weights_bytes
        cache.check_room(size + _SPARE_BYTES)
        built, timings = _built(task, cache.read_timings(key), say, step)
        cache.write(key, built)
        if timings:
            cache.write_timings(key, timings)
        return built


def _built(task: _Task, timings: bytes, say: Say, step: Step) -> tuple[BuiltEngine, bytes]:
    """An engine that was built just now, and what TensorRT measured meanwhile."""
    graph, weights = _whole_graph(task)
    say(f"builds {task.key.graph} with {task.package} for {task.key.target}")
    made = build(task.package, graph, task.key, timings, step)
    return BuiltEngine(made.plan, weights), made.timings


def _whole_graph(task: _Task) -> tuple[bytes, str]:
    """A graph with its weights in it and no outputs but those wanted, and the precision of its weights."""
    spec = task.graph
    graph = read_graph(task.bundle, task.backbone, spec)
    held = [one.precision for one in task.backbone.graphs if one.size_hw == spec.size_hw]
    check_operators(graph.data, spec.file, list(held))
    return graph.inlined().data, graph.weights


def _deserialized(task: _Task, built: BuiltEngine) -> Any:
    """The engine, checked to have the tensors that it was built for."""
    package, trt = task.package, task.package.module
    with quiet():
        engine = trt.Runtime(package.logger).deserialize_cuda_engine(built.plan)
    if engine is None:
        name = task.graph.file if task.cache is None else task.cache.path(task.key)
        what = f"{package} cannot load the engine {name}: {package.last_error('it does not say why')}"
        raise EngineError("engine", what, "remove the file, and it is built again")
    for name in (INPUT, *task.key.outputs):
        if engine.get_tensor_dtype(name) != trt.float32:
            what = f"{task.bundle.path} is foreign: {name} of {task.graph.file} must be float32"
            raise BundleError("bundle", what, "export the bundle again")
    return engine
