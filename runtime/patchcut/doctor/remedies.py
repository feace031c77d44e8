"""Why nothing faster runs, or nothing at all, and what would help: by what an examination found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from patchcut.doctor.apart import NO_ANSWER
from patchcut.errors import install_hint

Facts = Mapping[str, Any]

# A run of the embedded bundle peaks below this.
_ENOUGH_BYTES = 400 << 20
_ENOUGH_DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Remedy:
    """One thing that could be better.

    Attributes:
        what: what it is.
        remedy: what to do about it.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def remedies(found: Facts) -> list[Remedy]:
    """What could be better, the gravest first.

    Args:
        found: the sections of an examination.
    Examples:
        >>> from patchcut.doctor.remedies import remedies
        >>> [one.what for one in remedies({"environment": {"PATCHCUT_ISA": "baseline"}})]
        []
    """
    sections = (_broken, _cpu, _gpu, _engines, _video, _places)
    return [Remedy(*pair) for section in sections for pair in section(found)]


_Pairs = Iterator[tuple[str, str]]


def _section(found: Facts, name: str) -> Facts:
    section = found.get(name)
    return section if isinstance(section, Mapping) else {}


def _entries(found: Facts, name: str) -> dict[str, Facts]:
    """The entries of a section that have facts of their own."""
    return {key: facts for key, facts in _section(found, name).items() if isinstance(facts, Mapping)}


def _broken(found: Facts) -> _Pairs:
    kernels = _section(found, "kernels")
    if error := kernels.get("error"):
        yield (
            f"the kernels cannot be used: {error}",
            _mend(error, f"install patchcut again: {install_hint('cpu')}"),
        )
    engines = _entries(found, "engines")
    installed = [name for name, facts in engines.items() if facts.get("installed") and name != "torch"]
    if engines and not installed:
        yield "no engine is installed", install_hint("cpu")
    for name in installed:
        if error := engines[name].get("error"):
            yield f"{name} is installed and cannot be used: {error}", _mend(error, "repair it, or remove it")


def _mend(error: str, otherwise: str) -> str:
    """What to do about a package that cannot be used."""
    return "stop what else is running, and try again" if error.startswith(NO_ANSWER) else otherwise


def _cpu(found: Facts) -> _Pairs:
    cpu, kernels = _section(found, "cpu"), _section(found, "kernels")
    isas = kernels.get("isas", [])
    if isas and kernels["isa"] != isas[-1]:
        yield f"the kernels run in {kernels['isa']}, this CPU has {isas[-1]}", "unset PATCHCUT_ISA"
    if kernels.get("threads", 0) < kernels.get("default_threads", 0):
        what = f"the kernels take {kernels['threads']} of {kernels['default_threads']} threads"
        yield what, "unset PATCHCUT_THREADS"
    quota, cores = cpu.get("quota"), cpu.get("cores", 0)
    if quota is not None and quota < cores:
        what = f"a control group grants {quota:g} CPUs of the {cores} cores that may be used"
        yield what, "raise the container's limit (docker run --cpus, resources.limits.cpu)"
    if len(cpu.get("allowed", [])) < cpu.get("online", 0):
        what = f"the affinity mask allows {len(cpu['allowed'])} of {cpu['online']} CPUs"
        yield what, "start it without taskset, or with a larger cpuset"
    if cpu.get("governor") not in (None, "performance"):
        what = f'the CPU\'s clock follows the load (governor "{cpu["governor"]}")'
        yield what, "`cpupower frequency-set -g performance` holds it"


def _gpu(found: Facts) -> _Pairs:
    gpu, runs = _section(found, "gpu"), _section(found, "runs")
    cuda = _section(found, "cuda")
    nvidia = bool(gpu.get("devices") or gpu.get("jetson") or "NVIDIA" in gpu.get("on_bus", []))
    if nvidia and runs.get("device") != "cuda":
        yield from _why_no_cuda(found, gpu, cuda)
    elif nvidia and cuda.get("unavailable"):
        yield f"the backbone runs on the GPU, and the rest does not: {cuda['unavailable']}", _BUILD_WITH_CUDA
    intel = [word for word in ("gpu", "npu") if _has_intel(gpu, word)]
    devices = _section(_section(found, "engines"), "openvino").get("devices")
    for word in intel:
        if devices is not None and not any(device.lower().startswith(word) for device in devices):
            what = f"this machine has Intel's {word.upper()}, and OpenVINO does not see it"
            yield what, "install its driver (docs/engines.md), and join the group render"


_BUILD_WITH_CUDA = "build it with nvcc at hand: pip install -C cmake.define.PATCHCUT_CUDA=ON ."


def _has_intel(gpu: Facts, word: str) -> bool:
    return bool(gpu.get("npu")) if word == "npu" else "Intel" in gpu.get("on_bus", [])


def _why_no_cuda(found: Facts, gpu: Facts, cuda: Facts) -> _Pairs:
    """What is missing for NVIDIA's GPU, from the driver up."""
    driver = _section(found, "driver")
    if "version" not in driver:
        why = gpu.get("smi") or "no libcuda"
        what = f"this machine has a GPU of NVIDIA's and no driver that answers ({why})"
        yield what, "install the driver; in a container start it with --gpus all"
        return
    providers = _section(_section(found, "engines"), "onnxruntime").get("providers", [])
    has_tensorrt = "version" in _section(_section(found, "engines"), "tensorrt")
    if "CUDAExecutionProvider" not in providers and not has_tensorrt:
        extra = "tensorrt" if gpu.get("jetson") else "gpu"
        what = "the GPU is not used: no engine that is installed runs on it"
        yield what, f"pip uninstall -y onnxruntime && {install_hint(extra)}"
    elif _section(found, "runs").get("device") == "cpu":
        yield "the GPU is not used: auto fell back to the CPU", 'device="cuda" says why'
    if cuda.get("unavailable"):
        yield f"the kernels do not run on the GPU: {cuda['unavailable']}", _BUILD_WITH_CUDA


def _engines(found: Facts) -> _Pairs:
    runs, engines = _section(found, "runs"), _section(found, "engines")
    for name in runs.get("faster_elsewhere", []):
        what = f"{name} was measured to be faster on {runs['cpu_kind']}, and is not installed"
        yield what, install_hint(name)
    on_cpu = runs.get("device") == "cpu" and runs.get("engine") == "onnxruntime"
    if on_cpu and not runs.get("measured_here") and str(runs.get("cpu_kind")).startswith("x86"):
        if _section(engines, "openvino").get("installed"):
            what = f"the bundle has no times of {runs['cpu_kind']}, so OpenVINO is not chosen by itself"
            yield what, 'try engine="openvino", or `patchcut export parity BUNDLE --record`'
        else:
            what = "openvino is not installed, which on many x86 CPUs is faster"
            yield what, f"{install_hint('openvino')}; `patchcut bench --engine openvino` tells"


def _video(found: Facts) -> _Pairs:
    opencv, av = _section(found, "opencv"), _section(found, "av")
    if error := opencv.get("error"):
        yield f"OpenCV cannot be used, so no photo is read: {error}", install_hint("cpu")
    if len(opencv.get("wheels", {})) > 1:
        what = f"wheels of OpenCV lie over each other: {', '.join(opencv['wheels'])}"
        yield what, "pip uninstall all of them, and install one"
    if error := av.get("error"):
        what = f"PyAV cannot be used, so OpenCV reads videos: {error}"
        yield what, install_hint("video")
    for camera in found.get("cameras") or ():
        if isinstance(camera, Mapping) and not camera["readable"]:
            yield (
                f"{camera['device']} may not be opened",
                'join the group "video", or map it into the container',
            )


def _places(found: Facts) -> _Pairs:
    limit = _section(found, "memory").get("limit_bytes")
    if limit is not None and limit < _ENOUGH_BYTES:
        yield f"a control group allows {limit >> 20} MiB of memory", f"allow at least {_ENOUGH_BYTES >> 20}"
    for name, folder in _entries(found, "folders").items():
        if name == "cache" and "path" not in folder:
            yield (
                "engines are compiled anew at each load: there is no cache folder",
                "set PATCHCUT_CACHE to one",
            )
        elif name != "cache" and "error" in folder:
            yield f"there is no {name} folder that can be used: {folder['error']}", "set TMPDIR to one"
        elif not folder.get("writable", True):
            where = {"temporary": "set TMPDIR", "cache": "set PATCHCUT_CACHE", "working": "pass --out"}[name]
            yield f"the {name} folder {folder['path']} cannot be written to", f"{where} to one that can"
        elif folder.get("free_bytes", _ENOUGH_DISK_BYTES) < _ENOUGH_DISK_BYTES:
            what = f"the disk of {folder['path']} has {folder['free_bytes'] >> 20} MiB left"
            yield what, "make room, or choose another folder"
