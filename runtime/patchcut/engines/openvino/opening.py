"""Opens a bundle's backbone in OpenVINO: on which device, in which arithmetic, compiled or from the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from patchcut_kernels import default_threads

from patchcut import telemetry
from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.choice import is_refused
from patchcut.engines.cpu_kind import cpu_kind
from patchcut.engines.openvino.engine import OpenVinoEngine
from patchcut.engines.openvino.model_cache import ModelCache
from patchcut.engines.openvino.weights import inline_weights
from patchcut.engines.processes import threads_that_start
from patchcut.errors import BundleError, EngineError, OptionError, install_hint
from patchcut.settings import Settings

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}

_MAX_BATCH = 64
_HINTS: dict[str, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[str, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
# The fastest first. A graph in "int8" rounds activations frame by frame, which OpenVINO has no kernels for.
PREFERRED: dict[str, tuple[Precision, ...]] = {
    "CPU": ("int8-qdq", "bf16", "fp32"),
    "GPU": ("int8-qdq", "fp16", "fp32"),
    "NPU": ("int8-qdq", "fp16"),
}
_MISSING = {
    "GPU": "install Intel's compute runtime (intel-opencl-icd) and join the group \"render\"",
    "NPU": "install Intel's NPU driver (linux-npu-driver) and join the group \"render\"",
}


@dataclass(frozen=True)
class _Plan:
    """What is to be compiled.

    Attributes:
        graph: of the bundle.
        precision: what `EngineFacts.precision` says.
        arithmetic: "fp32", "bf16" or "fp16", of what is not in 8 bits.
        device: OpenVINO's name.
    """

    graph: GraphSpec
    precision: Precision
    arithmetic: Precision
    device: str

    def properties(self, threads: int, *, throughput: bool) -> dict[str, Any]:
        """As `compile_model` takes them."""
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.arithmetic],
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
        }
        if self.device == "CPU":
            # Left to itself "f32" rounds activations to 8 bits in groups where weights are in 8 bits.
            properties |= {"INFERENCE_NUM_THREADS": threads, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
        return properties


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OpenVinoEngine:
    """A backbone of the bundle in OpenVINO, compiled now or read from the cache.

    Raises:
        EngineError: openvino is missing, or finds no such device.
        OptionError: the bundle has no graph of the size or precision asked for, or the device cannot.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    openvino = import_openvino()
    core = openvino.Core()
    device = _choose_device(core, settings.device)
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    plan = _make_plan(backbone, settings, device, capabilities)
    threads = threads_that_start(settings.threads or default_threads())
    properties = plan.properties(threads, throughput=settings.throughput)
    compiled, weights = _compile(core, openvino, bundle, backbone, plan, properties)
    facts = EngineFacts(
        name="openvino",
        provider=compiled.get_property("EXECUTION_DEVICES")[0],
        device=device.lower(),
        graph=plan.graph,
        precision=plan.precision,
        weights=weights,
        threads=threads,
        max_batch=_MAX_BATCH,
    )
    return OpenVinoEngine(openvino, compiled, facts, backbone.features, beside=settings.throughput)


def import_openvino() -> Any:
    """The module `openvino`, without its telemetry; whatever imports it does it here.

    Raises:
        EngineError: it is not installed; names the extra.
    """
    try:
        with telemetry.kept_out("openvino_telemetry"):
            return import_module("openvino")
    except ImportError as error:
        remedy = install_hint("openvino")
        raise EngineError("engine", f"openvino cannot be imported: {error}", remedy) from error


def _choose_device(core: Any, asked: str) -> str:
    if asked not in DEVICES:
        what = f'openvino runs on "cpu", "gpu" and "npu", not on {asked!r}'
        raise EngineError("device", what, 'choose one of these, or engine="onnxruntime"')
    device = DEVICES[asked]
    here = [name.split(".")[0] for name in core.available_devices]
    if device not in here:
        remedy = f'{_MISSING.get(device, "install openvino again")}, or pass device="cpu"'
        raise EngineError("device", f"openvino finds no {device} here, only {', '.join(here)}", remedy)
    return device


def _make_plan(backbone: BackboneSpec, settings: Settings, device: str, capabilities: list[str]) -> _Plan:
    """The graph and the arithmetic of the precision asked for, or of the fastest that is accepted."""
    size_hw = choose_graph(backbone, replace(settings, precision="auto"), _ANY).size_hw
    held = {graph.precision: graph for graph in backbone.graphs if graph.size_hw == size_hw}
    plans = _plans(held, device, capabilities)
    asked = settings.precision
    if asked == "auto":
        accepted = [one for one in PREFERRED[device] if is_accepted(backbone, one, size_hw[0])]
        found = next((plans[one] for one in accepted if one in plans), None)
    else:
        found = next((plan for one, plan in plans.items() if one == asked), None)
    if found is not None:
        return found
    runs = ", ".join(plans) or "nothing"
    if asked == "int8":
        what = f"openvino has no fast kernels for activations that are rounded frame by frame; it runs {runs} here"
        raise OptionError("precision", what, "choose one of these, or engine=\"onnxruntime\"")
    what = f"openvino runs {runs} of this bundle on this {device}, got {asked!r}"
    raise OptionError("precision", what, "choose one of these, another device, or export the bundle with it")


def _plans(
    held: Mapping[Precision, GraphSpec], device: str, capabilities: Collection[str]
) -> dict[Precision, _Plan]:
    """What the device can compute of the graphs of one size."""
    computes = [one for one in _HINTS if _CAPABILITIES[one] in capabilities]
    plans = {}
    for precision, graphs in _GRAPHS.items():
        graph = next((held[one] for one in graphs if one in held), None)
        if graph is not None and precision in computes:
            plans[precision] = _Plan(graph, precision, precision, device)
    if "int8-qdq" in held and "INT8" in capabilities and computes:
        plans["int8-qdq"] = _Plan(held["int8-qdq"], "int8-qdq", computes[0], device)
    return plans


def _compile(
    core: Any, bundle: Bundle, backbone: BackboneSpec, plan: _Plan, properties: Mapping[str, Any]
) -> tuple[Any, str]:
    """The compiled graph and the type of its weights."""
    cache = ModelCache(_key(core, bundle, backbone, plan, properties))
    if (kept := cache.read()) is not None:
        try:
            return core.import_model(kept.model, plan.device, dict(properties)), kept.weights
        except Exception as error:  # a plain RuntimeError, such as of another driver
            _logger.info("[cache] %s is made again: %s", cache.path, error)
    model, weights = _read_model(core, bundle, backbone, plan)
    compiled = core.compile_model(model, plan.device, dict(properties))
    if cache.path is not None and "EXPORT_IMPORT" in core.get_property(plan.device, "OPTIMIZATION_CAPABILITIES"):
        cache.write(Kept(weights, compiled.export_model().getvalue()))
    return compiled, weights


def _key(
    core: Any, bundle: Bundle, backbone: BackboneSpec, plan: _Plan, properties: Mapping[str, Any]
) -> dict[str, object]:
    """What the compiled graph depends on; the number of threads is told when it is read."""
    files = [plan.graph.file, *([backbone.weights] if backbone.weights else [])]
    return {
        "files": [bundle.spec.files[file].sha256 for file in files],
        "outputs": [one.output for one in backbone.features.values()],
        "properties": {name: value for name, value in properties.items() if name != _THREADS},
        "openvino": str(core.get_versions(plan.device)[plan.device].build_number),
        "device": core.get_property(plan.device, "FULL_DEVICE_NAME"),
        "cpu": cpu_kind(),
    }


def _read_model(core: Any, bundle: Bundle, backbone: BackboneSpec, plan: _Plan) -> tuple[Any, str]:
    """OpenVINO's model of one frame with the outputs that are wanted, and the type of its weights."""
    graph = plan.graph
    proto, used = keep_outputs(bundle.read(graph.file), [one.output for one in backbone.features.values()])
    tensors = external_tensors(bundle, backbone, graph, used)
    weights = "int8" if any(t.dtype in (np.int8, np.uint8) for t in tensors.values()) else graph.precision
    try:
        data = inline_weights(proto, tensors)
        del tensors
        model = core.read_model(data)
        del data
        model.reshape({"image": [1, 3, *graph.size_hw]})
    except Exception as error:
        _fail(error, bundle, graph)
    _check_interface(bundle, backbone, graph, model)
    return model, weights
