"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from patchcut_kernels import cuda, default_threads

from patchcut import telemetry
from patchcut.bundle import BackboneSpec, Bundle, FeatureSetSpec, GraphSpec, Precision
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.processes import outlive_forks, threads_that_start
from patchcut.errors import BundleError, EngineError, install_hint
from patchcut.features import Array
from patchcut.settings import Settings

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

# On a CPU int8 is the fastest that keeps the accuracy; CUDA's int8 ViT is slower than its fp16.
PREFERRED: dict[str, tuple[Precision, ...]] = {
    "cpu": ("int8", "fp32", "fp16"),
    "cuda": ("fp16", "fp32", "int8"),
}

# Idle threads spin for a moment, then sleep. Tens of milliseconds, ONNX Runtime's own choice, take cores from
# the kernels that run between two backbones and from other work: int8 at 224 took 47 ms with it on two cores
# shared with another process, 30 ms with 20 us, 26 ms without; on idle cores 16.5, 14.8 and 18.3 ms.
_SPIN_BRIEFLY = ("session.intra_op.spin_duration_us", "20")
_NO_SPINNING = ("session.intra_op.allow_spinning", "0")
_SPIN_DURATION_SINCE = (1, 27)
# Without VNNI the products of u8 and s8 saturate at 16 bits; this widens them. With VNNI it would only cost
# time: 35 instead of 22 ms.
_WIDE_PRODUCTS = ("session.x64quantprecision", "1")
# Float graphs on 8-bit weights turn them into floats once, when they load. Left to itself ONNX Runtime keeps
# them in 8 bits and rounds the activations too: features 0.9999 like the float ones, not equal to them.
_FLOAT_ARITHMETIC = ("session.disable_quant_qdq", "1")

# Where external data lies that is not given: below no folder, else files of the working directory are read.
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

# How ONNX Runtime says that the system gave it no memory or no thread.
_LACKS = re.compile(
    r"bad_?alloc|bad allocation|allocate memory|out of memory|pthread_create|Resource temporarily",
    re.IGNORECASE,
)

# What it logs is in its exceptions, too, and holds names out of the graph as they are; with CUDA the log says
# which libraries are missing, and no exception does.
_LOG_FATAL, _LOG_ERROR = 4, 3
_MAX_BATCH = 64


class OnnxRuntimeEngine:
    """A backbone in ONNX Runtime, bound to its own input and output memory.

    With CUDA that memory lies on the GPU, and all is done in the order of `stream`; without one, as where the
    kernels were built without CUDA, it lies on the host and ONNX Runtime copies.
    """

    def __init__(
        self,
        session: Any,
        run_options: Any,
        facts: EngineFacts,
        outputs: Mapping[str, FeatureSetSpec],
        tensors: dict[str, Any],
        stream: cuda.Stream | None,
    ) -> None:
        self.facts = facts
        self._session = session
        self._run_options = run_options
        self._outputs = outputs
        self._tensors = tensors  # the session reads external initializers where they lie
        self._stream = stream
        self._bind(1)

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        if batch != self._batch:
            self._bind(batch)
        return self._images

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, n, d] float32, as in `Engine`.

        Raises:
            EngineError: ONNX Runtime failed; its own message is kept.
        """
        self.images(batch)
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            what = f"onnxruntime failed to run {self.facts.graph.file}: {error}"
            raise EngineError("engine", what, _remedy(error, "try another precision or device")) from error
        return self._features

    def _bind(self, batch: int) -> None:
        """Makes the memory of a batch and tells the session of it."""
        graph = self.facts.graph
        self._batch = batch
        self._images = self._memory((batch, 3, *graph.size_hw))
        shapes = {name: (batch, one.rows(graph.grid_hw), one.dim) for name, one in self._outputs.items()}
        self._features = {name: self._memory(shape) for name, shape in shapes.items()}
        self._binding = self._session.io_binding()
        self._binding.bind_input("image", *_location(self._images))
        for name, one in self._outputs.items():
            self._binding.bind_output(one.output, *_location(self._features[name]))

    def _memory(self, shape: tuple[int, ...]) -> Array:
        if self._stream is None:
            return np.zeros(shape, np.float32)
        return cuda.to_device(np.zeros(shape, np.float32), stream=self._stream)


def _location(array: Array) -> tuple[str, int, type[np.float32], tuple[int, ...], int]:
    """Where an array lies, as ONNX Runtime's bindings are told it."""
    if isinstance(array, cuda.DeviceArray):
        return "cuda", array.device, np.float32, array.shape, array.pointer
    return "cpu", 0, np.float32, array.shape, array.ctypes.data


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OnnxRuntimeEngine:
    """A backbone of the bundle in ONNX Runtime.

    Raises:
        EngineError: onnxruntime is missing, or cannot run on the device asked for.
        OptionError: the bundle has no graph of the size or precision asked for.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    ort = import_onnxruntime()
    device = _choose_device(settings.device, ort.get_available_providers())
    try:
        engine = _open_on(ort, bundle, backbone, settings, device)
    except _ProviderError as error:
        what = str(error)
    else:
        if engine.facts.device == device:
            return engine
        what = f"onnxruntime has {CUDA_PROVIDER} but runs on {engine.facts.provider}"
    if settings.device == "cuda":
        remedy = 'look for what CUDA libraries the log above misses, or pass device="cpu"'
        raise EngineError("device", what, remedy)
    # "auto": the graph that suits what really runs
    return _open_on(ort, bundle, backbone, settings, "cpu")


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, without its telemetry; whatever imports it does it here.

    Raises:
        EngineError: it is not installed; names the extra.
    """
    telemetry.switch_off()
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        remedy = f"{install_hint('cpu')}, or with [gpu]"
        raise EngineError("engine", f"onnxruntime cannot be imported: {error}", remedy) from error


class _ProviderError(Exception):
    """CUDA cannot load a graph; whether the graph is at fault is for the CPU to say."""


def _choose_device(asked: str, available: list[str]) -> str:
    if asked == "cpu" or (asked == "auto" and CUDA_PROVIDER not in available):
        return "cpu"
    if CUDA_PROVIDER not in available:
        what = f"this onnxruntime has no {CUDA_PROVIDER}, only {', '.join(available)}"
        remedy = f'pip uninstall onnxruntime && {install_hint("gpu")}, or pass device="cpu"'
        raise EngineError("device", what, remedy)
    return "cuda"


def _open_on(
    ort: Any, bundle: Bundle, backbone: BackboneSpec, settings: Settings, device: str
) -> OnnxRuntimeEngine:
    graph = choose_graph(backbone, settings, PREFERRED[device])
    threads = threads_that_start(settings.threads or default_threads())
    tensors = _external_weights(bundle, backbone, graph)
    stream = cuda.Stream() if device == "cuda" and cuda.is_available() else None
    options = session_options(ort, threads, graph.precision)
    options.add_session_config_entry(_EXTERNAL_FOLDER, os.devnull)
    if device == "cuda":
        options.log_severity_level = _LOG_ERROR
    proto = bundle.read(graph.file)
    try:
        if tensors:
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
            options.add_external_initializers(list(tensors), values)
        # Its own fallback prints to stdout, and would choose another provider unasked.
        session = ort.InferenceSession(
            proto, options, providers=_providers(device, stream), enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        _explain(error, bundle, graph, device)
    outlive_forks(session)
    _check_interface(bundle, backbone, graph, session)
    provider = session.get_providers()[0]
    facts = EngineFacts(
        name="onnxruntime",
        provider=provider,
        device="cuda" if provider == CUDA_PROVIDER else "cpu",
        graph=graph,
        precision=graph.precision,
        weights="int8" if any(t.dtype in (np.int8, np.uint8) for t in tensors.values()) else graph.precision,
        threads=threads,
        max_batch=_max_batch(session),
    )
    on_device = stream if facts.device == "cuda" else None
    run_options = _run_options(ort, on_device)
    return OnnxRuntimeEngine(session, run_options, facts, backbone.features, tensors, on_device)


def _explain(error: Exception, bundle: Bundle, graph: GraphSpec, device: str) -> NoReturn:
    """Says whose fault it is that ONNX Runtime has not loaded a graph."""
    cannot = f"onnxruntime cannot load {graph.file}"
    if device == "cuda":
        raise _ProviderError(f"{cannot} with {CUDA_PROVIDER}: {error}") from error
    if remedy := _remedy(error):
        raise EngineError("engine", f"{cannot}: {error}", remedy) from error
    what = f"{bundle.path} is foreign: {cannot}: {error}"
    raise BundleError("bundle", what, "upgrade onnxruntime, or export the bundle again") from error


def _remedy(error: Exception, otherwise: str = "") -> str:
    """What helps against a failure: other limits, where the system gave too little."""
    lacks = isinstance(error, MemoryError) or _LACKS.search(str(error))
    return "allow this process more memory or threads, or pass threads=1" if lacks else otherwise


def _providers(device: str, stream: cuda.Stream | None) -> list[Any]:
    if device == "cpu":
        return [CPU_PROVIDER]
    if stream is None:
        return [CUDA_PROVIDER, CPU_PROVIDER]
    on_stream = {"device_id": str(stream.device), "user_compute_stream": str(stream.handle)}
    return [(CUDA_PROVIDER, on_stream), CPU_PROVIDER]


def _run_options(ort: Any, stream: cuda.Stream | None) -> Any:
    """Options of a run; on a stream of ours nothing waits for its end."""
    options = ort.RunOptions()
    options.log_severity_level = _LOG_FATAL
    if stream is not None:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _max_batch(session: Any) -> int:
    """What the graph says; a graph with a free first axis takes as many as memory holds."""
    axis = session.get_inputs()[0].shape[0]
    return axis if isinstance(axis, int) else _MAX_BATCH


def _external_weights(
    bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec
) -> dict[str, npt.NDArray[Any]]:
    weights = backbone.weights
    if weights is None or not graph.initializers:
        return {}
    tensors = bundle.read_tensors(weights)
    if missing := set(graph.initializers) - set(tensors):
        what = f"{bundle.path} is damaged: {weights} lacks {', '.join(sorted(missing))} of {graph.file}"
        raise BundleError("bundle", what, "export the bundle again")
    used = {name: tensors[name] for name in graph.initializers}
    for name, tensor in used.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            what = f"{bundle.path} is damaged: {name} in {weights} is not finite"
            raise BundleError("bundle", what, "export the bundle again")
    return used


def session_options(ort: Any, threads: int, precision: Precision) -> Any:
    """Options of a session that computes here as patchcut does; whoever measures a graph needs them, too.

    Args:
        ort: the module `onnxruntime`.
        threads: CPU threads.
        precision: the graph's.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry(*_spinning(ort.__version__))
    if _saturates(platform.machine(), _cpu_flags()):
        options.add_session_config_entry(*_WIDE_PRODUCTS)
    if precision != "int8":
        options.add_session_config_entry(*_FLOAT_ARITHMETIC)
    return options


def _spinning(version: str) -> tuple[str, str]:
    """The session's setting for idle threads, as far as this version of ONNX Runtime knows it."""
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
    return _SPIN_BRIEFLY if numbers >= _SPIN_DURATION_SINCE else _NO_SPINNING


def _saturates(machine: str, flags: str) -> bool:
    """Whether the CPU is an x86 without VNNI, which multiplies u8 and s8 into 16 bits."""
    return machine.lower() in ("x86_64", "amd64") and "vnni" not in flags


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


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
