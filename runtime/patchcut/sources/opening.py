"""Opening: which source a path, an address, a camera's index or an object means."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from patchcut.checks import check_choice
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.settings import COLOR_ORDERS, ColorOrder
from patchcut.sources.arrays import FrameSource
from patchcut.sources.base import Source
from patchcut.sources.cameras import LiveVideo
from patchcut.sources.photos import PHOTO_SUFFIXES, read_frame
from patchcut.sources.several import files_matching, missing_path, open_folder, open_glob, open_list
from patchcut.sources.videos import VIDEO_SUFFIXES, open_address, open_video, path_of_url

_CAMERA_DEVICE = re.compile(r"/dev/video(\d+)")


def open_source(
    source: object, *, color: ColorOrder = "bgr", every: int = 1, rule: PixelRule = AS_IT_COMES
) -> Source:
    """The frames of `source`, opened and checked as far as that is possible without reading it all.

    Args:
        source: path of a photo, a video, or a folder (walked to its leaves, in natural order); a glob; a list
            of photos, folders and globs; an index of a camera, as int, or as digits where no file or folder
            has that name; a URL (rtsp://, http://, ...); one frame; an iterable of frames or of paths of
            photos; or a source that is open already.
        color: order of the last axis of arrays; files and cameras say their own.
        every: take frames 0, every, 2 * every, ...
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
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise OptionError("every", f"must be a whole number from 1, got {every!r}")
    if isinstance(source, Source):
        if every != 1:
            raise OptionError("every", f"must be given where {source.name} is opened, got {every} afterwards")
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return LiveVideo(source, every=every)
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fspath(source), every, rule)
    if isinstance(source, list | tuple) and source and all(isinstance(p, str | os.PathLike) for p in source):
        texts = [os.fspath(path) for path in source]
        return _open_text(texts[0], every, rule) if len(texts) == 1 else open_list(texts, every, rule)
    return FrameSource(_as_frames(source), color=color, every=every, rule=rule)


def _as_frames(source: Any) -> Iterable[object]:
    """Frames to iterate over: one frame becomes a list of one."""
    if isinstance(source, Frame) or (isinstance(source, np.ndarray) and source.ndim != 4):
        return [source]
    if isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
        if type(source).__module__.startswith("PIL."):
            return [source]
        remedy = "pass a path, a folder, a glob, a camera index, a URL, or an iterable of arrays"
        raise SourceError("source", f"cannot read frames from {type(source).__name__}", remedy)
    return source


def _open_text(text: str, every: int, rule: PixelRule) -> Source:
    if not text:
        raise SourceError("source", "is an empty text", "name a photo, video, folder, camera or stream")
    if text.isdecimal() and not Path(text).exists():
        return LiveVideo(int(text), every=every)
    if device := _CAMERA_DEVICE.fullmatch(text):
        return LiveVideo(int(device[1]), every=every)
    text = path_of_url(text) or text
    if "://" in text:
        return open_address(text, every=every, rule=rule)
    try:
        return _open_path(text, every, rule)
    except OSError as error:
        raise SourceError(
            text, f"cannot be opened: {error.strerror or error}", "check its name and rights"
        ) from error


def _open_path(text: str, every: int, rule: PixelRule) -> Source:
    path = Path(text).expanduser()
    if path.is_dir():
        return open_folder(path, every, rule)
    if path.is_file():
        return _open_file(path, every, rule)
    if glob.has_magic(text):
        files = files_matching(str(path))
        return (
            _open_file(files[0], every, rule) if len(files) == 1 else open_glob(str(path), files, every, rule)
        )
    raise missing_path(text)


def _open_file(path: Path, every: int, rule: PixelRule) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return open_video(path, every=every, rule=rule)
    try:
        return FrameSource([read_frame(path, path.name, rule=rule)], kind="images", name=path.name)
    except SourceError:
        if suffix in PHOTO_SUFFIXES:
            raise
    try:
        return open_video(path, every=every, rule=rule)
    except SourceError as error:
        if not error.what.startswith("cannot be opened"):
            raise
        what = "is neither an image nor a video that can be read"
        raise SourceError(str(path), what, "convert it to JPEG, PNG or MP4") from error
