"""What a segmenter is opened with: what its heads need, which rules hold, and whether devices go together."""

from __future__ import annotations

from collections.abc import Sequence

from patchcut.bundle import BackboneSpec, Bundle, BundleSpec, CalibrationSpec, HeadSpec
from patchcut.errors import OptionError
from patchcut.heads import Head, open_head
from patchcut.heads.no_concepts import CONCEPTS, NoConcepts
from patchcut.heads.prototypes import PrototypesHead
from patchcut.settings import Settings
from patchcut.stages import Rules


def backbone_of(spec: BundleSpec, chosen: Sequence[HeadSpec | Head]) -> str:
    """The name of the backbone that the trained ones of the heads share; the first where none is trained."""
    trained = [head for head in chosen if isinstance(head, HeadSpec)]
    names = list(dict.fromkeys(head.backbone for head in trained)) or list(spec.backbones)[:1]
    if len(names) > 1:
        what = f'must be of the backbone of "{trained[0].name}", {names[0]}, not of {names[1]}'
        raise OptionError("parts", what, "choose another head, or parts that are fitted, such as kmeans")
    return names[0]


def needs_of(backbone: BackboneSpec, heads: Sequence[Head]) -> list[str]:
    """The feature sets that the heads need, in the backbone's order; one that names none needs the first."""
    named = {name for head in heads for name in head.needs or list(backbone.features)[:1]}
    if unknown := sorted(named - set(backbone.features)):
        held = ", ".join(backbone.features)
        raise OptionError("head", f"needs the features {', '.join(unknown)}, the backbone has {held}")
    return [name for name in backbone.features if name in named]


def calibration_of(chosen: HeadSpec | Head) -> CalibrationSpec | None:
    """The calibration of the very head that runs."""
    return chosen.calibration if isinstance(chosen, HeadSpec) else None


def rules_of(calibration: CalibrationSpec | None, settings: Settings) -> Rules:
    """How regions score."""
    nothing_below = settings.nothing_below
    if nothing_below is None:
        nothing_below = 0.0 if calibration is None else calibration.nothing_below
    return Rules(settings.min_score, nothing_below, settings.single, calibration)


def check_devices(heads: Sequence[Head], device: str) -> None:
    """Checks that heads run where their features are made, or on the CPU; those for parts always do there.

    Raises:
        OptionError: '[head] "mine" runs on cuda, its features are on cpu'.
    """
    for option, head, where in zip(("head", "parts"), heads, (device, "cpu"), strict=False):
        if not {"cpu", where} & set(head.devices):
            runs = ", ".join(head.devices) or "no device"
            raise OptionError(option, f'"{head.name}" runs on {runs}, its features are on {where}')


def head_wanted(settings: Settings) -> str | Head:
    """The head that the settings ask for: "auto" is the one for concepts where some of them are named."""
    return CONCEPTS if settings.concepts and settings.head == "auto" else settings.head


def hidden_concepts(head: Head, settings: Settings) -> tuple[str, ...]:
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


def is_of_concepts(head: Head) -> bool:
    """Whether the columns of a head are concepts, which may be added and removed."""
    if isinstance(head, PrototypesHead):
        return head.spec.concepts is not None
    return isinstance(head, NoConcepts)


def foreground_for(bundle: Bundle, head: Head) -> tuple[Head, Head] | None:
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
