"""Workers, wherever they are: what a batch asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchcut.batch.frames import Place
from patchcut.batch.records import ShardReport
from patchcut.batch.worker import Task
from patchcut.errors import PatchcutError


class Died:
    """A worker is gone, in the middle of a shard."""


# Frames that a worker has done since the last time, where it goes, and what became of its shard.
Heard = int | Place | ShardReport | PatchcutError | Died


class Crew(Protocol):
    """Workers, each of which does one shard at a time; one that died is replaced by the next that is needed.

    Attributes:
        free: shards that can be given now.
        busy: shards that are worked on.
    """

    @property
    def free(self) -> int: ...

    @property
    def busy(self) -> int: ...

    def give(self, task: Task) -> None:
        """Has a worker begin a shard.

        Raises:
            EngineError: no worker can be started.
        """
        ...

    def wait(self) -> Sequence[tuple[Task, Heard]]:
        """What is heard of shards, in order; waits until something is."""
        ...

    def close(self) -> None:
        """Ends all workers, in the middle of what they do."""
        ...


def is_last(heard: Heard) -> bool:
    """Whether nothing more comes of a shard from this worker."""
    return isinstance(heard, ShardReport | PatchcutError | Died)
