"""The bytes that bundles are made of: archives and safetensors, the same for the same content."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from patchcut.output.whole_files import whole_file

_EPOCH = (1980, 1, 1, 0, 0, 0)


def safetensors_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of arrays."""
    from safetensors.numpy import save

    data: bytes = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    return data


def safetensors_extents(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each tensor's bytes lie in a safetensors file: name → (offset, length)."""
    header = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + header])
    extents = {}
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            extents[name] = (8 + header + begin, end - begin)
    return extents


def write_archive(path: Path, manifest: str, members: dict[str, bytes]) -> None:
    """Writes a bundle: the same members give the same bytes.

    Members are stored, not compressed, so that they can be read in place and so that two versions of a bundle
    differ only where their members do.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"bundle.json": manifest.encode(), **members}.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
