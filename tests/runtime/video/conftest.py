from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.video.threads import stream_threads, until


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """No stream of a test outlives it."""
    yield
    assert until(lambda: stream_threads() == [], 2.0), stream_threads()
