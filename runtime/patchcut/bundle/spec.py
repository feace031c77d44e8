"""What `bundle.json` says: schema 3, as models that check themselves. No file is touched here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

SCHEMA_VERSION: Final = 3

# "int8" rounds activations by their own range, frame by frame; "int8-qdq" by ranges that calibration found.
Precision = Literal["int8", "int8-qdq", "bf16", "fp16", "fp32"]
Facet = Literal[
    "key", "query", "value", "token", "cls", "attention", "embedding", "maskclip", "naclip", "mask"
]
Join = Literal["mean", "concat"]
Role = Literal["objects", "parts", "names"]

# The affinity of one frame's patches has the square of their number: 1 GiB.
MAX_PATCHES: Final = 1 << 14
MAX_FEATURES: Final = 1 << 28  # numbers of one frame
MAX_LABELS: Final = 1 << 10  # of a head
MAX_CELLS: Final = 8  # along a side of a patch

# Control characters, and those that turn the direction of writing: a terminal would obey them.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _check_text(text: str) -> str:
    if found := _STEERING.search(text):
        raise ValueError(f"must have no control characters, got {found[0]!r}")
    return text


Text = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_check_text)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_check_text)]
# A head is chosen by its name on the command line, as in "--head cc:alpha=5".
HeadName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(gt=0, le=8192)]
Dim = Annotated[int, Field(gt=0, le=1 << 16)]
SizeHw = tuple[Side, Side]
# Numbers that kernels compute with: they and their inverses are far from the limits of float32.
Moderate = Annotated[FiniteFloat, Field(ge=1e-6, le=1e6)]
Weight = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Cosine = Annotated[FiniteFloat, Field(ge=-1, le=1)]
# Of images whose values are from 0 to 1.
Mean = Annotated[FiniteFloat, Field(ge=-10, le=10)]
Deviation = Annotated[FiniteFloat, Field(ge=1e-3, le=1e3)]
Scale = Annotated[FiniteFloat, Field(ge=1 / 64, le=64)]

_WEIGHTS_TOLERANCE = 1e-6
# Facets that are one for the whole image.
_OF_IMAGE = ("cls", "embedding")
# The facet that is no feature: an assignment, which the graph itself computes.
_ASSIGNMENT = "mask"
# Files that a head of a known kind needs; of other kinds the runtime says that they are newer.
_HEAD_FILES = {"gnn": "weights", "levels": "weights", "prototypes": "weights"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReportRow(_Model):
    """One measured accuracy of this very bundle, how it was measured, and the command that repeats it.

    `head` is empty where the head whose report this is ran alone. Otherwise it says what ran, such as "cc" in
    a backbone's report, or "gnn, parts by parts".
    """

    dataset: Text
    metric: Text
    value: FiniteFloat
    size: PositiveInt
    precision: Precision
    images: PositiveInt
    refine: Text
    command: Text
    protocol: Text = ""
    head: Text = ""


class AgreementRow(_Model):
    """How near one feature set in a precision comes to fp32, as the export's gate measured it.

    Attributes:
        features: name of the feature set.
        engine: what computed it, with its version, such as "onnxruntime 1.32.0".
        images: how many were looked at; `data` says which.
        cosine_mean, cosine_worst: of a patch's features to fp32's; the worst of all patches of all images.
        affinity_correlation: Pearson's r between the affinities of patches, the least of all images.
        label_agreement: share of patches that the bundle's head labels alike; None without a head.
        iou, corloc: of the masks, where true ones were given, less fp32's own.
        accepted: whether it passed; where not, the export was made with --allow-inaccurate.
    """

    precision: Precision
    size: PositiveInt
    features: Name
    engine: Text
    images: PositiveInt
    data: Text
    cosine_mean: Cosine
    cosine_worst: Cosine
    affinity_correlation: Cosine
    label_agreement: Share | None = None
    iou: Cosine | None = None
    corloc: Cosine | None = None
    accepted: bool


class TimingRow(_Model):
    """How long a backbone took for one frame in an engine, beside others in the same run.

    Attributes:
        engine, precision, size, device: what ran, as settings name it.
        cpu: the CPU's kind, as `patchcut.engines.cpu_kind` names it; timings count on CPUs of that kind only.
        threads: CPU threads.
        ms: median, in milliseconds.
        machine: the machine and the engine's version, for people.
    """

    engine: Name
    precision: Precision
    size: PositiveInt
    device: Name
    cpu: Name
    threads: PositiveInt
    ms: Annotated[FiniteFloat, Field(gt=0)]
    machine: Text


class GraphSpec(_Model):
    """One ONNX graph of the backbone: `image` [b, 3, S, S] float32 to one output a feature set.

    `initializers` names the tensors of the weights file that the graph declares as external data.
    """

    file: Name
    size_hw: SizeHw
    grid_hw: SizeHw
    precision: Precision
    initializers: tuple[Name, ...] = ()


class FeatureComponent(_Model):
    """One activation of the ViT. Several are made unit length, times the root of `weight`, and joined."""

    facet: Facet
    layer: Annotated[int, Field(ge=0, lt=1000)]
    weight: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0


class FeatureSetSpec(_Model):
    """One kind of features, all of it computed inside the graphs.

    Attributes:
        output: name of the graphs' output, [b, rows, dim] float32: a row a patch, or one row for the image
            where the components are class tokens. The one component of attention has a number for each head.
            The one component "mask" is an assignment, rows on the simplex, with a number for each label.
        components: weights sum to 1, so that the cosine of two patches is the weighted mean of the
            components' cosines.
        scales: sides of the images that are looked at, each times the input's, in whole patches. Where there
            are several, each one's features come to the grid bilinearly and are made unit length; then they
            are joined.
        join: "mean", or "concat" times the root of 1 / scales.
        log_bins: rings of averaged neighbours around each patch, 8 of them in each, concatenated to its own
            features (Amir et al., 2112.05814); 0 is none.
        cells: along a side of a patch, c: an assignment has c * c rows a patch, in reading order of the grid
            that is so much finer. Features have one.
    """

    output: Name
    dim: Dim
    components: Annotated[tuple[FeatureComponent, ...], Field(min_length=1)]
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (1.0,)
    join: Join = "mean"
    log_bins: Annotated[int, Field(ge=0, le=64)] = 0
    cells: Annotated[int, Field(ge=1, le=MAX_CELLS)] = 1

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `cells` where they are one: so features are read by those that know no cells."""
        fields: dict[str, Any] = write(self)
        if self.cells == 1:
            fields.pop("cells", None)
        return fields

    @model_validator(mode="after")
    def _check_components(self) -> FeatureSetSpec:
        _check_unique("components", ((component.facet, component.layer) for component in self.components))
        if abs(sum(component.weight for component in self.components) - 1) > _WEIGHTS_TOLERANCE:
            raise ValueError("weights of the components must sum to 1")
        if self.of_image and (len(self.scales) > 1 or self.log_bins):
            raise ValueError("class tokens have one scale and no log bins")
        if not self.of_image and any(component.facet in _OF_IMAGE for component in self.components):
            raise ValueError("class tokens cannot be joined with features of patches")
        for facet, what in (("attention", "attention"), (_ASSIGNMENT, "an assignment")):
            if any(component.facet == facet for component in self.components):
                if len(self.components) > 1:
                    raise ValueError(f"{what} cannot be joined with other components")
                if len(self.scales) > 1 or self.log_bins:
                    raise ValueError(f"{what} has one scale and no log bins")
        if self.cells > 1 and not self.is_assignment:
            raise ValueError(f"features have one cell a patch, only an assignment has more, got {self.cells}")
        return self

    @property
    def of_image(self) -> bool:
        """Whether it has one row for the whole image, not one a patch."""
        return all(component.facet in _OF_IMAGE for component in self.components)

    @property
    def is_assignment(self) -> bool:
        """Whether it is an assignment that the graph computes, and no features."""
        return any(component.facet == _ASSIGNMENT for component in self.components)

    @property
    def of_patches(self) -> bool:
        """Whether it is features with a row a patch."""
        return not (self.of_image or self.is_assignment)

    def rows(self, grid_hw: tuple[int, int]) -> int:
        """Rows on a patch grid.

        Examples:
            >>> bundle.spec.backbone.default_features.rows((16, 16))
            256
        """
        return 1 if self.of_image else self.cells**2 * grid_hw[0] * grid_hw[1]


class BackboneSpec(_Model):
    """Where features come from, and the graphs that compute them; the first graph is the default.

    Attributes:
        model: timm's name of the architecture.
        stride: pixels from one patch to the next, less than the patch size where patches overlap; None is the
            patch size.
        features: every graph has each of them as an output; the first is the default. Assignments come last.
        report: accuracy of heads that are fitted to its features, whose words are each row's `head`.
        agreement: how near each precision comes to fp32.
        timings: how fast engines and precisions are, on kinds of CPUs on which that was measured.
    """

    model: Name
    source: Text
    source_sha256: Text
    licence: Text
    trained_on: Text
    patch_size: Side
    stride: Side | None = None
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    fit: Literal["stretch", "letterbox"]
    weights: Name | None = None
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1)]
    features: Annotated[dict[Name, FeatureSetSpec], Field(min_length=1)]
    report: tuple[ReportRow, ...] = ()
    agreement: tuple[AgreementRow, ...] = ()
    timings: tuple[TimingRow, ...] = ()

    @model_validator(mode="after")
    def _check_features(self) -> BackboneSpec:
        if self.stride is not None and self.stride > self.patch_size:
            raise ValueError(f"patches of {self.patch_size} pixels every {self.stride} leave gaps")
        _check_unique("outputs of the features", (features.output for features in self.features.values()))
        kinds = [features.is_assignment for features in self.features.values()]
        if kinds[0] or kinds != sorted(kinds):
            raise ValueError("features must come first, assignments after them")
        if not all(row.head for row in self.report):
            raise ValueError("each row of a backbone's report must name a head")
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

    @property
    def default_features(self) -> FeatureSetSpec:
        """The first feature set."""
        return next(iter(self.features.values()))

    def grid_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches that lie wholly in an image of `size_hw` pixels.

        Examples:
            >>> bundle.spec.backbone.grid_hw((224, 280))
            (16, 20)
        """
        patch, stride = self.patch_size, self.stride or self.patch_size
        height, width = ((side - patch) // stride + 1 for side in size_hw)
        return height, width

    def covered(self, size_hw: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """(begin, length) of each side of an image that its grid covers, in pixels; None for all of it.

        A patch stands for the `stride` pixels around its centre.
        Examples:
            >>> bundle.spec.backbone.model_copy(update={"stride": 7}).covered((224, 224))
            ((3.5, 217.0), (3.5, 217.0))
        """
        patch, stride = self.patch_size, self.stride or self.patch_size
        if patch == stride:
            return None
        rows, columns = self.grid_hw(size_hw)
        begin = (patch - stride) / 2
        return (begin, float(rows * stride)), (begin, float(columns * stride))

    def features_text(self, name: str) -> str:
        """A line for people about one of the feature sets.

        Examples:
            >>> bundle.spec.backbone.features_text("key")
            'key of layer 11, 384 a patch'
        """
        features = self.features[name]
        several = len(features.components) > 1
        components = [
            f"{component.weight:.3g} " * several + f"{component.facet} of layer {component.layer}"
            for component in features.components
        ]
        said = [" + ".join(components)]
        if self.stride not in (None, self.patch_size):
            said.append(f"patches every {self.stride} pixels")
        if features.scales != (1.0,):
            joined = {"mean": "averaged", "concat": "concatenated"}[features.join]
            scales = ", ".join(f"{scale:g}" for scale in features.scales)
            said.append(f"scales {scales} {joined}" if len(features.scales) > 1 else f"scale {scales}")
        if features.log_bins:
            said.append(f"log-binned in {1 + 8 * features.log_bins}")
        if features.is_assignment:
            cells = f"{features.cells} x {features.cells} cells of " if features.cells > 1 else ""
            return ", ".join([*said, f"an assignment of {cells}each patch to {features.dim} columns"])
        return ", ".join([*said, f"{features.dim} {'an image' if features.of_image else 'a patch'}"])


class AffinitySpec(_Model):
    """How features are compared; the arguments of `patchcut_kernels.affinity`."""

    kind: Literal["cosine", "dot"] = "cosine"
    mode: Literal["ncut", "cc"] = "ncut"
    threshold: Annotated[FiniteFloat, Field(ge=0, le=1e6)] = 0.0
    alpha: Moderate = 3.0


class CalibrationSpec(_Model):
    """Logistic regression that turns features of a region into the probability that it is an object.

    `weights` are those of `patchcut.stages.regions.region_features`. Regions that score less than
    `nothing_below` are none.
    """

    weights: tuple[Weight, Weight, Weight, Weight]
    bias: Weight
    nothing_below: Share
    fitted_on: Text = ""


class ConceptsSpec(_Model):
    """How a head of prototypes finds concepts.

    Attributes:
        foreground: name of the head for objects whose foreground is looked at; None looks at every patch.
        origins: where each concept came from, by its name.
        colors: number of the colour of each concept, by its name, as `patchcut.output.overlay.color_of` takes
            it: so they stay when others are removed. Those that are not named have their column's.
    """

    foreground: HeadName | None = None
    origins: dict[Name, Text] = {}
    colors: dict[Name, PositiveInt] = {}


class HeadSpec(_Model):
    """A trained head; column i of its assignment is `labels[i]`.

    Attributes:
        role: "objects": column 0 is background. "parts": every column is a part; it tells them apart on
            patches that are known as foreground. "names": column 0 is background, every other one a name.
        backbone: name of the backbone whose features it was trained on.
        features: names of the feature sets that it needs; the first tells what resembles what. A "decoder"
            has its assignment in the last one.
        calibration: makes probabilities of its regions' scores; without one they only rank.
        concepts: of a head of prototypes, if those are concepts and not clusters.
        report: accuracy of its columns.
        files: its members by what they hold, such as {"weights": "head.safetensors"}.
    """

    name: HeadName
    kind: Name
    role: Role = "objects"
    backbone: Name
    features: Annotated[tuple[Name, ...], Field(min_length=1)]
    affinity: AffinitySpec = AffinitySpec()
    labels: Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_LABELS)]
    normalize: bool = True
    temperature: Moderate = 1.0
    trained_on: Text = ""
    method: Text = ""
    calibration: CalibrationSpec | None = None
    concepts: ConceptsSpec | None = None
    report: tuple[ReportRow, ...] = ()
    files: dict[Name, Name] = {}

    @model_validator(mode="after")
    def _check_names(self) -> HeadSpec:
        if self.name == "auto":
            raise ValueError('"auto" is the first head, and no head\'s name')
        _check_unique("labels", self.labels)
        _check_unique("features", self.features)
        needed = _HEAD_FILES.get(self.kind)
        if needed is not None and needed not in self.files:
            raise ValueError(f'a head of kind "{self.kind}" must have the file "{needed}"')
        return self


class RegionsSpec(_Model):
    """Components smaller than `min_area_patches` patches are background."""

    min_area_patches: Annotated[FiniteFloat, Field(ge=0)] = 0.5


class TextSpec(_Model):
    """The text tower of a dual encoder such as CLIP: texts to embeddings among those of a backbone's images.

    It serves making concepts and searching, offline; no head needs it.

    Attributes:
        backbone: name of the image tower, one of the bundle's backbones.
        features: names of its feature sets in the space of the texts.
        file: ONNX graph, `tokens` [b, context_length] int64 to `text` [b, dim] float32, of any length.
        weights, initializers: as a backbone's and its graphs'.
        tokenizer: a `tokenizer.json` of the library tokenizers.
        clean: what is done to a text before: white space made one, then "lower" letters, or "canonicalize":
            lower letters and no punctuation, or no more than that ("whitespace").
        start, end: tokens that are put around a text's; None where the tokenizer does that.
        pad: the token that fills up.
        scale, bias: the logit of an image and a text is scale * cosine + bias.
    """

    backbone: Name
    features: Annotated[tuple[Name, ...], Field(min_length=1)]
    file: Name
    weights: Name
    initializers: tuple[Name, ...] = ()
    tokenizer: Name
    clean: Literal["lower", "whitespace", "canonicalize"] = "lower"
    context_length: Annotated[int, Field(ge=3, le=1 << 14)]
    start: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=0)] | None = None
    pad: Annotated[int, Field(ge=0)] = 0
    dim: Dim
    scale: FiniteFloat
    bias: FiniteFloat = 0.0


class FileSpec(_Model):
    """Checksum and size of one member."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class BundleSpec(_Model):
    """All of `bundle.json`; of backbones, and of heads of one role, the first is the default."""

    schema_version: Literal[3] = SCHEMA_VERSION
    name: Name
    description: Text
    backbones: Annotated[dict[Name, BackboneSpec], Field(min_length=1)]
    heads: tuple[HeadSpec, ...] = ()
    regions: RegionsSpec = RegionsSpec()
    text: TextSpec | None = None
    card: Name | None = None
    files: dict[Name, FileSpec]

    @model_validator(mode="after")
    def _check_heads(self) -> BundleSpec:
        _check_unique("names of the heads", (head.name for head in self.heads))
        for head in self.heads:
            if head.backbone not in self.backbones:
                raise ValueError(f"head {head.name}: there is no backbone {head.backbone}")
            if missing := sorted(set(head.features) - set(self.backbones[head.backbone].features)):
                raise ValueError(f"head {head.name}: {head.backbone} has no features {', '.join(missing)}")
            _check_assignment(head, self.backbones[head.backbone])
            if head.concepts is not None and head.concepts.foreground is not None:
                self._check_foreground(head, head.concepts.foreground)
        return self

    def _check_foreground(self, head: HeadSpec, name: str) -> None:
        found = next((one for one in self.heads if one.name == name and one.role == "objects"), None)
        if found is None:
            raise ValueError(f"head {head.name}: there is no head {name} for objects, its foreground")
        if found.backbone != head.backbone or not set(found.features) <= set(head.features):
            raise ValueError(f"head {head.name}: must need the features of {name}, its foreground")

    @model_validator(mode="after")
    def _check_text(self) -> BundleSpec:
        if (text := self.text) is None:
            return self
        if text.backbone not in self.backbones:
            raise ValueError(f"text: there is no backbone {text.backbone}")
        features = self.backbones[text.backbone].features
        for name in text.features:
            if name not in features or features[name].dim != text.dim:
                raise ValueError(f"text: {text.backbone} has no features {name} of {text.dim} numbers")
        return self

    @model_validator(mode="after")
    def _check_grids(self) -> BundleSpec:
        least = self.regions.min_area_patches
        for backbone in self.backbones.values():
            dim = max(features.cells**2 * features.dim for features in backbone.features.values())
            for graph in backbone.graphs:
                patches = graph.grid_hw[0] * graph.grid_hw[1]
                if patches > MAX_PATCHES or patches * dim > MAX_FEATURES:
                    limits = f"the limits are {MAX_PATCHES:,} and {MAX_FEATURES:,} numbers"
                    raise ValueError(f"{graph.file}: has {patches:,} patches of {dim:,}, {limits}")
                if least > patches:
                    raise ValueError(f"{graph.file}: has {patches} patches, no region has {least:g}")
        return self

    @model_validator(mode="after")
    def _check_files(self) -> BundleSpec:
        if missing := sorted(self.members() - set(self.files)):
            raise ValueError(f"`files` does not list {', '.join(missing)}")
        return self

    @property
    def backbone(self) -> BackboneSpec:
        """The first backbone."""
        return next(iter(self.backbones.values()))

    def head(self, role: Role = "objects") -> HeadSpec | None:
        """The first head of a role.

        Examples:
            >>> bundle.spec.head("objects").labels
            ('background', 'foreground')
        """
        return next((head for head in self.heads if head.role == role), None)

    def members(self) -> set[str]:
        """The members that backbones, heads, text tower and card name.

        Examples:
            >>> "head.safetensors" in bundle.spec.members()
            True
        """
        named = {graph.file for backbone in self.backbones.values() for graph in backbone.graphs}
        named.update(file for head in self.heads for file in head.files.values())
        named.update(backbone.weights for backbone in self.backbones.values() if backbone.weights)
        if self.text is not None:
            named |= {self.text.file, self.text.weights, self.text.tokenizer}
        return named | ({self.card} if self.card else set())


def _check_assignment(head: HeadSpec, backbone: BackboneSpec) -> None:
    """Checks that a decoder has its assignment last, and that no head takes one for features.

    Raises:
        ValueError: it does not fit.
    """
    *features, last = (backbone.features[name] for name in head.features)
    first = (*features, last)[0]
    if first.is_assignment:
        raise ValueError(f"head {head.name}: must need features first, {head.features[0]} is an assignment")
    if head.kind != "decoder":
        return
    if not last.is_assignment:
        what = f'must need an assignment last, a set of the facet "{_ASSIGNMENT}"'
        raise ValueError(f"head {head.name}: {what}, got {', '.join(head.features)}")
    if last.dim != len(head.labels):
        what = f"{head.features[-1]} has {last.dim} columns, the head {len(head.labels)} labels"
        raise ValueError(f"head {head.name}: {what}")


def _check_unique(what: str, names: Iterable[object]) -> None:
    """Checks that none comes twice; raises ValueError."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{what} must differ, got {twice[0]} twice")
