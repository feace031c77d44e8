"""What masks say of patches, and folders of masks that do not fit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.bundle import BundleSpec
from patchcut_export.errors import DatasetError
from patchcut_export.measuring.separability.patches import PatchTruth, pair_masks, read_patch_truth
from PIL import Image
from tests.runtime import toy_bundle as toy

SIDE = toy.SIZES[0]
GRID = SIDE // toy.PATCH


def backbone(**changes: object) -> object:
    return BundleSpec.model_validate(toy.manifest(toy.members())).backbone.model_copy(update=changes)


def folder(tmp_path: Path, masks: list[np.ndarray], *, palette: bool = False) -> tuple[Path, Path]:
    """images/ and masks/; with `palette` the values are classes."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i, mask in enumerate(masks):
        image = np.full((*mask.shape, 3), 90, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"images/{i}.jpg"), image)
        picture = Image.fromarray(mask)
        if palette:
            picture = Image.fromarray(mask, "P")
            picture.putpalette(list(range(256)) * 3)
        picture.save(tmp_path / f"masks/{i}.png")
    return tmp_path / "images", tmp_path / "masks"


def read(images: Path, masks: Path, classes: bool | None = None, **changes: object) -> PatchTruth:
    spec = backbone(**changes)
    examples = pair_masks(images, masks, classes=classes)
    seen: list[tuple[int, int]] = []
    truth = read_patch_truth(examples, spec, spec.graphs[0], lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(examples)) for i in range(len(examples))]
    return truth


def half_foreground() -> np.ndarray:
    """Foreground on the right half, and on a fifth of the patches before it."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 - toy.PATCH // 5 :] = 255
    return mask


def test_patches_are_foreground_where_half_of_them_is(tmp_path: Path) -> None:
    truth = read(*folder(tmp_path, [half_foreground(), np.zeros((40, 60), np.uint8)]))
    assert truth.classes is None
    assert truth.known.all() and truth.known.shape == (2, GRID**2)
    expected = np.zeros((GRID, GRID), bool)
    expected[:, GRID // 2 :] = True
    np.testing.assert_array_equal(truth.foreground[0].reshape(GRID, GRID), expected)
    assert not truth.foreground[1].any()


def test_classes_are_the_largest_share_of_what_is_known(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    patch = toy.PATCH
    mask[:patch, :patch] = 255  # not known at all
    mask[:patch, patch : 2 * patch] = 7
    mask[:patch, patch : 2 * patch - 4] = 255  # for the most part not known
    mask[patch : 2 * patch, :patch] = 3
    mask[patch : 2 * patch, :4] = 255  # known for the most part
    mask[patch : patch + 9, patch : 2 * patch] = 5
    images, masks = folder(tmp_path, [mask], palette=True)
    truth = read(images, masks)
    assert truth.classes is not None
    classes, known = truth.classes[0].reshape(GRID, GRID), truth.known[0].reshape(GRID, GRID)
    assert known[:2, :2].tolist() == [[False, False], [True, True]]
    assert classes[1, :2].tolist() == [3, 5]
    assert not classes[2:].any() and known[2:].all()
    np.testing.assert_array_equal(truth.foreground[truth.known], truth.classes[truth.known] > 0)
    grey = read(images, masks, classes=False)
    assert grey.classes is None and grey.foreground[0, 0], "white is foreground where there are no classes"


def test_letterboxed_images_have_patches_that_show_nothing(tmp_path: Path) -> None:
    mask = np.zeros((SIDE // 2, SIDE), np.uint8)
    mask[: SIDE // 4] = 255
    truth = read(*folder(tmp_path, [mask]), fit="letterbox")
    known, foreground = (one[0].reshape(GRID, GRID) for one in (truth.known, truth.foreground))
    assert known.sum() == GRID * GRID // 2
    assert known.all(1).tolist() == [GRID // 4 <= i < 3 * GRID // 4 for i in range(GRID)]
    assert foreground[known].sum() == GRID * GRID // 4


def test_images_without_a_mask_are_left_out(tmp_path: Path) -> None:
    images, masks = folder(tmp_path, [half_foreground()] * 3)
    (masks / "1.png").unlink()
    assert [example.name for example in pair_masks(images, masks, classes=None)] == ["0", "2"]


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    images, masks = folder(tmp_path, [half_foreground()] * 3)
    (images / "1.jpg").unlink()
    with pytest.raises(DatasetError, match=r"images has no image for 1 of 3 images: 1; name its folder"):
        pair_masks(images, masks, classes=None)
    (masks / "1.png").unlink()
    assert cv2.imwrite(str(masks / "2.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(DatasetError, match=r"2\.png is 5x5, its image 112x112; masks must have"):
        pair_masks(images, masks, classes=None)
    (tmp_path / "empty").mkdir()
    for pair in ((tmp_path / "empty", masks), (images, tmp_path / "empty")):
        with pytest.raises(DatasetError, match="empty holds no pictures; check the path"):
            pair_masks(*pair, classes=None)
    with pytest.raises(DatasetError, match="is not a folder"):
        pair_masks(images, tmp_path / "nowhere", classes=None)
    (masks / "0.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"0\.png cannot be read as an image"):
        pair_masks(images, masks, classes=None)


@pytest.mark.parametrize(("value", "said"), [(0, "no foreground"), (255, "no background")])
def test_masks_that_tell_nothing_apart_are_refused(tmp_path: Path, value: int, said: str) -> None:
    images, masks = folder(tmp_path, [np.full((SIDE, SIDE), value, np.uint8)] * 2)
    with pytest.raises(DatasetError, match=f"masks have {said}"):
        read(images, masks)


def test_masks_in_which_nothing_is_known_are_refused(tmp_path: Path) -> None:
    images, masks = folder(tmp_path, [np.full((SIDE, SIDE), 255, np.uint8)], palette=True)
    with pytest.raises(DatasetError, match="nothing that is known"):
        read(images, masks)
