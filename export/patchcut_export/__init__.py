"""Makes, trains and measures bundles."""

from patchcut import telemetry

telemetry.switch_off()  # here, since torch's exporter and onnxslim import onnxruntime by themselves
