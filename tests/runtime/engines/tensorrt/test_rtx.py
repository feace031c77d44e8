"""TensorRT for RTX itself, which builds without a GPU, by the command that builds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from patchcut import open_bundle

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.tensorrt.fakes import no_driver

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs patchcut[tensorrt-rtx]")


def typed_graph(precision: str, weights: bytes, size: int) -> bytes:
    """The toy's fp32 graph, its convolution in another type, or on 8-bit images and weights."""
    model = onnx.load_from_string(toy.graph(size, "fp32", weights))
    kept = [node for node in model.graph.node if node.op_type != "Conv"]
    if precision == "int8-qdq":
        scales = [numpy_helper.from_array(np.float32(value), f"s{i}") for i, value in enumerate((0.05, 0.01))]
        zero = numpy_helper.from_array(np.int8(0), "zero")
        kernel = numpy_helper.from_array(toy.embedding(), "kernel8")
        model.graph.initializer.extend([*scales, zero, kernel])
        first = [
            helper.make_node("QuantizeLinear", ["image", "s0", "zero"], ["image8"]),
            helper.make_node("DequantizeLinear", ["image8", "s0", "zero"], ["x"]),
            helper.make_node("DequantizeLinear", ["kernel8", "s1", "zero"], ["w"]),
        ]
        last = "patches"
    else:
        kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
        first = [
            helper.make_node("Cast", [source], [name], to=kind)
            for source, name in (("image", "x"), ("embed.fp32", "w"))
        ]
        last = "typed"
    sides = [toy.PATCH, toy.PATCH]
    nodes = [*first, helper.make_node("Conv", ["x", "w"], [last], strides=sides, kernel_shape=sides)]
    if last == "typed":
        nodes.append(helper.make_node("Cast", ["typed"], ["patches"], to=TensorProto.FLOAT))
    fresh = [type(node).FromString(node.SerializeToString()) for node in [*nodes, *kept]]
    del model.graph.node[:]
    model.graph.node.extend(fresh)
    if precision == "int8-qdq":
        left = [t for t in model.graph.initializer if t.name != "embed.fp32"]
        held = [type(t).FromString(t.SerializeToString()) for t in left]
        del model.graph.initializer[:]
        model.graph.initializer.extend(held)
    if precision == "bf16":
        model.opset_import[0].version = 22  # the first whose Conv takes it
        model.ir_version = 10
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture(scope="module")
def typed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every precision that TensorRT takes, at one size."""
    files = toy.members()
    spec = toy.manifest(files)
    backbone = spec["backbones"]["toy"]
    graphs = [one for one in backbone["graphs"] if one["file"] == "backbone-112-fp32.onnx"]
    for precision in ("fp16", "bf16", "int8-qdq"):
        name = f"backbone-112-{precision}.onnx"
        files[name] = typed_graph(precision, files["backbone.safetensors"], 112)
        held = [] if precision == "int8-qdq" else ["embed.fp32"]
        graphs.append({**graphs[0], "file": name, "precision": precision, "initializers": held})
    wanted = {"backbone.safetensors", "head.safetensors", "card.md", *(one["file"] for one in graphs)}
    files = {name: data for name, data in files.items() if name in wanted}
    backbone["graphs"] = graphs
    spec["files"] = toy.manifest(files)["files"]
    return toy.write(tmp_path_factory.mktemp("typed") / "typed.patchcut", files, spec)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "patchcut", "export", "engine", *map(str, words)]


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8-qdq"])
def test_real_engines_of_every_precision_are_built_without_a_gpu(
    run_cli: Callable[..., int],
    typed_bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    choice = ["--precision", precision, "--capability", "8.9", "--cache", tmp_path]
    assert run_cli("export", "engine", typed_bundle, *choice) == 0
    said = capfd.readouterr().err
    assert f"builds backbone-112-{precision}.onnx with tensorrt-rtx" in said
    assert "for any GPU of compute capability 8.9" in said and "nothing was run" in said
    (path,) = tmp_path.glob("*.engine")
    header = json.loads(path.read_bytes().split(b"\n")[1])
    assert header["key"]["capability"] == "8.9" and header["key"]["driver"] == ""
    assert path.stat().st_size > 2000
    assert run_cli("export", "engine", typed_bundle, *choice) == 0
    assert f"{path} is there already" in capfd.readouterr().err


@rtx
def test_the_graph_is_parsed_as_a_strongly_typed_network(embedded_bundle: Path) -> None:
    from patchcut.bundle.graph_outputs import keep_outputs
    from patchcut.bundle.graph_weights import inline_weights
    from patchcut.engines.tensorrt.package import import_package

    package = import_package("tensorrt-rtx")
    with open_bundle(embedded_bundle) as bundle:
        backbone = bundle.spec.backbone
        graph = next(one for one in backbone.graphs if one.precision == "fp32")
        data, _ = keep_outputs(bundle.read(graph.file), [backbone.default_features.output])
        assert backbone.weights is not None
        whole = inline_weights(data, bundle.read_tensors(backbone.weights))
    made = package.module.Builder(package.logger)
    network = made.create_network(1 << int(package.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = package.module.OnnxParser(network, package.logger)
    assert parser.parse(whole), package.last_error("")
    assert tuple(network.get_input(0).shape) == (-1, 3, *graph.size_hw)
    assert network.num_outputs == 1


@rtx
def test_of_two_processes_one_builds_and_one_waits(toy_bundle: Path, tmp_path: Path) -> None:
    words = command(
        toy_bundle, "--size", 112, "--precision", "fp32", "--capability", "8.6", "--cache", tmp_path
    )
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("builds backbone-112-fp32.onnx" in text for text in said) == 1
    assert len(list(tmp_path.glob("*.engine"))) == 1


@rtx
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--capability", "9.0"], 1, "[device] tensorrt-rtx"),
        (["--capability", "sm_89"], 2, "[capability] must be numbers such as 8.6,8.9, got 'sm_89'"),
        (["--features", "semantic"], 2, "[features] must be among those of the bundle (key), got 'semantic'"),
        (["--size", "224"], 2, "[size] must be one of the bundle's sizes (112, 168), got 224"),
        (["--max-batch", "0"], 2, "[max_batch] must be a whole number from 1 to 256, got 0"),
        ([], 1, "[device] TensorRT runs on an NVIDIA GPU, and this machine has no NVIDIA driver"),
    ],
)
def test_bad_words_of_the_command(
    run_cli: Callable[..., int],
    toy_bundle: Path,
    cache: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    said: str,
) -> None:
    no_driver(monkeypatch)
    assert run_cli("export", "engine", toy_bundle, *words) == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not list(cache.glob("*.engine"))


def test_the_command_needs_no_torch(toy_bundle: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['timm'] = sys.modules['onnx'] = None\n"
    code += "from patchcut.__main__ import main; main()"
    words = ["export", "engine", str(toy_bundle), "--cache", str(tmp_path), "--capability", "9.9"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "[device] tensorrt-rtx" in done.stderr or "[engine] tensorrt_rtx cannot" in done.stderr
