"""What the threads of a stream have for a client on the event loop."""

from __future__ import annotations

import asyncio
import contextlib

# Words of frames that failed which wait for a client; what comes above it is lost.
_MOST_WORDS = 16


class Mailbox:
    """The newest result takes the place of one that waits; words of problems do not.

    `put`, `say` and `fail` may be called on any thread.

    Attributes:
        failed: why nothing more comes; "" while something may.
        replaced: results that newer ones have replaced.
    """

    def __init__(self) -> None:
        self.failed = ""
        self.replaced = 0
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._result: bytes | None = None
        self._words: list[str] = []

    def put(self, result: bytes) -> None:
        """Has a result wait."""
        self._call(result, "", "")

    def say(self, words: str) -> None:
        """Has words wait, after those that do."""
        self._call(None, words, "")

    def fail(self, words: str) -> None:
        """Says that nothing more comes."""
        self._call(None, "", words)

    async def take(self, timeout_s: float) -> tuple[bytes | None, list[str]]:
        """The newest result and the words that came; neither where nothing came in time."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        result, words = self._result, self._words
        self._result, self._words = None, []
        return result, words

    def _call(self, result: bytes | None, words: str, failed: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._set, result, words, failed)

    def _set(self, result: bytes | None, words: str, failed: str) -> None:
        if result is not None:
            self.replaced += self._result is not None
            self._result = result
        if words and len(self._words) < _MOST_WORDS:
            self._words.append(words)
        self.failed = self.failed or failed
        self._news.set()
