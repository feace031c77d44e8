from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import patchcut
import pytest

from tests.import_graph import PACKAGES, circles, imports_of, module_graph

SERVING = ("fastapi", "starlette", "uvicorn", "websockets", "prometheus_client", "patchcut_server")
ROS = ("rclpy", "rosbags", "patchcut_ros")
OFFLINE = ("torch", "timm", "onnx", "av", "ray", "pyarrow", "patchcut_export", *SERVING, *ROS)
HEAVY = (*OFFLINE, "onnxruntime", "cv2", "pydantic", "typer", "rich")


def run_fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def loaded_of(names: tuple[str, ...], code: str) -> list[str]:
    printed = run_fresh(f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])")
    return printed.split()


def test_importing_patchcut_loads_nothing_heavy() -> None:
    assert loaded_of(HEAVY, "import patchcut") == []


def test_importing_patchcut_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import patchcut; print(time.perf_counter() - t)"
    assert min(float(run_fresh(code)) for _ in range(3)) < 0.5


def test_a_whole_frame_loads_nothing_of_the_export(toy_bundle: Path) -> None:
    code = f"""
import numpy, patchcut
from patchcut import Frame, Result, Segmenter, open_bundle
frame = numpy.zeros((40, 60, 3), numpy.uint8)
result = patchcut.load({str(toy_bundle)!r})(frame)
result.overlay(frame), result.masks, result.to_dict()
"""
    assert loaded_of(OFFLINE, code) == []


def test_the_module_of_batches_loads_neither_ray_nor_pyarrow() -> None:
    assert loaded_of(OFFLINE, "import patchcut.batch, patchcut.cli.batch") == []


def test_load_and_first_result_are_quick_and_small(embedded_bundle: Path) -> None:
    code = """
import re, time
start = time.perf_counter()
import numpy, patchcut
patchcut.load(engine="onnxruntime")(numpy.zeros((480, 640, 3), numpy.uint8))
# not ru_maxrss, which starts at what the parent held when it forked
peak_kb = re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]
print(time.perf_counter() - start, int(peak_kb) / 1024)
"""
    seconds, peak_mb = min(tuple(map(float, run_fresh(code).split())) for _ in range(3))
    assert seconds < 2.5
    assert peak_mb < 400


def test_every_public_name_is_there() -> None:
    for name in patchcut.__all__:
        assert getattr(patchcut, name) is not None
    assert set(patchcut.__all__) <= set(dir(patchcut))


def test_each_module_is_there_after_a_plain_import() -> None:
    found = [path.stem for path in Path(patchcut.__file__).parent.iterdir() if path.suffix in ("", ".py")]
    names = sorted(set(found) - {"__init__", "__main__", "__pycache__", "cli", "opencv", "samples"})
    assert {"bundle", "heads", "settings", "stages"} <= set(names)
    code = f"import patchcut; print(*[getattr(patchcut, name).__name__ for name in {names!r}])"
    assert run_fresh(code).split() == [f"patchcut.{name}" for name in names]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_itself_and_those_below(package: str) -> None:
    above = {"tests", *list(PACKAGES)[: list(PACKAGES).index(package)]}
    upward = [
        f"{module} imports {name}"
        for module, names in imports_of(package).items()
        for name in names
        if name.split(".")[0] in above
    ]
    assert upward == []


def test_the_server_the_node_and_the_export_import_none_of_each_other() -> None:
    packages = {"patchcut_server", "patchcut_ros", "patchcut_export"}
    for package in packages:
        imported = {name.split(".")[0] for names in imports_of(package).values() for name in names}
        assert "patchcut" in imported and imported & packages == {package}


def test_the_help_of_the_server_needs_none_of_its_packages() -> None:
    code = "import patchcut_server.cli, typer; typer.main.get_command(patchcut_server.cli.app)"
    assert loaded_of((*SERVING[:-1], "numpy", "cv2"), code) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package: str) -> None:
    assert circles(module_graph(package)) == []


@pytest.mark.parametrize("package", ["patchcut", "patchcut_kernels"])
def test_the_runtime_imports_nothing_that_only_the_export_needs(package: str) -> None:
    imported = {name.split(".")[0] for names in imports_of(package).values() for name in names}
    assert "numpy" in imported
    # PyAV, PyArrow and Ray, of videos and batches: imported within functions; a frame needs none of them.
    assert imported.isdisjoint(set(OFFLINE) - ({"av", "pyarrow", "ray"} if package == "patchcut" else set()))


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["b", "c"]]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"patchcut.*utils"):
        _ = patchcut.utils  # type: ignore[attr-defined]


def test_the_version_is_the_package_version() -> None:
    from importlib.metadata import version

    assert patchcut.__version__ == version("patchcut")
