"""What a segmenter is opened with: what its heads need, which rules hold, and whether devices go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

import patchcut_kernels as kernels

from patchcut.bundle import BackboneSpec, Bundle, BundleSpec, CalibrationSpec, HeadSpec, open_bundle
from patchcut.endings import finished_first
from patchcut.errors import BundleError, OptionError
from patchcut.heads import DEFAULT_PARTS, FittedHead, Head, LiveHead, choose_head, choose_parts, open_head
from patchcut.heads.no_concepts import CONCEPTS, NoConcepts
from patchcut.heads.prototypes import PrototypesHead
from patchcut.settings import Settings
from patchcut.stages import Extractor, Masks, Parts, Rules

ConceptsHead: TypeAlias = PrototypesHead | NoConcepts

# The refiners of "auto": single frames stay as the papers' tables have them; in video borders hold still.
_REFINER_OF_FRAMES, _REFINER_OF_STREAMS = "none", "guided"


@dataclass(frozen=True, eq=False)
class OpenedConcepts:
    """What a segmenter that names things is opened with.

    Attributes:
        live: the head that runs, whose concepts may change.
        head: the bundle's.
        foreground: the head for objects, for frames and for what is shown of concepts; None if there is none.
        hidden: names of the bundle's concepts that are not told.
    """

    live: LiveHead
    head: ConceptsHead
    foreground: tuple[Head, Head] | None
    hidden: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Opened:
    """What settings open.

    Attributes:
        spec: the bundle's manifest.
        path: its file.
        extractor, head, parts, masks: the stages; `parts` is None in the mode "foreground".
        concepts: None where the head is none for concepts.
    """

    spec: BundleSpec
    path: Path
    extractor: Extractor
    head: Head
    parts: Parts | None
    masks: Masks
    concepts: OpenedConcepts | None = None


def open_stages(settings: Settings, beside: Opened | None = None) -> Opened:
    """The stages that the settings describe.

    Args:
        settings: whose engine is not looked at where `beside` is given.
        beside: opened before, from the same bundle: its extractor is shared.
    Raises:
        OptionError: a setting has a value that the bundle does not offer; the heads need features that
            `beside` was not opened for.
        BundleError: the bundle is missing, damaged, foreign or newer, or another than that of `beside`.
        EngineError: the engine's package or the device is not there.
    Examples:
        >>> opened = patchcut.opening.open_stages(patchcut.Settings(mode="parts", parts="kmeans:k=3"))
        >>> opened.head.name, opened.parts.head.k
        ('gnn', 3)
    """
    with finished_first(), open_bundle(settings.bundle if beside is None else beside.path) as bundle:
        if beside is not None and bundle.spec != beside.spec:
            what = f"{beside.path} holds another bundle than when it was loaded"
            raise BundleError("bundle", what, "load it again")
        chosen = [choose_head(bundle, _head_wanted(settings))]
        if settings.mode != "foreground":
            chosen.append(choose_parts(bundle, settings.parts))
        heads = [open_head(bundle, it) for it in chosen]
        concepts = _open_concepts(bundle, heads[0], settings)
        if concepts is not None:
            heads[0] = concepts.live
        background = None
        if settings.mode == "scene":
            background = heads[1] if isinstance(heads[1], FittedHead) else DEFAULT_PARTS
        backbone = _backbone_of(bundle.spec, chosen)
        needs = _needs_of(bundle.spec.backbones[backbone], [*heads, background] if background else heads)
        if beside is None:
            extractor = Extractor.open(bundle, settings, backbone=backbone, needs=needs)
        else:
            extractor = _shared_extractor(beside, backbone, needs)
        _check_devices(heads, extractor.device)
    if settings.threads is not None and beside is None:
        kernels.set_threads(settings.threads)
    calibration = (
        chosen[0].calibration if isinstance(chosen[0], HeadSpec) else None
    )  # of the very head that runs
    return Opened(
        bundle.spec,
        bundle.path,
        extractor,
        heads[0],
        Parts(heads[1], background) if heads[1:] else None,
        masks_of(bundle.spec, calibration, settings),
        concepts,
    )


def masks_of(spec: BundleSpec, calibration: CalibrationSpec | None, settings: Settings) -> Masks:
    """How an assignment of a single frame becomes regions."""
    refiner = refiner_of(settings, of_video=False)
    return Masks(spec.regions.min_area_patches, rules_of(calibration, settings), refiner)


def refiner_of(settings: Settings, *, of_video: bool) -> str:
    """The refiner that the settings ask for."""
    if settings.refine != "auto":
        return settings.refine
    return _REFINER_OF_STREAMS if of_video else _REFINER_OF_FRAMES


def _open_concepts(bundle: Bundle, head: Head, settings: Settings) -> OpenedConcepts | None:
    hidden = _hidden_concepts(head, settings)
    if not is_of_concepts(head):
        return None
    return OpenedConcepts(LiveHead(head), head, _foreground_for(bundle, head), hidden)


def _shared_extractor(beside: Opened, backbone: str, needs: Sequence[str]) -> Extractor:
    """That of `beside`, for heads that need no more than it gives.

    Raises:
        OptionError: they do.
    """
    own = beside.extractor.backbone
    same = own.graphs == beside.spec.backbones[backbone].graphs
    if lacking := [name for name in needs if not same or name not in own.features]:
        opened = f"this segmenter was opened for {', '.join(own.features)}"
        what = f"needs the features {', '.join(lacking)}, {opened}"
        raise OptionError("head", what, "load another segmenter with that head")
    return beside.extractor


def _backbone_of(spec: BundleSpec, chosen: Sequence[HeadSpec | Head]) -> str:
    """The name of the backbone that the trained ones of the heads share; the first where none is trained."""
    trained = [head for head in chosen if isinstance(head, HeadSpec)]
    names = list(dict.fromkeys(head.backbone for head in trained)) or list(spec.backbones)[:1]
    if len(names) > 1:
        what = f'must be of the backbone of "{trained[0].name}", {names[0]}, not of {names[1]}'
        raise OptionError("parts", what, "choose another head, or parts that are fitted, such as kmeans")
    return names[0]


def _needs_of(backbone: BackboneSpec, heads: Sequence[Head]) -> list[str]:
    """The feature sets that the heads need, in the backbone's order; one that names none needs the first."""
    named = {name for head in heads for name in head.needs or list(backbone.features)[:1]}
    if unknown := sorted(named - set(backbone.features)):
        held = ", ".join(backbone.features)
        raise OptionError("head", f"needs the features {', '.join(unknown)}, the backbone has {held}")
    return [name for name in backbone.features if name in named]


def rules_of(calibration: CalibrationSpec | None, settings: Settings) -> Rules:
    """How regions score."""
    nothing_below = settings.nothing_below
    if nothing_below is None:
        nothing_below = 0.0 if calibration is None else calibration.nothing_below
    return Rules(settings.min_score, nothing_below, settings.single, calibration)


def _check_devices(heads: Sequence[Head], device: str) -> None:
    """Checks that heads run where their features are made, or on the CPU; those for parts always do there.

    Raises:
        OptionError: '[head] "mine" runs on cuda, its features are on cpu'.
    """
    for option, head, where in zip(("head", "parts"), heads, (device, "cpu"), strict=False):
        if not {"cpu", where} & set(head.devices):
            runs = ", ".join(head.devices) or "no device"
            raise OptionError(option, f'"{head.name}" runs on {runs}, its features are on {where}')


def _head_wanted(settings: Settings) -> str | Head:
    """The head that the settings ask for: "auto" is the one for concepts where some of them are named."""
    return CONCEPTS if settings.concepts and settings.head == "auto" else settings.head


def _hidden_concepts(head: Head, settings: Settings) -> tuple[str, ...]:
    """The concepts of a head that are not told.

    Raises:
        OptionError: the head has none of such a name, or is none for concepts.
    """
    if not settings.concepts:
        return ()
    if not is_of_concepts(head):
        what = f'needs the head for concepts, got "{head.name}"'
        raise OptionError("concepts", what, f"--head {CONCEPTS}")
    wanted = [name.strip() for name in settings.concepts.split(",")]
    if unknown := [name for name in wanted if name not in head.labels[1:]]:
        held = ", ".join(head.labels[1:]) or "no concepts"
        raise OptionError("concepts", f'the bundle has no "{unknown[0]}", it has {held}')
    return tuple(name for name in head.labels[1:] if name not in wanted)


def is_of_concepts(head: Head) -> TypeGuard[ConceptsHead]:
    """Whether the columns of a head are concepts, which may be added and removed."""
    if isinstance(head, PrototypesHead):
        return head.spec.concepts is not None
    return isinstance(head, NoConcepts)


def _foreground_for(bundle: Bundle, head: Head) -> tuple[Head, Head] | None:
    """The head for objects, for frames and for what is shown of concepts; None if `head` has other features.

    Two, since a head computes in memory of its own, and things are shown while frames are segmented.
    """
    known = head.spec.concepts if isinstance(head, PrototypesHead) else None
    name = known.foreground if known is not None else None
    wanted = (one for one in bundle.spec.heads if name in (None, one.name) and one.role == "objects")
    objects = next(wanted, None)
    if objects is None or not set(objects.features) <= set(head.needs):
        return None
    return open_head(bundle, objects), open_head(bundle, objects)
