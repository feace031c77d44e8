"""The repository in a real Triton Inference Server: the one that the wheel of nvidia-pytriton carries.

That server has the Python backend and no ONNX Runtime, so `onnx_model.py` runs the file in its place: the
configurations, the batching, the ensemble and the model of the regions are what is tested. It knows numpy 1
alone. CI runs this with the lowest versions that are promised, of which numpy is 1.26:

    pip install --no-deps --target DIR nvidia-pytriton
    PYTHONPATH=DIR pytest tests/export/triton/test_server.py
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import Result

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]", exc_type=Exception)
from tests.export.triton.test_regions_model import ALL, check

_STARTS_WITHIN_S = 180


def place_of_server() -> Path:
    """The folder of the server in the wheel of nvidia-pytriton."""
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        pytest.skip("needs the server of nvidia-pytriton")
    if int(np.__version__.partition(".")[0]) >= 2:
        pytest.skip(f"this server's Python backend knows numpy 1 alone, not {np.__version__}")
    return Path(spec.origin).parent / "tritonserver"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], list[str]]:
    """command(repository, port): what starts the server, with a stub for this Python beside its backend."""
    place = place_of_server()
    backends = tmp_path_factory.mktemp("backends")
    shutil.copytree(place / "backends/python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = place / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"the server has no stub for Python {version}")
    shutil.copy(stub, backends / "python")
    needed = subprocess.run(["ldd", stub], env=environment(), capture_output=True, text=True, check=True)
    if lacking := re.findall(r"(libpython\S+) => not found", needed.stdout):
        pytest.skip(f"needs {lacking[0]}")
    for program in (place / "bin/tritonserver", backends / "python/triton_python_backend_stub"):
        program.chmod(0o755)

    def words(repository: Path, port: int) -> list[str]:
        return [
            str(place / "bin/tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
        ]

    return words


def environment() -> dict[str, str]:
    """In which the stub finds this Python: by its PATH, as every Python that is embedded does."""
    libraries = [str(place_of_server().parents[1] / "nvidia_pytriton.libs")]
    libraries += [str(sysconfig.get_config_var("LIBDIR"))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


@pytest.fixture(scope="module")
def served(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, with the file run by Python."""
    folder = tmp_path_factory.mktemp("served") / "models"
    shutil.copytree(repository, folder)
    shutil.copy(Path(__file__).with_name("onnx_model.py"), folder / "seg_assignment/1/model.py")
    config = folder / "seg_assignment/config.pbtxt"
    lines = config.read_text().splitlines()
    lines[lines.index('backend: "onnxruntime"')] = 'backend: "python"'
    lines.remove('default_model_filename: "model.onnx"')
    config.write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def server(
    served: Path, command: Callable[[Path, int], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the server of the repository, which is ready."""
    port, log = free_port(), tmp_path_factory.mktemp("log") / "triton.log"
    with log.open("w") as out:
        process = subprocess.Popen(command(served, port), env=environment(), stdout=out, stderr=out)
    try:
        wait_until_ready(f"127.0.0.1:{port}", process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    client = triton.InferenceServerClient(address)
    until = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.is_server_ready():
                return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the server is not ready:\n{log.read_text()[-4000:]}")


@pytest.fixture
def client(server: str) -> Any:
    return triton.InferenceServerClient(server, concurrency=4, network_timeout=120, connection_timeout=120)


def rows_of(result: Result) -> Any:
    """An assignment, as it is sent."""
    rows = result.assignment[None]
    tensor = triton.InferInput("assignment", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return tensor


def infer(client: Any, frames: np.ndarray, outputs: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    image = triton.InferInput("image", list(frames.shape), "UINT8")
    image.set_data_from_numpy(frames)
    wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
    answer = client.infer("seg", [image], outputs=wanted)
    return {one["name"]: answer.as_numpy(one["name"]) for one in answer.get_response()["outputs"]}


def test_a_batch_is_answered_as_patchcut_answers_it(
    client: Any, frames: np.ndarray, results: list[Result]
) -> None:
    told = infer(client, frames[:4])
    assert set(told) == set(ALL)
    for i, result in enumerate(results[:4]):
        # One file adds up in another order than the stages do.
        assert (told["label_map"][i] == result.label_map).mean() > 0.999
        count = len(result)
        assert told["count"][i] == [count]
        np.testing.assert_allclose(told["boxes"][i, :count], result.boxes, atol=1)
        np.testing.assert_allclose(told["scores"][i, :count], result.scores, atol=1e-3)
        assert [text.decode() for text in told["label_names"][i, :count]] == list(result.label_names)


def test_nothing_found_is_a_tensor_without_rows(client: Any, frames: np.ndarray) -> None:
    told = infer(client, frames[4:], ("boxes", "masks", "count", "label_map"))
    assert {name: array.shape for name, array in told.items()} == {
        "boxes": (1, 0, 4),
        "masks": (1, 0),
        "count": (1, 1),
        "label_map": (1, *frames.shape[1:3]),
    }


def test_frames_of_clients_at_one_time_run_together(
    client: Any, server: str, frames: np.ndarray, results: list[Result]
) -> None:
    def one(i: int) -> dict[str, np.ndarray]:
        own = triton.InferenceServerClient(server, network_timeout=120, connection_timeout=120)
        return infer(own, frames[i : i + 1], ("count", "boxes", "scores"))

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(one, [0, 1, 2, 3] * 4))
    for i, answer in enumerate(told):
        result = results[i % 4]
        assert answer["count"].item() == len(result)
        np.testing.assert_allclose(answer["boxes"][0], result.boxes, atol=1)
    (told_of,) = client.get_inference_statistics("seg_assignment")["model_stats"]
    batches = {int(one["batch_size"]) for one in told_of["batch_stats"]}
    assert max(batches) > 1 and max(batches) <= 4


def test_a_frame_of_another_size_is_refused(client: Any, frames: np.ndarray) -> None:
    with pytest.raises(triton.InferenceServerException, match="unexpected shape for input 'image'"):
        infer(client, frames[:1, :-1])


def test_regions_by_themselves(client: Any, results: list[Result]) -> None:
    answer = client.infer("seg_regions", [rows_of(results[0])])
    check({name: answer.as_numpy(name) for name in ALL}, 0, results[0])


def test_the_example_draws_what_the_server_says(server: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs patchcut[cpu]")
    root = Path(__file__).parents[3]
    photo, overlay = root / "runtime/patchcut/samples/coffee.jpg", tmp_path / "overlay.png"
    words = [photo, overlay, "--model", "seg", "--address", server]
    example = root / "docs/examples/triton_client.py"
    done = subprocess.run([sys.executable, example, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("foreground 0.")
    drawn, plain = cv2.imread(str(overlay)), cv2.imread(str(photo))
    assert drawn.shape == plain.shape and 0.05 < (drawn != plain).any(axis=2).mean() < 0.95
