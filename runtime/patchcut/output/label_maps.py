"""Label maps as PNG files that show their labels in colours and hold their numbers."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2
from patchcut.output.overlay import color_of

_GREY, _INDEXED = 0, 3
_SIGNATURE, _HEADER_END = b"\x89PNG\r\n\x1a\n", 33  # of the chunk IHDR, with its checksum


def encode_label_map(label_map: npt.NDArray[np.int32], count: int, label_colors: Sequence[int] = ()) -> bytes:
    """A PNG file of a label map: its pixels are the labels, shown in the colours of an overlay.

    Args:
        label_map: [H, W] int32 in [0, count).
        count: number of labels. Above 256 the file has 16 bits, grey: a palette has no more.
        label_colors: number of the colour of each label; of its column where there are none.
    Raises:
        OutputError: it has no pixel, or more than PNG can hold.
    Examples:
        >>> len(patchcut.output.label_maps.encode_label_map(result.label_map, 2)) > 100
        True
    """
    grey = label_map.astype(np.uint8 if count <= 256 else np.uint16)
    cv2 = load_cv2()
    try:
        _, encoded = cv2.imencode(".png", np.ascontiguousarray(grey))
    except cv2.error as error:
        size = "x".join(map(str, label_map.shape[::-1]))
        raise OutputError("output", f"cannot encode {size} pixels as PNG", "scale the frame down") from error
    data: bytes = encoded.tobytes()
    return data if count > 256 else _with_palette(data, label_colors or range(count))


def read_label_map(path: str | Path) -> npt.NDArray[np.int32]:
    """[H, W] int32: the label map that `--save labels` wrote, its numbers and not their colours.

    `cv2.imread` gives the colours. Pillow gives the numbers, too: `np.array(Image.open(path))`.

    Raises:
        OutputError: the file cannot be read, or is no label map.
    Examples:
        >>> with OutputFolder(folder, ["labels"]) as out:
        ...     out.write(result)
        >>> labels = patchcut.output.read_label_map(folder / "labels/000000.png")
        >>> bool(np.all(labels == result.label_map))
        True
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OutputError("labels", f"cannot read {path}: {error.strerror}", "check the path") from error
    grey, one = None, 1
    if data.startswith(_SIGNATURE) and len(data) > _HEADER_END:
        if data[25] == _INDEXED and data[24] in (1, 2, 4, 8):
            one = 255 // (2 ** data[24] - 1)  # what a grey PNG of fewer bits than 8 shows for 1
            data = _without_palette(data)
        cv2 = load_cv2()
        with contextlib.suppress(cv2.error):
            grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if grey is None or grey.ndim != 2:
        raise OutputError("labels", f"{path} is no label map", "name a file of labels/")
    labels: npt.NDArray[np.int32] = grey.astype(np.int32) // one
    return labels


def _with_palette(data: bytes, label_colors: Sequence[int]) -> bytes:
    """A grey PNG of 8 bits as one of indices; the compressed pixels are the same in both."""
    colors = [(0, 0, 0), *map(color_of, label_colors[1:])]
    header = _as_color_type(data[:_HEADER_END], _INDEXED)
    return header + _chunk(b"PLTE", bytes(value for color in colors for value in color)) + data[_HEADER_END:]


def _without_palette(data: bytes) -> bytes:
    """`_with_palette` undone."""
    kept, at = [_as_color_type(data[:_HEADER_END], _GREY)], _HEADER_END
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"PLTE", b"tRNS"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _as_color_type(header: bytes, color_type: int) -> bytes:
    """The signature and IHDR of a PNG with another colour type, the tenth byte of that chunk."""
    fields = header[16:25] + bytes([color_type]) + header[26:29]
    return header[:8] + _chunk(b"IHDR", fields)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
