"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut_kernels import default_threads

from patchcut.bundle import Bundle, FeatureSetSpec, GraphSpec, Precision
from patchcut.engines import EngineOptions, choose_graph
from patchcut.errors import BundleError, EngineError

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

# Where external data lies that is not given: in no folder, or files of the working directory would be read.
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

_LOG_ERROR = 3


class OnnxRuntimeEngine:
    """A backbone in ONNX Runtime, bound once to its own input and output memory."""

    name = "onnxruntime"

    def __init__(
        self, session: Any, graph: GraphSpec, made: FeatureSetSpec, threads: int, tensors: dict[str, Any]
    ) -> None:
        self.graph = graph
        self.threads = threads
        self.provider: str = session.get_providers()[0]
        self.device = "cuda" if self.provider == CUDA_PROVIDER else "cpu"
        self._session = session
        self._tensors = tensors  # the session reads external initializers where they lie
        is_int8 = any(tensor.dtype in (np.int8, np.uint8) for tensor in tensors.values())
        self.weights = "int8" if is_int8 else graph.precision
        batch = np.zeros((1, 3, *graph.size_hw), np.float32)
        features = np.zeros((1, graph.grid_hw[0] * graph.grid_hw[1], made.dim), np.float32)
        self.image: npt.NDArray[np.float32] = batch[0]
        self._features: npt.NDArray[np.float32] = features[0]
        self._binding = _bind(session, batch, made.output, features)

    def run(self) -> npt.NDArray[np.float32]:
        """[n, d] float32, features of `image`; overwritten by the next call.

        Raises:
            EngineError: ONNX Runtime failed; its own message is kept.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            what = f"onnxruntime failed to run {self.graph.file}: {error}"
            raise EngineError("engine", what, "try another precision or device") from error
        return self._features


def open_engine(bundle: Bundle, options: EngineOptions) -> OnnxRuntimeEngine:
    """The bundle's backbone in ONNX Runtime.

    Raises:
        EngineError: onnxruntime is missing, or cannot run on the device asked for.
        OptionError: the bundle has no graph of the size or precision asked for.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    ort = _import_onnxruntime()
    device = _choose_device(options.device, ort.get_available_providers())
    try:
        engine = _open_on(ort, bundle, options, device)
    except _ProviderError as error:
        what = str(error)
    else:
        if engine.device == device:
            return engine
        what = f"onnxruntime has {CUDA_PROVIDER} but runs on {engine.provider}"
    if options.device == "cuda":
        remedy = 'look for what CUDA libraries the log above misses, or pass device="cpu"'
        raise EngineError("device", what, remedy)
    return _open_on(ort, bundle, options, "cpu")  # "auto": the graph that suits what really runs


class _ProviderError(Exception):
    """CUDA cannot load a graph; whether the graph is at fault is for the CPU to say."""


def _import_onnxruntime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        remedy = "pip install 'patchcut[cpu]' (or 'patchcut[gpu]')"
        raise EngineError("engine", f"onnxruntime cannot be imported: {error}", remedy) from error


def _choose_device(asked: str, available: list[str]) -> str:
    if asked == "cpu" or (asked == "auto" and CUDA_PROVIDER not in available):
        return "cpu"
    if CUDA_PROVIDER not in available:
        what = f"this onnxruntime has no {CUDA_PROVIDER}, only {', '.join(available)}"
        remedy = "pip uninstall onnxruntime && pip install 'patchcut[gpu]', or pass device=\"cpu\""
        raise EngineError("device", what, remedy)
    return "cuda"


def _open_on(ort: Any, bundle: Bundle, options: EngineOptions, device: str) -> OnnxRuntimeEngine:
    graph = choose_graph(bundle, options, PREFERRED[device])
    threads = options.threads or default_threads()
    tensors = _external_weights(bundle, graph)
    providers = [CUDA_PROVIDER, CPU_PROVIDER] if device == "cuda" else [CPU_PROVIDER]
    made = session_options(ort, threads, graph.precision)
    made.add_session_config_entry(_EXTERNAL_FOLDER, str(bundle.path))
    if tensors:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
        made.add_external_initializers(list(tensors), values)
    proto = bundle.read(graph.file)
    try:
        # Its own fallback prints to stdout, and would choose a provider behind our back.
        session = ort.InferenceSession(proto, made, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if device == "cuda":
            raise _ProviderError(
                f"onnxruntime cannot load {graph.file} with {CUDA_PROVIDER}: {error}"
            ) from error
        what = f"{bundle.path} is foreign: onnxruntime cannot load {graph.file}: {error}"
        raise BundleError("bundle", what, "upgrade onnxruntime, or export the bundle again") from error
    _check_interface(bundle, graph, session)
    return OnnxRuntimeEngine(session, graph, bundle.spec.backbone.default_features, threads, tensors)


def _external_weights(bundle: Bundle, graph: GraphSpec) -> dict[str, npt.NDArray[Any]]:
    weights = bundle.spec.backbone.weights
    if weights is None or not graph.initializers:
        return {}
    tensors = bundle.read_tensors(weights)
    if missing := set(graph.initializers) - set(tensors):
        what = f"{bundle.path} is damaged: {weights} lacks {', '.join(sorted(missing))} of {graph.file}"
        raise BundleError("bundle", what, "export the bundle again")
    return {name: tensors[name] for name in graph.initializers}


def session_options(ort: Any, threads: int, precision: Precision) -> Any:
    """ONNX Runtime's options for a graph of a precision on this CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERROR
    options.add_session_config_entry(*_spinning(ort.__version__))
    if _saturates(platform.machine(), _cpu_flags()):
        options.add_session_config_entry(*_WIDE_PRODUCTS)
    if precision != "int8":
        options.add_session_config_entry(*_FLOAT_ARITHMETIC)
    return options


def _spinning(version: str) -> tuple[str, str]:
    """The session's setting for idle threads, as far as this version of ONNX Runtime knows it."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
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


def _check_interface(bundle: Bundle, graph: GraphSpec, session: Any) -> None:
    n = graph.grid_hw[0] * graph.grid_hw[1]
    made = bundle.spec.backbone.default_features
    expected = {"image": (3, *graph.size_hw), made.output: (n, made.dim)}
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


def _bind(
    session: Any, batch: npt.NDArray[np.float32], output: str, features: npt.NDArray[np.float32]
) -> Any:
    binding = session.io_binding()
    binding.bind_input("image", "cpu", 0, np.float32, batch.shape, batch.ctypes.data)
    binding.bind_output(output, "cpu", 0, np.float32, features.shape, features.ctypes.data)
    return binding
