"""Published sets with a class for each pixel as their archives unpack, in small."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="needs patchcut[cpu]")

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import VOID, Choices, Classes, Dataset, open_dataset
from patchcut_export.measuring.squares import read_image
from patchcut_export.measuring.truth import read_truth

SIZE_HW = (6, 8)


def put_image(path: Path, size_hw: tuple[int, int] = SIZE_HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size_hw, 3), np.uint8)).save(path)


def put_mask(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        mask.putpalette([value for i in range(256) for value in (i * 7 % 256, i * 31 % 256, i * 101 % 256)])
    mask.save(path)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cells(*values: int) -> np.ndarray:
    """A mask of the size of the images, with these values at its beginning and void elsewhere."""
    mask = np.full(SIZE_HW, VOID, np.uint8)
    mask.flat[: len(values)] = values
    return mask


def truths(dataset: Dataset, index: int = 0) -> np.ndarray:
    truth = read_truth(dataset.examples[index], SIZE_HW).classes
    assert truth is not None
    return truth.ravel()


def classes_of(dataset: Dataset) -> Classes:
    assert dataset.classes is not None
    return dataset.classes


def make_voc(root: Path, inner: str = "") -> Path:
    base = root / inner
    for name in ("2007_000033", "2007_000042", "2007_000061"):
        put_image(base / "JPEGImages" / f"{name}.jpg")
        put_mask(base / "SegmentationClass" / f"{name}.png", cells(0, 1, 15, 20), palette=True)
    put_image(base / "JPEGImages" / "2008_000001.jpg")  # has boxes only
    write(base / "ImageSets/Segmentation/val.txt", "2007_000061", "2007_000033")
    write(base / "ImageSets/Segmentation/train.txt", "2007_000042")
    return root


@pytest.mark.parametrize("inner", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc(tmp_path: Path, inner: str) -> None:
    dataset = open_dataset("voc12-seg", make_voc(tmp_path, inner))
    assert (dataset.name, dataset.published) == ("VOC2012 segmentation val", 1449)
    assert [example.name for example in dataset.examples] == ["2007_000061", "2007_000033"]
    of = classes_of(dataset)
    assert (len(of.names), of.names[0], of.names[15], of.names[20]) == (
        21,
        "background",
        "person",
        "tvmonitor",
    )
    assert of.has_background and of.by_iou
    assert truths(dataset)[:5].tolist() == [0, 1, 15, 20, VOID]
    assert {(example.upright, example.square) for example in dataset.examples} == {(False, None)}
    train = open_dataset("voc12-seg", tmp_path, Choices(split="train"))
    assert (train.published, len(train.examples)) == (1464, 1)
    foreground = read_truth(dataset.examples[0], SIZE_HW).foreground
    assert foreground.sum() == 3, "background and void are none"


def make_coco(root: Path, images: str = "images/val2017", maps: str = "annotations/val2017") -> Path:
    for number, values in ((139, (0, 89, 91, 181)), (285, (22, 156)), (632, (64,))):
        put_image(root / images / f"{number:012}.jpg")
        put_mask(root / maps / f"{number:012}.png", cells(*values))
        put_mask(root / maps / f"{number:012}_labelTrainIds.png", cells(1))  # mmsegmentation's
    return root


def test_coco_things(tmp_path: Path) -> None:
    dataset = open_dataset("coco-seg", make_coco(tmp_path / "COCO", "val2017", "stuffthingmaps/val2017"))
    assert (dataset.name, dataset.published) == ("COCO val2017, 80 things", 5000)
    of = classes_of(dataset)
    assert len(of.names) == len(set(of.names)) == 81
    assert truths(dataset)[:5].tolist() == [1, 80, 0, 0, VOID], "stuff is background, unlabelled is void"
    assert [of.names[i] for i in (0, 1, 12, 80)] == ["background", "person", "stop sign", "toothbrush"]
    assert of.names[of.of_values[22]] == "bear" and of.names[of.of_values[64]] == "bed"
    assert of.has_background and not of.by_iou
    # Things of COCO that were never drawn: street sign, hat, shoe, eye glasses, plate, mirror, window, ...
    assert not {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90} & set(of.of_values)


def test_values_that_are_no_class_are_told(tmp_path: Path) -> None:
    make_coco(tmp_path)
    put_mask(tmp_path / "annotations/val2017/000000000285.png", cells(0, 11))
    dataset = open_dataset("coco-seg", tmp_path)
    with pytest.raises(
        DatasetError, match=r"000000000285\.png has the value 11, which is none of the 81 cla"
    ):
        read_truth(dataset.examples[1], SIZE_HW)


CURATED = "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt"


@pytest.mark.parametrize("listed", ["", "..", "images"])
def test_coco_stuff(tmp_path: Path, listed: str) -> None:
    root = tmp_path / "coco"
    make_coco(root)
    write(root / listed / CURATED, "000000000632", "000000000139")
    given = root if listed != ".." else tmp_path
    dataset = open_dataset("coco-stuff27", given, Choices(resolution="full"))
    assert (dataset.name, dataset.published) == ("COCO-Stuff 27 val2017", 2175)
    assert [example.name for example in dataset.examples] == ["000000000139", "000000000632"]
    of = classes_of(dataset)
    named = [of.names[i] for i in truths(dataset)[:4]]
    assert named == ["person", "indoor", "textile", "solid"]  # person, toothbrush, banner, wood
    assert not of.has_background and not of.by_iou
    assert read_truth(dataset.examples[0], SIZE_HW).foreground.sum() == 4, "every class counts"


def test_the_27_classes_are_those_of_stego(tmp_path: Path) -> None:
    make_coco(tmp_path)
    write(tmp_path / CURATED, "000000000139")
    of = classes_of(open_dataset("coco-stuff27", tmp_path))
    assert sorted(of.of_values) == [*range(182), VOID]
    assert set(of.of_values.values()) == {*range(27), VOID}
    # `fine_to_coarse` of src/data.py in STEGO's repository, with 255: 255
    digest = hashlib.sha256(repr(sorted(of.of_values.items())).encode()).hexdigest()
    assert digest == "329c1ff7e27a01579572a60bfd35c66530fad3437b0b3573048fd58b086b124f"


def test_coco_stuff_needs_its_list(tmp_path: Path) -> None:
    make_coco(tmp_path)
    with pytest.raises(
        DatasetError, match=r"has no curated/val2017/\S+_7\.txt, which says which .*PiCIE's .*--list"
    ):
        open_dataset("coco-stuff27", tmp_path)
    write(tmp_path / "mine.txt", "000000000285")
    assert len(open_dataset("coco-stuff27", tmp_path, Choices(names=tmp_path / "mine.txt")).examples) == 1
    write(tmp_path / "mine.txt", "000000000286")
    with pytest.raises(DatasetError, match="val2017 has no image for 1 of 1 images: 000000000286"):
        open_dataset("coco-stuff27", tmp_path, Choices(names=tmp_path / "mine.txt"))


def make_cityscapes(root: Path) -> Path:
    for split, city, name in (
        ("val", "munster", "munster_000001_000019"),
        ("val", "frankfurt", "frankfurt_000000_000294"),
        ("train", "aachen", "aachen_000000_000019"),
    ):
        put_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        labels = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
        put_mask(labels, cells(0, 6, 7, 11, 23, 33))
        put_mask(labels.with_name(f"{name}_gtFine_instanceIds.png"), cells(1))
    return root


@pytest.mark.parametrize("inner", ["", "Cityscapes"])
def test_cityscapes(tmp_path: Path, inner: str) -> None:
    make_cityscapes(tmp_path / inner)
    dataset = open_dataset("cityscapes27", tmp_path, Choices(resolution="full"))
    assert (dataset.name, dataset.published) == ("Cityscapes 27 val", 500)
    names = [example.name for example in dataset.examples]
    assert names == ["frankfurt/frankfurt_000000_000294", "munster/munster_000001_000019"]
    of = classes_of(dataset)
    assert len(of.names) == 27 and not of.has_background
    found = truths(dataset)
    assert found[:2].tolist() == [VOID, VOID]
    assert [of.names[i] for i in found[2:6]] == ["road", "building", "sky", "bicycle"]
    assert open_dataset("cityscapes27", tmp_path, Choices(split="train")).published == 2975
    (tmp_path / inner / "gtFine/val/munster/munster_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(
        DatasetError, match=r"gtFine/val has no \*_gtFine_labelIds\.png for 1 of 2 images: munster/munster"
    ):
        open_dataset("cityscapes27", tmp_path)


def test_objects_of_voc_alone(tmp_path: Path) -> None:
    dataset = open_dataset("voc20", make_voc(tmp_path))
    of = classes_of(dataset)
    assert (len(of.names), of.names[0], of.has_background, dataset.published) == (
        20,
        "aeroplane",
        False,
        1449,
    )
    assert truths(dataset)[:5].tolist() == [VOID, 0, 14, 19, VOID]


@pytest.mark.parametrize(("layout", "expected"), [("context59", [VOID, 0, 58]), ("context60", [0, 1, 59])])
def test_pascal_context(tmp_path: Path, layout: str, expected: list[int]) -> None:
    base = tmp_path / "VOCdevkit/VOC2010"
    put_image(base / "JPEGImages/2008_000002.jpg")
    put_mask(base / "SegmentationClassContext/2008_000002.png", cells(0, 1, 59))
    write(base / "ImageSets/SegmentationContext/val.txt", "2008_000002")
    dataset = open_dataset(layout, tmp_path)
    of = classes_of(dataset)
    assert truths(dataset)[:4].tolist() == [*expected, VOID]
    assert [of.names[i] for i in expected[1:]] == ["aeroplane", "wood"]
    assert list(of.names) == sorted(of.names) or of.names[0] == "background"
    assert dataset.published == 5105


def test_all_of_coco_stuff(tmp_path: Path) -> None:
    dataset = open_dataset("coco-stuff171", make_coco(tmp_path))
    of = classes_of(dataset)
    assert len(set(of.names)) == len(of.names) == 171 and not of.has_background
    found = truths(dataset)
    assert [of.names[i] for i in found[:4]] == ["person", "toothbrush", "banner", "wood"] and found[4] == VOID
    assert of.names[of.of_values[156]] == "sky-other" and of.names[of.of_values[22]] == "bear"
    numbers = of.numbers()
    assert numbers["sky"] == of.of_values[156] and numbers["motorbike"] == of.of_values[3]
    assert numbers["window"] == of.of_values[180], "the first of those that it may be"


def test_the_cityscapes_benchmark(tmp_path: Path) -> None:
    dataset = open_dataset("cityscapes19", make_cityscapes(tmp_path))
    of = classes_of(dataset)
    found = truths(dataset)
    assert [of.names[i] for i in found[2:6]] == ["road", "building", "sky", "bicycle"]
    assert (found[:2] == VOID).all() and of.of_values[9] == VOID, "parking is none of the 19"
    assert of.of_values[17] == 5 and of.of_values[31] == 16, "the train ids of its own scripts"


def test_kitti_step(tmp_path: Path) -> None:
    red = cells(0, 10, 18)
    for number in ("000000", "000001"):
        put_image(tmp_path / "training/image_02/0002" / f"{number}.png")
        path = tmp_path / "panoptic_maps/val/0002" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([red, np.full_like(red, 3), red], axis=2)).save(path)
    dataset = open_dataset("kitti-step", tmp_path)
    of = classes_of(dataset)
    assert (dataset.published, [one.name for one in dataset.examples]) == (
        2981,
        ["0002/000000", "0002/000001"],
    )
    assert [of.names[i] for i in truths(dataset)[:3]] == ["road", "sky", "bicycle"]
    put_mask(tmp_path / "panoptic_maps/val/0002/000001.png", red)
    with pytest.raises(DatasetError, match=r"000001\.png holds no colours \(L\)"):
        truths(dataset, 1)
    (tmp_path / "training/image_02/0002/000000.png").unlink()
    with pytest.raises(DatasetError, match="image_02 has no image for 1 of 2 images: 0002/000000"):
        open_dataset("kitti-step", tmp_path)


@pytest.mark.parametrize(("layout", "make"), [("coco-stuff27", make_coco), ("cityscapes27", make_cityscapes)])
def test_the_papers_square_is_the_default(tmp_path: Path, layout: str, make: Callable[[Path], Path]) -> None:
    write(make(tmp_path) / CURATED, "000000000139")
    dataset = open_dataset(layout, tmp_path)
    example = dataset.examples[0]
    assert example.square == 320 and "shorter side was scaled to 320" in dataset.truth
    assert read_image(example).shape == (320, 320, 3)
    truth = read_truth(example, (320, 320))
    assert truth.classes is not None
    whole = truths(open_dataset(layout, tmp_path, Choices(resolution="full"))).reshape(SIZE_HW)
    scale = 320 / SIZE_HW[0]
    rows, columns = (np.arange(320) / scale).astype(int), ((np.arange(320) + 53) / scale).astype(int)
    same = truth.classes == whole[rows][:, columns]
    assert same.mean() > 0.99 and len(np.unique(truth.classes)) > 2


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("semantic", "is not a folder of images and masks: looked for images, masks in it"),
        (
            "voc12-seg",
            r"is not VOC2012: looked for JPEGImages, SegmentationClass, ImageSets/Segmentation/val",
        ),
        (
            "coco-seg",
            r"is not COCO 2017 with the maps of COCO-Stuff: looked for images/val2017/ and annotati",
        ),
        ("coco-stuff27", r"is not COCO 2017 with the maps of COCO-Stuff: .* in it or in COCO/, coco/"),
        (
            "kitti-step",
            r"is not KITTI-STEP: looked for panoptic_maps/val, training/image_02 in it or in kitti-step/",
        ),
        (
            "cityscapes27",
            r"is not Cityscapes: looked for leftImg8bit/val, gtFine/val in it or in Cityscapes/",
        ),
    ],
)
def test_a_wrong_root_says_what_was_looked_for(tmp_path: Path, layout: str, expected: str) -> None:
    put_image(tmp_path / "photo.jpg")
    with pytest.raises(DatasetError, match=expected) as raised:
        open_dataset(layout, tmp_path)
    assert "\n" not in str(raised.value)


def make_own(root: Path, *values: int) -> Path:
    put_image(root / "images" / "a.jpg")
    put_image(root / "images" / "unlabelled.jpg")
    put_mask(root / "masks" / "a.png", cells(*values))
    return root


def test_your_own_classes_are_those_of_the_masks(tmp_path: Path) -> None:
    dataset = open_dataset("semantic", make_own(tmp_path, 0, 3))
    assert [example.name for example in dataset.examples] == ["a"]
    of = classes_of(dataset)
    assert of.names == ("background", "class 1", "class 2", "class 3") and of.has_background
    of = classes_of(open_dataset("semantic", tmp_path, Choices(background=False)))
    assert of.names == ("class 0", "class 1", "class 2", "class 3") and not of.has_background
    put_mask(tmp_path / "masks" / "b.png", cells(0))
    with pytest.raises(DatasetError, match="images has no image for 1 of 2 images: b"):
        open_dataset("semantic", tmp_path)


@pytest.mark.parametrize(
    ("first", "chosen", "has_background"),
    [("Background", None, True), ("sky", None, False), ("sky", True, True), ("background", False, False)],
)
def test_your_own_names(tmp_path: Path, first: str, chosen: bool | None, has_background: bool) -> None:
    write(make_own(tmp_path, 0, 1) / "classes.txt", first, " fire hydrant ", "Bär")
    of = classes_of(open_dataset("semantic", tmp_path, Choices(background=chosen)))
    assert of.names == (first, "fire hydrant", "Bär")
    assert of.has_background is has_background
