"""Sets with a class for each pixel: VOC, COCO-Stuff, Cityscapes, KITTI-STEP, and anybody's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.class_tables import (
    cityscapes_19_classes,
    cityscapes_classes,
    coco_object_classes,
    coco_stuff_all_classes,
    coco_stuff_classes,
    context_classes,
    identity,
    kitti_step_classes,
    voc_classes,
    voc_object_classes,
)
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
from patchcut_export.measuring.datasets.folders import (
    check_there,
    find_pair,
    find_root,
    list_photos,
    read_lines,
    reading,
)
from patchcut_export.measuring.datasets.indices import read_indices

_CURATED = "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt"
_COCO_INNER = ("COCO", "coco", "cocostuff")
_COCO_FOLDERS = [
    (images, maps)
    for images in ("images/val2017", "val2017")
    for maps in ("annotations/val2017", "stuffthingmaps/val2017")
]
_VOC_SIZES = {"val": 1449, "train": 1464, "trainval": 2913}
_CONTEXT_SIZES = {"val": 5105, "train": 4998}
# Frames of KITTI's tracking videos; the test set's labels are kept back.
_STEP_SIZES = {"val": 2981, "train": 5027}
_CITYSCAPES_SIZES = {"val": 500, "train": 2975}
_IMAGE_END, _LABELS_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


def open_semantic(root: Path, choices: Choices) -> Dataset:
    """`masks/NAME.png` with the class of each pixel, from 0, 255 is void, and their `images/`.

    `classes.txt` names the classes, one a line; without it they are as many as the masks show. Images without
    a mask are left out.
    """
    find_root("a folder of images and masks", root, (), ("images", "masks"))
    images, masks = list_photos(root / "images"), list_photos(root / "masks")
    check_there("image", root / "images", [name for name in masks if name not in images], len(masks))
    classes = _own_classes(root / "classes.txt", list(masks.values()), choices.background)
    named = [(name, images[name], mask) for name, mask in masks.items()]
    return _dataset(root.resolve().name, named, classes, choices, "full", upright=True)


def _own_classes(path: Path, masks: Sequence[Path], background: bool | None) -> Classes:
    """Those that a file names, or else those that the masks show.

    Args:
        background: whether class 0 is; None: as its name says, and without names it is.
    """
    if path.is_file():
        names = _read_names(path)
        if background is None:
            background = plain_name(names[0]) == "background"
    else:
        background = background is not False
        count = max((_largest_class(mask) for mask in masks), default=0) + 1
        names = [f"class {number}" for number in range(count)]
        names[0] = "background" if background else names[0]
    return Classes(tuple(names), identity(len(names)) | {VOID: VOID}, background)


def _read_names(path: Path) -> list[str]:
    with reading(path, "a text file"):
        names = [line.strip() for line in path.read_text("utf-8").rstrip().splitlines()]
    if not 0 < len(names) <= VOID:
        raise DatasetError(f"{path} names {len(names)} classes", f"name 1 to {VOID}, one a line")
    numbers: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise DatasetError(f"{path} has no name in line {number}", "line 1 names class 0, and so on")
        earlier = numbers.setdefault(plain_name(name), number)
        if earlier != number:
            problem = f"{path} has {name!r} in line {number} and {names[earlier - 1]!r} in line {earlier}"
            raise DatasetError(problem, "names must differ in more than case, blanks and signs")
    return names


def _largest_class(mask: Path) -> int:
    indices = read_indices(mask)
    return int(indices[indices != VOID].max(initial=0))


def open_voc12_seg(root: Path, choices: Choices) -> Dataset:
    """`JPEGImages/`, `SegmentationClass/` and `ImageSets/Segmentation/SPLIT.txt`, also in VOCdevkit/."""
    return _open_voc12(root, choices, voc_classes())


def open_voc20(root: Path, choices: Choices) -> Dataset:
    """The same without background."""
    return _open_voc12(root, choices, voc_object_classes())


def _open_voc12(root: Path, choices: Choices, classes: Classes) -> Dataset:
    split = choices.split or "val"
    names_file = f"ImageSets/Segmentation/{split}.txt"
    inner = ("VOC2012", "VOCdevkit/VOC2012", "VOC2012/VOCdevkit/VOC2012")
    base = find_root("VOC2012", root, inner, ("JPEGImages", "SegmentationClass", names_file))
    names = [line.strip() for line in read_lines(base / names_file)]
    named = _listed(base / "JPEGImages", base / "SegmentationClass", names)
    return _dataset(f"VOC2012 segmentation {split}", named, classes, choices, "full", _VOC_SIZES[split])


def open_context59(root: Path, choices: Choices) -> Dataset:
    """PASCAL-Context as mmsegmentation converts it, without background; see `open_context60`."""
    return _open_context(root, choices, context_classes(background=False))


def open_context60(root: Path, choices: Choices) -> Dataset:
    """`JPEGImages/`, `SegmentationClassContext/` and `ImageSets/SegmentationContext/SPLIT.txt` of VOC2010."""
    return _open_context(root, choices, context_classes(background=True))


def _open_context(root: Path, choices: Choices, classes: Classes) -> Dataset:
    split = choices.split or "val"
    names_file = f"ImageSets/SegmentationContext/{split}.txt"
    masks = "SegmentationClassContext"
    base = find_root(
        "PASCAL-Context", root, ("VOC2010", "VOCdevkit/VOC2010"), ("JPEGImages", masks, names_file)
    )
    names = [line.strip() for line in read_lines(base / names_file)]
    named = _listed(base / "JPEGImages", base / masks, names)
    return _dataset(f"PASCAL-Context {split}", named, classes, choices, "full", _CONTEXT_SIZES[split])


def open_coco_seg(root: Path, choices: Choices) -> Dataset:
    """Images of val2017 and COCO-Stuff's maps of them (`stuffthingmaps_trainval2017.zip`); 5,000 images.

    80 things, and stuff is background, as TransFGU's COCO-80 and GroupViT's COCO-Object have it.
    """
    images, maps = _find_coco(root)
    named = _listed(images, maps, list(list_photos(images)))
    return _dataset("COCO val2017, 80 things", named, coco_object_classes(), choices, "full", 5000)


def open_coco_stuff27(root: Path, choices: Choices) -> Dataset:
    """The same, of the 2,175 images that a list of IIC, PiCIE and STEGO names.

    It is `curated/val2017/Coco164kFull_Stuff_Coarse_7.txt` of PiCIE's repository, a number a line.
    """
    images, maps = _find_coco(root)
    names = [line.strip() for line in read_lines(_find_curated(root, images, choices.names))]
    named = _listed(images, maps, sorted(dict.fromkeys(names)))
    return _dataset("COCO-Stuff 27 val2017", named, coco_stuff_classes(), choices, "320", 2175)


def open_coco_stuff171(root: Path, choices: Choices) -> Dataset:
    """The images and maps of `coco-seg`, with all 80 things and 91 kinds of stuff; 5,000 images."""
    images, maps = _find_coco(root)
    named = _listed(images, maps, list(list_photos(images)))
    return _dataset("COCO-Stuff val2017", named, coco_stuff_all_classes(), choices, "full", 5000)


def _find_coco(root: Path) -> tuple[Path, Path]:
    return find_pair("COCO 2017 with the maps of COCO-Stuff", root, _COCO_INNER, _COCO_FOLDERS)


def _find_curated(root: Path, images: Path, names: Path | None) -> Path:
    if names is not None:
        return names
    for folder in (root, images.parent, images.parent.parent):
        if (folder / _CURATED).is_file():
            return folder / _CURATED
    problem = f"{root} has no {_CURATED}, which says which images of val2017 are measured"
    raise DatasetError(problem, "take it from PiCIE's repository, or name a list with --list")


def open_cityscapes27(root: Path, choices: Choices) -> Dataset:
    """`leftImg8bit/SPLIT/CITY/` and `gtFine/SPLIT/CITY/`, whose `_gtFine_labelIds.png` are read."""
    return _open_cityscapes(root, choices, cityscapes_classes(), "320")


def open_cityscapes19(root: Path, choices: Choices) -> Dataset:
    """The same with the 19 classes of the benchmark."""
    return _open_cityscapes(root, choices, cityscapes_19_classes(), "full")


def _open_cityscapes(root: Path, choices: Choices, classes: Classes, resolution: str) -> Dataset:
    split = choices.split or "val"
    needs = (f"leftImg8bit/{split}", f"gtFine/{split}")
    base = find_root("Cityscapes", root, ("Cityscapes", "cityscapes"), needs)
    images = sorted((base / needs[0]).glob(f"*/*{_IMAGE_END}"))
    names = [f"{path.parent.name}/{path.name.removesuffix(_IMAGE_END)}" for path in images]
    masks = [base / needs[1] / f"{name}{_LABELS_END}" for name in names]
    missing = [name for name, mask in zip(names, masks, strict=True) if not mask.is_file()]
    check_there(f"*{_LABELS_END}", base / needs[1], missing, len(names))
    named = list(zip(names, images, masks, strict=True))
    published = _CITYSCAPES_SIZES[split]
    return _dataset(
        f"Cityscapes {len(classes.names)} {split}", named, classes, choices, resolution, published
    )


def open_kitti_step(root: Path, choices: Choices) -> Dataset:
    """`training/image_02/VIDEO/` of KITTI's tracking set and `panoptic_maps/SPLIT/VIDEO/` of KITTI-STEP."""
    split = choices.split or "val"
    maps = f"panoptic_maps/{split}"
    base = find_root("KITTI-STEP", root, ("kitti-step", "KITTI-STEP"), (maps, "training/image_02"))
    masks = sorted((base / maps).glob("*/*.png"))
    names = [f"{path.parent.name}/{path.stem}" for path in masks]
    images = [base / "training/image_02" / f"{name}.png" for name in names]
    missing = [name for name, image in zip(names, images, strict=True) if not image.is_file()]
    check_there("image", base / "training/image_02", missing, len(names))
    named = list(zip(names, images, masks, strict=True))
    classes, published = kitti_step_classes(), _STEP_SIZES[split]
    return _dataset(f"KITTI-STEP {split}", named, classes, choices, "full", published, kind="panoptic")


def _listed(images: Path, masks: Path, names: list[str]) -> list[tuple[str, Path, Path]]:
    """Names, `images/NAME.jpg` and `masks/NAME.png`.

    Raises:
        DatasetError: some are not there.
    """
    named = [(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]
    for kind, folder, column in (("image", images, 1), ("mask", masks, 2)):
        missing = [str(row[0]) for row in named if not Path(row[column]).is_file()]
        check_there(kind, folder, missing, len(names))
    return named


def _dataset(
    name: str,
    named: Sequence[tuple[str, Path, Path]],
    classes: Classes,
    choices: Choices,
    resolution: str,
    published: int | None = None,
    *,
    upright: bool = False,
    kind: MaskKind = "semantic",
) -> Dataset:
    """A set of names, images and masks.

    Args:
        resolution: its papers'.
    """
    square = RESOLUTIONS[resolution if choices.resolution is None else choices.resolution]
    examples = [
        Example(one, image, mask, kind, upright=upright, classes=classes, square=square)
        for one, image, mask in named
    ]
    zero = "class 0 is background" if classes.has_background else "none of them background"
    what = "all pixels"
    if square is not None:
        what = f"the square in the middle, after the shorter side was scaled to {square} (PiCIE)"
    truth = f"{len(classes.names)} classes, {zero}; void is left out; {what}"
    return Dataset(name, examples, truth, published, classes=classes)
