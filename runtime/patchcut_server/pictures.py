"""Pictures that clients send: what their headers claim is looked at before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping

from patchcut import Frame
from patchcut.errors import SourceError
from patchcut.pixels import PixelRule
from patchcut.sources.headers import read_header
from patchcut.sources.photos import decode_photo

from patchcut_server.refusals import Refusal, bad_request, too_large

_BOUNDARY_LETTERS = 70  # RFC 2046, section 5.1.1


def decode_picture(data: bytes, rule: PixelRule, name: str = "image", index: int = 0) -> Frame:
    """The frame that a picture file is, BGR, turned upright.

    Args:
        data: the file, of a kind whose size can be read before it is decoded.
        rule: how many pixels it may have, and how more than 8 bits are read.
        name: what it is called.
        index: of the frame.
    Raises:
        Refusal: 413 for too many pixels, 415 where it is no picture of such a kind.
        SourceError: it is damaged.
    Examples:
        >>> decode_picture(b"P6 2 1 255 " + bytes(6), PixelRule()).image.shape
        (1, 2, 3)
    """
    header = read_header(data)
    if header is None:
        error = SourceError(name, "is no picture of a kind that is known here", "send JPEG, PNG or WebP")
        raise Refusal(415, error)
    if wrong := rule.too_large(header.height, header.width):
        raise too_large(name, wrong[0], "scale it down")
    pixels = decode_photo(data, name, rule=rule, header=header)
    return Frame(pixels.image, "bgr", name, index, visible=pixels.visible, notes=pixels.notes)


def picture_in(content_type: str, body: bytes) -> bytes:
    """The picture of a body: the body itself, or of a form (multipart/form-data) its first file.

    Raises:
        Refusal: 400, the form is none, or holds no file.
    Examples:
        >>> part = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\\r\\n\\r\\nJPEG'
        >>> picture_in("multipart/form-data; boundary=x", b"--x\\r\\n" + part + b"\\r\\n--x--")
        b'JPEG'
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return body
    boundary = next(
        (
            word.strip()[9:].strip('"')
            for word in parameters.split(";")
            if word.strip()[:9].lower() == "boundary="
        ),
        "",
    )
    if not 0 < len(boundary) <= _BOUNDARY_LETTERS:
        raise bad_request(
            "form", "names no boundary of 1 to 70 letters", "send it as curl -F image=@FILE does"
        )
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    data, at = b"\r\n" + body, 0
    while (begin := data.find(delimiter, at)) >= 0:
        begin += len(delimiter)
        end = data.find(delimiter, begin)
        head, blank, _ = data[begin : begin + 4096].partition(b"\r\n\r\n")
        if end < 0 or data[begin : begin + 2] == b"--":
            break
        if blank and b"filename" in head.lower():
            return data[begin + len(head) + len(blank) : end]
        at = end
    raise bad_request("form", "holds no file", "send it as curl -F image=@FILE does")


def server_timing(timings_ms: Mapping[str, float]) -> str:
    """Stages as the header Server-Timing has them.

    Examples:
        >>> server_timing({"decode": 1.5})
        'decode;dur=1.500'
    """
    return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in timings_ms.items())
