"""Built engines on the disk: each is loaded only where all that it depends on is as it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchcut.engines.tensorrt.gpus import Gpu
from patchcut.engines.tensorrt.progress import Say
from patchcut.errors import OutputError
from patchcut.output.whole_files import check_writable, lock, output_error, write_whole

_logger = logging.getLogger("patchcut")

_MAGIC = b"patchcut TensorRT engine 1\n"
_TIMING_MAGIC = b"patchcut TensorRT timing cache 1\n"
_HEADER_BYTES = 1 << 16
_DIGEST_LETTERS = 16
_SHA256_BYTES = 32

# How people are told what an engine was built for.
_NAMES = {
    "flavour": "TensorRT's flavour",
    "version": "TensorRT's version",
    "gpu": "GPU",
    "capability": "compute capability",
    "driver": "driver",
    "graph_sha256": "graph",
    "weights_sha256": "weights",
    "outputs": "feature sets",
    "max_batch": "max_batch",
    "workspace_bytes": "workspace",
    "few_memory": "low_memory",
}


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """All that a built engine depends on.

    Attributes:
        graph: the graph's file in the bundle, for people: a copy of the bundle shares its engines.
        gpu, capability, driver: as in `Gpu`.
        outputs: the graph's outputs that it computes.
    """

    graph: str
    flavour: str
    version: str
    gpu: str
    capability: str
    driver: str
    graph_sha256: str
    weights_sha256: str
    outputs: tuple[str, ...]
    max_batch: int
    workspace_bytes: int
    few_memory: bool

    @property
    def facts(self) -> dict[str, Any]:
        """Those that must be equal, as JSON has them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "graph"
        }

    @property
    def file(self) -> str:
        """The engine's file name."""
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()
        return f"{Path(self.graph).stem}-{digest[:_DIGEST_LETTERS]}.engine"

    @property
    def target(self) -> Gpu:
        """The GPU that it is for."""
        return Gpu(self.gpu, self.capability, self.driver)


@dataclass(frozen=True)
class BuiltEngine:
    """An engine as TensorRT serialized it, and the precision that the graph's weights are stored in."""

    plan: bytes
    weights: str


class EngineCache:
    """A folder of built engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key lies, or would."""
        return self.folder / key.file

    def read(self, key: EngineKey) -> BuiltEngine | None:
        """The engine of a key; None where it is not there, or is damaged or another's: the log says which."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.warning("[engine] cannot read %s: %s; it is built again", path, error.strerror)
            return None
        problem, built = _parse(data, key)
        if problem:
            _logger.warning("[engine] %s %s; it is built again", path, problem)
        return built

    def write(self, key: EngineKey, built: BuiltEngine) -> Path:
        """Writes an engine, whole or not at all.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        header = {
            "key": key.facts,
            "sha256": hashlib.sha256(built.plan).hexdigest(),
            "weights": built.weights,
        }
        write_whole(self.path(key), _MAGIC + json.dumps(header).encode() + b"\n" + built.plan)
        return self.path(key)

    def check_room(self, least_bytes: int) -> None:
        """Checks that the folder can be written and has room, before the minutes that a build takes.

        Raises:
            OutputError: it cannot, or has not.
        """
        check_writable(self.folder)
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise output_error(self.folder, error) from error
        if free < least_bytes:
            needs = f"an engine needs about {least_bytes / 1e6:.0f}"
            what = f"{self.folder} has {free / 1e6:.0f} MB of space, {needs}"
            raise OutputError(
                "output", what, "free some space, or name another folder: PATCHCUT_TENSORRT=cache="
            )

    def why_not(self, key: EngineKey) -> str:
        """Why an engine of the same graph that lies here is not that of the key; "" where there is none."""
        for path in sorted(self.folder.glob(f"{Path(key.graph).stem}-*.engine")):
            header = _read_header(path)
            if header is None or header["key"].get("graph_sha256") != key.graph_sha256:
                continue
            theirs, ours = header["key"], key.facts
            for name in ours:
                if theirs.get(name) != ours[name]:
                    return f"{path.name} is of another {_NAMES[name]}: {theirs.get(name)}, here {ours[name]}"
        return ""

    @contextmanager
    def alone(self, key: EngineKey, say: Say) -> Iterator[None]:
        """A block that one process at a time is in; others wait. A process that is killed leaves it.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.path(key).with_suffix(".lock")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # engines are code
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            if not lock(held):
                say(f"waits for another process that builds {key.file}")
                fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def read_timings(self, key: EngineKey) -> bytes:
        """TensorRT's timing cache of a GPU and version; b"" where there is none yet, or a damaged one."""
        path = self._timings(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            _logger.warning("[engine] cannot read %s: %s; begins a new one", path, error.strerror)
            return b""
        begin = len(_TIMING_MAGIC) + _SHA256_BYTES
        timings = data[begin:]
        if data[:begin] != _TIMING_MAGIC + hashlib.sha256(timings).digest():
            _logger.warning("[engine] the timing cache %s is damaged; begins a new one", path)
            return b""
        return timings

    def write_timings(self, key: EngineKey, timings: bytes) -> None:
        """Keeps a timing cache; raises as `write`."""
        digest = hashlib.sha256(timings).digest()
        write_whole(self._timings(key), _TIMING_MAGIC + digest + timings)

    def _timings(self, key: EngineKey) -> Path:
        of = json.dumps([key.flavour, key.version, key.gpu, key.capability, key.driver])
        return self.folder / f"timings-{hashlib.sha256(of.encode()).hexdigest()[:_DIGEST_LETTERS]}.cache"


def _parse(data: bytes, key: EngineKey) -> tuple[str, BuiltEngine | None]:
    """What is wrong with a file, and the engine in it where nothing is."""
    header = _header(data)
    if header is None:
        return "is no engine of patchcut", None
    for name, ours in key.facts.items():
        if header["key"].get(name) != ours:
            return f"is of another {_NAMES[name]}: {header['key'].get(name)}, here {ours}", None
    plan = data[data.index(b"\n", len(_MAGIC)) + 1 :]
    if hashlib.sha256(plan).hexdigest() != header["sha256"]:
        return "is damaged", None
    return "", BuiltEngine(plan, str(header["weights"]))


def _read_header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            return _header(file.read(_HEADER_BYTES))
    except OSError:
        return None


def _header(data: bytes) -> dict[str, Any] | None:
    """What stands before the engine; None where the file has no such header."""
    line, newline, _ = data[len(_MAGIC) : _HEADER_BYTES].partition(b"\n")
    if not data.startswith(_MAGIC) or not newline:
        return None
    try:
        header = json.loads(line)
    except ValueError:
        return None
    known = isinstance(header, dict) and {"key", "sha256", "weights"} <= header.keys()
    return header if known and isinstance(header["key"], dict) else None
