from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patchcut import EngineError, Frame, FrameError, Segmenter, SourceError
from patchcut.bundle import BackboneSpec, GraphSpec
from patchcut.sources import Source
from patchcut.stages import Canvas
from patchcut_kernels import reference
from PIL import Image

from tests.runtime import toy_bundle as toy
from tests.runtime.results import ARRAYS, check_consistent, same
from tests.runtime.toy_bundle import reference_features, toy_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference_assignment(frame: np.ndarray, size: int) -> np.ndarray:
    image = reference.preprocess(frame, (size, size), MEAN, STD)
    rows = reference_features(image, "fp32")
    return reference.gcn_forward(rows, reference.affinity(rows), toy_weights())


@pytest.mark.parametrize("size", toy.SIZES)
def test_the_whole_way_is_the_reference(toy_bundle: Path, photo: np.ndarray, size: int) -> None:
    frame = np.ascontiguousarray(photo[::4, ::4])
    height, width = frame.shape[:2]
    result = patchcut.load(toy_bundle, size=size)(frame)
    expected = reference_assignment(frame, size)
    assert expected.std(axis=0).min() > 0.01
    np.testing.assert_allclose(result.assignment, expected, atol=1e-3)

    grid_hw = result.grid_hw
    label_map, confidence = reference.upsample_argmax(result.assignment, grid_hw, (height, width))
    min_area = int(np.ceil(0.5 * height * width / (grid_hw[0] * grid_hw[1])))
    ids, count = reference.connected_components(label_map, min_area=min_area)
    label_map[ids == 0] = 0
    assert count >= 3
    assert np.mean(result.label_map == label_map) > 0.999  # a tie may round the other way
    np.testing.assert_allclose(result.confidence, confidence, atol=1e-3)
    means = np.array([confidence[ids == i + 1].mean() for i in range(count)])
    areas = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    scores = np.sort(means * areas / (areas + 0.01 * height * width))[::-1]
    np.testing.assert_allclose(result.scores, scores, atol=1e-3)
    order = np.argsort(-means * areas / (areas + 0.01 * height * width))
    np.testing.assert_allclose(result.areas, areas[order], atol=20)


def test_photos_have_every_label(
    toy_segmenter: Segmenter, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    for frame in (photo, second_photo):
        result = toy_segmenter(frame)
        assert set(np.unique(result.label_map)) == {0, 1, 2}
        check_consistent(result, frame.shape[:2])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    top=st.integers(0, 300),
    left=st.integers(0, 500),
    noise=st.booleans(),
)
def test_results_are_consistent_at_any_size(
    toy_segmenter: Segmenter, photo: np.ndarray, height: int, width: int, top: int, left: int, noise: bool
) -> None:
    frame = photo[top : top + height, left : left + width]
    if noise:
        frame = np.random.default_rng(top).integers(0, 256, frame.shape, np.uint8)
    check_consistent(toy_segmenter(frame), frame.shape[:2])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 20_000), (20_000, 1), (3, 2), (13, 15)])
def test_odd_frames_give_a_valid_result(toy_segmenter: Segmenter, size_hw: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    result = toy_segmenter(frame)
    check_consistent(result, size_hw)
    assert result.overlay(frame).shape == frame.shape


@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_flat_frame_gives_a_valid_result(toy_segmenter: Segmenter, value: int) -> None:
    check_consistent(toy_segmenter(np.full((40, 50, 3), value, np.uint8)), (40, 50))


def test_strides_do_not_matter(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    padded = np.zeros((photo.shape[0], photo.shape[1] + 7, 4), np.uint8)
    padded[:, 7:, :3] = photo
    views = [
        photo[::-1],
        photo[:, ::-1],
        photo[..., ::-1],
        photo[::2, 1::3],
        photo.transpose(1, 0, 2),
        padded[:, 7:, :3],
        np.asfortranarray(photo),
        np.broadcast_to(photo[:1], photo.shape),
    ]
    for view in views:
        same(toy_segmenter(view), toy_segmenter(np.ascontiguousarray(view)))


def test_read_only_frames_stay_as_they_are(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    frozen = photo.copy()
    frozen.flags.writeable = False
    result = toy_segmenter(frozen)
    same(result, toy_segmenter(photo))
    result.overlay(frozen)
    np.testing.assert_array_equal(frozen, photo)


def test_the_order_of_channels_is_told_at_load(toy_bundle: Path, photo: np.ndarray) -> None:
    bgr, rgb = patchcut.load(toy_bundle), patchcut.load(toy_bundle, color="rgb")
    flipped = np.ascontiguousarray(photo[..., ::-1])
    expected = bgr(photo)
    same(rgb(flipped), expected)
    same(bgr(Image.fromarray(flipped)), expected)
    same(rgb(Image.fromarray(flipped)), expected)
    same(bgr(Frame(flipped, "rgb")), expected)
    assert (expected.color, rgb(flipped).color, bgr(Image.fromarray(flipped)).color) == ("bgr", "rgb", "rgb")
    assert np.any(bgr(flipped).assignment != expected.assignment)


def test_a_frame_twice_gives_the_same_result(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    same(toy_segmenter(photo), toy_segmenter(photo))


def test_results_are_not_views_of_reused_memory(
    toy_segmenter: Segmenter, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    first = toy_segmenter(photo)
    kept = {name: getattr(first, name).copy() for name in ARRAYS}
    second = toy_segmenter(second_photo)
    assert np.any(second.assignment != first.assignment)
    for name, array in kept.items():
        np.testing.assert_array_equal(getattr(first, name), array, err_msg=name)


def test_kernel_threads_do_not_change_a_bit(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    before = kernels.get_threads()
    try:
        kernels.set_threads(1)
        alone = toy_segmenter(photo)
        kernels.set_threads(3)
        same(toy_segmenter(photo), alone)
    finally:
        kernels.set_threads(before)


def test_engine_threads_do_not_change_the_result(toy_bundle: Path, photo: np.ndarray) -> None:
    before = kernels.get_threads()
    try:
        one, three = (patchcut.load(toy_bundle, threads=count)(photo) for count in (1, 3))
    finally:
        kernels.set_threads(before)
    # ONNX Runtime splits its sums by the number of threads
    np.testing.assert_allclose(three.assignment, one.assignment, atol=1e-5)
    assert np.mean(three.label_map == one.label_map) > 0.999


def test_threads_reach_the_kernels(toy_bundle: Path) -> None:
    before = kernels.get_threads()
    try:
        patchcut.load(toy_bundle, threads=3)
        assert kernels.get_threads() == 3
        patchcut.load(toy_bundle)
        assert kernels.get_threads() == 3
    finally:
        kernels.set_threads(before)


def test_calls_from_many_threads_wait_for_each_other(
    toy_segmenter: Segmenter, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    expected = [toy_segmenter(photo), toy_segmenter(second_photo)]
    wrong: list[BaseException] = []

    def work(which: int) -> None:
        try:
            for _ in range(20):
                same(toy_segmenter((photo, second_photo)[which]), expected[which])
        except AssertionError as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_every_stage_is_timed(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    timings = toy_segmenter(photo).timings_ms
    assert list(timings) == ["preprocess", "backbone", "head", "masks"]
    assert all(0 < ms < 10_000 for ms in timings.values())


def test_a_stream_times_its_source_first(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    def slow() -> Iterator[np.ndarray]:
        time.sleep(0.05)
        yield photo

    (result,) = toy_segmenter.stream(slow())
    assert list(result.timings_ms) == ["read", "preprocess", "backbone", "head", "masks"]
    assert result.timings_ms["read"] >= 50


def test_a_frame_hands_its_origin_on(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(Frame(photo, "bgr", "walk/0001.jpg", 7, 0.25))
    assert (result.name, result.index, result.time_s) == ("walk/0001.jpg", 7, 0.25)


def test_an_error_leaves_the_segmenter_usable(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(toy_bundle)
    expected = segmenter(photo)
    with pytest.raises(FrameError):
        segmenter(photo[..., :2])
    engine, features = segmenter.extractor.engine, np.full((1, 64, toy.DIM), np.nan, np.float32)
    with monkeypatch.context() as broken, pytest.raises(EngineError):
        broken.setattr(engine, "run", lambda batch: {"key": features})
        segmenter(photo)
    same(segmenter(photo), expected)


def test_specks_are_dropped_from_the_label_map(tmp_path: Path, photo: np.ndarray) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    counts = []
    for patches in (0.0, 0.5, 4.0, 64.0):
        spec["regions"]["min_area_patches"] = patches
        result = patchcut.load(toy.write(tmp_path / "x.patchcut", files, spec))(photo)
        check_consistent(result, photo.shape[:2])
        assert all(area >= patches * photo.shape[0] * photo.shape[1] / 64 for area in result.areas)
        counts.append(len(result))
    assert counts[0] >= counts[1] > counts[2] > counts[3] == 0


def test_regions_below_the_lowest_score_are_nowhere(
    toy_segmenter: Segmenter, toy_bundle: Path, photo: np.ndarray
) -> None:
    every = toy_segmenter(photo)
    assert len(every) >= 3
    for lowest in (0, every.scores[2], float(every.scores[0]), 1.0):
        result = patchcut.load(toy_bundle, min_score=lowest)(photo)
        check_consistent(result, photo.shape[:2])
        kept = int(np.sum(every.scores >= np.float32(lowest)))
        np.testing.assert_array_equal(result.scores, every.scores[:kept])
        np.testing.assert_array_equal(result.boxes, every.boxes[:kept])
        ids = np.where(every.region_ids <= kept, every.region_ids, 0)
        np.testing.assert_array_equal(result.region_ids, ids)
        np.testing.assert_array_equal(result.label_map, np.where(ids > 0, every.label_map, 0))
    assert kept == 0


@pytest.fixture
def letterboxed(tmp_path: Path) -> Segmenter:
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["fit"] = "letterbox"
    return patchcut.load(toy.write(tmp_path / "letterbox.patchcut", files, spec))


def test_a_square_frame_needs_no_letterbox(
    toy_segmenter: Segmenter, letterboxed: Segmenter, photo: np.ndarray
) -> None:
    for side in (100, 112, 427):
        same(letterboxed(photo[:side, :side]), toy_segmenter(photo[:side, :side]))


@pytest.mark.parametrize("turned", [False, True])
def test_a_letterboxed_result_lies_where_the_frame_does(
    letterboxed: Segmenter, photo: np.ndarray, turned: bool
) -> None:
    """The label map of the square that the image covers, with the frame's part cut out of it."""
    frame = photo[60:260, 150:550].transpose(1, 0, 2) if turned else photo[60:260, 150:550]
    result = letterboxed(frame)
    check_consistent(result, frame.shape[:2])
    image = reference.preprocess(frame, (112, 112), MEAN, STD, fit="letterbox")
    rows = reference_features(image, "fp32")
    expected = reference.gcn_forward(rows, reference.affinity(rows), toy_weights())
    np.testing.assert_allclose(result.assignment, expected, atol=1e-3)

    square, _ = reference.upsample_argmax(result.assignment, result.grid_hw, (400, 400))
    window = np.s_[:, 100:300] if turned else np.s_[100:300, :]
    ids, count = reference.connected_components(
        np.ascontiguousarray(square[window]), min_area=400 * 400 // 64 // 2
    )
    assert count >= 2
    assert np.mean(result.label_map == np.where(ids > 0, square[window], 0)) > 0.999


def canvas_of(frame_hw: tuple[int, int], size: int, fit: str, stride: int = toy.PATCH) -> Canvas:
    """The canvas of a frame in a square image of patches that may overlap."""
    count = (size - toy.PATCH) // stride + 1
    graph = GraphSpec(file="x", size_hw=(size, size), grid_hw=(count, count), precision="fp32")
    spec = toy.manifest(toy.members())["backbones"]["toy"]
    backbone = BackboneSpec.model_validate({**spec, "fit": fit, "stride": stride, "graphs": [graph]})
    return Canvas.of(frame_hw, backbone, graph)


@example(height=537, width=2111, size=112)  # the corner is exactly half a pixel off
@given(height=st.integers(1, 5000), width=st.integers(1, 5000), size=st.sampled_from([112, 224, 448]))
def test_a_canvas_holds_its_frame_where_the_image_does(height: int, width: int, size: int) -> None:
    canvas = canvas_of((height, width), size, "letterbox")
    x0, y0, x1, y1 = kernels.letterbox_xyxy((height, width), (size, size))
    for side, corner, length, begin, end in zip(
        canvas.size_hw, canvas.corner_yx, (height, width), (y0, x0), (y1, x1), strict=True
    ):
        assert corner >= 0 and corner + length <= side
        scale, half = Fraction(length, end - begin), Fraction(1, 2)  # frame pixels a pixel of the image
        assert abs(corner - begin * scale) <= half and abs(side - size * scale) <= half


@example(height=1, width=900, size=112, stride=1, fit="letterbox")
@example(height=242, width=402, size=112, stride=12, fit="letterbox")
@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    size=st.sampled_from([112, 210]),
    stride=st.integers(1, 13),
    fit=st.sampled_from(["stretch", "letterbox"]),
)
def test_overlapping_patches_lie_where_they_look(
    height: int, width: int, size: int, stride: int, fit: str
) -> None:
    """What each patch sees the middle of, upsampled, is where each pixel is; beyond the outermost, theirs."""
    patch = 14
    count = (size - patch) // stride + 1
    canvas = canvas_of((height, width), size, fit, stride)
    x0, y0, x1, y1 = kernels.letterbox_xyxy((height, width), (size, size))
    spans = [(y0, y1), (x0, x1)] if fit == "letterbox" else [(0, size)] * 2
    centres = patch / 2 + stride * np.arange(count)
    ramps = []
    for side in canvas.size_hw:
        at = (np.arange(side) + 0.5) * count / side - 0.5
        ramps.append(np.interp(at, np.arange(count), centres))
    for axis, (ramp, length, (begin, end)) in enumerate(zip(ramps, (height, width), spans, strict=True)):
        values = ramp[:, None] if axis == 0 else ramp[None]
        got = canvas.on_frame(np.broadcast_to(values, canvas.size_hw))
        assert got.shape == (height, width)
        line = got[:, 0] if axis == 0 else got[0]
        true = begin + (np.arange(length) + 0.5) * (end - begin) / length
        # four roundings to whole pixels of the frame: begin and length, of the image and of the grid
        allowed = 2.01 * (end - begin) / length
        assert np.abs(line - true.clip(centres[0], centres[-1])).max() <= allowed


def test_a_stream_yields_results_as_they_are_asked_for(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    taken = []

    def camera() -> object:
        for i in range(5):
            taken.append(i)
            yield photo[: 100 + i]

    results = toy_segmenter.stream(camera(), queue=0)
    assert taken == []
    assert next(results).label_map.shape == (100, 640)
    assert taken == [0]
    assert [r.index for r in results] == [1, 2, 3, 4]


def test_a_stream_is_opened_when_it_is_asked_for(toy_segmenter: Segmenter) -> None:
    with pytest.raises(SourceError, match=r"typo.mp4\] does not exist"):
        toy_segmenter.stream("typo.mp4")


def test_results_of_a_stream_hold_their_frames(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    frames = [photo, photo[::2]]
    results = list(toy_segmenter.stream(frames))
    assert [result.frame is frame for result, frame in zip(results, frames, strict=True)] == [True, True]
    np.testing.assert_array_equal(results[1].overlay(), results[1].overlay(frames[1]))


def test_a_stream_logs_what_it_skips(
    toy_segmenter: Segmenter, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [photo, photo[:, :, :2], photo, np.full((4, 4, 3), np.nan, np.float32)]
    assert len(list(toy_segmenter.stream(frames))) == 2
    assert [record.name for record in caplog.records] == ["patchcut", "patchcut"]
    assert "frame 1" in caplog.messages[0]
    assert "frame 3" in caplog.messages[1]


@pytest.mark.parametrize("taken", [1, 3])
def test_a_stream_closes_its_source(
    toy_segmenter: Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    events: list[str] = []

    class Walk(Source):
        def __iter__(self) -> Iterator[Frame]:
            yield from [Frame(photo)] * 3

        def close(self) -> None:
            events.append("close")

    monkeypatch.setattr("patchcut.sources.open_source", lambda *_, **__: Walk("video", "walk.mp4"))
    results = toy_segmenter.stream("walk.mp4")
    for _ in range(taken):
        next(results)
    assert events == []
    results.close()
    assert events == ["close"]


@pytest.mark.parametrize("bundle", ["default", "tiny"])
def test_an_embedded_bundle_finds_something(bundle: str, photo: np.ndarray) -> None:
    result = patchcut.load(bundle)(photo)
    check_consistent(result, photo.shape[:2])
    assert len(result) >= 1
    x0, y0, x1, y1 = result.boxes[0]
    assert x0 <= 330 <= x1 and y0 <= 160 <= y1  # the flower's heart
