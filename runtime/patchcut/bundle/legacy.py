"""Schema 1 and 2 of `bundle.json`, which had one backbone, and at most one head and one head for parts."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]

_FEATURE_FIELDS = ("scales", "join", "log_bins")
_PARTS_METRICS = ("NMI", "ARI")


def to_schema_3(old: Fields) -> Fields:
    """The fields of schema 3, unchecked; a key that is not known stays, so that checking finds it.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: an object is missing, or is something else.
    """
    fields = {"regions": {}, "report": (), **old, "schema_version": 3}
    backbone, regions = dict(fields.pop("backbone")), dict(fields["regions"])
    name, features = backbone.pop("name"), _features(backbone)
    shared = {"backbone": name, "features": list(features), "affinity": fields.pop("affinity", {})}
    heads = []
    calibration = regions.pop("calibration", None)
    if (head := fields.pop("head", None)) is not None:
        heads.append(_head(head, name=head["kind"], role="objects", calibration=calibration, **shared))
    if (parts := fields.pop("parts", None)) is not None:
        heads.append(_head(parts, name="parts", role="parts", **shared))
    others = []
    for row in fields.pop("report"):
        owner = _owner(row, heads)
        if owner is None:
            others.append(row if row.get("head") else {**row, "head": "not said"})
        else:
            owner["report"].append(row)
    spec = {**backbone, "model": name, "features": features, "report": others}
    return {**fields, "regions": regions, "backbones": {name: spec}, "heads": heads}


def _features(backbone: Fields) -> dict[str, Fields]:
    """The one feature set, whose fields leave `backbone`; the graphs' output was called "features"."""
    facet, layer = backbone.pop("facet"), backbone.pop("layer")
    components = backbone.pop("parts", ()) or [{"facet": facet, "layer": layer}]
    if (components[0]["facet"], components[0]["layer"]) != (facet, layer):
        raise ValueError(f"parts must begin with {facet} of layer {layer}")
    chosen = {key: backbone.pop(key) for key in _FEATURE_FIELDS if key in backbone}
    dim = backbone.pop("feature_dim")
    return {facet: {"output": "features", "dim": dim, "components": components, **chosen}}


def _head(old: Fields, **new: Any) -> Fields:
    kept = {key: value for key, value in old.items() if key != "file"}
    return {**kept, **new, "files": {"weights": old["file"]}, "report": []}


def _owner(row: Fields, heads: list[Fields]) -> Fields | None:
    """The head whose columns a row was measured of, None for one that was fitted.

    `row["head"]` was empty for the objects' own, or such as "cc" or "gnn, parts by gnn".
    """
    words = row.get("head", "")
    by_role = {head["role"]: head for head in heads}
    parts = by_role.get("parts")
    if parts and (words.endswith(f" by {parts['kind']}") or (not words and row["metric"] in _PARTS_METRICS)):
        return parts
    return None if words else by_role.get("objects")
