"""Compiled graphs, kept from one process to the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from patchcut.cache_folder import cache_folder
from patchcut.errors import OutputError
from patchcut.output.whole_files import whole_file

_logger = logging.getLogger("patchcut")

_MAGIC = b"patchcut, compiled by openvino, 1\n"
_WEIGHTS_BYTES = 16
_HEAD_BYTES = len(_MAGIC) + _WEIGHTS_BYTES + hashlib.sha256().digest_size
# About 22 MB each for a ViT-S: as many as two bundles have sizes and precisions.
MAX_FILES = 16


@dataclass(frozen=True)
class Kept:
    """A compiled graph as OpenVINO exports it, and the type of its weights, as `EngineFacts` names it."""

    weights: str
    model: bytes

    @property
    def head(self) -> bytes:
        """What stands before the model in a file."""
        start = _MAGIC + self.weights.encode().ljust(_WEIGHTS_BYTES)
        digest = hashlib.sha256(start)
        digest.update(self.model)
        return start + digest.digest()


class ModelCache:
    """Files of compiled graphs by what they were compiled from and for; each is there whole or not at all.

    A file that is damaged, or that another user may have written, is as good as none. Where the folder cannot
    be written nothing is kept, and nothing fails.

    Args:
        key: all that another compiled graph would come of, as plain values.
    """

    def __init__(self, key: dict[str, object]) -> None:
        folder = cache_folder("openvino")
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path: Path | None = None if folder is None else folder / f"{name}.compiled"

    def read(self) -> Kept | None:
        """The compiled graph, if there is one."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                # OpenVINO believes what it reads: only this user may have written it.
                if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                    return None
                head = file.read(_HEAD_BYTES)
                kept = Kept(
                    head[len(_MAGIC) :][:_WEIGHTS_BYTES].decode("ascii", "replace").rstrip(), file.read()
                )
        except (OSError, MemoryError):
            return None
        if head != kept.head:
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path)  # the ones that were not used for longest go first
        return kept

    def write(self, compiled: Kept) -> None:
        """Keeps a compiled graph, if it can."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with whole_file(self.path) as partial, partial.open("wb") as file:
                partial.chmod(0o600)
                file.write(compiled.head)
                file.write(compiled.model)
            self._remove_oldest()
        except (OutputError, OSError) as error:
            _logger.info("[cache] %s is not kept: %s", self.path, error)

    def _remove_oldest(self) -> None:
        assert self.path is not None
        files = sorted(self.path.parent.glob("*.compiled"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_FILES]:
            file.unlink(missing_ok=True)
