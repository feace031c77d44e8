"""Texts to tokens as CLIP models take them, by the library tokenizers; torch is not needed."""

from __future__ import annotations

import html
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, TextSpec
from patchcut.errors import BundleError, OptionError, install_hint

from patchcut_export.errors import ExportError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """The tokenizer of one text tower.

    Args:
        spec: how texts are cleaned, what is put around their tokens, and how many there may be.
        data: the bytes of its `tokenizer.json`.
    Raises:
        ExportError: the library tokenizers or ftfy is missing.
        ValueError: `data` is no tokenizer.
    """

    def __init__(self, spec: TextSpec, data: bytes) -> None:
        tokenizers = import_tokenizers()
        self._spec = spec
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises bare exceptions
            raise ValueError(str(error)) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @classmethod
    def open(cls, bundle: Bundle) -> Tokenizer:
        """The tokenizer of a bundle with a text tower.

        Raises:
            BundleError: it has none, or it is damaged.
            ExportError: as the class does.
        """
        spec = text_spec(bundle)
        try:
            return cls(spec, bundle.read(spec.tokenizer))
        except ValueError as error:
            problem = f"{bundle.path} is foreign: {spec.tokenizer} cannot be read: {error}"
            raise BundleError("bundle", problem, "export it again") from error

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens [m, context_length] of texts.

        Raises:
            OptionError: "[text] 'a long ...' has 90 tokens, at most 77 can be read; ..."; or one is empty.
        """
        tokens = np.full((len(texts), self._spec.context_length), self._spec.pad, np.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._encode(text)
            row[: len(ids)] = ids
        return tokens

    def _encode(self, text: str) -> list[int]:
        spec = self._spec
        cleaned = clean_text(text, spec.clean)
        if not cleaned:
            raise OptionError("text", f"{text!r} says nothing", "write a word")
        own = spec.start is None and spec.end is None
        ids = list(self._tokenizer.encode(cleaned, add_special_tokens=own).ids)
        ids = [one for one in (spec.start, *ids, spec.end) if one is not None]
        if len(ids) > spec.context_length:
            most = f"at most {spec.context_length} can be read"
            raise OptionError("text", f"{text!r} has {len(ids)} tokens, {most}", "write less")
        return ids


def clean_text(text: str, how: str) -> str:
    """A text as open_clip cleans it before it is tokenized: "lower", "whitespace" or "canonicalize".

    Examples:
        >>> from patchcut_export.retrieval.tokenizer import clean_text
        >>> clean_text("  A Dog&amp;Cat ", "lower")
        'a dog&cat'
    """
    text = html.unescape(html.unescape(_import("ftfy").fix_text(text))).strip()
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()


def text_spec(bundle: Bundle) -> TextSpec:
    """What a bundle says of its text tower.

    Raises:
        BundleError: it has none.
    """
    if bundle.spec.text is None:
        problem = f"{bundle.path} has no text tower"
        raise BundleError("bundle", problem, "make one that has with `patchcut export clip`")
    return bundle.spec.text


def openai_tokenizer(encoder: dict[str, int], merges: Sequence[tuple[str, str]]) -> bytes:
    """`tokenizer.json` of CLIP's byte-level BPE, from the vocabulary and the merges of open_clip's.

    The bytes of a word are merged, the last of them with "</w>"; start and end are not put around.
    """
    tokenizers = import_tokenizers()
    bpe = tokenizers.models.BPE(
        vocab=encoder, merges=list(merges), end_of_word_suffix="</w>", continuing_subword_prefix=""
    )
    made: Any = tokenizers.Tokenizer(bpe)
    words = tokenizers.Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(words, behavior="removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    data: bytes = made.to_str().encode()
    return data


def import_tokenizers() -> Any:
    """The module `tokenizers`.

    Raises:
        ExportError: it is not installed.
    """
    return _import("tokenizers")


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError("text", f"{name} is missing: {error}", install_hint("concepts")) from error
