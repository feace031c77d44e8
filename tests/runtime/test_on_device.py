"""A frame that stays on the GPU gives what the CPU gives: one copy up, one copy down.

The kernels are those of CUDA, run by the host; the backbone is a fake ONNX Runtime that reads and writes the
same memory.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import Result, Segmenter
from patchcut.engines import onnxruntime as adapter
from patchcut.stages import masks
from patchcut_kernels import cuda
from patchcut_kernels.cuda import DeviceArray

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.fake_onnxruntime import CPU, CUDA, fake_runtime
from tests.runtime.results import check_consistent

pytestmark = pytest.mark.skipif(
    not cuda.is_available() or cuda.device_name() != "host",
    reason="needs kernels that were built with PATCHCUT_CUDA=HOST",
)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """on_device(bundle, **settings): a segmenter whose engine has its memory on the device."""

    def load(bundle: Path, **settings: Any) -> Segmenter:
        with monkeypatch.context() as fake:
            fake.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CUDA, CPU]))
            return patchcut.load(bundle, device="cuda", precision="fp32", **settings)

    return load


def alike(got: Result, expected: Result) -> None:
    """Equal up to the rounding of the kernels' sums, which may turn single pixels of a border."""
    check_consistent(got, expected.label_map.shape)
    assert len(got) == len(expected) >= 1
    np.testing.assert_allclose(got.assignment, expected.assignment, atol=2e-4)
    assert np.mean(got.label_map == expected.label_map) > 0.999
    assert np.mean(got.region_ids == expected.region_ids) > 0.999
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(got.boxes, expected.boxes, atol=2)
    np.testing.assert_allclose(got.confidence, expected.confidence, atol=1e-3)
    np.testing.assert_array_equal(got.region_labels, expected.region_labels)


@pytest.mark.parametrize("size", toy.SIZES)
def test_a_frame_goes_up_once_and_comes_down_once(
    on_device: Any, toy_bundle: Path, photo: np.ndarray, transfers: list[tuple[str, int]], size: int
) -> None:
    segmenter = on_device(toy_bundle, size=size)
    expected = patchcut.load(toy_bundle, precision="fp32", size=size)(photo)
    segmenter(photo[::2])  # the head's weights are packed
    transfers.clear()
    result = segmenter(photo)  # the first of its size, stage by stage
    assert [direction for direction, _ in transfers] == ["up", "down"]
    assert transfers[0] == ("up", photo.nbytes)
    pixels = photo.shape[0] * photo.shape[1]
    assert 4 * pixels <= transfers[1][1] < 5 * pixels, "ids and what is known of the regions"
    alike(result, expected)
    assert [direction for direction, _ in transfers[2:]] == ["down", "down"], "on first use"


def test_regions_below_the_limit_are_none_there_either(
    on_device: Any, toy_bundle: Path, photo: np.ndarray, transfers: list[tuple[str, int]]
) -> None:
    scores = patchcut.load(toy_bundle, precision="fp32")(photo).scores
    limit = float(scores[len(scores) // 2 - 1 :][:2].mean())
    segmenter = on_device(toy_bundle, nothing_below=limit)
    segmenter(photo[::2])
    transfers.clear()
    result = segmenter(photo)
    assert [direction for direction, _ in transfers] == ["up", "down"]
    assert 1 <= len(result) < len(scores)
    alike(result, patchcut.load(toy_bundle, precision="fp32", nothing_below=limit)(photo))


def test_what_runs_where_is_told(on_device: Any, toy_bundle: Path) -> None:
    described = on_device(toy_bundle).describe()
    assert (described.device, described.provider, described.head_device) == ("cuda", CUDA, "cuda")
    assert on_device(toy_bundle, head="kmeans").describe().head_device == "cpu"


def test_features_are_on_the_device_and_come_down_when_asked(
    on_device: Any, toy_bundle: Path, photo: np.ndarray, transfers: list[tuple[str, int]]
) -> None:
    segmenter = on_device(toy_bundle)
    transfers.clear()
    features = segmenter.extractor([patchcut.Frame(photo), patchcut.Frame(photo[::2])])
    assert isinstance(features["key"], DeviceArray) and (features.device, features.batch) == ("cuda", 2)
    assert [direction for direction, _ in transfers][-2:] == ["up", "up"]
    host = features.to("cpu")
    assert host.device == "cpu" and host.to("cpu") is host and features.to("cuda") is features
    cpu = patchcut.load(toy_bundle, precision="fp32").extractor
    expected = cpu([patchcut.Frame(photo), patchcut.Frame(photo[::2])])
    np.testing.assert_allclose(host["key"], expected["key"], atol=2e-3)
    assignment = segmenter.head(features)
    assert isinstance(assignment, DeviceArray) and assignment.shape == (2, 64, 3)
    on_host = segmenter.head(host)
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_allclose(on_host, assignment.numpy(), atol=2e-4)
    np.testing.assert_array_equal(segmenter.head(features).numpy(), assignment.numpy())


@pytest.mark.parametrize(
    "settings",
    [
        {"head": "kmeans:k=3"},
        {"refine": "guided"},
        {"mode": "parts"},
        {"mode": "scene", "parts": "kmeans:k=2"},
        {"single": True},
    ],
    ids=str,
)
def test_what_does_not_run_on_the_device_comes_down(
    on_device: Any, toy_bundle: Path, photo: np.ndarray, settings: dict[str, Any]
) -> None:
    result = on_device(toy_bundle, **settings)(photo)
    expected = patchcut.load(toy_bundle, precision="fp32", **settings)(photo)
    assert result.labels == expected.labels
    np.testing.assert_allclose(result.assignment, expected.assignment, atol=2e-4)
    assert np.mean(result.label_map == expected.label_map) > 0.99


def test_a_letterboxed_frame_is_cut_out_on_the_host(
    on_device: Any, tmp_path: Path, photo: np.ndarray, transfers: list[tuple[str, int]]
) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["fit"] = "letterbox"
    path = toy.write(tmp_path / "letterbox.patchcut", files, spec)
    segmenter = on_device(path)
    segmenter(photo)
    transfers.clear()
    result = segmenter(photo)
    assert [direction for direction, _ in transfers] == ["up", "down"]
    alike(result, patchcut.load(path, precision="fp32")(photo))
    assert len(transfers) == 2


def test_many_small_components_are_found_on_the_host(
    on_device: Any,
    toy_bundle: Path,
    photo: np.ndarray,
    transfers: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = on_device(toy_bundle)
    expected = segmenter(photo)
    monkeypatch.setattr(masks, "MAX_PACKED_COMPONENTS", 127)  # 128 halves of patches
    transfers.clear()
    result = segmenter(photo)
    assert [direction for direction, _ in transfers] == ["up", "down"]
    assert transfers[1][1] < photo.size, "the assignment alone"
    alike(result, expected)


def test_frames_of_all_sizes_stay_consistent(on_device: Any, toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = on_device(toy_bundle)
    for size_hw in ((1, 1), (3, 2), (97, 131), (1, 900)):
        result = segmenter(np.ascontiguousarray(photo[: size_hw[0], : size_hw[1]]))
        check_consistent(result, result.label_map.shape)


def test_a_result_is_copied_and_pickled_without_memory_of_the_device(
    on_device: Any, toy_bundle: Path, photo: np.ndarray
) -> None:
    segmenter = on_device(toy_bundle)
    for other in (copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))):
        result = segmenter(photo)
        made = other(result)
        assert not any(isinstance(value, DeviceArray) for value in vars(made).values())
        assert isinstance(vars(result)["assignment"], DeviceArray), "the result itself is as it was"
        alike(made, result)
        del result, made
    assert len(segmenter(photo)), "no memory was given back twice"


def test_a_head_that_runs_on_the_device_alone_stays_there(
    on_device: Any, toy_bundle: Path, photo: np.ndarray
) -> None:
    class Own:
        name, labels, needs, devices = "own", ("background", "left"), (), ("cuda",)

        def __call__(self, features: patchcut.Features) -> DeviceArray:
            assert isinstance(features.default, DeviceArray)
            columns = np.repeat([[[1, 0], [0, 1]]], features.default.shape[1] // 2, axis=1)
            return cuda.to_device(np.float32(columns))

    segmenter = on_device(toy_bundle, head=Own())
    assert segmenter.describe().head_device == "cuda" and len(segmenter(photo)) == 1
    with pytest.raises(patchcut.OptionError, match=r'\[parts\] "own" runs on cuda, its features are on cpu'):
        on_device(toy_bundle, mode="parts", parts=Own())


@pytest.mark.parametrize("settings", [{}, {"refine": "guided"}, {"mode": "parts"}], ids=str)
def test_features_that_are_not_finite_are_told(
    on_device: Any,
    toy_bundle: Path,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    segmenter = on_device(toy_bundle, **settings)
    engine = segmenter.extractor.engine
    run = engine.run

    def overflowing(batch: int) -> Any:
        features = {name: array.numpy() for name, array in run(batch).items()}
        features["key"][0, 3, 2] = np.inf
        return {name: cuda.to_device(array) for name, array in features.items()}

    monkeypatch.setattr(engine, "run", overflowing)
    with pytest.raises(patchcut.EngineError, match="finite"):
        segmenter(photo)


def test_features_go_down_and_not_up(on_device: Any, toy_bundle: Path, photo: np.ndarray) -> None:
    features = on_device(toy_bundle).extractor([patchcut.Frame(photo)])
    with pytest.raises(ValueError, match=r"\[features\] on cpu stay there or come to cpu, got device cuda"):
        features.to("cpu").to("cuda")


def test_all_of_a_frame_is_done_in_the_order_of_the_engines_stream(
    on_device: Any, toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = on_device(toy_bundle)
    streams = []

    def spied(image: DeviceArray, *args: Any, preprocess: Any = kernels.preprocess, **settings: Any) -> Any:
        streams.append(image.stream)
        return preprocess(image, *args, **settings)

    monkeypatch.setattr(kernels, "preprocess", spied)
    result = segmenter(photo)
    streams += [vars(result)[name].stream for name in ("assignment", "confidence")]
    assert {stream.handle for stream in streams} == {segmenter.extractor.engine.images(1).stream.handle}
    assert streams[0].handle != cuda.empty(1).stream.handle, "not the legacy default stream"


def test_onnxruntime_works_in_the_order_of_that_stream_and_does_not_wait(
    on_device: Any, toy_bundle: Path
) -> None:
    engine = on_device(toy_bundle).extractor.engine
    on_stream = {"device_id": "0", "user_compute_stream": str(engine.images(1).stream.handle)}
    (name, options), last = engine._session.providers
    assert (name, last) == (CUDA, CPU)
    assert on_stream.items() <= options.items()
    assert engine._run_options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    on_cpu: Any = patchcut.load(toy_bundle).extractor.engine
    with pytest.raises(RuntimeError):
        on_cpu._run_options.get_run_config_entry("disable_synchronize_execution_providers")
