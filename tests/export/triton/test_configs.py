"""What is written for Triton, read by Triton's own protocol buffers."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
pytest.importorskip("onnx", reason="needs patchcut[export]")
model_config_pb2 = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]", exc_type=Exception
)
from google.protobuf import text_format
from patchcut_export.triton import plan
from patchcut_export.triton import text_format as text_format_module
from patchcut_export.triton.configs import region_tensors
from patchcut_export.triton.text_format import Word, entries, to_text
from tests.export.triton.conftest import FRAME_HW
from tests.runtime import toy_bundle as toy

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


def read(repository: Path, name: str) -> Any:
    text = (repository / name / "config.pbtxt").read_text("utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(values: Any) -> dict[str, tuple[str, list[int]]]:
    return {one.name: (model_config_pb2.DataType.Name(one.data_type), list(one.dims)) for one in values}


@pytest.fixture
def toy_repository(write: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    bundle = toy.write(tmp_path / "toy.patchcut")
    return lambda **changes: write(tmp_path / "models", bundle, **changes)


def test_the_models_tensors_are_those_of_the_file(repository: Path) -> None:
    config = read(repository, "seg_assignment")
    assert (config.name, config.backend, config.max_batch_size) == ("seg_assignment", "onnxruntime", 4)
    session = ort.InferenceSession(repository / "seg_assignment/1" / config.default_model_filename)
    for told, are in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert tensors(told) == {one.name: (TYPES[one.type], one.shape[1:]) for one in are}
        assert all(isinstance(one.shape[0], str) for one in are), "the batch is free"
    assert tensors(config.input) == {"image": ("TYPE_UINT8", [*FRAME_HW, 3])}


def test_the_ensemble_joins_the_two(repository: Path) -> None:
    whole, *steps = (read(repository, f"seg{end}") for end in ("", "_assignment", "_regions"))
    assert whole.platform == "ensemble" and not whole.backend
    held = tensors(whole.input)
    for told, model in zip(whole.ensemble_scheduling.step, steps, strict=True):
        assert (told.model_name, told.model_version) == (model.name, -1)
        assert whole.max_batch_size <= model.max_batch_size
        inputs = tensors(model.input)
        assert {name: held[source] for name, source in told.input_map.items()} == inputs
        outputs = tensors(model.output)
        assert set(told.output_map) == set(outputs)
        held |= {told.output_map[name]: what for name, what in outputs.items()}
    assert {name: held[name] for name in tensors(whole.output)} == tensors(whole.output)
    assert set(tensors(whole.output)) == {one.name for one in region_tensors(FRAME_HW)}


def test_outputs_are_called_as_patchcut_serve_calls_them() -> None:
    kserve = pytest.importorskip("patchcut_server.kserve", reason="needs patchcut[server]")
    served = {one["name"]: one["datatype"] for one in kserve._OUTPUTS}
    told = {one.name: one.data_type.removeprefix("TYPE_") for one in region_tensors(FRAME_HW)}
    assert told.pop("count") == "INT32"
    assert {name: kind.replace("STRING", "BYTES") for name, kind in told.items()} == served


def test_frames_wait_for_each_other_and_models_are_warm(toy_repository: Callable[..., Path]) -> None:
    made = toy_repository(batch_wait_ms=1.5, instances=3, max_batch=16)
    model, regions = read(made, "seg_assignment"), read(made, "seg_regions")
    assert model.dynamic_batching.max_queue_delay_microseconds == 1500
    assert [one.batch_size for one in model.model_warmup] == [1, 16]
    for one in model.model_warmup:
        (image,) = one.inputs.values()
        assert image.zero_data and list(image.dims) == [*FRAME_HW, 3]
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    groups = [(one.count, kinds.Name(one.kind)) for m in (model, regions) for one in m.instance_group]
    assert groups == [(3, "KIND_AUTO"), (3, "KIND_CPU")]


def test_frames_in_int8_are_not_rounded_with_those_of_others(toy_repository: Callable[..., Path]) -> None:
    model = read(toy_repository(precision="int8"), "seg_assignment")
    assert not model.HasField("dynamic_batching") and model.max_batch_size == 4


def test_a_refiner_is_shown_the_frame(toy_repository: Callable[..., Path]) -> None:
    made = toy_repository(refine="guided", color="rgb")
    regions = read(made, "seg_regions")
    assert tensors(regions.input)["image"] == ("TYPE_UINT8", [*FRAME_HW, 3])
    assert dict(read(made, "seg").ensemble_scheduling.step[1].input_map)["image"] == "image"
    told = {name: json.loads(one.string_value) for name, one in regions.parameters.items()}
    assert (told["refine"], told["color"], told["labels"]) == ("guided", "rgb", list(toy.LABELS))
    assert told["canvas"]["frame_hw"] == list(FRAME_HW)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    written = to_text({"name": text, "parameters": entries({text: {"string_value": text}})})
    read = text_format.Parse(written, model_config_pb2.ModelConfig())
    assert (read.name, read.parameters[text].string_value) == (text, text)


def test_lists_numbers_and_words_come_back() -> None:
    group = {"count": 2, "kind": Word("KIND_GPU"), "gpus": [0, 1], "passive": True}
    read = text_format.Parse(to_text({"instance_group": [group]}), model_config_pb2.ModelConfig())
    (found,) = read.instance_group
    assert (found.count, found.kind, list(found.gpus), found.passive) == (2, 1, [0, 1], True)


def test_examples_of_docstrings_run() -> None:
    for module in (plan, text_format_module):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed
