"""A video of overlays, written frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2
from patchcut.output.av_encoder import CODECS, AvEncoder
from patchcut.output.encoder import Encoder, NoEncoder
from patchcut.output.opencv_encoder import OpenCvEncoder
from patchcut.output.sound import Sound
from patchcut.output.whole_files import output_error, whole_file
from patchcut.pyav import load_av

Image = npt.NDArray[np.uint8]

# Motion JPEG needs no codec library, so that it is there where MPEG-4 is not.
_FORMATS = (("mp4v", ".mp4"), ("MJPG", ".avi"))


class OverlayVideo:
    """A video, written under a partial name and renamed when closed.

    Frames are shown at their own times, counted from the first one's: the video lasts as long as the source.
    It is H.264, or VP9 where a side is odd, which H.264 cannot hold; both in MP4, and browsers play both.
    Where PyAV is missing OpenCV writes MPEG-4 at a constant rate: frames are repeated or dropped, and an odd
    side is made even by doubling its last row or column.

    Args:
        path: where it goes, without the suffix: .mp4, or .avi where OpenCV has no MPEG-4 encoder.
        fps: frames a second, for frames without a time.
        size_wh: size of the video; frames of another size are scaled into it, with black borders.
        open_partial: gives the path to write to, as `whole_file` does.
        sound: what is copied into it, on the clock of the first frame; it is closed with the video, and tells
            what could not be copied.
    Raises:
        OutputError: no encoder takes that size, or the file cannot be made.
    Examples:
        >>> video = patchcut.output.overlay_video.OverlayVideo(folder / "walk", 25.0, frame.shape[1::-1])
        >>> video.write(frame, time_s=0.0)
        >>> video.close(end_s=0.5)
        >>> video.path.name
        'walk.mp4'
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        size_wh: tuple[int, int],
        *,
        open_partial: Callable[[Path], AbstractContextManager[Path]] = whole_file,
        sound: Sound | None = None,
    ) -> None:
        self._interval_s = 1 / fps
        self._size_wh = size_wh
        self._first_s = self._held_s = 0.0
        self._held: Image | None = None
        self._failure: Exception | None = None
        self._finishing = self._closed = False
        self._pending: Future[None] | None = None
        self._partial = contextlib.ExitStack()
        self._sound = sound
        self.path, self._encoder = self._open(path, fps, open_partial)
        # Encoding goes on while the next frame is segmented, and an interruption never falls into the middle
        # of it: signals are the main thread's.
        self._worker = ThreadPoolExecutor(1, "patchcut-overlay")

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Appends a frame; it is shown until the next one's time.

        Args:
            image: [H, W, 3] uint8 BGR.
            time_s: when it is shown, later than the frame before; None is 1 / fps after it.
        Raises:
            OutputError: a frame before it could not be written; `close` removes the video.
        """
        image = _letterboxed(image, self._size_wh)
        if self._held is None:
            start_s, self._first_s = 0.0, time_s or 0.0
        else:
            start_s = self._held_s + self._interval_s if time_s is None else time_s - self._first_s
            self._append_held(start_s)
        self._held, self._held_s = image, max(start_s, self._held_s)

    def close(self, end_s: float | None = None) -> None:
        """Finishes the file and renames it to its path; harmless when called again.

        Args:
            end_s: when the last frame ends, on the clock of `time_s`; None is 1 / fps after its time.
        Raises:
            OutputError: the file does not hold all frames, and is removed.
            KeyboardInterrupt: it came meanwhile; the file is whole. A second one gives the file up.
        """
        if self._closed:
            return
        interruption: BaseException | None = None
        try:
            try:
                self._finish(end_s)
            except (KeyboardInterrupt, SystemExit) as error:
                interruption = error
                self._finish(end_s)
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)
        if interruption is not None:
            raise interruption

    def _open(
        self, path: Path, fps: float, open_partial: Callable[[Path], AbstractContextManager[Path]]
    ) -> tuple[Path, Encoder]:
        """The path and the first encoder that takes the size; leaving `_partial` renames the file."""
        for suffix, encoder_of in _encoders(self._size_wh, fps, self._sound):
            target = path.with_name(path.name + suffix)
            with contextlib.suppress(NoEncoder), contextlib.ExitStack() as renaming:
                encoder = encoder_of(renaming.enter_context(open_partial(target)), target)
                self._partial = renaming.pop_all()
                if self._sound is not None and not encoder.takes_sound:
                    self._sound.lose(f"{suffix[1:].upper()} does not take {self._sound.codec or 'it'} here")
                return target, encoder
        size = "x".join(map(str, self._size_wh))
        remedy = "choose other outputs with --save, or check that the folder can be written"
        raise OutputError("output", f"there is no encoder that writes {path} at {size}", remedy)

    def _append_held(self, end_s: float) -> None:
        """Hands the frame that is held to the encoder, now that its end is known."""
        self._wait()  # before the frame is taken: an interruption comes here
        held, self._held = self._held, None
        if held is not None:
            self._run(partial(self._encoder.append, held, self._held_s, max(end_s - self._held_s, 0.0)))

    def _finish(self, end_s: float | None) -> None:
        """May be called again where it was interrupted."""
        self._append_held(self._held_s + self._interval_s if end_s is None else end_s - self._first_s)
        if not self._finishing:
            self._finishing = True
            self._run(self._encoder.finish)
        self._wait()

    def _run(self, work: Callable[[], None]) -> None:
        """Has the worker do something after what it does now, of which there is one at most."""
        self._wait()
        self._pending = self._worker.submit(self._recorded, work)

    def _recorded(self, work: Callable[[], None]) -> None:
        if self._failure is None:
            try:
                work()
            except Exception as error:  # raised where the next frame is written
                self._failure = error

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
        if isinstance(self._failure, OSError):
            raise output_error(self.path, self._failure) from self._failure
        if self._failure is not None:
            raise self._failure

    def _end(self, error: BaseException | None) -> None:
        """Renames the file, or removes it where an error has come."""
        self._closed = True
        self._worker.shutdown()
        self._encoder.abandon()
        if self._sound is not None:
            self._sound.close()
        self._partial.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _encoders(
    size_wh: tuple[int, int], fps: float, sound: Sound | None
) -> Iterator[tuple[str, Callable[[Path, Path], Encoder]]]:
    """A suffix, and what opens an encoder on a partial path for its target: the best first, with sound."""
    av = load_av()
    if av is not None:
        odd = any(side % 2 for side in size_wh)
        for codec in CODECS:
            if codec.name in av.codec.codecs_available and (codec.odd_sizes or not odd):
                if sound is not None and sound.lost is None:
                    yield ".mp4", partial(AvEncoder, av, codec, size_wh, fps, sound=sound)
                yield ".mp4", partial(AvEncoder, av, codec, size_wh, fps)
    for name, suffix in _FORMATS:
        yield suffix, partial(OpenCvEncoder, name, size_wh, fps)


def _letterboxed(image: Image, size_wh: tuple[int, int]) -> Image:
    """A copy of [H, W, 3] as large as fits into a size, in its middle, on black."""
    height, width = image.shape[:2]
    if (width, height) == size_wh:
        return np.array(image)
    cv2 = load_cv2()
    scale = min(size_wh[0] / width, size_wh[1] / height)
    fitted_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = cv2.resize(np.ascontiguousarray(image), fitted_wh, interpolation=cv2.INTER_AREA)
    canvas: Image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    left, top = (size_wh[0] - fitted_wh[0]) // 2, (size_wh[1] - fitted_wh[1]) // 2
    canvas[top : top + fitted_wh[1], left : left + fitted_wh[0]] = fitted
    return canvas
