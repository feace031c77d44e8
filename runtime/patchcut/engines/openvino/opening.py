"""Opens a bundle's backbone in OpenVINO: on which device, in which arithmetic, compiled or from the cache."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from patchcut_kernels import default_threads

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.engines.backbone_graph import read_graph
from patchcut.engines.base import EngineFacts, choose_graph
from patchcut.engines.choice import is_accepted
from patchcut.engines.cpu_kind import cpu_kind
from patchcut.engines.openvino.engine import OpenVinoEngine
from patchcut.engines.openvino.model_cache import Kept, ModelCache
from patchcut.engines.processes import (
    outlive_forks,
    process_with_threads,
    remember_threads,
    threads_that_start,
)
from patchcut.errors import BundleError, EngineError, OptionError
from patchcut.installed import import_openvino
from patchcut.settings import Settings

_logger = logging.getLogger("patchcut")

_cores: list[Any] = []

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}

_MAX_BATCH = 64
_THREADS = "INFERENCE_NUM_THREADS"
# What is not in 8 bits is computed in the first of these that the device has, beside a graph in "int8-qdq".
_HINTS: dict[Precision, str] = {"bf16": "bf16", "fp32": "f32", "fp16": "f16"}
_CAPABILITIES: dict[Precision, str] = {"bf16": "BF16", "fp32": "FP32", "fp16": "FP16"}
# Which of the bundle's graphs it is computed from: an fp32 graph is rounded to bf16 as it is compiled; one in
# fp16 says what of it must stay in fp32.
_GRAPHS: dict[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32",),
    "bf16": ("fp32", "bf16"),
    "fp16": ("fp16", "fp32"),
}
_ANY: tuple[Precision, ...] = ("fp32", "int8-qdq", "bf16", "fp16", "int8")
# The fastest first. Graphs in "int8" round activations frame by frame, for which OpenVINO has no kernels.
PREFERRED: dict[str, tuple[Precision, ...]] = {
    "CPU": ("int8-qdq", "bf16", "fp32"),
    "GPU": ("int8-qdq", "fp16", "fp32"),
    "NPU": ("int8-qdq", "fp16"),
}
_MISSING = {
    "GPU": 'install Intel\'s compute runtime (intel-opencl-icd) and join the group "render"',
    "NPU": 'install Intel\'s NPU driver (linux-npu-driver) and join the group "render"',
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
            properties |= {_THREADS: threads, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
            # A thread that is tied to a core waits for whatever else runs there, such as another segmenter.
            properties["ENABLE_CPU_PINNING"] = False
        return properties


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> OpenVinoEngine:
    """A backbone of the bundle in OpenVINO, compiled now or read from the cache.

    Raises:
        EngineError: openvino is missing, finds no such device, or ran before a fork.
        OptionError: the bundle has no graph of the size or precision asked for, or the device cannot.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    if process := process_with_threads("openvino"):
        what = f"openvino ran before the fork (in process {process}), and its threads stayed there"
        raise EngineError("engine", what, 'pass engine="onnxruntime", or start processes with "spawn"')
    openvino = import_openvino()
    remember_threads("openvino")
    core = _core(openvino)
    device = _choose_device(core, settings.device)
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    plan = _make_plan(backbone, settings, device, capabilities)
    threads = threads_that_start(settings.threads or default_threads())
    properties = plan.properties(threads, throughput=bool(settings.throughput))
    compiled, weights = _compile(core, bundle, backbone, plan, properties)
    facts = EngineFacts(
        name="openvino",
        provider=compiled.get_property("EXECUTION_DEVICES")[0],
        device=device.lower(),
        graph=plan.graph,
        precision=plan.precision,
        weights=weights,
        # It takes no more than there are cores.
        threads=compiled.get_property(_THREADS) if device == "CPU" else threads,
        max_batch=_MAX_BATCH,
        beside=bool(settings.throughput),
    )
    return OpenVinoEngine(openvino, compiled, facts, backbone.features)


def _core(openvino: Any) -> Any:
    """This process's core: making one loads libraries, and a fork in the middle of that breaks the child."""
    if not _cores:
        _cores.append(openvino.Core())
        outlive_forks(_cores[0])
    return _cores[0]


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
        what = f"openvino is slow where activations are rounded frame by frame; it runs {runs} here"
        raise OptionError("precision", what, 'choose one of these, or engine="onnxruntime"')
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
    if cache.path is not None and "EXPORT_IMPORT" in core.get_property(
        plan.device, "OPTIMIZATION_CAPABILITIES"
    ):
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
    spec = plan.graph
    graph = read_graph(bundle, backbone, spec)
    weights = graph.weights
    try:
        graph = graph.inlined()
        model = core.read_model(graph.data)
        del graph  # compiling takes memory, too
        model.reshape({"image": [1, 3, *spec.size_hw]})
    except Exception as error:
        _fail(error, bundle, spec)
    _check_interface(bundle, backbone, spec, model)
    return model, weights


def _check_interface(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, model: Any) -> None:
    for one in backbone.features.values():
        wanted = (1, one.rows(graph.grid_hw), one.dim)
        made = model.output(one.output)
        shape = made.get_partial_shape()
        if (
            not shape.is_static
            or tuple(shape.to_shape()) != wanted
            or made.get_element_type().to_string() != "f32"
        ):
            came = f"{made.get_element_type().to_string()} {shape}"
            what = f"{graph.file} must make {one.output} {list(wanted)} float32 of one image, got {came}"
            raise BundleError("bundle", f"{bundle.path} is foreign: {what}", "export the bundle again")


def _fail(error: Exception, bundle: Bundle, graph: GraphSpec) -> NoReturn:
    """Says whose fault it is that OpenVINO does not take a graph."""
    what = f"openvino cannot load {graph.file}: {error}"
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        raise EngineError("engine", what, "allow this process more memory") from error
    remedy = "upgrade openvino, or export the bundle again"
    raise BundleError("bundle", f"{bundle.path} is foreign: {what}", remedy) from error
