"""Several frames in one call: each result is that of the frame by itself, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import EngineError, Frame, FrameError, Segmenter, SourceError
from patchcut.sources import Source
from patchcut.video import StreamOptions

from tests.runtime.results import same


def crops(photo: np.ndarray, count: int) -> list[np.ndarray]:
    """Pieces of a photo, each of another size."""
    return [np.ascontiguousarray(photo[i % 50 :: 3, i % 70 :: 2 + i % 3]) for i in range(count)]


@pytest.mark.parametrize("settings", [{}, {"throughput": True, "threads": 2}, {"precision": "fp32"}], ids=str)
def test_each_result_is_that_of_the_frame_alone(
    toy_bundle: Path, photo: np.ndarray, settings: dict[str, Any]
) -> None:
    segmenter = patchcut.load(toy_bundle, **settings)
    frames: list[Any] = [*crops(photo, 5), Frame(photo[::4, ::4, ::-1], "rgb", name="mine"), photo[:90, :, 0]]
    results = segmenter.batch(frames)
    assert {result.label_map.shape for result in results} == {
        np.shape(getattr(f, "image", f))[:2] for f in frames
    }
    assert results[5].name == "mine" and sum(map(len, results)) > 10
    for result, frame in zip(results, frames, strict=True):
        same(result, segmenter(frame))
        assert list(result.timings_ms) == ["preprocess", "backbone", "head", "masks"]
    together = "preprocess" if settings.get("throughput") else "backbone"
    assert len({result.timings_ms[together] for result in results}) == 1, "a share of what was done together"


def test_frames_that_run_beside_each_other_all_end_where_one_fails(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(toy_bundle, throughput=True, threads=2)
    frames = crops(photo, 4)
    engine: Any = segmenter.extractor.engine
    wait, waited = engine.wait, []

    def fail(frame: int) -> Any:
        waited.append(frame)
        if frame == 1:
            raise EngineError("engine", "failed", "try again")
        return wait(frame)

    with monkeypatch.context() as patch, pytest.raises(EngineError, match="failed"):
        patch.setattr(engine, "wait", fail)
        segmenter.batch(frames)
    assert set(waited) == {0, 1, 2, 3}
    for result, frame in zip(segmenter.batch(frames), frames, strict=True):
        same(result, segmenter(frame))


def test_more_frames_than_the_engine_takes_and_none(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    largest = toy_segmenter.extractor.engine.facts.max_batch
    small = [photo[i : i + 20, i : i + 30] for i in range(largest + 3)]
    results = toy_segmenter.batch(frame for frame in small)
    assert len(results) == largest + 3
    for i in (0, largest - 1, largest, largest + 2):
        same(results[i], toy_segmenter(small[i]))
    assert toy_segmenter.batch([]) == []


@pytest.mark.parametrize(
    "settings", [{"mode": "parts"}, {"mode": "scene"}, {"head": "cc"}, {"refine": "guided"}], ids=str
)
def test_heads_that_are_fitted_are_fitted_to_each_frame(
    toy_bundle: Path, photo: np.ndarray, settings: dict[str, Any]
) -> None:
    segmenter = patchcut.load(toy_bundle, **settings)
    frames = crops(photo, 3)
    for result, frame in zip(segmenter.batch(frames), frames, strict=True):
        same(result, segmenter(frame))
        assert result.labels == segmenter(frame).labels


def test_a_frame_that_is_none_is_named_by_its_number(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    with pytest.raises(FrameError, match=r"\[frame 2\] must be \[H, W, 3\] uint8"):
        toy_segmenter.batch([photo, photo, photo.transpose(2, 0, 1)])


@pytest.mark.parametrize("throughput", [False, True])
def test_a_stream_gives_the_same_with_and_without_throughput(
    toy_bundle: Path, photo: np.ndarray, throughput: bool
) -> None:
    segmenter = patchcut.load(toy_bundle, throughput=throughput, threads=2)
    frames = crops(photo, 11)
    results = list(segmenter.stream(frames))
    assert [result.index for result in results] == list(range(11))
    for result, frame in zip(results, frames, strict=True):
        same(result, segmenter(frame))
        assert list(result.timings_ms) == ["read", "preprocess", "backbone", "head", "masks"]


class Given(Source):
    """Frames of a test, and an error after them."""

    def __init__(self, frames: list[Frame], error: Exception | None = None) -> None:
        super().__init__("frames", "given")
        self._frames, self._error = frames, error
        self.read = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.read += 1
            yield frame
        if self._error is not None:
            raise self._error


def test_frames_before_an_error_are_not_lost(toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle, throughput=True)
    source = Given([Frame(one) for one in crops(photo, 3)], SourceError("x.mp4", "ends within a frame"))
    results = segmenter.results(source)
    for frame in crops(photo, 3):
        same(next(results), segmenter(frame))
    with pytest.raises(SourceError, match="ends within a frame"):
        next(results)


def test_only_as_many_frames_are_read_as_are_worked_on(toy_bundle: Path, photo: np.ndarray) -> None:
    frames = [Frame(photo[:20, :30])] * 20
    for settings, read in (({}, 1), ({"throughput": True}, 8)):
        source = Given(frames)
        results = patchcut.load(toy_bundle, **settings).results(source, StreamOptions(queue=0))  # type: ignore[arg-type]
        next(results)
        assert source.read == read


def test_a_frame_too_large_for_the_memory_spares_the_others(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(toy_bundle, throughput=True)
    finish = segmenter._work.finish

    def narrow(frame: Frame, *rest: Any) -> Any:
        if frame.name == "large":
            raise MemoryError
        return finish(frame, *rest)

    monkeypatch.setattr(segmenter._work, "finish", narrow)
    frames = [
        Frame(one, name=name, index=i)
        for i, (one, name) in enumerate(zip(crops(photo, 3), ["a", "large", "b"], strict=True))
    ]
    source = Given(frames)
    assert [result.name for result in segmenter.results(source)] == ["a", "b"]
    assert source.problems == ["[large] does not fit in memory when it is segmented; scale it down"]
