"""Frames that follow one another in time."""

from patchcut.video.memory import FrameMemory
from patchcut.video.stream import StreamMode, StreamOptions

__all__ = ["FrameMemory", "StreamMode", "StreamOptions"]
