"""Results on disk and on screen."""

from patchcut.output.label_maps import read_label_map

__all__ = ["read_label_map"]
