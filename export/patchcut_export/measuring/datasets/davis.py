"""DAVIS at 480p: videos with a mask for each frame, of one object in 2016 and of several in 2017."""

from __future__ import annotations

from pathlib import Path

from patchcut.errors import OptionError

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Choices, Dataset
from patchcut_export.measuring.datasets.folders import find_root, read_lines
from patchcut_export.measuring.datasets.plain import (
    holds_own,
    list_sequences,
    open_sequences,
    pair_sequences,
)

_IMAGES, _MASKS = "JPEGImages/480p", "Annotations/480p"
_UNSUPERVISED = "Annotations_unsupervised/480p"
_FRAMES_2016 = {"val": 1376, "train": 2079, "trainval": 3455}
_FRAMES_2017 = {"val": 1999, "train": 4209}


def open_davis16(root: Path, choices: Choices) -> Dataset:
    """`JPEGImages/480p/`, `Annotations/480p/` and `ImageSets/480p/val.txt`; DAVIS 2017 has `2016/val.txt`.

    Masks are black and white in 2016, index colours in 2017: anything but black is the object. Any folder of
    `images/SEQUENCE/` and `masks/SEQUENCE/` is taken, too.
    """
    if _is_own(root, choices):
        return open_sequences(root, choices)
    split = choices.split or "val"
    base = _find_base(root, _IMAGES, _MASKS)
    names = _listed(base, split, ("480p", "2016"))
    examples = pair_sequences(base / _IMAGES, base / _MASKS, names, choices)
    truth = "masks, foreground is anything but black"
    return Dataset(f"DAVIS2016 {split}", examples, truth, _FRAMES_2016[split], ends_count=False)


def open_davis17(root: Path, choices: Choices) -> Dataset:
    """`JPEGImages/480p/`, `Annotations_unsupervised/480p/` or `Annotations/480p/`, `ImageSets/2017/val.txt`.

    Masks are palette images, a number for each object. Any folder of `images/SEQUENCE/` and
    `masks/SEQUENCE/` is taken, too.
    """
    if _is_own(root, choices):
        examples = pair_sequences(*list_sequences(root), choices, "objects")
        return Dataset(root.resolve().name, examples, _truth("masks"))
    split = choices.split or "val"
    base = _find_base(root, _IMAGES)
    masks = _UNSUPERVISED if (base / _UNSUPERVISED).is_dir() else _MASKS
    names = _listed(base, split, ("2017",))
    examples = pair_sequences(base / _IMAGES, base / masks, names, choices, "objects")
    return Dataset(f"DAVIS2017 {split}", examples, _truth(masks), _FRAMES_2017[split])


def _truth(folder: str) -> str:
    return f"{folder}, a number for each object of the first frame, 255 is left out"


def _is_own(root: Path, choices: Choices) -> bool:
    """Whether the root is not DAVIS, but a folder of videos and masks.

    Raises:
        OptionError: it is, and a split was chosen.
    """
    own = holds_own(root)
    if own and choices.split is not None:
        what = f"must be left out for a folder of images/ and masks/, got {choices.split!r}"
        raise OptionError("split", what, "choose with --sequences")
    return own


def _find_base(root: Path, *needs: str) -> Path:
    inner = ("DAVIS", "DAVIS-2016", "DAVIS2016", "DAVIS-2017", "DAVIS2017")
    return find_root("DAVIS", root, inner, needs)


def _listed(base: Path, split: str, folders: tuple[str, ...]) -> list[str]:
    """The videos of a split, sorted, from the first of the lists in `ImageSets/` that is there."""
    lists = [base / "ImageSets" / folder / f"{split}.txt" for folder in folders]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        looked = " and ".join(str(path.relative_to(base)) for path in lists)
        raise DatasetError(f"{base} has no list of {split}: looked for {looked}", "it comes with the archive")
    return sorted({_sequence(line) for line in read_lines(path)})


def _sequence(line: str) -> str:
    """The video that a line names: "bear", or "/JPEGImages/480p/bear/00000.jpg /Annotations/...png"."""
    path = Path(line.split(maxsplit=1)[0])
    return path.parent.name or path.name
