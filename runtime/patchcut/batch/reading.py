"""The rows of a batch, and all of them as one file of COCO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchcut.batch.formats import read_shard
from patchcut.batch.records import ABOUT, DONE, ShardReport, about_of, read_journal, shard_path
from patchcut.batch.rows import FrameRow
from patchcut.errors import SourceError
from patchcut.output.coco import CocoFile
from patchcut.output.whole_files import whole_file
from patchcut.texts import name_text

COCO = "coco.json"


def rows(folder: str | Path) -> Iterator[FrameRow]:
    """The rows of all shards that are done, in the order of the plan; one group of them is in memory.

    Args:
        folder: what `patchcut batch` has made, or is making.
    Raises:
        SourceError: it is no such folder, or a shard is missing, damaged, or of a newer patchcut.
        OptionError: the package that reads its format is missing.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> outcome = patchcut.batch.make([folder / "x.png"], folder / "one", format="webdataset", workers=1)
        >>> [row.name for row in patchcut.batch.rows(folder / "one")]
        ['x.png']
    """
    path = Path(folder)
    about = about_of(path)
    if about is None:
        raise SourceError(name_text(path), f"holds no {ABOUT}", "name a folder that `patchcut batch` made")
    try:
        with (path / DONE).open("rb") as file:
            reports, _ = read_journal(file)
    except OSError as error:
        raise SourceError(name_text(path), f"cannot be read: {error.strerror}", "copy it whole") from error
    for number in sorted(reports):
        yield from _rows_of(shard_path(path, about.format, number), about.format, reports[number])


def _rows_of(path: Path, format: str, report: ShardReport) -> Iterator[FrameRow]:
    with contextlib.suppress(OSError):
        if path.stat().st_size != report.size_bytes:
            what = f"has {path.stat().st_size} bytes and not {report.size_bytes}, as it was left"
            raise SourceError(path.name, what, "run the same `patchcut batch` again")
    for told in read_shard(path, format):
        yield FrameRow.from_dict(told)


def write_coco(folder: str | Path) -> Path:
    """Writes all rows that are done as one file of COCO, DIR/coco.json, and returns its path.

    Lines wait on the disk, so that any number of rows takes no memory. A frame of a video has its "video",
    "frame_index" and "time_s" beside its size.

    Raises:
        SourceError, OptionError: as `rows`.
        OutputError: it cannot be written.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> outcome = patchcut.batch.make([folder / "x.png"], folder / "all", format="webdataset", workers=1)
        >>> patchcut.batch.write_coco(folder / "all").name
        'coco.json'
    """
    path = Path(folder)
    coco = CocoFile(_WholeFiles(path), COCO)
    try:
        for row in rows(path):
            coco.add(_found(row))
    except BaseException:
        coco.abandon()
        raise
    coco.close()
    return path / COCO


class _WholeFiles:
    """Files of a batch's folder, which keeps no record of those that are made of its shards."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def whole_file(self, relative: str) -> contextlib.AbstractContextManager[Path]:
        return whole_file(self.root / relative)


def _found(row: FrameRow) -> dict[str, Any]:
    """What `CocoFile` takes."""
    height, width = row.size_hw
    image: dict[str, Any] = {"file_name": row.name, "width": width, "height": height}
    if row.time_s is not None or row.index:
        image |= {"file_name": f"{row.name}/{row.index:06d}", "video": row.name}
        image |= {"frame_index": row.index, "time_s": row.time_s}
    annotations = [
        {
            "bbox": list(one.bbox),
            "area": one.area,
            "segmentation": one.segmentation,
            "iscrowd": 0,
            "score": one.score,
            "category": one.label,
        }
        for one in row.regions
    ]
    kinds = {one.label: "background" if one.background else "foreground" for one in row.regions}
    return {"image": image, "annotations": annotations, "categories": kinds}
