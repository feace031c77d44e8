"""Sinks: what can be saved of a result. Each is a word of `--save`."""

from __future__ import annotations

import contextlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.output.coco import CocoFile, found_in
from patchcut.output.files import OutputFiles
from patchcut.output.index import Index, VideoEntry, files_by_word, thumbnail_of
from patchcut.output.json_lines import JsonLines
from patchcut.output.label_maps import encode_label_map
from patchcut.output.overlay_video import OverlayVideo
from patchcut.output.rerun_recording import RerunRecording, load_rerun
from patchcut.output.sound import Sound
from patchcut.result import Result
from patchcut.sources import Source

Image = npt.NDArray[np.uint8]

_DEFAULT_FPS = 25.0
_ARRAYS = ("label_map", "region_ids", "boxes", "scores", "areas", "region_labels")


class Sink(ABC):
    """Writes one kind of file of each result, into the folder that is called as its word.

    Calls come in the order `start`, then `write` or `skipped` for each photo or frame, then `finish_part`
    where the part came to its end, for each part; at last `close`, also after an error. An OutputError of
    `write` is told and the run goes on; one for which `stops_all` holds ends it.

    Attributes:
        word: what `--save` calls it.
        draws: whether it needs the overlay of each result.
        files: where it writes; `files.item` lists what other sinks have written of this photo or frame.
    """

    word: ClassVar[str]
    draws: ClassVar[bool] = False

    def __init__(self, files: OutputFiles) -> None:
        self.files = files

    @classmethod  # noqa: B027 - most sinks need nothing
    def check(cls) -> None:
        """Tries what the sink needs, before anything is opened or written.

        Raises:
            PatchcutError: a package is missing.
        """

    def start(self, part: Source) -> None:  # noqa: B027 - most sinks treat all sources alike
        """What follows are results of `part`: of photos, or of one video."""

    @abstractmethod
    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        """Saves one result.

        Args:
            name: what its files are called, such as "a/x", and "walk/000012" of a frame of a video.
            result: of one photo or frame.
            overlay: [H, W, 3] uint8 in the result's order of channels, where `draws`.
        Raises:
            OutputError: it cannot be written.
        """

    def skipped(self, name: str) -> None:  # noqa: B027 - most sinks need not know
        """A photo or whole video that an earlier run is done with: its files are there; see `files.notes`."""

    def finish_part(self, end_s: float | None) -> None:  # noqa: B027
        """The part has ended, at that second of its own clock.

        Raises:
            OutputError: what was to be finished cannot be written.
        """

    def close(self) -> None:  # noqa: B027
        """There is no more.

        Raises:
            OutputError: what was to be finished cannot be written.
        """


class OverlaySink(Sink):
    """overlay/NAME.jpg: the photo with its regions drawn; of a video one video, overlay/VIDEO.mp4."""

    word = "overlay"
    draws = True

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._fps: float | None = None
        self._part: Source | None = None
        self._video: OverlayVideo | None = None
        self._sound: Sound | None = None
        self._failed = False

    def start(self, part: Source) -> None:
        self._fps = (part.fps or _DEFAULT_FPS) / part.every if part.is_video else None
        self._part, self._video, self._sound, self._failed = part, None, None, False

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        image = result.overlay() if overlay is None else overlay
        image = image[..., ::-1] if result.color == "rgb" else image
        if self._fps is None:
            self.files.write_image(f"overlay/{name}.jpg", image)
        elif not self._failed:
            self._append(name.rpartition("/")[0], self._fps, image, result.time_s)

    def finish_part(self, end_s: float | None) -> None:
        video, self._video = self._video, None
        if video is None:
            return
        try:
            video.close(end_s)
        finally:
            note = None if self._sound is None else self._sound.note()
            if note is not None and self._part is not None:
                self._part.notes.append(note)

    def close(self) -> None:
        self.finish_part(None)

    def _append(self, name: str, fps: float, image: Image, time_s: float | None) -> None:
        try:
            if self._video is None:
                height, width = image.shape[:2]
                path = self.files.path(f"overlay/{name}")
                if self._part is not None and self._part.has_sound:
                    self._sound = Sound(self._part, time_s or 0.0)
                how: dict[str, Any] = {"open_partial": self.files.whole_file, "sound": self._sound}
                self._video = OverlayVideo(path, fps, (width, height), **how)
            self._video.write(image, time_s)
        except OutputError:
            self._failed = True  # one line is enough, not one a frame
            with contextlib.suppress(OutputError):
                self.close()
            raise


class MasksSink(Sink):
    """masks/NAME/01.png: one mask a region, 0 or 255, best first: 01 is region 1."""

    word = "masks"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        names = [f"{region:02d}.png" for region in range(1, len(result) + 1)]
        for region, file in enumerate(names, start=1):
            mask = (result.region_ids == region).view(np.uint8) * np.uint8(255)
            self.files.write_image(f"masks/{name}/{file}", mask)
        self.files.remove_others(f"masks/{name}", names)  # an earlier run found more regions


class LabelsSink(Sink):
    """labels/NAME.png: the label map, 0 background, i the i-th label; see `encode_label_map`."""

    word = "labels"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        self.files.write(
            f"labels/{name}.png", encode_label_map(result.label_map, len(result.labels), result.label_colors)
        )


class CutoutSink(Sink):
    """cutout/NAME.png: the frame with its objects opaque and the rest transparent."""

    word = "cutout"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        picture = result.cutout()
        picture = picture[..., [2, 1, 0, 3]] if result.color == "rgb" else picture
        self.files.write_image(f"cutout/{name}.png", picture)


class CropSink(Sink):
    """crop/NAME.jpg: the frame around its best object; no file where nothing was found."""

    word = "crop"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        picture = result.crop()
        if picture is not None:
            picture = picture[..., ::-1] if result.color == "rgb" else picture
            self.files.write_image(f"crop/{name}.jpg", picture)


class VotesSink(Sink):
    """votes/NAME.jpg: how much each voter of a head says that a place is foreground; what came of it."""

    word = "votes"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        picture = result.draw_votes()
        if picture is None:
            what = "this head takes no votes"
            raise OutputError(f"votes/{name}.jpg", what, "choose one that does, such as --head levels")
        self.files.write_image(f"votes/{name}.jpg", picture[..., ::-1] if result.color == "rgb" else picture)


class NpzSink(Sink):
    """npz/NAME.npz: the result's own arrays, compressed; `np.load` reads them."""

    word = "npz"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        arrays: dict[str, Any] = {array: getattr(result, array) for array in _ARRAYS}
        arrays["labels"] = np.array(result.labels, str)
        if result.track_ids is not None:
            arrays["track_ids"] = result.track_ids
        if result.votes is not None:
            arrays["votes"] = result.votes
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        self.files.write(f"npz/{name}.npz", file.getvalue())


class JsonSink(Sink):
    """json/NAME.json: boxes, scores, labels, areas and timings, and the files that others wrote."""

    word = "json"

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        text = json.dumps(_told(result, self.files.item), indent=1, ensure_ascii=False) + "\n"
        self.files.write(f"json/{name}.json", text.encode())


class ListingSink(Sink):
    """A file that lists all photos. Each is noted, so that a run that resumes can list it again."""

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._of_video = False
        self._listed: set[str] = set()

    def start(self, part: Source) -> None:
        self._of_video = part.is_video

    def skipped(self, name: str) -> None:
        if name in (notes := self.files.notes(self.word)):  # a video may have a file of its own
            self._list(name, notes[name])

    def _list_and_note(self, name: str, note: dict[str, Any]) -> None:
        self._list(name, note)
        self.files.note(self.word, name, note)

    def _list(self, name: str, note: dict[str, Any]) -> None:
        self._listed.add(name)
        self._add(note)

    def _left_out(self) -> list[tuple[str, Any]]:
        """What earlier runs noted and this one did not come to: it was stopped, or had another source."""
        notes = self.files.notes(self.word)
        return [(name, note) for name, note in notes.items() if name not in self._listed]

    @abstractmethod
    def _add(self, note: dict[str, Any]) -> None:
        """Adds a photo to the file."""


class JsonLinesSink(ListingSink):
    """results.jsonl: a line for each photo, with masks as run lengths; jsonl/VIDEO.jsonl: for each frame."""

    word = "jsonl"

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._photos = JsonLines(files, "results.jsonl")
        self._video: JsonLines | None = None

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        told = result.to_dict(masks="rle")
        if not self._of_video:
            self._list_and_note(name, told)
            return
        if self._video is None:
            self._video = JsonLines(self.files, f"jsonl/{name.rpartition('/')[0]}.jsonl")
        self._video.add(told)

    def finish_part(self, end_s: float | None) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def close(self) -> None:
        for name, told in self._left_out():
            self._list(name, told)
        self._photos.close()

    def _add(self, note: dict[str, Any]) -> None:
        self._photos.add(note)


class CocoSink(ListingSink):
    """coco.json: images, annotations and categories of all photos; coco/VIDEO.json: of a video's frames."""

    word = "coco"

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._photos = CocoFile(files, "coco.json")
        self._video: CocoFile | None = None

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        if not self._of_video:
            self._list_and_note(name, found_in(result, result.name or name))
            return
        if self._video is None:
            self._video = CocoFile(self.files, f"coco/{name.rpartition('/')[0]}.json", of_video=True)
        self._video.add(found_in(result, name, of_video=True))

    def finish_part(self, end_s: float | None) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def close(self) -> None:
        for name, found in self._left_out():
            self._list(name, found)
        self._photos.close()

    def _add(self, note: dict[str, Any]) -> None:
        self._photos.add(note)


class RerunSink(Sink):
    """rerun/NAME.rrd: a recording for Rerun's viewer of a photo; of a video one, rerun/VIDEO.rrd."""

    word = "rerun"

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._of_video = False
        self._video: RerunRecording | None = None
        self._failed = False

    @classmethod
    def check(cls) -> None:
        load_rerun()

    def start(self, part: Source) -> None:
        self._of_video, self._video, self._failed = part.is_video, None, False

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        if not self._of_video:
            photo = self._open(name)
            self._add(photo, result)
            photo.close()
        elif not self._failed:
            self._video = self._video or self._open(name.rpartition("/")[0])
            self._add(self._video, result)

    def finish_part(self, end_s: float | None) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def close(self) -> None:
        self.finish_part(None)

    def _open(self, name: str) -> RerunRecording:
        path = self.files.path(f"rerun/{name}.rrd")
        return RerunRecording(path, open_partial=self.files.whole_file)

    def _add(self, recording: RerunRecording, result: Result) -> None:
        try:
            recording.write(result)
        except OutputError:
            self._failed, self._video = True, None  # one line is enough, not one a frame
            with contextlib.suppress(OutputError):
                recording.abandon()
            raise


class IndexSink(ListingSink):
    """index.json: what was found in each photo and video, and in which files; index.html: a contact sheet."""

    word = "index"

    def __init__(self, files: OutputFiles) -> None:
        super().__init__(files)
        self._index = Index(files)
        self._video: VideoEntry | None = None

    def write(self, name: str, result: Result, overlay: Image | None) -> None:
        if not self._of_video:
            told = _told(result, self.files.item)
            entry = {key: told[key] for key in ("name", "size_hw", "regions", "files")}
            entry["name"] = entry["name"] or name
            self._take(name, entry, thumbnail_of(result))
            return
        if self._video is None:
            self._video = VideoEntry(name.rpartition("/")[0])
        self._video.add(result, self.files.item)

    def finish_part(self, end_s: float | None) -> None:
        video, self._video = self._video, None
        if video is not None:
            self._take(video.name, video.entry(self.files.item), video.thumbnail)

    def close(self) -> None:
        for name, entry in self._left_out():
            paths = [path for paths in entry["files"].values() for path in paths]
            if all(self.files.path(path).exists() for path in paths):
                self._list(name, entry)
        self._index.close()

    def _add(self, note: dict[str, Any]) -> None:
        self._index.add(note)

    def _take(self, name: str, entry: dict[str, Any], thumbnail: Image | None) -> None:
        if thumbnail is not None:
            entry["thumbnail"] = f"index/{name}.jpg"
            self.files.write_image(entry["thumbnail"], thumbnail)
        self._list_and_note(name, entry)


def _told(result: Result, item: Collection[str]) -> dict[str, Any]:
    """A result's `to_dict`, with the files that hold it, by their sinks."""
    told = result.to_dict()
    told["files"] = files_by_word(item)
    masks = told["files"].get("masks", [])
    if len(masks) == len(result):
        for region, path in zip(told["regions"], masks, strict=True):
            region["mask_file"] = path
    return told


# In the order of writing: JSON and the index name what those before them have written.
_ORDER: tuple[type[Sink], ...] = (
    OverlaySink,
    MasksSink,
    LabelsSink,
    CutoutSink,
    CropSink,
    VotesSink,
    NpzSink,
    JsonSink,
    JsonLinesSink,
    CocoSink,
    RerunSink,
    IndexSink,
)
SINKS: dict[str, type[Sink]] = {sink.word: sink for sink in _ORDER}
