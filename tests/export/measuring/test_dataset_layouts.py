"""Published data sets as their archives unpack, in small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.errors import OptionError
from PIL import Image

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Choices, Dataset, Example, open_dataset
from patchcut_export.measuring.truth import read_truth

SIZE_HW = (6, 8)


def put(path: Path, picture: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((*SIZE_HW, 3), np.uint8) if picture is None else picture)
    return path


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def names(dataset: Dataset) -> list[str]:
    return [example.name for example in dataset.examples]


def boxes(example: Example) -> list[list[float]]:
    assert example.boxes_xyxy is not None
    assert example.boxes_xyxy.dtype == np.float32
    return example.boxes_xyxy.tolist()


@pytest.mark.parametrize(
    ("layout", "images", "masks", "split", "published"),
    [
        ("ecssd", "images", "ground_truth_mask", None, 1000),
        ("ecssd", "ECSSD/images", "ECSSD/ground_truth_mask", None, 1000),
        ("ecssd", "img", "gt", None, 1000),
        ("duts", "DUTS-TE-Image", "DUTS-TE-Mask", None, 5019),
        ("duts", "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "TE", 5019),
        ("duts", "DUTS/DUTS-TE/DUTS-TE-Image", "DUTS/DUTS-TE/DUTS-TE-Mask", None, 5019),
        ("duts", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "TR", 10553),
        ("dut-omron", "DUT-OMRON-image", "pixelwiseGT-new-PNG", None, 5168),
        ("dut-omron", "DUT_OMRON/img", "DUT_OMRON/gt", None, 5168),
    ],
)
def test_salient_objects(
    tmp_path: Path, layout: str, images: str, masks: str, split: str | None, published: int
) -> None:
    for name in ("0002", "0001"):
        put(tmp_path / images / f"{name}.jpg")
        put(tmp_path / masks / f"{name}.png")
    dataset = open_dataset(layout, tmp_path, Choices(split=split))
    assert names(dataset) == ["0001", "0002"]
    assert dataset.published == published
    assert {(e.mask_kind, e.upright) for e in dataset.examples} == {("grey", False)}
    (tmp_path / masks / "0002.png").unlink()
    with pytest.raises(DatasetError, match=f"{Path(masks).name} has no mask for 1 of 2 images: 0002;"):
        open_dataset(layout, tmp_path, Choices(split=split))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (
            "ecssd",
            r"is not ECSSD: looked for images/ and ground_truth_mask/ or img/ and gt/ in it or in ECSSD/",
        ),
        (
            "duts",
            r"is not DUTS: looked for DUTS-TE-Image/ and DUTS-TE-Mask/ or img/ and gt/ in it or in DUTS-TE/",
        ),
        ("dut-omron", r"is not DUT-OMRON: looked for DUT-OMRON-image/ and pixelwiseGT-new-PNG/"),
        ("cub", r"is not CUB-200-2011: looked for images, images\.txt, .* in it or in CUB_200_2011/ of it"),
        (
            "voc07",
            r"is not VOC2007: looked for JPEGImages, Annotations, ImageSets/Main/trainval\.txt in it or in ",
        ),
        ("voc12", r"is not VOC2012: .* or in VOC2012/, VOCdevkit/VOC2012/"),
        ("coco20k", r"is not COCO 2014: looked for annotations/instances_train2014\.json in it"),
        ("davis16", r"is not DAVIS: looked for JPEGImages/480p, Annotations/480p in it or in DAVIS/"),
        ("davis17", r"is not DAVIS: looked for JPEGImages/480p in it or in DAVIS/"),
    ],
)
def test_a_wrong_root_says_what_was_looked_for(tmp_path: Path, layout: str, expected: str) -> None:
    put(tmp_path / "photo.jpg")
    with pytest.raises(DatasetError, match=expected) as raised:
        open_dataset(layout, tmp_path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def make_cub(root: Path, masks: str = "segmentations") -> Path:
    base = root / "CUB_200_2011"
    files = ["001.Albatross/A_1.jpg", "002.Auk/B_1.jpg", "002.Auk/B_2.jpg"]
    write(base / "images.txt", *(f"{i} {file}" for i, file in enumerate(files, 1)))
    write(base / "train_test_split.txt", "1 0", "2 1", "3 0")
    write(base / "bounding_boxes.txt", *(f"{i} {i}.0 1.0 4.0 3.5" for i in (1, 2, 3)))
    write(
        base / "parts" / "part_locs.txt",
        "1 1 0.0 0.0 0",
        "1 2 3.0 4.0 1",
        "1 15 7.9 2.5 1",
        "2 1 1.0 1.0 1",
        "3 1 0.0 0.0 0",
    )
    grey = np.tile(np.array([0, 51, 102, 153, 204, 255, 0, 0], np.uint8), (SIZE_HW[0], 1))
    for file in files:
        put(base / "images" / file)
        put(root / masks / Path(file).with_suffix(".png"), grey)
    return root


@pytest.mark.parametrize("masks", ["segmentations", "CUB_200_2011/segmentations"])
@pytest.mark.parametrize("inner", ["", "CUB_200_2011"])
def test_cub(tmp_path: Path, masks: str, inner: str) -> None:
    dataset = open_dataset("cub", make_cub(tmp_path, masks) / inner)
    assert (dataset.name, dataset.published, names(dataset)) == ("CUB-200-2011 test", 5794, ["A_1", "B_2"])
    first, last = dataset.examples
    assert boxes(first) == [[1, 1, 5, 4.5]]
    assert boxes(last) == [[3, 1, 7, 4.5]]
    assert first.keypoints is not None and first.keypoints.tolist() == [[3, 4, 2], [7, 2, 15]]
    assert last.keypoints is None
    foreground = read_truth(first, SIZE_HW).foreground
    assert foreground[0].tolist() == [False, False, False, True, True, True, False, False]
    for split, expected in (("train", ["B_1"]), ("all", ["A_1", "B_1", "B_2"])):
        assert names(open_dataset("cub", tmp_path / inner, Choices(split=split))) == expected


def test_cub_without_its_second_archive(tmp_path: Path) -> None:
    make_cub(tmp_path)
    (tmp_path / "segmentations" / "001.Albatross" / "A_1.png").unlink()
    with pytest.raises(DatasetError, match=r"has no mask for 1 of 2 images: 001\.Albatross/A_1\.jpg;"):
        open_dataset("cub", tmp_path)
    shutil.rmtree(tmp_path / "segmentations")
    with pytest.raises(
        DatasetError, match=r"looked for segmentations/ in it and beside it; .*segmentations\.tgz"
    ):
        open_dataset("cub", tmp_path)


@pytest.mark.parametrize(
    ("file", "lines", "expected"),
    [
        ("images.txt", ["1 a.jpg", "2"], r"images\.txt has 1 fields in line 2, expected 2"),
        ("bounding_boxes.txt", ["1 a b c d"], "coordinates that are no numbers"),
        ("parts/part_locs.txt", ["1 2 3.0 x 1"], "coordinates that are no numbers"),
    ],
)
def test_damaged_tables_of_cub_are_told(tmp_path: Path, file: str, lines: list[str], expected: str) -> None:
    write(make_cub(tmp_path) / "CUB_200_2011" / file, *lines)
    with pytest.raises(DatasetError, match=expected):
        open_dataset("cub", tmp_path)


def voc_box(xmin: object, ymin: int, xmax: int, ymax: int) -> str:
    return f"<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"


def voc_object(xmin: object, ymin: int, xmax: int, ymax: int, *, difficult: int = 0) -> str:
    """An object with a part, whose box is no object's."""
    flags = f"<truncated>1</truncated><difficult>{difficult}</difficult>"
    part = f"<part><name>head</name>{voc_box(2, 2, 3, 3)}</part>"
    return f"<object><name>cat</name>{flags}{part}{voc_box(xmin, ymin, xmax, ymax)}</object>"


def make_voc(root: Path, year: int, inner: str) -> Path:
    base = root / inner
    annotations = {
        "000012": voc_object(1, 1, 8, 6) + voc_object(45.7, 2, 46, 3, difficult=1),
        "000005": voc_object(3, 2, 3, 2),
        "000007": voc_object(1, 1, 2, 2, difficult=1),
        "000009": voc_object(1, 1, 2, 2),
    }
    for name, objects in annotations.items():
        put(base / "JPEGImages" / f"{name}.jpg")
        write(
            base / "Annotations" / f"{name}.xml",
            f"<annotation><folder>VOC{year}</folder>{objects}</annotation>",
        )
    write(base / "ImageSets" / "Main" / "trainval.txt", "000012", "000005", "000007 ")
    write(base / "ImageSets" / "Main" / "val.txt", "000009")
    return root


@pytest.mark.parametrize(
    ("year", "published", "inner"),
    [
        (2007, 5011, ""),
        (2007, 5011, "VOCdevkit/VOC2007"),
        (2012, 11540, "VOC2012"),
        (2012, 11540, "VOC2012/VOCdevkit/VOC2012"),
    ],
)
def test_voc(tmp_path: Path, year: int, published: int, inner: str) -> None:
    layout = f"voc{year % 100:02}"
    root = make_voc(tmp_path, year, inner)
    dataset = open_dataset(layout, root)
    assert (dataset.name, dataset.published) == (f"VOC{year} trainval", published)
    assert "difficult ones count" in dataset.truth
    assert [boxes(example) for example in dataset.examples] == [
        [[2, 1, 3, 2]],
        [[0, 0, 2, 2]],
        [[0, 0, 8, 6], [pytest.approx(44.7), 1, 46, 3]],
    ]
    strict = open_dataset(layout, root, Choices(difficult=False))
    assert "difficult ones left out" in strict.truth
    assert [(e.name, boxes(e)) for e in strict.examples] == [
        ("000005", [[2, 1, 3, 2]]),
        ("000012", [[0, 0, 8, 6]]),
    ]
    assert names(open_dataset(layout, root, Choices(split="val"))) == ["000009"]


def no_annotation(root: Path) -> None:
    (root / "Annotations" / "000005.xml").unlink()


def no_image(root: Path) -> None:
    (root / "JPEGImages" / "000007.jpg").unlink()


def half_annotation(root: Path) -> None:
    write(root / "Annotations" / "000005.xml", "<annotation><object>")


def no_corner(root: Path) -> None:
    objects = "<object><bndbox><xmin>1</xmin></bndbox></object>"
    write(root / "Annotations" / "000005.xml", f"<annotation>{objects}</annotation>")


def other_year(root: Path) -> None:
    write(root / "Annotations" / "000005.xml", "<annotation><folder>VOC2012</folder></annotation>")


def empty_list(root: Path) -> None:
    write(root / "ImageSets" / "Main" / "trainval.txt", "")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_annotation, "has no annotation for 1 of 3 images: 000005; add them"),
        (no_image, "has no image for 1 of 3 images: 000007; add them"),
        (half_annotation, r"000005\.xml is not a VOC annotation: no element found"),
        (no_corner, r"000005\.xml is not a VOC annotation: an object has no bndbox"),
        (other_year, r"000005\.xml is of VOC2012, expected VOC2007; choose the layout of that year"),
        (empty_list, "has no images in the layout 'voc07'"),
    ],
)
def test_damaged_voc_is_one_line(tmp_path: Path, spoil: Callable[[Path], None], expected: str) -> None:
    spoil(make_voc(tmp_path, 2007, ""))
    with pytest.raises(DatasetError, match=expected) as raised:
        open_dataset("voc07", tmp_path)
    assert "\n" not in str(raised.value)


LISTED = ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000004.jpg")
LIST = "coco_20k_filenames.txt"


def make_coco(root: Path, images: str = "images/train2014", listed: str | None = LIST) -> Path:
    for name in (*LISTED, "COCO_train2014_000000000001.jpg"):
        put(root / images / name)
    entry = {"segmentation": [[1.0, 2.0]], "iscrowd": 0, "category_id": 3}
    content = {
        "images": [{"id": i, "file_name": f"COCO_train2014_{i:012}.jpg"} for i in (9, 4, 1)],
        "annotations": [
            {**entry, "image_id": 9, "bbox": [1.4, 1.5, 3.2, 2.0]},
            {**entry, "image_id": 9, "bbox": [0, 0, 8, 6], "iscrowd": 1},
            {**entry, "image_id": 4, "bbox": [0.5, 2.5, 3, 1]},
            {**entry, "image_id": 1, "bbox": [0, 0, 1, 1]},
        ],
        "categories": [],
    }
    write(root / "annotations" / "instances_train2014.json", json.dumps(content))
    if listed:
        write(root / listed, *(f"train2014/{name}" for name in LISTED))
    return root


@pytest.mark.parametrize("images", ["images/train2014", "train2014"])
@pytest.mark.parametrize("listed", [LIST, f"../{LIST}"])
def test_coco20k(tmp_path: Path, images: str, listed: str) -> None:
    dataset = open_dataset("coco20k", make_coco(tmp_path / "COCO", images, listed))
    assert (dataset.name, dataset.published) == ("COCO20k", 19817)
    assert names(dataset) == [Path(name).stem for name in sorted(LISTED)]
    # Corners are rounded, halves to even, as LOST's code does.
    assert [boxes(example) for example in dataset.examples] == [[[0, 2, 4, 4]], [[1, 2, 5, 4]]]


def test_coco20k_needs_its_list(tmp_path: Path) -> None:
    make_coco(tmp_path, listed=None)
    with pytest.raises(
        DatasetError, match=r"has no coco_20k_filenames\.txt, which says which .*LOST's repository"
    ):
        open_dataset("coco20k", tmp_path)
    mine = write(tmp_path / "mine.txt", LISTED[0], LISTED[0])
    assert names(open_dataset("coco20k", tmp_path, Choices(names=mine))) == [Path(LISTED[0]).stem]
    write(mine, "COCO_train2014_000000000077.jpg")
    with pytest.raises(
        DatasetError, match=r"has no image for 1 of 1 images: COCO_train2014_000000000077\.jpg"
    ):
        open_dataset("coco20k", tmp_path, Choices(names=mine))
    mine.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"mine\.txt is not a text file"):
        open_dataset("coco20k", tmp_path, Choices(names=mine))
    with pytest.raises(DatasetError, match=r"cannot read .*none\.txt: No such file"):
        open_dataset("coco20k", tmp_path, Choices(names=tmp_path / "none.txt"))
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DatasetError, match="has no images: looked for images/train2014/ and train2014/"):
        open_dataset("coco20k", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"images": []}',
        '{"images": [{"id": 1}], "annotations": []}',
        '{"images": 3, "annotations": 4}',
    ],
)
def test_a_damaged_instances_file_is_one_line(tmp_path: Path, content: str) -> None:
    write(make_coco(tmp_path) / "annotations" / "instances_train2014.json", content)
    with pytest.raises(
        DatasetError, match=r"instances_train2014\.json is not a COCO instances file"
    ) as raised:
        open_dataset("coco20k", tmp_path)
    assert "\n" not in str(raised.value)


def test_images_without_a_box_are_counted(tmp_path: Path) -> None:
    path = make_coco(tmp_path) / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 4]
    path.write_text(json.dumps(content))
    with pytest.raises(
        DatasetError, match=r"has no box for 1 of 2 images: COCO_train2014_000000000004\.jpg;"
    ):
        open_dataset("coco20k", tmp_path)


def make_davis(root: Path, *, year: int = 2016) -> Path:
    for name in ("dog", "bear", "cat"):
        for frame in ("00001", "00000"):
            put(root / "JPEGImages" / "480p" / name / f"{frame}.jpg")
            put(root / "Annotations" / "480p" / name / f"{frame}.png")
    if year == 2016:
        lines = [
            f"/JPEGImages/480p/{name}/{frame}.jpg /Annotations/480p/{name}/{frame}.png "
            for name in ("dog", "bear")
            for frame in ("00000", "00001")
        ]
        write(root / "ImageSets" / "480p" / "val.txt", *lines)
    else:
        write(root / "ImageSets" / "2016" / "val.txt", "dog", "bear")
    return root


@pytest.mark.parametrize("year", [2016, 2017])
@pytest.mark.parametrize("inner", ["", "DAVIS"])
def test_davis(tmp_path: Path, year: int, inner: str) -> None:
    make_davis(tmp_path / inner, year=year)
    dataset = open_dataset("davis16", tmp_path)
    assert (dataset.name, dataset.published) == ("DAVIS2016 val", 1376)
    assert names(dataset) == ["bear/00000", "bear/00001", "dog/00000", "dog/00001"]
    assert {(e.sequence, e.mask_kind) for e in dataset.examples} == {("bear", "colour"), ("dog", "colour")}
    with pytest.raises(
        DatasetError, match=r"no list of train: looked for ImageSets/480p/train\.txt and ImageSets/2016"
    ):
        open_dataset("davis16", tmp_path, Choices(split="train"))
    (tmp_path / inner / "Annotations" / "480p" / "dog" / "00001.png").unlink()
    with pytest.raises(DatasetError, match="dog has no mask for 1 of 2 images: 00001;"):
        open_dataset("davis16", tmp_path)


def test_davis_with_several_objects(tmp_path: Path) -> None:
    make_davis(tmp_path)
    write(tmp_path / "ImageSets" / "2017" / "val.txt", "dog", "bear")
    write(tmp_path / "ImageSets" / "2017" / "train.txt", "cat")
    dataset = open_dataset("davis17", tmp_path)
    assert (dataset.name, dataset.published, dataset.ends_count) == ("DAVIS2017 val", 1999, True)
    assert names(dataset) == ["bear/00000", "bear/00001", "dog/00000", "dog/00001"]
    assert {example.mask_kind for example in dataset.examples} == {"objects"}
    assert dataset.truth.startswith("Annotations/480p")
    assert names(open_dataset("davis17", tmp_path, Choices(split="train"))) == ["cat/00000", "cat/00001"]
    for video in ("bear", "dog"):
        for frame in ("00000", "00001"):
            put(tmp_path / "Annotations_unsupervised" / "480p" / video / f"{frame}.png")
    masks = {str(example.mask) for example in open_dataset("davis17", tmp_path).examples}
    assert all("Annotations_unsupervised" in mask for mask in masks)
    (tmp_path / "ImageSets" / "2017" / "val.txt").unlink()
    with pytest.raises(DatasetError, match=r"no list of val: looked for ImageSets/2017/val\.txt;"):
        open_dataset("davis17", tmp_path)


@pytest.mark.parametrize("layout", ["davis16", "davis17"])
def test_folders_of_your_own_have_no_splits(tmp_path: Path, layout: str) -> None:
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        put(tmp_path / folder / "dog" / f"00000.{suffix}")
    with pytest.raises(OptionError, match=r"\[split\] must be left out for a folder of images/ and masks/"):
        open_dataset(layout, tmp_path, Choices(split="val"))


def test_masks_of_objects_are_numbers(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2, 255]], np.uint8)
    image = Image.fromarray(numbers).convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192])
    image.save(tmp_path / "m.png")
    truth = read_truth(Example("x", tmp_path, tmp_path / "m.png", "objects"), (1, 4))
    assert truth.objects is not None and truth.known is not None and truth.classes is None
    assert truth.objects.tolist() == numbers.tolist()
    assert truth.foreground.tolist() == [[False, True, True, False]]
    assert truth.known.tolist() == [[True, True, True, False]]
