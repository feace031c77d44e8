"""Videos: files, and what comes through a pipe; PyAV reads them, else OpenCV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from patchcut.errors import COPY_AGAIN, SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.pyav import load_av
from patchcut.sources.av_videos import AvVideo
from patchcut.sources.base import Source, stamp_of
from patchcut.sources.containers import open_file
from patchcut.sources.opencv_videos import OpenCvVideo

_VIDEOS = (
    "mp4 m4v mov qt avi divx mkv webm mpg mpeg m2v mpv vob ts mts m2ts m2t wmv asf flv f4v 3gp 3g2 ogv ogm "
    "mjpeg mjpg h264 264 avc h265 265 hevc obu ivf y4m mxf dv nut"
)
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEOS.split())


def open_video(path: Path, *, every: int = 1, rule: PixelRule = AS_IT_COMES) -> Source:
    """The frames of a video file.

    Args:
        path: the file; its name may be any bytes.
        every: yield frames 0, every, 2 * every, ...
        rule: how many pixels a frame may have.
    Raises:
        SourceError: "[cars.mp4] cannot be opened as a video: ...".
        OSError: it cannot be read.
    Examples:
        >>> (folder / "empty.mp4").touch()
        >>> patchcut.sources.videos.open_video(folder / "empty.mp4")
        Traceback (most recent call last):
        patchcut.errors.SourceError: [empty.mp4] is empty (0 bytes); copy or download it again
    """
    if path.stat().st_size == 0:
        raise SourceError(path.name, "is empty (0 bytes)", COPY_AGAIN)
    av = load_av()
    source = (
        OpenCvVideo(path, every=every)
        if av is None
        else open_video_stream(av, path.open("rb"), path.name, every=every, rule=rule)
    )
    source.stamp, source.path = stamp_of(path), path
    return source


def open_video_stream(av: Any, file: BinaryIO, name: str, *, every: int, rule: PixelRule) -> Source:
    """The frames of a video in an open file or pipe, which is closed with the source or where this fails.

    Raises:
        SourceError: it cannot be opened as a video.
    """
    try:
        container = open_file(av, file, name)
        return frames_of(av, container, name, every=every, rule=rule, file=file)
    except BaseException:
        file.close()
        raise


def path_of_url(url: str) -> str | None:
    """The path that a `file:` URL means, of any bytes; None for another scheme or another machine.

    Examples:
        >>> patchcut.sources.videos.path_of_url("file:///holiday/day%201.mp4")
        '/holiday/day 1.mp4'
    """
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "file":
        return None
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            return None
        rest = slash + rest
    path = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
    # A name with a % in it, written as it is
    return rest if Path(rest).exists() and not Path(path).exists() else path


def frames_of(
    av: Any, container: Any, name: str, *, every: int, rule: PixelRule, file: BinaryIO | None = None
) -> Source:
    """The frames of an open container, which is closed with them or where this fails."""
    try:
        return AvVideo(av, container, name, every=every, rule=rule, file=file)
    except BaseException:
        container.close()
        raise
