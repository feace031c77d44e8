"""Frames that follow one another in time, and objects that are followed through them."""

from patchcut.video.continuity import Continuity
from patchcut.video.following import Follower, Tracking
from patchcut.video.memory import FrameMemory
from patchcut.video.pointed import PointedObjects, pointed_objects
from patchcut.video.prompts import Prompt, prompts_of
from patchcut.video.reuse import Reuse
from patchcut.video.scene_cuts import SceneCuts
from patchcut.video.steady_labels import SteadyLabels
from patchcut.video.stream import StreamMode, StreamOptions
from patchcut.video.tracker import Seen, Track, Tracker

__all__ = [
    "Continuity",
    "Follower",
    "FrameMemory",
    "PointedObjects",
    "Prompt",
    "Reuse",
    "SceneCuts",
    "Seen",
    "SteadyLabels",
    "StreamMode",
    "StreamOptions",
    "Track",
    "Tracker",
    "Tracking",
    "pointed_objects",
    "prompts_of",
]
