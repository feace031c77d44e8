from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import patchcut
import pytest
from onnx import numpy_helper
from patchcut import BundleError, EngineError, Frame, OptionError, Settings, open_bundle
from patchcut.engines import Engine, open_engine
from patchcut.features import to_host

from tests.runtime import toy_bundle as toy

if find_spec("openvino") is None:
    pytest.skip("needs patchcut[openvino]", allow_module_level=True)
from patchcut.engines.openvino import import_openvino, model_cache, opening

openvino = import_openvino()

CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this CPU computes no bf16")
CORES = len(os.sched_getaffinity(0))
SCALE = 0.05


@pytest.fixture(scope="module")
def rounded_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, with graphs in "int8-qdq" whose image is rounded to SCALE, and what the gate said of them."""
    files = toy.members()
    graphs = []
    for size in toy.SIZES:
        name = f"backbone-{size}-int8-qdq.onnx"
        files[name] = rounded(files[f"backbone-{size}-int8.onnx"])
        side = size // toy.PATCH
        made = {"file": name, "size_hw": (size, size), "grid_hw": (side, side), "precision": "int8-qdq"}
        graphs.append({**made, "initializers": ["embed.int8"]})
    spec = toy.manifest(files)
    backbone = spec["backbones"]["toy"]
    backbone["graphs"] += graphs
    near = {"cosine_mean": 1, "cosine_worst": 1, "affinity_correlation": 1, "accepted": True}
    about = {"features": "key", "engine": "x", "images": 1, "data": "x"}
    backbone["agreement"] = [{**near, **about, "size": s, "precision": "int8-qdq"} for s in toy.SIZES]
    return toy.write(tmp_path_factory.mktemp("rounded") / "rounded.patchcut", files, spec)


def rounded(graph: bytes) -> bytes:
    """A graph whose image is first rounded to whole multiples of SCALE."""
    model = onnx.load_from_string(graph)
    scale = numpy_helper.from_array(np.float32(SCALE), "image_scale")
    zero = numpy_helper.from_array(np.int8(0), "image_zero")
    model.graph.initializer.extend([scale, zero])
    how = [scale.name, zero.name]
    steps = [
        onnx.helper.make_node("QuantizeLinear", ["image", *how], ["rounded"]),
        onnx.helper.make_node("DequantizeLinear", ["rounded", *how], ["seen"]),
    ]
    for node in model.graph.node:
        node.input[:] = ["seen" if name == "image" else name for name in node.input]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data: bytes = model.SerializeToString()
    return data


def opened(path: Path, **settings: Any) -> Engine:
    with open_bundle(path) as bundle:
        return open_engine(bundle, bundle.spec.backbone, Settings(engine="openvino", **settings))


def features(engine: Engine, images: np.ndarray) -> np.ndarray:
    np.copyto(engine.images(len(images)), images)
    return np.array(engine.run(len(images))["key"])


def images(batch: int, size: int = toy.SIZES[0]) -> np.ndarray:
    return np.random.default_rng(batch).uniform(-2, 2, (batch, 3, size, size)).astype(np.float32)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of rows [n, d]."""
    return np.sum(one * other, 1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def photo_features(photo: np.ndarray, **settings: Any) -> np.ndarray:
    extractor = patchcut.load(device="cpu", **settings).extractor
    return np.array(to_host(extractor([Frame(photo)]).default[0]))


def test_fp32_rounds_nothing_although_weights_are_in_8_bits(photo: np.ndarray) -> None:
    exact = photo_features(photo, engine="onnxruntime", precision="fp32")
    made = photo_features(photo, engine="openvino", precision="fp32")
    assert np.abs(made - exact).max() < 1e-3 * np.abs(exact).max()
    assert cosines(made, exact).min() > 0.999999


@needs_bf16
def test_bf16_is_made_of_the_fp32_graph(photo: np.ndarray) -> None:
    segmenter = patchcut.load(engine="openvino", precision="bf16", device="cpu")
    described, facts = segmenter.describe(), segmenter.extractor.engine.facts
    assert (described.engine, described.precision, facts.graph.precision) == ("openvino", "bf16", "fp32")
    made = np.array(segmenter.extractor([Frame(photo)]).default[0])
    found = cosines(made, photo_features(photo, engine="onnxruntime", precision="fp32"))
    assert 0.999 < found.min() < 0.9999999


@pytest.mark.parametrize("size", toy.SIZES)
def test_a_graph_with_given_ranges_runs_as_it_says(rounded_bundle: Path, size: int) -> None:
    engine = opened(rounded_bundle, precision="int8-qdq", size=size)
    assert (engine.facts.precision, engine.facts.weights) == ("int8-qdq", "int8")
    values = images(2, size)
    made = features(engine, values)
    for image, rows in zip(values, made, strict=True):
        expected = toy.reference_features(np.round(image / SCALE) * SCALE, "int8")
        np.testing.assert_allclose(rows, expected, rtol=0.02, atol=0.02 * expected.std())
        assert np.abs(rows - toy.reference_features(image, "int8")).max() > 1e-3


def test_auto_is_the_fastest_that_the_gate_accepts(rounded_bundle: Path, toy_bundle: Path) -> None:
    assert opened(rounded_bundle).facts.precision == "int8-qdq"
    assert opened(toy_bundle).facts.precision == "fp32"


def test_what_it_cannot_run_is_named(toy_bundle: Path) -> None:
    for precision, said in (
        ("int8", "rounded frame by frame; it runs .*fp32"),
        ("int8-qdq", "of this bundle"),
    ):
        with pytest.raises(OptionError, match=rf"\[precision\] openvino .*{said}.*; choose one of these"):
            opened(toy_bundle, precision=precision)
    with pytest.raises(OptionError, match=r"\[size\] must be one of the bundle's sizes \(112, 168\), got 7"):
        opened(toy_bundle, size=7)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", r'runs on "cpu", "gpu" and "npu", not on \'cuda\'; choose'),
        ("gpu", r"finds no GPU here, only CPU; install .*intel-opencl-icd.*, or pass device="),
        ("npu", r"finds no NPU here, only CPU; install .*linux-npu-driver.*, or pass device="),
    ],
)
def test_a_device_that_is_not_there_is_an_error(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, device: Any, said: str
) -> None:
    cpu_only = SimpleNamespace(available_devices=["CPU"])
    monkeypatch.setattr(opening, "_core", lambda _: cpu_only)
    with pytest.raises(EngineError, match=rf"\[device\] openvino {said}") as caught:
        opened(toy_bundle, device=device)
    assert "\n" not in str(caught.value)


def test_threads_are_heeded(toy_bundle: Path) -> None:
    for asked in (1, 2, 256):
        engine = opened(toy_bundle, threads=asked, precision="fp32")
        assert engine.facts.threads == min(asked, CORES)  # OpenVINO takes no more than there are
        assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == engine.facts.threads  # type: ignore[attr-defined]


@pytest.mark.skipif(CORES < 2, reason="one core runs nothing beside something")
def test_frames_beside_each_other_are_the_same_frames(toy_bundle: Path) -> None:
    in_turn = opened(toy_bundle, precision="fp32", threads=2)
    beside = opened(toy_bundle, precision="fp32", threads=2, throughput=True)
    assert beside._compiled.get_property("NUM_STREAMS") > 1  # type: ignore[attr-defined]
    for batch in (8, 1, 3):
        values = images(batch)
        made = features(beside, values)
        np.testing.assert_allclose(made, features(in_turn, values), rtol=1e-5, atol=1e-4)
        for image, rows in zip(values, made, strict=True):
            expected = toy.reference_features(image, "fp32")
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("throughput", [False, True])
def test_a_failing_run_keeps_the_cause_and_leaves_nothing_running(toy_bundle: Path, throughput: bool) -> None:
    engine: Any = opened(toy_bundle, precision="fp32", throughput=throughput)
    engine.images(2)
    waited = []

    def fail() -> None:
        raise RuntimeError("out of\nmemory")

    good = SimpleNamespace(start_async=lambda: None, wait=lambda: waited.append("good"))
    engine._requests = [good, SimpleNamespace(start_async=fail)]
    with pytest.raises(EngineError, match=r"failed to run backbone-112-fp32\.onnx: out of memory; try"):
        engine.run(2)
    assert waited == ["good"]


def test_a_graph_of_other_outputs_is_foreign(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["features"]["key"]["dim"] = toy.DIM + 1
    path = toy.write(tmp_path / "x.patchcut", files, spec)
    with pytest.raises(BundleError, match=r"foreign: backbone-112-fp32.onnx must make features \[1, 64, 9\]"):
        opened(path, precision="fp32")


def test_a_graph_without_an_output_is_foreign(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["features"]["key"]["output"] = "keys"
    path = toy.write(tmp_path / "x.patchcut", files, spec)
    with pytest.raises(BundleError, match=r"does not give its feature sets: it has no output keys"):
        opened(path, precision="fp32")


class Compilations:
    """Counts how often a model is read and compiled, and how often a kept one is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        read_model = opening._read_model

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return read_model(*arguments)

        monkeypatch.setattr(opening, "_read_model", counted)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Compilations:
    return Compilations(monkeypatch)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of OpenVINO's cache."""
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/openvino"


def test_a_compiled_graph_is_kept_and_is_the_same(
    rounded_bundle: Path, cache: Path, compilations: Compilations
) -> None:
    values = images(1)
    first = opened(rounded_bundle, precision="int8-qdq", threads=1)
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600 and cache.stat().st_mode & 0o777 == 0o700
    again = opened(rounded_bundle, precision="int8-qdq", threads=2)
    assert (compilations.count, list(cache.iterdir())) == (1, [kept])
    assert (first.facts.threads, again.facts.threads) == (1, min(2, CORES))
    assert again.facts.weights == first.facts.weights == "int8"
    np.testing.assert_array_equal(features(first, values), features(again, values))


def test_what_is_compiled_otherwise_is_kept_apart(
    rounded_bundle: Path, cache: Path, compilations: Compilations
) -> None:
    ways: list[dict[str, Any]] = [
        {"precision": "fp32"},
        {"precision": "fp32", "size": toy.SIZES[1]},
        {"precision": "int8-qdq"},
        {"precision": "int8-qdq", "throughput": True},
    ]
    for i, way in enumerate(2 * ways):
        engine = opened(rounded_bundle, **way)
        assert compilations.count == len(list(cache.iterdir())) == min(i + 1, len(ways))
        assert engine.facts.precision == way["precision"]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "a byte":
        data[-100] ^= 1
    elif how == "cut short":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif how == "another program's":
        data[:] = b"x" * len(data)
    else:  # what OpenVINO itself refuses
        data[:] = model_cache.Kept("fp32", b"no model").head + b"no model"
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["a byte", "cut short", "empty", "another program's", "no model"])
def test_a_damaged_file_is_made_again(
    toy_bundle: Path, cache: Path, compilations: Compilations, how: str
) -> None:
    opened(toy_bundle, precision="fp32")
    (kept,) = cache.iterdir()
    damage(kept, how)
    assert features(opened(toy_bundle, precision="fp32"), images(1)).std() > 1
    assert compilations.count == 2 and len(list(cache.iterdir())) == 1
    opened(toy_bundle, precision="fp32")
    assert compilations.count == 2


def test_what_others_may_write_is_not_believed(
    toy_bundle: Path, cache: Path, compilations: Compilations
) -> None:
    opened(toy_bundle, precision="fp32")
    (kept,) = cache.iterdir()
    kept.chmod(0o622)
    opened(toy_bundle, precision="fp32")
    assert compilations.count == 2 and kept.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_no_error(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "file/below"))
    assert features(opened(toy_bundle, precision="fp32"), images(1)).std() > 1
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - names


def test_the_ones_that_were_not_used_for_longest_go(cache: Path) -> None:
    kept = model_cache.Kept("fp32", b"model")
    caches = [model_cache.ModelCache({"number": i}) for i in range(model_cache.MAX_FILES + 2)]
    for i, one in enumerate(caches):
        one.write(kept)
        if i == 0:
            continue
        assert caches[0].read() == kept
        assert one.path is not None
        os.utime(one.path, (i, i))
    left = [i for i, one in enumerate(caches) if one.read() is not None]
    assert left == [0, *range(3, len(caches))]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"PATCHCUT_CACHE": "off"}, None),
        ({"PATCHCUT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/openvino"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/patchcut/openvino"),
        ({"XDG_CACHE_HOME": "b", "HOME": "/"}, "/.cache/patchcut/openvino"),
        ({"HOME": "/"}, "/.cache/patchcut/openvino"),
        ({"HOME": "/no/home"}, None),
    ],
    ids=str,
)
def test_the_folder_is_chosen_by_one_rule(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str | None
) -> None:
    from patchcut.cache_folder import cache_folder

    for name in ("PATCHCUT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("openvino") == (None if folder is None else Path(folder))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_of_a_process_that_ran_it_is_told_so_and_auto_is_another_engine(toy_bundle: Path) -> None:
    code = """
import os, sys, patchcut
if __name__ == "__main__":
    path = sys.argv[1]
    patchcut.load(path, engine="openvino", device="cpu", precision="fp32")
    if os.fork() == 0:
        try:
            patchcut.load(path, engine="openvino", device="cpu", precision="fp32")
        except patchcut.EngineError as error:
            print(error)
        print(patchcut.load(path, device="cpu").describe().engine)
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run(
        [sys.executable, "-u", "-c", code, toy_bundle],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said, auto, status = done.stdout.splitlines()
    assert said.startswith("[engine] openvino ran before the fork (in process ")
    assert said.endswith('pass engine="onnxruntime", or start processes with "spawn"')
    assert (auto, status) == ("onnxruntime", "7")
