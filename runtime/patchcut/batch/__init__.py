"""Batches: millions of photos and long videos into shards of rows, on this machine or on a Ray cluster."""

from patchcut.batch.making import Outcome, Watch, make
from patchcut.batch.reading import rows, write_coco
from patchcut.batch.rows import FrameRow, RegionRow

__all__ = ["FrameRow", "Outcome", "RegionRow", "Watch", "make", "rows", "write_coco"]
