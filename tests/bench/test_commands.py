from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patchcut import Settings
from patchcut.bundle import EMBEDDED

from bench.cases import GROUPS, BenchError, Options, open_group
from bench.machine import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_list_names_every_group_case_and_target() -> None:
    done = run("list")
    assert done.returncode == 0, done.stderr
    for name in GROUPS:
        group = open_group(name)
        assert f"{name}: {group.TITLE}" in done.stdout
        for told in (*group.CASES, *map(str, group.TARGETS)):
            assert told in done.stdout


def test_targets_name_cases_of_their_group() -> None:
    for name in GROUPS:
        group = open_group(name)
        assert {target.case for target in group.TARGETS} <= set(group.CASES)
        assert group.REPEATS >= 1


@pytest.mark.parametrize("group", ["quality", "agreement", "stability"])
def test_what_needs_data_says_so(tmp_path: Path, group: str) -> None:
    done = run("run", group, "--data", str(tmp_path))
    assert done.returncode == 1
    assert f"skipped {group}: {group} needs --data" in done.stderr
    assert "ecssd-dev" in done.stderr


def test_quality_is_held_against_its_targets() -> None:
    targets = {(t.case, t.metric): t.value for t in open_group("quality").TARGETS}
    assert targets["ecssd-dev 224", "mean foreground IoU"] == 0.70
    assert targets["voc2007-dev 224", "CorLoc"] == 0.65
    assert targets["ecssd-dev 224", "objects kept"] == 0.95
    assert targets["ecssd-dev 224", "empty scenes"] == 0.80
    assert {value for (_, metric), value in targets.items() if metric == "lost_to_fp32"} == {0.01}


def test_an_unknown_group_is_wrong_usage() -> None:
    assert run("run", "everything").returncode == 2


def test_commands_name_no_folder(tmp_path: Path) -> None:
    settings = Settings(device="cpu", threads=2)
    assert Options(settings).command("frame") == "python -m bench run frame --threads 2 --record"
    mine = replace(settings, bundle=tmp_path / "my.patchcut")
    words = Options(mine, 7, tmp_path, tmp_path / "fp32.patchcut").command("quality")
    assert "--bundle my.patchcut --threads 2 --repeats 7 --data DATA --fp32-bundle fp32.patchcut" in words
    assert str(tmp_path) not in words
    assert "--threads 2 --data DATA --record" in Options(settings, data=tmp_path).command("agreement")


def test_ncut_of_a_perfect_a_wrong_and_no_partition() -> None:
    from bench.cases.head import partition_quality

    features = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    halves = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    mixed = np.tile(np.eye(2, dtype=np.float32), (3, 1))
    assert partition_quality(halves, features) == {"ncut": 0}
    assert partition_quality(mixed, features)["ncut"] > 0.5
    assert partition_quality(np.ones((6, 2), np.float32), features) == {}


def test_clusterings_have_an_objective_and_a_number() -> None:
    from patchcut.heads import CcHead

    from bench.cases.head import clustering_quality

    features = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    halves = np.repeat(np.eye(3, dtype=np.float32)[:2], 3, axis=0)
    head = CcHead(alpha=2.0)  # cosines of 1 and 0 less 1/2
    assert clustering_quality(halves, features, head) == {"objective": 3, "clusters": 2}
    assert clustering_quality(np.ones((6, 2), np.float32), features, head) == {
        "objective": -1.5,
        "clusters": 1,
    }


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs patchcut[test]")
    from bench.cases.found_k import rank_correlation

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 50).astype(np.float64), rng.integers(0, 9, 50)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_agreement_is_of_all_images_together() -> None:
    pytest.importorskip("torch", reason="the metrics are in patchcut_export")
    from patchcut.stages import Canvas

    from bench.cases.parts import _agreement, _Image

    rng = np.random.default_rng(0)
    classes = np.repeat(np.repeat(np.array([[0, 1], [2, 2]], np.uint8), 8, axis=0), 8, axis=1)
    features = rng.random((4, 3), np.float32)
    columns = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    canvas = Canvas((16, 16), (0, 0), (16, 16), (2, 2))
    image = _Image(canvas, features, columns, np.ones(4, bool), classes, classes > 0)
    same = _agreement([image, image], [columns, columns])
    other = _agreement([image, image], [columns, np.roll(columns, 1, axis=1)])
    assert same["NMI"] > 0.8, "columns meet classes except at the borders between patches"
    assert other["NMI"] < same["NMI"] - 0.2, "a column that means something else on another image is no use"


def test_parts_without_data_say_what_they_need(tmp_path: Path) -> None:
    from bench.cases import parts

    for data in (None, tmp_path):
        with pytest.raises(BenchError, match=r"needs --data .* voc2007-dev with masks"):
            next(parts.run(Options(Settings(), data=data)))


def test_folded_weights_are_what_onnx_computes() -> None:
    onnx = pytest.importorskip("onnx", reason="the competitor's graph is made with onnx")
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    from bench.competitors.plain_onnxruntime import fold_weights

    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-127, 128, (4, 5)).astype(np.int8),
        "scale": rng.random(5).astype(np.float32),
        "zero": rng.integers(-3, 4, 5).astype(np.int8),
    }
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["floats"], axis=1),
            helper.make_node("MatMul", ["x", "floats"], ["y"]),
        ],
        "toy",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 5])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    folded = fold_weights(model)
    assert [node.op_type for node in folded.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in folded.graph.initializer] == ["floats"]
    x = {"x": rng.standard_normal((3, 4)).astype(np.float32)}
    (want,), (got,) = (ReferenceEvaluator(m).run(None, x) for m in (model, folded))
    assert np.ptp(want) > 1
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_the_competitors_compute_what_the_engine_does() -> None:
    pytest.importorskip("onnx", reason="needs patchcut[test]")
    from patchcut.bundle import open_bundle
    from patchcut.stages import Extractor

    from bench.competitors.plain_onnxruntime import open_float, open_same

    with open_bundle() as bundle:
        ours = {p: Extractor.open(bundle, Settings(size=224, precision=p)) for p in ("fp32", "int8")}
    image = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
    sessions = {"fp32": open_float(EMBEDDED, 224, 1), "int8": open_same(EMBEDDED, 224, "int8", 1)}
    theirs = {p: session.run(None, {"image": image[None]})[0][0] for p, session in sessions.items()}
    error = {}
    for precision, extractor in ours.items():
        extractor.engine.images(1)[:] = image  # type: ignore[index]
        features = np.asarray(extractor.run(1).default)[0]
        error[precision] = {
            p: np.linalg.norm(features - theirs[p]) / np.linalg.norm(features) for p in theirs
        }
    assert error["fp32"]["fp32"] < 1e-4
    assert error["int8"]["fp32"] > 1e-3, "the bound tells float from 8-bit arithmetic"
    # Without VNNI the engine avoids products that saturate in the default options.
    assert error["int8"]["int8"] < 0.1


def test_frame_rows_say_what_each_clock_holds_and_whose_quality_it_is() -> None:
    pytest.importorskip("onnx", reason="needs patchcut[test]")
    from bench.cases.frame import FLOAT_GRAPH, SAME_GRAPH, _run_size

    ours, same, exact = _run_size(Options(Settings(threads=1), repeats=1), 224)
    assert [row.contender for row in (ours, same, exact)] == ["patchcut", SAME_GRAPH, FLOAT_GRAPH]
    assert [row.dtype for row in (ours, same, exact)] == ["int8", "int8", "fp32"]
    assert ours.inside != same.inside == exact.inside
    assert {"ratio_to_fp32", "ratio_to_same_graph", "share_besides_backbone"} <= ours.metrics.keys()
    assert all(name.endswith("(from the bundle's report)") for name in ours.quality)
    assert not same.quality and not exact.quality
    assert {row.peak_memory_mb for row in (ours, same, exact)} == {None}


def test_fresh_processes_tell_their_own_memory_and_precision() -> None:
    from bench.cases import start

    settings = Settings(engine="onnxruntime", precision="int8", threads=1)
    imported, first = start.run(Options(settings, repeats=1))
    assert (imported.case, first.case) == start.CASES
    assert (imported.dtype, first.dtype) == ("none", "int8")
    assert imported.peak_memory_mb is not None and first.peak_memory_mb is not None
    assert 5 < imported.peak_memory_mb < first.peak_memory_mb


@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("columns", [2, 8])
def test_upsampling_neighbours_find_the_same_labels(columns: int, confidence: bool) -> None:
    from bench.cases.kernels.masks import _upsample_argmax

    duel = _upsample_argmax(columns, (16, 16), (90, 120), confidence=confidence)
    assert duel.quality["label_agreement"] > 0.999
    labels, certainty = duel.neighbours[0].call()  # type: ignore[misc]
    assert 0.05 < (labels > 0).mean() < 0.95
    if confidence:
        theirs = certainty.copy()  # both may write into the same memory
        _, ours = duel.ours.call()  # type: ignore[misc]
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_propagating_neighbours_carry_the_same_values() -> None:
    pytest.importorskip("torch", reason="DINO's propagation is written in torch")
    from bench.cases.kernels.video import _propagate

    duel = _propagate(12, 2, 3, 4)
    assert max(duel.quality.values()) < 1e-5
    carried = np.asarray(duel.neighbours[0].call())
    assert carried.std() > 0.05
    np.testing.assert_allclose(carried.sum(1), 1, atol=1e-5)


def test_the_first_preprocessing_neighbour_makes_the_same_image() -> None:
    from bench.cases.kernels.images import _preprocess

    duel = _preprocess((480, 640), 224)
    assert duel.quality["max_abs_difference"] < 0.02  # a step of 8 bits
    image, aliased = (side.call() for side in duel.neighbours)
    assert np.abs(np.asarray(image) - np.asarray(aliased)).max() > 0.1


def test_deepcut_lowers_its_loss_and_needs_its_edge_weights() -> None:
    torch = pytest.importorskip("torch", reason="DeepCut is written in torch")
    pytest.importorskip("torch_geometric", reason="DeepCut is written in torch-geometric")
    from bench.competitors import deepcut

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 16))
    features = (centres[np.repeat([0, 1], 20)] + 0.1 * rng.standard_normal((40, 16))).astype(np.float32)
    assignment = deepcut.segment(features)
    assert assignment.shape == (40, 2)
    np.testing.assert_allclose(assignment.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(deepcut.segment(features), assignment)

    affinity = torch.from_numpy(deepcut.make_affinity(features))
    perfect = torch.eye(2).repeat_interleave(20, 0)
    loss = deepcut.ncut_loss(torch.from_numpy(assignment), affinity)
    assert deepcut.ncut_loss(perfect, affinity) < loss < deepcut.ncut_loss(torch.full((40, 2), 0.5), affinity)

    model = deepcut.DeepCut(16, 2).eval()
    edges = affinity.nonzero().T
    weights = affinity[edges[0], edges[1]]
    nodes = torch.from_numpy(features)
    with torch.no_grad():
        weighted, plain = model(nodes, edges, weights), model(nodes, edges, torch.ones_like(weights))
    assert (weighted - plain).abs().max() > 1e-4


def test_dense_torch_agrees_with_the_reference() -> None:
    pytest.importorskip("torch", reason="the neighbour is torch")
    from patchcut_kernels import reference

    from bench.cases.kernels.duel import noisy_clusters
    from bench.cases.kernels.nodes import head_weights
    from bench.competitors.dense_gcn import make_forward

    features, weights = noisy_clusters(50), head_weights()
    affinity = reference.affinity(features).astype(np.float32)
    want = reference.gcn_forward(features, affinity, weights)
    assert np.ptp(want) > 0.1
    degrees = affinity.sum(1)
    np.testing.assert_allclose(make_forward(weights)(features, affinity, degrees), want, atol=1e-5)


def test_one_grey_level_in_one_pixel_changes_nothing_in_floats(tmp_path: Path) -> None:
    from patchcut.cli.demo import SAMPLES

    from bench.cases import stability

    images = tmp_path / "ecssd-dev" / "images"
    images.mkdir(parents=True)
    (images / "chelsea.jpg").write_bytes((SAMPLES / "chelsea.jpg").read_bytes())
    rows = {row.case: row for row in stability.run(Options(Settings(threads=1), data=tmp_path))}
    assert set(rows) == {case for case in stability.CASES if "fp16" not in case}
    for case, row in rows.items():
        assert row.dtype == case.split(" ")[2]
        assert row.quality["features moved"] > (1e-3 if row.dtype == "int8" else 0)
        assert 0.9 < row.quality["least IoU of the foregrounds"] <= 1
        if row.dtype == "fp32":
            assert row.quality["features moved"] < 1e-3
            assert row.quality["most pixels changed"] < 1e-3


def test_a_pixel_is_made_one_grey_level_brighter_or_darker() -> None:
    from bench.cases.stability import brightened

    photo = np.full((4, 5, 3), 255, np.uint8)
    photo[1, 2] = 7
    for pixel, expected in (((1, 2), 1), ((0, 0), -1)):
        change = brightened(photo, pixel).astype(int) - photo
        assert change[pixel].tolist() == [0, expected, 0] and np.count_nonzero(change) == 1
