"""DAVIS 2016 at 480p: videos with a mask for each frame."""

from __future__ import annotations

from pathlib import Path

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Choices, Dataset
from patchcut_export.measuring.datasets.folders import find_root, read_lines
from patchcut_export.measuring.datasets.plain import pair_sequences

_IMAGES, _MASKS = "JPEGImages/480p", "Annotations/480p"
_FRAMES = {"val": 1376, "train": 2079, "trainval": 3455}


def open_davis16(root: Path, choices: Choices) -> Dataset:
    """`JPEGImages/480p/`, `Annotations/480p/` and `ImageSets/480p/val.txt`; DAVIS 2017 has `2016/val.txt`.

    Masks are black and white in 2016, index colours in 2017: anything but black is the object.
    """
    split = choices.split or "val"
    base = find_root("DAVIS", root, ("DAVIS", "DAVIS-2016", "DAVIS2016"), (_IMAGES, _MASKS))
    lists = [base / "ImageSets" / folder / f"{split}.txt" for folder in ("480p", "2016")]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        looked = " and ".join(str(path.relative_to(base)) for path in lists)
        raise DatasetError(f"{base} has no list of {split}: looked for {looked}", "it comes with the archive")
    names = sorted({_sequence(line) for line in read_lines(path)})
    examples = pair_sequences(base / _IMAGES, base / _MASKS, names)
    truth = "masks, foreground is anything but black"
    return Dataset(f"DAVIS2016 {split}", examples, truth, _FRAMES[split])


def _sequence(line: str) -> str:
    """The video that a line names: "bear", or "/JPEGImages/480p/bear/00000.jpg /Annotations/...png"."""
    path = Path(line.split(maxsplit=1)[0])
    return path.parent.name or path.name
