"""The model that Triton's Python backend runs, through a stand-in for Triton, held to patchcut itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import Result
from patchcut.errors import OptionError

pytest.importorskip("onnx", reason="needs patchcut[export]")
from patchcut_export.triton.configs import region_parameters, region_tensors
from patchcut_export.triton.plan import FusedPlan, TritonPlan
from tests.export.triton import backend_utils
from tests.export.triton.backend_utils import InferenceRequest
from tests.export.triton.conftest import FRAME_HW

ALL = tuple(one.name for one in region_tensors(FRAME_HW))
Answers = Callable[..., list[Any]]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend_utils)
    monkeypatch.delitem(sys.modules, "patchcut_export.triton.regions_model", raising=False)
    from patchcut_export.triton import regions_model

    return regions_model


@pytest.fixture
def start(module: ModuleType) -> Callable[..., Any]:
    """start(**parameters): the model, with these parameters over those of the embedded bundle."""

    def make(refine: str = "none", **changed: str) -> Any:
        plan = TritonPlan(fused=FusedPlan(frame_hw=FRAME_HW, color="bgr"), name="seg", refine=refine)
        with patchcut.open_bundle("default") as bundle:
            told = region_parameters(bundle, plan) | changed
        parameters = {name: {"string_value": text} for name, text in told.items()}
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps({"parameters": parameters})})
        return model

    return make


def ask(model: Any, *requests: InferenceRequest) -> list[dict[str, np.ndarray] | str]:
    """The arrays of each response, or what it says is wrong."""
    return [
        one.error.message() if one.error else {t.name(): t.as_numpy() for t in one.output_tensors}
        for one in model.execute(requests)
    ]


def check(told: dict[str, np.ndarray], i: int, result: Result) -> None:
    """Frame i of an answer is exactly what patchcut says of it."""
    count = len(result)
    assert told["count"][i].tolist() == [count]
    np.testing.assert_array_equal(told["label_map"][i], result.label_map)
    np.testing.assert_array_equal(told["region_ids"][i], result.region_ids)
    wanted = {
        "boxes": result.boxes,
        "scores": result.scores,
        "areas": result.areas,
        "label_ids": result.region_labels,
    }
    for name, array in wanted.items():
        np.testing.assert_array_equal(told[name][i][:count], array)
        assert not told[name][i][count:].any(), name
    names = [text.decode() for text in told["label_names"][i]]
    assert names == [*result.label_names, *[""] * (told["boxes"].shape[1] - count)]
    runs = [{"size": FRAME_HW, "counts": text} for text in told["masks"][i][:count]]
    for region, mask in enumerate(kernels.rle_decode(runs)):
        np.testing.assert_array_equal(mask > 0, result.region_ids == region + 1)


@pytest.mark.parametrize("refine", ["none", "guided"])
def test_regions_are_patchcuts(start: Any, frames: np.ndarray, refine: str) -> None:
    seg = patchcut.load(engine="onnxruntime", device="cpu", precision="fp32", refine=refine)
    results = [seg(frame) for frame in frames]
    rows = np.stack([one.assignment for one in results])
    inputs = {"assignment": rows} | ({} if refine == "none" else {"image": frames})
    (told,) = ask(start(refine), InferenceRequest(inputs, ALL))
    assert isinstance(told, dict) and list(told) != []
    for i, result in enumerate(results):
        check(told, i, result)
    for spec in region_tensors(FRAME_HW):
        assert told[spec.name].ndim == 1 + len(spec.dims)


def test_requests_are_answered_one_by_one(start: Any, results: list[Result]) -> None:
    requests = [InferenceRequest({"assignment": one.assignment[None]}, ALL) for one in results]
    for told, result in zip(ask(start(), *requests), results, strict=True):
        assert isinstance(told, dict)
        check(told, 0, result)
        assert told["boxes"].shape == (1, len(result), 4)


def test_only_what_is_asked_for_is_told(start: Any, results: list[Result]) -> None:
    rows = {"assignment": results[0].assignment[None]}
    (told,) = ask(start(), InferenceRequest(rows, ["boxes", "count"]))
    assert set(told) == {"boxes", "count"}


def test_what_is_no_number_is_an_error_of_its_own_request(start: Any, results: list[Result]) -> None:
    rows = results[0].assignment[None]
    bad = np.full_like(rows, np.nan)
    asked = [InferenceRequest({"assignment": one}, ALL) for one in (rows, bad, rows)]
    first, wrong, last = ask(start(), *asked)
    assert isinstance(first, dict) and isinstance(last, dict)
    assert isinstance(wrong, str) and wrong.startswith("[head] the assignment is not finite; ")


def test_parameters_of_the_file_are_heeded(start: Any, results: list[Result]) -> None:
    request = InferenceRequest({"assignment": results[0].assignment[None]}, ALL)
    (few,) = ask(start(min_score="1.0"), request)
    assert isinstance(few, dict) and few["count"].item() == 0 and not few["label_map"].any()
    (plain,) = ask(start(calibration="null"), request)
    assert isinstance(plain, dict) and plain["scores"][0, 0] != results[0].scores[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"min_score": "high"}, "[min_score] must be JSON in config.pbtxt, got 'high'"),
        ({"min_score": "7"}, "[min_score] must be a number from 0 to 1, got 7"),
        ({"refine": '"sharp"'}, "[refine] must be one of"),
    ],
)
def test_a_wrong_parameter_is_named(start: Any, changed: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        start(**changed)
    assert str(raised.value).startswith(said)


def test_it_needs_no_engine_and_no_opencv() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.export.triton import backend_utils
sys.modules["triton_python_backend_utils"] = backend_utils
from patchcut_export.triton import regions_model
print(*[one for one in ("cv2", "onnx", "onnxruntime", "torch") if one in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
