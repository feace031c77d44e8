"""Pictures of which a file holds several: animations, which are videos, and pages, which are photos."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from patchcut.errors import COPY_AGAIN, FrameError, PatchcutError, SourceError
from patchcut.frames import Frame, as_frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources.base import Source
from patchcut.sources.headers import PNG_START, Header, is_full_page, page_header, read_header, tiff_pages
from patchcut.sources.photos import decode_photo, known_formats

_HEAD_BYTES = 65_536
_PILLOW = "AVIF GIF PNG WEBP"


def open_animation(path: Path, *, every: int, rule: PixelRule = AS_IT_COMES) -> Source | None:
    """The source of a file that holds several pictures, None where it holds one, or is none.

    Args:
        path: the file; only its first bytes are read where these say that there is one picture.
        every: take pictures 0, every, 2 * every, ...
        rule: how pixels are read.
    Returns:
        For GIF, animated WebP, APNG and AVIF a source of the kind "video", with times; for the pages of a
        TIFF file one of the kind "images".
    Raises:
        SourceError: the pictures have more pixels than `rule` allows.
        OSError: the file cannot be read.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> patchcut.sources.animations.open_animation(folder / "x.png", every=1) is None
        True
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not _may_hold_several(head):
            return None
        data = head + file.read()
    header = read_header(data)
    if header is None:
        return None
    if header.kind == "TIFF" and (header.pictures > 1 or (header.damage and header.height)):
        return Pages(path.name, data, header, every=every, rule=rule)
    if not header.animated:
        return None
    if wrong := rule.too_large(header.height, header.width):
        raise SourceError(path.name, *wrong)
    if not _pillow_reads(header.kind):
        return FirstFrame(path.name, data, header, rule=rule)
    image = _opened(data)
    if image is None:
        raise SourceError(path.name, header.damage or "is damaged and cannot be decoded", COPY_AGAIN)
    return Animation(path.name, image, header, every=every, rule=rule)


class Animation(Source):
    """Frames of a GIF, WebP, PNG or AVIF file, each as a viewer shows it; loops are played once.

    Args:
        name: of the file.
        image: it, opened by Pillow.
        header: what the file says of itself.
        every: yield frames 0, every, 2 * every, ...
        rule: how pixels are read.
    """

    def __init__(
        self, name: str, image: Any, header: Header, *, every: int = 1, rule: PixelRule = AS_IT_COMES
    ) -> None:
        count = len(header.delays_s)
        ends_s = [float(end) for end in accumulate(header.delays_s)]
        super().__init__("video", name, total=-(-count // every), fps=count / ends_s[-1])
        self._image, self._header, self._every, self._rule = image, header, every, rule
        self._ends_s = ends_s

    def __iter__(self) -> Iterator[Frame]:
        # The picture that viewers without animation show is a frame of its own to Pillow.
        first = int(getattr(self._image, "default_image", False))
        read, damage = 0, self._header.damage
        for index, begin_s in enumerate([0.0, *self._ends_s[:-1]]):
            try:
                frame = self._frame(first + index, wanted=index % self._every == 0)
            except FrameError as error:
                damage = error.what
                break
            read, self.end_s = index + 1, self._ends_s[index]
            if frame is not None:
                frame = replace(frame, name=self.name, index=index, time_s=begin_s)
                self.take_notes(frame)
                yield frame
        if damage or read < self._header.pictures:
            damage = damage or "is damaged"
            what = f"{damage}; {read} of {self._header.pictures} frames were read"
            self.problems.append(str(SourceError(self.name, what, COPY_AGAIN)))

    def _frame(self, position: int, wanted: bool) -> Frame | None:
        """The frame at a position of Pillow's, None where it is not wanted.

        Raises:
            FrameError: it cannot be decoded.
        """
        try:
            self._image.seek(position)
            if not wanted:
                return None
            image = self._image
            if self._header.orientation != 1:
                from PIL import ImageOps

                image = ImageOps.exif_transpose(image)
            return as_frame(image, rule=self._rule)
        except FrameError:
            raise
        except MemoryError as error:
            raise FrameError("frame", "does not fit in memory when decoded") from error
        except Exception as error:  # Pillow's readers raise whatever they meet in a broken file
            raise FrameError("frame", "is damaged or cut short") from error

    def close(self) -> None:
        self._image.close()


class FirstFrame(Source):
    """The first frame of an animation, where nothing is installed that reads the others."""

    def __init__(self, name: str, data: bytes, header: Header, *, rule: PixelRule = AS_IT_COMES) -> None:
        super().__init__("images", name, total=1)
        self._data, self._header, self._rule = data, header, rule

    def __iter__(self) -> Iterator[Frame]:
        alone = replace(self._header, pictures=1)
        pixels, which = None, "only the first"
        try:
            pixels = decode_photo(self._data, self.name, rule=self._rule, header=alone)
        except SourceError:  # OpenCV before 4.11 reads no animated WebP, and no GIF
            which = "none"
        what = f"{which} of {self._header.pictures} frames was read"
        self.problems.append(str(SourceError(self.name, what, "pip install 'pillow>=11.3'")))
        if pixels is None:
            return
        frame = Frame(pixels.image, "bgr", self.name, visible=pixels.visible, notes=pixels.notes)
        self.take_notes(frame)
        yield frame


class Pages(Source):
    """Pages of a TIFF file as photos, called x.tif#1, x.tif#2, ...; smaller copies and masks are left out.

    Args:
        name: of the file.
        data: it.
        header: what the file says of itself.
        every: yield pages 0, every, 2 * every, ...
        rule: how pixels are read.
    """

    def __init__(
        self, name: str, data: bytes, header: Header, *, every: int = 1, rule: PixelRule = AS_IT_COMES
    ) -> None:
        super().__init__("images", name, total=-(-header.pictures // every))
        self._data, self._damage, self._every, self._rule = data, header.damage, every, rule

    def __iter__(self) -> Iterator[Frame]:
        pages = (page for page in self._directories() if is_full_page(page[1]))
        data = bytearray(self._data)
        for index, (offset, tags) in enumerate(pages):
            if index % self._every:
                continue
            _make_first(data, offset)
            name = f"{self.name}#{index + 1}"
            try:
                pixels = decode_photo(data, name, rule=self._rule, header=page_header(tags))
            except PatchcutError as error:
                self.problems.append(str(error))
                continue
            frame = Frame(pixels.image, "bgr", name, index, visible=pixels.visible, notes=pixels.notes)
            self.take_notes(frame)
            yield frame
        if self._damage:
            self.problems.append(str(SourceError(self.name, self._damage, COPY_AGAIN)))

    def _directories(self) -> Iterator[tuple[int, dict[int, tuple[float, ...]]]]:
        try:
            yield from tiff_pages(self._data)
        except Exception:  # where the header said that it is cut short
            return


def _make_first(data: bytearray, offset: int) -> None:
    """Makes the directory at `offset` the first of a TIFF file: decoders then read that page."""
    begin, size = (8, 8) if 43 in data[2:4] else (4, 4)
    data[begin : begin + size] = offset.to_bytes(size, "little" if data[:2] == b"II" else "big")


def _may_hold_several(head: bytes) -> bool:
    """Whether the first bytes of a file leave it open that it holds more than one picture."""
    if head.startswith(PNG_START):
        before, pixels, _ = head.partition(b"IDAT")
        return not pixels or b"acTL" in before
    if head[:4] == b"RIFF":
        return head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 0x02)
    return (
        head.startswith((b"GIF8", b"II*\x00", b"II+\x00", b"MM\x00*", b"MM\x00+"))
        or head[4:12] == b"ftypavis"
    )


def _pillow_reads(kind: str) -> bool:
    """Whether a Pillow is installed that reads animations of a kind; AVIF came with 11.3."""
    try:
        from PIL import features
    except ImportError:
        return False
    return kind not in ("AVIF", "WebP") or bool(features.check(kind.lower()))


def _opened(data: bytes) -> Any:
    """A file opened by Pillow, None where it is damaged."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: they were counted already
            return Image.open(io.BytesIO(data), formats=known_formats(Image, _PILLOW))
    except Exception:  # its readers raise whatever they meet in a broken file
        return None
