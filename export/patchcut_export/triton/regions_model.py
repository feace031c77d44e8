"""What Triton's Python backend runs: regions of frames whose assignment another model computed.

`patchcut export triton` writes it as model.py. Its settings are the parameters of config.pbtxt. The Python
that Triton starts needs patchcut, without extras, and a numpy that Triton's backend knows: numpy 1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
import triton_python_backend_utils as triton
from patchcut.bundle import CalibrationSpec
from patchcut.errors import OptionError, PatchcutError
from patchcut.frames import Frame
from patchcut.opening import rules_of
from patchcut.settings import Settings
from patchcut.stages import Canvas, Masks, Regions

Arrays = dict[str, npt.NDArray[Any]]
_OF_REGIONS = ("boxes", "scores", "areas", "label_ids", "label_names", "masks")


class TritonPythonModel:
    """Triton calls its methods; a request is b frames, its answer the regions of each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters of config.pbtxt.

        Raises:
            OptionError: one of them has a value that is not allowed.
        """
        told = json.loads(args["model_config"])["parameters"]
        chosen = {name: _value(name, one["string_value"]) for name, one in told.items()}
        self._labels: list[str] = chosen["labels"]
        self._canvas = Canvas(**{name: tuple(pair) for name, pair in chosen["canvas"].items()})
        self._color = chosen["color"]
        calibration = chosen["calibration"] and CalibrationSpec.model_validate(chosen["calibration"])
        names = ("refine", "min_score", "nothing_below", "single")
        settings = Settings(**{name: chosen[name] for name in names})
        self._masks = Masks(chosen["min_area_patches"], rules_of(calibration, settings), settings.refine)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request: tensors, or an error that says what is wrong."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            arrays = self._arrays(request)
        except PatchcutError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        return triton.InferenceResponse([triton.Tensor(name, array) for name, array in arrays.items()])

    def _arrays(self, request: Any) -> Arrays:
        assignments = triton.get_input_tensor_by_name(request, "assignment").as_numpy()
        image = triton.get_input_tensor_by_name(request, "image")
        blank = np.zeros((*self._canvas.frame_hw, 3), np.uint8) if image is None else None
        images = [blank] * len(assignments) if image is None else image.as_numpy()
        wanted = request.requested_output_names()
        found = [self._regions(*both) for both in zip(images, assignments, strict=True)]
        return _batched([self._told(regions, wanted) for regions in found], wanted)

    def _regions(self, image: npt.NDArray[np.uint8], assignment: npt.NDArray[np.float32]) -> Regions:
        if not np.isfinite(assignment).all():
            remedy = "the backbone overflows in this precision: export another one"
            raise PatchcutError("head", "the assignment is not finite", remedy)
        return self._masks(Frame(image, self._color), assignment, self._canvas)

    def _told(self, regions: Regions, wanted: Collection[str]) -> Arrays:
        """What is told of one frame with m regions."""
        count = len(regions.scores)
        told: Arrays = {
            "count": np.array([count], np.int32),
            "boxes": regions.boxes,
            "scores": regions.scores,
            "areas": regions.areas,
            "label_ids": regions.region_labels,
            "label_map": regions.label_map,
            "region_ids": regions.region_ids,
        }
        if "label_names" in wanted:
            told["label_names"] = _texts([self._labels[label] for label in regions.region_labels])
        if "masks" in wanted:
            rles = kernels.rle_encode(regions.region_ids, count, text=True)
            told["masks"] = _texts([str(rle["counts"]) for rle in rles])
        return told


def _value(name: str, text: str) -> Any:
    """What a parameter says, as JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(name, f"must be JSON in config.pbtxt, got {text[:60]!r}") from error


def _batched(frames: Sequence[Arrays], wanted: Collection[str]) -> Arrays:
    """The tensors of all frames; those with fewer regions end with zeros, or empty texts."""
    most = max(int(frame["count"][0]) for frame in frames)
    padded = {
        name: np.stack([_padded(frame[name], most) for frame in frames])
        for name in _OF_REGIONS
        if name in wanted
    }
    plain = [name for name in ("count", "label_map", "region_ids") if name in wanted]
    return {name: np.stack([frame[name] for frame in frames]) for name in plain} | padded


def _padded(array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """[count, ...] of [m, ...]."""
    whole = np.full((count, *array.shape[1:]), b"" if array.dtype == np.object_ else 0, array.dtype)
    whole[: len(array)] = array
    return whole


def _texts(texts: Sequence[str]) -> npt.NDArray[Any]:
    """[m] of bytes, as Triton takes a tensor of texts."""
    return np.array([text.encode() for text in texts], np.object_)
