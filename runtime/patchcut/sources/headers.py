"""Headers of picture files: what a file says of itself, read before anything is decoded.

Each parser takes the whole file and trusts nothing in it: what runs past its end raises, and `read_header`
calls that damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

from patchcut.pixels import Range

Part = TypeVar("Part")

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# AVIF and HEIC, and what both may begin with.
HEIF_BRANDS = tuple(b"avif avis heic heix hevc hevx heim heis mif1 msf1".split())

# In a scan, 0xff followed by 0 is data and by d0..d7 a restart: neither ends it. One 0xff alone is looked
# for, not a row of them: that would look through a tail of 0xff once for each of them.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG_SOI, _JPEG_EOI, _JPEG_SOS, _JPEG_TEM, _JPEG_APP1 = 0xD8, 0xD9, 0xDA, 0x01, 0xE1
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A photo has about ten; thousands in a small file keep a decoder busy for minutes.
MOST_SCANS = 200
# Segments or chunks; a PNG of half a gigabyte has as many. Millions of empty ones take seconds to walk.
MOST_PARTS = 1 << 16

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}
_MOST_PAGES = 10_000
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Header:
    """What a file says of its picture, the first if there are several.

    Attributes:
        kind: the format's name.
        height, width: pixels as they are stored.
        orientation: EXIF's number, 1 to 8, of how they are to be turned; 1 is as stored.
        deep: whether values have more than 8 bits.
        said: the range that its values are promised to keep; None where only their type is said.
        alpha: whether there is alpha, or a colour that stands for it.
        premultiplied: whether the colours have been multiplied by it as OpenCV decodes them.
        pictures: how many there are: frames of an animation, pages.
        animated: whether they follow one another in time.
        delays_s: how long each frame of an animation stays, in seconds.
        damage: what is wrong with the file, "" for nothing that its structure shows.
    """

    kind: str
    height: int
    width: int
    orientation: int = 1
    deep: bool = False
    said: Range | None = None
    alpha: bool = False
    premultiplied: bool = False
    pictures: int = 1
    animated: bool = False
    delays_s: tuple[Fraction, ...] = ()
    damage: str = ""


def read_header(data: bytes) -> Header | None:
    """The header of a picture file, None where it is of no kind that is known here.

    Examples:
        >>> patchcut.sources.headers.read_header(b"P5 640 480 4095\\n").said
        (0, 4095)
    """
    for start, kind, parse in _PARSERS:
        if re.match(start, data, re.DOTALL):
            try:
                return parse(data)
            except (struct.error, IndexError, KeyError, ValueError, OverflowError, StopIteration):
                return Header(kind, 0, 0, damage="is damaged or cut short: its header makes no sense")
    return None


def _few(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a file.

    Raises:
        ValueError: there are more than `MOST_PARTS`.
    """
    for number, part in enumerate(parts):
        if number == MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS:,} parts")
        yield part


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Code, begin and length of each marker's segment; segments, and thumbnails in them, are stepped over."""
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        code, position = marker[1][0], marker.end()
        length = 0
        if code not in (_JPEG_SOI, _JPEG_EOI, _JPEG_TEM):
            length = int.from_bytes(data[position : position + 2], "big")
        yield code, position, length
        position += length


def _jpeg(data: bytes) -> Header:
    size, orientation, scans, damage = None, 1, 0, "is cut short: its end is missing"
    for code, begin, length in _few(jpeg_segments(data)):
        if code == _JPEG_EOI:
            damage = "" if scans else damage
            break
        if code in _JPEG_SIZES and size is None:
            size = struct.unpack_from(">HH", data, begin + 3)
        elif code == _JPEG_APP1 and data[begin + 2 : begin + 8] == b"Exif\x00\x00" and not scans:
            orientation = _exif_orientation(data[begin + 8 : begin + length])
        scans += code == _JPEG_SOS
    if scans > MOST_SCANS:
        damage = f"has {scans} scans, where a photo has about ten: it was made to keep a decoder busy"
    height, width = size or (0, 0)
    return Header("JPEG", height, width, orientation, damage=damage)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and length of each chunk that is whole."""
    position = len(PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + length > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def _png(data: bytes) -> Header:
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    header = Header("PNG", height, width, deep=bits > 8, alpha=color in (4, 6))
    delays: list[Fraction] = []
    damage = "is cut short: its end is missing"
    for kind, begin, length in _few(png_chunks(data)):
        body = data[begin : begin + length] if length < 1 << 20 else b""
        if kind == b"tRNS":
            header = replace(header, alpha=True)
        elif kind == b"sBIT" and body and bits > max(body):
            header = replace(header, said=(0, 2 ** max(body[: 1 if color in (0, 4) else 3]) - 1))
        elif kind == b"eXIf":
            header = replace(header, orientation=_exif_orientation(body))
        elif kind == b"acTL" and length >= 4:
            count = int.from_bytes(body[:4], "big")
            header = replace(header, pictures=max(1, count), animated=count > 1)
        elif kind == b"fcTL":
            number, parts = struct.unpack_from(">HH", data, begin + 20)
            delays.append(Fraction(number, parts or 100))
        elif kind == b"IEND":
            damage = ""
            break
    return replace(header, delays_s=_shown(delays), damage=damage)


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and length of each chunk of a RIFF file."""
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], position + 8, length
        position += 8 + length + length % 2


def _webp(data: bytes) -> Header:
    header = Header("WebP", 0, 0)
    delays: list[Fraction] = []
    for kind, begin, length in _few(riff_chunks(data)):
        if kind == b"VP8X":
            flags, width, height = data[begin], data[begin + 4 : begin + 7], data[begin + 7 : begin + 10]
            header = replace(
                header,
                height=int.from_bytes(height, "little") + 1,
                width=int.from_bytes(width, "little") + 1,
                alpha=bool(flags & 0x10),
                animated=bool(flags & 0x02),
            )
        elif kind == b"VP8L" and not header.height:
            (word,) = struct.unpack_from("<I", data, begin + 1)
            height, width = (word >> 14 & 0x3FFF) + 1, (word & 0x3FFF) + 1
            header = replace(header, height=height, width=width, alpha=bool(word >> 28 & 1))
        elif kind == b"VP8 " and not header.height:
            width, height = struct.unpack_from("<HH", data, begin + 6)
            header = replace(header, height=height & 0x3FFF, width=width & 0x3FFF)
        elif kind == b"EXIF":
            body = data[begin : begin + length]
            orientation = _exif_orientation(body[6:] if body[:6] == b"Exif\x00\x00" else body)
            header = replace(header, orientation=orientation)
        elif kind == b"ANMF":
            delays.append(Fraction(int.from_bytes(data[begin + 12 : begin + 15], "little"), 1000))
    whole = len(data) >= int.from_bytes(data[4:8], "little") + 8
    damage = "" if whole else "is cut short: its end is missing"
    animated = header.animated and len(delays) > 1
    pictures = max(1, len(delays))
    return replace(header, pictures=pictures, animated=animated, delays_s=_shown(delays), damage=damage)


def tiff_pages(data: bytes | bytearray) -> Iterator[tuple[int, dict[int, tuple[float, ...]]]]:
    """Offset and tags of each directory of a TIFF file, in its order; a circle ends.

    Raises:
        struct.error: the file ends before a directory does.
    """
    order, word, header_at = _tiff_words(data)
    (offset,) = struct.unpack_from(order + word, data, header_at)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        entries = _tiff_entries(data, offset)
        yield offset, dict(_tiff_entry(data, entry, order, word) for entry in entries)
        (offset,) = struct.unpack_from(order + word, data, entries.stop)


def as_stored(data: bytes | bytearray) -> bytearray:
    """A copy of a TIFF file whose first page is not to be turned: OpenCV turns it whatever it is asked.

    Raises:
        struct.error: the file ends before its first directory does.
    """
    order, word, header_at = _tiff_words(data)
    copy = bytearray(data)
    (offset,) = struct.unpack_from(order + word, data, header_at)
    for entry in _tiff_entries(data, offset):
        if struct.unpack_from(order + "H", data, entry) == (_ORIENTATION,):
            struct.pack_into(order + "H", copy, entry + 4 + struct.calcsize(word), 1)
    return copy


def _tiff_words(data: bytes | bytearray) -> tuple[str, str, int]:
    """Order of bytes, type of offsets, and where the first is; a BigTIFF has wider ones."""
    order = "<" if data[:2] == b"II" else ">"
    return (order, "Q", 8) if 43 in data[2:4] else (order, "I", 4)


def _tiff_entries(data: bytes | bytearray, offset: int) -> range:
    """Where each entry of the directory at `offset` begins."""
    order, word, _ = _tiff_words(data)
    count_type, size = ("Q", 20) if word == "Q" else ("H", 12)
    (count,) = struct.unpack_from(order + count_type, data, offset)
    begin = offset + struct.calcsize(order + count_type)
    if begin + count * size > len(data):
        raise struct.error("a directory runs past the end of the file")
    return range(begin, begin + count * size, size)


def _tiff_entry(data: bytes | bytearray, entry: int, order: str, word: str) -> tuple[int, tuple[float, ...]]:
    """A tag and its first values, none where they are of a type that is not needed."""
    tag, type_, count = struct.unpack_from(f"{order}HH{word}", data, entry)
    letter = _TIFF_TYPES.get(type_)
    if letter is None:
        return tag, ()
    at, room = entry + 4 + struct.calcsize(word), struct.calcsize(word)
    if struct.calcsize(letter) * count > room:
        (at,) = struct.unpack_from(order + word, data, at)
    return tag, struct.unpack_from(f"{order}{min(count, 8)}{letter}", data, at)


def is_full_page(tags: dict[int, tuple[float, ...]]) -> bool:
    """False for a smaller copy of another page, and for a mask.

    Examples:
        >>> patchcut.sources.headers.is_full_page({254: (1,)})
        False
    """
    return not int((tags.get(254) or (0,))[0]) & 0b101


def _tiff(data: bytes) -> Header:
    first, pictures, damage = None, 0, ""
    try:
        for _, tags in tiff_pages(data):
            first = tags if first is None else first
            pictures += is_full_page(tags)
    except struct.error:
        damage = "is cut short: a page of it is missing"
    if first is None:
        raise ValueError("no directory")
    return replace(page_header(first), pictures=max(1, pictures), damage=damage)


def page_header(tags: dict[int, tuple[float, ...]]) -> Header:
    """The header of one page of a TIFF file.

    Examples:
        >>> patchcut.sources.headers.page_header({256: (640,), 257: (480,)}).height
        480
    """

    def value(tag: int, default: float) -> float:
        return (tags.get(tag) or (default,))[0]

    bits, kind, extra = int(value(258, 1)), int(value(339, 1)), tags.get(338) or ()
    least, largest = value(340, value(280, 0)), value(341, value(281, 0))
    said = (least, largest) if largest > least else None
    if 8 < bits < 16 and kind == 1:
        said = (0, 2**16 - 2 ** (16 - bits))  # OpenCV moves them to the upper end of 16 bits
    orientation = int(value(_ORIENTATION, 1))
    unnamed_alpha = 338 not in tags and value(277, 1) == 4 and value(262, 0) == 2
    return Header(
        "TIFF",
        int(value(257, 0)),
        int(value(256, 0)),
        orientation if orientation in _TURNS else 1,
        deep=bits > 8,
        said=said if bits > 8 else None,
        alpha=1 in extra or 2 in extra or unnamed_alpha,
        # OpenCV takes 8 bits from libtiff, which multiplies them.
        premultiplied=1 in extra or (2 in extra and bits == 8),
    )


def _exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 where it says none."""
    try:
        for _, tags in tiff_pages(exif):
            orientation = int((tags.get(_ORIENTATION) or (1,))[0])
            return orientation if orientation in _TURNS else 1
    except (struct.error, ValueError, OverflowError):
        pass
    return 1


def _gif(data: bytes) -> Header:
    """Walks the blocks: a GIF does not say how many pictures it has."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _color_table(flags)
    delay, delays, damage = Fraction(0), list[Fraction](), "is cut short: its end is missing"
    while position < len(data):
        block, position = data[position], position + 1
        if block == 0x3B:
            damage = ""
            break
        if block == 0x21:
            if data[position : position + 2] == b"\xf9\x04":
                delay = Fraction(int.from_bytes(data[position + 3 : position + 5], "little"), 100)
            position += 1
        elif block == 0x2C and position + 9 <= len(data):
            left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, position)
            width, height = max(width, left + wide), max(height, top + high)
            delays.append(delay)  # which stays what it was where none is said, as FFmpeg has it
            position += 10 + _color_table(flags)
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    # What the pictures leave free of the screen is transparent, too.
    pictures, animated = max(1, len(delays)), len(delays) > 1
    header = Header("GIF", height, width, alpha=True, pictures=pictures, animated=animated)
    return replace(header, delays_s=_shown(delays), damage=damage)


def _shown(delays: list[Fraction]) -> tuple[Fraction, ...]:
    """How long frames stay; where no time is said, a tenth of a second, as browsers and FFmpeg have it."""
    return tuple(delay or Fraction(1, 10) for delay in delays)


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    alpha = size >= 56 and struct.unpack_from("<H", data, 28)[0] == 32
    alpha = alpha and struct.unpack_from("<I", data, 66)[0] != 0
    return Header("BMP", abs(height), abs(width), alpha=alpha)


def _pnm(data: bytes) -> Header:
    text = re.sub(rb"#[^\n]*", b"", data[:4096])
    words = text.split(maxsplit=4)
    width, height = int(words[1]), int(words[2])
    if words[0] in (b"P1", b"P4"):
        return Header("PNM", height, width)
    if words[0] in (b"Pf", b"PF"):
        return Header("PFM", height, width, deep=True)
    largest = int(words[3])
    return Header("PNM", height, width, deep=largest > 255, said=(0, largest) if largest != 255 else None)


def _pam(data: bytes) -> Header:
    head = data[: data.index(b"ENDHDR")]
    found = {key: int(number) for key, number in re.findall(rb"(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d+)", head)}
    largest = found[b"MAXVAL"]
    said = (0, largest) if largest != 255 else None
    alpha = found[b"DEPTH"] in (2, 4)
    return Header("PAM", found[b"HEIGHT"], found[b"WIDTH"], deep=largest > 255, said=said, alpha=alpha)


def _hdr(data: bytes) -> Header:
    size = re.search(rb"[-+]Y +(\d+) +[-+]X +(\d+)", data[:65536])
    if size is None:
        raise ValueError("no size")
    return Header("HDR", int(size[1]), int(size[2]), deep=True)


def _sun(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 4)
    return Header("Sun raster", height, width)


def _jpeg2000(data: bytes) -> Header:
    siz = data.index(b"\xff\x4f\xff\x51") + 6
    right, bottom, left, top = struct.unpack_from(">IIII", data, siz + 2)
    components, bits = struct.unpack_from(">HB", data, siz + 34)
    bits = (bits & 0x7F) + 1
    said = (0, 2**bits - 1) if 8 < bits < 16 else None
    return Header(
        "JPEG 2000", bottom - top, right - left, deep=bits > 8, said=said, alpha=components in (2, 4)
    )


def _boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    """Kind, begin and end of each box of an ISO file between two positions."""
    while begin + 8 <= end:
        size, kind = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 : begin + 8]
        body = begin + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        stop = end if size == 0 else begin + size
        if stop < body or stop > end:
            return
        yield kind, body, stop
        begin = stop


def _heif(data: bytes) -> Header:
    """AVIF and HEIC: size, turn and depth of the primary item."""
    properties, own = _item_properties(data)
    height = width = 0
    bits, turn = 8, 1
    for kind, begin, _ in own:
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", data, begin + 4)
        elif kind == b"av1C":
            bits = {0: 8, 2: 10}.get(data[begin + 2] >> 5 & 3, 12)
        elif kind == b"irot":
            turn = _after(turn, {0: 1, 1: 8, 2: 3, 3: 6}[data[begin] & 3])
        elif kind == b"imir":
            turn = _after(turn, 2 if data[begin] & 1 else 4)
    brands = data[8 : min(64, int.from_bytes(data[:4], "big"))]
    delays = _track_delays(data) if data[8:12] == b"avis" else ()
    return Header(
        "AVIF" if b"avif" in brands or b"avis" in brands else "HEIC",
        height,
        width,
        turn,
        deep=bits > 8,
        said=(0, 2**bits - 1) if bits > 8 else None,
        alpha=any(kind == b"auxC" and b"alpha" in data[begin:end] for kind, begin, end in properties),
        animated=len(delays) > 1,
        pictures=max(1, len(delays)),
        delays_s=delays,
    )


Box = tuple[bytes, int, int]


def _item_properties(data: bytes) -> tuple[list[Box], list[Box]]:
    """All properties of an ISO file's items, and those of its primary one in their order."""
    primary, properties, items = 0, list[Box](), dict[int, list[int]]()
    meta = next(
        ((begin + 4, end) for kind, begin, end in _boxes(data, 0, len(data)) if kind == b"meta"), (0, 0)
    )
    for kind, begin, end in _boxes(data, *meta):
        if kind == b"pitm":
            primary = int.from_bytes(data[begin + 4 : begin + (8 if data[begin] else 6)], "big")
        for inner, inner_begin, inner_end in _boxes(data, begin, end) if kind == b"iprp" else ():
            if inner == b"ipco":
                properties = list(_boxes(data, inner_begin, inner_end))
            elif inner == b"ipma":
                items.update(_associations(data, inner_begin))
    own = [properties[i - 1] for i in items.get(primary, []) if 0 < i <= len(properties)]
    return properties, own


def _track_delays(data: bytes) -> tuple[Fraction, ...]:
    """How long each sample of an ISO file's first track of pictures lasts."""
    for trak in _boxes_at(data, (0, len(data)), b"moov", b"trak"):
        for media in _boxes_at(data, trak, b"mdia"):
            handler = next(_boxes_at(data, media, b"hdlr"))[0]
            header = next(_boxes_at(data, media, b"mdhd"))[0]
            times = next(_boxes_at(data, media, b"minf", b"stbl", b"stts"))[0]
            if data[handler + 8 : handler + 12] != b"pict":
                continue
            (scale,) = struct.unpack_from(">I", data, header + (20 if data[header] else 12))
            (count,) = struct.unpack_from(">I", data, times + 4)
            runs = [struct.unpack_from(">II", data, times + 8 + 8 * i) for i in range(count)]
            if sum(run for run, _ in runs) > len(data):  # a frame takes a byte at least
                raise ValueError("more frames than bytes")
            return tuple(Fraction(ticks, scale or 1) for run, ticks in runs for _ in range(run))
    return ()


def _boxes_at(data: bytes, span: tuple[int, int], *path: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the boxes that a path of kinds leads to."""
    for kind, begin, end in _boxes(data, *span):
        if kind == path[0]:
            if path[1:]:
                yield from _boxes_at(data, (begin, end), *path[1:])
            else:
                yield begin, end


def _associations(data: bytes, begin: int) -> dict[int, list[int]]:
    """The properties of each item, numbered from 1, of the box that begins there."""
    version, wide = data[begin], data[begin + 3] & 1
    (count,) = struct.unpack_from(">I", data, begin + 4)
    position, found = begin + 8, {}
    for _ in range(count):
        item_size = 2 if version == 0 else 4
        item = int.from_bytes(data[position : position + item_size], "big")
        number, position = data[position + item_size], position + item_size + 1
        indices = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, position)
        found[item] = [index & (0x7FFF if wide else 0x7F) for index in indices]
        position += number * (1 + wide)
    return found


# EXIF's numbers as steps: whether rows and columns change places first, then which of them turn round.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turn_steps(orientation: int) -> tuple[bool, bool, bool]:
    """How to turn a picture upright: transposed, then upside down, then left to right; whether each is due.

    Examples:
        >>> patchcut.sources.headers.turn_steps(6)
        (True, False, True)
    """
    return _TURNS[orientation]


def _after(first: int, second: int) -> int:
    """The orientation that does what `first` does, and then what `second` does."""
    transposed, rows, columns = _TURNS[first]
    then_transposed, then_rows, then_columns = _TURNS[second]
    if then_transposed:
        rows, columns = columns, rows
    steps = (transposed != then_transposed, rows != then_rows, columns != then_columns)
    return next(number for number, it in _TURNS.items() if it == steps)


_PARSERS: tuple[tuple[bytes, str, Callable[[bytes], Header]], ...] = (
    (re.escape(JPEG_START), "JPEG", _jpeg),
    (re.escape(PNG_START), "PNG", _png),
    (rb"RIFF.{4}WEBP", "WebP", _webp),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF", _tiff),
    (rb"GIF8", "GIF", _gif),
    (rb"BM", "BMP", _bmp),
    (rb"P[1-6fF][\s#]", "PNM", _pnm),
    (rb"P7\s", "PAM", _pam),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", _jpeg2000),
    (rb".{4}ftyp(" + b"|".join(HEIF_BRANDS) + rb")", "HEIF", _heif),
    (rb"#\?R(ADIANCE|GBE)", "HDR", _hdr),
    (rb"\x59\xa6\x6a\x95", "Sun raster", _sun),
)
