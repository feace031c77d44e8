"""Salient objects: ECSSD, DUTS and DUT-OMRON, an image and a grey mask each.

The names of the folders are those of the published archives; `img` and `gt` are TokenCut's names for them.
"""

from __future__ import annotations

from pathlib import Path

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Choices, Dataset
from patchcut_export.measuring.datasets.folders import pair

_TRUTH = "masks, foreground above half of their range"
_SHORT = ("img", "gt")


def open_ecssd(root: Path, choices: Choices) -> Dataset:
    """`images/` and `ground_truth_mask/`; 1,000 images."""
    images, masks = _find_pair("ECSSD", root, ("ECSSD",), [("images", "ground_truth_mask"), _SHORT])
    return Dataset("ECSSD", pair(images, masks), _TRUTH, 1000)


def open_duts(root: Path, choices: Choices) -> Dataset:
    """`DUTS-TE-Image/` and `DUTS-TE-Mask/`, 5,019 images; "TR" is the training set."""
    split = choices.split or "TE"
    names = [(f"DUTS-{split}-Image", f"DUTS-{split}-Mask")]
    inner = (f"DUTS-{split}", "DUTS", f"DUTS/DUTS-{split}")
    images, masks = _find_pair("DUTS", root, inner, names if split == "TR" else [*names, _SHORT])
    return Dataset(f"DUTS-{split}", pair(images, masks), _TRUTH, {"TE": 5019, "TR": 10553}[split])


def open_dut_omron(root: Path, choices: Choices) -> Dataset:
    """`DUT-OMRON-image/` and `pixelwiseGT-new-PNG/`; 5,168 images."""
    names = [("DUT-OMRON-image", "pixelwiseGT-new-PNG"), _SHORT]
    images, masks = _find_pair("DUT-OMRON", root, ("DUT-OMRON", "DUT_OMRON"), names)
    return Dataset("DUT-OMRON", pair(images, masks), _TRUTH, 5168)


def _find_pair(
    title: str, root: Path, inner: tuple[str, ...], names: list[tuple[str, str]]
) -> tuple[Path, Path]:
    for folder in (root, *(root / name for name in inner)):
        for images, masks in names:
            if (folder / images).is_dir() and (folder / masks).is_dir():
                return folder / images, folder / masks
    wanted = " or ".join(f"{images}/ and {masks}/" for images, masks in names)
    problem = (
        f"{root} is not {title}: looked for {wanted} in it or in {', '.join(f'{i}/' for i in inner)} of it"
    )
    raise DatasetError(problem, "give the folder that holds them as --root")
