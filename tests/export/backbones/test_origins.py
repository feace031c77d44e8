"""Where weights come from and what is said of them, with a hub that is not there; other makers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
hub = pytest.importorskip("huggingface_hub", reason="needs patchcut[export]")

from huggingface_hub import errors
from patchcut.errors import OptionError
from patchcut_export.backbones import origins
from patchcut_export.backbones.conversions import to_timm
from patchcut_export.backbones.origins import Told, file_sha256, get_weights
from patchcut_export.backbones.table import KnownBackbone, find_backbone
from patchcut_export.backbones.weights import Provenance, load_state_dict
from patchcut_export.errors import ExportError
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("timm")
NOTHING = Told()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def row(file: Path, monkeypatch: pytest.MonkeyPatch) -> KnownBackbone:
    """DINO S/8, of which the file is said to be the published one."""
    known = replace(find_backbone("vits8"), sha256={"model.safetensors": file_sha256(file)})
    monkeypatch.setattr("patchcut_export.backbones.table._TABLE", (known, find_backbone("vits16")))
    return known


def get(row: KnownBackbone, weights: Any, told: Told = NOTHING) -> tuple[Provenance, list[str]]:
    said: list[str] = []
    state, origin = get_weights(
        row, None if weights is None else str(weights), told, cache=None, say=said.append
    )
    assert list(state) == ["norm.weight"]
    return origin, said


@pytest.mark.parametrize("weights", [None, "hub"])
def test_the_hubs_file_is_checked_and_said(
    row: KnownBackbone, file: Path, monkeypatch: pytest.MonkeyPatch, weights: str | None
) -> None:
    asked = []

    def download(repository: str, name: str, *, cache_dir: Path | None) -> str:
        asked.append((repository, name, cache_dir))
        return str(file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    origin, said = get(row, weights)
    assert asked == [("timm/vit_small_patch8_224.dino", "model.safetensors", None)]
    assert "timm/vit_small_patch8_224.dino on the Hugging Face hub" in origin.source
    assert (origin.licence, origin.trained_on) == (row.licence, row.trained_on)
    assert said[-1] == "weights: sha256 is that of dino_vits8's published model.safetensors"
    other = replace(row, sha256={"model.safetensors": "0" * 64})
    monkeypatch.setattr("patchcut_export.backbones.table._TABLE", (other,))
    with pytest.raises(ExportError, match=r"has sha256 .*, the published one is 0000.*; delete it"):
        get(other, weights)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            errors.LocalEntryNotFoundError("x"),
            "the hub cannot be reached, and nothing is cached; check the",
        ),
        (errors.OfflineModeIsEnabled("x"), "the hub cannot be reached, and nothing is cached"),
        (errors.EntryNotFoundError("x"), "it has no model.safetensors"),
        (
            OSError(28, "No space left on device"),
            "No space left on device; check the network, or pass --weights",
        ),
        (ConnectionError(), "ConnectionError"),
    ],
)
def test_a_failed_download_is_one_line(
    row: KnownBackbone, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(ExportError) as raised:
        get(row, None)
    assert str(raised.value).startswith(
        "[weights] cannot download timm/vit_small_patch8_224.dino from the hub: "
    )
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_known_by_its_sha256_or_said_to_be_unknown(row: KnownBackbone, file: Path) -> None:
    origin, said = get(row, file)
    assert origin == Provenance(
        "model.safetensors, as published for dino_vits8", file_sha256(file), row.licence, row.trained_on
    )
    save_file({"norm.weight": torch.zeros(3)}, file)
    origin, said = get(row, file)
    digest = file_sha256(file)
    assert origin == Provenance("a local file", digest, "not stated", "not stated")
    assert said == [f"weights: sha256 {digest} is none of the published ones that are known"]
    origin, _ = get(row, file, Told("my own", "MIT", "my photos"))
    assert origin == Provenance("my own", digest, "MIT", "my photos")


@pytest.mark.usefixtures("row")
def test_published_weights_of_another_backbone_are_told(file: Path) -> None:
    with pytest.raises(ExportError, match="not of dino_vits16; run `patchcut export backbone dino_vits8`"):
        get(find_backbone("vits16"), file)


def test_a_backbone_that_the_hub_does_not_have() -> None:
    lonely = replace(find_backbone("vits8"), timm="vit_small_patch8_224")
    with pytest.raises(OptionError, match="the hub has none of dino_vits8; pass --weights FILE"):
        get(lonely, None)


def test_the_published_ones_are_those_of_the_makers() -> None:
    known = {file: digest[:8] for one in origins_table() for file, digest in one.sha256.items()}
    assert known == {
        "vit_s_focus.onnx": "198644e3",
        "model.safetensors": "e1b79616",
        "dinov2_vits14_pretrain.pth": "b938bf1b",
        "dinov2_vits14_reg4_pretrain.pth": "f4331770",
    }


def origins_table() -> tuple[KnownBackbone, ...]:
    from patchcut_export.backbones.table import known_backbones

    return known_backbones()


def as_dinov2(state: dict[str, Any]) -> dict[str, Any]:
    """What DINOv2's own file with registers holds, for timm's state dict."""
    position = torch.randn(1, 1, state["cls_token"].shape[-1])
    own = {
        name: tensor for name, tensor in state.items() if name not in ("reg_token", "cls_token", "pos_embed")
    }
    return own | {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], 1),
        "mask_token": torch.zeros(1, state["cls_token"].shape[-1]),
    }


def as_openai(state: dict[str, Any]) -> dict[str, Any]:
    """What CLIP's own file holds, for timm's state dict: another spelling, and no head."""
    names = [
        ("cls_token", "class_embedding"),
        ("pos_embed", "positional_embedding"),
        ("patch_embed.proj.", "conv1."),
        ("norm_pre.", "ln_pre."),
        ("blocks.", "transformer.resblocks."),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".attn.qkv.", ".attn.in_proj_"),
        (".attn.proj.", ".attn.out_proj."),
        (".mlp.fc1.", ".mlp.c_fc."),
        (".mlp.fc2.", ".mlp.c_proj."),
    ]
    own = {}
    for name, tensor in state.items():
        new = f"ln_post.{name[5:]}" if name.startswith("norm.") else name
        for old, spelled in names:
            new = new.replace(old, spelled)
        own[f"visual.{new}"] = (
            tensor[0] if name == "pos_embed" else tensor.flatten() if name == "cls_token" else tensor
        )
    return own | {"visual.proj": torch.ones(3, 2), "positional_embedding": torch.ones(4, 4)}


def as_dinov3(state: dict[str, Any]) -> dict[str, Any]:
    """What DINOv3's own file holds: biases of zero, LayerScale in modules, its rotations."""
    own = {}
    for name, tensor in state.items():
        new = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        own[new.replace("reg_token", "storage_tokens")] = tensor
    biases = {f"blocks.0.attn.qkv.{one}": torch.zeros(9) for one in ("bias", "bias_mask")}
    return own | biases | {"rope_embed.periods": torch.ones(4), "mask_token": torch.zeros(1)}


def as_openclip(state: dict[str, Any]) -> dict[str, Any]:
    own = {f"visual.trunk.{name}": tensor for name, tensor in state.items()}
    return own | {"logit_scale": torch.ones(()), "text.token_embedding.weight": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("model", "foreign"),
    [
        ("vit_small_patch14_reg4_dinov2", as_dinov2),
        ("vit_small_patch16_dinov3", as_dinov3),
        ("vit_base_patch16_clip_quickgelu_224", as_openai),
        ("vit_base_patch16_siglip_224", as_openclip),
        ("test_vit", dict),
    ],
)
def test_other_makers_names_become_timms(
    timm: Any,
    random_state: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: str,
    foreign: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    create = timm.create_model
    small = {"depth": 2, "embed_dim": 64, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **small, **k))
    size = 56 if "patch14" in model else 64
    expected = random_state(model, size)
    torch.save(foreign(dict(expected)), tmp_path / "own.pth")
    got = load_state_dict(tmp_path / "own.pth")
    got.pop("mask_token", None)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor)


def test_biases_of_queries_and_values_are_kept_apart() -> None:
    own = {"storage_tokens": torch.ones(1), "blocks.0.attn.qkv.bias": torch.arange(6.0)}
    converted = to_timm(own)
    assert converted["blocks.0.attn.q_bias"].tolist() == [0, 1]
    assert converted["blocks.0.attn.v_bias"].tolist() == [4, 5]
    assert origins.HUB == "hub"
