"""Frames that a program hands over: arrays, PIL images, or any iterable of them or of paths of photos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from itertools import islice
from pathlib import Path

from patchcut.errors import FrameError, SourceError
from patchcut.frames import Frame, as_frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.settings import ColorOrder
from patchcut.sources.base import Source, SourceKind
from patchcut.sources.photos import read_frame
from patchcut.texts import name_text


class FrameSource(Source):
    """Items of an iterable, each checked as it comes.

    Args:
        items: what `as_frame` takes (arrays, PIL images, Frames), or paths of photos; taken one at a time.
        color: order of an array's last axis.
        every: take items 0, every, 2 * every, ...
        rule: how pixels are read.
    """

    def __init__(
        self,
        items: Iterable[object],
        *,
        color: ColorOrder = "bgr",
        every: int = 1,
        kind: SourceKind = "frames",
        name: str = "frames",
        rule: PixelRule = AS_IT_COMES,
    ) -> None:
        total = -(-len(items) // every) if isinstance(items, Sized) else None
        super().__init__(kind, name, total=total)
        self.own_pace = kind == "frames"
        self._items = items
        self._color: ColorOrder = color
        self._every = every
        self._rule = rule

    def __iter__(self) -> Iterator[Frame]:
        for index, item in islice(enumerate(self._items), 0, None, self._every):
            try:
                frame = self._frame(item)
            except FrameError as error:
                self.problems.append(str(FrameError(f"frame {index}", error.what, error.remedy)))
            except SourceError as error:
                self.problems.append(str(error))
            else:
                self.take_notes(frame)
                yield frame if isinstance(item, Frame) else replace(frame, index=index)

    def _frame(self, item: object) -> Frame:
        if isinstance(item, str | os.PathLike):
            path = Path(os.fsdecode(item))
            if path.exists() and not path.is_file():  # a pipe might never end
                raise SourceError(name_text(path), "is no file", "name a photo")
            return read_frame(path, name_text(path.as_posix()), rule=self._rule)
        return as_frame(item, self._color, self._rule)
