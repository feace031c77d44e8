"""How fast a segmenter is here: MLPerf's scenarios, the machine's state beside them, runs compared."""

from patchcut.benchmark.compare import Comparison, compare
from patchcut.benchmark.report import Report, read_report
from patchcut.benchmark.run import benchmark
from patchcut.benchmark.scenarios import SCENARIOS, Plan

__all__ = ["SCENARIOS", "Comparison", "Plan", "Report", "benchmark", "compare", "read_report"]
