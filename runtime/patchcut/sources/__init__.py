"""Sources of frames: photos, folders, globs, videos, cameras, streams, arrays."""

from patchcut.sources.base import Source, SourceKind
from patchcut.sources.opening import open_source

__all__ = ["Source", "SourceKind", "open_source"]
