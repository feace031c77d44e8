"""torch, the reference engine: it runs what the bundle's own ONNX graph says, on the CPU or with CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt
from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.engines import EngineFacts, choose_graph
from patchcut.engines.backbone_graph import read_graph
from patchcut.errors import BundleError, EngineError, install_hint
from patchcut.features import Array
from patchcut.settings import Settings
from patchcut_kernels import cuda, default_threads

if TYPE_CHECKING:
    import torch

    from patchcut_export.engines.onnx_program import OnnxProgram, Plan

# What "auto" takes of the files that a bundle has: the exact one first, this is the reference.
_FILES: Final[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8-qdq", "int8")
# Precisions that are made of the exact file by computing in fewer bits.
_CAST: Final[dict[str, str]] = {"fp16": "float16", "bf16": "bfloat16"}
_MAX_BATCH: Final = 64


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> TorchEngine:
    """A backbone of the bundle in torch.

    Precisions "fp16" and "bf16" are computed from the fp32 file where the bundle has one; "auto" is fp32 on
    the CPU, and with CUDA fp16 unless the bundle's report refuses it.

    Raises:
        EngineError: torch or onnx is missing, torch does not find the device, or cannot run the graph.
        OptionError: the bundle has no graph of the size or precision asked for.
        BundleError: the graph or its weights are not what `bundle.json` says.
    """
    torch = _import_torch()
    device = _choose_device(torch, settings.device)
    graph, precision = _choose(backbone, settings, device)
    program = _open_program(torch, bundle, backbone, graph, precision, device)
    facts = EngineFacts(
        name="torch",
        provider=f"torch {torch.__version__}",
        device=device,
        graph=graph,
        precision=precision,
        weights=precision,
        threads=settings.threads or default_threads(),
        max_batch=_MAX_BATCH,
    )
    names = {name: one.rows(graph.grid_hw) for name, one in backbone.features.items()}
    shapes = {name: (rows, backbone.features[name].dim) for name, rows in names.items()}
    place = Host() if device == "cpu" or not cuda.is_available() else OnDevice()
    return TorchEngine(program, facts, shapes, place)


class Host:
    """Images and features in host memory; torch copies them where it computes elsewhere."""

    stream: cuda.Stream | None = None

    def memory(self, shape: tuple[int, ...]) -> Array:
        """Zeros, [...] float32."""
        return np.zeros(shape, np.float32)

    def lent(self, array: Array) -> torch.Tensor:
        """The same memory as torch has it."""
        import torch

        return torch.from_numpy(cast("npt.NDArray[np.float32]", array))

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """What torch does inside is done in the order of the stream."""
        yield

    def give(self, work: Callable[[], None]) -> None:
        """Does the work, in the order of the stream."""
        work()


class OnDevice(Host):
    """Images and features on the GPU: torch shares the memory and the stream of the kernels."""

    def __init__(self) -> None:
        self.stream = cuda.Stream()

    def memory(self, shape: tuple[int, ...]) -> Array:
        """Zeros, [...] float32."""
        return cuda.to_device(np.zeros(shape, np.float32), stream=self.stream)

    def lent(self, array: Array) -> torch.Tensor:
        """The same memory as torch has it."""
        import torch

        with self.ordered():
            return torch.utils.dlpack.from_dlpack(array)

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """What torch does inside is done in the order of the stream."""
        import torch

        assert self.stream is not None
        with torch.cuda.stream(_as_torch(self.stream)):
            yield

    def capture(self, work: Callable[[], None]) -> cuda.Launchable:
        """The work that `work` gives to the stream, torch's and the kernels', as one graph."""
        import torch

        graph = torch.cuda.CUDAGraph()
        assert self.stream is not None
        stream = _as_torch(self.stream)
        with (
            cuda.graph_memory(self.stream) as memory,
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        return _TorchGraph(graph, memory)


class _TorchGraph:
    """A graph that torch has captured, with the memory that the kernels took in it."""

    def __init__(self, graph: Any, memory: cuda.GraphMemory) -> None:
        self._graph = graph
        self._memory = memory

    def launch(self, stream: Any) -> None:
        """Gives all of it to `stream`."""
        import torch

        with torch.cuda.stream(_as_torch(stream)):
            self._graph.replay()


def _as_torch(stream: cuda.Stream) -> Any:
    """The same stream as torch has it."""
    import torch

    open_stream: Any = torch.cuda.ExternalStream
    return open_stream(stream.handle)


class TorchEngine:
    """A backbone in torch; on a GPU its calls can be captured, as in `CapturableEngine`."""

    def __init__(
        self,
        program: OnnxProgram,
        facts: EngineFacts,
        shapes: Mapping[str, tuple[int, int]],
        place: Host,
    ) -> None:
        self.facts = facts
        self._program = program
        self._shapes = dict(shapes)
        self._place = place
        self._plans: dict[int, Plan] = {}
        self._bind(1)

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32, as in `Engine`."""
        if batch != self._batch:
            self._bind(batch)
        return self._images

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, rows, d] float32, as in `Engine`.

        Raises:
            EngineError: torch failed; its own message is kept.
        """
        self.images(batch)
        try:
            self._place.give(self._compute)
        except (RuntimeError, MemoryError) as error:
            what = f"torch failed to run {self.facts.graph.file}: {error}"
            remedy = "allow this process more memory, or pass fewer frames at once"
            raise EngineError("engine", what, remedy if _lacks_memory(error) else "") from error
        return self._features

    @property
    def capturable(self) -> bool:
        """Whether frames and features stay on the GPU, as in `CapturableEngine`."""
        return isinstance(self._place, OnDevice)

    def capture(self, work: Callable[[], None]) -> cuda.Launchable:
        """`work` as one graph of CUDA, as in `CapturableEngine`.

        Raises:
            EngineError, RuntimeError: such as where torch waits for the GPU within the graph.
        Examples:
            >>> graph = engine.capture(lambda: engine.run(1))
            >>> graph.launch(engine.images(1).stream)
        """
        assert isinstance(self._place, OnDevice)
        return self._place.capture(work)

    def _bind(self, batch: int) -> None:
        """Takes the memory of a batch, and prepares its calls."""
        height, width = self.facts.graph.size_hw
        shape = (batch, 3, height, width)
        self._batch = batch
        self._images = self._place.memory(shape)
        self._features = {name: self._place.memory((batch, *rows)) for name, rows in self._shapes.items()}
        self._lent = [self._place.lent(one) for one in (self._images, *self._features.values())]

    def _compute(self) -> None:
        images, *features = self._lent
        program = self._program
        with self._quietly(), self._place.ordered():
            plan = self._plans.get(self._batch)
            if plan is None:
                plan = self._plans[self._batch] = program.prepare(tuple(images.shape))
            made = plan(images.to(program.device, program.dtype))
            for out, one in zip(features, made, strict=True):
                out.copy_(one)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """No gradients, this engine's own threads, and float32 that is float32 on a GPU, too."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(self.facts.threads)
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                yield
        finally:
            torch.set_num_threads(threads)


def _import_torch() -> Any:
    try:
        import onnx  # noqa: F401
        import torch
    except ImportError as error:
        remedy = f'{install_hint("export")}, or pass engine="onnxruntime"'
        raise EngineError("engine", f"torch cannot be imported: {error}", remedy) from error
    return torch


def _choose_device(torch: Any, asked: str) -> str:
    """ "cpu" or "cuda".

    Raises:
        EngineError: torch does not find the device that was asked for.
    """
    if asked in ("gpu", "npu"):
        raise EngineError("device", f'torch runs on cpu and cuda, got "{asked}"', 'pass engine="openvino"')
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        built = torch.version.cuda
        why = f"is built for CUDA {built} and finds no GPU" if built else "is a build without CUDA"
        remedy = 'install a build of torch with CUDA on a machine that has it, or pass device="cpu"'
        raise EngineError("device", f"torch {torch.__version__} {why}", remedy)
    return "cuda" if asked != "cpu" and found else "cpu"


def _choose(backbone: BackboneSpec, settings: Settings, device: str) -> tuple[GraphSpec, Precision]:
    """The file that is read, and what is computed in."""
    asked = settings.precision
    if asked == "auto" and device == "cuda" and not _refused(backbone, "fp16"):
        asked = "fp16"
    if asked in _CAST:
        exact = choose_graph(backbone, replace(settings, precision="auto"), _FILES)
        if exact.precision == "fp32":
            return exact, cast("Precision", asked)
        asked = settings.precision
    graph = choose_graph(backbone, replace(settings, precision=asked), _FILES)
    return graph, graph.precision


def _refused(backbone: BackboneSpec, precision: str) -> bool:
    """Whether the bundle's report says that a precision is not accurate enough."""
    return any(row.precision == precision and not row.accepted for row in backbone.agreement)


def _open_program(
    torch: Any, bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, precision: str, device: str
) -> OnnxProgram:
    import onnx

    from patchcut_export.engines.onnx_program import GraphError, OnnxProgram

    read = read_graph(bundle, backbone, graph)
    is_cast = graph.precision == "fp32" and precision in _CAST
    dtype = getattr(torch, _CAST[precision]) if is_cast else None
    outputs = [one.output for one in backbone.features.values()]
    try:
        model = onnx.load_from_string(read.data)
        _check_interface(bundle, backbone, graph, model.graph)
        with torch.inference_mode():
            return OnnxProgram(model, read.tensors, outputs, device=torch.device(device), dtype=dtype)
    except (GraphError, MemoryError) as error:
        what = f"torch cannot run {graph.file} of {bundle.path}: {error}"
        raise EngineError("engine", what, 'pass engine="onnxruntime"') from error


def _check_interface(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, found: Any) -> None:
    """Checks that a graph of ONNX takes and makes what `bundle.json` says.

    Raises:
        BundleError: "... is foreign: backbone.onnx must have features [b, 256, 384] float32, got ...".
    """
    expected: dict[str, tuple[int, ...]] = {"image": (3, *graph.size_hw)}
    expected |= {one.output: (one.rows(graph.grid_hw), one.dim) for one in backbone.features.values()}
    values = {value.name: value.type.tensor_type for value in (*found.input, *found.output)}
    for name, shape in expected.items():
        value = values.get(name)
        sides = None if value is None else [side.dim_value for side in value.shape.dim]
        if value is None or value.elem_type != 1 or not _fits(sides, shape):
            came = "no such tensor" if value is None else f"type {value.elem_type} {sides}"
            wanted = f"{name} [b, {', '.join(map(str, shape))}] float32"
            what = f"{bundle.path} is foreign: {graph.file} must have {wanted}, got {came}"
            raise BundleError("bundle", what, "export the bundle again")


def _fits(found: list[int] | None, shape: tuple[int, ...]) -> bool:
    """Whether the sides of a graph's tensor, 0 where they are free, can be [b, *shape]."""
    if found is None or len(found) != len(shape) + 1:
        return False
    return all(not side or side == wanted for side, wanted in zip(found[1:], shape, strict=True))


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "alloc" in str(error)
