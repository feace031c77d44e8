"""What is asked of packages that may be broken, each probe in a process that `apart` starts."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from patchcut.errors import PatchcutError

Facts = dict[str, Any]

# Of `cv2.getBuildInformation()`: line → name in the report.
_OPENCV_LINES = {
    "JPEG": "jpeg",
    "PNG": "png",
    "TIFF": "tiff",
    "WEBP": "webp",
    "AVIF": "avif",
    "JPEG 2000": "jpeg2000",
    "OpenEXR": "exr",
    "FFMPEG": "ffmpeg",
    "GStreamer": "gstreamer",
    "v4l/v4l2": "v4l2",
}
_DECODERS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg")
_ENCODERS = ("libx264", "libopenh264", "mpeg4", "mjpeg")


def main(names: str) -> None:
    """Runs probes by their names, separated by commas, and writes a line of JSON after each to stdout.

    Whatever else is written there, by Python or by a library, goes to stderr.
    """
    out = os.dup(1)
    os.dup2(2, 1)
    for name in names.split(","):
        try:
            facts = PROBES[name]()
        except PatchcutError as error:
            facts = {"error": str(error)}
        except BaseException as error:  # a broken package raises what it likes
            facts = {"error": f"{type(error).__name__}: {error}"}
        os.write(out, f"{json.dumps({name: facts}, default=str)}\n".encode())
    sys.stderr.flush()
    os._exit(0)  # a library that is half broken may hang at its end


def kernels() -> Facts:
    """patchcut's own: which instruction set and threads they take, and whether CUDA runs."""
    import patchcut_kernels as pk

    from patchcut.checks import check_environment

    check_environment()
    return {
        "isa": pk.get_isa(),
        "isas": list(pk.available_isas()),
        "threads": pk.get_threads(),
        "default_threads": pk.default_threads(),
    }


def cuda() -> Facts:
    """CUDA as the kernels see it."""
    from patchcut_kernels import cuda

    facts: Facts = {"unavailable": cuda.why_unavailable()}
    if not facts["unavailable"]:
        devices = range(cuda.device_count())
        facts["devices"] = [
            {
                "name": cuda.device_name(i),
                "capability": ".".join(map(str, cuda.compute_capability(i))),
            }
            for i in devices
        ]
    return facts


def driver() -> Facts:
    """NVIDIA's driver and the CUDA that it knows."""
    ctypes.CDLL("libcuda.so.1")  # without it nothing more need be imported to know that there is none
    from patchcut.engines.tensorrt.gpus import driver_version

    return {"version": driver_version()}


def runs() -> Facts:
    """What the default bundle runs with here; one frame is segmented to know that it does."""
    import numpy as np

    import patchcut
    from patchcut.engines import cpu_kind, engine_names
    from patchcut.engines.choice import faster_elsewhere

    segmenter = patchcut.load()
    segmenter(np.zeros((240, 320, 3), np.uint8))
    backbone, size = segmenter.extractor.backbone, segmenter.extractor.graph.size_hw[0]
    faster = faster_elsewhere(backbone, segmenter.settings, engine_names(), size)
    return {
        **segmenter.describe().to_dict(),
        "cpu_kind": cpu_kind(),
        "engine_names": engine_names(),
        "measured_here": any(row.cpu == cpu_kind() for row in backbone.timings),
        "faster_elsewhere": faster,
    }


def onnxruntime() -> Facts:
    """ONNX Runtime and its providers."""
    from patchcut.installed import import_onnxruntime

    module = import_onnxruntime()
    return {"version": module.__version__, "providers": module.get_available_providers()}


def openvino() -> Facts:
    """OpenVINO and its devices."""
    from patchcut.installed import import_openvino

    module = import_openvino()
    return {"version": module.__version__, "devices": module.Core().available_devices}


def tensorrt() -> Facts:
    """TensorRT, in the flavour that would run."""
    from patchcut.engines.tensorrt.package import import_package

    package = import_package("auto")
    return {"version": package.version, "flavour": package.flavour}


def opencv() -> Facts:
    """OpenCV, and what its build reads."""
    from patchcut.opencv import load_cv2

    cv2 = load_cv2()
    lines = (line.partition(":") for line in cv2.getBuildInformation().splitlines())
    built = {name.strip(): text.strip() for name, _, text in lines}
    held = [word for line, word in _OPENCV_LINES.items() if built.get(line, "NO").partition(" ")[0] != "NO"]
    return {"version": cv2.__version__, "reads": held}


def av() -> Facts:
    """PyAV and FFmpeg's codecs in it."""
    from patchcut.pyav import load_av

    module = import_module("av")
    codecs = import_module("av.codec").codecs_available
    facts: Facts = {} if load_av() is not None else {"error": f"PyAV {module.__version__} is too old"}
    return {
        **facts,
        "version": module.__version__,
        "decoders": [name for name in _DECODERS if name in codecs],
        "encoders": [name for name in _ENCODERS if name in codecs],
    }


def cameras() -> Facts:
    """A frame of each camera that has a number: `--open-cameras`."""
    from patchcut.doctor.devices import cameras as listed
    from patchcut.sources import open_source

    found: Facts = {}
    for camera in listed():
        try:
            with open_source(camera["number"]) as source:
                height, width = next(iter(source)).image.shape[:2]
                found[camera["device"]] = f"{width}x{height}"
        except PatchcutError as error:
            found[camera["device"]] = str(error)
        except StopIteration:
            found[camera["device"]] = "sends no frame"
    return found


PROBES: dict[str, Callable[[], Facts]] = {
    probe.__name__: probe
    for probe in (kernels, cuda, driver, runs, onnxruntime, openvino, tensorrt, opencv, av, cameras)
}
