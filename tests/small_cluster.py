"""A Ray cluster for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def small_cluster(**environment: str) -> Iterator[Any]:
    """The module ray with a cluster of two CPUs on this machine; skips where it is not installed.

    Args:
        environment: what its workers find in theirs.
    """
    ray = pytest.importorskip("ray", reason="needs patchcut[scale]")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **environment}.items():  # it would tell its maker
            patch.setenv(name, value)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )
        yield ray
        ray.shutdown()
