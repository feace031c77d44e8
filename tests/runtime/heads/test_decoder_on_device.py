"""A decoder's assignment stays on the GPU until its components are known; the kernels are run by the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result, Segmenter
from patchcut.engines import onnxruntime as adapter
from patchcut_kernels.cuda import DeviceArray

from tests.host_layer import HostCuda
from tests.runtime import toy_decoder
from tests.runtime.engines.fake_onnxruntime import CPU, CUDA, fake_runtime
from tests.runtime.engines.tensorrt.fakes import install as install_tensorrt
from tests.runtime.results import check_consistent


@pytest.fixture(params=["onnxruntime", "tensorrt"])
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, host_cuda: HostCuda) -> Any:
    """load(bundle, **settings): a segmenter whose engine has its memory on the device."""

    def load(bundle: Path, **settings: Any) -> Segmenter:
        with monkeypatch.context() as fake:
            if request.param == "tensorrt":
                fake.setenv("PATCHCUT_TENSORRT", "max_batch=64")
                install_tensorrt(fake, host_cuda)
            else:
                fake.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CUDA, CPU]))
            return patchcut.load(bundle, engine=request.param, device="cuda", precision="fp32", **settings)

    return load


@pytest.fixture(scope="module")
def small(photo: np.ndarray) -> np.ndarray:
    """A frame that is small: threads take turns on one of the CPU."""
    return photo[::5, ::5].copy()


def alike(got: Result, expected: Result) -> None:
    check_consistent(got, expected.label_map.shape)
    assert len(got) == len(expected) >= 1
    np.testing.assert_allclose(got.assignment, expected.assignment, atol=1e-5)
    assert np.mean(got.label_map == expected.label_map) > 0.999
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-3)


@pytest.mark.parametrize(("cells", "labels"), [(2, 3), (7, 2)])
def test_a_frame_goes_up_once_and_comes_down_once(
    load: Any, tmp_path: Path, small: np.ndarray, host_cuda: HostCuda, cells: int, labels: int
) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut", cells, labels)
    segmenter, on_cpu = load(path), patchcut.load(path, precision="fp32")
    assert segmenter.describe().head_device == "cuda"
    frames = [small, small[::-1].copy(), small[:, ::-1].copy()]
    results = [segmenter(frame) for frame in frames[:2]]
    with host_cuda.counted() as copies:
        results.append(segmenter(frames[2]))
    assert (copies["up"], copies["down"]) == (1, 1)
    assert "backbone" in results[0].timings_ms and "graph" in results[2].timings_ms
    for result, frame in zip(results, frames, strict=True):  # the later ones have not changed the earlier
        alike(result, on_cpu(frame))
        assert result.assignment_hw == (8 * cells, 8 * cells)


def test_a_batch_stays_there_too(load: Any, tmp_path: Path, small: np.ndarray) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut")
    segmenter, on_cpu = load(path), patchcut.load(path, precision="fp32")
    frames = [small, small[::-1].copy(), small[:, ::-1].copy()]
    for _ in range(2):
        for result, frame in zip(segmenter.batch(frames), frames, strict=True):
            alike(result, on_cpu(frame))


def test_the_assignment_is_memory_of_its_own(load: Any, tmp_path: Path, small: np.ndarray) -> None:
    segmenter = load(toy_decoder.write(tmp_path / "x.patchcut"))
    features = segmenter.extractor([Frame(small), Frame(small[::2])])
    made = segmenter.head(features)
    assert isinstance(made, DeviceArray) and made.shape == (2, 256, 2)
    assert not made.overlaps(features["mask"])
    np.testing.assert_array_equal(made.numpy(), features["mask"].numpy())


@pytest.mark.parametrize(
    "settings", [{"refine": "guided"}, {"mode": "parts", "parts": "kmeans:k=2"}, {"head": "ncut"}], ids=str
)
def test_what_does_not_run_on_the_device_comes_down(
    load: Any, tmp_path: Path, small: np.ndarray, settings: dict[str, Any]
) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut")
    result = load(path, **settings)(small)
    expected = patchcut.load(path, precision="fp32", **settings)(small)
    np.testing.assert_allclose(result.assignment, expected.assignment, atol=1e-4)
    assert np.mean(result.label_map == expected.label_map) > 0.99


def test_a_letterboxed_frame_is_cut_out_on_the_host(load: Any, tmp_path: Path, small: np.ndarray) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut", 2, 3, fit="letterbox")
    alike(load(path)(small), patchcut.load(path, precision="fp32")(small))
