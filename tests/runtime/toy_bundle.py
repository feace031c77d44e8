"""A small real bundle: a patch embedding in ONNX whose weights lie in safetensors, and a random GNN head."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import patchcut_kernels as kernels
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

PATCH = 14
DIM = 8
SIZES = (112, 168)
LABELS = ("background", "first", "second")
INT8_SCALE = 0.01
TEMPERATURE = 0.3
HEAD_SEED = 247  # gives every label on both photos

Members = dict[str, bytes]


def embedding() -> np.ndarray:
    """[DIM, 3, PATCH, PATCH] int8, the weights of the int8 graph; times INT8_SCALE those of the fp32 one."""
    rng = np.random.default_rng(1)
    small = rng.integers(-100, 101, (DIM, 3, 2, 2)).astype(np.int8)
    return small.repeat(PATCH // 2, axis=2).repeat(PATCH // 2, axis=3)


def head_tensors(seed: int = HEAD_SEED) -> dict[str, np.ndarray]:
    """A graph layer with a root, one without, and two linear layers."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "shift": 0.1 * normal(DIM),
        "scale": 1 + 0.1 * normal(DIM),
        "gcn.0.theta": normal(DIM, 6),
        "gcn.0.root": 4 * normal(DIM, 6),
        "gcn.0.bias": normal(6),
        "gcn.1.theta": normal(6, 5),
        "gcn.1.bias": normal(5),
        "mlp.0.weight": normal(5, 4),
        "mlp.0.bias": normal(4),
        "mlp.1.weight": normal(4, len(LABELS)),
        "mlp.1.bias": normal(len(LABELS)),
    }


def members(*, tokens: bool = False) -> Members:
    """Every member but bundle.json; with `tokens` the graphs have a second and a third feature set."""
    weights = save({"embed.int8": embedding(), "embed.fp32": embedding().astype(np.float32) * INT8_SCALE})
    graphs = {
        f"backbone-{s}-{p}.onnx": graph(s, p, weights, tokens=tokens) for s in SIZES for p in ("int8", "fp32")
    }
    return {
        "backbone.safetensors": weights,
        **graphs,
        "head.safetensors": save(head_tensors()),
        "card.md": b"# Toy\n",
    }


def manifest(files: Members, *, tokens: bool = False) -> dict[str, Any]:
    """bundle.json for these members."""
    key = {"facet": "key", "layer": 0, "weight": 1.0}
    features = {"key": {"output": "features", "dim": DIM, "components": [key]}}
    if tokens:
        features["token"] = {
            "output": "tokens",
            "dim": 2 * DIM,
            "components": [{**key, "facet": "token"}],
        }
        features["cls"] = {"output": "whole", "dim": DIM, "components": [{**key, "facet": "cls"}]}
    return {
        "schema_version": 3,
        "name": "toy",
        "description": "A patch embedding and a random head.",
        "backbones": {"toy": {"model": "toy", **_backbone(), "features": features}},
        "heads": [
            {
                "name": "gnn",
                "role": "objects",
                "backbone": "toy",
                "features": ["key"],
                "affinity": {"kind": "cosine", "mode": "ncut", "threshold": 0.0, "alpha": 3.0},
                **_head(),
                "files": {"weights": "head.safetensors"},
            }
        ],
        "regions": {"min_area_patches": 0.5},
        "card": "card.md",
        "files": _files(files),
    }


def old_manifest(files: Members, version: int) -> dict[str, Any]:
    """bundle.json for the same members as schema 1 or 2 had it."""
    spec = {
        "schema_version": version,
        "name": "toy",
        "description": "A patch embedding and a random head.",
        "backbone": {"name": "toy", **_backbone(), "facet": "key", "layer": 0, "feature_dim": DIM},
        "affinity": {"kind": "cosine", "mode": "ncut", "threshold": 0.0, "alpha": 3.0},
        "head": {**_head(), "file": "head.safetensors"},
        "regions": {"min_area_patches": 0.5},
        "report": [],
        "card": "card.md",
        "files": _files(files),
    }
    if version == 2:
        spec["backbone"] |= {"parts": [], "stride": None, "scales": [1.0], "join": "mean", "log_bins": 0}
        spec["parts"] = None
        spec["regions"]["calibration"] = None
    return spec


def _backbone() -> dict[str, Any]:
    """What all schemas say of the backbone in the same words."""
    return {
        "source": "tests",
        "source_sha256": "0" * 64,
        "licence": "Apache-2.0",
        "trained_on": "nothing",
        "patch_size": PATCH,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "fit": "stretch",
        "weights": "backbone.safetensors",
        "graphs": [
            {
                "file": f"backbone-{size}-{precision}.onnx",
                "size_hw": [size, size],
                "grid_hw": [size // PATCH, size // PATCH],
                "precision": precision,
                "initializers": [f"embed.{precision}"],
            }
            for size in SIZES
            for precision in ("int8", "fp32")
        ],
    }


def _head() -> dict[str, Any]:
    """What all schemas say of the head in the same words."""
    return {
        "kind": "gnn",
        "labels": list(LABELS),
        "normalize": True,
        "temperature": TEMPERATURE,
        "trained_on": "nothing",
        "method": "random",
    }


def _files(files: Members) -> dict[str, Any]:
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }


def write(path: Path, files: Members | None = None, spec: dict[str, Any] | None = None) -> Path:
    """A bundle at `path`; with `files` alone, its manifest fits them."""
    files = members() if files is None else files
    spec = manifest(files) if spec is None else spec
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("bundle.json", json.dumps(spec))
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def graph(size: int, precision: str, weights: bytes, *, tokens: bool = False) -> bytes:
    """image [b, 3, size, size] to features [b, n, DIM]: a strided convolution, its weights kept outside.

    The output `tokens` [b, n, 2 * DIM] is the features, and what of them is positive; `whole` [b, 1, DIM] is
    their mean.
    """
    patches = (size // PATCH) ** 2
    kernel = "kernel" if precision == "int8" else "embed.fp32"
    dequantize = helper.make_node("DequantizeLinear", ["embed.int8", "int8_scale"], ["kernel"])
    nodes = [
        *([dequantize] if precision == "int8" else []),
        helper.make_node(
            "Conv", ["image", kernel], ["patches"], strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH]
        ),
        helper.make_node("Reshape", ["patches", "columns"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["features"], perm=[0, 2, 1]),
    ]
    outputs = {"features": (patches, DIM)}
    if tokens:
        nodes.append(helper.make_node("Relu", ["features"], ["positive"]))
        nodes.append(helper.make_node("Concat", ["features", "positive"], ["tokens"], axis=2))
        nodes.append(helper.make_node("ReduceMean", ["features"], ["whole"], axes=[1]))
        outputs |= {"tokens": (patches, 2 * DIM), "whole": (1, DIM)}
    constants = {"int8_scale": np.float32(INT8_SCALE), "columns": np.array([0, DIM, patches], np.int64)}
    if precision != "int8":
        del constants["int8_scale"]
    inner = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, size, size])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["b", *shape]) for o, shape in outputs.items()],
        [*inner, external(f"embed.{precision}", weights)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def external(name: str, weights: bytes) -> TensorProto:
    """An initializer that says where in backbone.safetensors its bytes are."""
    header_bytes = int.from_bytes(weights[:8], "little")
    entry = json.loads(weights[8 : 8 + header_bytes])[name]
    begin, end = entry["data_offsets"]
    onnx_type = {"I8": TensorProto.INT8, "F32": TensorProto.FLOAT}[entry["dtype"]]
    tensor = TensorProto(name=name, data_type=onnx_type, dims=entry["shape"])
    tensor.data_location = TensorProto.EXTERNAL
    where = {"location": "backbone.safetensors", "offset": 8 + header_bytes + begin, "length": end - begin}
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def check_plain_onnx(folder: Path, name: str) -> None:
    """Raises unless the unpacked graph is valid ONNX on its own."""
    onnx.checker.check_model(str(folder / name))


def reference_features(image: np.ndarray, precision: str) -> np.ndarray:
    """[n, d] features of a [3, S, S] image, by patches and one matrix product."""
    h, w = (side // PATCH for side in image.shape[1:])
    patches = image.reshape(3, h, PATCH, w, PATCH).transpose(1, 3, 0, 2, 4).reshape(h * w, -1)
    assert precision in ("int8", "fp32")  # both hold the same numbers
    return patches @ (embedding().astype(np.float64) * INT8_SCALE).reshape(DIM, -1).T


def toy_weights() -> kernels.GcnWeights:
    t = head_tensors()
    return kernels.GcnWeights(
        normalize=True,
        shift=t["shift"],
        scale=t["scale"],
        layers=(
            kernels.GcnLayer(t["gcn.0.theta"], t["gcn.0.root"], t["gcn.0.bias"]),
            kernels.GcnLayer(t["gcn.1.theta"], None, t["gcn.1.bias"]),
        ),
        mlp=tuple(kernels.LinearLayer(t[f"mlp.{i}.weight"], t[f"mlp.{i}.bias"]) for i in range(2)),
        temperature=TEMPERATURE,
    )
