"""`patchcut export clip`, `index` and `search` as their users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from patchcut.bundle import open_bundle
from tests.export.retrieval.conftest import SHAPES
from tests.export.retrieval.scenes import NAMES, write_scenes

Patchcut = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def test_a_word_finds_its_images(run_cli: Patchcut, scene_clip: Path, tmp_path: Path, capfd: Capture) -> None:
    """Trained on made scenes, exported, indexed, searched: the nine names against images never seen."""
    truth = write_scenes(tmp_path / "archive", seed=9, each=5)
    out = tmp_path / "index"
    assert (
        run_cli("export", "index", tmp_path / "archive", "--clip", scene_clip, "--out", out, "--alike", 1)
        == 0
    )
    assert f"{len(truth)} images in {out}: {len(truth)} looked at, 0 dropped" in capfd.readouterr().out
    right = 0
    for name in NAMES:
        assert run_cli("export", "search", out, name, "-k", 5, "--repeats") == 0
        said = capfd.readouterr().out
        right += sum(one == name for file, one in truth.items() if file in said)
    assert right >= 0.9 * len(truth)
    assert cv2.imread(str(out / "search.png")).shape == (150, 1280, 3)


def test_files_that_have_gone_are_said(
    run_cli: Patchcut, small_clips: Callable[[str], Path], photos: Path, tmp_path: Path, capfd: Capture
) -> None:
    out, sheet = tmp_path / "index", tmp_path / "found.jpg"
    assert run_cli("export", "index", photos, "--clip", small_clips("vit"), "--out", out) == 0
    (photos / "part0" / "0.png").unlink()
    assert run_cli("export", "search", out, "a dog", "--sheet", sheet, "--repeats") == 0
    assert "1 of these 6 have gone: run `patchcut export index` again" in capfd.readouterr().out
    assert sheet.is_file()
    assert run_cli("export", "search", out, "a dog", "--clip", small_clips("resnet")) == 1
    assert "was made with another CLIP (vit)" in capfd.readouterr().err
    assert run_cli("export", "search", out, "dog " * 100) == 2
    assert "has 107 tokens, at most 77 can be read" in capfd.readouterr().err


def test_a_local_model_becomes_a_bundle(
    run_cli: Patchcut, random_clip: Callable[..., Any], tmp_path: Path, capfd: Capture
) -> None:
    import torch

    _, state = random_clip("vit")
    torch.save({"state_dict": {f"module.{name}": one for name, one in state.items()}}, tmp_path / "w.pth")
    (tmp_path / "mine.json").write_text(json.dumps({"model_cfg": SHAPES["vit"]}))
    told = ["--licence", "MIT", "--size", "64,96", "--dense", "naclip"]
    given = ["--model", tmp_path / "mine.json", "--weights", tmp_path / "w.pth"]
    assert run_cli("export", "clip", *given, "--out", tmp_path / "m.patchcut", *told) == 0
    with open_bundle(tmp_path / "m.patchcut") as bundle:
        bundle.verify()
        backbone = bundle.spec.backbone
        assert [graph.grid_hw for graph in backbone.graphs] == [(4, 4), (6, 6)]
        assert list(backbone.features) == ["naclip", "embedding"] and backbone.licence == "MIT"
        assert bundle.spec.text is not None and bundle.spec.text.dim == 32


def test_nothing_is_fetched_unasked(
    run_cli: Patchcut, open_clip: Any, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*args: object, **options: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    model = ["--model", "RN50", "--weights", "openai", "--out", tmp_path / "x.patchcut", "--cache", tmp_path]
    assert run_cli("export", "clip", *model) == 1
    said = capfd.readouterr().err
    assert "not on this machine: RN50 openai: timm/resnet50_clip.openai on the Hugging Face hub," in said
    assert "MB, licence: MIT; add --download" in said and said.count("\n") == 1
    assert run_cli("export", "clip", *model, "--download") == 1
    assert "the hub cannot be reached, and nothing is cached" in capfd.readouterr().err
    assert not (tmp_path / "x.patchcut").exists()


def test_wrong_models_and_weights(
    run_cli: Patchcut, random_clip: Callable[..., Any], tmp_path: Path, capfd: Capture
) -> None:
    from safetensors.torch import save_file

    def fails(*options: object) -> str:
        assert run_cli("export", "clip", *options, "--out", tmp_path / "x.patchcut") in (1, 2)
        said = capfd.readouterr().err.removeprefix("exporting vit at 64x64\n")
        assert said.count("\n") == 1 and not (tmp_path / "x.patchcut").exists()
        return said

    assert "must be given" in fails()
    assert "open_clip has no model 'ViT-B-61'; near it: ViT-B-16" in fails(
        "--model", "ViT-B-61", "--weights", "openai"
    )
    assert "open_clip has no such weights of RN50; it has: openai" in fails(
        "--model", "RN50", "--weights", "best"
    )
    config = tmp_path / "vit.json"
    config.write_text(json.dumps(SHAPES["vit"]))
    _, state = random_clip("resnet")
    save_file(state, tmp_path / "w.safetensors")
    given = "--model", config, "--weights", tmp_path / "w.safetensors"
    assert "these are no weights of vit: " in fails(*given)
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    assert "is cut short" in fails(*given)
    assert "there is no file" in fails("--model", config, "--weights", tmp_path / "no.pth")
    config.write_text("[]")
    assert "is no config of open_clip" in fails(*given)
