"""Reading bundles: one `.patchcut` file with all a segmenter needs, read as if a stranger had made it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

import numpy.typing as npt
from pydantic import ValidationError

from patchcut.bundle.graph_check import check_graph
from patchcut.bundle.legacy import to_schema_3
from patchcut.bundle.library import find_bundle
from patchcut.bundle.onnx_messages import GraphError
from patchcut.bundle.spec import SCHEMA_VERSION, BundleSpec, GraphSpec, TextSpec
from patchcut.bundle.tensors import load_tensors
from patchcut.errors import COPY_AGAIN, BundleError

MANIFEST = "bundle.json"

MAX_TOTAL_BYTES = 4 << 30
MAX_MANIFEST_BYTES = 4 << 20
# Members up to this size are all checked when a bundle is opened; larger ones (weights) when they are read,
# so that an engine that uses one graph of many does not pay for hashing the rest.
EAGER_BYTES = 8 << 20

_FOREIGN = "make one with `patchcut export`"
_NEWER = "install a newer patchcut"


class Bundle:
    """An open bundle: its manifest is checked, and so is every member before its bytes are handed out.

    Attributes:
        path: the file.
        spec: its `bundle.json`.
    Examples:
        >>> with patchcut.open_bundle("default") as bundle:
        ...     bundle.spec.backbone.patch_size
        14
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, spec: BundleSpec) -> None:
        self.path = path
        self.spec = spec
        self._archive = archive

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; `spec` stays.

        Examples:
            >>> bundle = patchcut.open_bundle()
            >>> bundle.close()
            >>> bundle.spec.schema_version
            3
        """
        _close(self._archive)

    def read(self, name: str) -> bytes:
        """The bytes of one member, after its size and sha256 were found right.

        A graph is checked, too: it computes its outputs once, from the image or a text's tokens, and the
        bundle's own weights.

        Raises:
            BundleError: the member is not there or damaged, or a graph that does something else.
        Examples:
            >>> bundle.read("card.md").decode().splitlines()[0]
            '# ...'
        """
        try:
            return self._read_checked(name)
        except MemoryError:
            _lacks_memory(self.path)

    def _read_checked(self, name: str) -> bytes:
        data = self.read_unparsed(name)
        for backbone in self.spec.backbones.values():
            for graph in backbone.graphs:
                if graph.file == name:
                    self._check_graph(graph, data, backbone.weights, "image")
        if (text := self.spec.text) is not None and text.file == name:
            self._check_graph(text, data, text.weights, "tokens")
        return data

    def _check_graph(
        self, graph: GraphSpec | TextSpec, data: bytes, weights: str | None, source: str
    ) -> None:
        try:
            check_graph(data, graph.initializers, weights, source)
        except GraphError as error:
            _foreign(self.path, f"{graph.file} cannot be run: {error}")

    def read_unparsed(self, name: str) -> bytes:
        """As `read`, but a graph is not looked into: for copies of a member, which whoever runs them reads.

        Raises:
            BundleError: the member is not there or damaged.
        Examples:
            >>> bundle.read_unparsed("card.md") == bundle.read("card.md")
            True
        """
        if name not in self.spec.files:
            _fail(self.path, f"has no member {name}", f"it has: {', '.join(sorted(self.spec.files))}")
        data = _read_member(self.path, self._archive, name)
        if hashlib.sha256(data).hexdigest() != self.spec.files[name].sha256:
            _damaged(self.path, f"{name} has another sha256 than {MANIFEST} says")
        return data

    def read_tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The tensors of one safetensors member, by name.

        Raises:
            BundleError: the member is not there, damaged, or no safetensors file.
        Examples:
            >>> bundle.read_tensors("head.safetensors")["gcn.0.theta"].dtype
            dtype('float32')
        """
        data = self.read(name)
        try:
            return load_tensors(data)
        except MemoryError:
            _lacks_memory(self.path)
        except ValueError as error:
            _foreign(self.path, f"{name} cannot be read as safetensors: {error}")

    def verify(self) -> None:
        """Reads every member; what `open_bundle` leaves until it is needed is checked too.

        Raises:
            BundleError: the first damaged member.
        Examples:
            >>> bundle.verify() is None
            True
        """
        for name in self.spec.files:
            self.read(name)


def open_bundle(bundle: str | Path | None = None) -> Bundle:
    """An open bundle, given its path or the name of an embedded one; None is the default.

    Nothing is unpacked. The members must be exactly those that `bundle.json` lists, uncompressed, and no
    larger than the file; those up to 8 MiB are checked against their sha256 now, larger ones when read.

    Raises:
        BundleError: the file is not there, damaged, foreign, or from a newer patchcut; it says which.
    Examples:
        >>> patchcut.open_bundle("default").path.name
        'default.patchcut'
    """
    path = find_bundle(bundle)
    try:
        return _open_checked(path)
    except MemoryError:
        _lacks_memory(path)


def _open_checked(path: Path) -> Bundle:
    archive = _open_archive(path)
    try:
        infos = _check_members(path, archive.infolist())
        spec = _parse_manifest(path, _read_member(path, archive, MANIFEST))
        _check_sizes(path, infos, spec)
        opened = Bundle(path, archive, spec)
        for name, file in spec.files.items():
            if file.bytes <= EAGER_BYTES:
                opened.read_unparsed(name)
    except BaseException:
        _close(archive)
        raise
    return opened


def _close(archive: zipfile.ZipFile) -> None:
    """Closes an archive, and the file that was given to it."""
    file = archive.fp
    archive.close()
    if file is not None:
        file.close()


def _open_archive(path: Path) -> zipfile.ZipFile:
    file, magic = _open_file(path), b""
    try:
        magic = file.read(4)
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        file.close()
        if magic == b"PK\x03\x04":
            _damaged(
                path, f"it starts as a bundle but its directory cannot be read, as if cut short ({error})"
            )
        _foreign(path, "it is no zip archive")


def _open_file(path: Path) -> BinaryIO:
    """The file, if it is one: a pipe or device might never end, and is not waited for.

    Raises:
        BundleError: it is none, or cannot be opened.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name that the system cannot have
        what = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise BundleError("bundle", f"cannot open {path}: {what}", "check the path") from error
    kind = os.fstat(number)
    if not stat.S_ISREG(kind.st_mode):
        os.close(number)
        what = "it is a folder" if stat.S_ISDIR(kind.st_mode) else "it is no regular file"
        raise BundleError("bundle", f"cannot open {path}: {what}", "check the path")
    return os.fdopen(number, "rb")


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members by name, all of them plain, stored, and together no larger than the file."""
    for info in infos:
        _check_member(path, info)
    names = Counter(info.filename for info in infos)
    _check_none(path, "has more than one", {name for name, times in names.items() if times > 1})
    if MANIFEST not in names:
        _foreign(path, f"it has no {MANIFEST}")
    claimed, held = sum(info.file_size for info in infos), path.stat().st_size
    if claimed > MAX_TOTAL_BYTES:
        _foreign(path, f"its members claim {claimed:,} bytes, the limit is {MAX_TOTAL_BYTES:,}")
    if claimed > held:
        _damaged(path, f"its members claim {claimed:,} bytes, the file has {held:,}")
    return {info.filename: info for info in infos}


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    # ZipInfo cuts a name at a NUL byte and keeps the whole in orig_filename
    parts = PurePosixPath(name).parts
    if name != info.orig_filename or "\\" in name or ":" in name or name.startswith("/") or ".." in parts:
        _foreign(path, f"its member {name!r} has a path that leaves the bundle")
    if info.is_dir() or info.flag_bits & 0x1:
        _foreign(path, f"its member {name!r} is a folder or encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        _foreign(path, f"its member {name!r} is compressed; members of a bundle are stored as they are")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if name == MANIFEST and info.file_size > MAX_MANIFEST_BYTES:
        _foreign(path, f"its {MANIFEST} has {info.file_size:,} bytes, the limit is {MAX_MANIFEST_BYTES:,}")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        _damaged(path, f"{name} cannot be read: {error}")


def _parse_manifest(path: Path, data: bytes) -> BundleSpec:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        _damaged(path, f"{MANIFEST} is not JSON: {error}")
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        _foreign(path, f"{MANIFEST} has no schema_version")
    if version > SCHEMA_VERSION:
        known = f"this one reads up to {SCHEMA_VERSION}"
        _fail(path, f"was made by a newer patchcut: schema_version is {version}, {known}", _NEWER)
    manifest = MANIFEST if version == SCHEMA_VERSION else f"{MANIFEST}, read as schema {SCHEMA_VERSION},"
    try:
        return BundleSpec.model_validate(fields if version == SCHEMA_VERSION else to_schema_3(fields))
    except ValidationError as error:
        _fail_schema(path, manifest, error)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        _foreign(path, f"{MANIFEST} is not valid as schema {version}: {error}")


def _fail_schema(path: Path, manifest: str, error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "bundle"
    if first["type"] == "extra_forbidden":
        what = f"is foreign or newer: {manifest} has a key that this patchcut does not know: {where}"
        _fail(path, what, f"{_NEWER}, or export the bundle again")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    _foreign(path, f"{manifest} is not valid at {where}: {first['msg']}{more}")


def _check_sizes(path: Path, infos: dict[str, zipfile.ZipInfo], spec: BundleSpec) -> None:
    held = set(infos) - {MANIFEST}
    _check_none(path, "does not hold", set(spec.files) - held)
    _check_none(path, f"holds, and {MANIFEST} does not list,", held - set(spec.files))
    for name, file in spec.files.items():
        if infos[name].file_size != file.bytes:
            _damaged(path, f"{name} has {infos[name].file_size:,} bytes, {MANIFEST} says {file.bytes:,}")


def _check_none(path: Path, what: str, names: Iterable[str]) -> None:
    if listed := ", ".join(sorted(names)):
        _damaged(path, f"it {what} {listed}")


def _lacks_memory(path: Path) -> NoReturn:
    _fail(path, "needs more memory than this process may have", "allow it more")


def _damaged(path: Path, what: str) -> NoReturn:
    _fail(path, f"is damaged: {what}", COPY_AGAIN)


def _foreign(path: Path, what: str) -> NoReturn:
    _fail(path, f"is foreign, not a bundle that patchcut made: {what}", _FOREIGN)


def _fail(path: Path, what: str, remedy: str) -> NoReturn:
    raise BundleError("bundle", f"{path} {what}", remedy) from None
