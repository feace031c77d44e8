"""Frames that follow one another in time, and objects that are followed through them."""

from patchcut.video.memory import FrameMemory
from patchcut.video.pointed import PointedObjects, Tracking
from patchcut.video.prompts import Prompt, prompts_of
from patchcut.video.stream import StreamMode, StreamOptions

__all__ = [
    "FrameMemory",
    "PointedObjects",
    "Prompt",
    "StreamMode",
    "StreamOptions",
    "Tracking",
    "prompts_of",
]
