from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

SAMPLES = Path(patchcut.__file__).parent / "samples"
FRAME_HW = (120, 160)


@pytest.fixture(scope="session")
def write() -> Callable[..., dict[str, str]]:
    """write(path, bundle, frame_hw=..., **changes): a repository at `path`."""
    pytest.importorskip("onnx", reason="needs patchcut[export]")
    pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
    from patchcut.bundle import open_bundle
    from patchcut_export.fused.plan import FusedPlan
    from patchcut_export.triton.plan import TritonPlan
    from patchcut_export.triton.repository import write_repository

    def make(path: Path, bundle: str | Path = "default", **changes: Any) -> Path:
        of_file = {name: changes.pop(name) for name in ("precision", "color", "head") if name in changes}
        fused = FusedPlan(frame_hw=FRAME_HW, **({"color": "bgr"} | of_file))
        plan = TritonPlan(fused=fused, **({"name": "seg", "max_batch": 4} | changes))
        with open_bundle(bundle) as opened:
            write_repository(path, opened, plan, lambda line: None, lambda *step: None)
        return path

    return make


@pytest.fixture(scope="session")
def repository(write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the embedded bundle, for frames of 120x160, BGR."""
    return write(tmp_path_factory.mktemp("triton") / "models")


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """[5, 120, 160, 3] uint8 BGR: the sample photographs, and a black frame."""
    size = FRAME_HW[::-1]
    photos = [
        cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_AREA)
        for path in sorted(SAMPLES.glob("*.jpg"))
    ]
    return np.stack([*photos, np.zeros_like(photos[0])])


@pytest.fixture(scope="session")
def results(frames: np.ndarray) -> list[patchcut.Result]:
    """What patchcut itself says of the frames."""
    seg = patchcut.load(engine="onnxruntime", device="cpu", precision="fp32")
    found = [seg(frame) for frame in frames]
    assert [len(one) for one in found] != [0] * len(found) and not len(found[-1])
    return found
