"""Boxes that say where the things of folders are: COCO JSON, beside the photographs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.concepts.shown import largest_iou
from patchcut.stages import Canvas

from patchcut_export.concepts.archives import Archive
from patchcut_export.errors import ExportError

Float32 = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open pixels
CanvasOf = Callable[[tuple[int, int]], Canvas]

_SEEN = 0.5  # IoU of what is inside boxes with a piece of the foreground


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a file.

    Attributes:
        file: where they were read.
        sizes: height and width of each photograph, by its name as the file has it.
        named: by category, the boxes of each photograph.
    """

    file: Path
    sizes: Mapping[str, tuple[int, int]]
    named: Mapping[str, Mapping[str, Sequence[Box]]]

    def told(self, archive: Archive, canvas_of: CanvasOf) -> Archive:
        """An archive whose patches are foreground where a box of its name is, on photographs that have one.

        Args:
            canvas_of: where a photograph of a height and width lies in the backbone's image.
        """
        own = self.named.get(archive.name, {})
        sides, seen = archive.sides.copy(), []
        for i, image in enumerate(archive.images):
            name = next((one for one in (image, Path(image).name) if one in own), None)
            if name is None:
                continue
            canvas = canvas_of(self.sizes[name])
            sides[i] = np.max([inside_box(box, canvas) for box in own[name]], axis=0)
            seen.append(largest_iou(sides[i] > 0.5, archive.sides[i] > 0.5, archive.grid_hw))
        if not seen:
            return archive
        return replace(archive, sides=sides, boxed=len(seen), unseen=float(np.median(seen)) <= _SEEN)

    def check_used(self, archives: Sequence[Archive]) -> None:
        """Checks that boxes say where something is.

        Raises:
            ExportError: no photograph of a concept has a box of its name.
        """
        if not any(one.boxed for one in archives):
            held = ", ".join(self.named) or "none"
            names = ", ".join(f'"{one.name}"' for one in archives)
            what = f"{self.file} has no box on the photographs of {names}; it has boxes of {held}"
            remedy = "its categories are called as the concepts, its file_name as the photographs"
            raise ExportError("boxes", what, remedy)


def read_boxes(file: Path) -> Boxes:
    """The boxes of a COCO JSON file: `images`, `annotations` with `bbox`, `categories`.

    Raises:
        ExportError: it is not there, no such file, or a box is empty or outside of its photograph.
    """
    try:
        content = json.loads(file.read_bytes())
        images = {image["id"]: image for image in content["images"]}
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        sizes = {str(one["file_name"]): (int(one["height"]), int(one["width"])) for one in images.values()}
        named: dict[str, dict[str, list[Box]]] = {}
        for one in content["annotations"]:
            category, image = categories[one["category_id"]], str(images[one["image_id"]]["file_name"])
            x, y, width, height = (float(number) for number in one["bbox"])
            box = _pixels((x, y, width, height), sizes[image])
            if box is None:
                what = f"{file}: the box of {category} on {image} is empty or outside of it"
                raise ExportError("boxes", what, "bbox is x, y, width, height in pixels")
            named.setdefault(category, {}).setdefault(image, []).append(box)
    except OSError as error:
        raise ExportError("boxes", f"{file} cannot be read: {error.strerror}", "name a COCO JSON") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{file} is no COCO JSON of boxes ({type(error).__name__}: {error})"
        remedy = "it needs images with file_name, width, height; annotations with bbox; categories with name"
        raise ExportError("boxes", what.replace("\n", " "), remedy) from error
    return Boxes(file, sizes, named)


def inside_box(box: Box, canvas: Canvas) -> Float32:
    """[n] float32, 1 of patches at least half of which, or as much as of any, is inside a box; else 0.

    Args:
        box: x0, y0, x1, y1, half-open pixels of the frame.
    """
    x0, y0, x1, y1 = box
    pixels = np.zeros(canvas.frame_hw, np.int32)
    pixels[y0:y1, x0:x1] = 1
    share = canvas.cover(pixels, 1)[0]
    inside: Float32 = (share >= min(0.5, float(share.max()))).astype(np.float32)
    return inside


def _pixels(bbox: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Box | None:
    """A box of COCO in whole pixels of its photograph; None where there is none of it."""
    x, y, width, height = bbox
    edges = np.rint(np.clip([x, y, x + width, y + height], 0, [*size_hw[::-1], *size_hw[::-1]]))
    x0, y0, x1, y1 = (int(edge) for edge in edges)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
