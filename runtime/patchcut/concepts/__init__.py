"""Concepts of a segmenter: shown, named and taken away while it runs."""

from patchcut.concepts.collection import Concepts

__all__ = ["Concepts"]
