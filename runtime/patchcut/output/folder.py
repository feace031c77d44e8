"""Results on disk, whole files only.

    DIR/overlay/<name>.jpg       the photo with its regions drawn; for a video one video, <video>.mp4
    DIR/masks/<name>/01.png      one mask a region, 0 or 255, best first: 01 is region 1
    DIR/labels/<name>.png        the label map: 0 background, i the i-th label (8 bits; 16 beyond 255)
    DIR/json/<name>.json         boxes, scores, labels, areas and timings

<name> is the photo's path in its source without the suffix, or <video>/<number of the frame, six digits>.
Photos that differ only in their suffix keep it: after x.jpg, which is `x`, x.png is `x-png`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from patchcut.errors import OptionError, OutputError
from patchcut.output.overlay_video import OverlayVideo
from patchcut.output.whole_files import check_writable, write_image, write_whole
from patchcut.result import Result
from patchcut.sources import Source
from patchcut.sources.videos import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from typing_extensions import Self

Saved = Literal["overlay", "masks", "labels", "json"]

SAVED: tuple[Saved, ...] = get_args(Saved)
DEFAULT_SAVE: tuple[Saved, ...] = ("overlay", "masks", "json")

_DEFAULT_FPS = 25.0


class OutputFolder:
    """A folder that results are saved in; a context manager that finishes an overlay video.

    Args:
        path: the folder; made if it is not there.
        save: what to save, of "overlay", "masks", "labels", "json".
        video_fps: None for photos; for a video its rate: overlays then become one video.
        live: hold each frame of that video until the next one's time: frames between were dropped.
        overwrite: allow results of an earlier run to be replaced.
    Raises:
        OptionError: `save` is empty or has another word.
        OutputError: the folder cannot be written, or holds results already.
    Examples:
        >>> with OutputFolder(folder, ["labels"]) as out:
        ...     out.write(result)
        >>> [path.name for path in (folder / "labels").iterdir()]
        ['000000.png']
    """

    def __init__(
        self,
        path: str | Path,
        save: Collection[str] = DEFAULT_SAVE,
        *,
        video_fps: float | None = None,
        live: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.save = check_save(save)
        self._video_fps = video_fps
        self._live = live
        self._video: OverlayVideo | None = None
        self._taken: set[str] = set()
        check_writable(self.path)
        if not overwrite:
            _check_new(self.path, self.save)

    def write(self, result: Result, overlay: npt.NDArray[np.uint8] | None = None) -> None:
        """Saves one frame's result, as asked for.

        Args:
            result: it holds its frame where overlays are saved.
            overlay: the result's, where it has been drawn already.
        Raises:
            FrameError: overlays are saved, and the result holds no frame.
            OutputError: "[output] cannot write DIR/labels/x.png: No space left on device; ...".
        Examples:
            >>> OutputFolder(folder, ["masks"]).write(result)
            >>> (folder / "masks/000000/01.png").is_file()
            True
        """
        name = self._photo_name(result) if self._video_fps is None else _video_frame_name(result)
        if "overlay" in self.save:
            self._write_overlay(name, result, result.overlay() if overlay is None else overlay)
        if "masks" in self.save:
            _write_masks(self.path / "masks" / name, result)
        if "labels" in self.save:
            dtype = np.uint8 if len(result.labels) <= 256 else np.uint16
            write_image(self.path / "labels" / f"{name}.png", result.label_map.astype(dtype))
        if "json" in self.save:
            text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
            write_whole(self.path / "json" / f"{name}.json", text.encode())

    def close(self) -> None:
        """Finishes the overlay video, if there is one; it plays to the last frame written.

        Raises:
            OutputError: it could not be finished.
        Examples:
            >>> out = OutputFolder(folder, ["overlay"], video_fps=25)
            >>> out.write(result)
            >>> out.close()
            >>> len(list((folder / "overlay").iterdir()))
            1
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def written(self) -> tuple[Saved, ...]:
        """Which of `save` the folder really holds; a video that failed was removed.

        Examples:
            >>> OutputFolder(folder, ["json"]).written()
            ()
        """
        return tuple(word for word in self.save if any(map(Path.is_file, (self.path / word).rglob("*"))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None or not issubclass(kind, OutputError):
            self.close()
            return
        with contextlib.suppress(OutputError):  # one error is on its way already
            self.close()

    def _photo_name(self, result: Result) -> str:
        """Where a photo's results go: its own path without the suffix, made unique in this run."""
        names = [name for name in PurePosixPath(result.name).parts if name not in ("..", "/")]
        path = PurePosixPath(*names) if names else PurePosixPath(f"{result.index:06d}")
        stem, suffix = path.with_suffix("").as_posix(), path.suffix.replace(".", "-")
        name, number = stem, 1
        while name.casefold() in self._taken:
            name = f"{stem}{suffix}" if number == 1 else f"{stem}{suffix}-{number}"
            number += 1
        self._taken.add(name.casefold())
        return name

    def _write_overlay(self, name: str, result: Result, overlay: npt.NDArray[np.uint8]) -> None:
        image = overlay[..., ::-1] if result.color == "rgb" else overlay
        path = self.path / "overlay" / name
        if self._video_fps is None:
            write_image(path.with_name(path.name + ".jpg"), image)
            return
        if self._video is None:
            height, width = image.shape[:2]
            self._video = OverlayVideo(path.parent, self._video_fps, (width, height))
        self._video.write(image, result.time_s if self._live else None)


def check_save(save: Collection[str]) -> tuple[Saved, ...]:
    """`save` in the order of writing, each once.

    Raises:
        OptionError: "[save] must be among overlay, masks, labels, json, got 'mask'".
    Examples:
        >>> patchcut.output.folder.check_save(["json", "overlay"])
        ('overlay', 'json')
    """
    wrong = [word for word in save if word not in SAVED]
    if wrong or not save:
        raise OptionError("save", f"must be among {', '.join(SAVED)}, got {(wrong or [''])[0]!r}")
    return tuple(word for word in SAVED if word in save)


def overlay_rate(source: Source, every: int = 1) -> float | None:
    """Frames a second of the video that overlays of `source` make; None where they stay single photos.

    Examples:
        >>> patchcut.output.folder.overlay_rate(patchcut.open_source([frame])) is None
        True
    """
    return (source.fps or _DEFAULT_FPS) / every if source.is_video else None


def _video_frame_name(result: Result) -> str:
    video = PurePosixPath(re.sub(r"[^\w.-]+", "-", result.name).strip("-.") or "video")
    stem = video.stem if video.suffix.lower() in VIDEO_SUFFIXES else video.name
    return f"{stem}/{result.index:06d}"


def _check_new(path: Path, save: tuple[Saved, ...]) -> None:
    for word in save:
        folder = path / word
        if folder.is_dir() and any(folder.iterdir()):
            remedy = "choose another folder, or add --overwrite (overwrite=True)"
            raise OutputError("output", f"{folder} holds results already", remedy)


def _write_masks(folder: Path, result: Result) -> None:
    names = [f"{region:02d}.png" for region in range(1, len(result) + 1)]
    for region, name in enumerate(names, start=1):
        write_image(folder / name, (result.region_ids == region).view(np.uint8) * np.uint8(255))
    for stale in folder.glob("[0-9]*.png"):
        if stale.name not in names:  # an earlier run found more regions
            stale.unlink()
