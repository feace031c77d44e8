"""What answers requests: the model, its pipeline and its streams, and who may ask."""

from __future__ import annotations

import asyncio
import time

from patchcut.cli.streams import say
from patchcut.errors import BundleError, PatchcutError

from patchcut_server.gate import Gate
from patchcut_server.metrics import Metrics
from patchcut_server.model import Model
from patchcut_server.options import ServeOptions
from patchcut_server.pipeline import Pipeline
from patchcut_server.streams import Streams


class Backend:
    """The parts of a server that its routes share.

    Args:
        model: what answers.
        options: who may ask, and what a request may cost.
    Attributes:
        model, options: the same.
        metrics, gate, pipeline, streams: its parts.
        stopping: set when nothing new is to begin.
    """

    def __init__(self, model: Model, options: ServeOptions) -> None:
        self.model, self.options = model, options
        self.metrics = Metrics()
        self.gate = Gate(options)
        self.pipeline = Pipeline(
            model,
            deadline_s=options.deadline_s,
            batch_wait_s=options.batch_wait_ms / 1e3,
            metrics=self.metrics,
        )
        self.streams = Streams(model, options.streams)
        self.stopping = asyncio.Event()
        self.metrics.watch("patchcut_queue", lambda: self.gate.taken)
        self.metrics.watch("patchcut_streams", lambda: self.streams.open_now)

    async def reload(self) -> int:
        """Loads the bundle again, in a thread; its version. The one before answers until then.

        Raises:
            PatchcutError: it cannot be loaded; the one before goes on answering.
        """
        begun_s = time.monotonic()
        try:
            version = await asyncio.to_thread(self._load)
        except PatchcutError as error:
            self.metrics.loads.labels("failed").inc()
            say(f"patchcut: {error}; what was loaded before goes on answering")
            raise
        self.metrics.loads.labels("good").inc()
        took_s = time.monotonic() - begun_s
        say(f"patchcut: loaded {self.model.name} again in {took_s:.1f} s; it is version {version} now")
        return version

    def _load(self) -> int:
        try:
            return self.model.reload()
        except MemoryError as error:
            what = f"{self.model.name} does not fit in memory beside the one that runs"
            raise BundleError("bundle", what, "stop the server and start it again") from error

    def close(self) -> None:
        """Ends streams and threads; may take seconds."""
        self.streams.close()
        self.pipeline.close()
