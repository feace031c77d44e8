"""The steps of a frame's way, each an object of its own: `Extractor`, a head, `Parts`, `Masks`.

    frame → Extractor → Features → Head → assignment [n, k] → Masks → Regions

`patchcut.Segmenter` is their composition; training, calibration, evaluation and benches use them as well.
"""

from patchcut.stages.canvas import Canvas
from patchcut.stages.extractor import Extractor
from patchcut.stages.frame_graphs import FrameGraph, FrameGraphs
from patchcut.stages.masks import Masks
from patchcut.stages.parts import DividedPatches, Parts
from patchcut.stages.regions import Components, Regions, Rules

__all__ = [
    "Canvas",
    "Components",
    "DividedPatches",
    "Extractor",
    "FrameGraph",
    "FrameGraphs",
    "Masks",
    "Parts",
    "Regions",
    "Rules",
]
