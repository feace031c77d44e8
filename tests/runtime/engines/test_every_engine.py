"""What holds of every engine that is installed, on every device that it finds here."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Bundle, EngineError, Settings, open_bundle
from patchcut.engines import Engine, engine_names, open_engine
from patchcut.features import to_host
from patchcut_kernels import _C, cuda

from tests.runtime import toy_bundle as toy
from tests.runtime.results import same

# What an engine needs before it can run a bundle's graph on a CPU; TensorRT runs on none.
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}
# Sums of 588 products; a GPU may take their factors in 10 bits.
TOLERANCES = {"cpu": {"rtol": 1e-4, "atol": 2e-3}, "cuda": {"rtol": 1e-2, "atol": 0.1}}
SETS = {"key": toy.DIM, "token": 2 * toy.DIM, "cls": toy.DIM}
BATCHES = (1, 8, 2, 3, 4, 5, 6, 7, 1)

Chosen = tuple[str, str]


@pytest.fixture(scope="module")
def rich_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two sizes and three feature sets, one of them of the whole image."""
    files = toy.members(tokens=True)
    folder = tmp_path_factory.mktemp("rich")
    return toy.write(folder / "rich.patchcut", files, toy.manifest(files, tokens=True))


def engines_here() -> list[str]:
    """Names of the engines whose module is here: an entry point may stand for a package that was removed."""
    points = entry_points(group="patchcut.engines")
    return [name for name in engine_names() if is_here(points[name].module)]


def is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package
        return False


@pytest.fixture(scope="module", params=[(name, at) for name in engines_here() for at in TOLERANCES], ids=str)
def chosen(request: pytest.FixtureRequest, toy_bundle: Path) -> Chosen:
    """Name and device of an engine that is here; what is missing here is skipped, and says why."""
    name, device = request.param
    try:
        with open_bundle(toy_bundle) as bundle:
            opened(bundle, (name, device))
    except EngineError as error:
        if device == "cpu" and name in PACKAGES and find_spec(PACKAGES[name]):
            raise
        pytest.skip(str(error))
    return name, device


def opened(
    bundle: Bundle, chosen: Chosen, size: int = toy.SIZES[0], sets: Sequence[str] = ("key",), threads: int = 2
) -> Engine:
    name, device = chosen
    settings = Settings(engine=name, device=device, precision="fp32", size=size, threads=threads)  # type: ignore[arg-type]
    backbone = bundle.spec.backbone
    wanted = {name: backbone.features[name] for name in sets}
    return open_engine(bundle, backbone.model_copy(update={"features": wanted}), settings)


def images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)


def put(engine: Engine, values: np.ndarray) -> None:
    """Writes [b, 3, S, S] where the engine reads it."""
    into = engine.images(len(values))
    if isinstance(into, cuda.DeviceArray):
        _C.cuda.copy(into.device, into.pointer, values.ctypes.data, values.nbytes, into.stream.handle)
    else:
        np.copyto(into, values)


def features(engine: Engine, values: np.ndarray) -> dict[str, np.ndarray]:
    """The engine's features of [b, 3, S, S], as copies in host memory."""
    put(engine, values)
    return {name: np.array(to_host(array)) for name, array in engine.run(len(values)).items()}


def reference(values: np.ndarray) -> dict[str, np.ndarray]:
    key = np.stack([toy.reference_features(image, "fp32") for image in values])
    assert key.std() > 1
    token = np.concatenate([key, np.maximum(key, 0)], axis=2)
    return {"key": key, "token": token, "cls": key.mean(axis=1, keepdims=True)}


@pytest.mark.parametrize("size", toy.SIZES)
def test_features_of_1_to_8_images_are_right(chosen: Chosen, rich_bundle: Path, size: int) -> None:
    with open_bundle(rich_bundle) as bundle:
        engine = opened(bundle, chosen, size, tuple(SETS))
    assert engine.facts.max_batch >= 8
    for batch in BATCHES:
        values = images(batch, size)
        made = features(engine, values)
        assert list(made) == list(SETS)
        for name, expected in reference(values).items():
            assert made[name].dtype == np.float32
            np.testing.assert_allclose(made[name], expected, **TOLERANCES[chosen[1]])


def test_an_image_is_the_same_in_every_batch(chosen: Chosen, toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine = opened(bundle, chosen)
    values = images(8, toy.SIZES[0])
    together = features(engine, values)["key"]
    alone = np.concatenate([features(engine, values[i : i + 1])["key"] for i in range(8)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sets", [("token",), ("cls", "key"), ("key",)], ids=", ".join)
def test_only_the_sets_that_are_wanted_are_made(
    chosen: Chosen, rich_bundle: Path, sets: tuple[str, ...]
) -> None:
    with open_bundle(rich_bundle) as bundle:
        engine = opened(bundle, chosen, sets=sets)
    values = images(2, toy.SIZES[0])
    made, expected = features(engine, values), reference(values)
    assert list(made) == list(sets)
    for name in sets:
        rows = 1 if name == "cls" else engine.facts.graph.grid_hw[0] ** 2
        assert made[name].shape == (2, rows, SETS[name])
        np.testing.assert_allclose(made[name], expected[name], **TOLERANCES[chosen[1]])


def test_memory_is_the_engines_own_and_is_kept(chosen: Chosen, toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine = opened(bundle, chosen)
    assert engine.images(2) is engine.images(2)
    assert engine.images(1).shape == (1, 3, toy.SIZES[0], toy.SIZES[0])
    first, second = images(1, toy.SIZES[0]), images(2, toy.SIZES[0])[1:]
    put(engine, first)
    made = engine.run(1)["key"]
    before = np.array(to_host(made))
    put(engine, second)
    again = engine.run(1)["key"]
    np.testing.assert_allclose(before, reference(first)["key"], **TOLERANCES[chosen[1]])
    np.testing.assert_allclose(to_host(again), reference(second)["key"], **TOLERANCES[chosen[1]])


def test_facts_say_what_runs(chosen: Chosen, toy_bundle: Path) -> None:
    name, device = chosen
    with open_bundle(toy_bundle) as bundle:
        facts = opened(bundle, chosen, toy.SIZES[1]).facts
    assert (facts.name, facts.device, facts.precision) == (name, device, "fp32")
    assert facts.graph.size_hw == (toy.SIZES[1], toy.SIZES[1])
    assert facts.provider and facts.weights and facts.threads == 2


def test_two_segmenters_work_beside_each_other(
    chosen: Chosen, toy_bundle: Path, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    frames = [photo, second_photo, photo[::2], second_photo[::2, ::2]] * 3
    segmenters = [loaded(toy_bundle, chosen, size) for size in toy.SIZES]
    expected = [[segmenter(frame) for frame in frames] for segmenter in segmenters]
    assert {result.labels for results in expected for result in results} == {toy.LABELS}
    made: list[list[patchcut.Result]] = [[], []]

    def work(i: int) -> None:
        made[i] = [segmenters[i](frame) for frame in frames]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, alone in zip(made, expected, strict=True):
        for result, other in zip(results, alone, strict=True):
            same(result, other)


def loaded(path: Path, chosen: Chosen, size: int | None = None) -> patchcut.Segmenter:
    return patchcut.load(path, engine=chosen[0], device=chosen[1], precision="fp32", size=size, threads=2)


def test_a_hundred_loads_leave_nothing_behind(chosen: Chosen, toy_bundle: Path) -> None:
    values = images(1, toy.SIZES[0])
    with open_bundle(toy_bundle) as bundle:

        def load_and_run() -> weakref.ref[Engine]:
            engine = opened(bundle, chosen)
            put(engine, values)
            engine.run(1)
            return weakref.ref(engine)

        for _ in range(10):
            load_and_run()
        gc.collect()
        before = held()
        gone = [load_and_run() for _ in range(100)]
        gc.collect()
        after = held()
    assert not any(reference() for reference in gone)
    assert after["threads"] <= before["threads"] and after["files"] <= before["files"], (before, after)
    # A toy's engine has some hundred kilobytes, a hundred of them tens of megabytes.
    assert after["kb"] - before["kb"] < 6_000, (before, after)


def held() -> dict[str, int]:
    """Resident kilobytes, threads and open files of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "kb": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a listing that closes its own
    }


def test_a_pickle_opens_the_same_engine(chosen: Chosen, toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = loaded(toy_bundle, chosen)
    other = pickle.loads(pickle.dumps(segmenter))
    assert other.describe() == segmenter.describe()
    same(other(photo), segmenter(photo))


FORKED = """
import os, sys
import numpy as np
import patchcut

frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
path, engine, device = sys.argv[1:]
seg = patchcut.load(path, engine=engine, device=device, precision="fp32", threads=2)
seg(frame)
pid = os.fork()
if pid == 0:
    try:
        seg(frame)
    except patchcut.EngineError as error:
        print(error, flush=True)
        sys.exit(5)  # with the interpreter's own end: what the engine leaves behind must not hang it
    sys.exit(6)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(seg(frame)) > 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_is_refused_and_ends(chosen: Chosen, toy_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(toy_bundle), *chosen],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    refusal, status = done.stdout.splitlines()
    assert refusal.startswith("[segmenter] was loaded before the fork") and status == "5 True"


@pytest.mark.parametrize("name", [name for name in engines_here() if name in PACKAGES])
def test_an_engine_that_is_not_installed_names_its_extra(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(EngineError, match=r"\[engine\] .*pip install .*\["):
        patchcut.load(toy_bundle, engine=name)
