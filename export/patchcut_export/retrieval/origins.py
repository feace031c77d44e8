"""Weights and tokenizers of CLIP models: of files, or of the hub where that is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchcut.errors import OptionError

from patchcut_export.backbones.origins import Told, fetch_hub, file_sha256
from patchcut_export.backbones.weights import Provenance, StateDict, load_tensors
from patchcut_export.errors import ExportError
from patchcut_export.retrieval.models import ModelConfig, import_open_clip, parameter_bytes
from patchcut_export.retrieval.tokenizer import import_tokenizers, openai_tokenizer

_SAFETENSORS, _PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_UNSURE = "not known here: see its page"
# By how open_clip's tags begin: the licence of the weights, and what they were trained on.
_FAMILIES = {
    "openai": ("MIT", "WIT, 400 million pairs of the web that OpenAI has not published"),
    "laion": ("MIT", "LAION, pairs of the web"),
    "datacomp": ("MIT", "DataComp, pairs of the web"),
    "commonpool": ("MIT", "CommonPool, pairs of the web"),
    "yfcc": ("MIT", "YFCC15M"),
    "webli": ("Apache-2.0", "WebLI, pairs of the web that Google has not published"),
    "metaclip": ("CC-BY-NC-4.0", "MetaCLIP, pairs of Common Crawl"),
}


@dataclass(frozen=True)
class Access:
    """What may be fetched.

    Attributes:
        download: whether the network may be used.
        cache: folder for downloads, None for the hub's own.
        say: called with a line for each step.
    """

    download: bool
    cache: Path | None
    say: Callable[[str], None]


@dataclass(frozen=True)
class TextFile:
    """A tokenizer as the bundle keeps it; the fields are `patchcut.bundle.TextSpec`'s."""

    data: bytes
    clean: str
    pad: int
    start: int | None = None
    end: int | None = None


def get_clip_weights(
    config: ModelConfig, weights: str, told: Told, access: Access
) -> tuple[StateDict, Provenance, Mapping[str, Any]]:
    """A model's state dict, where it is from, and what open_clip says of these weights.

    Args:
        config: the model.
        weights: a file, or open_clip's tag, such as "openai" or "laion2b_s34b_b88k".
        told: what the user says of them, which goes before what is known.
        access: what may be fetched.
    Raises:
        OptionError: there is neither such a file nor such a tag.
        ExportError: they are not here and may not be fetched, or cannot be had or read.
    """
    path = Path(weights)
    if path.suffix in _WEIGHT_SUFFIXES:
        state, digest = load_tensors(path), file_sha256(path)
        origin = Provenance(
            told.source or "a local file",
            digest,
            told.licence or "not stated",
            told.trained_on or "not stated",
        )
        return state, origin, {}
    published = _published(config, weights)
    repository, licence = published["repository"], published["licence"]
    size = parameter_bytes(config)
    what = f"{config.name} {weights}: {repository} on the Hugging Face hub, about {size / 1e6:,.0f} MB"
    path = _fetch(repository, published["files"], f"{what}, licence: {licence}", access)
    origin = Provenance(
        source=told.source or f"{repository} on the Hugging Face hub, {path.name}",
        sha256=file_sha256(path),
        licence=told.licence or licence,
        trained_on=told.trained_on or published["trained_on"],
    )
    return load_tensors(path), origin, published["fields"]


def get_tokenizer(config: ModelConfig, given: Path | None, access: Access) -> TextFile:
    """A model's tokenizer.

    Args:
        config: the model.
        given: a `tokenizer.json`, or a folder that has one, beside a `tokenizer_config.json`; None is
            open_clip's own, or the hub's that the model names.
        access: what may be fetched.
    Raises:
        ExportError: it is not here and may not be fetched, cannot be read, or cannot be exported.
    """
    text = config.fields["text_cfg"]
    options = dict(text.get("tokenizer_kwargs", {}))
    repository = text.get("hf_tokenizer_name")
    if given is None and repository is None:
        return _own_tokenizer(options.get("clean", "lower"))
    if options.get("strip_sep_token") or options.get("tokenizer_mode"):
        raise ExportError("clip", f"the tokenizer of {config.name} is of a kind that cannot be exported")
    clean = options.get("clean", "whitespace" if repository else "lower")
    if given is not None:
        folder = given if given.is_dir() else given.parent
        return _read_tokenizer(given / _TOKENIZER if given.is_dir() else given, folder, clean)
    what = f"the tokenizer of {config.name}: {repository} on the Hugging Face hub, about 3 MB"
    path = _fetch(repository, (_TOKENIZER,), what, access, "--tokenizer FILE")
    _fetch(repository, (_TOKENIZER_CONFIG,), what, access, "--tokenizer FILE")
    return _read_tokenizer(path, path.parent, clean)


def _published(config: ModelConfig, tag: str) -> dict[str, Any]:
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(config.name)
    fields = open_clip.get_pretrained_cfg(config.name, tag)
    if not fields:
        listed = ", ".join(tags) or "none"
        problem = f"there is no file {tag}, and open_clip has no such weights of {config.name}"
        raise OptionError("weights", problem, f"it has: {listed}")
    place = fields.get("hf_hub", "")
    if not place:
        problem = f"{tag} of {config.name} is not on the Hugging Face hub"
        raise ExportError("weights", problem, f"download {fields.get('url', 'it')}, and pass --weights FILE")
    repository, _, file = place.rpartition("/")
    files = (file,) if file else (_SAFETENSORS, _PICKLE)
    family = next((one for one in _FAMILIES if tag.startswith(one)), "")
    licence, trained_on = _FAMILIES.get(family, (_UNSURE, _UNSURE))
    return {
        "repository": repository,
        "files": files,
        "licence": licence,
        "trained_on": trained_on,
        "fields": fields,
    }


def _fetch(
    repository: str, files: tuple[str, ...], what: str, access: Access, instead: str = "--weights FILE"
) -> Path:
    """The first of a repository's files that there is: cached, or fetched where that is allowed."""
    import huggingface_hub

    for file in files:
        cached = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=access.cache)
        if isinstance(cached, str):
            access.say(f"cached: {what}")
            return Path(cached)
    if not access.download:
        raise ExportError("weights", f"not on this machine: {what}", f"add --download, or pass {instead}")
    access.say(f"fetching {what}")
    *first, last = files
    for file in first:
        try:
            return fetch_hub(repository, access.cache, file)
        except ExportError as error:
            if "has no" not in error.what:
                raise
    return fetch_hub(repository, access.cache, last)


def _own_tokenizer(clean: str) -> TextFile:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer()
    data = openai_tokenizer(own.encoder, list(own.bpe_ranks))
    return TextFile(data, clean, 0, own.sot_token_id, own.eot_token_id)


def _read_tokenizer(path: Path, folder: Path, clean: str) -> TextFile:
    tokenizers = import_tokenizers()
    try:
        data = path.read_bytes()
        made = tokenizers.Tokenizer.from_buffer(data)
        beside = folder / _TOKENIZER_CONFIG
        padding = json.loads(data).get("padding") or {}
        token: Any = json.loads(beside.read_text("utf-8")).get("pad_token") if beside.is_file() else None
    except OSError as error:
        raise ExportError("clip", f"cannot read {path}: {error.strerror}", "check the path") from error
    except Exception as error:  # the library raises bare exceptions
        raise ExportError("clip", f"{path} is no tokenizer.json: {error}", "copy it again") from error
    name = token.get("content") if isinstance(token, dict) else token
    pad = made.token_to_id(name) if name else padding.get("pad_id")
    if pad is None:
        problem = f"{path} does not say with which token texts are filled up"
        raise ExportError("clip", problem, f"put its {_TOKENIZER_CONFIG} beside it")
    return TextFile(data, clean, pad)
