"""Ready-made vectors: concepts that another model or person has put into the space of the features."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, ConceptsSpec, HeadSpec, open_bundle
from patchcut.bundle.tensors import load_tensors
from patchcut.concepts.collection import TEMPERATURE
from patchcut.errors import OptionError
from patchcut.heads.naming import unit
from patchcut.heads.no_concepts import CONCEPTS
from patchcut.heads.prototypes import Prototypes

from patchcut_export.concepts.recipe import check_names, semantic_set, write_concepts
from patchcut_export.errors import ExportError
from patchcut_export.outputs import check_output_file

Float32 = npt.NDArray[np.float32]

# Metadata that say which features the vectors are of, and a tensor that is no concept.
BACKBONE, FEATURES, MEAN = "backbone_sha256", "features", "mean"


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors [p, d] float32 of each concept, by its name; the mean [d] that they are less, or zeros."""

    named: dict[str, Float32]
    mean: Float32
    features: str


def make_of_vectors(
    file: Path, source: str | None, bundle: Path, name: str, threshold: float, *, foreground: bool
) -> tuple[str, ...]:
    """Writes a bundle whose head `concepts` has the vectors of a file; gives their names.

    Args:
        file: safetensors of vectors [d] or [p, d] by their names, and possibly `mean` [d]. Its metadata must
            say `backbone_sha256`, which `patchcut info --json` prints as the backbone's source_sha256, and
            `features`, the name of the feature set.
        source: the bundle that is copied; None for the default.
        threshold: cosine that a region must exceed.
        foreground: whether regions of the head for objects are named, if there is one.
    Raises:
        PatchcutError: naming what is wrong; nothing is written then.
    """
    check_output_file(bundle)
    with open_bundle(source) as opened:
        vectors = read_vectors(file, opened)
        spec = opened.spec
        backbone = next(iter(spec.backbones))
        heads = (head for head in spec.heads if head.role == "objects" and head.backbone == backbone)
        prior = next(heads, None) if foreground else None
        needs = (vectors.features, *(prior.features if prior else ()))
        names = tuple(vectors.named)
        head = HeadSpec(
            name=CONCEPTS,
            kind="prototypes",
            role="names",
            backbone=backbone,
            features=tuple(dict.fromkeys(needs)),
            labels=("background", *names),
            temperature=TEMPERATURE,
            method=f"vectors of {file.name}",
            concepts=ConceptsSpec(
                foreground=prior.name if prior else None,
                origins=dict.fromkeys(names, f"a vector of {file.name}"),
            ),
            files={"weights": f"{CONCEPTS}.safetensors"},
        )
        counts = [len(one) for one in vectors.named.values()]
        prototypes = Prototypes(
            unit(np.concatenate(list(vectors.named.values()))),
            vectors.mean,
            np.repeat(np.arange(1, len(names) + 1), counts).astype(np.int32),
            np.array([0.0] + [threshold] * len(names), np.float32),
        )
        write_concepts(opened, bundle, name, head, prototypes)
    return names


def read_vectors(file: Path, bundle: Bundle) -> Vectors:
    """The vectors of a file, which must be of the features of a bundle's first backbone.

    Raises:
        ExportError: it cannot be read, is damaged, or is of another backbone or length.
        OptionError: a name is none, or the feature set is not there.
    """
    where = "vectors"
    try:
        data = file.read_bytes()
        tensors = load_tensors(data)
        said = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except OSError as error:
        raise ExportError(
            where, f"{file} cannot be read: {error.strerror}", "name a safetensors file"
        ) from error
    except ValueError as error:
        raise ExportError(where, f"{file} is damaged: {error}", "name a safetensors file") from error
    backbone = bundle.spec.backbone
    if said.get(BACKBONE) != backbone.source_sha256:
        what = f"{file} is of the backbone {said.get(BACKBONE) or 'that it does not name'}"
        raise ExportError(where, what, f"its metadata must say {BACKBONE}={backbone.source_sha256}")
    if FEATURES not in said:
        raise ExportError(
            where, f"{file} does not say of which features it is", f"metadata {FEATURES}=semantic"
        )
    features = semantic_set(bundle, str(said[FEATURES]))
    dim = backbone.features[features].dim
    named = {}
    for name, tensor in tensors.items():
        rows = np.atleast_2d(tensor.astype(np.float32))
        if rows.ndim != 2 or rows.shape[1] != dim or not len(rows):
            what = f'{file}: "{name}" is {list(tensor.shape)}, {features} has vectors of {dim}'
            raise ExportError(where, what, f"give [{dim}] or [p, {dim}]")
        if not np.isfinite(rows).all() or (name != MEAN and not rows.any(axis=1).all()):
            raise ExportError(where, f'{file}: "{name}" must be finite and not zero', "make it again")
        named[name] = rows
    mean = named.pop(MEAN, np.zeros((1, dim), np.float32))
    if len(mean) != 1:
        raise ExportError(where, f'{file}: "{MEAN}" must be one vector', f"give [{dim}]")
    try:
        check_names(list(named))
    except OptionError as error:
        raise OptionError(where, f"{file}: {error.what}", error.remedy) from error
    return Vectors(named, mean[0], features)
