"""COCO's JSON of a whole run, written while results come."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from patchcut.output.spools import Spool
from patchcut.result import Result

# Of one result, ready for JSON: its "image", its "annotations" with the names of their categories, and those
# "categories" with their supercategories; without the numbers, which a file gives.
Found = dict[str, Any]

_VIDEO_ID = 1  # a file has one video


class WholeFiles(Protocol):
    """What writes whole files below a root."""

    root: Path

    def whole_file(self, relative: str) -> AbstractContextManager[Path]:
        """A path to write to; when the block ends it takes its place."""
        ...


class CocoFile:
    """A file of images, annotations and categories, such as pycocotools reads.

    Each region is an annotation whose mask is COCO's compressed run lengths, so that holes and several pieces
    are kept; with its score it is a result, too. A category is a label; those of the background are of the
    supercategory "background".

    A file of a video tells which annotations are one object, as those who read COCO with tracks expect it:
    `videos` and `tracks`, and in annotations `track_id` (TAO, FiftyOne), `instance_id` (CocoVID of
    MMTracking), and `attributes.track_id` (Datumaro, CVAT).

    Args:
        files: where it goes: `OutputFiles`, or what writes whole files below a root as they do.
        path: below their root.
        of_video: whether its images are frames of one video.
    Examples:
        >>> files = patchcut.output.files.OutputFiles(folder)
        >>> coco = patchcut.output.coco.CocoFile(files, "coco.json")
        >>> coco.add(patchcut.output.coco.found_in(result, "astronaut.jpg"))
        >>> coco.close()
        >>> print((folder / "coco.json").read_text()[:44])
        {"info": {"description": "made by patchcut"}
    """

    def __init__(self, files: WholeFiles, path: str, *, of_video: bool = False) -> None:
        self._files = files
        self._path = path
        self._images, self._annotations = Spool(files.root, ",\n"), Spool(files.root, ",\n")
        self._categories: dict[str, dict[str, Any]] = {}
        self._of_video = of_video
        self._video: dict[str, Any] = {}
        self._tracks: dict[int, dict[str, Any]] = {}

    def add(self, found: Found) -> None:
        """Adds an image and its annotations, and gives them their numbers.

        Raises:
            OutputError: "[output] cannot write DIR: No space left on device; ...".
        Examples:
            >>> coco = patchcut.output.coco.CocoFile(patchcut.output.files.OutputFiles(folder), "x.json")
            >>> coco.add(patchcut.output.coco.found_in(result, "astronaut.jpg"))
        """
        for name, supercategory in found["categories"].items():
            number = len(self._categories) + 1
            category = {"id": number, "name": name, "supercategory": supercategory}
            self._categories.setdefault(name, category)
        image_id, first_id = self._images.count + 1, self._annotations.count + 1
        annotations = [
            {
                **one,
                "id": first_id + i,
                "image_id": image_id,
                "category_id": self._categories[one["category"]]["id"],
            }
            for i, one in enumerate(found["annotations"])
        ]
        for one in annotations:
            del one["category"]
        image = {"id": image_id, **found["image"]}
        if self._of_video:
            self._add_tracks(image, annotations)
        self._annotations.add(*map(json.dumps, annotations))
        self._images.add(json.dumps(image))

    def close(self) -> None:
        """Writes the file, if an image was added.

        Raises:
            OutputError: it cannot be written.
        Examples:
            >>> patchcut.output.coco.CocoFile(patchcut.output.files.OutputFiles(folder), "x.json").close()
            >>> (folder / "x.json").exists()
            False
        """
        try:
            if self._images.count:
                with self._files.whole_file(self._path) as path, path.open("wb") as file:
                    file.write(b'{"info": {"description": "made by patchcut"},\n"images": [\n')
                    self._images.copy_to(file)
                    file.write(b'\n],\n"annotations": [\n')
                    self._annotations.copy_to(file)
                    categories = json.dumps(list(self._categories.values()))
                    file.write(f'\n],\n"categories": {categories}{self._videos()}}}\n'.encode())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Writes nothing, and gives the disk its space back.

        Examples:
            >>> coco = patchcut.output.coco.CocoFile(patchcut.output.files.OutputFiles(folder), "x.json")
            >>> coco.abandon()
        """
        self._images.close()
        self._annotations.close()

    def _add_tracks(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Puts the frame's video, and the annotations' objects, under each name that is read."""
        self._video = self._video or {
            "id": _VIDEO_ID,
            "name": image["video"],
            "width": image["width"],
            "height": image["height"],
        }
        image |= {"video_id": _VIDEO_ID, "frame_id": image["id"] - 1}
        for one in annotations:
            one["video_id"] = _VIDEO_ID
            if (track_id := one.get("track_id")) is None:
                continue
            one |= {"instance_id": track_id, "attributes": {"track_id": track_id}}
            track = {"id": track_id, "category_id": one["category_id"], "video_id": _VIDEO_ID}
            self._tracks.setdefault(track_id, track)

    def _videos(self) -> str:
        if not self._of_video:
            return ""
        tracks = json.dumps(list(self._tracks.values()))
        return f',\n"videos": {json.dumps([self._video])},\n"tracks": {tracks}'


def found_in(result: Result, file_name: str, *, of_video: bool = False) -> Found:
    """What COCO's file tells of one result.

    Args:
        file_name: what the image is called.
        of_video: whether it is a frame of a video, whose name, number and time are told then.
    Examples:
        >>> found = patchcut.output.coco.found_in(result, "astronaut.jpg")
        >>> found["image"], found["categories"]
        ({'file_name': 'astronaut.jpg', 'width': 512, 'height': 512}, {'foreground': 'foreground'})
    """
    height, width = result.label_map.shape
    image: dict[str, Any] = {"file_name": file_name, "width": width, "height": height}
    if of_video:
        image |= {"video": result.name, "frame_index": result.index, "time_s": result.time_s}
    categories = {
        label: "background" if column in result.background_columns else "foreground"
        for column, label in enumerate(result.labels)
        if column
    }
    annotations = result.to_coco()
    for one in annotations:
        one["category"] = result.labels[one.pop("category_id")]
        del one["id"], one["image_id"]
    return {"image": image, "annotations": annotations, "categories": categories}
