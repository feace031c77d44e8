"""Recordings read through OpenCV, where PyAV is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from patchcut.errors import COPY_AGAIN, SourceError, install_hint
from patchcut.frames import Frame
from patchcut.sources.base import Source
from patchcut.sources.captures import codec_name, frame_count, frame_rate, open_capture, property_id

# Reads that may fail in a row before the rest of a file is given up: ten seconds at 25 fps.
_MAX_GAP = 250
# An AVI counts the frames that it shows; elsewhere OpenCV's count is guessed, or holds hidden frames too.
_COUNTED_SUFFIXES = frozenset({".avi"})


class OpenCvVideo(Source):
    """Frames of a video file; those that do not decode are skipped, and counted in `problems`.

    OpenCV does not tell what `AvVideo` knows: times are exact only at a constant rate, frames are squeezed
    into the first one's size, and a file that was cut short is found out only where it is an AVI.

    Args:
        path: the file.
        every: yield frames 0, every, 2 * every, ...; those between are not converted.
    Raises:
        SourceError: "[cars.mp4] cannot be opened as a video: ...".
    """

    def __init__(self, path: Path, *, every: int = 1) -> None:
        self._file, address = _address_of(path)
        self._capture = open_capture(address)
        if not self._capture.isOpened():
            self.close()
            what = "cannot be opened as a video: damaged, cut short, or a codec that this OpenCV lacks"
            raise SourceError(path.name, what, f"install PyAV, which reads more: {install_hint('video')}")
        self._frames_in_file = frame_count(self._capture)
        self._counted = path.suffix.lower() in _COUNTED_SUFFIXES
        total = -(-self._frames_in_file // every) if self._counted and self._frames_in_file else None
        super().__init__("video", path.name, total=total, fps=frame_rate(self._capture))
        self.every = every

    def __iter__(self) -> Iterator[Frame]:
        index = read = gaps = misses = 0
        time_s = 0.0
        while not self._ended(index, misses):
            ok, image = self._read(wanted=index % self.every == 0)
            if ok:
                read, gaps, misses = read + 1, gaps + misses, 0
                time_s = self._time_s(index, time_s)
                if image is not None:
                    yield Frame(image, "bgr", self.name, index, time_s)
            else:
                misses += 1
            index += 1
        if read and self.fps:
            self.end_s = time_s + 1 / self.fps
        self._tell_missing(read, gaps)

    def close(self) -> None:
        self._capture.release()
        if self._file is not None:
            self._file.close()

    def _read(self, wanted: bool) -> tuple[bool, Any]:
        if not wanted:
            return self._capture.grab(), None
        ok, image = self._capture.read()
        return ok, image

    def _ended(self, index: int, misses: int) -> bool:
        """True where nothing more can come: a failed read inside a file may be followed by good frames."""
        if misses == 0:
            return False
        return self._frames_in_file is None or index >= self._frames_in_file or misses >= _MAX_GAP

    def _time_s(self, index: int, previous_s: float) -> float:
        position_s = float(self._capture.get(property_id("POS_MSEC"))) / 1000
        if index == 0 or position_s > previous_s:
            return position_s
        # Some decoders lose the clock on their last, delayed frames and answer 0.
        return max(previous_s, index / self.fps if self.fps else 0.0)

    def _tell_missing(self, read: int, gaps: int) -> None:
        if read == 0:
            codec = codec_name(self._capture)
            what = f"opened, but no frame could be decoded; its codec is {codec}, which this OpenCV may lack"
            remedy = f"install PyAV, which decodes more (AV1 too): {install_hint('video')}"
        elif gaps or (self._counted and read < (self._frames_in_file or 0)):
            what = f"decoded {read} of {max(self._frames_in_file or 0, read + gaps)} frames"
            what, remedy = f"{what}: the file is damaged or cut short", COPY_AGAIN
        else:
            return
        self.problems.append(str(SourceError(self.name, what, remedy)))


def _address_of(path: Path) -> tuple[BinaryIO | None, str]:
    """What OpenCV takes for `path`, and the file that must stay open for it.

    OpenCV crashes on names that are no UTF-8: those are opened here, and go by the number of the open file.
    """
    address = str(path.resolve())  # absolute, so that FFmpeg takes nothing in the name for a protocol
    try:
        address.encode()
    except UnicodeEncodeError:
        file = path.open("rb")
        return file, f"/dev/fd/{file.fileno()}"
    return None, address
