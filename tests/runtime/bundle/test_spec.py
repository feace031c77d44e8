"""Manifests with several backbones, feature sets and heads."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from patchcut.bundle import BundleSpec
from patchcut.bundle.spec import MAX_LABELS
from pydantic import ValidationError

from tests.runtime import toy_bundle as toy

Spec = dict[str, Any]


def manifest() -> Spec:
    """Two backbones, the second with two feature sets, and a head of each role."""
    spec = toy.manifest(toy.members())
    spec["files"]["other.onnx"] = spec["files"]["parts.safetensors"] = spec["files"]["head.safetensors"]
    other = deepcopy(spec["backbones"]["toy"])
    other["graphs"] = [{**other["graphs"][0], "file": "other.onnx"}]
    token = [{"facet": "token", "layer": 0}]
    other["features"]["token"] = {"output": "tokens", "dim": 4, "components": token}
    spec["backbones"]["other"] = other
    shared = {**spec["heads"][0], "backbone": "other", "files": {"weights": "parts.safetensors"}}
    spec["heads"].append({**shared, "name": "parts", "role": "parts", "features": ["token", "key"]})
    spec["heads"].append({**shared, "name": "words", "role": "names"})
    return spec


def test_defaults_are_the_first() -> None:
    spec = BundleSpec.model_validate(manifest())
    assert spec.backbone == spec.backbones["toy"]
    assert spec.backbones["other"].default_features.output == "features"
    heads = [spec.head(), spec.head("parts"), spec.head("names")]
    assert [head and head.name for head in heads] == ["gnn", "parts", "words"]
    fewer = spec.model_copy(update={"heads": spec.heads[1:]})
    assert fewer.head() is None
    assert spec.members() == set(spec.files)


def test_a_manifest_outlives_json() -> None:
    spec = BundleSpec.model_validate(manifest())
    assert BundleSpec.model_validate_json(spec.model_dump_json()) == spec


CHANGES: dict[str, tuple[Callable[[Spec], object], str]] = {
    "no backbone": (lambda s: s.update(backbones={}), "backbones"),
    "no features": (lambda s: s["backbones"]["toy"].update(features={}), "features"),
    "a head of no backbone": (lambda s: s["heads"][1].update(backbone="third"), "there is no backbone third"),
    "a head of another backbone's features": (
        lambda s: s["heads"][1].update(backbone="toy"),
        "head parts: toy has no features token",
    ),
    "a head of no features": (lambda s: s["heads"][1].update(features=[]), "heads.1.features"),
    "features twice": (lambda s: s["heads"][1].update(features=["key", "key"]), "features must differ"),
    "more labels than a head may have": (
        lambda s: s["heads"][0].update(labels=[f"thing {i}" for i in range(MAX_LABELS + 1)]),
        "heads.0.labels",
    ),
    "two heads alike": (lambda s: s["heads"][1].update(name="gnn"), "names of the heads must differ"),
    "a name that no option can give": (lambda s: s["heads"][1].update(name="cc:k=3"), "heads.1.name"),
    "a role that is none": (lambda s: s["heads"][1].update(role="clouds"), "heads.1.role"),
    "a gnn without weights": (lambda s: s["heads"][1].update(files={}), 'must have the file "weights"'),
    "weights that are not listed": (
        lambda s: s["heads"][1].update(files={"weights": "else"}),
        "does not list else",
    ),
    "a second backbone's graph that is not listed": (
        lambda s: s["files"].pop("other.onnx"),
        "does not list other.onnx",
    ),
    "two sets from one output": (
        lambda s: s["backbones"]["other"]["features"]["token"].update(output="features"),
        "outputs of the features must differ",
    ),
    "attention beside keys": (
        lambda s: set_of(s)["components"].extend(
            [{"facet": "attention", "layer": 0, "weight": 0.5}, {"facet": "key", "layer": 0, "weight": 0.5}]
        ),
        "attention cannot be joined",
    ),
    "attention at two scales": (
        lambda s: set_of(s).update(components=[{"facet": "attention", "layer": 0}], scales=[1, 0.5]),
        "attention has one scale and no log bins",
    ),
    "attention in log bins": (
        lambda s: set_of(s).update(components=[{"facet": "attention", "layer": 0}], log_bins=1),
        "attention has one scale and no log bins",
    ),
    "a report of no head": (
        lambda s: s["backbones"]["toy"].update(report=[row("")]),
        "must name a head",
    ),
}


def set_of(spec: Spec) -> Spec:
    """The second backbone's second feature set, without components."""
    features: Spec = spec["backbones"]["other"]["features"]["token"]
    features["components"] = []
    return features


def row(head: str) -> Spec:
    measured = {"dataset": "toy", "metric": "CorLoc", "value": 0.5, "images": 2}
    return {**measured, "size": 112, "precision": "int8", "refine": "none", "command": "x", "head": head}


def test_a_backbone_has_the_report_of_fitted_heads() -> None:
    spec = manifest()
    spec["backbones"]["toy"]["report"], spec["heads"][0]["report"] = [row("cc")], [row("")]
    checked = BundleSpec.model_validate(spec)
    assert [report[0].head for report in (checked.backbone.report, checked.heads[0].report)] == ["cc", ""]


def test_attention_has_a_row_a_patch() -> None:
    spec = manifest()
    set_of(spec)["components"] = [{"facet": "attention", "layer": 0}]
    backbone = BundleSpec.model_validate(spec).backbones["other"]
    assert backbone.features["token"].rows((3, 4)) == 12
    assert backbone.features_text("token") == "attention of layer 0, 4 a patch"


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_what_does_not_fit_together_is_refused(change: Callable[[Spec], object], said: str) -> None:
    spec = manifest()
    change(spec)
    with pytest.raises(ValidationError) as caught:
        BundleSpec.model_validate(spec)
    error = caught.value.errors()[0]
    assert said in f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
