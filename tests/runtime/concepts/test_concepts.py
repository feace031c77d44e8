"""Concepts that are shown: what is found then, names, errors, and the bundle that keeps them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import BundleError, FrameError, OptionError, OutputError, Segmenter, open_bundle
from patchcut.cli.demo import SAMPLES
from patchcut.sources.photos import read_photo

from tests.runtime.concepts import semantic_toy as toy
from tests.runtime.concepts.semantic_toy import BOX, scene


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.bundle(tmp_path_factory.mktemp("bundle") / "toy.patchcut")


@pytest.fixture
def seg(path: Path) -> Segmenter:
    return patchcut.load(path, head="concepts")


def show(seg: Segmenter, *names: str) -> None:
    for name in names:
        seg.concepts.add(name, [scene(name, seed=i) for i in range(3)], boxes=[BOX] * 3)


def found(seg: Segmenter, *names: str) -> list[str]:
    """What is found in the middle of each square of a scene."""
    result = seg(scene(*names, seed=9))
    middles = range(toy.SIDE // 2, toy.SIDE * len(names), toy.SIDE)
    return [result.labels[result.label_map[toy.SIDE // 2, x]] for x in middles]


def test_a_thing_that_was_shown_is_found_and_others_are_not(seg: Segmenter) -> None:
    assert found(seg, "mug", "bowl") == ["background"] * 2
    show(seg, "mug")
    assert found(seg, "mug", "bowl", "none") == ["mug", "background", "background"]
    show(seg, "bowl")
    assert found(seg, "bowl", "mug", "leaf") == ["bowl", "mug", "background"]
    result = seg(scene("mug", "none"))
    assert result.labels == ("background", "mug", "bowl") and result.label_names[0] == "mug"
    assert result.by_label and result.assignment.shape[1] == 3
    np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-5)


def test_masks_and_boxes_show_the_same(path: Path) -> None:
    mask = np.zeros((toy.SIDE, toy.SIDE), bool)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    by_mask, by_box = (patchcut.load(path, head="concepts") for _ in range(2))
    images = [scene("mug", seed=i) for i in range(2)]
    by_mask.concepts.add("mug", images, masks=[mask, mask.astype(np.uint8)])
    by_box.concepts.add("mug", images, boxes=[BOX, None], masks=[None, mask])
    assert found(by_mask, "mug", "leaf") == found(by_box, "mug", "leaf") == ["mug", "background"]


def test_one_that_is_removed_is_found_no_more_and_the_others_are(seg: Segmenter) -> None:
    show(seg, "mug", "bowl", "leaf")
    colors = dict(zip(seg.head.labels, seg(scene("mug")).label_colors, strict=True))
    seg.concepts.remove("mug")
    assert seg.concepts.names == ("bowl", "leaf") and len(seg.concepts) == 2
    assert found(seg, "mug", "bowl", "leaf") == ["background", "bowl", "leaf"]
    left = seg(scene("leaf"))
    assert dict(zip(left.labels, left.label_colors, strict=True)) == {
        name: number for name, number in colors.items() if name != "mug"
    }
    show(seg, "mug")
    assert len(set(seg(scene("mug")).label_colors)) == 4
    for name in ("mug", "bowl", "leaf"):
        seg.concepts.remove(name)
    assert seg.concepts.names == () and seg(scene("bowl")).labels == ("background",)


def test_a_colour_is_drawn_by_name_whatever_column_it_has(seg: Segmenter) -> None:
    show(seg, "mug", "bowl")
    frame = scene("bowl")
    before = seg(frame).overlay()
    seg.concepts.remove("mug")
    after = seg(frame).overlay()
    inside = np.s_[40:70, 60:80]
    np.testing.assert_allclose(before[inside].mean(axis=(0, 1)), after[inside].mean(axis=(0, 1)), atol=1)


def test_a_bundle_that_says_nothing_of_colours_keeps_those_of_its_columns(
    seg: Segmenter, tmp_path: Path
) -> None:
    show(seg, "mug", "bowl")
    concepts = seg.head.now.spec.concepts.model_copy(update={"colors": {}})  # type: ignore[attr-defined]
    seg.head.now.spec = seg.head.now.spec.model_copy(update={"concepts": concepts})  # type: ignore[attr-defined]
    seg.concepts.save(tmp_path / "mine.patchcut")
    again = patchcut.load(tmp_path / "mine.patchcut", head="concepts")
    assert again(scene("bowl")).label_colors == ()
    again.concepts.remove("mug")
    assert again(scene("bowl")).label_colors == (0, 2)
    show(again, "leaf")
    assert again(scene("bowl")).label_colors == (0, 2, 1)


def test_what_was_around_is_a_concept_as_soon_as_it_is_shown(seg: Segmenter) -> None:
    """The table is context of the mug; shown itself, it is context no more."""
    show(seg, "mug")
    assert found(seg, "none") == ["background"]
    frames = [scene("none", seed=i) for i in range(2)]
    seg.concepts.add("table", frames, masks=[np.ones(frame.shape[:2], bool) for frame in frames])
    assert found(seg, "none", "mug") == ["table", "mug"]


def test_the_bundle_that_was_saved_finds_the_same(seg: Segmenter, path: Path, tmp_path: Path) -> None:
    show(seg, "mug", "bowl")
    seg.concepts.remove("mug")
    seg.concepts.save(tmp_path / "mine.patchcut")
    assert [one.name for one in tmp_path.iterdir()] == ["mine.patchcut"]
    again = patchcut.load(tmp_path / "mine.patchcut", head="concepts")
    frame = scene("bowl", "mug", "leaf", seed=5)
    one, other = seg(frame), again(frame)
    np.testing.assert_array_equal(one.assignment, other.assignment)
    assert one.labels == other.labels and one.label_colors == other.label_colors == (0, 2)
    with open_bundle(path) as before, open_bundle(tmp_path / "mine.patchcut") as after:
        after.verify()
        assert [head.name for head in after.spec.heads] == ["gnn", "concepts"]
        for name in set(before.spec.files) - {"card.md"}:
            assert before.read(name) == after.read(name)
    assert patchcut.load(tmp_path / "mine.patchcut").head.name == "gnn"


def test_a_saved_bundle_goes_on(tmp_path: Path) -> None:
    """What it was loaded from is replaced, and without concepts it is again what it was."""
    path = toy.bundle(tmp_path / "toy.patchcut")
    first = patchcut.load(path, head="concepts")
    show(first, "mug")
    first.concepts.save(path)
    second = patchcut.load(path, head="concepts")
    show(second, "bowl")
    assert found(second, "mug", "bowl") == ["mug", "bowl"]
    second.concepts.remove("mug")
    second.concepts.remove("bowl")
    second.concepts.save(path)
    with open_bundle(path) as bundle:
        assert [head.name for head in bundle.spec.heads] == ["gnn"]


def test_some_of_the_concepts(seg: Segmenter, tmp_path: Path) -> None:
    show(seg, "mug", "bowl")
    seg.concepts.save(tmp_path / "mine.patchcut")
    some = patchcut.load(tmp_path / "mine.patchcut", concepts="bowl")  # the head for concepts, then
    assert found(some, "mug", "bowl") == ["background", "bowl"]
    assert some(scene("bowl")).labels == ("background", "bowl") and some(scene("bowl")).label_colors == (0, 2)
    show(some, "leaf")
    assert found(some, "mug", "leaf") == ["background", "leaf"]
    with pytest.raises(OptionError, match=r'\[concepts\] the bundle has no "cup", it has mug, bowl'):
        patchcut.load(tmp_path / "mine.patchcut", head="concepts", concepts="bowl, cup")
    with pytest.raises(OptionError, match=r'\[concepts\] needs the head for concepts, got "gnn"'):
        patchcut.load(tmp_path / "mine.patchcut", head="gnn", concepts="bowl")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be a text"),
        (" ", "must be a word"),
        (3, "must be a text"),
        ("cups/mug", "must be a name and no path"),
        ("..", "must be a name and no path"),
        ("c:\\mug", "must be a name and no path"),
        ("mug,bowl", "no comma"),
        ("mug\n", "must be a word"),
        ("m\x1bug", "no comma"),
        ("m" * 101, "up to 100 letters"),
        ("background", "must not be"),
    ],
)
def test_what_is_no_name_is_refused(seg: Segmenter, name: object, message: str) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        seg.concepts.add(name, [scene("mug")], boxes=[BOX])  # type: ignore[arg-type]
    assert "\n" not in str(raised.value) and seg.concepts.names == ()


def test_a_name_that_is_there_and_one_that_is_not(seg: Segmenter) -> None:
    show(seg, "mug", "bowl")
    with pytest.raises(OptionError, match=r'\[concepts\] has a concept "mug" already'):
        show(seg, "mug")
    with pytest.raises(OptionError, match=r"\[concepts\] has no 'cup', it has mug, bowl"):
        seg.concepts.remove("cup")


@pytest.mark.parametrize(
    ("images", "how", "message"),
    [
        ([], {}, "at least one, got none"),
        (scene("mug"), {}, "must be a list of frames"),
        (["photo.jpg"], {"boxes": []}, "one for each of the 1 images, got 0"),
        ([scene("mug")], {"boxes": [BOX], "masks": [np.ones((112, 112), bool)]}, "one point, box or mask"),
        ([scene("mug")], {"boxes": [(500, 500, 600, 600)]}, "must lie on the frame"),
        ([scene("mug")], {"masks": [np.ones((5, 5), bool)]}, "must have the frame's size"),
        ([scene("mug")], {"masks": [np.zeros((112, 112), bool)]}, "shows no object"),
    ],
)
def test_images_that_show_nothing_are_refused(
    seg: Segmenter, images: list[object], how: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        seg.concepts.add("mug", images, **how)
    assert seg.concepts.names == () and not seg.concepts.changed


def test_what_is_no_image_is_refused(seg: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="frame 1"):
        seg.concepts.add("mug", [scene("mug"), np.zeros(3)], boxes=[BOX, BOX])
    with pytest.raises(patchcut.PatchcutError, match=r"none\.jpg"):
        seg.concepts.add("mug", [tmp_path / "none.jpg"])


def test_without_a_head_for_objects_it_must_be_shown_where_things_are(tmp_path: Path) -> None:
    seg = patchcut.load(toy.bundle(tmp_path / "x.patchcut", heads=False), head="concepts")
    with pytest.raises(OptionError, match=r"\[boxes\] must be given"):
        seg.concepts.add("mug", [scene("mug")])
    show(seg, "mug")
    assert found(seg, "mug", "leaf") == ["mug", "background"]


def test_features_that_do_not_tell_what_things_are(tmp_path: Path) -> None:
    path = toy.bundle(tmp_path / "x.patchcut", semantic=False)
    with pytest.raises(OptionError, match=r'needs the feature set "semantic", .* has key, token, cls'):
        patchcut.load(path, head="concepts")


def test_another_head_has_no_concepts(toy_segmenter: Segmenter) -> None:
    with pytest.raises(OptionError, match=r'\[concepts\] needs the head for concepts, .* runs "gnn"'):
        _ = toy_segmenter.concepts


def test_concepts_that_no_bundle_holds_cannot_go_to_another_process(seg: Segmenter, tmp_path: Path) -> None:
    assert copy.copy(seg).concepts.names == ()
    show(seg, "mug")
    for make in (copy.copy, pickle.dumps):
        with pytest.raises(OptionError, match=r"concepts that were added or removed"):
            make(seg)
    seg.concepts.save(tmp_path / "mine.patchcut")
    again = patchcut.load(tmp_path / "mine.patchcut", head="concepts")
    assert pickle.loads(pickle.dumps(again)).concepts.names == ("mug",)


def test_what_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    path = toy.bundle(tmp_path / "toy.patchcut")
    seg = patchcut.load(path, head="concepts")
    show(seg, "mug")
    (tmp_path / "folder.patchcut").mkdir()
    with pytest.raises(OutputError):
        seg.concepts.save(tmp_path / "folder.patchcut")
    path.unlink()
    with pytest.raises(BundleError):
        seg.concepts.save(tmp_path / "mine.patchcut")
    assert [one.name for one in tmp_path.iterdir()] == ["folder.patchcut"]


def test_the_foreground_is_looked_at_where_it_is_what_was_shown(caplog: pytest.LogCaptureFixture) -> None:
    """By the masks of a cat that stands out, and of the corner behind it, which does not."""
    photo = read_photo(SAMPLES / "chelsea.jpg")
    cat = patchcut.load(engine="onnxruntime")(photo).label_map > 0
    corner = np.zeros(cat.shape, bool)
    corner[:80, :80] = True
    looks_at = []
    for mask in (cat, corner):
        seg = patchcut.load(head="concepts", engine="onnxruntime")
        seg.concepts.add("it", [photo], masks=[mask])
        now = seg.head.now  # type: ignore[attr-defined]
        looks_at.append(now.spec.concepts.foreground)
        assert (seg(photo).label_map[mask] == 1).mean() > 0.5
    assert looks_at == ["gnn", None]
    seg = patchcut.load(head="concepts", engine="onnxruntime")
    seg.concepts.add("cat", [photo], masks=[cat])
    caplog.clear()
    seg.concepts.add("corner", [photo], masks=[corner])
    assert 'gnn does not find what was shown of "corner" as a region of its own' in caplog.text


def test_the_embedded_bundle_learns_from_photos(tmp_path: Path) -> None:
    """Shown by the foreground alone; a photograph of something else has none of it."""
    seg = patchcut.load(head="concepts", engine="onnxruntime")
    seg.concepts.add("cat", [SAMPLES / "chelsea.jpg"])
    seg.concepts.add("astronaut", [read_photo(SAMPLES / "astronaut.jpg")])
    assert seg(read_photo(SAMPLES / "chelsea.jpg")[10:, 20:].copy()).label_names == ("cat",)
    assert "astronaut" in seg(read_photo(SAMPLES / "astronaut.jpg")).label_names
    assert seg(read_photo(SAMPLES / "rocket.jpg")).label_names == ()
    seg.concepts.save(tmp_path / "mine.patchcut")
    some = patchcut.load(tmp_path / "mine.patchcut", concepts="cat", engine="onnxruntime")
    assert some(read_photo(SAMPLES / "astronaut.jpg")).label_names == ()
