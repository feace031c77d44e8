"""The model card tells agreement and times, and names what is inaccurate."""

from __future__ import annotations

from pathlib import Path

from patchcut.bundle import AgreementRow, BundleSpec, TimingRow, open_bundle
from patchcut.bundle.card import render_card

from tests.runtime import toy_bundle as toy


def measured(path: Path, *, accepted: bool) -> BundleSpec:
    row = AgreementRow(
        precision="int8",
        size=112,
        features="key",
        engine="onnxruntime 1.0",
        images=9,
        data="photos",
        cosine_mean=0.99912,
        cosine_worst=0.98,
        affinity_correlation=0.97,
        label_agreement=0.9912,
        iou=-0.004,
        accepted=accepted,
    )
    time = TimingRow(
        engine="openvino",
        precision="int8",
        size=112,
        device="cpu",
        cpu="abacus",
        threads=2,
        ms=1.25,
        machine="a machine; openvino 1.0",
    )
    with open_bundle(toy.write(path)) as bundle:
        (name, backbone) = next(iter(bundle.spec.backbones.items()))
        changed = backbone.model_copy(update={"agreement": (row,), "timings": (time,)})
        return bundle.spec.model_copy(update={"backbones": {name: changed}})


def test_figures_are_in_the_card(tmp_path: Path) -> None:
    card = render_card(measured(tmp_path / "toy.patchcut", accepted=True))
    assert "## Agreement with fp32" in card and "inaccurate" not in card
    figures = "| int8 | 112 | key | 0.99912 | 0.9800 | 0.9700 | 99.12% | -0.004 |  | 9 images: photos; onnx"
    assert figures in card
    assert "| openvino | int8 | 112 | cpu | abacus | 2 | 1.2 | a machine; openvino 1.0 |" in card


def test_what_did_not_pass_is_named(tmp_path: Path) -> None:
    card = render_card(measured(tmp_path / "toy.patchcut", accepted=False))
    assert "| **inaccurate** |" in card and "--allow-inaccurate" in card


def test_bundles_without_rows_have_no_such_tables(tmp_path: Path) -> None:
    with open_bundle(toy.write(tmp_path / "toy.patchcut")) as bundle:
        card = render_card(bundle.spec)
    assert "## Agreement" not in card and "## Times" not in card
