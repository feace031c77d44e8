"""The base class of all sources of frames."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchcut.errors import SourceError
from patchcut.frames import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

SourceKind = Literal["images", "video", "camera", "stream", "frames"]


class Source(ABC):
    """Frames in order, to be iterated once; a context manager that frees the device or file.

    Attributes:
        kind: what the frames come from.
        name: what a person would call the source.
        total: frames to come, None where nobody can know.
        fps: frames a second of the recording or camera, None where it has no clock.
        problems: one line for everything skipped, `[name] what; remedy`; complete once iteration ends.
        notes: one line for each kind of thing that was decided about pixels and may matter, `[name] what;
            what to do`; nothing has failed.
        live: frames come at their own pace, and a newer one replaces one that was not taken in time.
        own_pace: frames come when somebody sends them, as from a camera, a pipe or a program; others can be
            read as fast as they decode.
        dropped: number of frames that newer ones have replaced.
        silence_s: a source whose next frame takes longer is given up; None waits for ever.
        abandoned: a thread is stuck in a read of it; leaving it as a context manager does not close it then.
        end_s: when the last frame of a recording ends, in seconds of its own clock; known once iteration
            ends, None where nobody can know.
        every: frames 0, every, 2 * every, ... of the recording are given.
        stamp: what the file was when it was opened, see `stamp_of`; None where it is not one file.
        path: the video's file, which can be read once more; None where it comes from elsewhere.
        has_sound: whether it is a recording with sound.
        skip: what a list of photos asks, with a photo's name and stamp, before it reads it; True leaves it
            out. A resumed run sets it.
    """

    def __init__(
        self, kind: SourceKind, name: str, *, total: int | None = None, fps: float | None = None
    ) -> None:
        self.kind: SourceKind = kind
        self.name = name
        self.total = total
        self.fps = fps
        self.live = False
        self.own_pace = False
        self.dropped = 0
        self.silence_s: float | None = None
        self.abandoned = False
        self.end_s: float | None = None
        self.every = 1
        self.stamp: str | None = None
        self.path: Path | None = None
        self.has_sound = False
        self.skip: Callable[[str, str], bool] | None = None
        self.problems: list[str] = []
        self.notes: list[str] = []

    @property
    def is_video(self) -> bool:
        """Whether one frame follows another in time, as in a recording or from a camera."""
        return self.kind in ("video", "camera", "stream")

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames that can be read; `problems` tells of the others."""

    def in_turn(self) -> Iterator[Frame | None]:
        """Every frame in its turn, none dropped; a None says that nothing has come yet.

        Examples:
            >>> [item.index for item in patchcut.open_source([frame, frame]).in_turn()]
            [0, 1]
        """
        return iter(self)

    def tell_silence(self) -> None:
        """Adds to `problems` that no frame came for `silence_s`.

        Examples:
            >>> source = patchcut.open_source([frame])
            >>> source.silence_s = 30.0
            >>> source.tell_silence()
            >>> source.problems
            ['[frames] gave nothing for 30 s and was given up; check that it still sends']
        """
        what = f"gave nothing for {self.silence_s:g} s and was given up"
        self.problems.append(str(SourceError(self.name, what, "check that it still sends")))

    def parts(self) -> Iterator[Source]:
        """The sources that this one is made of, each opened when its turn comes; by default itself alone.

        A folder gives its photos first and then each of its videos, which have clocks of their own. Iterating
        a source gives the frames of all its parts.
        Examples:
            >>> source = patchcut.open_source([frame])
            >>> [part is source for part in source.parts()]
            [True]
        """
        yield self

    def take_notes(self, frame: Frame) -> None:
        """Adds what was decided about a frame's pixels to `notes`, each kind of thing once.

        Examples:
            >>> source = patchcut.open_source([frame])
            >>> source.take_notes(patchcut.Frame(frame, notes=("[x.png] is dark; light it",)))
            >>> source.notes
            ['[x.png] is dark; light it']
        """
        for note in frame.notes:
            remedy = note.rpartition("; ")[2]  # the same for all of a kind
            if not any(told.endswith(remedy) for told in self.notes):
                self.notes.append(note)

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Frees the device or file; harmless when called again.

        Examples:
            >>> source = patchcut.open_source([frame])
            >>> source.close() is None
            True
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self.abandoned:
            self.close()


def stamp_of(path: str | os.PathLike[str]) -> str | None:
    """A text that changes when a file does: its size and the time of its last change; None without one.

    Examples:
        >>> patchcut.sources.base.stamp_of(folder / "missing.jpg") is None
        True
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size}-{status.st_mtime_ns}"
