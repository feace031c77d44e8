"""Builds engines: parses a graph, and lets TensorRT choose its kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchcut.bundle.onnx_messages import read_model
from patchcut.engines.tensorrt.engine_cache import EngineKey
from patchcut.engines.tensorrt.package import Package, quiet
from patchcut.engines.tensorrt.progress import Step, monitor
from patchcut.errors import EngineError

INPUT = "image"

# Operators of dynamic int8 that no TensorRT has.
_UNKNOWN = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_SPARING_LEVEL = 2  # of 5, where 3 is usual: fewer algorithms are tried
_MEMORY_REMEDY = "close other programs, or set PATCHCUT_TENSORRT=low_memory=yes,workspace_mb=256"
_OTHER_PRECISION = "pass another precision, or another engine"


@dataclass(frozen=True)
class Built:
    """An engine as TensorRT serialized it, and what it measured meanwhile."""

    plan: bytes
    timings: bytes


def check_operators(graph: bytes, file: str, precisions: list[str]) -> None:
    """Checks that TensorRT knows the operators of a graph.

    Args:
        precisions: those that the bundle has at the size.
    Raises:
        EngineError: it does not; says what to pass instead.
    """
    operators = {node["op_type"] for node in read_model(graph)["graph"]["node"]}
    if found := [name for name in _UNKNOWN if name in operators]:
        fitting = [f'"{one}"' for one in precisions if one != "int8"]
        remedy = (
            f"pass precision={' or '.join(fitting)}" if fitting else "export the bundle with fp16 as well"
        )
        raise EngineError("precision", f"{file} has {found[0]}, which TensorRT does not run", remedy)


def build(package: Package, graph: bytes, key: EngineKey, timings: bytes, step: Step) -> Built:
    """An engine of a graph whose weights lie in its own bytes.

    Args:
        key: what it is built for.
        timings: a timing cache of the same GPU and version, or b"".
        step: is told of the phases; what it raises ends the build.
    Raises:
        EngineError: TensorRT does not take the graph, or fails.
    """
    trt = package.module
    with quiet():
        builder = trt.Builder(package.logger)
        # The graph's own types are the precision; nothing is rounded that the export did not round.
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        _parse(package, network, graph, key)
        config = builder.create_builder_config()
        _configure(package, builder, network, config, key)
        cache = None if package.is_rtx else _attach_timings(config, timings)
        watch = monitor(trt, step)
        if watch is not None:
            config.progress_monitor = watch
        made = builder.build_serialized_network(network, config)
        if watch is not None and watch.stopped is not None:
            raise watch.stopped
        if made is None:
            raise _failure(package, key)
        return Built(bytes(memoryview(made)), b"" if cache is None else bytes(memoryview(cache.serialize())))


def _parse(package: Package, network: Any, graph: bytes, key: EngineKey) -> None:
    parser = package.module.OnnxParser(network, package.logger)
    if not parser.parse(graph):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = errors[0].desc() if errors else package.last_error("it does not say why")
        node = f"{errors[0].node_operator()} {errors[0].node_name()}: " if errors else ""
        what = f"{package} does not take {key.graph}: {node}{said}"
        raise EngineError("engine", what, _OTHER_PRECISION)


def _configure(package: Package, builder: Any, network: Any, config: Any, key: EngineKey) -> None:
    trt = package.module
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32; who wants less takes bf16 or fp16
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, key.workspace_bytes)
    if key.few_memory:
        config.builder_optimization_level = _SPARING_LEVEL
        config.max_aux_streams = 0
        if not package.is_rtx:
            config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, 2 * key.workspace_bytes)
    if package.is_rtx:
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx_capability(package, key.capability), 0)
    shape = tuple(network.get_input(0).shape)
    if shape[0] == -1:
        profile = builder.create_optimization_profile()
        one, most = (1, *shape[1:]), (key.max_batch, *shape[1:])
        profile.set_shape(INPUT, one, one, most)  # tuned for a frame at a time
        config.add_optimization_profile(profile)


def rtx_capability(package: Package, capability: str) -> Any:
    """A compute capability such as "8.9" as TensorRT for RTX names it.

    Raises:
        EngineError: it has no code for it; lists what it has.
    """
    known = package.module.ComputeCapability.__members__
    name = f"SM{capability.replace('.', '')}"
    if name not in known:
        held = ", ".join(f"{one[2:-1]}.{one[-1]}" for one in known if one.startswith("SM"))
        what = f"{package} has no code for compute capability {capability}, only for {held}"
        raise EngineError("device", what, "install tensorrt, which a Jetson has in its system")
    return known[name]


def _attach_timings(config: Any, timings: bytes) -> Any:
    """The timing cache of a build; one that TensorRT does not take is begun anew."""
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _failure(package: Package, key: EngineKey) -> EngineError:
    said = package.last_error("it does not say why")
    lacks = "memory" in said.lower()
    what = f"{package} cannot build {key.graph} for {key.target}: {said}"
    return EngineError("engine", what, _MEMORY_REMEDY if lacks else _OTHER_PRECISION)
