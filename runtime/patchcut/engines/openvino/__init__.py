"""OpenVINO: Intel's engine, on CPUs of every maker, and on Intel's GPUs and NPUs."""

from patchcut.engines.openvino.engine import OpenVinoEngine
from patchcut.engines.openvino.opening import open_engine
from patchcut.installed import import_openvino

__all__ = ["OpenVinoEngine", "import_openvino", "open_engine"]
