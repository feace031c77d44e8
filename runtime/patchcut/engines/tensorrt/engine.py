"""A backbone in TensorRT: finds its engine or builds it, and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.bundle.graph_outputs import keep_outputs
from patchcut.bundle.graph_weights import inline_weights
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.processes import outlive_forks
from patchcut.engines.tensorrt.builder import INPUT, build, check_operators, rtx_capability
from patchcut.engines.tensorrt.engine_cache import BuiltEngine, EngineCache, EngineKey
from patchcut.engines.tensorrt.gpus import Gpu
from patchcut.engines.tensorrt.memory import Buffer, GpuMemory, Launch, open_memory
from patchcut.engines.tensorrt.options import TensorRtOptions
from patchcut.engines.tensorrt.package import Package, import_package, quiet
from patchcut.engines.tensorrt.progress import LoadProgress, Say, Step
from patchcut.errors import BundleError, EngineError
from patchcut.features import Array
from patchcut.settings import Settings

# int8 of a ViT is hardly faster than fp16 on a GPU, 1.15 times on an Orin Nano, and further from fp32.
PREFERRED: tuple[Precision, ...] = ("fp16", "bf16", "int8-qdq", "fp32", "int8")

_SPARE_BYTES = 64 << 20  # an engine's kernels, beside its weights
_RUNS_BEFORE_CAPTURE = 2


class TensorRtEngine:
    """A backbone in TensorRT, with memory for `max_batch` frames.

    From the second run of a batch on its work is launched as one CUDA graph, where TensorRT allows that.
    """

    def __init__(
        self, package: Package, engine: Any, memory: GpuMemory, facts: EngineFacts, backbone: BackboneSpec
    ) -> None:
        self.facts = facts
        self._package = package  # its logger must outlive the engine
        self._engine = engine
        self._memory = memory
        self._context = engine.create_execution_context()
        if self._context is None:
            what = package.last_error("the GPU has too little memory")
            raise EngineError("engine", f"{package} cannot run {facts.graph.file}: {what}", "free its memory")
        graph, most = facts.graph, facts.max_batch
        self._image = memory.buffer((most, 3, *graph.size_hw))
        self._sets: dict[str, Buffer] = {
            name: memory.buffer((most, one.rows(graph.grid_hw), one.dim))
            for name, one in backbone.features.items()
        }
        self._context.set_tensor_address(INPUT, self._image.pointer)
        for name, one in backbone.features.items():
            self._context.set_tensor_address(one.output, self._sets[name].pointer)
        self._launch: Launch | None = None
        self._batch = self._runs = 0
        self._images: Array = self._image.array(1)
        self._features: dict[str, Array] = {}
        outlive_forks(self)
        for _ in range(_RUNS_BEFORE_CAPTURE):  # what is done once is done before the first frame
            self.run(1)

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        if batch != self._batch:
            self._bind(batch)
        return self._images

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, rows, d] float32, as in `Engine`; queued on the stream of the arrays.

        Raises:
            EngineError: TensorRT failed; its own message is kept.
        """
        self.images(batch)
        if self._launch is None:
            self._runs += 1
            if self._runs == _RUNS_BEFORE_CAPTURE:
                self._launch = self._memory.capture(self._queue)
        if self._launch is None:
            self._queue()
        else:
            self._launch()
        self._memory.finish()
        return self._features

    def _bind(self, batch: int) -> None:
        """Tells TensorRT of a batch; a graph that was captured before is of another."""
        self._launch, self._runs = None, 0
        self._batch = batch
        self._images = self._image.array(batch)
        self._features = {name: buffer.array(batch) for name, buffer in self._sets.items()}
        if not self._context.set_input_shape(INPUT, (batch, 3, *self.facts.graph.size_hw)):
            what = self._package.last_error("it does not say why")
            raise EngineError("engine", f"{self._package} does not take {batch} frames: {what}")

    def _queue(self) -> None:
        self._image.upload(self._batch)
        if not self._context.execute_async_v3(self._memory.stream):
            what = self._package.last_error("it does not say why")
            raise EngineError("engine", f"{self._package} failed to run {self.facts.graph.file}: {what}")
        for buffer in self._sets.values():
            buffer.download(self._batch)


@dataclass(frozen=True)
class _Task:
    """An engine that is wanted: of which graph, for what, and where it is kept."""

    bundle: Bundle
    backbone: BackboneSpec
    graph: GraphSpec
    package: Package
    key: EngineKey
    cache: EngineCache


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
    package = import_package(options.flavour)
    memory = open_memory(options.memory)
    task = _task(bundle, backbone, settings, options, package, memory.gpu())
    built = task.cache.read(task.key)
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
    *,
    capability: str = "",
    say: Say,
    step: Step,
) -> Path:
    """Builds an engine into the cache, unless it is there; the path of its file.

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
    flavour = "tensorrt-rtx" if capability and options.flavour == "auto" else options.flavour
    package = import_package(flavour)
    if not capability:
        gpu = open_memory(options.memory).gpu()
    elif package.is_rtx:
        gpu = Gpu("", capability, "")
    else:
        what = "tensorrt builds for the GPU that it runs on alone; only tensorrt-rtx builds for another"
        raise EngineError("capability", what, "leave --capability out, or run this on the device")
    task = _task(bundle, backbone, settings, options, package, gpu)
    if task.cache.read(task.key):
        say(f"{task.cache.path(task.key)} is there already")
    else:
        _build(task, say, step)
    return task.cache.path(task.key)


def _task(
    bundle: Bundle,
    backbone: BackboneSpec,
    settings: Settings,
    options: TensorRtOptions,
    package: Package,
    gpu: Gpu,
) -> _Task:
    graph = choose_graph(backbone, settings, PREFERRED)
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
    return _Task(bundle, backbone, graph, package, key, EngineCache(options.folder))


def _build(task: _Task, say: Say, step: Step) -> BuiltEngine:
    """Builds an engine and keeps it; another process that builds the same is waited for."""
    key, cache = task.key, task.cache
    with cache.alone(key, say):
        if (found := cache.read(key)) is not None:
            return found
        graph, weights = _whole_graph(task)
        cache.check_room(len(graph) + _SPARE_BYTES)
        if reason := cache.why_not(key):
            say(reason)
        say(f"builds {key.graph} with {task.package} for {key.target}")
        made = build(task.package, graph, key, cache.read_timings(key), step)
        built = BuiltEngine(made.plan, weights)
        cache.write(key, built)
        if made.timings:
            cache.write_timings(key, made.timings)
        return built


def _whole_graph(task: _Task) -> tuple[bytes, str]:
    """A graph with its weights in it and no outputs but those wanted, and the precision of its weights."""
    bundle, graph = task.bundle, task.graph
    data = bundle.read(graph.file)
    held = [one.precision for one in task.backbone.graphs if one.size_hw == graph.size_hw]
    check_operators(data, graph.file, list(held))
    data, names = keep_outputs(data, task.key.outputs)
    tensors = _tensors(task, names)
    eight_bit = any(tensor.dtype in (np.int8, np.uint8) for tensor in tensors.values())
    return inline_weights(data, tensors), "int8" if eight_bit else graph.precision


def _tensors(task: _Task, needed: frozenset[str]) -> dict[str, npt.NDArray[Any]]:
    weights, graph = task.backbone.weights, task.graph
    if weights is None:
        return {}
    tensors = task.bundle.read_tensors(weights)
    wanted = [name for name in graph.initializers if name in needed]
    if missing := sorted(set(wanted) - set(tensors)):
        what = f"{task.bundle.path} is damaged: {weights} lacks {', '.join(missing)} of {graph.file}"
        raise BundleError("bundle", what, "export the bundle again")
    return {name: tensors[name] for name in wanted}


def _deserialized(task: _Task, built: BuiltEngine) -> Any:
    """The engine, checked to have the tensors that it was built for."""
    package, trt = task.package, task.package.module
    with quiet():
        engine = trt.Runtime(package.logger).deserialize_cuda_engine(built.plan)
    path = task.cache.path(task.key)
    if engine is None:
        what = f"{package} cannot load {path}: {package.last_error('it does not say why')}"
        raise EngineError("engine", what, "remove the file, and it is built again")
    for name in (INPUT, *task.key.outputs):
        if engine.get_tensor_dtype(name) != trt.float32:
            what = f"{task.bundle.path} is foreign: {name} of {task.graph.file} must be float32"
            raise BundleError("bundle", what, "export the bundle again")
    return engine
