"""Execution providers of ONNX Runtime: which one runs, with what options, and whether it really does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchcut_kernels import cuda

from patchcut.bundle import GraphSpec, Precision
from patchcut.errors import EngineError, OptionError, install_hint
from patchcut.settings import Settings

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"

# On a CPU int8 is the fastest that keeps the accuracy; CUDA's int8 ViT is slower than its fp16, and what
# rounds by the range of the values runs on the CPU there.
PREFERRED: dict[str, tuple[Precision, ...]] = {
    CPU_PROVIDER: ("int8", "fp32", "fp16", "int8-qdq", "bf16"),
    CUDA_PROVIDER: ("fp16", "fp32", "bf16", "int8-qdq", "int8"),
    TENSORRT_PROVIDER: ("fp16", "bf16", "fp32", "int8-qdq"),
}

# A GPU's arena grows by what is needed, not by doubling, and no further; a session that needs more fails.
_ARENA_BYTES = 4 << 30
_WORKSPACE_BYTES = 1 << 30
# Engines of TensorRT are built for 1 to this many images, and for one the best.
TENSORRT_BATCH = 8
# Without its flag TensorRT computes such a graph in fp32. LayerNorm stays there: in fp16 it overflows.
_TENSORRT_FLAGS: dict[str, dict[str, str]] = {
    "fp16": {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "bf16": {"trt_bf16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "int8-qdq": {"trt_int8_enable": "1"},
    "fp32": {},
}

# What a ViT spends its time in. The rest, such as sums of shapes, CUDA itself leaves to the CPU.
_HEAVY = frozenset(
    """
    Attention Conv ConvInteger DequantizeLinear DynamicQuantizeLinear Erf FusedMatMul Gelu Gemm
    LayerNormalization MatMul MatMulInteger MatMulIntegerToFloat QLinearConv QLinearMatMul QuantizeLinear
    SkipLayerNormalization Softmax
    """.split()  # noqa: SIM905 - a table for people
)


@dataclass(frozen=True)
class Place:
    """Where a session runs.

    Attributes:
        provider: that of ONNX Runtime which is to execute.
        stream: in whose order it does, on a GPU; None on a CPU, and where the kernels have no CUDA.
        engines: where TensorRT keeps what it has built; None where nothing is kept.
    """

    provider: str
    stream: cuda.Stream | None = None
    engines: Path | None = None

    @property
    def on_gpu(self) -> bool:
        return self.provider != CPU_PROVIDER

    def options(self, graph: GraphSpec) -> list[Any]:
        """The providers of a session with their options, the wanted one first."""
        if not self.on_gpu:
            return [CPU_PROVIDER]
        device: dict[str, str] = {}
        if self.stream is not None:
            device = {"device_id": str(self.stream.device), "user_compute_stream": str(self.stream.handle)}
        on_cuda = (CUDA_PROVIDER, {**device, **_cuda_options(graph.precision)})
        if self.provider == CUDA_PROVIDER:
            return [on_cuda, CPU_PROVIDER]
        on_tensorrt = (TENSORRT_PROVIDER, {**device, **_tensorrt_options(graph, self.engines)})
        return [on_tensorrt, on_cuda, CPU_PROVIDER]


def _cuda_options(precision: Precision) -> dict[str, str]:
    return {
        "gpu_mem_limit": str(_ARENA_BYTES),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",  # a ViT has one convolution: trying all takes longer than it
        "use_tf32": "0" if precision == "fp32" else "1",
    }


def _tensorrt_options(graph: GraphSpec, engines: Path | None) -> dict[str, str]:
    height, width = graph.size_hw
    shape = f"3x{height}x{width}"
    options = {
        "trt_max_workspace_size": str(_WORKSPACE_BYTES),
        "trt_profile_min_shapes": f"image:1x{shape}",
        "trt_profile_opt_shapes": f"image:1x{shape}",
        "trt_profile_max_shapes": f"image:{TENSORRT_BATCH}x{shape}",
        **_TENSORRT_FLAGS[graph.precision],
    }
    if engines is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
    return options


def choose_provider(settings: Settings, available: list[str]) -> str:
    """CUDA's provider or the CPU's, for the engine "onnxruntime".

    Raises:
        EngineError: the device is not one of this engine's, or this wheel has no provider for it.
    """
    if settings.device in ("gpu", "npu"):
        _refuse_device(settings, 'pass engine="openvino", which has them, or device="cuda"')
    if settings.device == "cpu" or (settings.device == "auto" and CUDA_PROVIDER not in available):
        return CPU_PROVIDER
    _check_available(CUDA_PROVIDER, available)
    return CUDA_PROVIDER


def check_tensorrt(settings: Settings, available: list[str]) -> None:
    """Checks that "onnxruntime-tensorrt" can run what is asked for.

    Raises:
        EngineError: the device is no GPU of NVIDIA's, or this wheel has no provider for it.
        OptionError: the precision is none of TensorRT's.
    """
    if settings.device not in ("auto", "cuda"):
        other = "openvino" if settings.device in ("gpu", "npu") else "onnxruntime"
        _refuse_device(settings, f'pass device="cuda", or engine="{other}"')
    _check_available(TENSORRT_PROVIDER, available)
    if settings.precision == "int8":
        what = 'must be "int8-qdq", "bf16", "fp16" or "fp32" in TensorRT, got "int8"'
        raise OptionError("precision", f"{what}, whose operators it lacks")


def _refuse_device(settings: Settings, remedy: str) -> None:
    what = f'the engine "{settings.engine}" does not run on "{settings.device}"'
    raise EngineError("device", what, remedy)


def _check_available(provider: str, available: list[str]) -> None:
    if provider in available:
        return
    what = f"this onnxruntime has no {provider}, only {', '.join(available)}"
    remedy = f'pip uninstall onnxruntime && {install_hint("gpu")}, or pass device="cpu"'
    raise EngineError("device", what, remedy)


def fell_back(session: Any, provider: str) -> str:
    """What of a session runs elsewhere, for people; "" where the provider that was asked for has it all.

    ONNX Runtime says which node went where from 1.24 on; of older ones the order of providers is all that
    is known.
    """
    runs_on = session.get_providers()[0]
    if runs_on != provider:
        return f"onnxruntime has {provider} but runs on {runs_on}"
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return ""
    assigned = session.get_provider_graph_assignment_info()
    nodes = [(one.ep_name, node.op_type) for one in assigned for node in one.get_nodes()]
    elsewhere = [(name, op) for name, op in nodes if name != provider and op in _HEAVY]
    if not elsewhere:
        return ""
    operators = ", ".join(sorted({operator for _, operator in elsewhere}))
    names = ", ".join(sorted({name for name, _ in elsewhere}))
    return f"{provider} leaves {len(elsewhere)} nodes ({operators}) to {names}"
