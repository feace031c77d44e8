"""Bundles as they are written: the same bytes for the same input, whole or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, ReportRow, open_bundle
from patchcut.errors import OptionError, OutputError
from patchcut.frames import Frame
from patchcut.settings import Settings
from patchcut.stages import Extractor
from patchcut_export.backbones.spec import Component, ViTSpec
from patchcut_export.backbones.weights import Provenance
from patchcut_export.bundles import builder
from patchcut_export.bundles.archive import safetensors_bytes, safetensors_extents
from patchcut_export.bundles.builder import BackbonePlan, build_bundle, check_plan
from patchcut_export.bundles.rewriting import gnn_head, rewrite_bundle, with_head, with_report
from patchcut_export.errors import ExportError
from patchcut_export.training.gnn import GraphHead, cosine_affinity
from safetensors.numpy import load

ROW = ReportRow(
    dataset="toy", metric="CorLoc", value=0.5, size=96, precision="int8", images=2, refine="none", command="x"
)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def add_head(bundle: Bundle, path: Path, made: HeadSpec, head: GraphHead) -> None:
    weights = {made.files["weights"]: safetensors_bytes(head.tensors())}
    rewrite_bundle(bundle, path, with_head(bundle.spec, made), weights)


def test_the_same_input_gives_the_same_bytes(build: Callable[..., Path], tmp_path: Path) -> None:
    first, second = (build(tmp_path / name, sizes=(64,)) for name in ("a.patchcut", "b.patchcut"))
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()
    assert str(Path(builder.__file__).parent).encode() not in first.read_bytes()


def test_a_new_head_keeps_the_backbone_and_drops_the_report(headed_bundle: Path, tmp_path: Path) -> None:
    reported, renewed = tmp_path / "reported.patchcut", tmp_path / "renewed.patchcut"
    of_cc = ROW.model_copy(update={"head": "cc", "value": 0.25})
    with open_bundle(headed_bundle) as bundle:
        spec = with_report(with_report(bundle.spec, (ROW,), "gnn"), (of_cc,))
        named = spec.model_copy(update={"name": "reported", "description": "of a test"})
        rewrite_bundle(bundle, reported, named)
    before = members(reported)
    assert "| gnn | toy | CorLoc | 0.500 |" in before["card.md"].decode()
    with open_bundle(reported) as bundle:
        assert (bundle.spec.heads[0].report, bundle.spec.backbone.report) == ((ROW,), (of_cc,))
        assert (bundle.spec.name, bundle.spec.description) == ("reported", "of a test")
        affinity = AffinitySpec(threshold=0.3)
        made = gnn_head(bundle.spec, "objects", labels=("background", "thing"), affinity=affinity)
        add_head(bundle, renewed, made, GraphHead(64, (6,), 4, 2, dropout=0))
    after = members(renewed)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"bundle.json", "card.md", "head.safetensors"}
    with open_bundle(renewed) as bundle:
        bundle.verify()
        assert bundle.spec.heads == (made,) and made.report == ()
        assert bundle.spec.backbone.report == (of_cc,), "cc is not touched by another head"
    assert "| cc | toy | CorLoc | 0.250 |" in after["card.md"].decode()
    assert "| gnn | toy" not in after["card.md"].decode()


def test_rows_of_the_same_kind_are_replaced(headed_bundle: Path) -> None:
    with open_bundle(headed_bundle) as bundle:
        spec = bundle.spec
    newer, other = ROW.model_copy(update={"value": 0.75}), ROW.model_copy(update={"size": 64})
    for rows in ((ROW,), (other,), (newer,)):
        spec = with_report(spec, rows, "gnn")
    assert spec.heads[0].report == (other, newer) and spec.backbone.report == ()


def test_a_head_is_replaced_by_name_and_a_new_one_is_the_first_of_its_role(
    headed_bundle: Path, tmp_path: Path
) -> None:
    path, labels = tmp_path / "two.patchcut", ("background", "thing")
    with open_bundle(headed_bundle) as bundle:
        first = bundle.spec.heads[0]
        own = {"name": "other", "files": {"weights": "other.safetensors"}}
        other = gnn_head(bundle.spec, "objects", labels=labels, **own)
        add_head(bundle, path, other, GraphHead(64, (6,), 4, 2, dropout=0))
    with open_bundle(path) as bundle:
        assert bundle.spec.heads == (other, first) and bundle.spec.head() == other
        made = gnn_head(bundle.spec, "objects", labels=labels)
        add_head(bundle, path, made, GraphHead(64, (6,), 4, 2, dropout=0))
    with open_bundle(path) as bundle:
        bundle.verify()
        assert bundle.spec.heads == (other, made)


def test_a_head_of_another_name_keeps_its_weights(headed_bundle: Path, tmp_path: Path) -> None:
    renamed, both = tmp_path / "renamed.patchcut", tmp_path / "both.patchcut"
    with open_bundle(headed_bundle) as bundle:
        (head,) = bundle.spec.heads
        mine = head.model_copy(update={"name": "mine"})
        rewrite_bundle(bundle, renamed, bundle.spec.model_copy(update={"heads": (mine,)}))
    with open_bundle(renamed) as bundle:
        made = gnn_head(bundle.spec, "objects", labels=("background", "thing"))
        add_head(bundle, both, made, GraphHead(64, (6,), 4, 2, dropout=0))
    with open_bundle(both) as bundle:
        assert bundle.spec.heads == (made, mine) and made.files != mine.files
        assert bundle.read(mine.files["weights"]) == members(headed_bundle)[head.files["weights"]]


def test_parts_come_beside_the_head(headed_bundle: Path, build: Callable[..., Path], tmp_path: Path) -> None:
    path, taken = tmp_path / "parts.patchcut", tmp_path / "taken.patchcut"
    nmi = ROW.model_copy(update={"metric": "NMI", "head": "gnn, parts by gnn"})
    head = GraphHead(64, (6,), 4, 3, dropout=0)
    with open_bundle(headed_bundle) as bundle:
        made = gnn_head(bundle.spec, "parts", labels=("nose", "tail", "leg"), method="a test's")
        add_head(bundle, path, made, head)
    with open_bundle(path) as bundle:
        spec = with_report(with_report(bundle.spec, (ROW,), "gnn"), (nmi,), "parts")
        rewrite_bundle(bundle, path, spec)
    with open_bundle(path) as bundle:
        assert [row for head in bundle.spec.heads for row in head.report] == [ROW, nmi]
        add_head(bundle, path, made, head)
    with open_bundle(path) as bundle, open_bundle(headed_bundle) as donor:
        bundle.verify()
        (before,) = donor.spec.heads
        assert bundle.spec.head("parts") == made, "what was measured of other parts is gone"
        assert bundle.spec.head() == before.model_copy(update={"report": (ROW,)})
        build(taken, sizes=(32,), precision="fp32", donor=bundle)
    assert "nose, tail, leg" in members(path)["card.md"].decode()
    with open_bundle(taken) as bundle:
        bundle.verify()
        assert bundle.spec.heads == (before, made), "what was measured was so with another backbone"
        assert bundle.read("parts.safetensors") == members(path)["parts.safetensors"]


def test_a_bundle_can_be_rewritten_in_its_own_place(headed_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.patchcut"
    path.write_bytes(headed_bundle.read_bytes())
    with open_bundle(path) as bundle:
        rewrite_bundle(bundle, path, with_report(bundle.spec, (ROW,), "gnn"))
    with open_bundle(path) as bundle:
        bundle.verify()
        assert bundle.spec.heads[0].report == (ROW,)
    assert [p.name for p in tmp_path.iterdir()] == ["own.patchcut"]


def test_the_head_in_a_bundle_is_the_one_in_torch(backbone_bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(8)
    head = GraphHead(64, (16, 8), 6, 3, dropout=0.5).eval()
    head.standardize(torch.randn(500, 64))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)
    path = tmp_path / "headed.patchcut"
    affinity = AffinitySpec(threshold=0.15)
    with open_bundle(backbone_bundle) as bundle:
        made = gnn_head(bundle.spec, "objects", labels=("background", "a", "b"), affinity=affinity)
        add_head(bundle, path, made, head)
    segmenter = patchcut.load(path, size=96, precision="fp32")
    frame = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    result = segmenter(frame)
    features = features_of_frame(path, frame)
    with torch.no_grad():
        expected = head(features, cosine_affinity(features, 0.15)).softmax(-1)[0].numpy()
    assert np.ptp(expected, axis=0).min() > 1e-2, "the reference is near-constant"
    np.testing.assert_allclose(result.assignment, expected, atol=1e-4)
    assert result.grid_hw == (6, 6)


CHOICES = {
    "components": (Component("key", 1, 3.0), Component("value", -6)),
    "stride": 10,
    "scales": (1.0, 0.5),
    "join": "concat",
    "log_bins": 1,
}


@pytest.fixture(scope="module")
def choices_bundle(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every choice of features, and a random head on them."""
    folder = tmp_path_factory.mktemp("choices")
    backbone = build(folder / "backbone.patchcut", sizes=(96, 64), choices=CHOICES)
    torch.manual_seed(4)
    head = GraphHead(2304, (8,), 6, 2, dropout=0)
    with open_bundle(backbone) as bundle:
        made = gnn_head(bundle.spec, "objects", labels=("background", "foreground"))
        add_head(bundle, folder / "choices.patchcut", made, head)
    return folder / "choices.patchcut"


def test_a_bundle_says_which_features_it_has(
    choices_bundle: Path, run_cli: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    said = (
        "0.75 key of layer 1 + 0.25 value of layer 0, patches every 10 pixels, scales 1, 0.5 concatenated, "
    )
    said += "log-binned in 9, 2304 a patch"
    assert said.encode() in members(choices_bundle)["card.md"]
    assert run_cli("info", choices_bundle, "-v") == 0
    assert said in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_overlapping_patches_make_label_maps(choices_bundle: Path, precision: str) -> None:
    result = patchcut.load(choices_bundle, size=64, precision=precision)(
        np.random.default_rng(0).integers(0, 256, (150, 201, 3), np.uint8)
    )
    assert result.grid_hw == (5, 5)
    assert result.assignment.shape == (25, 2)
    assert result.label_map.shape == (150, 201)


def test_a_head_is_of_its_choices_of_features(
    choices_bundle: Path, build: Callable[..., Path], tmp_path: Path
) -> None:
    with open_bundle(choices_bundle) as donor:
        for change in (
            {"components": (Component("key", 1), Component("value", 0))},
            {"stride": 11},
            {"scales": (1.0,)},
            {"join": "mean"},
            {"log_bins": 0},
        ):
            named = {"parts": "components"}.get(field := next(iter(change)), field)
            with pytest.raises(ExportError, match=f"other features: {named}"):
                build(tmp_path / "other.patchcut", choices={**CHOICES, **change}, donor=donor)
        again = build(
            tmp_path / "again.patchcut", sizes=(32,), precision="fp32", choices=CHOICES, donor=donor
        )
    assert patchcut.load(again)(np.zeros((20, 30, 3), np.uint8)).grid_hw == (2, 2)


def features_of_frame(path: Path, frame: np.ndarray) -> torch.Tensor:
    with open_bundle(path) as bundle:
        extractor = Extractor.open(bundle, Settings(size=96, precision="fp32"))
    return torch.from_numpy(np.array(extractor([Frame(frame)]).default))


def test_a_head_can_be_taken_from_a_bundle_with_the_same_backbone(
    build: Callable[..., Path], headed_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.patchcut"
    with open_bundle(headed_bundle) as donor:
        build(path, sizes=(32,), precision="fp32", donor=donor)
        with open_bundle(path) as bundle:
            bundle.verify()
            assert bundle.spec.heads == donor.spec.heads
            assert bundle.read("head.safetensors") == donor.read("head.safetensors")
    assert patchcut.load(path)(np.zeros((20, 30, 3), np.uint8)).grid_hw == (2, 2)


@pytest.mark.parametrize(
    ("donor", "change", "expected"),
    [
        ("backbone_bundle", {}, "has no head"),
        ("headed_bundle", {"facet": "query"}, "trained on other features"),
        ("headed_bundle", {"sha256": "1" * 64}, "trained on other features"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_before_the_export(
    build: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    donor: str,
    change: dict[str, str],
    expected: str,
) -> None:
    def export(*_: object) -> None:
        raise AssertionError("nothing may be exported before the head was checked")

    path = request.getfixturevalue(donor)
    monkeypatch.setattr(builder, "export_fp32", export)
    with open_bundle(path) as opened, pytest.raises(ExportError, match=expected):
        build(tmp_path / "other.patchcut", donor=opened, **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["no/such/x.patchcut", "file/x.patchcut", "folder"])
def test_a_place_that_cannot_be_written_is_one_line(
    build: Callable[..., Path], tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as raised:
        build(tmp_path / place)
    assert str(raised.value).startswith("[output] ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_one_line(build: Callable[..., Path], tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="choose a folder that you may write"):
        build(tmp_path / "x.patchcut")


def test_extents_are_where_the_bytes_lie() -> None:
    rng = np.random.default_rng(0)
    tensors = {"b": rng.random((3, 5), np.float32), "a": rng.integers(0, 9, 7).astype(np.int8)}
    tensors["turned"] = np.asfortranarray(rng.random((4, 2), np.float32))
    data = safetensors_bytes(tensors)
    extents = safetensors_extents(data)
    assert extents.keys() == tensors.keys()
    for name, (offset, length) in extents.items():
        assert data[offset : offset + length] == np.ascontiguousarray(tensors[name]).tobytes()
        np.testing.assert_array_equal(load(data)[name], tensors[name])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sizes": ()}, "[size] must be given at least once"),
        ({"sizes": (64, 64)}, "each only once, got 64, 64"),
        ({"sizes": (64, 0)}, "from 1 to 8192 pixels, got 0"),
        ({"sizes": (64, 9000)}, "got 9000"),
        ({"sizes": (64, 70)}, "patches of 16 pixels, got 70"),
        ({"precisions": ("int4",)}, "[precision] must be one of"),
        ({"precisions": ()}, "[precision] must be given at least once"),
        ({"precisions": ("fp16", "int8-qdq")}, "int8-qdq must be fitted to photos; pass --calibrate DIR"),
    ],
)
@pytest.mark.usefixtures("timm")
def test_a_plan_that_cannot_be_is_refused_at_once(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as raised:
        check_plan(BackbonePlan(ViTSpec("test_vit"), **{"sizes": (64,), **change}))
    assert expected in str(raised.value)


def test_a_graph_that_disagrees_with_torch_is_not_shipped(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_agreement", lambda *_: 0.9)
    with pytest.raises(ExportError, match=r"the graph at 64 has mean cosine 0\.90000 to torch"):
        build(tmp_path / "x.patchcut", sizes=(64,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("value", [float("nan"), -0.5])
def test_an_agreement_that_is_no_number_is_none(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, value: float
) -> None:
    monkeypatch.setattr(builder, "_agreement", lambda *_: value)
    with pytest.raises(ExportError, match=rf"has mean cosine {value:.5f} to torch"):
        build(tmp_path / "x.patchcut", sizes=(64,), precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_shipped(
    random_state: Callable[..., dict[str, Any]], tmp_path: Path, precision: str, value: float
) -> None:
    state = random_state()
    state["blocks.1.mlp.fc1.weight"][3, 5] = value
    plan, origin = BackbonePlan(ViTSpec("test_vit"), (64,), (precision,)), Provenance("", "", "", "")
    with pytest.raises(ExportError, match=r"\[weights\] blocks\.1\.mlp\.fc1\.weight is not finite"):
        build_bundle(tmp_path / "x.patchcut", plan, state, origin, name="x", say=lambda line: None)
    assert list(tmp_path.iterdir()) == []
