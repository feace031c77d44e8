"""Towers in ONNX against open_clip in torch, dense outputs against their papers, tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut.bundle import open_bundle
from patchcut.errors import BundleError, OptionError
from patchcut.frames import Frame
from patchcut.settings import Settings
from patchcut.stages import Extractor
from tests.doctests import find_examples, run_example

FAMILIES = ("vit", "resnet", "siglip")
TEXTS = ("a photo of a dog.", "fire extinguisher", "Don't &amp; it's 12 über-Größe", "a red, red mug")


def _cosines(a: Any, b: Any) -> np.ndarray:
    a, b = (np.asarray(one, np.float64) for one in (a, b))
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def _run(bundle: Path, image: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every feature set of a frame, and the image as the backbone saw it."""
    with open_bundle(bundle) as opened:
        names = tuple(opened.spec.backbone.features)
        extractor = Extractor.open(opened, Settings(device="cpu", threads=1), needs=names)
        made = {name: np.array(array) for name, array in extractor([Frame(image)]).sets.items()}
    return made, np.array(extractor.engine.images(1))


@pytest.mark.parametrize("shape", FAMILIES)
def test_towers_are_open_clips(
    shape: str, small_clips: Callable[[str], Path], random_clip: Callable[..., Any]
) -> None:
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from patchcut_export.retrieval.models import build_model
    from patchcut_export.retrieval.texts import TextEncoder

    config, state = random_clip(shape)
    model: Any = build_model(config, state, 64)
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    made, seen = _run(small_clips(shape), image)
    with torch.inference_mode():
        expected = model.encode_image(torch.from_numpy(seen)).numpy()
    assert _cosines(made["embedding"][0], expected).min() > 0.9999
    length, clean = (64, "canonicalize") if shape == "siglip" else (77, "lower")
    tokens = SimpleTokenizer(context_length=length, clean=clean)(list(TEXTS))
    with torch.inference_mode():
        expected = model.encode_text(tokens).numpy()
    with open_bundle(small_clips(shape)) as bundle:
        got = TextEncoder.open(bundle, threads=1).encode(TEXTS)
    assert _cosines(got, expected).min() > 0.9999
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    assert (got @ got.T).min() < 0.9999, "the texts must differ for the test to say anything"


def test_value_path_of_a_vit(small_clips: Callable[[str], Path], random_clip: Callable[..., Any]) -> None:
    """MaskCLIP: a last block in which every patch attends to itself alone, as an attention mask has it."""
    import torch
    from patchcut_export.retrieval.models import build_model

    config, state = random_clip("vit")
    visual: Any = build_model(config, state, 64).visual
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    made, seen = _run(small_clips("vit"), image)
    with torch.inference_mode():
        x = visual._embeds(torch.from_numpy(seen))
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        alone = torch.full((x.shape[1],) * 2, -torch.inf).fill_diagonal_(0)
        x = visual.transformer.resblocks[-1](x, attn_mask=alone)
        expected = (visual.ln_post(x) @ visual.proj)[:, 1:]
    assert made["maskclip"].shape == (1, 16, 32)
    assert _cosines(made["maskclip"], expected.numpy()).min() > 0.9999


def test_neighbour_attention_of_a_vit(
    small_clips: Callable[[str], Path], random_clip: Callable[..., Any]
) -> None:
    """NACLIP, patch by patch and head by head in float64."""
    import torch
    from patchcut_export.retrieval.models import build_model

    config, state = random_clip("vit")
    visual: Any = build_model(config, state, 64).visual
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), np.uint8)
    made, seen = _run(small_clips("vit"), image)
    last = visual.transformer.resblocks[-1]
    with torch.inference_mode():
        x = visual._embeds(torch.from_numpy(seen))
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        x = last.ln_1(x)[0].double().numpy()
    weight, bias = (one.double().numpy() for one in (last.attn.in_proj_weight, last.attn.in_proj_bias))
    _, keys, values = np.split(x @ weight.T + bias, 3, axis=1)
    mixed, places = np.zeros((16, 64)), [(i // 4, i % 4) for i in range(16)]
    for head in range(4):
        k, v = (one[:, 16 * head : 16 * head + 16] for one in (keys, values))
        for i in range(16):
            logits = k @ k[i + 1] / 4
            for j, place in enumerate(places):
                logits[j + 1] += np.exp(-np.sum(np.subtract(place, places[i]) ** 2) / 50)
            share = np.exp(logits - logits.max())
            mixed[i, 16 * head : 16 * head + 16] = share @ v / share.sum()
    with torch.inference_mode():
        out = last.attn.out_proj(torch.from_numpy(mixed).float())
        expected = visual.ln_post(out) @ visual.proj
    assert _cosines(made["naclip"][0], expected.numpy()).min() > 0.9999


def test_value_path_of_a_resnet_is_its_pooling_of_one_place(
    small_clips: Callable[[str], Path], random_clip: Callable[..., Any]
) -> None:
    import torch
    from patchcut_export.retrieval.models import build_model

    config, state = random_clip("resnet")
    visual: Any = build_model(config, state, 64).visual
    image = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    made, seen = _run(small_clips("resnet"), image)
    with torch.inference_mode():
        grid = visual.forward_intermediates(torch.from_numpy(seen), indices=1)["image_intermediates"][-1]
        pool = visual.attnpool
        pool.positional_embedding.zero_()
        # of an image that is everywhere as this place, attention gives this place's value
        places = [pool(grid[..., i : i + 1, j : j + 1].expand_as(grid)) for i in range(2) for j in range(2)]
    assert _cosines(made["maskclip"][0], torch.cat(places).numpy()).min() > 0.9999


def test_positions_follow_the_size(random_clip: Callable[..., Any]) -> None:
    import torch
    from patchcut_export.retrieval.models import build_model

    for shape in FAMILIES:
        config, state = random_clip(shape)
        with torch.inference_mode():
            assert build_model(config, state, 96).encode_image(torch.zeros(1, 3, 96, 96)).isfinite().all()


def test_what_cannot_be_said_or_read(small_clips: Callable[[str], Path]) -> None:
    from patchcut_export.retrieval.texts import TextEncoder

    with open_bundle(small_clips("vit")) as bundle:
        encoder = TextEncoder.open(bundle, threads=1)
    with pytest.raises(OptionError, match=r"has 102 tokens, at most 77 can be read; write less"):
        encoder.encode(["dog " * 100])
    for empty in ("", "  "):
        with pytest.raises(OptionError, match="says nothing"):
            encoder.encode_names([empty])
    with pytest.raises(OptionError, match=r"each must have one \{\}"):
        encoder.encode_names(["dog"], ["a photo"])
    with open_bundle("default") as bundle, pytest.raises(BundleError, match="has no text tower; make one"):
        TextEncoder.open(bundle)


def test_names_are_means_over_templates(small_clips: Callable[[str], Path]) -> None:
    from patchcut.heads.naming import unit
    from patchcut_export.retrieval.prompts import IMAGENET, find_templates
    from patchcut_export.retrieval.texts import TextEncoder

    assert len(set(IMAGENET)) == 80 and all(one.count("{}") == 1 for one in IMAGENET)
    with open_bundle(small_clips("vit")) as bundle:
        encoder = TextEncoder.open(bundle, threads=1)
    got = encoder.encode_names(["dog", "mug"], ["{}", "a {}"])
    each = encoder.encode(["dog", "a dog", "mug", "a mug"])
    assert np.allclose(got, unit(np.stack([each[:2].sum(0), each[2:].sum(0)])), atol=1e-5)
    with pytest.raises(OptionError, match="prompts"):
        find_templates("many")


def test_tokens_are_open_clips(open_clip: Any, small_clips: Callable[[str], Path]) -> None:
    from open_clip.tokenizer import SimpleTokenizer
    from patchcut_export.retrieval.tokenizer import Tokenizer

    own = SimpleTokenizer()
    with open_bundle(small_clips("vit")) as bundle:
        tokenizer = Tokenizer.open(bundle)
    rng = np.random.default_rng(0)
    alphabets = [
        range(32, 127),
        range(0xC0, 0x250),
        range(0x400, 0x460),
        range(0x4E00, 0x4E80),
        range(0x1F600, 0x1F640),
    ]
    letters = [chr(one) for alphabet in alphabets for one in alphabet]
    texts = [*TEXTS, "I'LL've", "a_b-c!!!", "½ Ⅷ x²", "naïve\ttabs\nand  more", "&lt;b&gt;"]
    texts += ["a " + "".join(rng.choice(letters, int(rng.integers(1, 15)))) for _ in range(300)]
    assert np.array_equal(tokenizer(texts), own(texts).numpy())


def test_a_tokenizer_of_its_own(open_clip: Any, tmp_path: Path) -> None:
    """One as the hub has them, such as SigLIP's: its end and its filling are in its own files."""
    import tokenizers
    from patchcut_export.errors import ExportError
    from patchcut_export.retrieval.models import ModelConfig
    from patchcut_export.retrieval.origins import Access, get_tokenizer
    from patchcut_export.retrieval.tokenizer import Tokenizer

    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1, "dog": 2}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    fields = {"text_cfg": {"hf_tokenizer_name": "some/one", "tokenizer_kwargs": {"clean": "canonicalize"}}}
    config, access = ModelConfig("mine", fields), Access(False, tmp_path, lambda line: None)
    with pytest.raises(ExportError, match="does not say with which token texts are filled up"):
        get_tokenizer(config, tmp_path, access)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "</s>"}')
    text = get_tokenizer(config, tmp_path / "tokenizer.json", access)
    with pytest.raises(ExportError, match=r"not on this machine: the tokenizer of mine: some/one"):
        get_tokenizer(config, None, access)
    from patchcut.bundle import TextSpec

    names = {"backbone": "b", "features": ("f",), "file": "t", "weights": "w", "tokenizer": "k"}
    spec = TextSpec(**names, context_length=5, clean=text.clean, pad=text.pad, dim=1, scale=1.0)
    assert Tokenizer(spec, text.data)(["Dog, cat!"]).tolist() == [[2, 0, 1, 1, 1]]


def test_examples_run(open_clip: Any, tmp_path: Path) -> None:
    from patchcut_export.retrieval.index import ClipIdentity, IndexedImage, open_index, write_index

    rows = np.eye(3, dtype=np.float32)
    images = [IndexedImage(f"/photos/{i}.png", 1, 1, f"{i:064x}") for i in range(3)]
    (tmp_path / "index").mkdir()
    write_index(tmp_path / "index", ClipIdentity("0" * 64, "toy", "/toy"), ["/photos"], images, rows, 0.97)
    examples = find_examples("patchcut_export.retrieval")
    assert len(examples) >= 4
    for example in examples:
        run_example(example, {"np": np, "folder": tmp_path, "open_index": open_index})
