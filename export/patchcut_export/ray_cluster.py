"""Work that is given to the tasks of a Ray cluster, and what is said when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from patchcut.batch.ray_cluster import connect, import_ray, places

from patchcut_export.errors import ExportError

if TYPE_CHECKING:
    from typing_extensions import Self

# How often a task is done again whose worker was lost.
RETRIES = 5


class OnRay:
    """What gives its work to the tasks of a Ray cluster.

    Args:
        address: the cluster's, as `ray.init` takes it; None for the one that this process is connected to,
            else for RAY_ADDRESS, else for one on this machine.
    Raises:
        EngineError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None = None) -> None:
        self._ray = import_ray()
        self._connected = connect(self._ray, address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster, if it was this object that joined it."""
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _places(self, device: str) -> int:
        """How many tasks run at a time, as in `places`."""
        return places(self._ray, device)

    def _task(self, function: Callable[..., Any], device: str) -> Any:
        """`function` as a task that takes one CPU, and a GPU on "cuda"; done again where a worker is lost."""
        needs = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
        return self._ray.remote(max_retries=RETRIES, **needs)(function)

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Raises what a worker raised, and an ExportError where workers were lost."""
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            raise _told(error) from error
        except errors.RayError as error:
            raise _lost(error) from error


def _told(error: Any) -> Exception:
    """What a worker raised."""
    cause = error.cause
    if isinstance(cause, Exception) and not isinstance(cause, type(error)):
        return cause
    return ExportError("engine", f"a worker failed: {error}", "look at the log of its Ray machine")


def _lost(error: Any) -> ExportError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "look at the log of its Ray machine; where memory ran out, choose smaller chunks"
    return ExportError("engine", f"a shard's worker was lost {RETRIES + 1} times: {first}", remedy)
