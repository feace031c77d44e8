"""Frames that follow one another in time."""

from patchcut.video.stream import StreamMode, StreamOptions

__all__ = ["StreamMode", "StreamOptions"]
