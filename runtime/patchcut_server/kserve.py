"""The Open Inference Protocol (KServe V2) over HTTP, as `tritonclient` speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
from patchcut import Frame, Result
from patchcut.errors import PatchcutError
from patchcut.frames import as_frame
from patchcut.pixels import PixelRule
from patchcut.settings import COLOR_ORDERS
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from patchcut_server.backend import Backend
from patchcut_server.model import OF_REQUESTS, changes_of
from patchcut_server.pictures import decode_picture, server_timing
from patchcut_server.pipeline import Job
from patchcut_server.refusals import Refusal, bad_request
from patchcut_server.segmenting import answered, taken
from patchcut_server.tensors import LENGTH_HEADER, Asked, Tensor, read_request, write_response

EXTENSIONS = ("binary_tensor_data", "model_repository")

# One of the two: pixels, or a picture file.
_INPUTS = (
    {"name": "image", "datatype": "UINT8", "shape": [-1, -1, 3]},
    {"name": "encoded", "datatype": "BYTES", "shape": [1]},
)
_OUTPUTS = (
    {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
    {"name": "scores", "datatype": "FP32", "shape": [-1]},
    {"name": "areas", "datatype": "INT64", "shape": [-1]},
    {"name": "label_ids", "datatype": "INT32", "shape": [-1]},
    {"name": "label_names", "datatype": "BYTES", "shape": [-1]},
    {"name": "masks", "datatype": "BYTES", "shape": [-1]},
    {"name": "label_map", "datatype": "INT32", "shape": [-1, -1]},
    {"name": "region_ids", "datatype": "INT32", "shape": [-1, -1]},
)
_NAMES = tuple(str(one["name"]) for one in _OUTPUTS)

Tensors = dict[str, tuple[str, Tensor]]


def server_metadata() -> dict[str, Any]:
    """What `GET /v2` tells."""
    return {"name": "patchcut", "version": patchcut.__version__, "extensions": list(EXTENSIONS)}


def model_metadata(backend: Backend) -> dict[str, Any]:
    """What `GET /v2/models/NAME` tells."""
    model = backend.model
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": "patchcut",
        "inputs": list(_INPUTS),
        "outputs": list(_OUTPUTS),
        "parameters": {"labels": list(model.now.head.labels), "settings": list(OF_REQUESTS)},
    }


def check_model(backend: Backend, name: str, version: str | None = None) -> None:
    """Checks that a model is the one that is served.

    Raises:
        Refusal: 404.
    """
    model = backend.model
    if name != model.name:
        raise Refusal(404, PatchcutError("model", f"is {model.name}, not {name[:60]!r}"), "not found")
    if version is not None and version != str(model.version):
        what = f"{model.name} is served in version {model.version}, not {version[:60]!r}"
        raise Refusal(404, PatchcutError("model", what), "not found")


async def infer(backend: Backend, request: Request) -> Response:
    """The tensors of a result."""
    name, version = request.path_params["model"], request.path_params.get("version")
    check_model(backend, name, version)
    async with taken(backend, request, "infer") as (body, span):
        length = request.headers.get(LENGTH_HEADER)
        asked = await asyncio.to_thread(read_request, body, length, _NAMES)  # JSON may take a second
        job = _job(backend, asked)
        data, json_bytes = await answered(backend, request, job, span)
    headers = {"Server-Timing": server_timing(job.timings_ms)}
    if json_bytes is None:
        return Response(data, media_type="application/json", headers=headers)
    headers[LENGTH_HEADER] = str(json_bytes)
    return Response(data, media_type="application/octet-stream", headers=headers)


async def repository_index(backend: Backend, request: Request) -> Response:
    """The model, as the extension model_repository lists it."""
    model = backend.model
    entry = {"name": model.name, "version": str(model.version), "state": "READY", "reason": ""}
    return JSONResponse([entry])


async def repository_load(backend: Backend, request: Request) -> Response:
    """Loads the bundle again; 503 where that cannot be, and then the one before goes on answering."""
    check_model(backend, request.path_params["model"])
    version = await backend.reload()
    return Response(json.dumps({"version": str(version)}), media_type="application/json")


def _job(backend: Backend, asked: Asked) -> Job:
    settings = backend.model.settings
    words: dict[str, str] = {}
    for name, value in asked.parameters.items():
        if name in OF_REQUESTS:
            if not isinstance(value, str | int | float):
                raise bad_request("parameters", f"{name} must be a text, a number or true or false")
            words[name] = str(value)
        elif name not in ("color", "binary_data_output", "priority", "timeout"):
            known = ", ".join(("color", *OF_REQUESTS))
            raise bad_request("parameters", f"has no {name[:60]!r}; there are {known}")
    color = asked.parameters.get("color", "bgr")
    if color not in COLOR_ORDERS:
        what = f"color must be one of {', '.join(COLOR_ORDERS)}, got {str(color)[:60]!r}"
        raise bad_request("parameters", what)
    decode = partial(_frame, asked, color, settings.pixel_rule)

    def answer(result: Result) -> tuple[bytes, int | None]:
        head = {"model_name": backend.model.name, "model_version": str(backend.model.version)}
        head |= {"id": asked.id} if asked.id else {}
        return write_response(head, _tensors(result, asked.outputs), asked.outputs)

    return Job(decode, answer, changes_of(words, settings))


def _frame(asked: Asked, color: Any, rule: PixelRule) -> Frame:
    """The frame of a request's one input."""
    if len(asked.inputs) != 1:
        raise bad_request("inputs", "must be one: image [H, W, 3] UINT8, or encoded [1] BYTES, a file")
    ((name, tensor),) = asked.inputs.items()
    if name == "encoded" and isinstance(tensor, list) and len(tensor) == 1:
        return decode_picture(tensor[0], rule, "encoded")
    if name == "image" and not isinstance(tensor, list):
        if tensor.ndim != 3 or tensor.shape[2] != 3 or tensor.dtype != np.uint8 or not tensor.size:
            what = f"must be [H, W, 3] UINT8 with pixels, got {list(tensor.shape)} {tensor.dtype}"
            raise bad_request("input image", what)
        return as_frame(tensor, color, rule)
    what = f"must be image [H, W, 3] UINT8, or encoded [1] BYTES, got {name[:60]!r}"
    raise bad_request("inputs", what)


def _tensors(result: Result, wanted: Collection[str]) -> Tensors:
    """The outputs that are wanted; masks are COCO's compressed run lengths."""
    found: Tensors = {
        "boxes": ("FP32", result.boxes),
        "scores": ("FP32", result.scores),
        "areas": ("INT64", result.areas),
        "label_ids": ("INT32", result.region_labels),
        "label_names": ("BYTES", [name.encode() for name in result.label_names]),
        "label_map": ("INT32", result.label_map),
        "region_ids": ("INT32", result.region_ids),
    }
    if "masks" in wanted:
        rles = kernels.rle_encode(result.region_ids, len(result), text=True)
        found["masks"] = ("BYTES", [str(rle["counts"]).encode() for rle in rles])
    return found
