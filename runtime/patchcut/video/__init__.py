"""Frames that follow one another in time, and objects that are followed through them."""

from patchcut.video.memory import FrameMemory
from patchcut.video.pointed import PointedObjects, Tracking, pointed_objects
from patchcut.video.prompts import Prompt, prompts_of
from patchcut.video.stream import StreamMode, StreamOptions

__all__ = [
    "FrameMemory",
    "PointedObjects",
    "Prompt",
    "StreamMode",
    "StreamOptions",
    "Tracking",
    "pointed_objects",
    "prompts_of",
]
