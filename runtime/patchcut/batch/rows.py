"""What a batch says of one frame: a row, the same in every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchcut.result import Result
from patchcut.texts import encodable


@dataclass(frozen=True)
class RegionRow:
    """One region.

    Attributes:
        label: its name.
        background: whether that is a label of the background, as scenes have them.
        score: in [0, 1].
        bbox: x, y, width, height in pixels of the frame, as COCO has them.
        area: pixels.
        segmentation: its mask as COCO's compressed run lengths, {"size": [H, W], "counts": text}, which
            pycocotools and `patchcut_kernels.rle_decode` read.
    """

    label: str
    background: bool
    score: float
    bbox: tuple[float, float, float, float]
    area: int
    segmentation: dict[str, Any]


@dataclass(frozen=True)
class FrameRow:
    """One frame.

    Attributes:
        name: the photo's or video's path in its source.
        index: of the frame in its file, from 0: of a photo 0, unless the file holds several.
        time_s: when a video shows it, in seconds of its own clock; None without one.
        size_hw: height and width in pixels.
        regions: what was found, best first.
    Examples:
        >>> row = patchcut.batch.FrameRow.of(result)
        >>> row.size_hw, row.regions[0].segmentation["size"]
        ((512, 512), [512, 512])
    """

    name: str
    index: int
    time_s: float | None
    size_hw: tuple[int, int]
    regions: tuple[RegionRow, ...]

    @classmethod
    def of(cls, result: Result) -> FrameRow:
        """The row of a result.

        Examples:
            >>> len(patchcut.batch.FrameRow.of(result).regions) == len(result)
            True
        """
        height, width = result.label_map.shape
        regions = [
            RegionRow(
                label=encodable(result.labels[one["category_id"]]),
                background=one["category_id"] in result.background_columns,
                score=one["score"],
                bbox=tuple(one["bbox"]),
                area=one["area"],
                segmentation=one["segmentation"],
            )
            for one in result.to_coco()
        ]
        return cls(encodable(result.name), result.index, result.time_s, (height, width), tuple(regions))

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> FrameRow:
        """What `to_dict` made.

        Examples:
            >>> row = patchcut.batch.FrameRow.of(result)
            >>> patchcut.batch.FrameRow.from_dict(row.to_dict()) == row
            True
        """
        regions = tuple(RegionRow(**{**one, "bbox": tuple(one["bbox"])}) for one in told["regions"])
        height, width = told["size_hw"]
        return cls(told["name"], told["index"], told["time_s"], (height, width), regions)

    def to_dict(self) -> dict[str, Any]:
        """The row in plain numbers, texts and lists: what a shard holds.

        Examples:
            >>> list(patchcut.batch.FrameRow.of(result).to_dict())
            ['name', 'index', 'time_s', 'size_hw', 'regions']
        """
        regions = [{**vars(one), "bbox": list(one.bbox)} for one in self.regions]
        return {**vars(self), "size_hw": list(self.size_hw), "regions": regions}
