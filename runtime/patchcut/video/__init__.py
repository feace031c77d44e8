"""Frames that follow one another in time."""

from patchcut.video.continuity import Continuity
from patchcut.video.memory import FrameMemory
from patchcut.video.scene_cuts import SceneCuts
from patchcut.video.stream import StreamMode, StreamOptions
from patchcut.video.tracker import Seen, Track, Tracker

__all__ = [
    "Continuity",
    "FrameMemory",
    "SceneCuts",
    "Seen",
    "StreamMode",
    "StreamOptions",
    "Track",
    "Tracker",
]
