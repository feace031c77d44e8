"""Builds a TensorRT plan of a fused file, for the GPU of this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from patchcut.engines.tensorrt.builder import build, check_operators
from patchcut.engines.tensorrt.engine_cache import EngineKey
from patchcut.engines.tensorrt.memory import open_memory
from patchcut.engines.tensorrt.options import TensorRtOptions
from patchcut.engines.tensorrt.package import import_package
from patchcut.engines.tensorrt.progress import Step

from patchcut_export.fused.model import ASSIGNMENT

# The flavour that Triton's backend runs; plans of tensorrt-rtx are none to it.
_FLAVOUR = "tensorrt"


def build_plan(fused: bytes, max_batch: int, say: Callable[[str], None], step: Step) -> bytes:
    """The plan of a fused ONNX file.

    Args:
        fused: its bytes.
        max_batch: the most frames in one run.
        say: is told in a line what is built.
        step: is told of the phases.
    Raises:
        EngineError: TensorRT or a GPU is not there, or it does not take the file.
    """
    options = replace(TensorRtOptions.from_environment(), flavour=_FLAVOUR, max_batch=max_batch)
    package = import_package(options.flavour)
    gpu = open_memory(options.memory).gpu()
    check_operators(fused, "the fused file", [])
    key = EngineKey(
        graph="the fused file",
        flavour=package.flavour,
        version=package.version,
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
        graph_sha256=hashlib.sha256(fused).hexdigest(),
        weights_sha256="",
        outputs=(ASSIGNMENT,),
        max_batch=max_batch,
        workspace_bytes=options.workspace_bytes(portable=package.is_rtx),
        few_memory=options.spares_memory(portable=package.is_rtx),
    )
    say(f"builds a plan with {package} for {gpu}")
    return build(package, fused, key, b"", step).plan
