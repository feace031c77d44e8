"""Writes bundles: whole or not at all, the same bytes for the same content. Not needed to run one."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from patchcut.bundle.archive import MANIFEST, Bundle
from patchcut.bundle.card import render_card
from patchcut.bundle.spec import BundleSpec, FileSpec, HeadSpec
from patchcut.output.whole_files import whole_file

CARD = "card.md"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def with_head(spec: BundleSpec, head: HeadSpec) -> BundleSpec:
    """A copy with this head in the place of the one of its name, or else as the first of its role.

    Calibration and report are the head's own: those of the old one are gone with it.
    """
    heads, names = list(spec.heads), [old.name for old in spec.heads]
    if head.name in names:
        heads[names.index(head.name)] = head
    else:
        roles = [old.role for old in heads]
        heads.insert(roles.index(head.role) if head.role in roles else len(heads), head)
    return spec.model_copy(update={"heads": tuple(heads)})


def rewrite_bundle(
    bundle: Bundle, path: Path, spec: BundleSpec, members: Mapping[str, bytes] | None = None
) -> None:
    """Writes a changed copy of a bundle.

    Args:
        bundle: the bundle to copy; `path` may be its own.
        path: the .patchcut file to write; it is replaced once the new one is whole.
        spec: the manifest of the copy, such as `with_head` makes from `bundle.spec`.
        members: those that the bundle has not, or has otherwise; what `spec` does not name is left out.
    """
    changed, named = members or {}, spec.members() - {spec.card}
    names = [name for name in dict.fromkeys([*bundle.spec.files, *changed]) if name in named]
    copied = {name: bundle.spec.files[name] for name in names if name not in changed}
    kept = {name: bundle.read_unparsed(name) if name in copied else changed[name] for name in names}
    write_bundle(path, spec, kept, copied)


def write_bundle(
    path: Path, spec: BundleSpec, members: dict[str, bytes], known: Mapping[str, FileSpec] | None = None
) -> None:
    """Writes a bundle from its manifest and its members; the card, checksums and sizes are made here.

    Args:
        known: checksums and sizes of members that were found right just now.
    """
    members = {**members, CARD: render_card(spec).encode()}
    new = {name: data for name, data in members.items() if name not in (known or {})}
    told = {**(known or {}), **file_specs(new)}
    fields = {**spec.model_dump(), "card": CARD, "files": {name: told[name] for name in members}}
    write_archive(path, BundleSpec.model_validate(fields).model_dump_json(indent=1), members)


def file_specs(members: Mapping[str, bytes]) -> dict[str, FileSpec]:
    """What `bundle.json` says of members."""
    return {
        name: FileSpec(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in members.items()
    }


def write_archive(path: Path, manifest: str, members: dict[str, bytes]) -> None:
    """Writes a bundle: the same members give the same bytes.

    Members are stored, not compressed, so that they can be read in place and so that two versions of a bundle
    differ only where their members do.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: manifest.encode(), **members}.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
