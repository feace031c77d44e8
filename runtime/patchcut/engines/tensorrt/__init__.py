"""TensorRT 10.3 to 11, and TensorRT for RTX: one adapter, written for what they share."""

from patchcut.engines.tensorrt.engine import TensorRtEngine, build_engine, open_engine
from patchcut.engines.tensorrt.options import TensorRtOptions

__all__ = ["TensorRtEngine", "TensorRtOptions", "build_engine", "open_engine"]
