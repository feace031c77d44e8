"""The mask decoder: what the graph says cell by cell, in every engine, and all that comes after a head."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result
from patchcut.heads import HEADS, choose_head
from patchcut.heads.decoder import DecoderHead
from patchcut.sources.arrays import FrameSource
from patchcut.stages import Canvas

from tests.runtime import toy_bundle as toy
from tests.runtime import toy_decoder
from tests.runtime.results import check_consistent, same

ENGINES = [name for name in ("onnxruntime", "openvino", "torch") if find_spec(name)]
SMALL, LARGE = toy.SIZES


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """bundle_of(cells, labels, fit): a bundle with a decoder, made once."""
    folder, made = tmp_path_factory.mktemp("decoders"), dict[tuple[object, ...], Path]()

    def make(cells: int = 2, labels: int = 2, fit: str = "stretch") -> Path:
        key = (cells, labels, fit)
        if key not in made:
            name = "-".join(map(str, key))
            made[key] = toy_decoder.write(folder / f"{name}.patchcut", cells, labels, fit=fit)
        return made[key]

    return make


def disc(size_hw: tuple[int, int], center: tuple[float, float], radius: float, seed: int = 0) -> Any:
    """A picture [H, W, 3] uint8 of a bright disc before a dark ground, with noise, and its mask [H, W]."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    noise = np.random.default_rng(seed).integers(0, 40, (*size_hw, 3))
    return np.uint8(np.where(inside[..., None], 215, 20) + noise), inside


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cells", "labels"), [(1, 2), (2, 3), (7, 2)])
def test_every_engine_gives_the_cells_of_a_batch(
    bundle_of: Callable[..., Path], engine: str, cells: int, labels: int, photo: np.ndarray
) -> None:
    segmenter = patchcut.load(bundle_of(cells, labels), engine=engine, precision="fp32", size=LARGE)
    assert isinstance(segmenter.head, DecoderHead) and segmenter.head.labels == toy_decoder.LABELS[:labels]
    frames = [Frame(photo), Frame(photo[::-1].copy()), Frame(photo[::2, 100:])]
    features = segmenter.extractor(frames)
    images = np.array(segmenter.extractor.engine.images(3))
    assignment = segmenter.head(features)
    assert assignment.shape == (3, cells**2 * 144, labels) and assignment.dtype == np.float32
    wanted = np.stack([toy_decoder.reference_mask(image, cells, labels) for image in images])
    assert wanted.std(axis=1).min() > 0.05, "the reference tells nothing"
    np.testing.assert_allclose(assignment, wanted, atol=2e-5)
    keys = np.stack([toy.reference_features(image, "fp32") for image in images])
    np.testing.assert_allclose(features["key"], keys, rtol=1e-4, atol=2e-3)


def test_the_assignment_is_the_results_own(
    bundle_of: Callable[..., Path], photo: np.ndarray, second_photo: np.ndarray
) -> None:
    segmenter = patchcut.load(bundle_of())
    first = segmenter(photo)
    before = first.assignment.copy()
    segmenter(second_photo)
    np.testing.assert_array_equal(first.assignment, before)
    same(segmenter(photo), first)


@pytest.mark.parametrize("labels", [2, 3])
def test_all_of_a_result_holds(bundle_of: Callable[..., Path], photo: np.ndarray, labels: int) -> None:
    for size in toy.SIZES:
        result = patchcut.load(bundle_of(2, labels), size=size)(photo)
        check_consistent(result, (427, 640))
        side = size // toy.PATCH
        assert (result.grid_hw, result.assignment_hw) == ((side, side), (2 * side, 2 * side))
        assert len(result) and set(result.label_names) <= set(toy_decoder.LABELS[1:labels])
        np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-5)


def test_masks_are_as_fine_as_the_cells(bundle_of: Callable[..., Path]) -> None:
    image, inside = disc((SMALL, SMALL), (50, 58), 22)
    found = [patchcut.load(bundle_of(cells))(image).foreground for cells in (1, 2, 7)]
    coarse, middle, fine = (iou(one, inside) for one in found)
    assert coarse < middle - 0.02 < fine - 0.04, (coarse, middle, fine)
    assert fine > 0.95


def test_a_cell_lies_where_the_frame_shows_it(bundle_of: Callable[..., Path]) -> None:
    """Small things, each of one cell: rows of the assignment are in reading order of the finer grid."""
    image = np.full((SMALL, SMALL, 3), 20, np.uint8)
    places = [(0, 0), (3, 11), (9, 4), (15, 15)]
    for row, column in places:
        image[7 * row : 7 * row + 7, 7 * column : 7 * column + 7] = 235
    result = patchcut.load(bundle_of(), precision="fp32")(image)
    bright = np.argwhere(result.assignment.argmax(axis=1).reshape(result.assignment_hw))
    assert [tuple(one) for one in bright.tolist()] == places


@pytest.mark.parametrize("frame_hw", [(120, 260), (300, 140)])
@pytest.mark.parametrize("labels", [2, 3])
def test_a_letterboxed_frame_is_cut_out_of_the_finer_grid(
    bundle_of: Callable[..., Path], frame_hw: tuple[int, int], labels: int
) -> None:
    image, inside = disc(frame_hw, (0.6 * frame_hw[0], 0.4 * frame_hw[1]), 45)
    result = patchcut.load(bundle_of(7, labels, "letterbox"))(image)
    check_consistent(result, frame_hw)
    assert iou(result.label_map == 1, inside) > 0.93
    assert result.assignment_hw == (56, 56)


def test_small_regions_are_told_in_patches(bundle_of: Callable[..., Path]) -> None:
    """A seventh of a patch's area is nothing, whatever the cells; half a patch and more is something."""
    image = np.full((SMALL, SMALL, 3), 20, np.uint8)
    image[56:61, 56:61] = 235  # 25 pixels of 196
    image[14:28, 84:98] = 235
    result = patchcut.load(bundle_of(7))(image)
    assert len(result) == 1 and result.boxes[0].tolist() == pytest.approx([84, 14, 98, 28], abs=2)


@pytest.mark.parametrize("refine", ["guided", "bilateral"])
def test_refiners_look_as_far_as_a_cell(bundle_of: Callable[..., Path], refine: str) -> None:
    image, inside = disc((240, 240), (110, 130), 50)
    result = patchcut.load(bundle_of(2), refine=refine)(image)
    check_consistent(result, (240, 240))
    assert iou(result.foreground, inside) > 0.97


@pytest.mark.parametrize("mode", ["parts", "scene"])
@pytest.mark.parametrize("labels", [2, 3])
def test_what_is_found_is_divided_by_patches(
    bundle_of: Callable[..., Path], photo: np.ndarray, mode: Any, labels: int
) -> None:
    whole = patchcut.load(bundle_of(2, labels))(photo)
    divided = patchcut.load(bundle_of(2, labels), mode=mode, parts="kmeans:k=3")(photo)
    assert divided.assignment_hw == whole.assignment_hw
    assert divided.assignment.shape == (256, len(divided.labels))
    np.testing.assert_allclose(divided.assignment.sum(axis=1), 1, atol=1e-5)
    columns = divided.assignment.argmax(axis=1)
    foreground = ~np.isin(columns, divided.background_columns)
    np.testing.assert_array_equal(foreground, whole.assignment.argmax(axis=1) > 0)
    assert len(np.unique(columns[foreground])) > 1
    if labels == 2:
        np.testing.assert_array_equal(divided.foreground, whole.foreground)
    # A cell is in the part of its patch, whose other cells may be background.
    parts = divided.assignment[:, 1:4] > 0
    at = parts.reshape(8, 2, 8, 2, 3)
    np.testing.assert_array_equal(at, np.broadcast_to(at[:, :1, :, :1], at.shape))
    check = patchcut.load(bundle_of(1, labels), mode=mode, parts="kmeans:k=3")(photo)
    assert check.assignment.shape[0] == 64


def test_parts_of_a_trained_head_are_those_of_the_patches(
    bundle_of: Callable[..., Path], photo: np.ndarray, tmp_path: Path
) -> None:
    files = toy_decoder.members()
    spec = toy_decoder.manifest(files)
    spec["heads"][1] |= {"name": "parts", "role": "parts"}
    segmenter = patchcut.load(toy.write(tmp_path / "x.patchcut", files, spec), mode="parts")
    result = segmenter(photo)
    assert result.labels == ("background", *toy.LABELS)
    assert result.assignment.shape == (256, 4)
    check = patchcut.load(bundle_of())(photo)
    np.testing.assert_array_equal(result.foreground, check.foreground)


@pytest.mark.parametrize("head", ["ncut", "kmeans:k=3", "cc", "gnn"])
def test_other_heads_run_on_the_features_alone(
    bundle_of: Callable[..., Path], toy_bundle: Path, photo: np.ndarray, head: str
) -> None:
    """What nobody asks for is cut from the graph: the answer is that of a bundle without a decoder."""
    segmenter = patchcut.load(bundle_of(), head=head)
    assert list(segmenter.extractor.backbone.features) == ["key"]
    same(segmenter(photo), patchcut.load(toy_bundle, head=head)(photo))


def test_the_decoder_is_chosen_by_name_and_kind_and_first(bundle_of: Callable[..., Path]) -> None:
    assert "decoder" in HEADS
    with patchcut.open_bundle(bundle_of()) as bundle:
        for head in ("auto", "decoder"):
            assert choose_head(bundle, head) == bundle.spec.heads[0]
    described = patchcut.load(bundle_of()).describe()
    assert (described.head, described.head_device) == ("decoder", "cpu")


def test_a_bundle_without_one_says_so(toy_bundle: Path) -> None:
    with pytest.raises(patchcut.OptionError, match=r'\[head\] .* holds "gnn", got "decoder"'):
        patchcut.load(toy_bundle, head="decoder")


def test_an_assignment_that_is_not_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_decoder, "LOGITS", np.full((3, 3), np.inf, np.float32))
    segmenter = patchcut.load(toy_decoder.write(tmp_path / "x.patchcut"))
    with pytest.raises(patchcut.EngineError, match="the assignment is not finite"):
        segmenter(np.full((SMALL, SMALL, 3), 9, np.uint8))


@pytest.mark.parametrize("throughput", [False, True])
def test_a_batch_is_what_its_frames_are(
    bundle_of: Callable[..., Path], photo: np.ndarray, second_photo: np.ndarray, throughput: bool
) -> None:
    segmenter = patchcut.load(bundle_of(2, 3), precision="fp32", throughput=throughput, threads=2)
    frames = [photo, second_photo, photo[:200], second_photo[:, ::-1]]
    for together, frame in zip(segmenter.batch(frames), frames, strict=True):
        same(together, segmenter(frame))


def clip(count: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    made = [disc((160, 160), (70, 45 + 5 * i), 34, seed=i) for i in range(count)]
    return [image for image, _ in made], [inside for _, inside in made]


def stream_of(images: list[np.ndarray]) -> FrameSource:
    return FrameSource((Frame(image, index=i) for i, image in enumerate(images)), kind="video", name="clip")


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("settings", [{}, {"mode": "parts", "parts": "kmeans:k=2"}], ids=str)
def test_a_stream_is_as_fine(bundle_of: Callable[..., Path], track: bool, settings: dict[str, Any]) -> None:
    images, inside = clip()
    segmenter = patchcut.load(bundle_of(7), refine="none", **settings)
    results = list(segmenter.stream(stream_of(images), track=track))
    for result, truth in zip(results, inside, strict=True):
        assert iou(result.foreground, truth) > 0.9
        assert result.assignment_hw == (56, 56)
        np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-5)
    if track:
        ids = [set(result.track_ids.tolist()) for result in results if result.track_ids is not None]
        assert len(ids) == len(results) and set.union(*ids) == {1}


def test_what_is_pointed_at_is_followed_by_features(bundle_of: Callable[..., Path]) -> None:
    images, _ = clip(4)
    segmenter = patchcut.load(bundle_of(7))
    results: list[Result] = list(segmenter.track(stream_of(images), points=[(45, 70)]))
    assert [len(result) for result in results] == [1] * 4
    assert all(result.assignment_hw == result.grid_hw for result in results), "the decoder is not asked"


def test_cutouts_are_as_soft_as_a_cell(bundle_of: Callable[..., Path]) -> None:
    image, _ = disc((240, 240), (110, 130), 60)
    half = [
        np.mean((alpha > 0) & (alpha < 255))
        for cells in (1, 2, 7)
        for alpha in [patchcut.load(bundle_of(cells))(image).cutout()[..., 3]]
    ]
    assert half[0] > 1.3 * half[1] > 1.3 * half[2] > 0


def test_every_output_is_written(
    bundle_of: Callable[..., Path],
    run_cli: Callable[..., int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    image, inside = disc((150, 200), (70, 90), 40)
    assert cv2.imwrite(str(tmp_path / "disc.png"), image)
    path, out = bundle_of(7), tmp_path / "out"
    kinds = "overlay,masks,labels,cutout,crop,npz,json,coco"
    assert run_cli("run", tmp_path / "disc.png", "--bundle", path, "--save", kinds, "--out", out) == 0
    capfd.readouterr()
    result = patchcut.load(path)(image)
    with np.load(out / "npz/disc.npz") as arrays:
        for name in ("label_map", "region_ids", "boxes", "scores"):
            np.testing.assert_array_equal(arrays[name], getattr(result, name))
    told = json.loads((out / "json/disc.json").read_text())
    assert [region["area"] for region in told["regions"]] == result.areas.tolist()
    colours = cv2.imread(str(out / "labels/disc.png"))
    np.testing.assert_array_equal(colours.any(axis=2), result.foreground)
    assert iou(result.foreground, inside) > 0.93


def test_info_says_what_the_decoder_is(
    bundle_of: Callable[..., Path], run_cli: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", bundle_of(), "-v") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "mask: mask of layer 0, an assignment of 2 x 2 cells of each patch to 2 columns" in said
    assert "decoder, finds objects" in said and "key, mask of toy" in said
    assert run_cli("info", bundle_of()) == 0
    assert "decoder (objects)" in capfd.readouterr().out


def test_a_head_of_ones_own_may_be_finer(toy_bundle: Path, photo: np.ndarray) -> None:
    class Own:
        name, labels, needs, devices = "own", ("background", "top"), (), ("cpu",)

        def __call__(self, features: patchcut.Features) -> np.ndarray:
            made = np.zeros((features.batch, 9 * 64, 2), np.float32)
            made[:, :, 0] = np.arange(9 * 64) >= 5 * 24  # of 24 rows of cells the first five are "top"
            made[:, :, 1] = 1 - made[:, :, 0]
            return made

    result = patchcut.load(toy_bundle, head=Own())(photo)
    assert result.assignment_hw == (24, 24)
    height = result.foreground[:, 300].sum()
    assert height == pytest.approx(427 * 5 / 24, abs=1.5)


def test_a_canvas_upsamples_any_whole_multiple() -> None:
    canvas = Canvas((80, 100), (0, 0), (80, 100), (4, 5))
    rng = np.random.default_rng(0)
    for cells in (1, 2, 5):
        grid = rng.integers(0, 2, (4 * cells, 5 * cells))
        labels, _ = canvas.upsample(np.eye(2, dtype=np.float32)[grid.ravel()])
        centres = labels[80 // (8 * cells) :: 20 // cells, 100 // (10 * cells) :: 20 // cells]
        np.testing.assert_array_equal(centres, grid)
    with pytest.raises(ValueError, match=r"\[assignment\] must have 20 rows for a grid of \(4, 5\)"):
        canvas.upsample(np.zeros((30, 2), np.float32))
