"""Data sets with masks, boxes or keypoints, in the layouts that evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from patchcut.checks import check_choice, check_whole
from patchcut.errors import OptionError

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import class_tables as tables
from patchcut_export.measuring.datasets import coco, cub, davis, plain, saliency, semantic, voc
from patchcut_export.measuring.datasets.examples import (
    RESOLUTIONS,
    VOID,
    Choices,
    Classes,
    Dataset,
    Example,
    MaskKind,
    plain_name,
)
from patchcut_export.measuring.datasets.sizes import check_sizes

__all__ = [
    "LAYOUTS",
    "RESOLUTIONS",
    "VOID",
    "Choices",
    "Classes",
    "Dataset",
    "Example",
    "Layout",
    "MaskKind",
    "class_texts",
    "open_dataset",
    "plain_name",
]


@dataclass(frozen=True)
class Layout:
    """How a data set lies on a disk.

    Attributes:
        open: makes a Dataset of its root and what was chosen; every file is looked for, none is decoded.
        splits: what `Choices.split` may be, the default first; none: the set has no splits.
        takes_names, takes_difficult, takes_background: whether those choices mean something for it.
        is_video: whether its images are frames of videos, of which some can be chosen.
        is_semantic: whether each pixel has a class, with which clusters are matched.
        classes: those of a published set for semantic segmentation; None where they are the data's own.
    """

    open: Callable[[Path, Choices], Dataset]
    splits: tuple[str, ...] = ()
    takes_names: bool = False
    takes_difficult: bool = False
    takes_background: bool = False
    is_video: bool = False
    is_semantic: bool = False
    classes: Callable[[], Classes] | None = None


LAYOUTS: Mapping[str, Layout] = {
    "masks": Layout(plain.open_masks),
    "classes": Layout(plain.open_classes),
    "boxes": Layout(plain.open_boxes, takes_difficult=True),
    "semantic": Layout(semantic.open_semantic, takes_background=True, is_semantic=True),
    "sequences": Layout(plain.open_sequences, is_video=True),
    "ecssd": Layout(saliency.open_ecssd),
    "duts": Layout(saliency.open_duts, splits=("TE", "TR")),
    "dut-omron": Layout(saliency.open_dut_omron),
    "cub": Layout(cub.open_cub, splits=("test", "train", "all")),
    "voc07": Layout(voc.open_voc07, splits=("trainval", "train", "val", "test"), takes_difficult=True),
    "voc12": Layout(voc.open_voc12, splits=("trainval", "train", "val"), takes_difficult=True),
    "coco20k": Layout(coco.open_coco20k, takes_names=True),
    "voc12-seg": Layout(
        semantic.open_voc12_seg,
        splits=("val", "train", "trainval"),
        is_semantic=True,
        classes=tables.voc_classes,
    ),
    "coco-seg": Layout(semantic.open_coco_seg, is_semantic=True, classes=tables.coco_object_classes),
    "coco-stuff27": Layout(
        semantic.open_coco_stuff27, takes_names=True, is_semantic=True, classes=tables.coco_stuff_classes
    ),
    "cityscapes27": Layout(
        semantic.open_cityscapes27,
        splits=("val", "train"),
        is_semantic=True,
        classes=tables.cityscapes_classes,
    ),
    "voc20": Layout(
        semantic.open_voc20,
        splits=("val", "train", "trainval"),
        is_semantic=True,
        classes=tables.voc_object_classes,
    ),
    "context59": Layout(
        semantic.open_context59,
        splits=("val", "train"),
        is_semantic=True,
        classes=partial(tables.context_classes, background=False),
    ),
    "context60": Layout(
        semantic.open_context60,
        splits=("val", "train"),
        is_semantic=True,
        classes=partial(tables.context_classes, background=True),
    ),
    "coco-stuff171": Layout(
        semantic.open_coco_stuff171, is_semantic=True, classes=tables.coco_stuff_all_classes
    ),
    "cityscapes19": Layout(
        semantic.open_cityscapes19,
        splits=("val", "train"),
        is_semantic=True,
        classes=tables.cityscapes_19_classes,
    ),
    "kitti-step": Layout(
        semantic.open_kitti_step, splits=("val", "train"), is_semantic=True, classes=tables.kitti_step_classes
    ),
    "davis16": Layout(davis.open_davis16, splits=("val", "train", "trainval"), is_video=True),
    "davis17": Layout(davis.open_davis17, splits=("val", "train"), is_video=True),
}


_DEFAULTS = Choices()
_MAX_EVERY = 2**31 - 1


def open_dataset(layout: str, root: Path, choices: Choices = _DEFAULTS) -> Dataset:
    """A data set whose files are all there and whose masks have their images' sizes; nothing was decoded.

    Args:
        layout: a key of `LAYOUTS`.
        root: its folder.
        choices: what is chosen of it.
    Raises:
        OptionError: a choice that the layout does not have.
        DatasetError: an unknown layout, a folder that does not have it, an image without its truth, masks of
            other sizes than their images.
        SourceError: a file is no image.
    """
    if layout not in LAYOUTS:
        raise DatasetError(f"no layout {layout!r}", f"layouts: {', '.join(LAYOUTS)}")
    _check_choices(layout, choices)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder", "check the path")
    dataset = LAYOUTS[layout].open(root, choices)
    if not dataset.examples:
        raise DatasetError(f"{root} has no images in the layout {layout!r}", "check the path")
    check_sizes(dataset.examples)
    return dataset


def class_texts(layout: str) -> dict[str, tuple[str, ...]]:
    """The classes of a published set but the background: the texts that say each, by its name.

    Args:
        layout: a key of `LAYOUTS`; its data need not be there.
    Raises:
        OptionError: there is no such set, or its classes are the data's own.
    Examples:
        >>> from patchcut_export.measuring.datasets import class_texts
        >>> class_texts("voc20")["sofa"], len(class_texts("coco-stuff171"))
        (('sofa', 'couch'), 171)
    """
    known = {name: one.classes for name, one in LAYOUTS.items() if one.classes is not None}
    check_choice("classes-of", layout, tuple(known))
    classes = known[layout]()
    names = classes.names[1:] if classes.has_background else classes.names
    return {name: (name, *classes.other_names.get(name, ())) for name in names}


def _check_choices(name: str, choices: Choices) -> None:
    layout = LAYOUTS[name]
    if choices.split is not None and choices.split not in layout.splits:
        splits = f"one of {', '.join(layout.splits)}" if layout.splits else "left out"
        raise OptionError("split", f"must be {splits} for {name}, got {choices.split!r}")
    for option, given, takes in (
        ("list", choices.names, layout.takes_names),
        ("difficult", choices.difficult, layout.takes_difficult),
        ("sequences", choices.sequences, layout.is_video),
        ("every", choices.every, layout.is_video),
        ("background", choices.background, layout.takes_background),
        ("resolution", choices.resolution, layout.is_semantic),
    ):
        if given is not None and not takes:
            raise OptionError(option, f"must be left out for {name}, got {given}")
    if choices.resolution is not None:
        check_choice("resolution", choices.resolution, tuple(RESOLUTIONS))
    if choices.every is not None:
        check_whole("every", choices.every, 1, _MAX_EVERY)
