from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.small_cluster import small_cluster

NEEDS = "needs patchcut[export]"
TINY = "test_vit"  # timm's own test model: 64 wide, patches of 16


@pytest.fixture(scope="session")
def timm() -> Any:
    """timm, importable beside a torchvision that was made for another torch."""
    pytest.importorskip("torch", reason=NEEDS)
    from patchcut_export.backbones.timm_models import import_timm

    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(f"{NEEDS}: {error}")


@pytest.fixture(scope="session")
def random_state(timm: Any) -> Callable[..., dict[str, Any]]:
    """random_state(model, image_size): a state dict in which nothing is zero or one by chance of init."""
    import torch

    def make(model: str = TINY, image_size: int = 96) -> dict[str, Any]:
        with torch.device("meta"):
            vit = timm.create_model(model, pretrained=False, num_classes=0, img_size=image_size)
        random = torch.Generator().manual_seed(3)
        state = {}
        for name, tensor in vit.state_dict().items():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 25
            state[name] = torch.randn(tensor.shape, generator=random) / fan_in**0.5
            if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
                state[name] += 1
        return state

    return make


@pytest.fixture(scope="session")
def build(random_state: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """build(path, **changes): a bundle with a tiny random backbone, and the head of a donor, at `path`."""
    pytest.importorskip("onnxscript", reason=NEEDS)
    pytest.importorskip("onnxslim", reason=NEEDS)
    from patchcut.bundle import Bundle
    from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
    from patchcut_export.backbones.weights import Provenance
    from patchcut_export.bundles.builder import BackbonePlan, build_bundle

    def make(
        path: Path,
        *,
        sizes: tuple[int, ...] = (96, 64),
        precision: str = "int8",
        facet: str = "key",
        choices: dict[str, Any] | None = None,
        more: dict[str, FeatureSpec] | None = None,
        sha256: str = "0" * 64,
        donor: Bundle | None = None,
        **changes: Any,
    ) -> Path:
        chosen = {"components": (Component(facet, 1),), "stride": None, **(choices or {})}
        stride = chosen.pop("stride")
        vit = ViTSpec(TINY, {facet: FeatureSpec(**chosen), **(more or {})}, stride)
        plan = BackbonePlan(vit, sizes, tuple(precision.split(",")), **changes)
        origin = Provenance("tests", sha256, "Apache-2.0", "nothing")
        build_bundle(path, plan, random_state(), origin, name="tiny", say=lambda line: None, donor=donor)
        return path

    return make


@pytest.fixture(scope="session")
def backbone_bundle(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a bundle without a head: sizes 96 and 64, int8 and fp32."""
    return build(tmp_path_factory.mktemp("backbone") / "tiny.patchcut")


@pytest.fixture(scope="session")
def headed_bundle(backbone_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a random gnn head."""
    path = tmp_path_factory.mktemp("headed") / "headed.patchcut"
    return add_head(backbone_bundle, path, ("background", "foreground"))


@pytest.fixture(scope="session")
def parts_bundle(backbone_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a random gnn head of four columns."""
    path = tmp_path_factory.mktemp("parts") / "parts.patchcut"
    return add_head(backbone_bundle, path, ("background", "a", "b", "c"))


def add_head(backbone: Path, path: Path, labels: tuple[str, ...]) -> Path:
    import torch
    from patchcut.bundle import AffinitySpec, open_bundle
    from patchcut_export.bundles.archive import safetensors_bytes
    from patchcut_export.bundles.rewriting import gnn_head, rewrite_bundle, with_head
    from patchcut_export.training.gnn import GraphHead

    torch.manual_seed(5)
    head = GraphHead(64, (12,), 8, len(labels), dropout=0.25)
    with open_bundle(backbone) as bundle:
        made = gnn_head(bundle.spec, "objects", labels=labels, affinity=AffinitySpec(threshold=0.2))
        weights = {made.files["weights"]: safetensors_bytes(head.tensors())}
        rewrite_bundle(bundle, path, with_head(bundle.spec, made), weights)
    return path


@pytest.fixture
def paint() -> Callable[..., np.ndarray]:
    """paint(seed): [72, 96, 3] uint8 and the mask of the blob on it, [72, 96] uint8 of 0 and 255."""

    def make(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 70, (72, 96, 3), np.uint8)
        mask = np.zeros((72, 96), np.uint8)
        x, y = (int(v) for v in rng.integers(30, 45, 2))
        cv2.ellipse(mask, (x + 10, y), (20, 14), 0, 0, 360, 255, -1)
        image[mask > 0] = rng.integers(150, 255, (int((mask > 0).sum()), 3), np.uint8)
        return image, mask

    return make


@pytest.fixture
def photos(tmp_path: Path, paint: Callable[..., Any]) -> Path:
    """A folder of six photos, in two subfolders."""
    folder = tmp_path / "photos"
    for seed in range(6):
        path = folder / f"part{seed % 2}" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), paint(seed)[0])
    return folder


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two CPUs on this machine, whose workers find what is deadly."""
    found = pytest.importorskip("ray", reason="needs patchcut[scale]")
    from tests.export import deadly

    found.cloudpickle.register_pickle_by_value(sys.modules[deadly.__name__])
    with small_cluster(DEADLY_FLAG=str(tmp_path_factory.mktemp("deadly") / "flag")) as one:
        yield one
