"""Bundles: one `.patchcut` file with all a segmenter needs, read as if a stranger had made it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, NoReturn

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError, model_validator

from patchcut.errors import BundleError

SCHEMA_VERSION: Final = 2
MANIFEST = "bundle.json"
EMBEDDED = Path(__file__).parent / "embedded" / "default.patchcut"

Precision = Literal["int8", "fp16", "fp32"]
Facet = Literal["key", "query", "value", "token"]
Join = Literal["mean", "concat"]

MAX_TOTAL_BYTES = 4 << 30
MAX_MANIFEST_BYTES = 4 << 20
# Members up to this size are all checked when a bundle is opened; larger ones (weights) when they are read,
# so that an engine that uses one graph of many does not pay for hashing the rest.
EAGER_BYTES = 8 << 20

_WEIGHTS_TOLERANCE = 1e-6

_DAMAGED = "copy or download it again"
_FOREIGN = "make one with `patchcut export`"
_NEWER = "upgrade patchcut: pip install -U patchcut"

Name = Annotated[str, Field(min_length=1, max_length=256)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(gt=0, le=8192)]
SizeHw = tuple[Side, Side]
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Temperature = Annotated[FiniteFloat, Field(ge=1e-6)]  # its inverse, too, must be finite in float32
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Rgb = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraphSpec(_Model):
    """One ONNX graph of the backbone: `image` [b, 3, S, S] float32 to `features` [b, n, d] float32.

    `initializers` names the tensors of the weights file that the graph declares as external data.
    """

    file: Name
    size_hw: SizeHw
    grid_hw: SizeHw
    precision: Precision
    initializers: tuple[str, ...] = ()


class FeaturePart(_Model):
    """One of several activations that are made unit length, times the root of `weight`, and concatenated."""

    facet: Facet
    layer: Annotated[int, Field(ge=0)]
    weight: Annotated[FiniteFloat, Field(gt=0, le=1)]


class BackboneSpec(_Model):
    """Where the features come from, and the graphs that compute them; the first is the default.

    All that is said of features is inside the graphs: whoever runs one sees [n, d] and a grid.

    Attributes:
        facet, layer: the activation; of several `parts` the first.
        parts: the activations where there are several; their weights sum to 1, so that the cosine of two
            patches is the weighted mean of the parts' cosines.
        stride: pixels from one patch to the next, less than the patch size where patches overlap; None is the
            patch size.
        scales: sides of the images that are looked at, each times the input's, in whole patches. Where there
            are several, each one's features come to the grid bilinearly and are made unit length; then they
            are joined.
        join: "mean", or "concat" times the root of 1 / scales.
        log_bins: rings of averaged neighbours around each patch, 8 of them in each, concatenated to its own
            features (Amir et al., 2112.05814); 0 is none.
    """

    name: Name
    source: str
    source_sha256: str
    licence: str
    trained_on: str
    facet: Facet
    layer: int
    patch_size: PositiveInt
    feature_dim: PositiveInt
    mean: Rgb
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    fit: Literal["stretch", "letterbox"]
    weights: Name | None = None
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1)]
    parts: tuple[FeaturePart, ...] = ()
    stride: PositiveInt | None = None
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    join: Join = "mean"
    log_bins: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_features(self) -> BackboneSpec:
        if self.stride is not None and self.stride > self.patch_size:
            raise ValueError(f"patches of {self.patch_size} pixels every {self.stride} leave gaps")
        kinds = [(part.facet, part.layer) for part in self.parts]
        if len(set(kinds)) != len(kinds) or kinds[:1] not in ([], [(self.facet, self.layer)]):
            raise ValueError(f"parts must differ and begin with {self.facet} of layer {self.layer}")
        if self.parts and abs(sum(part.weight for part in self.parts) - 1) > _WEIGHTS_TOLERANCE:
            raise ValueError("weights of the parts must sum to 1")
        return self

    @model_validator(mode="after")
    def _check_graphs(self) -> BackboneSpec:
        seen = set()
        for graph in self.graphs:
            if self.grid_hw(graph.size_hw) != graph.grid_hw:
                raise ValueError(f"{graph.file}: size {graph.size_hw} does not give grid {graph.grid_hw}")
            if graph.initializers and self.weights is None:
                raise ValueError(f"{graph.file}: names initializers, but there is no weights file")
            if (graph.size_hw, graph.precision) in seen:
                raise ValueError(f"{graph.file}: a second graph of size {graph.size_hw} in {graph.precision}")
            seen.add((graph.size_hw, graph.precision))
        return self

    def grid_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches that lie wholly in an image of `size_hw` pixels."""
        patch, stride = self.patch_size, self.stride or self.patch_size
        height, width = ((side - patch) // stride + 1 for side in size_hw)
        return height, width

    def covered(self, size_hw: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """(begin, length) of each side of an image that its grid covers, in pixels; None for all of it.

        A patch stands for the `stride` pixels around its centre.
        """
        patch, stride = self.patch_size, self.stride or self.patch_size
        if patch == stride:
            return None
        rows, columns = self.grid_hw(size_hw)
        begin = (patch - stride) / 2
        return (begin, float(rows * stride)), (begin, float(columns * stride))

    @property
    def features_text(self) -> str:
        """What the features are, in a line for people."""
        parts = [f"{part.weight:.3g} {part.facet} of layer {part.layer}" for part in self.parts]
        said = [" + ".join(parts) or f"{self.facet} of layer {self.layer}"]
        if self.stride not in (None, self.patch_size):
            said.append(f"patches every {self.stride} pixels")
        if self.scales != (1.0,):
            joined = {"mean": "averaged", "concat": "concatenated"}[self.join]
            scales = ", ".join(f"{scale:g}" for scale in self.scales)
            said.append(f"scales {scales} {joined}" if len(self.scales) > 1 else f"scale {scales}")
        if self.log_bins:
            said.append(f"log-binned in {1 + 8 * self.log_bins}")
        return ", ".join([*said, f"{self.feature_dim} a patch"])


class AffinitySpec(_Model):
    """How features are compared; the arguments of `patchcut_kernels.affinity`."""

    kind: Literal["cosine", "dot"] = "cosine"
    mode: Literal["ncut", "cc"] = "ncut"
    threshold: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    alpha: PositiveFloat = 3.0


class HeadSpec(_Model):
    """A trained head; column i of its assignment is `labels[i]`, column 0 is background.

    Of a head for parts every column is a part; it tells them apart on patches that are known as foreground.
    """

    kind: Name
    file: Name
    labels: Annotated[tuple[Name, ...], Field(min_length=2)]
    normalize: bool = True
    temperature: Temperature = 1.0
    trained_on: str = ""
    method: str = ""

    @model_validator(mode="after")
    def _check_labels(self) -> HeadSpec:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must differ, got {self.labels}")
        return self


class CalibrationSpec(_Model):
    """Logistic regression that turns what a region looks like into the probability that it is an object.

    `weights` are those of `patchcut.stages.regions.region_features`. A frame none of whose regions is at
    least `nothing_below` has no regions.
    """

    weights: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    bias: FiniteFloat
    nothing_below: Share
    fitted_on: str = ""


class RegionsSpec(_Model):
    """Components smaller than `min_area_patches` patches are background.

    Without a calibration, which holds for the bundle's own head alone, scores rank and are no probabilities.
    """

    min_area_patches: Annotated[FiniteFloat, Field(ge=0)] = 0.5
    calibration: CalibrationSpec | None = None


class ReportRow(_Model):
    """One measured accuracy of this very bundle, how it was measured, and the command that repeats it.

    `head` names another head than the bundle's own, such as "cc".
    """

    dataset: str
    metric: str
    value: FiniteFloat
    size: PositiveInt
    precision: Precision
    images: PositiveInt
    refine: str
    command: str
    protocol: str = ""
    head: str = ""


class FileSpec(_Model):
    """Checksum and size of one member."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class BundleSpec(_Model):
    """All of `bundle.json`.

    Version 2 added the choices of features, `parts`, `regions.calibration` and `report.head`.
    """

    schema_version: Literal[1, 2]
    name: Name
    description: str
    backbone: BackboneSpec
    affinity: AffinitySpec = AffinitySpec()
    head: HeadSpec | None = None
    parts: HeadSpec | None = None
    regions: RegionsSpec = RegionsSpec()
    report: tuple[ReportRow, ...] = ()
    card: Name | None = None
    files: dict[str, FileSpec]

    @model_validator(mode="after")
    def _check_files(self) -> BundleSpec:
        named = [graph.file for graph in self.backbone.graphs]
        named += [head.file for head in (self.head, self.parts) if head]
        named += [name for name in (self.backbone.weights, self.card) if name]
        missing = sorted(set(named) - set(self.files))
        if missing:
            raise ValueError(f"`files` does not list {', '.join(missing)}")
        return self


class Bundle:
    """An open bundle: its manifest is checked, and so is every member before its bytes are handed out.

    Attributes:
        path: the file.
        spec: its `bundle.json`.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, spec: BundleSpec) -> None:
        self.path = path
        self.spec = spec
        self._archive = archive

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; `spec` stays."""
        self._archive.close()

    def read(self, name: str) -> bytes:
        """The bytes of one member, after its size and sha256 were found right.

        Raises:
            BundleError: the member is not there, or damaged.
        """
        if name not in self.spec.files:
            _fail(self.path, f"has no member {name}", f"it has: {', '.join(sorted(self.spec.files))}")
        data = _read_member(self.path, self._archive, name)
        if hashlib.sha256(data).hexdigest() != self.spec.files[name].sha256:
            _damaged(self.path, f"{name} has another sha256 than {MANIFEST} says")
        return data

    def read_tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The tensors of one safetensors member, by name.

        Raises:
            BundleError: the member is not there, damaged, or no safetensors file.
        """
        from safetensors.numpy import load

        data = self.read(name)
        try:
            return load(data)
        except Exception as error:  # the reader raises many kinds; all mean the same here
            _foreign(self.path, f"{name} cannot be read as safetensors: {error}")

    def verify(self) -> None:
        """Reads every member; what `open_bundle` leaves until it is needed is checked too.

        Raises:
            BundleError: the first damaged member.
        """
        for name in self.spec.files:
            self.read(name)


def open_bundle(path: str | Path | None = None) -> Bundle:
    """The bundle at `path`, or the embedded one for None.

    Nothing is unpacked. The members must be exactly those that `bundle.json` lists, uncompressed, and no
    larger than the file; those up to 8 MiB are checked against their sha256 now, larger ones when read.

    Raises:
        BundleError: the file is not there, damaged, foreign, or from a newer patchcut; it says which.
    """
    if path is None and not EMBEDDED.is_file():
        raise BundleError(
            "bundle", "this installation holds no embedded bundle", "pass the path of a .patchcut file"
        )
    path = EMBEDDED if path is None else Path(path)
    archive = _open_archive(path)
    try:
        infos = _check_members(path, archive.infolist())
        spec = _parse_manifest(path, _read_member(path, archive, MANIFEST))
        _check_sizes(path, infos, spec)
        bundle = Bundle(path, archive, spec)
        for name, file in spec.files.items():
            if file.bytes <= EAGER_BYTES:
                bundle.read(name)
    except BaseException:
        archive.close()
        raise
    return bundle


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise BundleError("bundle", f"cannot open {path}: {error.strerror}", "check the path") from error
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if magic == b"PK\x03\x04":
            _damaged(
                path, f"it starts as a bundle but its directory cannot be read, as if cut short ({error})"
            )
        _foreign(path, "it is no zip archive")


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members by name, all of them plain, stored, and together no larger than the file."""
    for info in infos:
        _check_member(path, info)
    names = Counter(info.filename for info in infos)
    _check_none(path, "has more than one", {name for name, times in names.items() if times > 1})
    if MANIFEST not in names:
        _foreign(path, f"it has no {MANIFEST}")
    claimed, held = sum(info.file_size for info in infos), path.stat().st_size
    if claimed > MAX_TOTAL_BYTES:
        _foreign(path, f"its members claim {claimed:,} bytes, the limit is {MAX_TOTAL_BYTES:,}")
    if claimed > held:
        _damaged(path, f"its members claim {claimed:,} bytes, the file has {held:,}")
    return {info.filename: info for info in infos}


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    # ZipInfo cuts a name at a NUL byte and keeps the whole in orig_filename
    parts = PurePosixPath(name).parts
    if name != info.orig_filename or "\\" in name or ":" in name or name.startswith("/") or ".." in parts:
        _foreign(path, f"its member {name!r} has a path that leaves the bundle")
    if info.is_dir() or info.flag_bits & 0x1:
        _foreign(path, f"its member {name!r} is a folder or encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        _foreign(path, f"its member {name!r} is compressed; members of a bundle are stored as they are")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if name == MANIFEST and info.file_size > MAX_MANIFEST_BYTES:
        _foreign(path, f"its {MANIFEST} has {info.file_size:,} bytes, the limit is {MAX_MANIFEST_BYTES:,}")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        _damaged(path, f"{name} cannot be read: {error}")


def _parse_manifest(path: Path, data: bytes) -> BundleSpec:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        _damaged(path, f"{MANIFEST} is not JSON: {error}")
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        _foreign(path, f"{MANIFEST} has no schema_version")
    if version > SCHEMA_VERSION:
        known = f"this one reads up to {SCHEMA_VERSION}"
        _fail(path, f"was made by a newer patchcut: schema_version is {version}, {known}", _NEWER)
    try:
        return BundleSpec.model_validate(fields)
    except ValidationError as error:
        _fail_schema(path, error)


def _fail_schema(path: Path, error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "bundle"
    if first["type"] == "extra_forbidden":
        what = f"is foreign or newer: {MANIFEST} has a key that this patchcut does not know: {where}"
        _fail(path, what, f"{_NEWER}, or export the bundle again")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    _foreign(path, f"{MANIFEST} is not valid at {where}: {first['msg']}{more}")


def _check_sizes(path: Path, infos: dict[str, zipfile.ZipInfo], spec: BundleSpec) -> None:
    held = set(infos) - {MANIFEST}
    _check_none(path, "does not hold", set(spec.files) - held)
    _check_none(path, f"holds, and {MANIFEST} does not list,", held - set(spec.files))
    for name, file in spec.files.items():
        if infos[name].file_size != file.bytes:
            _damaged(path, f"{name} has {infos[name].file_size:,} bytes, {MANIFEST} says {file.bytes:,}")


def _check_none(path: Path, what: str, names: Iterable[str]) -> None:
    if listed := ", ".join(sorted(names)):
        _damaged(path, f"it {what} {listed}")


def _damaged(path: Path, what: str) -> NoReturn:
    _fail(path, f"is damaged: {what}", _DAMAGED)


def _foreign(path: Path, what: str) -> NoReturn:
    _fail(path, f"is foreign, not a bundle that patchcut made: {what}", _FOREIGN)


def _fail(path: Path, what: str, remedy: str) -> NoReturn:
    raise BundleError("bundle", f"{path} {what}", remedy) from None
