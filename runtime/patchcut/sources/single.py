"""One file: a photo, an animation or a video."""

from __future__ import annotations

from pathlib import Path

from patchcut.errors import SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources.animations import open_animation
from patchcut.sources.arrays import FrameSource
from patchcut.sources.base import Source, stamp_of
from patchcut.sources.photos import read_frame
from patchcut.sources.sniffing import kind_of
from patchcut.sources.videos import VIDEO_SUFFIXES, open_video
from patchcut.texts import name_text


def open_file(path: Path, *, every: int = 1, rule: PixelRule = AS_IT_COMES) -> Source:
    """The frames of a regular file, by its suffix or by what it holds.

    Raises:
        SourceError: it is neither a photo nor a video, or a broken one.
        OSError: it cannot be read.
    """
    source = _open(path, name_text(path.name), every, rule)
    source.name, source.stamp = name_text(path.name), stamp_of(path)
    return source


def _open(path: Path, name: str, every: int, rule: PixelRule) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return open_video(path, every=every, rule=rule)
    if (several := open_animation(path, every=every, rule=rule)) is not None:
        return several
    try:
        return FrameSource([read_frame(path, name, rule=rule)], kind="images", name=name, rule=rule)
    except SourceError:
        if kind_of(path) == "photo":
            raise
    try:
        return open_video(path, every=every, rule=rule)
    except SourceError as error:
        if not error.what.startswith("cannot be opened"):
            raise
        what = "is neither an image nor a video that can be read"
        raise SourceError(name_text(path), what, "convert it to JPEG, PNG or MP4") from error
