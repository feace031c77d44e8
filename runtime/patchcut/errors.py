"""What patchcut raises. Every message reads `[where] what; remedy` on one line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from patchcut.texts import one_line

_MAX_TEXT = 1000

COPY_AGAIN = "copy or download it again"
"""What to do about a file that is damaged or cut short."""


class PatchcutError(Exception):
    """Any failure that patchcut foresees.

    Args:
        where: the option, stage or file that it is about, such as "bundle" or "frame".
        what: what was expected and what came.
        remedy: what the caller can do about it.
    """

    def __init__(self, where: str, what: str, remedy: str = "") -> None:
        super().__init__(where, what, remedy)
        self.where = where
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        what = _shortened(self.what)
        text = " ".join((f"{what}; {self.remedy}" if self.remedy else what).split())
        return one_line(f"[{self.where}] {text}")


class OptionError(PatchcutError, ValueError):
    """An argument has a value that is not among those allowed."""


class BundleError(PatchcutError):
    """A bundle is damaged, is no bundle, or is from a newer patchcut."""


class FrameError(PatchcutError, ValueError):
    """An object is not a frame: [H, W, 3] uint8, or a PIL image."""


class SourceError(PatchcutError):
    """A source of frames cannot be opened or read."""


class EngineError(PatchcutError):
    """An engine is missing, lacks the device that was asked for, or failed to run."""


class OutputError(PatchcutError):
    """A result cannot be written."""


def _shortened(text: str) -> str:
    """`text`, without its middle where it holds a long name or value."""
    half = _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} ... {text[-half:]}"


def install_hint(extra: str = "") -> str:
    """The command that installs patchcut again, with an extra, from where this one was installed.

    That is a folder of sources or a wheel file; the name alone would let pip fetch whatever an index has
    under it.

    Examples:
        >>> patchcut.errors.install_hint("export")
        "pip install ...[export]'..."
    """
    wanted = f"[{extra}]" if extra else ""
    origin = _origin()
    if origin is None:
        return f"pip install '.{wanted}' in the folder of patchcut's sources"
    path, editable = origin
    return f"pip install {'-e ' * editable}{shlex.quote(path + wanted)}"


def _origin() -> tuple[str, bool] | None:
    """The folder or wheel file that this patchcut was installed from, and whether it is used in place.

    None where that is not known or not there any more.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        recorded = json.loads(distribution("patchcut").read_text("direct_url.json") or "{}")  # PEP 610
        url = urlsplit(recorded.get("url", ""))
        path = Path(unquote(url.path))
        if url.scheme != "file" or not (path.suffix == ".whl" or (path / "pyproject.toml").is_file()):
            return None
        return (str(path), bool(recorded.get("dir_info", {}).get("editable"))) if path.exists() else None
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
