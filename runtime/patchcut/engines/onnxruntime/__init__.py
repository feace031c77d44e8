"""ONNX Runtime: on the CPU, through its CUDA provider, or through that of TensorRT."""

from __future__ import annotations

import logging
import os
import re
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NoReturn

from patchcut_kernels import cuda, default_threads

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.engines.backbone_graph import BackboneGraph, read_graph
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.choice import DEFAULT_ENGINE, choose
from patchcut.engines.onnxruntime.cuda_libraries import preload_cuda
from patchcut.engines.onnxruntime.engine import OnnxRuntimeEngine, remedy
from patchcut.engines.onnxruntime.providers import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    PREFERRED,
    TENSORRT_BATCH,
    TENSORRT_PROVIDER,
    Place,
    check_tensorrt,
    choose_provider,
    fell_back,
)
from patchcut.engines.onnxruntime.sessions import LOG_ERROR, LOG_FATAL, session_options
from patchcut.engines.onnxruntime.tensorrt_cache import TensorrtCache
from patchcut.engines.processes import outlive_forks, threads_that_start
from patchcut.errors import BundleError, EngineError
from patchcut.installed import import_onnxruntime
from patchcut.settings import Settings

__all__ = [
    "CPU_PROVIDER",
    "CUDA_PROVIDER",
    "TENSORRT_PROVIDER",
    "OnnxRuntimeEngine",
    "import_onnxruntime",
    "open_engine",
    "open_tensorrt",
    "session_options",
]

_logger = logging.getLogger("patchcut")

# Where external data lies that is not given: below no folder, else files of the working directory are read.
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
# A provider has no kernel of an operator in a precision.
_LACKS_KERNEL = re.compile(r"NOT_IMPLEMENTED|Could not find an implementation")
_MAX_BATCH = 64


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OnnxRuntimeEngine:
    """A backbone of the bundle in ONNX Runtime, on the CPU or through CUDA.

    Raises:
        EngineError: onnxruntime is missing, or cannot run on the device asked for.
        OptionError: the bundle has no graph of the size or precision asked for.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    ort = import_onnxruntime()
    provider = choose_provider(settings, ort.get_available_providers())
    if provider == CPU_PROVIDER:
        return _open_on_cpu(ort, bundle, backbone, settings)
    missing = preload_cuda(ort)
    try:
        return _open(ort, bundle, backbone, settings, Place(CUDA_PROVIDER, _stream()))
    except _ProviderError as error:
        if settings.device == "cuda":
            raise error.told(missing) from error
        _logger.warning("[device] %s; the backbone runs on the CPU", error)
    return _open_on_cpu(ort, bundle, backbone, settings)


def open_tensorrt(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OnnxRuntimeEngine:
    """A backbone of the bundle in ONNX Runtime through its TensorRT provider: "onnxruntime-tensorrt".

    What TensorRT builds is kept (`cache_folder`). Building takes minutes, here and never in a run; the logger
    "patchcut" tells of it.

    Raises:
        EngineError, OptionError, BundleError: as `open_engine` does.
    """
    ort = import_onnxruntime()
    check_tensorrt(settings, ort.get_available_providers())
    missing = preload_cuda(ort)
    try:
        return _open(ort, bundle, backbone, settings, Place(TENSORRT_PROVIDER, _stream()))
    except _ProviderError as error:
        raise error.told(missing) from error


def _open_on_cpu(ort: Any, bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OnnxRuntimeEngine:
    """On the CPU, in what suits it: "auto" may have left the precision to a GPU that does not run."""
    on_cpu = replace(settings, engine=DEFAULT_ENGINE, device="cpu")
    precision = choose(backbone, on_cpu, [DEFAULT_ENGINE]).precision
    return _open(ort, bundle, backbone, replace(settings, precision=precision), Place(CPU_PROVIDER))


def _stream() -> cuda.Stream | None:
    return cuda.Stream() if cuda.is_available() else None


class _ProviderError(Exception):
    """A GPU's provider cannot load a graph; whether the graph is at fault is for the CPU to say."""

    def told(self, missing: str) -> EngineError:
        remedy = 'look for what CUDA libraries the log above misses, or pass device="cpu"'
        return EngineError("device", f"{self}{missing and f' ({missing})'}", remedy)


def _open(
    ort: Any, bundle: Bundle, backbone: BackboneSpec, settings: Settings, place: Place
) -> OnnxRuntimeEngine:
    graph = read_graph(bundle, backbone, choose_graph(backbone, settings, PREFERRED[place.provider]))
    if place.provider != TENSORRT_PROVIDER:
        return _open_session(ort, bundle, backbone, settings, graph, place)
    # TensorRT's parser gets the graph's own bytes, and not what the session was given beside them.
    graph = graph.inlined()
    cache = TensorrtCache.of(ort, graph.data)
    with nullcontext() if cache is None else cache.entry() as engines:
        in_cache = replace(place, engines=engines)
        engine = _open_session(ort, bundle, backbone, settings, graph, in_cache)
        engine.run(1)  # what is not built by now would be built in the first run
    return engine


def _open_session(
    ort: Any, bundle: Bundle, backbone: BackboneSpec, settings: Settings, graph: BackboneGraph, place: Place
) -> OnnxRuntimeEngine:
    spec, tensors = graph.spec, graph.tensors
    threads = threads_that_start(settings.threads or default_threads())
    beside = bool(settings.throughput) and not place.on_gpu and threads > 1
    options = session_options(ort, 1 if beside else threads, spec.precision)
    options.add_session_config_entry(_EXTERNAL_FOLDER, os.devnull)
    if place.on_gpu:
        options.log_severity_level = LOG_ERROR
    try:
        if tensors:
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
            options.add_external_initializers(list(tensors), values)
        # Its own fallback prints to stdout, and would choose another provider unasked.
        providers = place.options(spec)
        session = ort.InferenceSession(graph.data, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        _explain(error, bundle, spec, place)
    outlive_forks(session)
    if what := fell_back(session, place.provider):
        raise _ProviderError(what)
    _check_interface(bundle, backbone, spec, session)
    return OnnxRuntimeEngine(
        session,
        _run_options(ort, place.stream),
        _facts(session, graph, place, threads, beside=beside),
        backbone.features,
        tensors,
        place.stream,
        at_once=place.on_gpu and spec.precision != "int8",
    )


def _facts(session: Any, graph: BackboneGraph, place: Place, threads: int, *, beside: bool) -> EngineFacts:
    return EngineFacts(
        name="onnxruntime-tensorrt" if place.provider == TENSORRT_PROVIDER else "onnxruntime",
        provider=place.provider,
        device="cuda" if place.on_gpu else "cpu",
        graph=graph.spec,
        precision=graph.spec.precision,
        weights=graph.weights,
        threads=threads,
        max_batch=_max_batch(session, place),
        beside=beside,
    )


def _explain(error: Exception, bundle: Bundle, graph: GraphSpec, place: Place) -> NoReturn:
    """Says whose fault it is that ONNX Runtime has not loaded a graph."""
    cannot = f"onnxruntime cannot load {graph.file}"
    if place.on_gpu:
        raise _ProviderError(f"{cannot} with {place.provider}: {error}") from error
    if told := remedy(error):
        raise EngineError("engine", f"{cannot}: {error}", told) from error
    if _LACKS_KERNEL.search(str(error)) and graph.precision != "fp32":
        what = f"{cannot}: it does not compute {graph.precision} on a CPU: {error}"
        raise EngineError("precision", what, "choose another precision or engine") from error
    what = f"{bundle.path} is foreign: {cannot}: {error}"
    raise BundleError("bundle", what, "upgrade onnxruntime, or export the bundle again") from error


def _run_options(ort: Any, stream: cuda.Stream | None) -> Any:
    """Options of a run; on a stream of ours nothing waits for its end."""
    options = ort.RunOptions()
    options.log_severity_level = LOG_FATAL
    if stream is not None:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _max_batch(session: Any, place: Place) -> int:
    """What the graph says; a graph with a free first axis takes as many as memory or TensorRT's profile."""
    axis = session.get_inputs()[0].shape[0]
    free = TENSORRT_BATCH if place.provider == TENSORRT_PROVIDER else _MAX_BATCH
    return min(axis, free) if isinstance(axis, int) else free


def _check_interface(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, session: Any) -> None:
    expected: dict[str, tuple[int, ...]] = {"image": (3, *graph.size_hw)}
    expected |= {one.output: (one.rows(graph.grid_hw), one.dim) for one in backbone.features.values()}
    found = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    for name, shape in expected.items():
        value = found.get(name)
        if value is None or value.type != "tensor(float)" or not _fits(value.shape, shape):
            came = "no such tensor" if value is None else f"{value.type} {value.shape}"
            wanted = f"{name} [b, {', '.join(map(str, shape))}] float32"
            what = f"{bundle.path} is foreign: {graph.file} must have {wanted}, got {came}"
            raise BundleError("bundle", what, "export the bundle again")


def _fits(found: list[int | str | None], shape: tuple[int, ...]) -> bool:
    """Whether a graph's shape, whose free axes are names or None, can be [b, *shape]."""
    if len(found) != len(shape) + 1:
        return False
    wanted = (1, *shape)
    return all(not isinstance(axis, int) or axis == side for axis, side in zip(found, wanted, strict=True))
