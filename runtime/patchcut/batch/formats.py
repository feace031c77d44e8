"""Formats of shards: a file of rows each, written as a whole."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from patchcut.errors import OptionError, SourceError, install_hint
from patchcut.output.whole_files import whole_file

AddRow = Callable[[dict[str, Any]], None]

# A row group is in memory until it is written: about 1 MB of it for each 256 frames.
_GROUP_ROWS = 256


@dataclass(frozen=True)
class ShardFormat:
    """One format.

    Attributes:
        suffix: of its files.
        write: from an open file, and the name that it will have without its suffix, to a context in which
            rows are added.
        read: the rows of a file.
        check: raises an OptionError where a package is missing.
    """

    suffix: str
    write: Callable[[BinaryIO, str], AbstractContextManager[AddRow]]
    read: Callable[[Path], Iterator[dict[str, Any]]]
    check: Callable[[], object]


@contextlib.contextmanager
def open_shard(path: Path, format: str) -> Iterator[AddRow]:
    """A function that adds a row to a shard, which takes its place as a whole when the context is left.

    Raises:
        OutputError: "[output] cannot write DIR/000001.parquet: No space left on device; ...".
    """
    with (
        whole_file(path) as partial,
        partial.open("wb") as file,
        FORMATS[format].write(file, path.stem) as add,
    ):
        yield add


def read_shard(path: Path, format: str) -> Iterator[dict[str, Any]]:
    """The rows of a shard, in order.

    Raises:
        OptionError: the format's package is missing.
        SourceError: the file is missing or damaged.
    """
    FORMATS[format].check()
    try:
        yield from FORMATS[format].read(path)
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "remove it, and run the same `patchcut batch` again"
        raise SourceError(path.name, f"cannot be read: {first}", remedy) from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        remedy = f"{install_hint('parquet')}, or choose --format webdataset"
        raise OptionError("format", f"parquet needs pyarrow: {error}", remedy) from error
    return pyarrow


def _schema(pyarrow: Any) -> Any:
    rle = pyarrow.struct([("size", pyarrow.list_(pyarrow.int32(), 2)), ("counts", pyarrow.string())])
    region = pyarrow.struct(
        [
            ("label", pyarrow.string()),
            ("background", pyarrow.bool_()),
            ("score", pyarrow.float64()),
            ("bbox", pyarrow.list_(pyarrow.float32(), 4)),
            ("area", pyarrow.int64()),
            ("segmentation", rle),
        ]
    )
    return pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("index", pyarrow.int64()),
            ("time_s", pyarrow.float64()),
            ("size_hw", pyarrow.list_(pyarrow.int32(), 2)),
            ("regions", pyarrow.list_(region)),
        ]
    )


@contextlib.contextmanager
def _write_parquet(file: BinaryIO, name: str) -> Iterator[AddRow]:
    pyarrow = _pyarrow()
    schema, waiting = _schema(pyarrow), list[dict[str, Any]]()

    def flush() -> None:
        writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
        waiting.clear()

    def add(row: dict[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) == _GROUP_ROWS:
            flush()

    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        yield add
        if waiting:
            flush()


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    pyarrow = _pyarrow()
    with pyarrow.parquet.ParquetFile(path) as file:
        for group in file.iter_batches(_GROUP_ROWS):
            yield from group.to_pylist()


@contextlib.contextmanager
def _write_tar(file: BinaryIO, name: str) -> Iterator[AddRow]:
    """A sample is one member, KEY.json, whose key tells the shard and the place in it."""
    rows = 0

    def add(row: dict[str, Any]) -> None:
        nonlocal rows
        text = json.dumps(row, ensure_ascii=False).encode()
        member = tarfile.TarInfo(f"{name}-{rows:06d}.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        rows += 1

    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        yield add


def _read_tar(path: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield json.load(file)


FORMATS = {
    "parquet": ShardFormat(".parquet", _write_parquet, _read_parquet, _pyarrow),
    "webdataset": ShardFormat(".tar", _write_tar, _read_tar, lambda: None),
}
