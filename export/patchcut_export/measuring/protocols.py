"""Protocols: how the results of a video's frames come about before they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from patchcut import Frame, Result, Segmenter
from patchcut.sources.arrays import FrameSource
from patchcut.sources.photos import read_frame

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Example

DEFAULT_PROTOCOL = "frames"


@dataclass(frozen=True)
class Protocol:
    """How a segmenter is run over a video.

    Attributes:
        run: gives the result of each frame, in order, from a segmenter and the frames of one video.
        text: what the report says of it.
    """

    run: Callable[[Segmenter, Sequence[Example]], Iterator[Result]]
    text: str


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
    source = FrameSource(read_frames(frames), kind="video", name=frames[0].sequence or "")
    results = segmenter.stream(source)
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
}
