"""Salient objects: ECSSD, DUTS and DUT-OMRON, an image and a grey mask each.

The names of the folders are those of the published archives; `img` and `gt` are TokenCut's names for them.
"""

from __future__ import annotations

from pathlib import Path

from patchcut_export.measuring.datasets.examples import Choices, Dataset
from patchcut_export.measuring.datasets.folders import find_pair, pair

_TRUTH = "masks, foreground above half of their range"
_SHORT = ("img", "gt")


def open_ecssd(root: Path, choices: Choices) -> Dataset:
    """`images/` and `ground_truth_mask/`; 1,000 images."""
    images, masks = find_pair("ECSSD", root, ("ECSSD",), [("images", "ground_truth_mask"), _SHORT])
    return Dataset("ECSSD", pair(images, masks), _TRUTH, 1000)


def open_duts(root: Path, choices: Choices) -> Dataset:
    """`DUTS-TE-Image/` and `DUTS-TE-Mask/`, 5,019 images; "TR" is the training set."""
    split = choices.split or "TE"
    names = [(f"DUTS-{split}-Image", f"DUTS-{split}-Mask")]
    inner = (f"DUTS-{split}", "DUTS", f"DUTS/DUTS-{split}")
    images, masks = find_pair("DUTS", root, inner, names if split == "TR" else [*names, _SHORT])
    return Dataset(f"DUTS-{split}", pair(images, masks), _TRUTH, {"TE": 5019, "TR": 10553}[split])


def open_dut_omron(root: Path, choices: Choices) -> Dataset:
    """`DUT-OMRON-image/` and `pixelwiseGT-new-PNG/`; 5,168 images."""
    names = [("DUT-OMRON-image", "pixelwiseGT-new-PNG"), _SHORT]
    images, masks = find_pair("DUT-OMRON", root, ("DUT-OMRON", "DUT_OMRON"), names)
    return Dataset("DUT-OMRON", pair(images, masks), _TRUTH, 5168)
