"""From folders of photographs and a backbone to a bundle whose head `concepts` names what it sees."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, ConceptsSpec, HeadSpec, open_bundle
from patchcut.bundle.tensors import dump_tensors
from patchcut.bundle.writing import rewrite_bundle, with_head
from patchcut.checks import check_choice, check_number, check_whole
from patchcut.concepts.collection import TEMPERATURE
from patchcut.concepts.names import check_name
from patchcut.errors import OptionError
from patchcut.heads import open_head
from patchcut.heads.base import MAX_SEED
from patchcut.heads.naming import ANYWHERE
from patchcut.heads.no_concepts import CONCEPTS
from patchcut.heads.prototypes import Prototypes
from patchcut.settings import Settings

from patchcut_export.concepts.archives import Archive, Space
from patchcut_export.concepts.boxes import read_boxes
from patchcut_export.concepts.held_out import Asked
from patchcut_export.concepts.language import Words, open_language
from patchcut_export.concepts.late_extractor import open_late
from patchcut_export.concepts.learning import Common, Learnt, Seeds, find_common, find_context, find_seeds
from patchcut_export.concepts.reading import Archives, Reader
from patchcut_export.concepts.sheets import write_concept_sheet
from patchcut_export.concepts.thresholds import Thresholds, calibrate, context_threshold
from patchcut_export.errors import ExportError
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar

RECIPES = ("default", "published")
# The median cosine of held-out photographs to the rest. Of 40 photographs of 21 things, or of anything, it
# is 0.16 to 0.18; of 50 of one thing, without other folders, 0.19 to 0.37.
NOTHING_IN_COMMON = 0.19
# What is promised: thresholds lie half-way between those that break either.
_KEEP, _REFUSE = 0.9, 0.8


@dataclass(frozen=True, kw_only=True)
class ConceptsPlan:
    """How concepts are made.

    Attributes:
        recipe: "default", or "published": the paper's co-segmentation, as it is.
        prototypes: vectors a concept.
        keep, refuse: shares of photographs that thresholds are half-way between: of a concept's own that
            keep a region, and of other things in which nothing is named.
        seed: of k-means.
    """

    recipe: str = "default"
    prototypes: int = 1
    keep: float = _KEEP
    refuse: float = _REFUSE
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("recipe", self.recipe, RECIPES)
        check_whole("prototypes", self.prototypes, 1, 64)
        check_number("keep", self.keep, 0, 1)
        check_number("refuse", self.refuse, 0, 1)
        check_whole("seed", self.seed, 0, MAX_SEED)


@dataclass(frozen=True, kw_only=True)
class ConceptsRequest:
    """What `patchcut export concept` was asked for.

    Attributes:
        archives: the folder of photographs of each concept, by its name, in the order of the columns.
        words: the names that are looked up in an index, whose columns are first, and what CLIP is at hand.
        boxes: a COCO JSON that says where concepts are on the photographs of their folders, or None.
        negatives: a folder of photographs of anything else, or None.
        without: names of photographs that are left out.
        settings: the bundle whose backbone makes the features, and how it runs.
        bundle: the file to write.
        work: folder for features and pictures.
        features: name of the feature set that tells what things are; None for "semantic".
        name: the new bundle's.
    """

    archives: Mapping[str, Path]
    words: Words | None = None
    boxes: Path | None = None
    negatives: Path | None = None
    without: tuple[str, ...] = ()
    settings: Settings
    bundle: Path
    work: Path
    features: str | None = None
    name: str


@dataclass(frozen=True, eq=False)
class Made:
    """The head of concepts, before it is in a bundle: what was learnt of them, and of the context."""

    prototypes: Prototypes
    learnt: tuple[Learnt, ...]
    context: tuple[Seeds, ...] = ()
    thresholds: Thresholds | None = field(default=None)

    def by_patch(self) -> Made:
        """The same, where each patch has the name that it is most like: limits are those of regions."""
        prototypes = replace(self.prototypes, thresholds=None, presence=None)
        return replace(self, prototypes=prototypes, thresholds=None)


def make_concepts(request: ConceptsRequest, plan: ConceptsPlan, bar: StepBar) -> None:
    """Caches features, finds what each folder's photographs have in common, writes the bundle.

    Raises:
        PatchcutError: naming what is wrong with the request; nothing is written then.
    """
    check_output_file(request.bundle)
    words = request.words
    boxes = None if request.boxes is None else read_boxes(request.boxes)
    check_names([*(words.names if words else ()), *request.archives])
    with open_bundle(request.settings.bundle) as bundle:
        semantic = semantic_set(bundle, request.features)
        foreground = _foreground(bundle)
        if foreground is None and plan.recipe == "default":
            what = f"{bundle.path} has no head for objects, which tells things from what is around them"
            raise ExportError("backbone", what, "name a bundle that has one, or take --recipe published")
        needs = tuple(dict.fromkeys([semantic, *(foreground.features if foreground else ())]))
        head = None if foreground is None else open_head(bundle, foreground)
        fit = bundle.spec.backbone.fit
        with open_language(words, request.settings, request.work / "language", fit) as language:
            extractor = open_late(bundle, request.settings, needs)
            reader = Reader(
                bundle, extractor, needs, head, language, request.work, request.without, bar, boxes
            )
            archives = reader.read(request.archives, request.negatives, words)
        started = time.monotonic()
        made = learn_concepts(archives, plan)
        check_common(archives.concepts, made, plan)
        if unseen := [one.name for one in archives.concepts if one.unseen]:
            made, foreground, needs = made.by_patch(), None, (semantic,)
            bar.say(f"the head for objects does not see {', '.join(unseen)}: every patch has a name")
        _tell(archives, made, bar)
        _draw(request.work / "concepts", archives, made)
        bar.say(f"drew {request.work / 'concepts'}/*.png; --without crosses out photographs")
        spec = _head_spec(plan, archives, made, needs, foreground, bundle)
        write_concepts(bundle, request.bundle, request.name, spec, made.prototypes)
        bar.say(f"{len(archives.concepts)} concepts in {time.monotonic() - started:.1f} s")
    bar.say(f"wrote {request.bundle}")


def check_names(names: Sequence[str]) -> None:
    """Checks that these can be names of concepts.

    Raises:
        OptionError: one is none, or comes twice; or there is none at all.
    """
    for name in names:
        check_name(name)
        if names.count(name) > 1:
            raise OptionError("name", f'must differ from concept to concept, got "{name}" twice')
    if not names:
        raise OptionError("name", "must name at least one concept", "patchcut export concept mug ...")


def semantic_set(bundle: Bundle, asked: str | None) -> str:
    """The feature set of patches that tells what things are: asked for, or "semantic".

    Raises:
        OptionError: there is none of that name, or it is of the whole image.
    """
    known = bundle.spec.backbone.features
    patches = [name for name, one in known.items() if one.of_patches]
    name = asked or "semantic"
    if name not in patches:
        make = "make it with `patchcut export backbone --features key,semantic=token@9,cls`"
        raise OptionError(
            "features", f"must be of patches: {', '.join(patches) or 'none is'}, got {name}", make
        )
    return name


def learn_concepts(archives: Archives, plan: ConceptsPlan) -> Made:
    """The concepts of archives whose features are there; the vectors of context are the background's."""
    own, space = archives.concepts, None if plan.recipe == "published" else Space.of(archives.every)
    context = find_context(archives.context, space)
    if space is None:
        learnt = tuple(find_seeds(one, space, context).learnt(space) for one in own)
        vectors, owners = _columns(_around(context, space), learnt)
        mean = np.zeros(vectors.shape[1], np.float32)
        return Made(Prototypes(vectors, mean, owners), learnt, tuple(context))
    common = [find_common(one, space, context) for one in own]
    others = [Common.nothing(one, space) for one in archives.negatives]
    asked = Asked(keep=plan.keep, refuse=plan.refuse, count=plan.prototypes, seed=plan.seed)
    made = calibrate(common, others, space, asked)
    around, background = _around(context, made.space), 0.0
    if context:
        vectors = np.concatenate([one.vectors for one in around])
        background = context_threshold(common, made.learnt, vectors, made.thresholds.values)
    vectors, owners = _columns(around, made.learnt)
    values = np.append(np.float32(background), made.thresholds.values)
    there = np.append(np.float32(ANYWHERE), made.thresholds.presence)
    prototypes = Prototypes(vectors, space.mean, owners, values, made.space.fold, there)
    return Made(prototypes, made.learnt, tuple(context), made.thresholds)


def _around(context: Sequence[Seeds], space: Space | None) -> list[Learnt]:
    return [one.learnt(space) for one in context]


def _columns(
    context: Sequence[Learnt], learnt: Sequence[Learnt]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """The vectors [p, d] of context and concepts, and the column [p] of each."""
    counts = [sum(len(one.vectors) for one in context), *(len(one.vectors) for one in learnt)]
    vectors = np.concatenate([one.vectors for one in (*context, *learnt)])
    return vectors, np.repeat(np.arange(len(counts)), counts).astype(np.int32)


def write_concepts(bundle: Bundle, path: Path, name: str, spec: HeadSpec, prototypes: Prototypes) -> None:
    """Writes a copy of a bundle with a head of concepts in the place of the one that it had."""
    changed = with_head(bundle.spec, spec).model_copy(update={"name": name})
    rewrite_bundle(bundle, path, changed, {spec.files["weights"]: dump_tensors(prototypes.tensors())})


def _foreground(bundle: Bundle) -> HeadSpec | None:
    """The first head for objects of the first backbone."""
    backbone = next(iter(bundle.spec.backbones))
    heads = (head for head in bundle.spec.heads if head.role == "objects" and head.backbone == backbone)
    return next(heads, None)


def check_common(archives: Sequence[Archive], made: Made, plan: ConceptsPlan) -> None:
    """Checks that each folder's photographs have something in common.

    Raises:
        ExportError: they have not.
    """
    if plan.recipe == "published":
        return
    for archive, learnt in zip(archives, made.learnt, strict=True):
        if not learnt.taken.any() or learnt.agreement < NOTHING_IN_COMMON:
            what = f'the photographs of "{archive.name}" in {archive.folder} have nothing in common'
            raise ExportError("archive", what, "give photographs of one kind of thing, each in full view")


def _tell(archives: Archives, made: Made, bar: StepBar) -> None:
    for archive, learnt in zip(archives.concepts, made.learnt, strict=True):
        taken = int(learnt.taken.any(axis=1).sum())
        guided = "" if archive.guide is None else ", guided by its name,"
        bar.say(
            f"{archive.name}: a part of {taken} of {len(archive.images)} photographs{guided} "
            f"which agree by {learnt.agreement:.2f}"
        )
    if archives.context:
        bar.say(f"context, which is background: {', '.join(one.name for one in archives.context)}")
    if (told := made.thresholds) is not None:
        refused = (
            "" if told.refused is None else f"; none is named in {told.refused:.0%} of other photographs"
        )
        bar.say(f"{told.kept:.0%} of the concepts' own photographs keep theirs, held out{refused}")


def _draw(folder: Path, archives: Archives, made: Made) -> None:
    """Draws what was taken of each concept, and of each context in a folder of its own."""
    found = [*zip(archives.concepts, made.learnt, strict=True)]
    around = [*zip(archives.context, made.context, strict=True)]
    for where, one in [(folder, one) for one in found] + [(folder / "context", one) for one in around]:
        archive, learnt = one
        sheet = where / f"{archive.name}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_concept_sheet(sheet, archive, learnt.taken, learnt.own)


def _head_spec(
    plan: ConceptsPlan,
    archives: Archives,
    made: Made,
    needs: tuple[str, ...],
    foreground: HeadSpec | None,
    bundle: Bundle,
) -> HeadSpec:
    """What the bundle says about the head."""
    concepts = archives.concepts
    origins = {one.name: f"co-segmented from {len(one.images)} photographs {one.origin}" for one in concepts}
    told = made.thresholds
    method = f"co-segmentation (2206.07045), recipe {plan.recipe}, {plan.prototypes} prototypes a concept"
    if any(one.guide is not None for one in concepts):
        method += ", guided by their names"
    if archives.context:
        method += f", less {', '.join(one.name for one in archives.context)}"
    if told is not None:
        method += f"; {told.kept:.0%} of own photographs keep their name"
        method += "" if told.refused is None else f", {told.refused:.0%} of others have none"
    return HeadSpec(
        name=CONCEPTS,
        kind="prototypes",
        role="names",
        backbone=next(iter(bundle.spec.backbones)),
        features=needs,
        labels=("background", *origins),
        temperature=TEMPERATURE,
        trained_on=f"{sum(len(one.images) for one in concepts):,} photographs, for each concept its own",
        method=f"{method}; seed {plan.seed}",
        concepts=ConceptsSpec(foreground=None if foreground is None else foreground.name, origins=origins),
        files={"weights": f"{CONCEPTS}.safetensors"},
    )
