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


MASK = {"facet": "mask", "layer": 0}
VALUE = {"output": "value", "dim": 4, "components": [{"facet": "value", "layer": 0}]}


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
    "a mask beside keys": (
        lambda s: set_of(s)["components"].extend(
            [{"facet": "mask", "layer": 0, "weight": 0.5}, {"facet": "key", "layer": 0, "weight": 0.5}]
        ),
        "an assignment cannot be joined",
    ),
    "a mask at two scales": (
        lambda s: set_of(s).update(components=[MASK], scales=[1, 0.5]),
        "an assignment has one scale and no log bins",
    ),
    "a mask in log bins": (
        lambda s: set_of(s).update(components=[MASK], log_bins=1),
        "an assignment has one scale and no log bins",
    ),
    "no cell": (lambda s: set_of(s).update(components=[MASK], cells=0), "token.cells"),
    "too many cells": (lambda s: set_of(s).update(components=[MASK], cells=9), "token.cells"),
    "cells that are none": (lambda s: set_of(s).update(components=[MASK], cells=2.5), "token.cells"),
    "cells of features": (
        lambda s: s["backbones"]["toy"]["features"]["key"].update(cells=2),
        "features have one cell a patch, only an assignment has more, got 2",
    ),
    "a mask as the first features": (
        lambda s: s["backbones"]["toy"]["features"].update(key=mask(2)),
        "features must come first, assignments after them",
    ),
    "features after a mask": (
        lambda s: (decode(s), s["backbones"]["other"]["features"].update(value={**VALUE})),
        "features must come first, assignments after them",
    ),
    "a decoder of features alone": (
        lambda s: decode(s).update(features=["key"]),
        'head parts: must need an assignment last, a set of the facet "mask", got key',
    ),
    "a decoder with its assignment first": (
        lambda s: decode(s).update(features=["token", "key"]),
        "head parts: must need features first, token is an assignment",
    ),
    "a decoder of an assignment alone": (
        lambda s: decode(s).update(features=["token"]),
        "head parts: must need features first, token is an assignment",
    ),
    "a decoder of more columns than labels": (
        lambda s: decode(s).update(labels=["background", "foreground"]),
        "head parts: token has 3 columns, the head 2 labels",
    ),
    "a gnn on an assignment": (
        lambda s: decode(s).update(kind="gnn", features=["token"], files={"weights": "parts.safetensors"}),
        "head parts: must need features first, token is an assignment",
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


def mask(cells: int, dim: int = 3) -> Spec:
    """A feature set that is an assignment."""
    return {"output": "mask", "dim": dim, "components": [MASK], "cells": cells}


def decode(spec: Spec) -> Spec:
    """The second head, as a decoder of the second backbone's second set."""
    spec["backbones"]["other"]["features"]["token"] = mask(2)
    head: Spec = spec["heads"][1]
    head.update(kind="decoder", role="objects", features=["key", "token"], labels=list(toy.LABELS))
    del head["files"]
    return head


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


def test_an_assignment_has_a_row_a_cell() -> None:
    spec = manifest()
    decode(spec)
    checked = BundleSpec.model_validate(spec)
    backbone, head = checked.backbones["other"], checked.heads[1]
    one = backbone.features["token"]
    assert (one.rows((3, 4)), one.is_assignment, one.of_patches, one.of_image) == (48, True, False, False)
    assert backbone.default_features.of_patches and not backbone.default_features.is_assignment
    assert (head.kind, head.files) == ("decoder", {})
    text = "mask of layer 0, an assignment of 2 x 2 cells of each patch to 3 columns"
    assert backbone.features_text("token") == text
    assert BundleSpec.model_validate_json(checked.model_dump_json()) == checked


def test_cells_are_written_where_there_are_some() -> None:
    """So that a bundle without them is written as ever, and read by those that know none."""
    spec = manifest()
    decode(spec)
    written = BundleSpec.model_validate(spec).model_dump(mode="json")
    features = written["backbones"]["other"]["features"]
    assert features["token"]["cells"] == 2 and "cells" not in features["key"]
    spec["backbones"]["other"]["features"]["token"]["cells"] = 1
    written = BundleSpec.model_validate(spec).model_dump(mode="json")
    assert "cells" not in written["backbones"]["other"]["features"]["token"]


def test_cells_count_among_the_numbers_of_a_frame() -> None:
    spec = manifest()
    decode(spec).update(labels=[f"thing {i}" for i in range(1024)])
    other = spec["backbones"]["other"]
    other["features"]["token"] = mask(8, 1024)
    other["patch_size"] = 1  # 12,544 patches
    other["graphs"][0]["grid_hw"] = [112, 112]
    with pytest.raises(ValidationError, match=r"other\.onnx: has 12,544 patches of 65,536, the limits are"):
        BundleSpec.model_validate(spec)
    other["features"]["token"] = mask(4, 1024)
    BundleSpec.model_validate(spec)


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_what_does_not_fit_together_is_refused(change: Callable[[Spec], object], said: str) -> None:
    spec = manifest()
    change(spec)
    with pytest.raises(ValidationError) as caught:
        BundleSpec.model_validate(spec)
    error = caught.value.errors()[0]
    assert said in f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
