"""Embeddings of texts, by the text tower of a bundle in ONNX Runtime; torch is not needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, TextSpec
from patchcut.engines.onnxruntime import import_onnxruntime, session_options
from patchcut.errors import BundleError, OptionError
from patchcut.heads.naming import unit
from patchcut_kernels import default_threads

from patchcut_export.retrieval.prompts import PLAIN
from patchcut_export.retrieval.tokenizer import Tokenizer, text_spec

Float32 = npt.NDArray[np.float32]

_BATCH = 16


class TextEncoder:
    """Texts to unit vectors among the embeddings of a bundle's image tower.

    Attributes:
        spec: what the bundle says of the text tower.
    """

    def __init__(self, spec: TextSpec, tokenizer: Tokenizer, session: Any) -> None:
        self.spec = spec
        self._tokenizer = tokenizer
        self._session = session

    @classmethod
    def open(cls, bundle: Bundle, *, threads: int | None = None) -> TextEncoder:
        """The text tower of a bundle, which may be closed afterwards.

        Args:
            bundle: one that `patchcut export clip` made.
            threads: CPU threads; None is as many as suit the machine.
        Raises:
            BundleError: it has no text tower, or is damaged.
            ExportError: a library of the extra concepts is missing.
            EngineError: onnxruntime is missing.
        """
        spec = text_spec(bundle)
        tokenizer = Tokenizer.open(bundle)
        ort = import_onnxruntime()
        options = session_options(ort, threads or default_threads(), "fp32")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        tensors = bundle.read_tensors(spec.weights)
        if missing := sorted(set(spec.initializers) - set(tensors)):
            problem = f"{bundle.path} is damaged: {spec.weights} lacks {missing[0]}"
            raise BundleError("bundle", problem, "export it again")
        try:
            if spec.initializers:
                values = [ort.OrtValue.ortvalue_from_numpy(tensors[name]) for name in spec.initializers]
                options.add_external_initializers(list(spec.initializers), values)
            session = ort.InferenceSession(
                bundle.read(spec.file), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            problem = f"{bundle.path} is foreign: onnxruntime cannot load {spec.file}: {error}"
            raise BundleError("bundle", problem, "upgrade onnxruntime, or export it again") from error
        return cls(spec, tokenizer, session)

    def encode(self, texts: Sequence[str]) -> Float32:
        """Unit vectors [m, dim] float32 of texts.

        Raises:
            OptionError: a text is empty, or longer than the tokenizer takes.
        """
        tokens = self._tokenizer(texts)
        parts = [tokens[i : i + _BATCH] for i in range(0, len(tokens), _BATCH)]
        made = [self._session.run(["text"], {"tokens": part})[0] for part in parts]
        return unit(np.concatenate(made)) if made else np.zeros((0, self.spec.dim), np.float32)

    def encode_names(self, names: Sequence[str], templates: Sequence[str] = PLAIN) -> Float32:
        """Unit vectors [m, dim] float32 of names: the mean of those of each name in every template.

        That is the prompt ensemble of CLIP (Radford et al., 2103.00020, section 3.1.4).

        Args:
            names: of things, such as "fire extinguisher".
            templates: with {} where a name goes, such as "a photo of a {}.".
        Raises:
            OptionError: a name or a template is empty or too long, or a template has no {}.
        """
        for name in names:
            if not name.strip():
                raise OptionError("text", f"{name!r} says nothing", "write a word")
        for template in templates:
            if template.count("{}") != 1:
                raise OptionError("prompts", f"each must have one {{}}, got {template!r}")
        rows = self.encode([template.replace("{}", name) for name in names for template in templates])
        return unit(rows.reshape(len(names), len(templates), -1).mean(axis=1))
