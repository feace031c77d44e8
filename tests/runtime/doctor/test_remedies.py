"""What is said of what could be better, for machines made up of facts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patchcut.doctor.remedies import remedies

Facts = dict[str, Any]

# A machine on which nothing could be better.
GOOD: Facts = {
    "cpu": {"allowed": [0, 1], "online": 2, "cores": 2, "quota": None, "governor": "performance"},
    "memory": {"limit_bytes": None},
    "kernels": {"isa": "avx2", "isas": ["baseline", "avx2"], "threads": 2, "default_threads": 2},
    "gpu": {"devices": [], "smi": "no nvidia-smi", "on_bus": [], "npu": False, "jetson": ""},
    "cuda": {"unavailable": "this build has no CUDA"},
    "driver": {"error": "no driver"},
    "engines": {
        "onnxruntime": {"installed": True, "version": "1.23", "providers": ["CPUExecutionProvider"]},
        "openvino": {"installed": True, "version": "2026.4", "devices": ["CPU"]},
    },
    "opencv": {"version": "4.12", "wheels": {"opencv-python-headless": "4.12"}},
    "av": {"version": "17.0"},
    "cameras": [{"device": "/dev/video0", "readable": True}],
    "folders": {"temporary": {"path": "/tmp", "writable": True, "free_bytes": 5 << 30}},
    "runs": {
        "device": "cpu",
        "engine": "openvino",
        "cpu_kind": "x86-avx2",
        "measured_here": True,
        "faster_elsewhere": [],
    },
}
L4 = {"name": "NVIDIA L4", "driver": "550.54.15"}
CPU_WHEEL = GOOD["engines"]["onnxruntime"]
GPU_WHEEL = {**CPU_WHEEL, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def changed(**sections: Any) -> Facts:
    return {**GOOD, **{name: {**GOOD[name], **facts} for name, facts in sections.items()}}


def test_a_good_machine_needs_nothing() -> None:
    assert remedies(GOOD) == []


# What differs from a good machine, and words of what is said then, the remedy's among them.
CASES: dict[str, tuple[Facts, tuple[str, ...]]] = {
    "kernels": (changed(kernels={"error": "GLIBC_2.34 not found"}), ("GLIBC_2.34", "install patchcut again")),
    "starved": (changed(kernels={"error": "does not answer within 60 s"}), ("does not answer", "try again")),
    "isa": (changed(kernels={"isa": "baseline"}), ("in baseline", "has avx2", "unset PATCHCUT_ISA")),
    "threads": (changed(kernels={"threads": 1}), ("1 of 2 threads", "unset PATCHCUT_THREADS")),
    "quota": (changed(cpu={"quota": 0.5}), ("grants 0.5 CPUs of the 2", "--cpus")),
    "mask": (changed(cpu={"allowed": [1]}), ("1 of 2 CPUs", "taskset")),
    "governor": (changed(cpu={"governor": "powersave"}), ('"powersave"', "cpupower")),
    "memory": (changed(memory={"limit_bytes": 100 << 20}), ("100 MiB", "at least 400")),
    "no engine": (changed(engines={"onnxruntime": {"installed": False}, "openvino": {"installed": False}}),
                  ("no engine", "[cpu]")),
    "broken engine": (changed(engines={"openvino": {"installed": True, "error": "was killed by SIGILL"}}),
                      ("openvino is installed", "SIGILL")),
    "no driver": (changed(gpu={"on_bus": ["NVIDIA"]}), ("no driver that answers", "install the driver")),
    "container": (changed(gpu={"on_bus": ["NVIDIA"]}), ("in a container", "--gpus all")),
    "wheel": (changed(gpu={"devices": [L4]}, driver={"version": "550, CUDA 12.4"}),
              ("no engine that is installed runs on it", "pip uninstall -y onnxruntime &&", "[gpu]")),
    "jetson": (changed(gpu={"jetson": "Orin"}, driver={"version": "540"}), ("no engine", "[tensorrt]")),
    "kernels on CPU": (changed(gpu={"devices": [L4]}, runs={"device": "cuda"}),
                       ("the rest does not", "PATCHCUT_CUDA=ON")),
    "fell back": (changed(gpu={"devices": [L4]}, driver={"version": "550"}, cuda={"unavailable": ""},
                          engines={"onnxruntime": GPU_WHEEL}), ("fell back to the CPU", 'device="cuda"')),
    "intel": (changed(gpu={"on_bus": ["Intel"]}), ("Intel's GPU", "group render")),
    "npu": (changed(gpu={"npu": True}), ("Intel's NPU", "group render")),
    "faster": (changed(runs={"faster_elsewhere": ["openvino"]}), ("faster on x86-avx2", "[openvino]")),
    "unmeasured": (changed(runs={"measured_here": False, "engine": "onnxruntime"}),
                   ("no times of x86-avx2", "parity")),
    "no openvino": (changed(runs={"measured_here": False, "engine": "onnxruntime"},
                            engines={"openvino": {"installed": False}}), ("not installed", "[openvino]")),
    "no opencv": (changed(opencv={"error": "libGL.so.1"}), ("no photo is read", "libGL", "[cpu]")),
    "two opencv": (changed(opencv={"wheels": {"opencv-python": "4", "opencv-python-headless": "4"}}),
                   ("over each other", "install one")),
    "no av": (changed(av={"error": "is not installed"}), ("OpenCV reads videos", "[video]")),
    "camera": ({**GOOD, "cameras": [{"device": "/dev/video1", "readable": False}]},
               ("/dev/video1", '"video"')),
    "read-only": (changed(folders={"temporary": {"path": "/tmp", "writable": False}}),
                  ("/tmp cannot be written", "TMPDIR")),
    "full": (changed(folders={"temporary": {"path": "/tmp", "writable": True, "free_bytes": 3 << 20}}),
             ("/tmp has 3 MiB left", "make room")),
    "no cache": (changed(folders={"cache": {"error": "nothing is kept"}}),
                 ("anew at each load", "PATCHCUT_CACHE")),
    "no temporary": (changed(folders={"temporary": {"error": "No usable temporary directory"}}),
                     ("no temporary folder", "TMPDIR")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_could_be_better(name: str) -> None:
    found, words = CASES[name]
    said = " ".join(map(str, remedies(found)))
    assert [word for word in words if word not in said] == []


def test_cases_say_no_more_than_what_differs() -> None:
    # of a GPU that is not used, also that the kernels were built without CUDA
    several = {name: len(remedies(found)) for name, (found, _) in CASES.items() if len(remedies(found)) != 1}
    assert several == {"wheel": 2, "jetson": 2}


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.sampled_from([{"error": "x"}, {}, [], None, "x"])))
def test_sections_that_could_not_be_found_out_stop_nothing(broken: Facts) -> None:
    for one in remedies({**GOOD, **broken}):
        assert one.what and one.remedy
