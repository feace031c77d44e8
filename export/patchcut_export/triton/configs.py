"""`config.pbtxt` of the three models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from patchcut.bundle import Bundle
from patchcut.errors import OptionError
from patchcut.opening import rules_of
from patchcut.settings import Settings
from patchcut.stages import Canvas

from patchcut_export.fused.model import INPUT
from patchcut_export.fused.plan import choose_parts
from patchcut_export.triton.plan import TritonPlan
from patchcut_export.triton.text_format import Value, Word, entries, to_text

FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_TYPES: dict[int, Word] = {TensorProto.UINT8: Word("TYPE_UINT8"), TensorProto.FLOAT: Word("TYPE_FP32")}
_KINDS: dict[Any, Word] = {
    np.uint8: Word("TYPE_UINT8"),
    np.int32: Word("TYPE_INT32"),
    np.int64: Word("TYPE_INT64"),
    np.float32: Word("TYPE_FP32"),
    np.bytes_: Word("TYPE_STRING"),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor as Triton is told of it, without the axis of the batch; -1 is any side."""

    name: str
    data_type: Word
    dims: tuple[int, ...]

    @property
    def message(self) -> dict[str, Value]:
        """The fields of an input or output."""
        return {"name": self.name, "data_type": self.data_type, "dims": list(self.dims)}


def configs(bundle: Bundle, plan: TritonPlan, fused: bytes) -> dict[str, str]:
    """The text of each model's `config.pbtxt`, by the model's name.

    Args:
        fused: the ONNX file of `plan.fused`.
    Raises:
        OptionError: as `choose_parts`, or the head is for parts.
    """
    ensemble, assignment, regions = plan.models
    image, rows = _tensors(fused)
    frame = [image] if plan.refine != "none" else []
    outputs = region_tensors((image.dims[0], image.dims[1]))
    steps = [
        _step(assignment, [image], [rows]),
        _step(regions, [rows, *frame], outputs),
    ]
    messages: dict[str, dict[str, Value]] = {
        ensemble: {
            "name": ensemble,
            "platform": "ensemble",
            **_batched(plan, [image], outputs),
            "ensemble_scheduling": {"step": steps},
        },
        assignment: {
            "name": assignment,
            "backend": plan.backend,
            "default_model_filename": FILES[plan.backend],
            **_batched(plan, [image], [rows]),
            **_together(plan),
            "instance_group": [_instances(plan)],
            "model_warmup": list(_warm_up(plan, image)),
        },
        regions: {
            "name": regions,
            "backend": "python",
            **_batched(plan, [rows, *frame], outputs),
            "instance_group": [_instances(plan) | {"kind": Word("KIND_CPU")}],
            "parameters": entries(
                {name: {"string_value": text} for name, text in region_parameters(bundle, plan).items()}
            ),
        },
    }
    return {name: to_text(message) for name, message in messages.items()}


def region_tensors(frame_hw: tuple[int, int]) -> list[Tensor]:
    """What is told of a frame's regions; names and values are those of `patchcut serve`."""
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "count": (np.int32, (1,)),
        "boxes": (np.float32, (-1, 4)),
        "scores": (np.float32, (-1,)),
        "areas": (np.int64, (-1,)),
        "label_ids": (np.int32, (-1,)),
        "label_names": (np.bytes_, (-1,)),
        "masks": (np.bytes_, (-1,)),
        "label_map": (np.int32, frame_hw),
        "region_ids": (np.int32, frame_hw),
    }
    return [Tensor(name, _KINDS[kind], dims) for name, (kind, dims) in kinds.items()]


def region_parameters(bundle: Bundle, plan: TritonPlan) -> dict[str, str]:
    """What makes regions of an assignment as a segmenter does, as JSON.

    Raises:
        OptionError: as `choose_parts`, or the head is for parts, which lie in a foreground of another head.
    """
    head, backbone, graph = choose_parts(bundle, plan.fused)
    if head.role == "parts":
        raise OptionError("head", f'"{head.name}" is for parts', "choose one for objects or names")
    rules = rules_of(head.calibration, Settings())
    told = {
        "labels": head.labels,
        "canvas": asdict(Canvas.of(plan.fused.frame_hw or graph.size_hw, backbone, graph)),
        "min_area_patches": bundle.spec.regions.min_area_patches,
        "refine": plan.refine,
        "color": plan.fused.color,
        "min_score": rules.min_score,
        "nothing_below": rules.nothing_below,
        "single": rules.single,
        "calibration": None if head.calibration is None else head.calibration.model_dump(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}


def _tensors(fused: bytes) -> tuple[Tensor, Tensor]:
    """The frame and the assignment of the file, whose first axis is the batch."""
    graph = onnx.load_model_from_string(fused).graph
    return _tensor(graph.input[0]), _tensor(graph.output[0])


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    _, *sides = (axis.dim_value for axis in kind.shape.dim)
    return Tensor(value.name, _TYPES[kind.elem_type], tuple(sides))


def _batched(plan: TritonPlan, inputs: list[Tensor], outputs: list[Tensor]) -> dict[str, Value]:
    return {
        "max_batch_size": plan.max_batch,
        "input": [one.message for one in inputs],
        "output": [one.message for one in outputs],
    }


def _together(plan: TritonPlan) -> dict[str, Value]:
    """Frames of several requests in one run."""
    if not plan.batches:
        return {}
    return {"dynamic_batching": {"max_queue_delay_microseconds": math.ceil(1e3 * plan.batch_wait_ms)}}


def _instances(plan: TritonPlan) -> dict[str, Value]:
    return {"count": plan.instances, "kind": Word("KIND_AUTO")}


def _step(model: str, inputs: list[Tensor], outputs: list[Tensor]) -> Mapping[str, Value]:
    """A step of the ensemble, whose tensors are called as the model calls them."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": entries({one.name: one.name for one in inputs}),
        "output_map": entries({one.name: one.name for one in outputs}),
    }


def _warm_up(plan: TritonPlan, image: Tensor) -> Iterator[Mapping[str, Value]]:
    """What runs before the model is ready: black frames, one and as many as there may be."""
    for batch in sorted({1, plan.max_batch}):
        blank = {"data_type": image.data_type, "dims": list(image.dims), "zero_data": True}
        yield {
            "name": f"{batch} at a time",
            "batch_size": batch,
            "inputs": entries({INPUT: blank}),
        }
