"""Options of sessions: threads, memory and arithmetic as patchcut wants them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from patchcut.bundle import Precision

# Idle threads spin for a moment, then sleep. Tens of milliseconds, ONNX Runtime's own choice, take cores from
# the kernels that run between two backbones and from other work: int8 at 224 took 47 ms with it on two cores
# shared with another process, 30 ms with 20 us, 26 ms without; on idle cores 16.5, 14.8 and 18.3 ms.
_SPIN_BRIEFLY = ("session.intra_op.spin_duration_us", "20")
_NO_SPINNING = ("session.intra_op.allow_spinning", "0")
_SPIN_DURATION_SINCE = (1, 27)
# Without VNNI the products of u8 and s8 saturate at 16 bits; this widens them. With VNNI it would only cost
# time: 35 instead of 22 ms. Those of s8 and s8, as "int8-qdq" has them, it leaves as they are, off by an
# eighth of the largest value on an emulated Haswell: such a graph is computed in floats there.
_WIDE_PRODUCTS = ("session.x64quantprecision", "1")
# With these products some versions, such as 1.23 and 1.24, end the process where they make signed weights
# unsigned that have no zero point.
_SIGNED_WEIGHTS = ("session.qdqisint8allowed", "1")
# Float graphs on 8-bit weights turn them into floats once, when they load. Left to itself ONNX Runtime keeps
# them in 8 bits and rounds the activations too: features 0.9999 like the float ones, not equal to them.
_FLOAT_ARITHMETIC = ("session.disable_quant_qdq", "1")
# Which provider got which node is kept, so that one that fell back can be told.
_KEEP_ASSIGNMENTS = ("session.record_ep_graph_assignment_info", "1")

# What it logs is in its exceptions, too, and holds names out of the graph as they are; with CUDA the log says
# which libraries are missing, and no exception does.
LOG_FATAL, LOG_ERROR = 4, 3


def session_options(ort: Any, threads: int, precision: Precision) -> Any:
    """Options of a session that computes here as patchcut does; whoever measures a graph needs them, too.

    Args:
        ort: the module `onnxruntime`.
        threads: CPU threads.
        precision: the graph's.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = LOG_FATAL
    options.add_session_config_entry(*spinning(ort.__version__))
    options.add_session_config_entry(*_KEEP_ASSIGNMENTS)
    narrow = saturates(platform.machine(), cpu_flags())
    if narrow:
        options.add_session_config_entry(*_WIDE_PRODUCTS)
        options.add_session_config_entry(*_SIGNED_WEIGHTS)
    if precision != "int8" and (precision != "int8-qdq" or narrow):
        options.add_session_config_entry(*_FLOAT_ARITHMETIC)
    return options


def spinning(version: str) -> tuple[str, str]:
    """The session's setting for idle threads, as far as this version of ONNX Runtime knows it."""
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
    return _SPIN_BRIEFLY if numbers >= _SPIN_DURATION_SINCE else _NO_SPINNING


def saturates(machine: str, flags: str) -> bool:
    """Whether the CPU is an x86 without VNNI, which multiplies u8 and s8 into 16 bits."""
    return machine.lower() in ("x86_64", "amd64") and "vnni" not in flags


def cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")
