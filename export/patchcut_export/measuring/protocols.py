"""Protocols: how the results of a video's frames come about before they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from patchcut import Frame, Result, Segmenter
from patchcut.sources.arrays import FrameSource
from patchcut.sources.photos import read_frame

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Example
from patchcut_export.measuring.datasets.sizes import picture_size
from patchcut_export.measuring.truth import read_truth

DEFAULT_PROTOCOL = "frames"


@dataclass(frozen=True)
class Protocol:
    """How a segmenter is run over a video.

    Attributes:
        run: gives the result of each frame, in order, from a segmenter and the frames of one video.
        text: what the report says of it.
        follows: whether the objects of the first mask are pointed at, in the order of their numbers.
    """

    run: Callable[[Segmenter, Sequence[Example]], Iterator[Result]]
    text: str
    follows: bool = False


def run_frames(segmenter: Segmenter, frames: Sequence[Example]) -> Iterator[Result]:
    """Results of frames that know nothing of each other.

    Raises:
        SourceError: a frame cannot be read.
    """
    return (segmenter(frame) for frame in read_frames(frames))


def run_stream(segmenter: Segmenter, frames: Sequence[Example]) -> Iterator[Result]:
    """Results of `Segmenter.stream`, for which the frames are one video.

    Raises:
        SourceError: a frame cannot be read.
        DatasetError: one was skipped.
    """
    source = _video(frames)
    return _each(segmenter.stream(source), source, frames)


def run_first(segmenter: Segmenter, frames: Sequence[Example], *, boxes: bool) -> Iterator[Result]:
    """Results of `Segmenter.track`, for which the frames are one video, whose first mask is given.

    Args:
        boxes: whether only the boxes of its objects are given.
    An object that the first mask does not show has no prompt.
    Raises:
        SourceError: a frame cannot be read.
        DatasetError: one was skipped, or the first mask shows nothing.
    """
    first = frames[0]
    assert first.mask is not None
    truth = read_truth(first, picture_size(first.mask, upright=False))
    masks = [truth.foreground]
    if truth.objects is not None:
        masks = [truth.objects == number for number in np.unique(truth.objects[truth.foreground])]
    if not masks or not truth.foreground.any():
        raise DatasetError(f"{first.mask} shows no object", "choose other --sequences or another --protocol")
    source = _video(frames)
    prompts = {"boxes": [_box_of(mask) for mask in masks]} if boxes else {"masks": masks}
    return _each(segmenter.track(source, **prompts), source, frames)


def _box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around a mask [H, W], half-open."""
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def _video(frames: Sequence[Example]) -> FrameSource:
    return FrameSource(read_frames(frames), kind="video", name=frames[0].sequence or "")


def _each(results: Iterator[Result], source: FrameSource, frames: Sequence[Example]) -> Iterator[Result]:
    """The results of all frames.

    Raises:
        DatasetError: one was skipped.
    """
    for index, frame in enumerate(frames):
        result = next(results, None)
        if result is None or result.index != index:  # not by the problems: those of later frames may be there
            why = source.problems[0] if source.problems else "the stream ended"
            raise DatasetError(f"{frame.image} has no result: {why}", "each frame is measured: mend it")
        yield result


def read_frames(frames: Sequence[Example]) -> Iterator[Frame]:
    """The frames of a video, read one at a time.

    Raises:
        SourceError: one cannot be read.
    """
    for index, frame in enumerate(frames):
        yield read_frame(frame.image, index=index, upright=frame.upright)


PROTOCOLS: Mapping[str, Protocol] = {
    "frames": Protocol(run_frames, "each frame by itself"),
    "stream": Protocol(run_stream, "frames in order, as a stream of video"),
    "first-mask": Protocol(
        partial(run_first, boxes=False),
        "frames in order, followed from the true mask of the first",
        follows=True,
    ),
    "first-box": Protocol(
        partial(run_first, boxes=True),
        "frames in order, followed from a box around the true mask of the first",
        follows=True,
    ),
}
