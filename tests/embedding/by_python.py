"""Writes what segment.cpp reads, and what it has to get: `python by_python.py FOLDER`.

Run by the interpreter of a fresh environment, where nothing but the wheel is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import patchcut
import patchcut_kernels as pk
from patchcut import Features, Frame, Settings
from patchcut.bundle import open_bundle
from patchcut.heads import Head, open_head
from patchcut.stages import Extractor

SIZE_HW = (240, 320)


def main(folder: Path) -> None:
    """FOLDER/*.npy go in, FOLDER/wanted/*.npy should come out, FOLDER/settings.json has the numbers."""
    with open_bundle() as bundle:
        extractor = Extractor.open(bundle, Settings(engine="onnxruntime", device="cpu", precision="int8"))
        trained = bundle.spec.head()
        head = open_head(bundle, trained)
        for name, tensor in bundle.read_tensors(trained.files["weights"]).items():
            np.save(folder / f"{name}.npy", tensor)
    picture = cv2.imread(str(Path(patchcut.__file__).parent / "samples/astronaut.jpg"))
    features = extractor([Frame(picture)])
    np.save(folder / "features.npy", features.default[0])
    grid_hw = features.grid_hw
    (folder / "wanted").mkdir()
    for name, array in wanted(features, head).items():
        np.save(folder / f"wanted/{name}.npy", array)
    affinity = trained.affinity
    assert (affinity.kind, affinity.mode) == ("cosine", "ncut"), "segment.cpp knows no other"
    numbers = [*grid_hw, *SIZE_HW, affinity.threshold, int(trained.normalize), trained.temperature]
    (folder / "settings.json").write_text(json.dumps(numbers))


def wanted(features: Features, head: Head) -> dict[str, np.ndarray]:
    rows, grid_hw = features.default[0], features.grid_hw
    (assignment,) = head(features)
    labels, confidence = pk.upsample_argmax(assignment, grid_hw, SIZE_HW, confidence=True)
    ids, count = pk.connected_components(labels)
    stats = pk.region_stats(ids, count, label_map=labels, confidence=confidence)
    clustering = pk.kmeans(rows, 8)
    return {
        "clusters": clustering.labels,
        "centroids": clustering.centroids,
        "cut": pk.bipartition(rows, grid_hw).mask.astype(np.uint8),
        "assignment": assignment,
        "labels": labels,
        "confidence": confidence,
        "ids": ids,
        "mean_confidence": stats.mean_confidence,
        "area": stats.area,
        "boxes_xyxy": stats.boxes_xyxy,
        "label": stats.label,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
