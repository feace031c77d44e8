"""Broken packages are a line in the report, whatever they do to the process that imports them."""

from __future__ import annotations

from pathlib import Path

import pytest
from patchcut.doctor.apart import run_apart
from patchcut.doctor.probes import PROBES

# Of a machine that is busy with other tests.
PATIENCE_S = 600.0

BROKEN = {
    "cv2": "import os; os.abort()",
    "av": "raise ImportError('libavcodec.so.62: cannot open shared object file')",
    "onnxruntime": "print('{}'); print('{\"openvino\": 1}'); raise SystemExit(3)",
    "openvino": "import os, sys; print('no plugins.xml', file=sys.stderr); os._exit(7)",
    "tensorrt": "raise KeyError('\\udcff\\x1b[2J')",
    "tensorrt_rtx": "raise OSError('libnvinfer.so')",
}


def put(folder: Path, modules: dict[str, str]) -> None:
    for name, text in modules.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text, "utf-8", "surrogatepass")


def test_packages_that_are_broken_in_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    each = {name: [name] for name in ("opencv", "onnxruntime", "openvino", "tensorrt")}
    told = run_apart({**each, "av": ["av", "driver"]}, PATIENCE_S)
    assert told["opencv"]["error"].startswith("was killed by SIGABRT")
    assert "libavcodec.so.62" in told["av"]["error"]
    assert told["onnxruntime"] == {"error": "SystemExit: 3"}  # what it printed itself is no answer
    assert told["openvino"] == {"error": "ended with status 7: no plugins.xml"}
    assert "tensorrt cannot be imported" in told["tensorrt"]["error"]
    assert set(told["driver"]) & {"error", "version"}  # the process of the broken one went on


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"cv2": "import time; time.sleep(600)"})
    monkeypatch.syspath_prepend(str(tmp_path))
    told = run_apart({"one": ["opencv", "av"]}, patience_s=1)
    assert told.keys() == {"opencv", "av"}
    assert all(one["error"].startswith("does not answer within 1 s") for one in told.values())


def test_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/none/python")
    (told,) = run_apart({"one": ["opencv"]}).values()
    assert told["error"].startswith("cannot be looked at: [Errno 2]")


def test_the_working_directory_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = dict.fromkeys(("json", "patchcut", "numpy", "cv2"), "open('imported', 'w'); raise ImportError")
    put(tmp_path, marks)
    monkeypatch.chdir(tmp_path)
    assert "version" in run_apart({"one": ["opencv"]}, PATIENCE_S)["opencv"]
    assert not (tmp_path / "imported").exists()


def test_probes_have_the_names_that_are_asked_for() -> None:
    assert {"kernels", "cuda", "driver", "runs", "onnxruntime", "openvino", "tensorrt", "cameras"} < set(
        PROBES
    )
