"""The metrics against oracles, and `patchcut export eval` as its users run it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import EMBEDDED, CalibrationSpec, open_bundle
from patchcut.settings import Settings
from patchcut_export.bundles.rewriting import rewrite_bundle, with_head
from patchcut_export.measuring.datasets import LAYOUTS, Choices, Dataset, Example, open_dataset
from patchcut_export.measuring.evaluation import METRICS, Score, evaluate, score, summarize
from patchcut_export.measuring.measure import EvalRequest, state_protocol
from patchcut_export.measuring.metrics import f_beta, precision_recall
from patchcut_export.measuring.score_grid import write_grid
from patchcut_export.measuring.semantic import SEMANTIC_METRICS
from patchcut_export.measuring.videos import VIDEO_METRICS

Patchcut = Callable[..., int]
NOT_OF_PARTS = ("CorLoc", "objects kept", "empty scenes", *VIDEO_METRICS, *SEMANTIC_METRICS)


def found(label_map: Any, labels: int = 2) -> Any:
    """What `score` reads of a result without boxes."""
    label_map = np.asarray(label_map, np.int32)
    soft = (label_map > 0).astype(np.float32)
    return SimpleNamespace(
        label_map=label_map, foreground=label_map > 0, soft_mask=soft, labels=("",) * labels
    )


def test_means_are_over_what_is_known() -> None:
    scores = [Score("a", iou=0.5, accuracy=0.75), Score("b", iou=1.0, accuracy=0.25)]
    assert summarize(scores).metrics == {"mean foreground IoU": 0.75, "pixel accuracy": 0.5}
    hits = summarize([Score(str(i), hit=i < 3) for i in range(4)])
    assert (hits.images, hits.metrics) == (4, {"CorLoc": 0.75})


@pytest.fixture
def masks_root(tmp_path: Path, paint: Callable[[int], Any]) -> Path:
    root = tmp_path / "painted"
    for seed in range(8):
        for folder, picture in zip(("images", "masks"), paint(seed), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{seed}.png"), picture)
    return root


@pytest.fixture
def bundle(headed_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(headed_bundle, tmp_path / "tiny.patchcut"))


def boxes_for(root: Path, bundle: Path, kinds: list[str]) -> None:
    """boxes.json in which images are hits, near misses, or have a hit among other boxes."""
    segmenter = patchcut.load(bundle)
    entries = {}
    for name, kind in zip(sorted(path.name for path in (root / "images").iterdir()), kinds, strict=False):
        x1, y1, x2, y2 = map(float, segmenter(cv2.imread(str(root / "images" / name))).boxes[0])
        box = [x1 + 1, y1 + 1, x2, y2]
        far = [x1 + 1 + 0.6 * (x2 - x1), y1 + 1, x2 + 0.6 * (x2 - x1), y2]
        boxes = {"hit": [box], "miss": [far], "both": [far, box]}[kind]
        entries[name] = {"file": f"images/{name}", "objects": [{"bbox": b} for b in boxes]}
    (root / "boxes.json").write_text(json.dumps(entries))


def test_corloc_counts_images_whose_best_box_hits(masks_root: Path, bundle: Path) -> None:
    kinds = ["hit", "miss", "both", "hit", "miss"]
    boxes_for(masks_root, bundle, kinds)
    examples = open_dataset("boxes", masks_root).examples
    scores = list(evaluate(patchcut.load(bundle), examples, lambda done, total: None))
    assert [one.hit for one in scores] == [kind != "miss" for kind in kinds]
    assert [one.box_iou for one in scores] == [
        1 if k != "miss" else pytest.approx(0.25, abs=0.01) for k in kinds
    ]
    assert summarize(scores).metrics == {"CorLoc": 0.6}


def test_only_the_best_box_counts() -> None:
    near, far = [0, 0, 10, 10], [50, 50, 60, 60]
    example = Example("x", Path("x.png"), boxes_xyxy=np.array([near], np.float32))
    for boxes, hit in (([near, far], True), ([far, near], False), ([], False)):
        best = np.array(boxes[0], np.float32) if boxes else None
        result: Any = SimpleNamespace(best_box=best)
        assert score(result, example).hit is hit
    half: Any = SimpleNamespace(best_box=np.array([0, 0, 10, 5], np.float32))
    assert score(half, example).hit is True, "an IoU of 0.5 is a hit"


def test_what_is_not_known_does_not_count(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "m.png"), np.array([[0, 3, 3, 255], [0, 0, 3, 255]], np.uint8))
    example = Example("x", tmp_path, tmp_path / "m.png", "index")
    soft = np.array([[0, 1, 0, 1], [1, 0, 1, 0]], np.float32)
    measured = score(found(soft > 0), example)
    assert (measured.iou, measured.accuracy) == (2 / 4, 4 / 6)
    assert measured.f_max == pytest.approx(1.09 * (2 / 3) * (2 / 3) / (1.09 * (2 / 3)))
    assert measured.parts is None, "two columns tell no parts"
    assert cv2.imwrite(str(tmp_path / "m.png"), np.full((2, 4), 255, np.uint8))
    assert score(found(soft > 0), example).iou == 1


def test_parts_are_columns_against_classes(tmp_path: Path) -> None:
    cluster = pytest.importorskip("sklearn.metrics.cluster", reason="needs scikit-learn")
    random = np.random.default_rng(2)
    scores, columns, classes = [], [], []
    for i in range(3):
        truth = random.choice(np.array([0, 1, 7, 255], np.uint8), (12, 15))
        found_map = np.where(random.random((12, 15)) < 0.7, truth % 5, random.integers(0, 4, (12, 15)))
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), truth)
        scores.append(score(found(found_map, 4), Example("x", tmp_path, tmp_path / f"{i}.png", "index")))
        inside = (truth > 0) & (truth < 255)
        columns += found_map[inside].tolist()
        classes += truth[inside].tolist()
    metrics = summarize(scores).metrics
    assert metrics["NMI"] == pytest.approx(cluster.normalized_mutual_info_score(classes, columns))
    assert metrics["ARI"] == pytest.approx(cluster.adjusted_rand_score(classes, columns))
    assert 0.1 < metrics["ARI"] < 0.9


def test_keypoints_are_columns_at_their_pixels() -> None:
    label_map = np.arange(12).reshape(3, 4) % 5
    keypoints = np.array([[1, 0, 4], [0, 2, 4], [9, 9, 2]], np.int32)  # the last outside: the nearest pixel's
    parts = score(found(label_map, 5), Example("x", Path(), keypoints=keypoints)).parts
    assert parts is not None
    assert [(c, part, parts[c, part]) for c, part in np.argwhere(parts)] == [(1, 2, 1), (1, 4, 1), (3, 4, 1)]


def test_refined_masks_are_cut_softly(masks_root: Path, bundle: Path) -> None:
    curves = {}
    for refine in ("none", "guided"):
        segmenter = patchcut.load(bundle, refine=refine)
        dataset = open_dataset("masks", masks_root)
        scores = list(evaluate(segmenter, dataset.examples, lambda done, total: None))
        curves[refine] = np.array([one.f_curve for one in scores])
        assert np.ptp(curves[refine], axis=1).min() > 0.1
        assert state_protocol(dataset, segmenter)["refinement"] == refine
    assert np.abs(curves["none"] - curves["guided"]).max() > 0.01


def test_masks_are_measured(
    run_cli: Patchcut, masks_root: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, grid = tmp_path / "scores.jsonl", tmp_path / "grid.png"
    options = ["--root", masks_root, "--bundle", bundle, "--out", out, "--grid", grid, "--json"]
    before = bundle.read_bytes()
    assert run_cli("export", "eval", "masks", *options) == 0
    report = json.loads(capfd.readouterr().out)
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in scores] == [str(i) for i in range(8)]
    segmenter, curves = patchcut.load(bundle), []
    for row in scores:
        frame, mask = (cv2.imread(str(masks_root / d / f"{row['name']}.png")) for d in ("images", "masks"))
        result, truth = segmenter(frame), mask[..., 0] > 127
        assert row["iou"] == pytest.approx(
            (result.foreground & truth).sum() / (result.foreground | truth).sum()
        )
        assert row["accuracy"] == pytest.approx((result.foreground == truth).mean())
        precision, recall = precision_recall(result.soft_mask, truth)
        curves.append(f_beta(precision, recall, 0.3))
        assert row["f_max"] == pytest.approx(f_beta(precision, recall, 0.09).max())
        assert row["hit"] is row["box_iou"] is row["sequence"] is None
    assert report["metrics"]["max F-beta"] == pytest.approx(np.mean(curves, axis=0).max())
    assert report["metrics"]["max F-beta (SelfMask)"] == pytest.approx(
        np.mean([row["f_max"] for row in scores])
    )
    assert report["images"] == 8
    assert report["metrics"]["mean foreground IoU"] == pytest.approx(np.mean([row["iou"] for row in scores]))
    assert report["dataset"] == "painted"
    assert report["protocol"] == {
        "head": "gnn, feed-forward, trained beforehand",
        "input": "96x96, stretched",
        "refinement": "none",
        "foreground": "all regions",
        "truth": "masks, foreground above half of their range",
        **{title: METRICS[title] for title in report["metrics"]},
    }
    picture = cv2.imread(str(grid))
    assert picture.shape == (2 * 224, 6 * 224, 3)
    assert (picture[224:, 2 * 224 :] == 255).all(), "only eight tiles are drawn"
    assert np.ptp(picture[:224]) > 100
    assert bundle.read_bytes() == before


def test_record_replaces_rows_of_the_same_kind(
    run_cli: Patchcut, masks_root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boxes_for(masks_root, bundle, ["hit", "miss"])

    def measure(layout: str, *options: object) -> None:
        fixed = ("--root", masks_root, "--bundle", bundle, "--record")
        assert run_cli("export", "eval", layout, *fixed, *options) == 0

    def rows() -> dict[tuple[str, int, str], tuple[float, int]]:
        with open_bundle(bundle) as opened:
            opened.verify()
            report = opened.spec.heads[0].report
        assert all(METRICS[row.metric] in row.protocol and "feed-forward" in row.protocol for row in report)
        found = {(row.metric, row.size, row.precision): (row.value, row.images) for row in report}
        assert len(found) == len(report)
        return found

    measure("masks")
    masks = ("mean foreground IoU", "pixel accuracy", "max F-beta", "max F-beta (SelfMask)")
    assert {(metric, 96, "int8") for metric in masks} == set(rows())
    measure("masks", "--size", 64, "--precision", "fp32")
    measure("boxes")
    before = rows()
    assert len(before) == 9
    assert before["CorLoc", 96, "int8"] == (0.5, 2)
    for folder in ("images", "masks"):
        (masks_root / folder / "7.png").unlink()
    measure("masks")
    after = rows()
    assert after.keys() == before.keys()
    assert after["mean foreground IoU", 96, "int8"][1] == 7
    assert after["mean foreground IoU", 64, "fp32"] == before["mean foreground IoU", 64, "fp32"]
    assert "mean foreground IoU" in capfd.readouterr().out


def test_recording_must_name_the_bundle_it_changes(
    run_cli: Patchcut, masks_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = EMBEDDED.stat()
    assert run_cli("export", "eval", "masks", "--root", masks_root, "--record") == 2
    assert "[record] must say which bundle it changes, got none; add --bundle FILE" in capfd.readouterr().err
    assert EMBEDDED.stat() == before


def bad_size(root: Path) -> None:
    assert cv2.imwrite(str(root / "masks" / "3.png"), np.zeros((9, 9), np.uint8))


def bad_image(root: Path) -> None:
    (root / "images" / "3.png").write_bytes(b"no picture")


def no_mask(root: Path) -> None:
    (root / "masks" / "3.png").unlink()


@pytest.mark.parametrize(
    ("arguments", "spoil", "status", "expected"),
    [
        (["voc"], None, 1, "no layout 'voc'"),
        (["boxes"], None, 1, "boxes.json"),
        (["masks"], no_mask, 1, "no mask for 1 of 8 images: 3"),
        (["voc07"], None, 1, "painted is not VOC2007: looked for JPEGImages, Annotations"),
        (["masks", "--split", "val"], None, 2, "[split] must be left out for masks"),
        (["masks", "--no-difficult"], None, 2, "[difficult] must be left out for masks"),
        (["masks", "--list", "x.txt"], None, 2, "[list] must be left out for masks"),
        (["masks", "--head", "magic"], None, 2, "[head]"),
        (["masks"], bad_size, 1, "3.png is 9x9, its image 96x72"),
        (["masks"], bad_image, 1, "3.png"),
        (["masks", "--size", 65], None, 2, "[size]"),
        (["masks", "--precision", "int4"], None, 2, "[precision]"),
        (["masks", "--threads", 0], None, 2, "[threads]"),
        (["masks", "--refine", "magic"], None, 2, "[refine]"),
        (["masks", "--grid", "grid.txt"], None, 1, "name a .jpg or .png file"),
        (["masks", "--grid", "no/grid.png"], None, 1, "no is not a folder; make it first"),
        (["masks", "--out", "painted"], None, 1, "painted is a folder; name a file"),
    ],
)
def test_a_mistake_is_one_line(
    refusal: Callable[..., str],
    masks_root: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    spoil: Callable[[Path], None] | None,
    status: int,
    expected: str,
) -> None:
    monkeypatch.chdir(masks_root.parent)
    if spoil:
        spoil(masks_root)
    before = bundle.read_bytes()
    places = ("--root", masks_root, "--bundle", bundle, "--record")
    assert expected in refusal(status, *arguments, *places)
    assert bundle.read_bytes() == before


def test_a_bundle_without_a_head_cannot_be_measured(
    run_cli: Patchcut, masks_root: Path, backbone_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("export", "eval", "masks", "--root", masks_root, "--bundle", backbone_bundle) == 1
    assert "holds a backbone and no head" in capfd.readouterr().err


def test_parts_are_measured(
    run_cli: Patchcut, tmp_path: Path, parts_bundle: Path, paint: Callable[[int], Any], capfd: Any
) -> None:
    for seed in range(3):
        image, mask = paint(seed)
        mask[:, :48][mask[:, :48] > 0] = 2
        mask[mask == 255] = 1
        mask[:5] = 255
        for folder, picture in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"{seed}.png"), picture)
    assert run_cli("export", "eval", "classes", "--root", tmp_path, "--bundle", parts_bundle, "--json") == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    assert set(metrics) == {title for title in METRICS if title not in NOT_OF_PARTS}
    assert 0 <= metrics["NMI"] <= 1


def test_a_part_of_a_published_set_is_called_so(
    run_cli: Patchcut, masks_root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (masks_root / "masks").rename(masks_root / "ground_truth_mask")
    assert run_cli("export", "eval", "ecssd", "--root", masks_root, "--bundle", bundle) == 0
    said = capfd.readouterr().out
    assert said.startswith("ECSSD: 8 images, tiny (")
    assert "8 of the 1000 that were published" in said
    assert "gnn, feed-forward" in said


def test_heads_that_are_fitted_are_called_so(bundle: Path) -> None:
    segmenter = patchcut.load(bundle, head="ncut:rule=seed", mode="parts", parts="cc:alpha=5")
    protocol = state_protocol(Dataset("x", [], "masks"), segmenter)
    assert protocol["head"] == "ncut:rule=seed, fitted to each image by itself"
    assert protocol["mode"] == "parts, by cc:alpha=5.0"


def test_another_head_is_measured_and_recorded_beside_the_own(
    run_cli: Patchcut, masks_root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = masks_root.rename(masks_root.with_name("my masks"))
    fixed = ("export", "eval", "masks", "--root", root, "--bundle", bundle, "--record")
    assert run_cli(*fixed) == 0
    for options in (("--head", "kmeans:k=3,seed=5"), ("--mode", "parts", "--parts", "kmeans:k=4")):
        assert run_cli(*fixed, *options) == 0
        assert run_cli(*fixed, *options) == 0, "again: rows are replaced"
    with open_bundle(bundle) as opened:
        report = opened.spec.heads[0].report + opened.spec.backbone.report
        rows = [row for row in report if row.metric == "mean foreground IoU"]
    assert [row.head for row in rows] == [
        "",
        "kmeans:k=3,seed=5",
        "gnn, parts by kmeans:k=4",
    ]
    own = "patchcut export eval masks --root 'my masks' --precision int8 --size 96"
    assert rows[0].command == own
    assert rows[1].command == f"{own} --head kmeans:k=3,seed=5"
    assert rows[2].command == f"{own} --mode parts --parts kmeans:k=4"
    assert rows[0].value == rows[2].value, "parts divide the foreground and do not change it"
    assert run_cli("info", bundle) == 0
    assert "kmeans:k=3,seed=5" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--head", "gnn:k=3"), "[head] "),
        (("--head", "cc:k=3"), '[head] "cc" has no setting "k", it has alpha'),
        (("--head", "gnn-fit:loss=mse"), '[head] "gnn-fit": loss must be one of'),
        (("--mode", "all"), "[mode] must be one of"),
        (("--parts", "cc"), "[parts] needs the mode"),
        (("--mode", "parts", "--parts", "kmeans:k=0"), '[parts] "kmeans": k must be a whole number from 2'),
        (("--mode", "parts", "--parts", "cc:k=3"), '[parts] "cc" has no setting "k"'),
        (("--nothing-below", 2), "[nothing_below] must be a number from 0 to 1"),
    ],
)
def test_a_wrong_setting_is_one_line(
    run_cli: Patchcut, masks_root: Path, bundle: Path, capfd: Any, options: tuple[object, ...], said: str
) -> None:
    assert run_cli("export", "eval", "masks", "--root", masks_root, "--bundle", bundle, *options) == 2
    assert said in capfd.readouterr().err


def test_the_recorded_command_has_all_that_was_chosen() -> None:
    request = EvalRequest(
        layout="voc07",
        root=Path("some where/VOC"),
        settings=Settings(bundle="mine.patchcut", head="cc:alpha=5", refine="guided", single=True, threads=2),
        scores=Path("out.jsonl"),
        empty_scenes=True,
        protocol="stream",
        match="names",
        choices=Choices(
            split="val",
            names=Path("lists/some.txt"),
            difficult=False,
            sequences=("bear", "my dog"),
            every=4,
            background=True,
            resolution="full",
        ),
    )
    ran: Any = SimpleNamespace(size_hw=(224, 224), precision="fp32", nothing_below=0.25)
    words = shlex.split(request.command(ran))
    assert words[:6] == ["patchcut", "export", "eval", "voc07", "--root", "VOC"]
    assert " ".join(words[6:]) == (
        "--precision fp32 --size 224 --head cc:alpha=5 --refine guided --nothing-below 0.25 --single "
        "--threads 2 --empty-scenes --split val --list some.txt --sequences bear,my dog --every 4 "
        "--no-difficult --background --resolution full --protocol stream --match names"
    )


def calibrate(bundle: Path, nothing_below: float) -> None:
    fields = {"weights": (1.0, 0.0, 0.0, 0.0), "bias": 0.0, "nothing_below": nothing_below}
    with open_bundle(bundle) as opened:
        calibration = CalibrationSpec.model_validate(fields)
        head = opened.spec.heads[0].model_copy(update={"calibration": calibration})
        rewrite_bundle(opened, bundle, with_head(opened.spec, head))


@pytest.mark.parametrize(("limit", "kept", "empty"), [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_empty_scenes_are_answered_by_the_bundles_limit(
    run_cli: Patchcut,
    masks_root: Path,
    bundle: Path,
    capfd: pytest.CaptureFixture[str],
    limit: float,
    kept: float,
    empty: float,
) -> None:
    calibrate(bundle, limit)
    options = ("--root", masks_root, "--bundle", bundle, "--json")
    assert run_cli("export", "eval", "masks", *options) == 0
    plain = json.loads(capfd.readouterr().out)["metrics"]
    assert run_cli("export", "eval", "masks", *options, "--empty-scenes") == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    assert metrics == plain | {"objects kept": kept, "empty scenes": empty}


@pytest.mark.parametrize("thin", [False, True])
def test_an_empty_scene_holds_no_foreground(masks_root: Path, bundle: Path, thin: bool) -> None:
    example = open_dataset("masks", masks_root).examples[0]
    mask = cv2.imread(str(example.mask), 0)
    if thin:
        mask[:] = 0
        mask[:, mask.shape[1] // 2] = 255
        assert cv2.imwrite(str(example.mask), mask)
    assert cv2.imwrite(str(example.image), mask)  # the picture is its mask
    seen = []

    class Watching:
        run = patchcut.load(bundle)
        masks = run.masks

        def __call__(self, image: np.ndarray) -> Any:
            seen.append(image)
            return self.run(image)

    watching: Any = Watching()
    (one,) = evaluate(watching, [example], lambda done, total: None, empty_scenes=True)
    assert one.kept is not None and one.empty is not None
    whole, crop = seen
    assert whole.any() and crop.size > 0.05 * whole.size and not crop.any()


def test_the_truth_is_drawn_into_the_grid(masks_root: Path, bundle: Path, tmp_path: Path) -> None:
    segmenter = patchcut.load(bundle)
    box = np.array([[10, 20, 50, 60]], np.float32)
    example = open_dataset("masks", masks_root).examples[0]
    bare = Example(example.name, example.image)
    pictures = []
    for one in (bare, example, Example(example.name, example.image, boxes_xyxy=box)):
        write_grid(tmp_path / "grid.png", segmenter, [one], [Score("x", iou=0.5)])
        pictures.append(cv2.imread(str(tmp_path / "grid.png")).astype(int))
    for picture in pictures[1:]:
        changed = (picture != pictures[0]).any(axis=2)
        assert 0.001 < changed.mean() < 0.1
        assert (picture[changed] > 230).all(axis=1).any(), "the line is white"


def test_the_best_images_come_first_in_the_grid(masks_root: Path, bundle: Path, tmp_path: Path) -> None:
    segmenter, examples = patchcut.load(bundle), open_dataset("masks", masks_root).examples[:2]
    worse, better = Score("worse", iou=0.1), Score("better", iou=0.9)
    write_grid(tmp_path / "both.png", segmenter, examples, [worse, better])
    write_grid(tmp_path / "one.png", segmenter, examples[1:], [better])
    both, one = (cv2.imread(str(tmp_path / name)) for name in ("both.png", "one.png"))
    np.testing.assert_array_equal(both[:224, :224], one[:224, :224])


def test_every_layout_is_in_the_help(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("export", "eval", "--help") == 0
    words = capfd.readouterr().out.replace(",", " ").replace(":", " ").replace(".", " ").split()
    assert set(LAYOUTS) <= set(words)
