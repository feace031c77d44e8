"""Bundles of schema 1 and 2, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import BundleError, open_bundle
from patchcut.bundle import ReportRow
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy

Spec = dict[str, Any]

PARTS = ("nose", "tail")
CALIBRATION = {"weights": [1.0, 2.0, 3.0, 4.0], "bias": -1.0, "nothing_below": 0.5, "fitted_on": "toys"}


def row(metric: str, head: str | None = "") -> Spec:
    measured = {"dataset": "toy", "metric": metric, "value": 0.5, "images": 2, "refine": "none"}
    told = {} if head is None else {"head": head}
    return {**measured, "size": 112, "precision": "int8", "command": "x", **told}


def members() -> toy.Members:
    """Those of the toy, and of a second head."""
    tensors = toy.head_tensors(seed=3)
    tensors["mlp.1.weight"], tensors["mlp.1.bias"] = tensors["mlp.1.weight"][:, :2], tensors["mlp.1.bias"][:2]
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return {**toy.members(), "parts.safetensors": save(tensors)}


def full(files: toy.Members) -> Spec:
    """A manifest of schema 2 with all that it could have."""
    spec = toy.old_manifest(files, 2)
    spec["parts"] = {**spec["head"], "file": "parts.safetensors", "labels": list(PARTS)}
    spec["affinity"]["threshold"] = 0.1
    spec["regions"]["calibration"] = CALIBRATION
    spec["report"] = [
        row("CorLoc"),
        row("NMI"),
        row("ARI"),
        row("CorLoc", "cc (alpha 3)"),
        row("ARI", "gnn, parts by gnn"),
        row("ARI", "gnn, parts by kmeans (k 4)"),
    ]
    return spec


@pytest.fixture
def write(tmp_path: Path) -> Callable[[toy.Members, Spec], Path]:
    return lambda files, spec: toy.write(tmp_path / "old.patchcut", files, spec)


@pytest.mark.parametrize("version", [1, 2])
def test_old_files_are_the_same_bundle(
    write: Callable[..., Path], toy_bundle: Path, photo: np.ndarray, version: int
) -> None:
    files = toy.members()
    path = write(files, toy.old_manifest(files, version))
    with open_bundle(path) as old, open_bundle(toy_bundle) as new:
        assert old.spec == new.spec
        old.verify()
    for size in toy.SIZES:
        before, after = (patchcut.load(p, size=size)(photo) for p in (path, toy_bundle))
        np.testing.assert_array_equal(before.assignment, after.assignment)
        np.testing.assert_array_equal(before.label_map, after.label_map)
        np.testing.assert_array_equal(before.scores, after.scores)


def test_all_of_schema_2_has_its_place(write: Callable[..., Path], photo: np.ndarray) -> None:
    files = members()
    path = write(files, full(files))
    with open_bundle(path) as bundle:
        spec = bundle.spec
    objects, parts = spec.heads
    assert (objects.name, objects.role, objects.kind) == ("gnn", "objects", "gnn")
    assert (parts.name, parts.role, parts.labels) == ("parts", "parts", PARTS)
    assert objects.files == {"weights": "head.safetensors"}
    assert parts.files == {"weights": "parts.safetensors"}
    assert objects.affinity == parts.affinity and objects.affinity.threshold == 0.1
    assert objects.calibration is not None and objects.calibration.fitted_on == "toys"
    assert parts.calibration is None
    assert (objects.backbone, objects.features) == (parts.backbone, parts.features) == ("toy", ("key",))
    told = [[(r.metric, r.head) for r in it.report] for it in (objects, parts, spec.backbone)]
    assert told == [
        [("CorLoc", "")],
        [("NMI", ""), ("ARI", ""), ("ARI", "gnn, parts by gnn")],
        [("CorLoc", "cc (alpha 3)"), ("ARI", "gnn, parts by kmeans (k 4)")],
    ]
    assert patchcut.load(path).describe().calibrated
    assert set(patchcut.load(path, mode="parts", nothing_below=0.0)(photo).labels) >= set(PARTS)


def test_choices_of_features_become_a_feature_set(write: Callable[..., Path]) -> None:
    components = [
        {"facet": "key", "layer": 0, "weight": 0.25},
        {"facet": "token", "layer": 2, "weight": 0.75},
    ]
    files = toy.members()
    spec = toy.old_manifest(files, 2)
    spec["backbone"].update(parts=components, stride=7, scales=[1, 0.5], join="concat", log_bins=2)
    for graph in spec["backbone"]["graphs"]:
        graph["grid_hw"] = [(side - 14) // 7 + 1 for side in graph["size_hw"]]
    with open_bundle(write(files, spec)) as bundle:
        backbone = bundle.spec.backbone
    assert (backbone.model, backbone.stride, list(backbone.features)) == ("toy", 7, ["key"])
    assert backbone.default_features.output == "features"
    assert backbone.features_text("key") == (
        "0.25 key of layer 0 + 0.75 token of layer 2, patches every 7 pixels, "
        "scales 1, 0.5 concatenated, log-binned in 17, 8 a patch"
    )


def test_a_bundle_without_heads_keeps_what_was_measured(write: Callable[..., Path]) -> None:
    files = toy.members()
    spec = {**toy.old_manifest(files, 1), "head": None, "report": [row("CorLoc", None)]}
    with open_bundle(write(files, spec)) as bundle:
        assert bundle.spec.heads == ()
        rows = [row("CorLoc", "not said")]
        assert bundle.spec.backbone.report == tuple(map(ReportRow.model_validate, rows))


def test_what_an_old_file_may_leave_out_has_its_default(write: Callable[..., Path]) -> None:
    files = toy.members()
    spec = toy.old_manifest(files, 1)
    for key in ("report", "regions", "affinity"):
        spec.pop(key, None)
    with open_bundle(write(files, spec)) as bundle:
        assert bundle.spec.regions.min_area_patches == 0.5
        assert bundle.spec.heads[0].report == bundle.spec.backbone.report == ()
        assert bundle.spec.heads[0].affinity.threshold == 0


CHANGES: dict[str, tuple[Callable[[Spec], object], str]] = {
    "a key that is not known": (lambda s: s.update(tracks={}), "does not know: tracks"),
    "one of the backbone": (lambda s: s["backbone"].update(registers=True), "backbones.toy.registers"),
    "one of the head": (lambda s: s["head"].update(gate=1), "heads.0.gate"),
    "one of the parts": (lambda s: s["parts"].update(gate=1), "heads.1.gate"),
    "one of the affinity": (lambda s: s["affinity"].update(extra=1), "heads.0.affinity.extra"),
    "one of the regions": (lambda s: s["regions"].update(extra=1), "regions.extra"),
    "one of schema 3": (lambda s: s.update(heads=[]), "not valid as schema 2: it has no key heads"),
    "one of schema 3's backbone": (lambda s: s["backbone"].update(model="x"), "it has no key model"),
    "one of schema 3's heads": (lambda s: s["head"].update(role="names"), "it has no key role"),
    "no name": (lambda s: s.pop("name"), "not valid at name"),
    "no backbone": (lambda s: s.pop("backbone"), "not valid as schema 2: 'backbone'"),
    "a backbone that is none": (lambda s: s.update(backbone=[1]), "not valid as schema 2"),
    "a backbone without a name": (lambda s: s["backbone"].pop("name"), "not valid as schema 2: 'name'"),
    "a backbone whose name is none": (lambda s: s["backbone"].update(name=[]), "not valid as schema 2"),
    "no graphs": (lambda s: s["backbone"].update(graphs=[]), "not valid at backbones.toy.graphs"),
    "a head that is none": (lambda s: s.update(head="gnn"), "not valid as schema 2"),
    "a head without a file": (lambda s: s["head"].pop("file"), "not valid as schema 2: 'file'"),
    "a head file that is not listed": (lambda s: s["head"].update(file="../x"), "does not list ../x"),
    "one label": (lambda s: s["parts"].update(labels=["a"]), "not valid at heads.1.labels"),
    "parts in another order": (
        lambda s: s["backbone"].update(parts=[{"facet": "token", "layer": 2, "weight": 1}]),
        "parts must begin with key of layer 0",
    ),
    "regions that are none": (lambda s: s.update(regions=None), "not valid as schema 2"),
    "rows that are none": (lambda s: s.update(report=[1]), "not valid as schema 2"),
    "a report that is none": (lambda s: s.update(report=3), "not valid as schema 2"),
    "a row whose head is none": (lambda s: s["report"][0].update(head=[1]), "not valid as schema 2"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_old_manifests_that_make_no_sense_are_foreign(
    write: Callable[..., Path], change: Callable[[Spec], object], said: str
) -> None:
    files = members()
    spec = full(files)
    change(spec)
    with pytest.raises(BundleError) as caught:
        open_bundle(write(files, spec))
    message = str(caught.value)
    assert "is foreign" in message and said in message and "\n" not in message


def test_an_old_file_says_which_schema_it_is_read_as(write: Callable[..., Path]) -> None:
    files = toy.members()
    spec = toy.old_manifest(files, 1)
    spec["head"]["temperature"] = 0
    with pytest.raises(BundleError, match=r"bundle\.json, read as schema 3, is not valid at heads\.0\.temp"):
        open_bundle(write(files, spec))
