"""The page at `/`, and the files that it is made of."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from patchcut.cli.demo import SAMPLES
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from patchcut_server.backend import Backend

PAGE = Path(__file__).parent / "page"
# Of the page's own files and of nothing else; nobody may put it into a frame of his.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".jpg": "image/jpeg",
}


async def index(backend: Backend, request: Request) -> Response:
    """The page."""
    return _answer(PAGE / "index.html")


async def page_file(backend: Backend, request: Request) -> Response:
    """A file of the page, or a sample photo."""
    path = page_files().get(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "Not Found")
    return _answer(path)


def _answer(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=_MEDIA_TYPES[path.suffix], headers=_HEADERS)


@cache
def page_files() -> dict[str, Path]:
    """What `index.html` loads, and the sample photos below `samples/`, by their names below `/page/`.

    Examples:
        >>> {"app.js", "samples/coffee.jpg"} <= page_files().keys(), "index.html" in page_files()
        (True, False)
    """
    own = {path.name: path for path in PAGE.iterdir() if path.suffix in _MEDIA_TYPES and path.stem != "index"}
    return {**own, **{f"samples/{path.name}": path for path in SAMPLES.glob("*.jpg")}}
