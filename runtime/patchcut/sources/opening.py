"""Opening: which source a path, an address, a camera's index or an object means."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np

from patchcut.checks import check_choice
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.settings import COLOR_ORDERS, ColorOrder
from patchcut.sources.addresses import open_address
from patchcut.sources.arrays import FrameSource
from patchcut.sources.base import Source
from patchcut.sources.cameras import LiveVideo
from patchcut.sources.pipes import open_stream, without_lock
from patchcut.sources.several import (
    expanded,
    missing_path,
    not_opened,
    open_folder,
    open_glob,
    open_list,
)
from patchcut.sources.single import open_file
from patchcut.sources.videos import path_of_url

_CAMERA_DEVICE = re.compile(r"/dev/video([0-9]{1,9})")
_CAMERA_INDEX = re.compile(r"[0-9]{1,10}")


def open_source(
    source: object, *, color: ColorOrder = "bgr", every: int = 1, rule: PixelRule = AS_IT_COMES
) -> Source:
    """The frames of `source`, opened and checked as far as that is possible without reading it all.

    Args:
        source: path of a photo, a video, or a folder of both (walked to its leaves, in natural order); a
            glob; a list of files, folders and globs; "-" for what is piped in; an index of a camera, as int,
            or as digits where no file or folder has that name; a URL (rtsp://, http://, ...); one frame; an
            iterable of frames or of paths of photos; or a source that is open already.
        color: order of the last axis of arrays; files and cameras say their own.
        every: take frames 0, every, 2 * every, ...; of a folder's photos, and of each of its videos.
        rule: how values of more than 8 bits are read, and how many pixels a picture may have.
    Raises:
        SourceError: nothing in `source` can be read; what is skipped is told in `.problems`.
        OptionError: `color` or `every` is not allowed; `every` was given for a source that is open already.
    Examples:
        >>> with patchcut.open_source([frame, frame, frame], every=2) as source:
        ...     [item.index for item in source]
        [0, 2]
    """
    check_choice("color", color, COLOR_ORDERS)
    if isinstance(every, bool) or not isinstance(every, Integral) or every < 1:
        raise OptionError("every", f"must be a whole number from 1, got {every!r}")
    if isinstance(source, Source):
        if every != 1:
            raise OptionError("every", f"must be given where {source.name} is opened, got {every} afterwards")
        return source
    opened = _open(source, color, int(every), rule)
    opened.every = int(every)
    return opened


def camera_index(source: object) -> int | None:
    """The index of the camera that a source means; None where it means something else."""
    if isinstance(source, Integral) and not isinstance(source, bool):
        return int(source)
    if not isinstance(source, str | os.PathLike):
        return None
    text = os.fsdecode(source)
    if _CAMERA_INDEX.fullmatch(text) and not os.path.lexists(text):
        return int(text)
    device = _CAMERA_DEVICE.fullmatch(text)
    return None if device is None else int(device[1])


def _open(source: Any, color: ColorOrder, every: int, rule: PixelRule) -> Source:
    index = camera_index(source)
    if index is not None:
        return LiveVideo(index, every=every)
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fsdecode(source), every, rule)
    if isinstance(source, list | tuple) and source and all(isinstance(p, str | os.PathLike) for p in source):
        texts = [os.fsdecode(path) for path in source]
        return _open_text(texts[0], every, rule) if len(texts) == 1 else open_list(texts, every, rule)
    return FrameSource(_as_frames(source), color=color, every=every, rule=rule)


def _as_frames(source: Any) -> Iterable[object]:
    """Frames to iterate over: one frame becomes a list of one."""
    if isinstance(source, Frame) or (isinstance(source, np.ndarray) and source.ndim != 4):
        return [source]
    kind = type(source).__name__
    if isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        remedy = "decode it first: PIL.Image.open(io.BytesIO(data)); a name is to be a str or a Path"
        raise SourceError("source", f"cannot read frames from {kind}", remedy)
    if not isinstance(source, Iterable):
        if type(source).__module__.startswith("PIL."):
            return [source]
        remedy = "pass a path, a folder, a glob, a camera index, a URL, or an iterable of arrays"
        raise SourceError("source", f"cannot read frames from {kind}", remedy)
    return source


def _open_text(text: str, every: int, rule: PixelRule) -> Source:
    if not text:
        raise SourceError("source", "is an empty text", "name a photo, video, folder, camera or stream")
    if text == "-":
        return _open_stdin(every, rule)
    try:
        text = path_of_url(text) or text
        if "://" in text:
            return open_address(text, every=every, rule=rule)
        return _open_path(text, every, rule)
    except OptionError:
        raise
    except (OSError, ValueError) as error:
        raise not_opened(text, error) from error


def _open_stdin(every: int, rule: PixelRule) -> Source:
    pipe = getattr(sys.stdin, "buffer", None)
    remedy = "pipe a photo or video in: patchcut run - < FILE"
    if pipe is None or pipe.closed:
        raise SourceError("stdin", "is closed", remedy)
    if pipe.isatty():
        raise SourceError("stdin", "is a terminal", remedy)
    try:
        source = open_stream(without_lock(pipe), "stdin", every=every, rule=rule)
    except OSError as error:
        raise SourceError("stdin", f"cannot be read: {error.strerror or error}", remedy) from error
    source.stamp = None  # that of a copy, which is another one each time
    source.own_pace = True
    return source


def _open_path(text: str, every: int, rule: PixelRule) -> Source:
    path = expanded(text)
    if path.is_dir():
        return open_folder(path, every, rule)
    if path.is_file():
        return open_file(path, every=every, rule=rule)
    if glob.has_magic(text):
        found = open_glob(str(path), every, rule)
        return found if isinstance(found, Source) else open_file(found, every=every, rule=rule)
    raise missing_path(text)
