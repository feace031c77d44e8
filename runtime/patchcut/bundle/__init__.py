"""Bundles: one `.patchcut` file with all that a segmenter needs."""

from patchcut.bundle.archive import Bundle, open_bundle
from patchcut.bundle.library import EMBEDDED, embedded_bundles, find_bundle
from patchcut.bundle.spec import (
    SCHEMA_VERSION,
    AffinitySpec,
    BackboneSpec,
    BundleSpec,
    CalibrationSpec,
    Facet,
    FeatureComponent,
    FeatureSetSpec,
    FileSpec,
    GraphSpec,
    HeadSpec,
    Join,
    Precision,
    RegionsSpec,
    ReportRow,
    Role,
)

__all__ = [
    "EMBEDDED",
    "SCHEMA_VERSION",
    "AffinitySpec",
    "BackboneSpec",
    "Bundle",
    "BundleSpec",
    "CalibrationSpec",
    "Facet",
    "FeatureComponent",
    "FeatureSetSpec",
    "FileSpec",
    "GraphSpec",
    "HeadSpec",
    "Join",
    "Precision",
    "RegionsSpec",
    "ReportRow",
    "Role",
    "embedded_bundles",
    "find_bundle",
    "open_bundle",
]
