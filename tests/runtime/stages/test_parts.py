"""Two stages: foreground, its parts, and the regions of the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import EngineError, Features, OptionError, Result
from patchcut.heads import FITTED, CcHead, FittedHead, GnnFitHead, KMeansHead, NcutHead
from patchcut.stages.canvas import Canvas
from patchcut.stages.parts import DividedPatches, Parts, cluster_patches
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy
from tests.runtime.patches import GRID, features_of, planted

PARTS = ("beak", "wing", "tail")


def scene() -> np.ndarray:
    """[8, 10]: 0 sky and 1 ground, and before them an object of a larger part 2 and a smaller one 3."""
    regions = np.repeat([0, 1], [5, 3])[:, None].repeat(10, axis=1)
    regions[2:7, 3:8] = 2
    regions[2:4, 3:8] = 3
    return regions


def surely(mask: np.ndarray) -> np.ndarray:
    """[n, 2] float32, 0.9 for what the mask says."""
    foreground = np.where(mask.ravel(), 0.9, 0.1)
    return np.stack([1 - foreground, foreground], axis=1).astype(np.float32)


HEADS = [KMeansHead(k=2), CcHead(), NcutHead(), GnnFitHead(steps=60, dropout=0.0)]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_parts_of_the_foreground_are_found(head: FittedHead) -> None:
    regions = scene()
    foreground = surely(regions >= 2)
    division = Parts(head, None)(features_of(planted(regions), GRID), foreground)
    assert division.labels == ("background", "part 1", "part 2")
    assert (division.part_count, division.background_count, division.background_columns) == (2, 0, (0,))
    np.testing.assert_array_equal(division.parts[regions.ravel() == 3], 0)
    np.testing.assert_array_equal(division.parts[regions.ravel() == 2], 1)
    np.testing.assert_array_equal(division.foreground, foreground)
    np.testing.assert_array_equal(division.assignment[:, 0], foreground[:, 0])
    np.testing.assert_allclose(division.assignment[:, 1:].sum(axis=1), foreground[:, 1])


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_scene_divides_the_background_too(head: FittedHead) -> None:
    regions = scene()
    division = Parts(head, head)(features_of(planted(regions), GRID), surely(regions >= 2))
    assert division.labels == ("background", "part 1", "part 2", "background 1", "background 2")
    assert division.background_columns == (0, 3, 4)
    columns = division.assignment.argmax(axis=1).reshape(GRID)
    np.testing.assert_array_equal(columns, np.array([3, 4, 2, 1])[regions])
    np.testing.assert_allclose(division.assignment.sum(axis=1), 1, atol=1e-6)
    assert not division.assignment[:, 0].any()


def test_every_pixel_of_a_scene_is_in_the_column_of_its_mask() -> None:
    regions = scene()
    division = Parts(KMeansHead(), KMeansHead())(features_of(planted(regions), GRID), surely(regions >= 2))
    mask = np.zeros((80, 100), bool)
    mask[25:66, 28:83] = True  # not the patches' own border
    label_map = division.label_map(mask, Canvas((80, 100), (0, 0), (80, 100), GRID))
    np.testing.assert_array_equal(np.isin(label_map, (1, 2)), mask)
    np.testing.assert_array_equal(np.isin(label_map, (3, 4)), ~mask)
    assert label_map.dtype == np.int32 and set(np.unique(label_map)) == {1, 2, 3, 4}


def test_clusters_are_numbered_in_reading_order_and_others_join_the_nearest() -> None:
    regions = scene()
    regions[0] = 3  # as the smaller part, but not chosen
    chosen = np.isin(regions, (2, 3)) & (np.arange(8)[:, None] > 0)
    labels, count = cluster_patches(KMeansHead(k=2), planted(regions), chosen.ravel())
    assert count == 2 and labels.dtype == np.int32
    grid = labels.reshape(GRID)
    assert (grid[regions == 3] == 0).all() and (grid[regions == 2] == 1).all()


class Given(FittedHead):
    """Clusters that are known."""

    name = "given"

    def __init__(self, *clusters: int) -> None:
        self.clusters = clusters

    @property
    def columns(self) -> int:
        return max(self.clusters) + 1

    def cluster(self, features: np.ndarray) -> np.ndarray:
        return np.eye(self.columns, dtype=np.float32)[list(self.clusters)]


def test_what_a_head_calls_its_clusters_does_not_matter() -> None:
    rows = planted(scene())[:6]
    labels, count = cluster_patches(Given(2, 1, 1, 2, 0, 0), rows, np.ones(6, bool))
    np.testing.assert_array_equal(labels, [0, 1, 1, 0, 2, 2])
    assert count == 3


def test_a_long_row_does_not_count_for_more_than_a_short_one() -> None:
    rows = np.array([[100, 0], [0, 1], [0, 1], [1, 0.5], [0.2, 1]], np.float32)
    labels, _ = cluster_patches(Given(0, 0, 0, 1), rows, np.arange(5) < 4)
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 0])


@pytest.mark.parametrize("head", [KMeansHead(k=5), CcHead(), NcutHead(), GnnFitHead()], ids=str)
@pytest.mark.parametrize("chosen", [0, 1, 2, 3])
def test_few_patches_can_be_clustered(head: FittedHead, chosen: int) -> None:
    mask = np.arange(80) < chosen
    labels, count = cluster_patches(head, planted(scene()), mask)
    assert labels.shape == (80,) and 1 <= count <= max(1, chosen)
    assert labels.min() >= 0 and labels.max() < count


def test_a_foreground_of_nothing_has_one_empty_part() -> None:
    division = Parts(KMeansHead(k=3), None)(features_of(planted(scene()), GRID), surely(np.zeros(80, bool)))
    assert (division.part_count, division.assignment.shape) == (1, (80, 2))
    nothing = np.zeros((16, 20), bool)
    assert not division.label_map(nothing, Canvas((16, 20), (0, 0), (16, 20), GRID)).any()


def test_features_that_are_not_finite_are_told() -> None:
    rows = planted(scene())
    rows[33] = np.nan
    with pytest.raises(EngineError, match=r"\[head\] cannot use the features"):
        Parts(KMeansHead(), None)(features_of(rows, GRID), surely(scene() >= 2))


def check_divided(result: Result, whole: Result) -> None:
    """All that must hold between a divided result and that of the foreground alone."""
    np.testing.assert_array_equal(result.foreground, whole.foreground)
    columns = [label in result.background_columns for label in result.region_labels]
    assert columns == sorted(columns), "regions of the background come last"
    for in_background in (False, True):
        assert np.all(np.diff(result.scores[np.array(columns, bool) == in_background]) <= 0)
    for i, mask in enumerate(result.masks):
        assert mask.sum() == result.areas[i]
        assert np.all(result.label_map[mask] == result.region_labels[i])
        assert np.all(result.foreground[mask] != columns[i])
        if not columns[i]:
            owner = np.unique(whole.region_ids[mask])
            assert len(owner) == 1 and result.scores[i] == whole.scores[owner[0] - 1]
    assert result.assignment.shape[1] == len(result.labels)
    np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-5)
    if not len(whole):
        assert result.best_box is None


@pytest.mark.parametrize("head", ["gnn", *FITTED])
@pytest.mark.parametrize("refine", ["none", "guided"])
def test_every_head_takes_every_mode(toy_bundle: Path, photo: np.ndarray, head: str, refine: str) -> None:
    frame = np.ascontiguousarray(photo[::2, ::2])
    # one column of foreground: the GNN's two labels touch, and a divided object is one of both
    options: dict[str, Any] = {"head": head, "refine": refine}
    whole = _merged(patchcut.load(toy_bundle, **options), frame)
    for parts in FITTED:
        divided = patchcut.load(toy_bundle, mode="parts", parts=parts, **options)(frame)
        check_divided(divided, whole)
        assert divided.background_columns == (0,)
        everything = patchcut.load(toy_bundle, mode="scene", parts=parts, **options)(frame)
        check_divided(everything, whole)
        assert not (everything.label_map == 0).any()
    assert len(whole)


def _merged(segmenter: patchcut.Segmenter, frame: np.ndarray) -> Result:
    """The result with all columns of the foreground as one."""
    head = segmenter.head

    class Merged:
        name, needs, devices = head.name, head.needs, head.devices
        labels = ("background", "foreground")

        def __call__(self, features: Features) -> np.ndarray:
            assignment = np.asarray(head(features))
            merged = np.stack([assignment[..., 0], assignment[..., 1:].max(axis=-1)], axis=-1)
            return merged / merged.sum(axis=-1, keepdims=True)

    segmenter.head = Merged()
    return segmenter(frame)


def test_patches_are_on_the_side_of_their_largest_column() -> None:
    head_gave = np.array([[0.4, 0.3, 0.3], [0.3, 0.1, 0.6], [0.2, 0.4, 0.4]], np.float32)
    rows = np.repeat(head_gave, [40, 20, 20], axis=0)
    division = Parts(KMeansHead(k=2), KMeansHead(k=2))(features_of(planted(scene()), GRID), rows)
    inside = rows.argmax(axis=1) > 0
    np.testing.assert_array_equal(division.foreground.argmax(axis=1) > 0, inside)
    columns = division.assignment.argmax(axis=1)
    np.testing.assert_array_equal(~np.isin(columns, division.background_columns), inside)
    np.testing.assert_allclose(division.assignment.sum(axis=1), 1, atol=1e-6)


@pytest.fixture
def parts_bundle(tmp_path: Path) -> Path:
    """A toy bundle with a trained head for three parts."""
    tensors = toy.head_tensors(seed=3)
    random = np.random.default_rng(0)
    tensors["mlp.1.weight"] = 2 * random.standard_normal((4, len(PARTS))).astype(np.float32)
    tensors["mlp.1.bias"] = np.zeros(len(PARTS), np.float32)
    files = {**toy.members(), "parts.safetensors": save(tensors)}
    spec = toy.manifest(files)
    parts = {"name": "parts", "role": "parts", "labels": list(PARTS)}
    spec["heads"].append({**spec["heads"][0], **parts, "files": {"weights": "parts.safetensors"}})
    return toy.write(tmp_path / "parts.patchcut", files, spec)


def test_trained_parts_keep_their_names(
    parts_bundle: Path, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    segmenter = patchcut.load(parts_bundle, mode="parts")
    assert segmenter.describe().parts == "parts"
    for frame in (photo, second_photo, np.ascontiguousarray(second_photo[::3, ::2])):
        result = segmenter(frame)
        assert result.labels == ("background", *PARTS)
        assert segmenter.parts is not None
        expected = np.asarray(segmenter.parts.head(segmenter.extractor.run(1)))[0]
        assert expected.std(axis=0).max() > 0.05
        inside = result.assignment[:, 0] < 0.5
        np.testing.assert_array_equal(
            result.assignment[inside, 1:].argmax(axis=1), expected[inside].argmax(axis=1)
        )


def test_the_background_of_a_scene_is_not_cut_by_trained_parts(parts_bundle: Path, photo: np.ndarray) -> None:
    result = patchcut.load(parts_bundle, mode="scene")(photo)
    assert result.labels == ("background", *PARTS, *(f"background {i}" for i in range(1, 5)))


def test_parts_may_be_fitted_where_there_are_trained_ones(parts_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(parts_bundle, mode="parts", parts=KMeansHead(k=2))
    assert segmenter(photo).labels == ("background", "part 1", "part 2")
    assert segmenter.describe().parts == KMeansHead(k=2)


def test_fitted_parts_divide_the_background_of_a_scene_as_well(parts_bundle: Path, photo: np.ndarray) -> None:
    result = patchcut.load(parts_bundle, mode="scene", parts=KMeansHead(k=2))(photo)
    assert result.labels == ("background", "part 1", "part 2", "background 1", "background 2")


def test_parts_need_a_mode(toy_bundle: Path) -> None:
    with pytest.raises(OptionError, match=r'\[parts\] needs the mode "parts" or "scene", got "foreground"'):
        patchcut.load(toy_bundle, parts="kmeans")


def test_a_division_of_two_columns_is_small() -> None:
    division = Parts(NcutHead(), NcutHead())(features_of(planted(scene()), GRID), surely(scene() >= 2))
    assert isinstance(division, DividedPatches) and division.assignment.dtype == np.float32
