"""Recordings for Rerun's viewer: frames, label maps, boxes and scores on the video's own timeline."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError, PatchcutError, install_hint
from patchcut.output.overlay import color_of
from patchcut.output.whole_files import encode_image, output_error, whole_file
from patchcut.result import Result

_OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")


class RerunRecording:
    """An .rrd file, written under a partial name and renamed when closed.

        frame               the frame, as JPEG; where the result holds it
        frame/labels        the label map, with the names and colours of its labels
        frame/objects       boxes, with the label as their class; called by track id or rank, and score
        scores/best         the score of the best region, where nothing is tracked
        scores/<track id>   the score of each object, where objects are tracked

    The timeline "frame" counts the source's frames; "time" is `Result.time_s`, where frames have times.

    Args:
        path: where it goes.
        open_partial: gives the path to write to, as `whole_file` does.
    Raises:
        PatchcutError: the package rerun-sdk is missing.
        OutputError: the file cannot be made.
    """

    def __init__(
        self, path: Path, *, open_partial: Callable[[Path], AbstractContextManager[Path]] = whole_file
    ) -> None:
        self._rr = load_rerun()
        self._path = path
        self._labels: tuple[str, ...] = ()
        with contextlib.ExitStack() as renaming:
            partial = renaming.enter_context(open_partial(path))
            self._stream = self._rr.RecordingStream("patchcut", recording_id=str(uuid.uuid4()))
            with self._os_errors():
                self._stream.save(str(partial))
            self._partial = renaming.pop_all()

    def write(self, result: Result) -> None:
        """Adds a frame.

        Raises:
            OutputError: the file cannot be written; `close` removes it.
        """
        rr, stream = self._rr, self._stream
        with self._os_errors():
            stream.set_time("frame", sequence=result.index)
            if result.time_s is not None:
                stream.set_time("time", duration=result.time_s)
            if result.labels != self._labels:
                self._labels = result.labels
                stream.log("frame", rr.AnnotationContext(_classes(result)))
            if result.frame is not None:
                stream.log("frame", rr.EncodedImage(contents=_jpeg(result), media_type="image/jpeg"))
            kind = np.uint8 if len(result.labels) <= 256 else np.uint16
            stream.log("frame/labels", rr.SegmentationImage(result.label_map.astype(kind)))
            stream.log("frame/objects", self._boxes(result))
            for name, score in _scores(result).items():
                stream.log(f"scores/{name}", rr.Scalars(score))

    def close(self) -> None:
        """Finishes the file and renames it to its path.

        Raises:
            OutputError: it does not hold all frames, and is removed.
        """
        with self._partial, self._os_errors():
            try:
                self._stream.flush()
            finally:
                self._stream.disconnect()

    def abandon(self) -> None:
        """Removes what was written; harmless after `close`."""
        with contextlib.suppress(RuntimeError):
            self._stream.disconnect()
        given_up = OutputError("output", f"{self._path} was given up")
        with contextlib.suppress(OutputError):
            self._partial.__exit__(OutputError, given_up, None)

    def _boxes(self, result: Result) -> Any:
        """Boxes as wide and high as regions: Rerun counts from the corners of pixels, as patchcut does."""
        ids = result.track_ids
        called = range(1, len(result) + 1) if ids is None else ids.tolist()
        return self._rr.Boxes2D(
            array=result.boxes,
            array_format=self._rr.Box2DFormat.XYXY,
            class_ids=result.region_labels.astype(np.uint16),
            labels=[f"{name} {score:.2f}" for name, score in zip(called, result.scores, strict=True)],
            colors=np.array([color_of(number) for number in called], np.uint8).reshape(-1, 3),
        )

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        """Rerun's errors of the disk as those of the system, whose number they end in."""
        try:
            yield
        except RuntimeError as error:
            number = _OS_ERROR.search(str(error))
            if number is None:
                raise OutputError("output", f"cannot write {self._path}: {error}") from error
            cause = OSError(int(number[1]), str(error).rpartition(": ")[2].partition(" (os error")[0])
            raise output_error(self._path, cause) from cause


def load_rerun() -> Any:
    """The module of the package rerun-sdk.

    Raises:
        PatchcutError: "[rerun] cannot be imported (No module named 'rerun'); pip install ...[rerun]".
    """
    try:
        import rerun
    except ImportError as error:
        raise PatchcutError("rerun", f"cannot be imported ({error})", install_hint("rerun")) from error
    return rerun


def _classes(result: Result) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Number, name and colour of each label that is drawn; the background is left clear."""
    colors = result.label_colors or range(len(result.labels))
    each = zip(result.labels, colors, strict=True)
    return [(i, label, color_of(color) if i else (0, 0, 0)) for i, (label, color) in enumerate(each)]


def _jpeg(result: Result) -> bytes:
    frame: npt.NDArray[np.uint8] | None = result.frame
    assert frame is not None
    return encode_image(Path("frame.jpg"), frame[..., ::-1] if result.color == "rgb" else frame)


def _scores(result: Result) -> dict[str, float]:
    """The scores of a frame, by name: the best one, or the best of each object that is tracked."""
    if result.track_ids is None:
        return {"best": float(result.scores[0])} if len(result) else {}
    scores: dict[str, float] = {}
    for track_id, score in zip(result.track_ids.tolist(), result.scores.tolist(), strict=True):
        if track_id:
            scores.setdefault(str(track_id), score)  # best first
    return scores
