"""What `patchcut export levels` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchcut.bundle import Bundle
from patchcut.checks import check_choice, check_number, check_whole
from patchcut.errors import OptionError
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.levels import LEVELS
from patchcut.settings import Settings

from patchcut_export.clustering.steps import Steps
from patchcut_export.errors import ExportError
from patchcut_export.levels.sides import overruled
from patchcut_export.training.extraction import Extraction


@dataclass(frozen=True, kw_only=True)
class LevelsPlan:
    """How the levels are made.

    Attributes:
        clusters: K of each level.
        foreground: which of the K are foreground; None to decide it without labels.
        categories: groups of images; None to choose their number by silhouette.
        names: C; None to choose it by silhouette.
        levels: those that vote.
        dataset_only: the K clusters of all patches alone, each of which is a name.
        temperature: of the votes.
        threshold: cosines at or below it do not average the votes of patches.
        refine: moves borders before regions are named.
        seed: of all draws.
    """

    clusters: int = 2
    foreground: tuple[int, ...] | None = None
    categories: int | None = None
    names: int | None = None
    levels: tuple[str, ...] = LEVELS
    dataset_only: bool = False
    temperature: float = 0.2
    threshold: float = 0.6
    refine: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("clusters", self.clusters, 2, MAX_COLUMNS)
        if self.categories is not None:
            check_whole("categories", self.categories, 1, 10_000)
        if self.names is not None:
            check_whole("names", self.names, 1, MAX_COLUMNS - 1)
        if not self.levels:
            raise OptionError("levels", f"must be some of {', '.join(LEVELS)}")
        for level in self.levels:
            check_choice("levels", level, LEVELS)
        check_number("temperature", self.temperature, 1e-3, 10)
        check_number("threshold", self.threshold, 0, 1)
        check_whole("seed", self.seed, 0, MAX_SEED)
        if self.foreground is not None:
            overruled(self.clusters, self.foreground)


@dataclass(frozen=True, kw_only=True)
class LevelsRequest:
    """What `patchcut export levels` was asked for.

    Attributes:
        images: folder of unlabelled images.
        settings: the bundle whose backbone makes the features, and how it runs.
        bundle: the file to write.
        work: folder for features, clusters and contact sheets.
        sets: names of the feature sets for the foreground, of the class token, and for names; None for what
            the bundle has.
        labels: names of the C names in order, or None.
        examples: a folder with a folder of images for each name, or None.
        concepts: a bundle with concepts, or a file of vectors, whose names are taken, or None.
        name: the new bundle's.
        trained_on: what the card says about the images.
        steps: where the passes of k-means run; None for this machine.
        extraction: where the backbone looks at the images; None for this machine.
    """

    images: Path
    settings: Settings
    bundle: Path
    work: Path
    sets: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    examples: Path | None = None
    concepts: Path | None = None
    name: str
    trained_on: str
    steps: Steps | None = None
    extraction: Extraction | None = None


def feature_sets(bundle: Bundle, asked: Sequence[str] | None, *, dataset_only: bool) -> tuple[str, ...]:
    """The feature sets for the foreground, of the class token, and for names.

    Args:
        asked: their names; None for the first of patches, the first of the image, and "semantic", or the
            first of patches where there is none.
        dataset_only: there is one, for names; asked for, or as above.
    Raises:
        OptionError: one that was asked for is not there, or is of the other kind.
        ExportError: the backbone has no class token.
    """
    known = bundle.spec.backbone.features
    patches = [name for name, one in known.items() if one.of_patches]
    tokens = [name for name, one in known.items() if one.of_image]
    make = "make it with `patchcut export backbone --features key,semantic=token@8,cls`"
    if asked is None:
        if not patches:
            raise ExportError("features", f"{bundle.path} has no features of patches", make)
        names = "semantic" if "semantic" in patches else patches[0]
        if dataset_only:
            return (names,)
        if not tokens:
            raise ExportError(
                "features", f"{bundle.path} has no class token, by which images are grouped", make
            )
        return patches[0], tokens[0], names
    wanted = 1 if dataset_only else 3
    kinds = (patches,) if dataset_only else (patches, tokens, patches)
    if len(asked) != wanted:
        what = (
            "one set of patches"
            if dataset_only
            else "a set of patches, one of the class token, one of patches"
        )
        raise OptionError("features", f"must be {what}, got {', '.join(asked)}")
    for name, kind in zip(asked, kinds, strict=True):
        if name not in kind:
            of = "the class token" if kind is tokens else "patches"
            raise OptionError(
                "features", f"must be of {of}: {', '.join(kind) or 'none is'}, got {name}", make
            )
    return tuple(asked)


def attention_sets(bundle: Bundle) -> list[str]:
    """The first set that is the class token's attention, if there is one."""
    sets = bundle.spec.backbone.features.items()
    return [name for name, one in sets if all(part.facet == "attention" for part in one.components)][:1]
